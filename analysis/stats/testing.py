"""Tests that go with an interval from resampling contexts, and how small an effect would have been found.

An effect that is not found need not be absent. Two things are said of that: whether the effect is *shown to be small*,
by two one-sided tests against the smallest effect of interest (Schuirmann 1987, J. Pharmacokinet. Biopharm. 15), and
which effect a study of this size would have found with a power of 80%.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtr, stdtrit

POWER = 0.8
"""Of finding the smallest detectable effect."""

Array = NDArray[np.float64]


def one_sided_p(values: Array, contexts: int, limit: float) -> float:
    """p-value of "the figure is at most `limit`", from its values in the bootstrap resamples.

    The share of resamples at or below the limit, made wider for few contexts just as the interval is (see
    `agreement.percentile_interval`), so that the lower end of the 95% interval is above the limit where p is below
    .025. NaN where there is no interval.
    """
    values = values[~np.isnan(values)]
    if not values.size or contexts < 2:
        return math.nan
    share = (1 + int((values <= limit).sum())) / (2 + len(values))
    return float(stdtr(contexts - 1, ndtri(share) * math.sqrt((contexts - 1) / contexts)))


def two_sided_p(values: Array, contexts: int) -> float:
    """p-value of "the figure is 0"; below .05 where 0 lies outside the interval."""
    low, high = one_sided_p(values, contexts, 0.0), one_sided_p(-values, contexts, 0.0)
    return low if math.isnan(low) else min(1.0, 2 * min(low, high))


def equivalence_p(values: Array, contexts: int, smallest: float) -> float:
    """p-value of "the figure is `smallest` or more, up or down": below .05 it is shown to be smaller than that.

    Then its 90% interval lies within -+`smallest`.
    """
    low, high = one_sided_p(values, contexts, -smallest), one_sided_p(-values, contexts, -smallest)
    return low if math.isnan(low) else max(low, high)


def detectable_effect(values: Array, contexts: int) -> float:
    """Effect that a study of this size finds with a power of 80%, two-sided at 5%: (t(.975) + t(.80)) se.

    The standard error is that of `values`, resamples or a null, with variance / (n - 1) for n contexts. NaN where there
    are none.
    """
    values = values[~np.isnan(values)]
    if values.size < 2 or contexts < 2:
        return math.nan
    error = float(values.std()) * math.sqrt(contexts / (contexts - 1))
    return float((stdtrit(contexts - 1, 0.975) + stdtrit(contexts - 1, POWER)) * error)
