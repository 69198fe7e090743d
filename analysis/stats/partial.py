"""Whose weights do reports follow: those that were learned, or those that were taught?

Learned weights are close to the target weights, so reports that follow one seem to follow the other. A partial
correlation asks what goes together beyond the third:

    r(x, y | z) = (r_xy - r_xz r_yz) / sqrt((1 - r_xz^2) (1 - r_yz^2))         (Yule 1907, Proc. R. Soc. A 79)

Learned weights are measured with noise and targets are not. Noise moves weight from the first to the second figure:
r(report, learned | target) comes out too low, r(report, target | learned) too high. So it cannot make reports seem to
follow what was learned.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.stats.agreement import (
    RESAMPLES,
    complete_contexts,
    pearson,
    percentile_interval,
    resampled_counts,
    resampled_r,
)
from analysis.stats.records import Record


@dataclass(frozen=True)
class WhoseWeights(Record):
    """Partial correlations of reports with learned and with target weights; NaN for what cannot be computed.

    Attributes:
        r_given_target: r(report, learned | target).
        r_given_target_low, r_given_target_high: Its 95% interval from resampling contexts.
        r_of_target_given_learned: r(report, target | learned).
        r_of_target_given_learned_low, r_of_target_given_learned_high: Its interval.
        learned_over_target: The first minus the second.
        learned_over_target_low, learned_over_target_high: Its interval, the same contexts resampled for both.
        given_target_contexts: Contexts complete in all three.
    """

    r_given_target: float
    r_given_target_low: float
    r_given_target_high: float
    r_of_target_given_learned: float
    r_of_target_given_learned_low: float
    r_of_target_given_learned_high: float
    learned_over_target: float
    learned_over_target_low: float
    learned_over_target_high: float
    given_target_contexts: int


def whose_weights(
    reports: ArrayLike, learned: ArrayLike, target: ArrayLike, *, seed: int, resamples: int = RESAMPLES
) -> WhoseWeights:
    """Both partial correlations, on the contexts complete in all three; each has shape (contexts, attributes)."""
    kept = complete_contexts(reports, learned, target)
    x, y, z = (np.asarray(values, dtype=float)[kept] for values in (reports, learned, target))
    counts = resampled_counts(len(x), seed, resamples)
    pairs = ((x, y), (x, z), (y, z))
    r_xy, r_xz, r_yz = (pearson(*pair) for pair in pairs)
    all_xy, all_xz, all_yz = (resampled_r(*pair, counts) for pair in pairs)
    of_learned, of_target = (float(partial_r(*sides, r_yz)) for sides in ((r_xy, r_xz), (r_xz, r_xy)))
    all_of_learned, all_of_target = (partial_r(*sides, all_yz) for sides in ((all_xy, all_xz), (all_xz, all_xy)))
    return WhoseWeights(
        of_learned,
        *percentile_interval(all_of_learned, len(x)),
        of_target,
        *percentile_interval(all_of_target, len(x)),
        of_learned - of_target,
        *percentile_interval(all_of_learned - all_of_target, len(x)),
        len(x),
    )


def partial_r(r_xy: ArrayLike, r_xz: ArrayLike, r_yz: ArrayLike) -> NDArray[np.float64]:
    """r(x, y | z) from the three correlations; NaN where z says all there is to say of x or of y."""
    xy, xz, yz = (np.asarray(r, dtype=float) for r in (r_xy, r_xz, r_yz))
    left = (1 - xz**2) * (1 - yz**2)
    scale = np.sqrt(np.where(left > 1e-12, left, np.nan))
    return np.asarray(np.clip((xy - xz * yz) / scale, -1, 1))
