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

from store.files import hash_file, read_json
from store.provenance import provenance
from store.stages import Stage, stage_key
from store.console import run_command
from task.errors import InputError
from train.tracking import prepare_wandb

if TYPE_CHECKING:
    import wandb

TRACKED = "tracked"
"""Folder of a run whose manifest says what was logged."""

HEADLINE = ("r", "boot_low", "boot_high", "n_contexts", "valid_reports", "total_reports")


def track(run: Path) -> str:
    """Log a run's analysis once; returns what was done, in words.

    Raises:
        InputError: The run has no analysis, or W&B cannot be reached although it is online.
    """
    record, found = read_json(run / "run.json"), read_json(run / "analysis" / "summary.json")
    figures = sorted((run / "analysis" / "figures").glob("*.png"))
    mode = prepare_wandb(run)
    if mode == "disabled":
        return "W&B is disabled, nothing is logged"
    circumstances = provenance()  # of no figure
    inputs = {
        "run": record["name"],
        "summary": stage_key({name: value for name, value in found.items() if name not in circumstances}),
        "files": {path.name: hash_file(path) for path in [*figures, *_tables(run).values()]},
    }
    stage = Stage(run / TRACKED, inputs, overwrite=True)  # after another analysis, the new one is logged
    if stage.finished:
        return "logged before, nothing to do"
    import wandb  # slow to load, and of no use to those who only plan a run

    logged: dict[str, Any] = {f"evaluation/{name}": t for name, t in evaluation_tables(run, record, found).items()}
    logged |= {f"figures/{path.stem}": wandb.Image(str(path), caption=path.stem) for path in figures}
    shown = headline(record, found)
    try:
        # The id comes from the content: logged once more after a kill, it is the same run.
        tracked = wandb.init(
            id=stage_key(inputs),
            resume="allow",
            group=record["name"],
            name=f"{record['name']}/analysis",
            job_type="analysis",
            config={"seed": record["seed"], "experiment": record["experiment"], "model": record["model"]},
        )
    except wandb.Error as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"W&B: {reason}; log in (wandb login), or set WANDB_MODE=offline or disabled") from None
    with tracked:
        tracked.log(logged)
        tracked.summary.update(shown)
    stage.finish({"id": tracked.id, "mode": mode, "figures": len(figures)})
    return f"logged ({mode})"


def evaluation_tables(run: Path, record: dict[str, Any], found: dict[str, Any]) -> dict[str, wandb.Table]:
    """Agreement of every comparison, weights, decisions of every arm, missing reports by reason, and the gate."""
    frames = {name: pd.read_csv(path) for name, path in _tables(run).items()}
    arms = [(*key.split("/", 1), *entry.values()) for key, entry in found["decisions"].items()]
    measures = [*next(iter(found["decisions"].values()))]
    frames["decisions"] = pd.DataFrame(arms, columns=["arm", "contexts", *measures])
    missing = [
        (c["name"], reason, count)
        for c in record["comparisons"]
        for reason, count in found[c["name"]]["unreadable"].items()
    ]
    frames["missing_reports"] = pd.DataFrame(missing, columns=["comparison", "reason", "count"])
    gate = {**found["gate"], "reasons": "; ".join(found["gate"]["reasons"])}
    frames["gate"] = pd.DataFrame([{"measure": name, "found": str(value)} for name, value in gate.items()])
    return {name: _table(frame) for name, frame in frames.items()}


def headline(record: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The figures worth comparing across runs: the gate, r with its interval, readable reports; none not testable."""
    values: dict[str, Any] = {f"gate/{name}": found["gate"][name] for name in ("passed", "agreement", "share_a")}
    for name in ("learned_vs_target", *(c["name"] for c in record["comparisons"])):
        values |= {f"{name}/{measure}": found[name][measure] for measure in HEADLINE}
    for name, gain in found["differences"].items():
        values |= {f"{name}/{measure}": gain[measure] for measure in ("difference", "boot_low", "boot_high")}
    values |= {f"stopped_early/{arm}": reason for arm, reason in found["stopped_early"].items()}
    return {name: value for name, value in values.items() if value is not None}


def _tables(run: Path) -> dict[str, Path]:
    return {name: run / "analysis" / f"{name}.csv" for name in ("agreement", "weights")}


def _table(frame: pd.DataFrame) -> wandb.Table:
    """A W&B table; what is missing is null, not NaN."""
    import wandb

    rows = json.loads(frame.to_json(orient="values"))
    return wandb.Table(columns=[*frame.columns], data=rows, allow_mixed_types=True)


def main() -> None:
    """Command line: `--run FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder, e.g. runs/demo-seed0")
    run = parser.parse_args().run
    print(f"{run}: {track(run)}")


if __name__ == "__main__":
    run_command(main)
