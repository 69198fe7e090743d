"""Weights & Biases without ceremony: offline by default, online when this machine is logged in."""

from __future__ import annotations

import netrc
import os
from pathlib import Path


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


def logged_in() -> bool:
    """Whether this machine has a W&B login: a key in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    try:
        return netrc.netrc().authenticators("api.wandb.ai") is not None
    except (OSError, netrc.NetrcParseError):
        return False
