"""Attribution by integrated gradients: how much each row of an adapter does for an answer.

For one prompt let L(s) be the divergence of the model with s times the adapter from the one with the whole adapter, at
the places of its answer (`inside.divergence`). Both factors are multiplied, A and B, so that s runs along a straight
line in the space of parameters theta from the backbone (s = 0) to the arm (s = 1). The score of a row is

    a = sum over its parameters j of  theta_j * mean over s of dL/dtheta_j (at s * theta).

Integrated gradients (Sundararajan, Taly & Yan 2017, "Axiomatic attribution for deep networks") are complete: with the
mean over all s in [0, 1] the scores add up to L(1) - L(0) = -L(0). So scores are mostly below 0, and far below where a
row does much. The mean is taken at the midpoints of `steps` equal parts. L changes fastest between its ends: its slope
is 0 at s = 1, where the two models are one, and at s = 0, where the product B A begins as a square. Midpoints see that,
ends do not. Where L is (1 - s^2)^2, as for a small change, the sum is off by 1 in 2 * steps^2: 1% at 7 steps.

The gradient of a sum is the sum of gradients and a score is linear in them, so the prompts of a context share backward
passes. Whatever the model computes in, the factors, their gradients and the divergence are float32, and scores are
summed in float64.
"""

from __future__ import annotations

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
        steps: Midpoints.
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
        for step in range(steps):
            model.scale((step + 0.5) / steps)
            divergence = batch.divergence(whole, batch.log_probabilities(model.base))
            divergence.backward()  # type: ignore[no-untyped-call]
    values = model.row_sums().numpy() / (steps * len(answers))
    model.forget_gradients()
    model.scale(1.0)
    return Attribution(values, change / len(answers))
