"""Attribution by integrated gradients: how much each row of an adapter does for an answer.

For one prompt let L(s) be the divergence of the model with s times the adapter from the one with the whole adapter, at
the places of its answer (`inside.divergence`). Both factors are multiplied, A and B, so that s runs along a straight
line in the space of parameters theta from the backbone (s = 0) to the arm (s = 1). The score of a row is

    a = sum over its parameters j of  theta_j * integral over s of dL/dtheta_j (at s * theta).

Integrated gradients (Sundararajan, Taly & Yan 2017, "Axiomatic attribution for deep networks") are complete: over all s
from 0 to 1 the scores add up to L(1) - L(0) = -L(0). So scores are mostly below 0, and far below where a
row does much. What multiplies the change of weights B A is the dose s^2. The gradient is taken at the midpoints of
`steps` equal parts of the dose, and weighed by ds = d(dose) / 2 s. As a function of the dose L is (1 - dose)^2 for a
small change, which midpoints integrate without error; of equal parts of s they would miss 1 in 2 * steps^2.

The gradient of a sum is the sum of gradients and a score is linear in them, so the prompts of a context share backward
passes. Whatever the model computes in, the factors, their gradients and the divergence are float32, and scores are
summed in float64.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from inside.adapted import Adapted
from inside.answers import Answer
from inside.divergence import batches


@dataclass(frozen=True)
class Attribution:
    """The scores of a context, means over its prompts, in nats.

    Attributes:
        values: Scores, shape (rows,).
        change: L(1) - L(0).
    """

    values: NDArray[np.float64]
    change: float


def attribute(model: Adapted, answers: Sequence[Answer], steps: int, batch_size: int) -> Attribution:
    """Scores of the rows of an adapter for some answers, with the factors that `model` now has as its whole.

    Args:
        model: Is at full strength again afterwards.
        answers: At least one.
        steps: Doses at which the gradient is taken.
        batch_size: Answers in a forward and backward pass.
    """
    model.forget_gradients()
    change = 0.0
    for batch in batches(answers, batch_size, model.base.device):
        with torch.no_grad():
            model.scale(1.0)
            whole = batch.log_probabilities(model.base)
            model.scale(0.0)
            change -= float(batch.divergence(whole, batch.log_probabilities(model.base)))
        for strength, share in quadrature(steps):
            model.scale(strength)
            divergence = batch.divergence(whole, batch.log_probabilities(model.base))
            (share * divergence).backward()  # type: ignore[no-untyped-call]
    values = model.row_sums().numpy() / len(answers)
    model.forget_gradients()
    model.scale(1.0)
    return Attribution(values, change / len(answers))


def quadrature(steps: int) -> list[tuple[float, float]]:
    """Values of s at the midpoints of equal parts of the dose s^2, and the length of s that each stands for."""
    strengths = [math.sqrt((step + 0.5) / steps) for step in range(steps)]
    return [(strength, 1 / (2 * strength * steps)) for strength in strengths]
