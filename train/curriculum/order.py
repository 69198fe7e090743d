"""What trainings by a curriculum share: lessons in their order, each once, and how many were answered rightly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import Trainer

RATIONALITY = 8.0
"""Log-odds of the better option per unit of utility difference. A noisy chooser: certainty would leave a model so sure
of itself that teaching it other weights begins with a long unlearning."""


class Stretch(Protocol):
    """A part of a curriculum."""

    @property
    def steps(self) -> int:
        """Its optimiser steps."""
        ...


AnyStretch = TypeVar("AnyStretch", bound=Stretch)


def place_in(curriculum: Sequence[AnyStretch], step: int) -> tuple[AnyStretch, float]:
    """The part of a curriculum that a step belongs to, and how far into it the step is, from 0 to 1.

    Raises:
        IndexError: The curriculum has fewer steps.
    """
    for stretch in curriculum:
        if step < stretch.steps:
            return stretch, step / stretch.steps
        step -= stretch.steps
    raise IndexError(f"step {step} is past the end of the curriculum")


def chance_of_a(gain: float) -> float:
    """Probability with which a noisy chooser takes option A, by the utility that it has more than B."""
    return 1 / (1 + math.exp(-RATIONALITY * gain))


class CurriculumTrainer(Trainer):
    """Takes lessons in their order, and logs the agreement of its choices with the better options."""

    def __init__(self, *args: Any, letters: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._letters = list(letters)
        self._agreed: list[float] = []

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def letter_losses(self, pair: Tensor, chance: Tensor) -> Tensor:
        """Cross-entropy between the chances of the letters and the model's, shape (choices,); notes the agreement.

        Args:
            pair: Log-probabilities of A and B, shape (choices, 2).
            chance: Probability of A that is taught, shape (choices,).
        """
        self._agreed += ((pair[:, 0] > pair[:, 1]) == (chance > 0.5)).float().tolist()
        return -(chance * pair[:, 0] + (1 - chance) * pair[:, 1])

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the agreement with the better option since the last time; as no lesson comes twice, it is held out."""
        if self._agreed:
            logs["agreement"], self._agreed = float(np.mean(self._agreed)), []
        super().log(logs, *args, **kwargs)
