"""What an engine is: it answers trials for an arm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from task.trials import ShownTrial


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
        """Tokens since the last call: `prompt`, `computed` of them (not shared), `reply`; none without a model."""
        ...
