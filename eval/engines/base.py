"""What an engine is: it answers trials for an arm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from task.contexts import ChoiceContext


@dataclass(frozen=True)
class ShownTrial:
    """One trial as it is shown: a pair of options, and which of them is option A.

    Attributes:
        context: The choice context.
        index: Index of the trial in its stream.
        first, second: Attribute values of the pair, shape (attributes,).
        first_as_a: Whether `first` is shown as option A.
    """

    context: ChoiceContext
    index: int
    first: NDArray[np.float64]
    second: NDArray[np.float64]
    first_as_a: bool

    @property
    def option_a(self) -> NDArray[np.float64]:
        """Values of the option shown as A."""
        return self.first if self.first_as_a else self.second

    @property
    def option_b(self) -> NDArray[np.float64]:
        """Values of the option shown as B."""
        return self.second if self.first_as_a else self.first


class Engine(Protocol):
    """Answers trials. What it answers must not depend on how the trials are split into calls."""

    def decide(self, arm: str, trials: Sequence[ShownTrial]) -> NDArray[np.float64]:
        """log P(A) and log P(B) as the next token, over the whole vocabulary, shape (trials, 2)."""
        ...

    def report(self, arm: str, trials: Sequence[ShownTrial]) -> list[str]:
        """The raw reply to each report prompt."""
        ...

    def identity(self, arm: str) -> dict[str, Any]:
        """All that an arm's answers depend on, besides the trials: model, adapter, settings; JSON values."""
        ...

    def take_token_counts(self) -> dict[str, int]:
        """Tokens since the last call: `prompt`, those of them `computed` (the others were shared), `reply`.

        Empty for an engine without a model.
        """
        ...
