"""Folds: each by itself, and the null that does not cross them."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest

from analysis.stats.agreement import bootstrap_r, pearson, permutation_null, permuted_r
from analysis.stats.folds import fold_agreements


def two_models(contexts: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reports that know nothing; models of the folds differ in level, and so do the weights of their contexts."""
    rng = np.random.default_rng(seed)
    folds = np.arange(contexts) % 2
    reports, weights = rng.normal(size=(2, contexts, 5))
    return reports + folds[:, None], weights + 0.6 * folds[:, None], folds


def test_permutations_within_folds_reject_what_they_should_and_across_folds_far_more():
    within, across = [], []
    for seed in range(200):
        x, y, folds = two_models(40, seed)
        within.append(permutation_null(x, y, seed=seed, permutations=200, folds=folds) < 0.05)
        across.append(permutation_null(x, y, seed=seed, permutations=200) < 0.05)
    assert np.mean(within) < 0.1 and np.mean(across) > 0.4


def test_contexts_change_places_within_their_fold_only():
    x, y, folds = two_models(6, seed=1)
    observed, null, centre = permuted_r(x, y, seed=0, permutations=3000, folds=folds)
    possible = set()
    groups = [np.flatnonzero(folds == fold) for fold in (0, 1)]
    for first in permutations(groups[0]):
        for second in permutations(groups[1]):
            order = np.arange(6)
            order[groups[0]], order[groups[1]] = first, second
            possible.add(round(pearson(x[order], y), 9))
    assert observed == pytest.approx(pearson(x, y))
    assert {round(value, 9) for value in null} == possible
    assert centre == pytest.approx(np.mean(list(possible)))


def test_one_fold_is_the_null_without_folds():
    x, y, _ = two_models(15, seed=2)
    assert permutation_null(x, y, seed=3, folds=np.ones(15)) == permutation_null(x, y, seed=3)


def test_a_fold_has_the_figures_of_its_own_contexts_and_contexts_of_none_take_no_part():
    x, y, folds = two_models(30, seed=4)
    x[4] = np.nan
    folds[5] = -1
    found = fold_agreements(x, y, folds, seed=0)
    assert list(found) == [0, 1] and [f.n_contexts for f in found.values()] == [14, 14]
    for fold, agreement in found.items():
        a, b = x[folds == fold], y[folds == fold]
        assert agreement.r == pytest.approx(pearson(a, b))
        assert (agreement.boot_low, agreement.boot_high) == bootstrap_r(a, b, seed=0)


def test_chance_is_wider_in_smaller_folds():
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(2, 60, 5))
    folds = np.array([0] * 10 + [1] * 50)
    small, large = fold_agreements(x, y, folds, seed=0).values()
    # Points of contexts that are permuted: an r of n points has an sd of 1 / sqrt(n - 1).
    for fold, points in ((small, 50), (large, 250)):
        assert fold.chance_high - fold.chance_low == pytest.approx(2 * 1.96 / math.sqrt(points - 1), rel=0.25)
    assert small.chance_low < small.r < small.chance_high


def test_a_fold_of_one_context_has_no_chance_range():
    x, y, _ = two_models(5, seed=7)
    alone = fold_agreements(x, y, np.array([0, 1, 1, 1, 1]), seed=0)[0]
    assert math.isnan(alone.chance_low) and math.isnan(alone.boot_low) and alone.n_contexts == 1
