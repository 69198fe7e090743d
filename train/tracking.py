"""Weights & Biases without ceremony: offline by default, online when this machine is logged in."""

from __future__ import annotations

import netrc
import os
import secrets
from pathlib import Path

from task.stages import read_json, write_json

SEGMENTS = "wandb.json"
"""File in a training's folder: the id of its W&B run, and how often the training was started."""


def prepare_wandb(folder: Path) -> str:
    """Set W&B's mode and folder where the user has not; returns the mode.

    Args:
        folder: Runs are written to its subfolder `wandb`, unless WANDB_DIR says; sent later by `wandb sync`.
    """
    os.environ.setdefault("WANDB_MODE", "online" if logged_in() else "offline")
    os.environ.setdefault("WANDB_PROJECT", "self-interpretability")
    os.environ.setdefault("WANDB_SILENT", "true")
    # Code and console output are in the run's folder or nobody's business; an address of git may hold a token.
    os.environ.setdefault("WANDB_DISABLE_CODE", "true")
    os.environ.setdefault("WANDB_DISABLE_GIT", "true")
    os.environ.setdefault("WANDB_CONSOLE", "off")
    Path(os.environ.setdefault("WANDB_DIR", str(folder))).mkdir(parents=True, exist_ok=True)
    return os.environ["WANDB_MODE"]


def begin_segment(folder: Path, name: str, step: int) -> str:
    """Tie this start of a training to its earlier ones; returns the name that its curves get.

    Online all starts are one W&B run. Offline a run cannot be gone on with: each start is a run of its own in the same
    group, named after the step that it goes on from, and the common axis `train/global_step` joins them.

    Args:
        folder: The training's folder.
        name: Name of the training.
        step: Step that it goes on from, 0 at the beginning.
    """
    path = folder / SEGMENTS
    known = read_json(path) if path.exists() else {}
    run, start = known.get("id") or secrets.token_hex(8), known.get("starts", 0) + 1
    write_json(path, {"id": run, "starts": start})
    if os.environ["WANDB_MODE"] == "offline":
        return f"{name} (start {start}, from step {step})" if start > 1 else name
    os.environ.setdefault("WANDB_RUN_ID", run)
    os.environ.setdefault("WANDB_RESUME", "allow")
    return name


def logged_in() -> bool:
    """Whether this machine has a W&B login: a key in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
