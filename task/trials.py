"""Trials: pairs of options with attribute values drawn uniformly in range and rounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from task.contexts import ChoiceContext
from task.prompts import Framing, Message
from task.seeding import uniforms
from task.weights import utilities

Purpose = Literal[
    "train_decisions", "validate_decisions", "train_reports", "validate_reports", "decisions", "reports", "probes"
]
"""What trials are drawn for; each purpose has a random stream of its own, so no test trial was ever trained on."""


@dataclass(frozen=True)
class Trials:
    """Trials of one context, as arrays: option `first` against option `second`.

    Attributes:
        index: Index of each trial within its (seed, purpose, context) stream, shape (trials,).
        first, second: Attribute values in the attributes' units, shape (trials, attributes).
    """

    context: ChoiceContext
    index: NDArray[np.int64]
    first: NDArray[np.float64]
    second: NDArray[np.float64]


@dataclass(frozen=True)
class ShownTrial:
    """One trial as it is shown: a context in a wording, trial `index` of its stream, and which option is option A."""

    framing: Framing
    index: int
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    first_as_a: bool

    @property
    def context(self) -> ChoiceContext:
        """The choice context."""
        return self.framing.context

    @property
    def option_a(self) -> NDArray[np.float64]:
        """Values of the option shown as A."""
        return self.first if self.first_as_a else self.second

    @property
    def option_b(self) -> NDArray[np.float64]:
        """Values of the option shown as B."""
        return self.second if self.first_as_a else self.first

    @property
    def prompt(self) -> list[Message]:
        """What a model reads."""
        return self.framing.messages(self.option_a, self.option_b)


def sample_trials(seed: int, purpose: Purpose, context: ChoiceContext, count: int, start: int = 0) -> Trials:
    """Trials `start` to `start + count - 1` of (seed, purpose, context)."""
    width = len(context.attributes)
    draws = uniforms(seed, purpose, context.name, count, 2 * width, start).reshape(count, 2, width)
    values = round_to_grid(context.lows + draws * context.spans, context)
    return Trials(context, np.arange(start, start + count), values[:, 0], values[:, 1])


def round_to_grid(values: NDArray[np.float64], context: ChoiceContext) -> NDArray[np.float64]:
    """Round values, shape (..., attributes), to each attribute's decimals, staying inside its range.

    A range of 0.5 to 8 has the grid 1, 2, ..., 8: 0.6 rounds to 1, and 0.5 too, as 0 would be outside.
    """
    decimals = np.array([a.decimals for a in context.attributes])
    step = 10.0**-decimals
    inside = 1e-9  # keeps an end that lies on the grid, such as 0.3 = 3 x 0.1, from falling outside by float error
    lowest = np.ceil(context.lows / step - inside)
    highest = np.floor((context.lows + context.spans) / step + inside)
    steps = np.clip(np.round(values / step), lowest, highest) + 0.0  # + 0.0: a prompt must not read "-0 degrees"
    # Dividing by 10**decimals, not multiplying by its inverse, gives the float that prints with those decimals.
    return steps / 10.0**decimals


def prefers_first(trials: Trials, weights: ArrayLike) -> NDArray[np.bool_]:
    """Whether the option of higher utility is `first`, shape (trials,); a tie goes by the parity of the index."""
    gain = utilities(trials.first, weights, trials.context) - utilities(trials.second, weights, trials.context)
    tied = np.isclose(gain, 0.0, atol=1e-9)
    return np.where(tied, trials.index % 2 == 0, gain > 0)
