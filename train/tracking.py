"""Weights & Biases without ceremony: offline by default, online when this machine is logged in.

Curves of a training that is killed and started again stay one curve.
"""

from __future__ import annotations

import netrc
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.files import read_json, write_json
from store.settings import Settings, validated

if TYPE_CHECKING:
    from transformers import Trainer, TrainerCallback, TrainerState

STARTS = "wandb.json"
"""File in a training's folder, see `Starts`."""


class Starts(Settings):
    """The id of a training's W&B run, and how often the training was started."""

    id: str
    starts: int = 0


def prepare_wandb(folder: Path) -> str:
    """Set W&B's mode and folder where the user has not; returns the mode.

    Runs are written to the folder's subfolder `wandb`, unless WANDB_DIR says; sent later by `wandb sync`.
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


def begin_tracking(trainer: Trainer, folder: Path, name: str, step: int) -> None:
    """Tie this start of a training to its earlier ones; to be called by the main process, after `prepare_wandb`.

    Online all starts are one W&B run. Offline no run can be gone on with, and a killed process takes the last
    32 KiB of its log with it: each start is a run of its own in the same group, which begins with all that was logged
    until `step`, that of the checkpoint that it goes on from, so that the last one holds the whole curve.
    """
    path = folder / STARTS
    before = validated(read_json(path), Starts, path) if path.exists() else Starts(id=secrets.token_hex(8))
    now = Starts(id=before.id, starts=before.starts + 1)
    write_json(path, now.model_dump())
    trainer.args.run_name = name
    if os.environ["WANDB_MODE"] != "offline":
        os.environ.setdefault("WANDB_RUN_ID", now.id)
        os.environ.setdefault("WANDB_RESUME", "allow")
    elif now.starts > 1:
        trainer.args.run_name = f"{name} (start {now.starts}, from step {step})"
        trainer.add_callback(earlier_curves())


def earlier_curves() -> TrainerCallback:
    """A callback that logs what earlier starts had logged until the checkpoint that the training goes on from."""
    # Loading them takes seconds, which whoever only wants `prepare_wandb` is spared
    import wandb
    from transformers import TrainerCallback
    from transformers.integrations.integration_utils import rewrite_logs

    class EarlierCurves(TrainerCallback):
        def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
            # under the names that transformers' own callback, which has started W&B by now, gives them
            for entry in state.log_history:
                values = {key: value for key, value in entry.items() if key != "step"}
                wandb.log({**rewrite_logs(values), "train/global_step": entry["step"]})

    return EarlierCurves()
