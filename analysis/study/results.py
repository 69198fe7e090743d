"""What an analysis finds in a run: weights of every arm, agreement of every comparison, the gate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.study.comparisons import (
    ComparisonResult,
    Difference,
    MeasuredWeights,
    asked_arm,
    compare,
    differ,
    learned_against_target,
    measure_weights,
)
from analysis.study.gate import DecisionSummary, GateResult, judge, summarise_decisions
from store.contexts import load_contexts
from store.files import read_json
from store.stages import MANIFEST
from store.trials import DecisionTrials, ReportTrials, read_decisions, read_reports
from store.weights import load_weights
from task.contexts import ChoiceContext
from task.prompts import PROMPTS, measure_folder


@dataclass(frozen=True)
class RunResults:
    """All that the report of a run shows.

    Attributes:
        record: The run's `run.json`.
        groups: Names of the contexts of each group.
        attributes: Attribute names of each context.
        targets: Target weights by context.
        measured: Weights of each arm with decision trials; an arm asked in a variant of the prompts by `asked_arm`.
        decisions: How each arm decides, by (arm, group); variants likewise.
        learned_vs_target: Agreement of the gate arm's learned weights with the targets, with its points.
        gate: Whether instillation passed.
        comparisons: In the order of the experiment file.
        differences: Between two of them, likewise.
        curves: Training log of each trained arm, as TRL wrote it.
        manifests: Manifest of each stage by its folder within the run.
        stopped_early: Why the training of an arm was stopped before its end, by arm.
    """

    record: dict[str, Any]
    groups: dict[str, list[str]]
    attributes: dict[str, list[str]]
    targets: dict[str, NDArray[np.float64]]
    measured: dict[str, MeasuredWeights]
    decisions: dict[tuple[str, str], DecisionSummary]
    learned_vs_target: ComparisonResult
    gate: GateResult
    comparisons: list[ComparisonResult]
    differences: list[Difference]
    curves: dict[str, list[dict[str, Any]]]
    manifests: dict[str, dict[str, Any]]
    stopped_early: dict[str, str]


def analyse(run: Path) -> RunResults:
    """Estimate and compare all that a run has measured.

    Raises:
        InputError: The run folder or a trial file that a comparison needs is missing, cut or unfinished.
    """
    record = read_json(run / "run.json")
    groups = {name: load_contexts(run / file) for name, file in record["groups"].items()}
    contexts = {c.name: c for members in groups.values() for c in members}
    names = {name: [c.name for c in members] for name, members in groups.items()}
    targets = load_weights(run / "inputs" / "target_weights.csv")
    seed = record["seed"]
    decided, reported = _read_arms(run, contexts)
    measured = {arm: measure_weights(trials, seed) for arm, trials in decided.items()}
    decisions = {
        (arm, group): summary
        for arm, trials in decided.items()
        for group, members in names.items()
        if (summary := _decisions_on(trials, members, targets)) is not None
    }
    learned = learned_against_target(record["gate"], names, contexts, targets, measured, seed)
    comparisons = [compare(entry, contexts, measured, reported, seed) for entry in record["comparisons"]]
    gate_key = (record["gate"]["arm"], record["gate"]["contexts"])
    manifests = {str(p.parent.relative_to(run)): read_json(p) for p in _stage_manifests(run)}
    stopped = {Path(folder).name: m["stopped_early"] for folder, m in manifests.items() if m.get("stopped_early")}
    return RunResults(
        record=record,
        groups=names,
        attributes={name: c.attribute_names for name, c in contexts.items()},
        targets=targets,
        measured=measured,
        decisions=decisions,
        learned_vs_target=learned,
        gate=judge(
            decisions[gate_key],
            learned.agreement.r,
            stopped.get(gate_key[0]),
            manifests.get(f"adapters/{gate_key[0]}", {}).get("missing_skill"),
        ),
        comparisons=comparisons,
        differences=[differ(entry, comparisons, seed) for entry in record["differences"]],
        curves={p.parent.name: read_json(p) for p in sorted(run.glob("adapters/*/log_history.json"))},
        manifests=manifests,
        stopped_early=stopped,
    )


def _stage_manifests(run: Path) -> list[Path]:
    """Manifests of the stages that an analysis rests on, not of other analyses in the run's folder."""
    return [
        path for part in ("inputs", "examples", "adapters", "trials") for path in sorted((run / part).rglob(MANIFEST))
    ]


def _read_arms(
    run: Path, contexts: dict[str, ChoiceContext]
) -> tuple[dict[str, DecisionTrials], dict[str, ReportTrials]]:
    """All finished trial files of a run; those of an unfinished evaluation are named when a comparison needs them."""
    decided, reported = {}, {}
    for measure, variants in PROMPTS.items():
        for variant in variants:
            for path in sorted(run.glob(f"trials/*/{measure_folder(measure, variant)}/{MANIFEST}")):
                asked = asked_arm(path.parent.parent.name, measure, variant)
                if measure == "decisions":
                    decided[asked] = read_decisions(path.parent, contexts)
                else:
                    reported[asked] = read_reports(path.parent)
    return decided, reported


def _decisions_on(
    trials: DecisionTrials, members: list[str], targets: dict[str, NDArray[np.float64]]
) -> DecisionSummary | None:
    rows = np.isin(trials.contexts, members)
    if not rows.any():
        return None
    known = all(name in targets for name, row in zip(trials.contexts, rows, strict=True) if row)
    stacked = np.stack([targets.get(n, np.full(trials.difference.shape[2], np.nan)) for n in trials.contexts])
    return summarise_decisions(trials, rows, stacked if known else None)
