"""Runs of which a study knows nothing but what a test plants in their summary."""

from __future__ import annotations

from typing import Any

from analysis.study.several import StudyRun, study_run
from store.model_file import ModelFile
from store.run import GateRecord, RunRecord
from store.summary import AgreementSummary, GateSummary, RunSummary


def bare_run(seed: int, model: str | None = None, name: str = "looked", **told: Any) -> StudyRun:
    """A run as a study sees it, of which `told` is all that its summary says."""
    record = RunRecord(
        name=f"{name}-seed{seed}",
        seed=seed,
        groups={},
        arms={},
        gate=GateRecord(arm="instilled", contexts="instilled"),
        comparisons=[],
        differences=[],
        model=ModelFile(name=model) if model else None,
        experiment={},
    )
    return study_run(record, bare_summary(record.name, seed, **told), None)


def bare_summary(run: str, seed: int, **told: Any) -> RunSummary:
    """A summary of which `told` is all that it says."""
    gate = dict.fromkeys(GateSummary.model_fields) | {"passed": False, "reasons": []}
    check = {name: 0 if field.annotation is int else None for name, field in AgreementSummary.model_fields.items()}
    bare: dict[str, Any] = {
        name: {} for name in ("instillations", "comparisons", "differences", "families", "decisions", "stopped_early")
    }
    bare |= {"trial_files": {}, "missing_reports": [], "packages": {}, "host": {}, "python": "3", "git": None}
    bare |= {"wording": "plain/trial", "smallest_effect": None}
    bare |= {"gate": gate, "learned_vs_target": check | {"testable": False, "reason": "none"}}
    plain = {name: value.model_dump() if hasattr(value, "model_dump") else value for name, value in told.items()}
    return RunSummary.model_validate({"run": run, "seed": seed, **bare, **plain})
