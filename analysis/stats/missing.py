"""What becomes of a correlation when missing reports are treated otherwise.

Reports are not missing at random: a model may fall silent on just those contexts that it knows least about. No
treatment repairs that. Three are shown side by side; where they agree, it matters little.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.stats.agreement import bootstrap_r, mean_reports, pearson
from analysis.stats.records import Record
from task.errors import InputError

COMPLETE = "complete cases"
"""Each set on the contexts where it has a report, with the mean of those: the paper's."""

SHARED = "shared contexts"
"""All sets on the contexts where every one of them has a report."""

AS_ZERO = "missing as 0"
"""Every report that was asked for counts, one that is missing with 0 for each attribute: "it weighed nothing"."""


@dataclass(frozen=True)
class Treatment(Record):
    """The correlation of one set of reports with the weights, under one treatment of missing reports.

    Attributes:
        reports: Name of the set of reports.
        treatment: `COMPLETE`, `SHARED` or `AS_ZERO`.
        r: Pearson correlation of mean reports with weights over all points, NaN where it cannot be computed.
        boot_low, boot_high: 95% interval from resampling contexts.
        n_points, n_contexts: Points and contexts behind it.
    """

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

    Args:
        reports: By name of the set, shape (contexts, trials, attributes), NaN where a report could not be read and as
            padding.
        asked: By name of the set, the reports asked for in each context, shape (contexts,).
        weights: Shape (contexts, attributes), NaN where not measured; such contexts stay out of every treatment.
        seed: Of the bootstrap.

    Returns:
        The treatments in the order above, each for all sets.

    Raises:
        InputError: Shapes that do not match, or more readable reports in a context than were asked for.
    """
    y = np.asarray(weights, dtype=float)
    means: dict[str, NDArray[np.float64]] = {}
    zeros: dict[str, NDArray[np.float64]] = {}
    for name, values in reports.items():
        means[name], counts = mean_reports(values)
        total = np.asarray(asked[name])
        if means[name].shape != y.shape or total.shape != counts.shape:
            raise InputError(
                f"{name}: reports {means[name].shape}, asked {total.shape}, weights {y.shape}; give the same contexts"
            )
        if (counts > total).any():
            row = int(np.argmax(counts > total))
            raise InputError(
                f"{name}: context {row} has {counts[row]} readable reports, asked for {total[row]}; count all asked"
            )
        with np.errstate(invalid="ignore"):
            # NaN, and so left out here too, where nothing was asked.
            zeros[name] = np.nan_to_num(means[name]) * (counts / total)[:, None]
    everywhere = ~np.any([np.isnan(mean).any(axis=1) for mean in means.values()], axis=0)
    shared = {name: np.where(everywhere[:, None], mean, np.nan) for name, mean in means.items()}
    return [
        _treatment(name, treatment, x, y, seed)
        for treatment, treated in ((COMPLETE, means), (SHARED, shared), (AS_ZERO, zeros))
        for name, x in treated.items()
    ]


def _treatment(name: str, treatment: str, x: NDArray[np.float64], y: NDArray[np.float64], seed: int) -> Treatment:
    contexts = int((~(np.isnan(x) | np.isnan(y)).any(axis=1)).sum())
    low, high = bootstrap_r(x, y, seed=seed)
    return Treatment(name, treatment, pearson(x, y), low, high, contexts * y.shape[1], contexts)
