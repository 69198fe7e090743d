"""A constant report, and r without attribute positions: by brute force and planted truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.stats.agreement import pearson, percentile_interval, resampled_counts
from analysis.stats.constant import beyond_constant, bootstrap_centred_r, centred, leave_out_mean

POSITIONS = np.array([60.0, -40.0, 0.0, 20.0, -10.0])


def test_the_constant_leaves_the_context_itself_out():
    x = np.random.default_rng(0).normal(size=(7, 5))
    x[2, 1] = np.nan
    others = [[j for j in range(7) if j not in (i, 2)] for i in range(7)]
    expected = np.array([np.full(5, np.nan) if i == 2 else x[others[i]].mean(axis=0) for i in range(7)])
    np.testing.assert_allclose(leave_out_mean(x), expected)
    assert np.isnan(leave_out_mean(x[:1])).all() and leave_out_mean(np.empty((0, 5))).shape == (0, 5)


def test_reports_that_only_know_positions_get_no_more_than_the_constant():
    rng = np.random.default_rng(1)
    weights = POSITIONS + rng.normal(0, 20, (100, 5))
    found = beyond_constant(POSITIONS + rng.normal(0, 20, (100, 5)), weights, seed=0)
    assert found.r_constant > 0.7 and found.over_constant_high < 0
    assert found.r_centred_low < 0 < found.r_centred_high
    knowing = beyond_constant(weights + rng.normal(0, 10, (100, 5)), weights, seed=0)
    assert knowing.over_constant_low > 0 and knowing.r_centred_low > 0.8


def test_where_reports_have_no_common_answer_the_constant_gets_nothing():
    rng = np.random.default_rng(2)
    found = [pearson(leave_out_mean(weights), weights) for weights in rng.normal(size=(300, 50, 5))]
    assert -0.1 < np.mean(found) < 0 and np.std(found) < 0.2


def test_centred_r_and_its_interval_are_those_of_a_loop():
    rng = np.random.default_rng(3)
    x = POSITIONS + rng.normal(0, 30, (12, 5))
    y = POSITIONS + 0.5 * x + rng.normal(0, 30, (12, 5))
    looped = []
    for count in resampled_counts(12, 4, 300).astype(int):
        a, b = (np.repeat(v, count, axis=0) for v in (x, y))
        looped.append(np.corrcoef((a - a.mean(axis=0)).ravel(), (b - b.mean(axis=0)).ravel())[0, 1])
    assert bootstrap_centred_r(x, y, seed=4, resamples=300) == pytest.approx(percentile_interval(np.array(looped), 12))
    gap = np.vstack([x, np.full(5, np.nan)])
    found = beyond_constant(gap, np.vstack([y, np.ones(5)]), seed=0)
    assert found == beyond_constant(x, y, seed=0)
    assert found.r_centred == pytest.approx(np.corrcoef(centred(x).ravel(), centred(y).ravel())[0, 1])
    assert found.over_constant == pytest.approx(pearson(x, y) - found.r_constant)


def test_the_same_report_throughout_has_nothing_left_when_centred():
    weights = np.random.default_rng(5).normal(size=(20, 5))
    found = beyond_constant(np.tile(POSITIONS, (20, 1)), weights, seed=0)
    assert math.isnan(found.r_centred) and math.isnan(found.r_centred_low)
    assert all(
        value is None for value in beyond_constant(np.empty((0, 5)), np.empty((0, 5)), seed=0).as_dict().values()
    )
