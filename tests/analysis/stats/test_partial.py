"""Partial correlations against regression residuals, a loop over resamples and planted truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.stats.agreement import pearson, percentile_interval, resampled_counts
from analysis.stats.partial import partial_r, whose_weights


def residuals(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    design = np.column_stack([np.ones(by.size), by.ravel()])
    return values.ravel() - design @ np.linalg.lstsq(design, values.ravel(), rcond=None)[0]


def planted(contexts: int, follows: str, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reports of learned weights, or of the targets, that were learned in part."""
    rng = np.random.default_rng(seed)
    target, off, noise = rng.normal(size=(3, contexts, 5))
    learned = 0.85 * target + 0.5 * off
    return (learned if follows == "learned" else target) + noise, learned, target


def test_a_partial_correlation_is_that_of_what_a_regression_on_the_third_leaves():
    x, y, z = planted(30, "learned", seed=0)
    found = whose_weights(x, y, z, seed=0)
    expected = np.corrcoef(residuals(x, z), residuals(y, z))[0, 1], np.corrcoef(residuals(x, y), residuals(z, y))[0, 1]
    assert (found.r_given_target, found.r_of_target_given_learned) == pytest.approx(expected)


def test_its_interval_is_that_of_a_loop_over_resampled_contexts():
    x, y, z = planted(12, "learned", seed=1)
    looped, apart = [], []
    for count in resampled_counts(12, 3, 200).astype(int):
        a, b, c = (np.repeat(v, count, axis=0) for v in (x, y, z))
        of_target = np.corrcoef(residuals(c, b), residuals(a, b))[0, 1]
        looped.append(np.corrcoef(residuals(a, c), residuals(b, c))[0, 1])
        apart.append(looped[-1] - of_target)
    found = whose_weights(x, y, z, seed=3, resamples=200)
    assert (found.r_given_target_low, found.r_given_target_high) == pytest.approx(
        percentile_interval(np.array(looped), 12)
    )
    assert found.learned_over_target == pytest.approx(found.r_given_target - found.r_of_target_given_learned)
    assert (found.learned_over_target_low, found.learned_over_target_high) == pytest.approx(
        percentile_interval(np.array(apart), 12)
    )


def test_reports_of_what_was_learned_are_told_from_reports_of_what_was_taught():
    of_learned = whose_weights(*planted(100, "learned", seed=2), seed=0)
    assert of_learned.r_given_target_low > 0.3 and of_learned.r_of_target_given_learned_low < 0
    assert of_learned.r_of_target_given_learned_high > 0
    of_target = whose_weights(*planted(100, "target", seed=2), seed=0)
    assert of_target.r_of_target_given_learned_low > 0.3 and of_target.r_given_target_low < 0


def test_contexts_count_that_have_all_three_and_without_any_there_is_no_figure():
    x, y, z = planted(20, "learned", seed=3)
    x[0], y[1], z[2, 3] = np.nan, np.nan, np.nan
    found, kept = whose_weights(x, y, z, seed=0), whose_weights(x[3:], y[3:], z[3:], seed=0)
    assert found == kept and found.given_target_contexts == 17
    none = whose_weights(x, y, np.full_like(z, np.nan), seed=0)
    assert none.given_target_contexts == 0 and all(v in (None, 0) for v in none.as_dict().values())


def test_where_learned_are_the_target_weights_there_is_nothing_to_tell_apart():
    x, y, _ = planted(20, "learned", seed=4)
    found = whose_weights(x, y, 2 * y, seed=0)
    assert math.isnan(found.r_given_target) and math.isnan(found.r_of_target_given_learned_low)
    assert partial_r(0.5, 0.0, 0.0) == 0.5 and pearson(y, 2 * y) == pytest.approx(1)
