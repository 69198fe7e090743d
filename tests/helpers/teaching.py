"""The training script as tests start it: settings, the command line, and what it leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from store.checkpoints import ADAPTER
from store.files import hash_file
from store.lora import ADAPTER_CONFIG
from store.manifests import Manifest, TrainingFacts, read_manifest
from support import ROOT
from train import sft

LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", "configs/accelerate/cpu.yaml"]

SCRIPT = "train/sft.py"

SECRETS = {"WANDB_API_KEY": "f00dfeed" * 5, "HF_TOKEN": "hf_NotToBeFoundInAnyFile"}

KEPT = {"load_best_model_at_end": True, "metric_for_best_model": "letter_loss", "eval_steps": 2, "save_total_limit": 1}

STEPS = {"keep_steps": [5, 14]}
"""Steps that a training of 16 keeps: one before a checkpoint, one with it."""

SHARED = {"share_prefixes": 3, "logging_steps": 3, **STEPS}
"""Groups of 3, 3 and 2 rows of each context in batches of 4: groups are cut in two, and rows are left over. Losses are
logged at other steps than checkpoints are written."""


def settings(model: Path, examples: Path, output: Path, teach: str = "decisions", **more: Any) -> dict[str, Any]:
    return {
        "model_name_or_path": str(model),
        "train_file": str(examples / teach / "train.jsonl"),
        "validation_file": str(examples / teach / "validation.jsonl"),
        "output_dir": str(output),
        "per_device_train_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 0.01,
        "lora_r": 4,
        "eval_strategy": "steps",
        "eval_steps": 4,
        "save_steps": 2,
        "logging_steps": 1,
        "report_to": "none",
        **more,
    }


def command(values: dict[str, Any], launch: list[str] = LAUNCH) -> list[str]:
    path = Path(values["output_dir"]).with_suffix(".yaml")
    path.write_text(yaml.safe_dump(values))
    return [*launch, SCRIPT, "--config", str(path)]


def run(values: dict[str, Any], launch: list[str] = LAUNCH, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **environment}
    return subprocess.run(command(values, launch), cwd=ROOT, capture_output=True, text=True, env=environment)


def train_here(values: dict[str, Any]) -> Path:
    """Carry out a training in this process, which has the libraries loaded; its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command(values, []))
        sft.main()
    return Path(values["output_dir"])


def manifest_of(folder: Path) -> Manifest[TrainingFacts]:
    return read_manifest(folder, TrainingFacts)


def held_out(folder: Path, measure: str) -> dict[int, float]:
    """A measure on held-out rows by step."""
    log = json.loads((folder / "log_history.json").read_text())
    return {entry["step"]: entry[measure] for entry in log if measure in entry}


def left_by(folder: Path) -> dict[str, str]:
    """All that a training leaves which is the same whenever and however often it was started: adapter and facts."""
    facts = json.dumps(json.loads((folder / "manifest.json").read_text())["facts"], indent=1)
    return {
        "adapter": hash_file(folder / ADAPTER),
        "configuration": (folder / ADAPTER_CONFIG).read_text(),
        "facts": facts,
        **kept_by(folder),
    }


def kept_by(folder: Path) -> dict[str, str]:
    """Hashes of all files of the steps that a training kept."""
    return {str(p.relative_to(folder)): hash_file(p) for p in sorted((folder / "kept").rglob("*")) if p.is_file()}
