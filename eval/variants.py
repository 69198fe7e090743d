"""Prompt variants at work: contexts in their wording, reports after the arm's own choice, simulated answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.engines import make_engine
from eval.engines.base import Engine, ShownTrial
from eval.engines.simulated import SimulatedEngine
from store.evaluation import EvalConfig, Measurement
from store.weights import load_weights
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import DEFAULT, PROMPTS, FramedContext, Variant, frame


def frame_contexts(
    contexts: Sequence[ChoiceContext], measurement: Measurement, told_weights: str | None
) -> list[ChoiceContext]:
    """Contexts as a measurement's variant words their prompts, with the weights that it tells.

    The default variant leaves them as they are, and so does one that follows the arm's own choice: it is known only
    once the arm has decided (`after_own_choice`).

    Raises:
        InputError: Weights are told, and `told_weights` has none for a context.
    """
    variant = measurement.variant
    if variant == DEFAULT[measurement.measure] or PROMPTS[measurement.measure][variant].follow_up is not None:
        return list(contexts)
    if not measurement.tells_weights:
        return [frame(context, variant) for context in contexts]
    told = load_weights(Path(str(told_weights)))
    if missing := [c.name for c in contexts if c.name not in told]:
        raise InputError(
            f"{told_weights}: no weights for context {missing[0]!r}, which {variant} tells; add a row, or leave it out"
        )
    return [frame(context, variant, told[context.name].tolist()) for context in contexts]


def after_own_choice(trials: Sequence[ShownTrial], variant: Variant, chose_a: NDArray[np.bool_]) -> list[ShownTrial]:
    """The trials with the arm's choice, shape (trials,), put into the prompt of a report."""
    return [
        replace(trial, context=frame(trial.context, variant, chose="A" if a else "B"))
        for trial, a in zip(trials, chose_a, strict=True)
    ]


def open_engine(config: EvalConfig) -> Engine:
    """The engine of an evaluation; a simulated one answers the variants too."""
    return SimulatedVariants(config) if config.engine.name == "simulated" else make_engine(config)


class SimulatedVariants:
    """Simulated arms, asked in any variant.

    Told weights decide in place of the planted ones, and are reported with the arm's noise but without error. Of
    another model an arm says what correlates with the planted weights at `third_person_accuracy`. Without a trial or
    after a choice it reports as it always does.
    """

    def __init__(self, config: EvalConfig) -> None:
        self._config = config
        others = {
            _other(arm): planted.model_copy(update={"report_accuracy": planted.third_person_accuracy})
            for arm, planted in config.planted.items()
        }
        self._plain = SimulatedEngine(config.model_copy(update={"planted": {**config.planted, **others}}))
        reading = {a: p.model_copy(update={"report_accuracy": 1.0}) for a, p in config.planted.items()}
        self._told = (
            SimulatedEngine(config.model_copy(update={"planted": reading, "planted_weights": config.told_weights}))
            if config.told_weights is not None
            else self._plain
        )

    def decide(self, arm: str, trials: Sequence[ShownTrial]) -> NDArray[np.float64]:
        """As `SimulatedEngine.decide`, by told weights where the prompts tell some."""
        return (self._told if _variant(trials) == "in_context" else self._plain).decide(arm, trials)

    def report(self, arm: str, trials: Sequence[ShownTrial]) -> list[str]:
        """As `SimulatedEngine.report`, of the weights that the variant asks about."""
        variant = _variant(trials)
        engine = self._told if variant == "in_context" else self._plain
        return engine.report(_other(arm) if variant == "third_person" else arm, trials)

    def identity(self, arm: str) -> dict[str, Any]:
        """The planted weights and how the arm answers from them."""
        return self._plain.identity(arm)

    def take_token_counts(self) -> dict[str, int]:
        """None: nothing is read."""
        return {}


def _other(arm: str) -> str:
    """The name under which an arm's beliefs about another model are drawn, apart from those about itself."""
    return f"{arm}, of another"


def _variant(trials: Sequence[ShownTrial]) -> Variant | None:
    """The variant of a call's trials, which is the same for all of them; None for the default."""
    context = trials[0].context
    return context.variant if isinstance(context, FramedContext) else None
