"""Steps of a training that are kept: each is a plain adapter of its own in `kept/STEP`, measured like any arm."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback, TrainerState

from store.checkpoints import ADAPTER, kept_adapter, kept_steps
from store.console import warn
from store.lora import ADAPTER_CONFIG
from train.adapters import not_learned, save_plain
from train.arguments import check_keep_steps


class KeepSteps(TrainerCallback):
    """Writes the adapter as it is after some optimiser steps.

    A step is written before the checkpoint of that step is. So whatever a complete checkpoint has behind it lies
    there, and what came after it is removed when the training goes on, and written again.

    An adapter that would be refused at the end of a training (it diverged, or has learned nothing yet) is not kept:
    an arm that answers as its base model does, or with no number, is no measurement of the training. A line says so.
    """

    def __init__(self, trainer: Trainer, steps: Sequence[int], start: str | None) -> None:
        """Args: the trainer, the steps to keep, and the folder of the adapter that training went on from."""
        self._trainer, self._steps = trainer, steps
        self._start = Path(start) / ADAPTER if start else None
        self._folder = Path(trainer.args.output_dir)

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Refuse steps beyond the end; remove those beyond the checkpoint that the training goes on from."""
        check_keep_steps(self._steps, state.max_steps)
        if state.is_world_process_zero:
            behind = {kept_adapter(self._folder, step) for step in self._steps if step <= state.global_step}
            for path in {*kept_adapter(self._folder, 0).parent.glob("*")} - behind:
                shutil.rmtree(path)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Keep the adapter, if it is to be kept after this step; all processes take part where it is sharded."""
        if state.global_step in self._steps:
            self._keep(state.global_step)

    def _keep(self, step: int) -> None:
        place = kept_adapter(self._folder, step)
        draft = place.with_name(f".{step}.tmp")
        save_plain(self._trainer, draft)
        if not self._trainer.is_world_process_zero():
            return
        for path in {*draft.iterdir()} - {draft / ADAPTER, draft / ADAPTER_CONFIG}:
            path.unlink()
        if problem := not_learned(draft / ADAPTER, self._start, self._trainer.args.learning_rate):
            warn(f"{place}: step {step} is not kept: {problem}")
            shutil.rmtree(draft)
        else:
            draft.replace(place)


def steps_kept(folder: Path, steps: Sequence[int] | None) -> list[int] | None:
    """Those of the steps to keep that lie in a training's folder; None where none were to be kept."""
    return None if steps is None else [step for step in kept_steps(folder) if step in steps]
