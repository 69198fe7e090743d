"""Simulated studies have the properties that they were planted with."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import expit

from analysis.stats.agreement import mean_reports, pearson
from analysis.stats.simulation import (
    Pool,
    Reporter,
    average_reports,
    before_and_after,
    beliefs,
    draw_contexts,
    make_pool,
    population_r,
    sample_true_weights,
    simulate_decisions,
    single_reports,
    stable_error,
)
from task.errors import InputError

TRUE = sample_true_weights(4000, np.random.default_rng(0))
SPREAD = float(TRUE.std())


def within_context_correlation(values: np.ndarray) -> float:
    """Mean correlation of two attributes of the same context."""
    pairs = np.corrcoef(values, rowvar=False)
    return float(pairs[np.triu_indices(len(pairs), 1)].mean())


def test_true_weights_are_those_of_the_task():
    assert (np.abs(TRUE).max(axis=1) == 100).all() and (np.round(TRUE) == TRUE).all()
    # One of five has magnitude 100, the others are uniform below it.
    assert pytest.approx(100 * math.sqrt((1 + 4 / 3) / 5), rel=0.01) == SPREAD
    assert abs(within_context_correlation(TRUE)) < 0.02
    leaning = sample_true_weights(4000, np.random.default_rng(0), lean=0.5)
    assert within_context_correlation(leaning) > 0.3


def test_decisions_follow_the_weights_as_often_as_asked_and_as_the_slopes_say():
    decisions = simulate_decisions(400, 100, 0.82, seed=1)
    utility = (decisions.difference @ decisions.true[..., None])[..., 0]
    assert ((utility > 0) == decisions.chose_a).mean() == pytest.approx(0.82, abs=0.006)
    probability = expit((decisions.difference @ decisions.slopes[..., None])[..., 0])
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        some = (probability >= low) & (probability < low + 0.2)
        assert decisions.chose_a[some].mean() == pytest.approx(probability[some].mean(), abs=0.02)
    noiseless = simulate_decisions(50, 20, 1.0, seed=1)
    assert (((noiseless.difference @ noiseless.true[..., None])[..., 0] > 0) == noiseless.chose_a.astype(bool)).all()
    with pytest.raises(InputError, match=r"0\.5 of decisions"):
        simulate_decisions(5, 5, 0.5, seed=0)


@pytest.mark.parametrize(("follows", "recovery"), [(1.0, 0.97), (0.82, 0.94)])
def test_fifty_decisions_recover_the_weights_as_well_as_known(follows: float, recovery: float):
    pool = make_pool(400, 50, follows, seed=2)
    assert pearson(pool.true, pool.learned) == pytest.approx(recovery, abs=0.01)


@pytest.mark.parametrize("reporter", [Reporter(0.3), Reporter(0.5, shared_error=0.5), Reporter(0.5, uneven=True)])
def test_beliefs_have_the_planted_accuracy_and_the_spread_of_the_weights(reporter: Reporter):
    rng = np.random.default_rng(3)
    error = stable_error(reporter, TRUE.shape, rng)
    assert within_context_correlation(error) == pytest.approx(reporter.shared_error, abs=0.03)
    believed = beliefs(reporter, TRUE, SPREAD, error, rng)
    assert pearson(believed, TRUE) == pytest.approx(reporter.accuracy, abs=0.02)
    assert believed.std() == pytest.approx(SPREAD, rel=0.03)
    by_context = (believed * TRUE).mean(axis=1) / (TRUE**2).mean(axis=1)
    known = np.mean(by_context > 0.7)
    assert (0.4 < known < 0.6) if reporter.uneven else known < 0.35


def test_a_spread_of_scales_multiplies_whole_contexts():
    rng = np.random.default_rng(4)
    believed = beliefs(Reporter(1.0, scale_spread=0.5), TRUE, SPREAD, np.zeros_like(TRUE), rng)
    factor = believed / np.where(TRUE == 0, np.nan, TRUE)
    np.testing.assert_allclose(np.nanmax(factor, axis=1), np.nanmin(factor, axis=1))
    assert np.log(np.nanmax(factor, axis=1)).std() == pytest.approx(0.5, rel=0.05)


def test_means_drawn_at_once_are_distributed_as_means_of_single_reports():
    reporter = Reporter(0.5, per_context=3, noise=20.0, unreadable=0.4)
    nothing = np.zeros((40_000, 2))
    single = mean_reports(single_reports(reporter, nothing, np.random.default_rng(5)))[0]
    at_once = average_reports(reporter, nothing, np.random.default_rng(6))
    assert np.isnan(single).all(axis=1).mean() == pytest.approx(0.4**3, abs=0.005)
    assert np.isnan(at_once).all(axis=1).mean() == pytest.approx(0.4**3, abs=0.005)
    assert (np.isnan(at_once).any(axis=1) == np.isnan(at_once).all(axis=1)).all()
    shares = [0.02, 0.2, 0.5, 0.8, 0.98]
    np.testing.assert_allclose(np.nanquantile(single, shares), np.nanquantile(at_once, shares), rtol=0.03, atol=0.3)


def test_the_population_s_r_is_what_the_variances_say():
    rng = np.random.default_rng(7)
    pool = Pool(TRUE[:1000], TRUE[:1000] + 30 * rng.normal(size=(1000, 5)))
    accuracy, noise, spread = 0.6, 40.0, float(pool.true.std())
    # E[1 / k] of the number of readable reports is 1 here, as each context has one, always readable.
    reporter = Reporter(accuracy, per_context=1, noise=noise, unreadable=0.0)
    covariance = accuracy * np.cov(pool.true.ravel(), pool.learned.ravel(), bias=True)[0, 1]
    expected = covariance / math.sqrt((spread**2 + noise**2) * pool.learned.var())
    assert population_r(pool, reporter, seed=0) == pytest.approx(expected, abs=0.005)
    assert population_r(pool, Reporter(0.0), seed=0) == pytest.approx(0, abs=0.005)


@pytest.mark.parametrize("correlation", [0.0, 0.7, 1.0])
def test_errors_before_and_after_correlate_as_asked(correlation: float):
    study = Pool(TRUE, TRUE)
    quiet = {"noise": 0.0, "unreadable": 0.0}
    after = [Reporter(0.6, **quiet), Reporter(0.3, **quiet)]
    x1, (x2, x3) = before_and_after(Reporter(0.3, **quiet), after, correlation, study, SPREAD, np.random.default_rng(8))
    assert pearson(x1 - 0.3 * TRUE, x2 - 0.6 * TRUE) == pytest.approx(correlation, abs=0.03)
    assert pearson(x1 - 0.3 * TRUE, x3 - 0.3 * TRUE) == pytest.approx(correlation, abs=0.03)
    assert [pearson(x, TRUE) for x in (x1, x2, x3)] == pytest.approx([0.3, 0.6, 0.3], abs=0.03)


def test_studies_draw_whole_contexts_with_replacement():
    numbered = np.repeat(np.arange(6.0)[:, None], 5, axis=1)
    study = draw_contexts(Pool(numbered, -numbered), 200, np.random.default_rng(9))
    assert study.true.shape == (200, 5) and (study.true == -study.learned).all()
    assert (study.true == study.true[:, :1]).all() and set(study.true[:, 0]) == set(range(6))
    with_lean = make_pool(3, 10, 0.9, seed=4)
    np.testing.assert_array_equal(with_lean.learned, make_pool(3, 10, 0.9, seed=4).learned)
    assert (with_lean.learned != make_pool(3, 10, 0.9, seed=5).learned).any()
