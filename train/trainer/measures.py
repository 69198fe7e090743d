"""What a training measured, the same whether or not it was interrupted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl

TIMES = ("_runtime", "_per_second")
"""Endings of measures that say how fast a machine was, and of a resumed training only since it went on."""


class LogAtCheckpoints(TrainerCallback):
    """Logs the loss since the last log wherever a checkpoint is written or training ends.

    A checkpoint holds what was logged, but not the loss since then: a training that went on from one would log, and
    add up, another loss than one that nothing interrupted.
    """

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> TrainerControl:
        """Log where this step ends with a checkpoint, or the training with this step."""
        control.should_log |= control.should_save or control.should_training_stop
        return control

    def on_epoch_end(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> TrainerControl:
        """The same at the end of an epoch."""
        return self.on_step_end(args, state, control)


def lasting_measures(log: Sequence[Mapping[str, Any]], measured: Mapping[str, float]) -> dict[str, float | None]:
    """Measures without those of time, with the mean training loss of all steps.

    Args:
        log: The training's `log_history`, of which each loss is a mean over the steps since the one before.
        measured: What the trainer measured, in training and held out; its `train_loss` divides the losses since a
            resumption by steps that may be others.
    """
    kept: dict[str, float | None] = {n: value for n, value in measured.items() if not n.endswith(TIMES)}
    losses = [(entry["step"], entry["loss"]) for entry in log if "loss" in entry]
    if losses:
        steps = [step for step, _ in losses]
        spans = [step - before for step, before in zip(steps, [0, *steps], strict=False)]
        kept["train_loss"] = sum(loss * span for (_, loss), span in zip(losses, spans, strict=True)) / steps[-1]
    return kept
