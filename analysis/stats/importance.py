"""Importance sampling for many small posteriors at once: draws, weights, moments, intervals, diagnostics.

Nothing here knows a model. Arrays run over contexts first and draws last, and every context is given the same
quasi-random draws, so a context's result does not depend on which others are in the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri, ndtri, stdtrit
from scipy.stats import qmc

from task.errors import InputError
from task.seeding import stream

FIRST_DF = 2.0
"""Degrees of freedom of the first coordinate, which may be heavy-tailed."""

OTHER_DF = 20.0
"""Degrees of freedom of the others, which are expected to have tails close to a normal's."""

FEWEST_DRAWS = 128
"""Below this the Pareto diagnostic has too short a tail to be fitted."""


@dataclass(frozen=True)
class StandardDraws:
    """Draws (dimensions, draws) with location 0 and scale 1, to be shifted and scaled to each context's proposal.

    `log_density` is that of each draw, up to a constant.
    """

    points: NDArray[np.float64]
    log_density: NDArray[np.float64]


@cache
def standard_draws(dimensions: int, draws: int, seed: int) -> StandardDraws:
    """Quasi-random draws of Student-t(2) x multivariate Student-t(20) in `dimensions - 1` further coordinates.

    The first coordinate has a tail of its own: under one multivariate t, a draw far out in it is far out in all
    others too, and a posterior with one heavy tail is then missed. Scrambled Sobol points are used once as they are
    and once with the other coordinates mirrored, which cancels most of the error of their means.

    Raises:
        InputError: `draws` is not a power of two (Sobol points lose their balance) or is below 128.
    """
    if draws < FEWEST_DRAWS or draws & (draws - 1):
        raise InputError(f"draws = {draws}; give a power of two from {FEWEST_DRAWS} on, such as 2048")
    sobol = qmc.Sobol(dimensions + 1, rng=stream(seed, "importance_draws"))
    # A Sobol point may be exactly 0, whose quantile is infinite.
    uniform = np.clip(sobol.random(draws // 2), 2.0**-31, 1 - 2.0**-31).T
    first = stdtrit(FIRST_DF, uniform[0])
    others = ndtri(uniform[1:-1]) * np.sqrt(OTHER_DF / chdtri(OTHER_DF, uniform[-1]))
    squares = np.square(others).sum(axis=0)
    log_density = -(FIRST_DF + 1) / 2 * np.log1p(first**2 / FIRST_DF)
    log_density -= (OTHER_DF + dimensions - 1) / 2 * np.log1p(squares / OTHER_DF)
    points = np.hstack([np.vstack([first, others]), np.vstack([first, -others])])
    found = StandardDraws(points, np.tile(log_density, 2))
    for kept in (found.points, found.log_density):
        kept.flags.writeable = False
    return found


def normalised_weights(log_weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights that sum to 1 over the draws, from log weights of shape (contexts, draws)."""
    weights = np.exp(log_weights - log_weights.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def weighted_moments(
    values: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (contexts, dimensions) and covariance (contexts, dimensions, dimensions) of weighted draws.

    `values` have shape (contexts, dimensions, draws); `weights`, (contexts, draws), sum to 1 over the draws.
    """
    mean = np.einsum("cks,cs->ck", values, weights)
    centred = values - mean[:, :, None]
    return mean, (centred * weights[:, None, :]) @ centred.transpose(0, 2, 1)


def weighted_hdi(
    values: NDArray[np.float64], weights: NDArray[np.float64], probability: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Ends of the highest-density interval: the shortest that holds `probability` of the weighted draws.

    Takes what `weighted_moments` takes, and returns low and high ends, each (contexts, dimensions). With equal weights
    they are those of `arviz_stats.hdi`.
    """
    rows = values.reshape(-1, values.shape[-1])
    order = np.argsort(rows, axis=-1)
    rows = np.take_along_axis(rows, order, axis=-1)
    mass = np.take_along_axis(np.repeat(weights, values.shape[1], axis=0), order, axis=-1)
    below = np.cumsum(mass, axis=-1)

    rounding = 1e-9
    # An interval may start at a draw if the draws from there on hold enough, and ends where adding one is too much.
    row, start = np.nonzero(1 - below + mass > probability + rounding)
    # Row r's masses lie in (2r, 2r + 1], so that one search over the flattened rows serves all of them.
    shelf = below + 2.0 * np.arange(len(rows))[:, None]
    last = np.searchsorted(shelf.ravel(), shelf[row, start] + probability + rounding, side="right") - 1
    low, high = rows[row, start], rows[row, last - row * rows.shape[1]]
    width = high - low
    first_of_row = np.searchsorted(row, np.arange(len(rows)))
    shortest = np.flatnonzero(width == np.minimum.reduceat(width, first_of_row)[row])
    chosen = shortest[np.unique(row[shortest], return_index=True)[1]]
    return low[chosen].reshape(values.shape[:2]), high[chosen].reshape(values.shape[:2])


def pareto_k(log_weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Tail index of the weights, shape (contexts,): below 0.7 the weighted means can be trusted.

    A generalised Pareto distribution is fitted to the largest weights' excess over the next one: an average over a
    grid of b = -k / scale, weighted by the profile likelihood, drawn a little to 0.5. The same as
    `arviz_stats.psislw`, which takes the rows one after the other; that was a third of an estimator's time.

    `log_weights`, up to a constant, have shape (contexts, draws). Infinite where no tail can be fitted, as all but a
    few weights are 0 beside the largest.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, "Pareto smoothed importance sampling", JMLR 25 (2024); the fit is
    that of Zhang and Stephens, "A new and efficient estimation method", Technometrics 51 (2009).
    """
    draws = log_weights.shape[-1]
    n = min(draws // 5, math.isqrt(9 * draws))
    largest = np.sort(np.partition(log_weights, draws - n - 1, axis=-1)[:, -n - 1 :], axis=-1)
    weights = np.exp(largest - largest[:, -1:])
    excess = weights[:, 1:] - weights[:, :1]
    size = 30 + math.isqrt(n)
    with np.errstate(divide="ignore", invalid="ignore"):
        grid = (1 - np.sqrt(size / (np.arange(size) + 0.5))) / (3 * excess[:, int(n / 4 + 0.5) - 1, None])
        b = grid + 1 / excess[:, -1:]
        k = np.log1p(-b[:, :, None] * excess[:, None]).mean(axis=2)
        b = (b * normalised_weights(n * (np.log(-b / k) - k - 1))).sum(axis=1, keepdims=True)
        k = np.log1p(-b * excess).mean(axis=1)
    return np.where(np.isnan(k), np.inf, (n * k + 10 * 0.5) / (n + 10))
