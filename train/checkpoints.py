"""Checkpoints that can be resumed from: complete ones only."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

ADAPTER = "adapter_model.safetensors"


def last_complete_checkpoint(folder: Path, weights: str = ADAPTER) -> Path | None:
    """The newest `checkpoint-N` of a folder that was written to its end, None if there is none.

    An incomplete one (the process was killed while writing) is passed over with a line that says so. `weights` is the
    file of what is trained.
    """
    found = [p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    for checkpoint in sorted(found, key=lambda p: int(p.name.split("-")[1]), reverse=True):
        problem = incompleteness(checkpoint, weights)
        if problem is None:
            return checkpoint
        print(f"{checkpoint}: passed over, {problem}")
    return None


def incompleteness(checkpoint: Path, weights: str = ADAPTER) -> str | None:
    """What a checkpoint lacks to be resumed from, None if it is complete."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "trainer_state.json is missing or cut off"
    try:
        with safe_open(str(checkpoint / weights), framework="numpy") as tensors:
            tensors.keys()  # the table is read and held against the file's length when the file is opened
    except (OSError, SafetensorError):
        return f"{weights} is missing or cut off"
    for name in ("optimizer.pt", "scheduler.pt"):
        if not zipfile.is_zipfile(checkpoint / name):  # the zip directory is written last
            return f"{name} is missing or cut off"
    return None
