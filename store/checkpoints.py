"""Checkpoints: which of them can be resumed from, and whose weights a training kept."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from store.manifests import KeptCheckpoint

ADAPTER, MODEL = "adapter_model.safetensors", "model.safetensors"
"""File of what is trained: an adapter, or a whole model."""

KEPT = "kept"
"""Folder of a training's adapter with the adapters of the steps that it keeps, a folder a step."""

LOG = "log_history.json"
"""File of an adapter with what its training logged."""


def last_complete_checkpoint(
    folder: Path, weights: str = ADAPTER, tell: Callable[[str], None] | None = None
) -> Path | None:
    """The newest `checkpoint-N` of a folder that was written to its end, None if there is none.

    `tell` gets a line for each newer one that is passed over: the process was killed while it was written.
    """
    found = [p for p in folder.glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", p.name)]
    for checkpoint in sorted(found, key=step_of, reverse=True):
        problem = incompleteness(checkpoint, weights)
        if problem is None:
            return checkpoint
        if tell:
            tell(f"{checkpoint}: passed over, {problem}")
    return None


def remove_checkpoints(folder: Path) -> None:
    """Remove what only a resumption needs, once a training is done."""
    for checkpoint in folder.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def kept_adapter(folder: Path, step: int) -> Path:
    """Where a training keeps its adapter of a step."""
    return folder / KEPT / str(step)


def kept_steps(folder: Path) -> list[int]:
    """The steps that lie in a training's folder, in order. Each is whole, as it is moved into its place at the end."""
    return sorted(int(path.name) for path in (folder / KEPT).glob("*") if path.name.isdigit())


def incompleteness(checkpoint: Path, weights: str = ADAPTER) -> str | None:
    """What a checkpoint lacks to be resumed from, None if it is complete.

    The optimizer's state is `optimizer.pt`, `optimizer.bin` under FSDP, and a folder that `latest` names under
    DeepSpeed; random states are one file a process. The best checkpoint so far, which a resumed training may end with,
    must have its weights, too.
    """
    step = step_of(checkpoint)
    state = _json(checkpoint / "trainer_state.json")
    if state.get("global_step") != step or not isinstance(state.get("max_steps"), int):
        return f"trainer_state.json is missing, cut off or of another step than {step}"
    if problem := _lost_weights(checkpoint, weights):
        return problem
    best = checkpoint.with_name(Path(state.get("best_model_checkpoint") or checkpoint).name)
    if problem := _lost_weights(best, weights):
        return f"the best checkpoint until then is {best.name}, of which {problem}"
    states = {"optimizer.pt": _optimizer_files(checkpoint), "scheduler.pt": [checkpoint / "scheduler.pt"]}
    states["rng_state.pth"] = sorted(checkpoint.glob("rng_state*.pth"))
    for names, files in states.items():
        if not files or not all(_whole(file) for file in files):
            return f"{names} is missing or cut off"
    return None


def step_of(checkpoint: str | Path) -> int:
    """The step of a `checkpoint-N`."""
    return int(Path(checkpoint).name.split("-")[1])


def steps_done(checkpoint: Path) -> tuple[int, int]:
    """How many steps a complete checkpoint has behind it, and how many the training has in all."""
    state = _json(checkpoint / "trainer_state.json")
    return int(state["global_step"]), int(state["max_steps"])


def kept_checkpoint(
    log: Sequence[Mapping[str, Any]], best: str | None, measure: str | None
) -> tuple[KeptCheckpoint, dict[str, float]] | None:
    """Which checkpoint's weights a training ended with, and all that was measured on held-out rows at its step.

    None where it kept the last weights. `log`, `best` and `measure` are the training's `log_history`,
    `best_model_checkpoint` and `metric_for_best_model`.
    """
    if best is None or measure is None:
        return None
    kept = KeptCheckpoint(step=step_of(best), by=f"eval_{measure.removeprefix('eval_')}")
    entry = next(entry for entry in reversed(log) if entry.get("step") == kept.step and kept.by in entry)
    return kept, {name: value for name, value in entry.items() if name.startswith("eval_")}


def _lost_weights(checkpoint: Path, weights: str) -> str | None:
    config = "adapter_config.json" if weights == ADAPTER else "config.json"
    if not _json(checkpoint / config):
        return f"{config} is missing or cut off"
    try:
        with safe_open(str(checkpoint / weights), framework="numpy") as tensors:
            tensors.keys()  # the table is read and held against the file's length when the file is opened
    except (OSError, SafetensorError):
        return f"{weights} is missing or cut off"
    return None


def _optimizer_files(checkpoint: Path) -> list[Path]:
    latest = checkpoint / "latest"
    if latest.is_file():
        return sorted((checkpoint / latest.read_text(encoding="utf-8").strip()).glob("*.pt"))
    return [checkpoint / ("optimizer.bin" if (checkpoint / "optimizer.bin").exists() else "optimizer.pt")]


def _json(path: Path) -> dict[str, Any]:
    """A JSON object, empty if the file is missing or cut off."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def _whole(path: Path) -> bool:
    """Whether a file of torch.save has its zip directory, which is written last, and fits its checksums."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False
