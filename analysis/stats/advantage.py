"""Do reports tell more of the model that gives them than of others? Correlations across models, and their differences.

M_ij = r(reports of i, weights of j). If models know their own weights better than others know them, two differences
are above 0 for model i:

- M_ii minus the mean over others j of M_ji: other models' reports, held against the weights of i;
- M_ii minus the mean over others j of r(W_j, W_i): others' weights, which anyone could read off their decisions.

Each comes with a 95% interval from resampling contexts, the same contexts for all correlations of a resample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.stats.agreement import RESAMPLES, pearson, percentile_interval, resampled_counts, resampled_r
from analysis.stats.records import Record

SEED = 0
"""Of the bootstrap."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Advantage(Record):
    """How much better one's own reports agree with one's weights than something else does; NaN if not computable.

    r of the own reports, mean r of the others and their difference with a 95% interval from resampling contexts, all on
    the contexts that are complete in everything.
    """

    own: float
    others: float
    difference: float
    boot_low: float
    boot_high: float
    n_contexts: int


@dataclass(frozen=True)
class CrossModel:
    """r(reports of i, weights of j), r(weights of i, weights of j), and each model's advantages over the others.

    `n_contexts` are the contexts behind each entry of `matrix`; all three have shape (models, models).
    """

    matrix: Array
    weights_matrix: Array
    n_contexts: NDArray[np.int64]
    over_reports: list[Advantage]
    over_weights: list[Advantage]


def advantage(own: Array, others: Sequence[Array], weights: Array, *, resamples: int = RESAMPLES) -> Advantage:
    """r(own, weights) minus the mean of r(other, weights), all (contexts, attributes)."""
    kept = ~np.isnan([own, weights, *others]).any(axis=(0, 2))
    own, weights, others = own[kept], weights[kept], [other[kept] for other in others]
    counts = resampled_counts(len(weights), SEED, resamples)
    r_own, r_others = pearson(own, weights), float(np.mean([pearson(other, weights) for other in others]))
    of_others = np.mean([resampled_r(other, weights, counts) for other in others], axis=0)
    low, high = percentile_interval(resampled_r(own, weights, counts) - of_others, len(weights))
    return Advantage(r_own, r_others, r_own - r_others, low, high, len(weights))


def cross_model(reports: Sequence[Array], weights: Sequence[Array]) -> CrossModel:
    """Both matrices, and both tests of each model.

    Args:
        reports: Mean reports of each model, shape (contexts, attributes), NaN where there are none.
        weights: Weights of each model on the same contexts, same shape.
    """

    def over(sources: Sequence[Array]) -> list[Advantage]:
        others = [[*sources[:i], *sources[i + 1 :]] for i in range(len(sources))]
        return [advantage(*sides) for sides in zip(reports, others, weights, strict=True)]

    complete = [[~np.isnan(r + w).any(axis=1) for w in weights] for r in reports]
    return CrossModel(
        matrix=np.array([[pearson(r, w) for w in weights] for r in reports]),
        weights_matrix=np.array([[pearson(v, w) for w in weights] for v in weights]),
        n_contexts=np.array(complete).sum(axis=2),
        over_reports=over(reports),
        over_weights=over(weights),
    )
