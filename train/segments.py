"""Curves of a training that is killed and started again stay one curve."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import rewrite_logs

from store.files import read_json, write_json

SEGMENTS = "wandb.json"
"""File in a training's folder: the id of its W&B run, and how often the training was started."""


def begin_segment(trainer: Trainer, folder: Path, name: str, step: int) -> None:
    """Tie this start of a training to its earlier ones; to be called by the main process, after `prepare_wandb`.

    Online all starts are one W&B run. Offline no run can be gone on with, and a killed process takes the last
    32 KiB of its log with it: each start is a run of its own in the same group, which begins with all that was logged
    until the checkpoint that it goes on from, so that the last one holds the whole curve.

    Args:
        trainer: Gets the name of the run.
        folder: The training's folder.
        name: Name of the training.
        step: Step that it goes on from, 0 at the beginning.
    """
    path = folder / SEGMENTS
    known = read_json(path) if path.exists() else {}
    run, start = known.get("id") or secrets.token_hex(8), known.get("starts", 0) + 1
    write_json(path, {"id": run, "starts": start})
    trainer.args.run_name = name
    if os.environ["WANDB_MODE"] != "offline":
        os.environ.setdefault("WANDB_RUN_ID", run)
        os.environ.setdefault("WANDB_RESUME", "allow")
    elif start > 1:
        trainer.args.run_name = f"{name} (start {start}, from step {step})"
        trainer.add_callback(EarlierCurves())


class EarlierCurves(TrainerCallback):
    """Logs what earlier starts had logged until the checkpoint that the training goes on from."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log them under the names that transformers' own callback, which has started W&B by now, gives them."""
        import wandb

        for entry in state.log_history:
            values = {key: value for key, value in entry.items() if key != "step"}
            wandb.log({**rewrite_logs(values), "train/global_step": entry["step"]})
