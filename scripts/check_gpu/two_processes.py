"""Two processes, each with a GPU: a training and an evaluation that they share, beside one process alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import yaml

from eval.parts import visible_gpus
from experiment.stage import training_command
from scripts.check_gpu.checking import Asked, Found, Skipped
from scripts.check_gpu.models import ORGANISM, write_contexts
from scripts.check_gpu.training import RATE, ROWS, write_rows
from store.checkpoints import LOG
from store.files import hash_file, read_json
from store.paths import ROOT, project_file

APART = 0.05
"""Most that losses of one and of two processes may differ: they add in another order, and each step carries it on."""

STEPS = 8


def losses(output: Path, launch: str, processes: int, values: dict[str, Any]) -> list[float]:
    """Losses of the steps of a training that is launched as users launch it."""
    config = output.with_suffix(".yaml")
    config.write_text(yaml.safe_dump({**values, "output_dir": str(output)}))
    script = [str(project_file("train/sft.py")), "--config", str(config)]
    command = training_command(script, project_file(f"configs/accelerate/{launch}.yaml"), {})
    if processes > 1:
        command = [*command[: -len(script)], "--num_processes", str(processes), *script]
    _run(command)
    return [entry["loss"] for entry in read_json(output / LOG) if "loss" in entry]


def trial_files(folder: Path, contexts: Path, processes: int, asked: Asked) -> list[str]:
    """Hashes of the trial files of an evaluation that so many processes share."""
    config = folder.with_suffix(".yaml")
    group = [{"name": "checked", "file": str(contexts)}]
    values = {
        "seed": 0,
        "output": str(folder),
        "engine": {"name": "transformers", "batch_size": asked.sizes.batch, "shard_size": 4},
        "model": {"name": str(ORGANISM)},
        "arms": {"base": None},
        "measurements": [{"arm": "base", "measure": "decisions", "per_context": 4, "contexts": group}],
    }
    config.write_text(yaml.safe_dump(values))
    _run([sys.executable, "-m", "eval.run", "--config", str(config), "--processes", str(processes)])
    return [hash_file(path) for path in sorted(folder.rglob("trials.parquet"))]


def _run(command: list[str]) -> None:
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "WANDB_MODE": "disabled"}
    )
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["it says nothing"])[-1]
        raise RuntimeError(f"{' '.join(command[1:4])} ended with status {result.returncode}: {last}")


def check(asked: Asked) -> Found:
    """The same training and the same evaluation by one process and by two."""
    if asked.device == "cuda" and torch.cuda.device_count() < 2:
        raise Skipped(f"{len(visible_gpus(os.environ)) or 1} GPU is visible; two are needed", "nothing, with one GPU")
    one, two = ("single_gpu", "ddp") if asked.device == "cuda" else ("cpu", "cpu_ddp")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write_rows(folder, asked.sizes.contexts, STEPS)
        values = {
            "model_name_or_path": str(ORGANISM),
            "train_file": str(rows.file("train")),
            "effective_batch_size": ROWS,
            "per_device_train_batch_size": ROWS // 2,
            "max_steps": STEPS,
            "learning_rate": RATE,
            "lora_r": 8,
            "bf16": False,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
        }
        alone = losses(folder / "one", one, 1, values)
        shared = losses(folder / "two", two, 2, values)
        contexts = write_contexts(asked.sizes.contexts, folder)
        files = [trial_files(folder / f"trials_{count}", contexts, count, asked) for count in (1, 2)]
    apart = max(abs(a - b) for a, b in zip(alone, shared, strict=True))
    figures = {"losses_apart": apart, "losses": [alone, shared], "same_trial_files": files[0] == files[1]}
    found = Found(
        f"losses within {apart:.1g}; trial files {'the' if files[0] == files[1] else 'not the'} same", figures
    )
    if not apart <= APART:
        found.problems.append(f"losses of one and of two processes differ by up to {apart:.2g}")
    if files[0] != files[1] and asked.device == "cpu":
        found.problems.append("trial files of one and of two processes differ")
    return found
