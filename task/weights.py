"""Attribute weights: how strongly, and in which direction, each attribute drives a decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from task.contexts import ChoiceContext
from task.errors import InputError
from task.seeding import stream, uniforms

Estimator = Literal["logistic", "log_odds"]
"""What weights are learned by: the paper's logistic posterior of the choices, or least squares on their log odds."""

LARGEST = 100.0
"""Weights are given on the scale on which the largest of a context has this magnitude."""

SMALLEST = 1e-9
"""What is not larger is rounding, on any scale that weights are estimated on."""


def rescale(weights: ArrayLike) -> NDArray[np.float64]:
    """Scale weights, shape (..., attributes), so that a context's largest magnitude is 100; zeros or NaN become NaN.

    A context whose weights are all zero, or so near it that only rounding tells them from it, has no direction: making
    it NaN keeps it out of every correlation, where it would enter as if it had been measured.
    """
    weights = np.asarray(weights, dtype=float)
    largest = np.abs(weights).max(axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Dividing first makes the largest exactly 100: x / x is 1, x * (100 / x) may miss 100 by a float error.
        return np.where(largest > SMALLEST, weights / largest * LARGEST, np.nan)


def sample_weights(seed: int, purpose: str, context: ChoiceContext) -> NDArray[np.float64]:
    """Draw weights from U(-100, 100), rescale the largest to 100, round; shape (attributes,).

    `purpose` names the stream: `target_weights` for what is taught; the simulated engine draws native weights so too.
    """
    draws = uniforms(seed, purpose, context.name, count=1, width=len(context.attributes))[0]
    return np.round(rescale(draws * 2 * LARGEST - LARGEST)) + 0.0  # + 0.0 turns -0.0 into 0.0


def utilities(values: ArrayLike, weights: ArrayLike, context: ChoiceContext) -> NDArray[np.float64]:
    """Utility of options: sum over attributes of weight x (value - low) / (high - low).

    Values, shape (..., attributes), are in the attributes' units.
    """
    scaled = (np.asarray(values, dtype=float) - context.lows) / context.spans
    return scaled @ np.asarray(weights, dtype=float)


def shuffle_across(names: Sequence[str], seed: int) -> dict[str, str]:
    """Assign to each context the weights of another one: a permutation without fixed points, from (seed, names).

    For the shuffled-label control: whole weight vectors change place, so the marginal distribution of the labels and
    their joint distribution within a context stay as they were, and only the link to the decisions is cut.
    """
    if len(names) < 2:
        raise InputError(f"shuffling weights needs at least 2 contexts, got {list(names)}; use more contexts")
    order = stream(seed, "shuffle_weights").permutation(len(names))
    # A cycle through a random order: every context receives its successor's weights, so none keeps its own.
    return {names[i]: names[j] for i, j in zip(order, np.roll(order, -1), strict=True)}
