"""One bar for a training, in place of what transformers prints."""

from __future__ import annotations

from typing import Any

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback, TrainerState

from store.console import Progress


class ProgressBar(TrainerCallback):
    """Optimiser steps done of all, shown by the main process."""

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Open the bar; steps of the checkpoint that the training goes on from do not count towards the rate."""
        self._bar = Progress(state.max_steps, "step", quiet=not state.is_world_process_zero)
        self._bar.found(state.global_step)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Count a step."""
        self._bar.advance(1)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        self._bar.__exit__()


def show_progress(trainer: Trainer) -> None:
    """Give a trainer the one bar; its losses are in `log_history.json` and on W&B."""
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
    trainer.add_callback(ProgressBar())
