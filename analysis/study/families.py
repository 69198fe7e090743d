"""Many comparisons at once, and effects that were not found: Holm within a family, and equivalence tests."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from analysis.stats.agreement import RESAMPLES, complete_contexts, resampled_counts, resampled_r
from analysis.stats.testing import equivalence_p

Array = NDArray[np.float64]


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values of one family, adjusted so that any false finding among them has a chance of at most 5% at .05.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979. NaN, of
    what is not testable, stays NaN and does not count.

    Not by statsmodels, whose `multipletests` collects garbage first, for a tenth of a second.
    """
    tested = sorted((name for name, p in p_values.items() if not math.isnan(p)), key=lambda name: p_values[name])
    found, adjusted = dict.fromkeys(p_values, math.nan), 0.0
    for place, name in enumerate(tested):
        adjusted = max(adjusted, min(1.0, (len(tested) - place) * p_values[name]))
        found[name] = adjusted
    return found


def r_is_small(x: Array, y: Array, smallest: float, seed: int) -> float:
    """p-value of "r(x, y) is `smallest` or more, up or down"; see `testing.equivalence_p`."""
    kept = complete_contexts(x, y)
    counts = resampled_counts(int(kept.sum()), seed, RESAMPLES)
    return equivalence_p(resampled_r(x[kept], y[kept], counts), int(kept.sum()), smallest)


def difference_is_small(x1: Array, x2: Array, y: Array, smallest: float, seed: int) -> float:
    """Likewise of r(x2, y) - r(x1, y), paired by context."""
    kept = complete_contexts(x1, x2, y)
    counts = resampled_counts(int(kept.sum()), seed, RESAMPLES)
    values = resampled_r(x2[kept], y[kept], counts) - resampled_r(x1[kept], y[kept], counts)
    return equivalence_p(values, int(kept.sum()), smallest)
