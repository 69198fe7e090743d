"""Log what a finished run found to Weights & Biases: tables, figures and headline figures, beside its training curves.

    python -m experiment.track --run runs/demo-seed0

One W&B run, `<run>/analysis`, in the group of the run's trainings. Offline (the default without a login) it waits in
the run's folder for: wandb sync runs/demo-seed0/wandb/offline-run-*. What was logged before is not logged again.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from store.console import run_command, say
from store.locks import held
from store.manifests import TrackedFacts
from store.run import RunFolder, RunRecord, read_run
from store.stages import Stage, stage_key
from store.state import TABLES, tracked_files
from store.summary import ComparisonSummary, RunSummary, read_summary
from train.tracking import prepare_wandb, start_wandb

if TYPE_CHECKING:
    import wandb


def track(folder: Path) -> str:
    """Log a run's analysis once; returns what was done, in words.

    Raises:
        InputError: The run has no analysis.
    """
    run, record = RunFolder(folder), read_run(folder)
    found = read_summary(run.analysis / "summary.json")
    if prepare_wandb(folder) == "disabled":
        return "W&B is disabled, nothing is logged"
    with held(run.tracked):
        return _log(run, record, found)


def _log(run: RunFolder, record: RunRecord, found: RunSummary) -> str:
    """Log an analysis, unless it was logged before; returns what was done."""
    inputs = {"run": record.name, "summary": found.key, "files": tracked_files(run)}
    stage = Stage(run.tracked, inputs, overwrite=True)  # after another analysis, the new one is logged
    if stage.finished:
        return "logged before, nothing to do"
    import wandb  # slow to load, and of no use to those who only plan a run

    figures = sorted((run.analysis / "figures").glob("*.png"))
    logged: dict[str, Any] = {f"evaluation/{name}": table for name, table in evaluation_tables(run, found).items()}
    logged |= {f"figures/{path.stem}": wandb.Image(str(path), caption=path.stem) for path in figures}
    mode = start_wandb(dict.fromkeys(("online", "offline"), _identity(record, stage_key(inputs))))
    if mode == "disabled" or wandb.run is None:
        return "nothing is logged"
    with wandb.run as tracked:
        tracked.log(logged)
        tracked.summary.update(headline(found))
    stage.finish(TrackedFacts(id=tracked.id, mode=mode, figures=len(figures)))
    return f"logged to W&B ({mode})"


def _identity(record: RunRecord, key: str) -> dict[str, Any]:
    """The W&B run of an analysis. Its id comes from the content: logged once more after a kill, it is the same run."""
    return {
        "id": key,
        "resume": "allow",
        "group": record.name,
        "name": f"{record.name}/analysis",
        "job_type": "analysis",
        "config": record.model_dump(mode="json", include={"seed", "experiment", "model"}),
    }


def evaluation_tables(run: RunFolder, found: RunSummary) -> dict[str, wandb.Table]:
    """Agreement of every comparison, weights, decisions of every arm, missing reports by reason, and the gate."""
    frames = {name: pd.read_csv(run.analysis / f"{name}.csv") for name in TABLES}
    frames["decisions"] = pd.DataFrame(
        [
            {
                **{"arm": arm, "group": group, **decisions.model_dump()},
                "undecided": json.dumps(decisions.undecided),
                "reasons": "; ".join(decisions.reasons),
            }
            for key, decisions in found.decisions.items()
            for arm, _, group in [key.rpartition("/")]
        ]
    )
    missing = [(name, reason, count) for name, c in found.comparisons.items() for reason, count in c.unreadable.items()]
    frames["missing_reports"] = pd.DataFrame(missing, columns=["comparison", "reason", "count"])
    gates = {"": found.gate, **{f"{arm}: ": gate for arm, gate in found.instillations.items()}}
    measures = [
        {"measure": f"{of}{name}", "found": "; ".join(value) if name == "reasons" else str(value)}
        for of, gate in gates.items()
        for name, value in gate.model_dump().items()
    ]
    frames["gate"] = pd.DataFrame(measures)
    return {name: _table(frame) for name, frame in frames.items()}


def headline(found: RunSummary) -> dict[str, Any]:
    """The figures worth comparing across runs: the gate, r with its interval, readable reports.

    A figure that is not testable is left out, and the reason stands in its place.
    """
    values: dict[str, Any] = {
        "gate/passed": found.gate.passed,
        "gate/agreement": found.gate.agreement,
        "gate/agreement_low": found.gate.agreement_low,
        "gate/r": found.gate.r,
        "gate/r_low": found.gate.r_low,
        "gate/share_a": found.gate.share_a,
    }
    for name, c in {"learned_vs_target": found.learned_vs_target, **found.comparisons}.items():
        values |= {f"{name}/r": c.r, f"{name}/boot_low": c.boot_low, f"{name}/boot_high": c.boot_high}
        values |= {f"{name}/n_contexts": c.n_contexts, f"{name}/not_testable": c.reason}
        if isinstance(c, ComparisonSummary):
            values |= {f"{name}/valid_reports": c.valid_reports, f"{name}/total_reports": c.total_reports}
    for name, gain in found.differences.items():
        values |= {f"{name}/difference": gain.difference, f"{name}/not_testable": gain.reason}
        values |= {f"{name}/boot_low": gain.boot_low, f"{name}/boot_high": gain.boot_high}
    values |= {f"stopped_early/{arm}": reason for arm, reason in found.stopped_early.items()}
    return {name: value for name, value in values.items() if value is not None}


def _table(frame: pd.DataFrame) -> wandb.Table:
    """A W&B table; what is missing is null, not NaN."""
    import wandb

    rows = json.loads(frame.to_json(orient="values"))
    return wandb.Table(columns=[*frame.columns], data=rows, allow_mixed_types=True)


def main() -> None:
    """Command line: `--run FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder, e.g. runs/demo-seed0")
    say(track(parser.parse_args().run))


if __name__ == "__main__":
    run_command(main)
