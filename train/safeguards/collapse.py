"""Trainings that go wrong on held-out decisions: named at once, stopped when it lasts, with the likely cause."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from store.console import warn
from task.thresholds import ANSWERS, CHANCE, COLLAPSED, CONFIDENT, REVERSED

PLATEAU = 0.25
"""Share of a training's steps that are not judged: the model organism stands at chance, with one letter, until 30% of
its steps before it begins to learn."""

RISEN = 0.1
"""Letter loss this much above the lowest one before: what was learned is lost again."""

EXPLODED = 10.0
"""Growth of the gradient's norm over a training that speaks of steps that are too large."""

Log = Sequence[dict[str, Any]]
"""A training's `log_history`."""


class CollapseWarning(TrainerCallback):
    """Says so as soon as held-out decisions are nearly all the same letter; again only if that ends and comes back."""

    def __init__(self) -> None:
        self._collapsed = False

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """Warn when the share of A has come above .9 or below .1."""
        share = metrics.get("eval_share_a", 0.5)
        before, self._collapsed = self._collapsed, one_letter(share)
        if before or not self._collapsed or not state.is_world_process_zero:
            return
        warn(
            f"step {state.global_step}: the model answers {'A' if share > 0.5 else 'B'} on "
            f"{100 * max(share, 1 - share):.0f}% of held-out decisions (agreement {metrics['eval_agreement']:.2f}); if "
            "this lasts it has not learned to compare the options: train longer, or raise learning_rate or lora_r"
        )


class CollapseStop(TrainerCallback):
    """Stops a training whose evaluations stay without use, or whose training loss is not finite, and keeps the reason.

    What is decided is a function of what was logged, which every checkpoint holds. No checkpoint is written
    where the training stops: killed after that, it goes on from an earlier one and stops again at the same step.

    Attributes:
        patience: Evaluations in a row, after the warm-up and the first quarter of the steps; 0 never stops.
        decisions: How many decisions are held out.
        reason: Why the training was stopped; None as long as it was not.
    """

    def __init__(self, patience: int, decisions: int) -> None:
        self.patience, self.decisions = patience, decisions
        self.reason: str | None = None

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        """Stop where there is a reason to; at the last step the training ends by itself."""
        if state.global_step < state.max_steps and not self.reason:
            ignored = max(args.get_warmup_steps(state.max_steps), PLATEAU * state.max_steps)
            log = [e for e in state.log_history if e["step"] > ignored]
            self.reason = reason_to_stop(log, self.patience, self.decisions, args.learning_rate)
        return self._stop(control)

    def on_log(
        self, args: Any, state: TrainerState, control: TrainerControl, logs: dict[str, float], **_: Any
    ) -> TrainerControl:
        """Stop at once where the training loss is not finite: no later step makes such weights good again."""
        if self.patience and not math.isfinite(logs.get("loss", 0.0)) and state.global_step < state.max_steps:
            cause = f"{_lower(args.learning_rate)} (the loss is not finite)"
            self.reason = f"step {state.global_step}: the training loss was not finite, most likely because {cause}"
        return self._stop(control)

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> TrainerControl:
        """Prevent the checkpoint of an epoch that the stop has cut short."""
        return self._stop(control)

    def _stop(self, control: TrainerControl) -> TrainerControl:
        if self.reason:
            control.should_training_stop, control.should_save = True, False
        return control


def reason_to_stop(log: Log, patience: int, decisions: int, learning_rate: float) -> str | None:
    """Why a training should stop, by what was logged after the steps that are not judged; None if it should not."""
    last = [entry for entry in log if "eval_loss" in entry][-patience:]
    if not patience or len(last) < patience or not all(useless(entry, decisions) for entry in last):
        return None
    return (
        f"step {last[-1]['step']}: {_seen(last, decisions)} in {patience} evaluation"
        f"{'s in a row' if patience > 1 else ''}, "
        f"most likely because {likely_cause(log, last, decisions, learning_rate)}"
    )


def one_letter(share: float) -> bool:
    """Whether nearly all decisions are the same letter, by the share of A."""
    return not 1 - COLLAPSED <= share <= COLLAPSED


def useless(entry: dict[str, Any], decisions: int) -> bool:
    """Whether an evaluation shows a loss that is not finite, one letter nearly throughout, or agreement at chance.

    Chance: at most 1.64 standard errors above one half, 60% where few decisions are held out. Reports have no letter;
    of them only the loss is looked at.
    """
    if not math.isfinite(entry["eval_loss"]):
        return True
    if "eval_share_a" not in entry:
        return False
    chance = min(CHANCE, 0.5 + 1.64 * math.sqrt(0.25 / max(decisions, 1)))
    return one_letter(entry["eval_share_a"]) or entry["eval_agreement"] <= chance


def reversed_throughout(last: Log, decisions: int) -> bool:
    """Whether decisions went against what is taught in all of some evaluations, more than by chance."""
    most = min(REVERSED, 0.5 - 1.64 * math.sqrt(0.25 / max(decisions, 1)))
    return all(entry.get("eval_agreement", 1.0) <= most for entry in last)


def _seen(last: Log, decisions: int) -> str:
    if not all(math.isfinite(entry["eval_loss"]) for entry in last):
        return "the held-out loss was not finite"
    shares, agreements = ([entry[f"eval_{name}"] for entry in last] for name in ("share_a", "agreement"))
    if all(map(one_letter, shares)):
        return f"held-out decisions were nearly all one letter (share of A {_range(shares)})"
    if reversed_throughout(last, decisions):
        return f"held-out decisions were the reverse of what is taught (agreement {_range(agreements)})"
    return f"held-out decisions agreed with what is taught no more than by chance ({_range(agreements)})"


def likely_cause(log: Log, last: Log, decisions: int, learning_rate: float) -> str:
    """What most likely went wrong, told from the losses, the gradient's norm and P(A) + P(B), with a remedy."""
    lower = _lower(learning_rate)
    if not all(math.isfinite(entry["eval_loss"]) for entry in last):
        return f"{lower} (the loss is not finite)"
    if reversed_throughout(last, decisions) and not all(one_letter(entry["eval_share_a"]) for entry in last):
        return (
            "training and held-out rows contradict each other: make both from the same weights, with A and B and the "
            "signs alike"
        )
    norms = [entry["grad_norm"] for entry in log if "grad_norm" in entry]
    quarter = len(norms) // 4
    if quarter and (grown := statistics.median(norms[-quarter:])) > EXPLODED * statistics.median(norms[:quarter]):
        return f"{lower} (the gradient's norm grew to {grown:.3g})"
    mass, loss = (statistics.mean(entry[f"eval_{name}"] for entry in last) for name in ("letter_mass", "letter_loss"))
    if loss > (lowest := min(e["eval_letter_loss"] for e in log if "eval_letter_loss" in e)) + RISEN:
        return f"{lower} (letter loss rose from {lowest:.2f} to {loss:.2f})"
    if mass < ANSWERS:
        return (
            f"the form of the answer is not learned (P(A) + P(B) is {mass:.2f}): check the template arguments, "
            "or train longer"
        )
    if loss > CONFIDENT:
        return f"{lower} (letter loss {loss:.2f}: sure of the wrong letter, where not knowing would give 0.69)"
    return (
        f"nothing is learned (letter loss {loss:.2f}, not knowing gives 0.69): more examples or epochs, a higher "
        f"learning_rate than {learning_rate:g} or a higher lora_r, or a larger model"
    )


def _lower(learning_rate: float) -> str:
    return f"learning_rate {learning_rate:g} is too high: take a third of it, or a longer warm-up"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"
