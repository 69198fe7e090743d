"""What an engine is: it answers trials for an arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from task.replies import Decided
from task.trials import ShownTrial


class Engine(Protocol):
    """Answers trials. What it answers must not depend on how the trials are split into calls."""

    def decide(self, arm: str, trials: Sequence[ShownTrial]) -> Decided:
        """The next token after each decision prompt: how likely the letters are, and whether one is the likeliest."""
        ...

    def report(self, arm: str, trials: Sequence[ShownTrial], constrained: bool) -> Sequence[str | None]:
        """The raw reply to each report prompt, within the grammar of its context if constrained.

        None where the scores of a next token are not finite: where one is NaN or plus infinity.
        """
        ...

    def opening(self, arm: str, trials: Sequence[ShownTrial]) -> NDArray[np.float64]:
        """P(the model's own next token opens its reply as the grammar asks), shape (trials,).

        The sum over the tokens that the grammar of the context allows first, in the distribution over the whole
        vocabulary; 0 where that is not finite. Asked for right before the constrained reports to the same trials.
        """
        ...

    def identity(self, arm: str) -> dict[str, Any]:
        """All that an arm's answers depend on, besides the trials: model, adapter, settings; JSON values."""
        ...

    def take_token_counts(self) -> dict[str, int]:
        """Tokens since the last call: `prompt`, `computed` of them (not shared), `reply`; none without a model."""
        ...
