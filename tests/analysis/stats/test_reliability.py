"""Split-half reliability and disattenuation: against closed forms, simulation with known reliability, brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit

from analysis.stats.agreement import pearson, percentile_interval, resampled_counts
from analysis.stats.estimators import logistic_posterior
from analysis.stats.reliability import (
    Halves,
    corrected_r,
    halves_of_reports,
    halves_of_weights,
    reliability,
    spearman_brown,
)
from task.weights import rescale


def noisy_reports(truth: NDArray[np.float64], trials: int, noise: float, rng: np.random.Generator):
    return truth[:, None] + noise * rng.normal(size=(len(truth), trials, truth.shape[1]))


def test_spearman_brown_is_the_formula_and_has_no_value_at_minus_one():
    np.testing.assert_allclose(spearman_brown([0.0, 0.5, 1.0, -0.5]), [0.0, 2 / 3, 1.0, -2.0])
    assert math.isnan(spearman_brown(-1.0))


@pytest.mark.parametrize(("trials", "noise"), [(2, 1.0), (10, 2.0), (10, 0.5)])
def test_reliability_of_mean_reports_is_the_share_of_true_variance(trials: int, noise: float):
    rng = np.random.default_rng(1)
    values = noisy_reports(rng.normal(size=(2000, 5)), trials, noise, rng)
    known = 1 / (1 + noise**2 / trials)
    assert reliability(halves_of_reports(values, rng=rng)) == pytest.approx(known, abs=0.02)


def test_reliability_of_weights_is_the_correlation_with_a_second_measurement():
    rng = np.random.default_rng(2)
    contexts, trials = 150, 60
    true = rng.uniform(-3, 3, (contexts, 5))
    difference = rng.uniform(-1, 1, (2, contexts, trials, 5))
    chose_a = (rng.random((2, contexts, trials)) < expit(np.einsum("mcta,ca->mct", difference, true))).astype(float)
    first, second = (rescale(logistic_posterior(c, d).mean) for c, d in zip(chose_a, difference, strict=True))
    halves = halves_of_weights(chose_a[0], difference[0], rng=rng)
    assert halves.first.shape == (4, contexts, 5)
    assert reliability(halves) == pytest.approx(pearson(first, second), abs=0.04)
    assert reliability(halves) < 0.95  # so that the agreement above is not that of two ones


def test_a_half_with_one_letter_alone_has_no_weights():
    rng = np.random.default_rng(4)
    difference = rng.uniform(-1, 1, (3, 20, 5))
    chose_a = (difference.sum(axis=2) > 0).astype(float)
    chose_a[1] = 1
    chose_a[1, 0] = 0  # B once: it is in one half only
    chose_a[2] = 1
    halves = halves_of_weights(chose_a, difference, rng=rng)
    missing = np.isnan([halves.first, halves.second]).any(axis=-1)
    assert not missing[..., 0].any() and missing[..., 2].all()
    np.testing.assert_array_equal(missing[..., 1].sum(axis=0), 1)


def test_every_valid_report_is_in_just_one_half_and_halves_are_even():
    rng = np.random.default_rng(3)
    bits = np.tile((2.0 ** np.arange(7))[None, :, None], (6, 1, 2))
    for context, missing in enumerate([[], [0], [1, 2], [0, 3, 6], [0, 1, 2, 3, 4], list(range(6))]):
        bits[context, missing, context % 2] = np.nan
    halves = halves_of_reports(bits, rng=rng, splits=30)
    valid = ~np.isnan(bits).any(axis=2)
    count = valid.sum(axis=1)
    several = count > 1
    first = halves.first[..., 0] * np.ceil(count / 2)
    second = halves.second[..., 0] * (count // 2)
    whole = np.where(valid, 2.0 ** np.arange(7), 0).sum(axis=1)
    np.testing.assert_allclose((first + second)[:, several], np.tile(whole[several], (30, 1)))
    assert np.isnan(halves.second[:, ~several]).all() and (~several).sum() == 1
    assert len(np.unique(first[:, 0])) > 10  # splits differ


def test_weights_from_halves_are_those_of_the_trials_in_them():
    rng = np.random.default_rng(4)
    difference = rng.uniform(-1, 1, (3, 12, 5))
    chose_a = (difference[..., 0] > 0).astype(float)
    chose_a[0, 5:] = np.nan
    chose_a[1, 1:] = np.nan
    halves = halves_of_weights(chose_a, difference, rng=np.random.default_rng(5), splits=2)
    assert np.isnan(halves.second[:, 1]).all()  # one decision makes one half
    # Choices follow the first attribute alone, and a half is enough to see it.
    assert (np.abs(halves.first[:, 2, 0]) > 60).all() and (halves.second[:, 2, 0] > 0).all()
    again = halves_of_weights(chose_a, difference, rng=np.random.default_rng(5), splits=2)
    np.testing.assert_array_equal(again.first, halves.first)


def test_the_corrected_r_recovers_the_correlation_of_the_truths():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(1500, 5))
    y = 0.6 * x + 0.8 * rng.normal(size=x.shape)
    x_values, y_values = noisy_reports(x, 6, 1.5, rng), noisy_reports(y, 10, 2.0, rng)
    x_halves, y_halves = (halves_of_reports(v, rng=rng) for v in (x_values, y_values))
    found = corrected_r(x_values.mean(axis=1), y_values.mean(axis=1), x_halves, y_halves, seed=0, resamples=300)
    assert pearson(x_values.mean(axis=1), y_values.mean(axis=1)) < 0.5
    assert found.r == pytest.approx(0.6, abs=0.03)
    assert found.boot_low < 0.6 < found.boot_high and found.boot_high - found.boot_low < 0.1
    known = corrected_r(x_values.mean(axis=1), y, x_halves, None, seed=0, resamples=300)
    assert known.reliability_y == 1 and known.r == pytest.approx(0.6, abs=0.03)


def test_the_interval_is_that_of_resampling_contexts_by_hand():
    rng = np.random.default_rng(7)
    x = rng.normal(size=(15, 4))
    values = noisy_reports(x, 6, 1.0, rng)
    values[:4, 1:] = np.nan  # contexts with one report are in r but not in its reliability
    y = x + 0.5 * rng.normal(size=x.shape)
    y[9] = np.nan
    mean = np.nanmean(values, axis=1)
    halves = halves_of_reports(values, rng=rng, splits=3)
    found = corrected_r(mean, y, halves, None, seed=3, resamples=200)
    kept = np.delete(np.arange(15), 9)
    by_hand = []
    for counts in resampled_counts(14, 3, 200).astype(int):
        rows = np.repeat(kept, counts)
        several = rows[rows >= 4]
        half = np.mean([pearson(a[several], b[several]) for a, b in zip(halves.first, halves.second, strict=True)])
        by_hand.append(pearson(mean[rows], y[rows]) / math.sqrt(2 * half / (1 + half)))
    np.testing.assert_allclose((found.boot_low, found.boot_high), percentile_interval(np.array(by_hand), 14))
    several = np.setdiff1d(kept, range(4))
    among = Halves(halves.first[:, several], halves.second[:, several])
    assert found.reliability_x == reliability(among)
    assert found.r == pytest.approx(pearson(mean, y) / math.sqrt(reliability(among)))


def test_one_report_a_context_has_no_reliability():
    rng = np.random.default_rng(8)
    values = np.full((20, 10, 5), np.nan)
    values[:, 3] = rng.normal(size=(20, 5))
    halves = halves_of_reports(values, rng=rng)
    assert math.isnan(reliability(halves))
    found = corrected_r(values[:, 3], rng.normal(size=(20, 5)), halves, None, seed=0)
    assert found.as_dict() == {
        "r": None,
        "boot_low": None,
        "boot_high": None,
        "reliability_x": None,
        "reliability_y": 1.0,
    }


def test_reports_that_do_not_repeat_themselves_give_no_interval():
    rng = np.random.default_rng(9)
    halves = Halves(*rng.normal(size=(2, 1, 30, 5)))
    found = corrected_r(rng.normal(size=(30, 5)), rng.normal(size=(30, 5)), halves, None, seed=0)
    assert abs(found.reliability_x) < 0.4 and math.isnan(found.boot_low)
    opposed = corrected_r(halves.first[0], halves.first[0], Halves(halves.first, -halves.first / 2), None, seed=0)
    assert math.isnan(opposed.reliability_x) and math.isnan(opposed.r)


def test_nothing_at_all_is_nan_without_a_warning(recwarn: pytest.WarningsRecorder):
    empty = np.full((3, 10, 5), np.nan)
    halves = halves_of_reports(empty, rng=np.random.default_rng(0))
    found = corrected_r(empty[:, 0], np.ones((3, 5)), halves, None, seed=0)
    assert math.isnan(found.r) and math.isnan(found.boot_low)
    assert not recwarn.list
