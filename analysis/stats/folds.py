"""Folds: contexts that were reported on by different models, each by itself.

Introspection training leaves out a part of the contexts at a time, so that the reports of a comparison come from as
many models as there are folds. A figure over all of them hides a fold that failed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from analysis.stats.agreement import bootstrap_r, complete_contexts, pearson, permutation_null, permuted_r
from analysis.stats.records import Record

CHANCE = (0.025, 0.975)
"""Ends of the range that chance gives."""


@dataclass(frozen=True)
class FoldAgreement(Record):
    """Agreement of reports with weights in one fold; NaN for what cannot be computed.

    Attributes:
        r: Pearson correlation over the fold's points.
        boot_low, boot_high: 95% interval from resampling the fold's contexts.
        p_permutation: From permuting them.
        chance_low, chance_high: Where 95% of these permutations lie: what r chance gives in a fold of this size.
        n_contexts: Complete in both.
    """

    r: float
    boot_low: float
    boot_high: float
    p_permutation: float
    chance_low: float
    chance_high: float
    n_contexts: int


def fold_agreements(reports: ArrayLike, weights: ArrayLike, folds: ArrayLike, *, seed: int) -> dict[int, FoldAgreement]:
    """Agreement within each fold, by its number.

    Args:
        reports: Mean reports, shape (contexts, attributes), NaN where there are none.
        weights: Same shape.
        folds: Fold of each context, below 0 for none, shape (contexts,).
        seed: Of the bootstrap and the permutations.
    """
    numbers = np.asarray(folds)
    found = {}
    for fold in np.unique(numbers[numbers >= 0]):
        x, y = (np.asarray(values, dtype=float)[numbers == fold] for values in (reports, weights))
        null = permuted_r(x, y, seed=seed)[1]
        low, high = np.quantile(null, CHANCE).tolist() if null.size else (math.nan, math.nan)
        contexts = int(complete_contexts(x, y).sum())
        ends = bootstrap_r(x, y, seed=seed)
        found[int(fold)] = FoldAgreement(pearson(x, y), *ends, permutation_null(x, y, seed=seed), low, high, contexts)
    return found
