"""One correlation of reports with weights, computed in other ways that the paper could have chosen."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.stats.agreement import bootstrap_r, mean_reports, pearson
from analysis.stats.records import Record
from task.weights import LARGEST

COMPLETE = "complete cases"
"""Each set on the contexts where it has a report, with the mean of those: the paper's."""

SHARED = "shared contexts"
"""All sets on the contexts where every one of them has a report."""

AS_ZERO = "missing as 0"
"""Every report that was asked for counts, one that is missing with 0 for each attribute: "it weighed nothing"."""


@dataclass(frozen=True)
class Treatment(Record):
    """r of the set `reports` with the weights, and its interval from resampling contexts, missing reports treated."""

    reports: str
    treatment: str
    r: float
    boot_low: float
    boot_high: float
    n_points: int
    n_contexts: int


def treat_missing(
    reports: Mapping[str, ArrayLike], asked: Mapping[str, ArrayLike], weights: ArrayLike, *, seed: int
) -> list[Treatment]:
    """Correlate several sets of reports with the same weights, missing reports treated in three ways.

    Reports are not missing at random: a model may fall silent on just those contexts that it knows least about. No
    treatment repairs that. Three are shown side by side; where they agree, it matters little.

    Args:
        reports: By name of the set, shape (contexts, trials, attributes), NaN where a report could not be read and as
            padding.
        asked: By name of the set, the reports asked for in each context, shape (contexts,).
        weights: Shape (contexts, attributes), NaN where not measured; such contexts stay out of every treatment.
        seed: Of the bootstrap.

    Returns:
        The treatments in the order above, each for all sets.
    """
    y = np.asarray(weights, dtype=float)
    means, zeros = {}, {}
    for name, values in reports.items():
        means[name], counts = mean_reports(values)
        with np.errstate(invalid="ignore"):
            # NaN, and so left out here too, where nothing was asked.
            zeros[name] = np.nan_to_num(means[name]) * (counts / np.asarray(asked[name]))[:, None]
    everywhere = ~np.any([np.isnan(mean).any(axis=1) for mean in means.values()], axis=0)
    shared = {name: np.where(everywhere[:, None], mean, np.nan) for name, mean in means.items()}
    found = []
    for treatment, treated in ((COMPLETE, means), (SHARED, shared), (AS_ZERO, zeros)):
        for name, x in treated.items():
            contexts = int((~(np.isnan(x) | np.isnan(y)).any(axis=1)).sum())
            ends = bootstrap_r(x, y, seed=seed)
            found.append(Treatment(name, treatment, pearson(x, y), *ends, contexts * y.shape[1], contexts))
    return found


@dataclass(frozen=True)
class Variants(Record):
    """One correlation, computed in ways that the paper could have chosen; NaN where it cannot be.

    Attributes:
        as_given: The paper's: values of reports as given.
        clipped, dropped: Values beyond +-100 set to +-100, or such reports left out whole.
        standardised_first: See `standardised_first`.
        standardised_by_fold: See `standardised_by_fold`; NaN for a set that is not pooled from folds.
        outside, largest: Readable reports with a value beyond +-100, and the largest magnitude reported.
    """

    as_given: float
    clipped: float
    dropped: float
    standardised_first: float
    standardised_by_fold: float
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


def standardised_by_fold(x: ArrayLike, y: ArrayLike, folds: ArrayLike) -> float:
    """Pearson's r of z-scores, each fold's reports and weights standardised by themselves before they are pooled.

    The folds were reported on by models of their own. Pooled as given, a difference between these models in the mean or
    the spread of their reports counts for the agreement or against it; standardised, only what is within a fold does. A
    fold whose reports or weights are all the same stays out.

    Args:
        x: Mean reports, shape (contexts, attributes), NaN where there are none.
        y: Weights, same shape.
        folds: Fold of each context, below 0 for none, shape (contexts,).
    """
    x, y, folds = np.asarray(x, dtype=float), np.asarray(y, dtype=float), np.asarray(folds)
    complete = ~(np.isnan(x) | np.isnan(y)).any(axis=1)
    pooled = []
    for fold in np.unique(folds[complete & (folds >= 0)]):
        both = np.stack([x[complete & (folds == fold)].ravel(), y[complete & (folds == fold)].ravel()])
        spread = both.std(axis=1, keepdims=True)
        if (spread > 0).all():
            pooled.append((both - both.mean(axis=1, keepdims=True)) / spread)
    return pearson(*np.concatenate(pooled, axis=1)[..., None]) if pooled else math.nan


def variants(
    values: NDArray[np.float64], weights: NDArray[np.float64], folds: NDArray[np.int64] | None = None
) -> Variants:
    """Correlate reports (contexts, trials, attributes), NaN where missing, with weights (contexts, attributes).

    `folds` are those of `standardised_by_fold`, where the reports are pooled from several models.
    """
    mean, _ = mean_reports(values)
    beyond = np.abs(values).max(axis=2) > LARGEST
    return Variants(
        as_given=pearson(mean, weights),
        clipped=pearson(mean_reports(np.clip(values, -LARGEST, LARGEST))[0], weights),
        dropped=pearson(mean_reports(np.where(beyond[..., None], np.nan, values))[0], weights),
        standardised_first=standardised_first(mean, weights),
        standardised_by_fold=math.nan if folds is None else standardised_by_fold(mean, weights, folds),
        outside=int(beyond.sum()),
        largest=float(np.nanmax(np.abs(values))),
    )
