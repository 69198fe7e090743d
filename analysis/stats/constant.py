"""More than one answer for all contexts? What a constant report would get, and r without the attribute positions.

Weights can lean to one side, or an attribute position (the price comes first, say) can be high throughout. A model that
gives the same weights everywhere then agrees with them without knowing any context.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.stats.agreement import (
    RESAMPLES,
    complete_contexts,
    paired_difference,
    pearson,
    percentile_interval,
    resampled_counts,
)
from analysis.stats.records import Record

Array = NDArray[np.float64]


@dataclass(frozen=True)
class BeyondConstant(Record):
    """Reports beside one answer for all contexts; NaN for what cannot be computed.

    Attributes:
        r_constant: r of `leave_out_mean` with the weights.
        over_constant: r of the reports minus `r_constant`.
        over_constant_low, over_constant_high: Its 95% interval from resampling contexts, the constant kept as it is.
        r_centred: r without the mean of each attribute position, see `centred`.
        r_centred_low, r_centred_high: Its interval, the means taken anew in each resample.
    """

    r_constant: float
    over_constant: float
    over_constant_low: float
    over_constant_high: float
    r_centred: float
    r_centred_low: float
    r_centred_high: float


def beyond_constant(reports: ArrayLike, weights: ArrayLike, *, seed: int) -> BeyondConstant:
    """Both comparisons with a constant, on the contexts complete in reports and weights, (contexts, attributes)."""
    kept = complete_contexts(reports, weights)
    x, y = (np.asarray(values, dtype=float)[kept] for values in (reports, weights))
    constant = leave_out_mean(x)
    gain = paired_difference(constant, x, y, seed=seed)
    return BeyondConstant(
        r_constant=pearson(constant, y),
        over_constant=gain.difference,
        over_constant_low=gain.boot_low,
        over_constant_high=gain.boot_high,
        r_centred=pearson(centred(x), centred(y)),
        **dict(zip(("r_centred_low", "r_centred_high"), bootstrap_centred_r(x, y, seed=seed), strict=True)),
    )


def leave_out_mean(reports: ArrayLike) -> Array:
    """For each context the mean report about all *other* contexts, same shape (contexts, attributes).

    Contexts with NaN get NaN and enter no mean; NaN throughout with fewer than 2 others left. What a context itself
    says is left out, as it would make any report agree with itself a little. The price: where reports have no common
    answer, r of this mean with the weights comes out a little below 0 (-0.06 with 50 contexts that are reported as they
    are). Read a negative one as 0.
    """
    x = np.asarray(reports, dtype=float)
    kept = complete_contexts(x)
    found = np.full_like(x, np.nan)
    if kept.sum() > 1:
        found[kept] = (x[kept].sum(axis=0) - x[kept]) / (kept.sum() - 1)
    return found


def centred(values: ArrayLike) -> Array:
    """Values (contexts, attributes) minus each attribute position's mean over the complete contexts."""
    x = np.asarray(values, dtype=float)
    kept = complete_contexts(x)
    return x - x[kept].mean(axis=0) if kept.any() else x


def bootstrap_centred_r(x: Array, y: Array, *, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95% interval of r of `centred` reports and weights, both complete; NaN with under 2 contexts."""
    if len(x) < 2 or math.isnan(pearson(centred(x), centred(y))):
        return math.nan, math.nan
    x, y = centred(x), centred(y)
    x, y = x / x.std(), y / y.std()
    counts = resampled_counts(len(x), seed, resamples)
    sums_x, sums_y = counts @ x, counts @ y
    square_x, square_y, product = (counts @ np.stack([(v * w).sum(axis=1) for v, w in ((x, x), (y, y), (x, y))], 1)).T
    square_x, square_y = (
        square - (sums**2).sum(axis=1) / len(x) for square, sums in ((square_x, sums_x), (square_y, sums_y))
    )
    product = product - (sums_x * sums_y).sum(axis=1) / len(x)
    varied = (square_x > 1e-9) & (square_y > 1e-9)
    scale = np.sqrt(np.where(varied, square_x * square_y, np.nan))
    return percentile_interval(np.clip(product / scale, -1, 1), len(x))
