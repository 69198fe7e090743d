"""Where the scores of an attribution lie: in which layers and matrices, in how few rows, and whether one decides all.

Importance is the absolute score of a row, averaged over contexts before the absolute value is taken: what differs from
context to context cancels, as far as there are contexts. Intervals are jackknifed (Tukey 1958), contexts left out one
at a time: a bootstrap's repeated contexts would cancel less, and make all layers alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from analysis.stats.similarity import FEWEST, matrix_starts

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Shares:
    """Shares of the importance, of layers or of kinds of matrices.

    Attributes:
        whole: Of all contexts together, shape (parts,); they sum to 1.
        left_out: Without each of the contexts, shape (contexts, parts); no rows with one context.
    """

    whole: Array
    left_out: Array


def shares(scores: ArrayLike, part: ArrayLike, parts: int) -> Shares:
    """Share of sum |score| in each part; scores (contexts, rows), `part` (rows,) counts from 0, below 0 for no part."""
    found, place = np.asarray(scores, dtype=float), np.asarray(part)
    kept, total = place >= 0, found.sum(axis=0)

    def of(mean: Array) -> Array:
        sums = np.bincount(place[kept], np.abs(mean[kept]), minlength=parts)
        return sums / sums.sum() if sums.sum() else np.full(parts, np.nan)

    many = len(found)
    rest = [of((total - one) / (many - 1)) for one in found] if many > 1 else []
    return Shares(of(total / many), np.array(rest).reshape(-1, parts))


def mean_place(share: Array, places: ArrayLike) -> Array:
    """Mean of the places (parts,), such as layers, by their shares (..., parts)."""
    return np.asarray(share @ np.asarray(places, dtype=float))


def distance(one: Array, other: Array) -> Array:
    """How far two sets of shares (..., parts) lie apart: half the sum of |difference|, 0 for equal, 1 for disjoint."""
    return np.asarray(np.abs(one - other).sum(axis=-1) / 2)


def jackknifed(whole: ArrayLike, left_out: ArrayLike) -> tuple[float, float, float]:
    """A figure with its 95% interval, from its values without each of the contexts (contexts,).

    se^2 = (n - 1) / n sum (value - their mean)^2, times t(.975, n - 1); NaN ends with few contexts.
    """
    value, rest = float(np.asarray(whole)), np.asarray(left_out, dtype=float)
    n = len(rest)
    if n < FEWEST:
        return value, math.nan, math.nan
    error = math.sqrt((n - 1) / n * float(((rest - rest.mean()) ** 2).sum()))
    half = float(stdtrit(n - 1, 0.975)) * error
    return value, value - half, value + half


def rows_with_half(scores: ArrayLike) -> float:
    """The smallest share of rows that holds half of sum |score|; scores (rows,). Half of the rows if all are alike."""
    sizes = np.sort(np.abs(np.asarray(scores, dtype=float)))[::-1]
    if not sizes.sum():
        return math.nan
    reached = int(np.searchsorted(np.cumsum(sizes), sizes.sum() / 2 * (1 - 1e-12))) + 1
    return reached / len(sizes)


def largest_row(scores: ArrayLike) -> float:
    """Share of the sum of squared scores (rows,) that is the largest row's: what one row can do to a cosine."""
    squares = np.asarray(scores, dtype=float) ** 2
    return float(squares.max() / squares.sum()) if squares.sum() else math.nan


def without_each_matrix(deciding: ArrayLike, reporting: ArrayLike, matrix: ArrayLike) -> Array:
    """The cosine of two vectors (rows,) without each of the matrices in turn, shape (matrices,).

    `matrix` is the number of each row's matrix, shape (rows,), in ascending order. NaN where nothing is left.
    """
    d, r = np.asarray(deciding, dtype=float), np.asarray(reporting, dtype=float)
    starts = matrix_starts(matrix)
    square_d, square_r, both = (v.sum() - np.add.reduceat(v, starts) for v in (d * d, r * r, d * r))
    size = np.sqrt(np.maximum(square_d, 0) * np.maximum(square_r, 0))
    # What is left of a sum from which all was taken is rounding.
    some = size > 1e-12 * math.sqrt(float(d @ d) * float(r @ r))
    return np.asarray(np.clip(both / np.where(some, size, np.nan), -1, 1))
