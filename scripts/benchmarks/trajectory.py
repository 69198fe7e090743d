"""What a trajectory of ten checkpoints costs beside the measurement of ten arms.

    python scripts/benchmarks/trajectory.py --out results/benchmarks/trajectory.json

The model organism learns to decide in 16 contexts, once with ten of its steps kept and once without. Then the ten kept
steps are measured, and the finished adapter ten times under other names; in both cases the finished arm as well. Each
stage is the command that an experiment runs, its start included. Seconds are the processor's.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from scripts.benchmarks.timing import save, show
from store.console import run_command
from store.paths import ROOT
from task.errors import InputError

ARMS, STEPS = 10, 100
"""Checkpoints, or arms, and the steps of the training."""

CONTEXTS = {"file": "task/data/instilled.jsonl", "count": 16, "ratings": True, "layout": "side_by_side"}
MEASURED: tuple[dict[str, Any], ...] = (
    {"measure": "decisions", "per_context": 10},
    {"measure": "reports", "constrained": True, "per_context": 2},
)


def experiment(name: str, kept: bool) -> dict[str, Any]:
    """The experiment file with ten kept steps, or with ten arms that are each the finished adapter."""
    training = {
        "teach": "decisions",
        "contexts": "instilled",
        "train_per_context": 2 * STEPS,
        "validation_per_context": 0,
        "sft": {"max_steps": STEPS, "stop_patience": 0},
    }
    copies = [f"copy_{number}" for number in range(ARMS)]
    of = {"reports": "instilled", "reports_constrained": True, "weights": "instilled", "contexts": "instilled"}
    asked = [
        {"arm": "instilled"},
        *([{"arm": "instilled", "kept": True}] if kept else [{"arm": arm} for arm in copies]),
    ]
    # The last step is the arm itself, so the kept ones lie before it.
    more = {"keep_every": [STEPS // (ARMS + 1) * place for place in range(1, ARMS + 1)]} if kept else {}
    return {
        "name": name,
        "seeds": [0],
        "model": "configs/models/organism.yaml",
        "engine": {"name": "transformers", "batch_size": 64, "shard_size": 512, "report_tokens": 64},
        "contexts": {"instilled": CONTEXTS},
        "trainings": {"instilled": training | more},
        "derived": {} if kept else {arm: {"instilled": 1} for arm in copies},
        "measurements": [{**arm, **measure, "contexts": "instilled"} for arm in asked for measure in MEASURED],
        "gate": {"arm": "instilled", "contexts": "instilled"},
        "comparisons": [{"name": "instilled", **of}],
        "differences": [],
    }


def seconds_of(file: Path, *stages: str) -> float:
    """Processor seconds of some stages of an experiment, all its processes together.

    Raises:
        InputError: One of them failed.
    """
    command = [sys.executable, "scripts/run_experiment.py", str(file), "--runs", str(file.parent), "--only", *stages]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=ROOT, env=one_thread, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        raise InputError(f"{file.stem}, {' '.join(stages)}: {result.stderr.strip()[-300:]}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Seconds of the training and of the evaluation, with kept steps and with ten arms."""
    found = {}
    for name, kept in (("kept", True), ("arms", False)):
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(experiment(name, kept)), encoding="utf-8")
        seconds_of(file, "instilled.examples")
        training = seconds_of(file, "instilled.sft")
        if not kept:
            seconds_of(file, *(f"copy_{number}.derive" for number in range(ARMS)))
        found[name] = {"training": round(training, 2), "evaluation": round(seconds_of(file, "evaluate"), 2)}
    return found


def main() -> None:
    """Command line: `[--out FILE.json]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    kept, arms = found["kept"], found["arms"]
    ratio = (kept["training"] - arms["training"] + kept["evaluation"]) / arms["evaluation"]
    show("Seconds of the processor", [{"what": name, **figures} for name, figures in found.items()])
    show("Trajectory beside ten arms", [{"more training, and evaluation, over that of ten arms": round(ratio, 3)}])
    save(arguments.out, arms=ARMS, steps=STEPS, processor_seconds=found, ratio=round(ratio, 3))


if __name__ == "__main__":
    run_command(main)
