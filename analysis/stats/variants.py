"""One correlation of reports with weights, computed in ways that the paper could have chosen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.stats.agreement import mean_reports, pearson
from analysis.stats.records import Record
from task.weights import LARGEST


@dataclass(frozen=True)
class Variants(Record):
    """One correlation, computed in ways that the paper could have chosen; NaN where it cannot be.

    Attributes:
        as_given: The paper's: values of reports as given.
        clipped: Values beyond +-100 set to +-100.
        dropped: Reports with a value beyond +-100 left out whole.
        standardised_first: See `standardised_first`.
        outside: Readable reports with a value beyond +-100.
        largest: Largest magnitude reported.
    """

    as_given: float
    clipped: float
    dropped: float
    standardised_first: float
    outside: int
    largest: float


def standardised_first(x: ArrayLike, y: ArrayLike) -> float:
    """Slope of standardised y on standardised x, standardised before the contexts without x were left out.

    Where every context has both, this is Pearson's r. Where reports are missing, the weights were standardised over
    contexts that the regression then does not see, and the slope is r * sd(y, complete contexts) / sd(y, all contexts).

    Args:
        x: Mean reports, shape (contexts, attributes), NaN where there are none.
        y: Weights, same shape.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    measured = ~np.isnan(y).any(axis=1)
    complete = measured & ~np.isnan(x).any(axis=1)
    r = pearson(x, y)
    return math.nan if math.isnan(r) else r * float(y[complete].std(ddof=1) / y[measured].std(ddof=1))


def variants(values: NDArray[np.float64], weights: NDArray[np.float64]) -> Variants:
    """Correlate reports (contexts, trials, attributes), NaN where missing, with weights (contexts, attributes)."""
    mean, _ = mean_reports(values)
    beyond = np.abs(values).max(axis=2) > LARGEST
    return Variants(
        as_given=pearson(mean, weights),
        clipped=pearson(mean_reports(np.clip(values, -LARGEST, LARGEST))[0], weights),
        dropped=pearson(mean_reports(np.where(beyond[..., None], np.nan, values))[0], weights),
        standardised_first=standardised_first(mean, weights),
        outside=int(beyond.sum()),
        largest=float(np.nanmax(np.abs(values))),
    )
