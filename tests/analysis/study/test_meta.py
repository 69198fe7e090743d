"""Runs pooled: against the definition, against a textbook's figures, and by coverage with planted trainings."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm, t

from analysis.study.meta import pool, pool_correlations

WIDE = norm.ppf(0.975)


def intervals(effects: np.ndarray, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return effects, effects - WIDE * errors, effects + WIDE * errors


def test_pooling_is_what_the_definition_says():
    effects, errors = np.array([0.1, 0.5, 0.9, 0.4]), np.array([0.1, 0.15, 0.12, 0.2])

    def surplus(tau2: float) -> float:  # Paule and Mandel: Q is its degrees of freedom
        weights = 1 / (errors**2 + tau2)
        mean = (weights * effects).sum() / weights.sum()
        return (weights * (effects - mean) ** 2).sum() - (len(effects) - 1)

    tau2 = brentq(surplus, 0, 10)
    weights = 1 / (errors**2 + tau2)
    mean = (weights * effects).sum() / weights.sum()
    hartung_knapp = (weights * (effects - mean) ** 2).sum() / (len(effects) - 1) / weights.sum()
    half = t.ppf(0.975, 3) * math.sqrt(max(hartung_knapp, 1 / weights.sum()))
    found = pool(*intervals(effects, errors))
    assert found.mean == pytest.approx(mean, abs=1e-6)
    assert found.between == pytest.approx(math.sqrt(tau2), abs=1e-5)
    assert (found.low, found.high) == pytest.approx((mean - half, mean + half), abs=1e-5)
    ahead = t.ppf(0.975, 3) * math.sqrt(max(hartung_knapp, 1 / weights.sum()) + tau2)
    assert (found.predicted_low, found.predicted_high) == pytest.approx((mean - ahead, mean + ahead), abs=1e-5)


def test_runs_that_agree_by_luck_do_not_narrow_the_interval():
    found = pool(*intervals(np.array([0.5, 0.5, 0.5]), np.full(3, 0.1)))
    assert found.between == 0
    assert found.high - found.mean == pytest.approx(t.ppf(0.975, 2) * 0.1 / math.sqrt(3))


def test_one_run_keeps_its_own_interval_and_predicts_nothing():
    found = pool([0.5, math.nan], [0.3, 0.0], [0.6, 1.0])
    assert (found.mean, found.low, found.high, found.runs) == (0.5, 0.3, 0.6, 1)
    assert math.isnan(found.predicted_low) and math.isnan(found.between)
    assert pool([math.nan], [0.0], [1.0]).runs == 0


def test_correlations_are_pooled_on_fishers_z():
    found = pool_correlations([0.9, 0.9], [0.85, 0.85], [0.93, 0.93])
    assert found.mean == pytest.approx(0.9)
    assert 0.9 - found.low > found.high - 0.9 > 0 and found.high < 1
    assert pool_correlations([1.0, 1.0], [0.9, 0.9], [1.0, 1.0]).high <= 1


@pytest.mark.parametrize("runs", [3, 6])
def test_intervals_cover_the_mean_and_a_new_training_as_often_as_they_say(runs: int):
    rng = np.random.default_rng(0)
    covered = predicted = 0
    studies = 400
    for _ in range(studies):
        truths = rng.normal(0.5, 0.15, runs + 1)
        errors = rng.uniform(0.05, 0.15, runs)
        found = pool(*intervals(rng.normal(truths[:runs], errors), errors))
        covered += found.low <= 0.5 <= found.high
        predicted += found.predicted_low <= truths[-1] <= found.predicted_high
    assert covered / studies >= 0.93, "too wide with three runs, as the usual variance is its floor"
    assert 0.86 <= predicted / studies <= 0.97
