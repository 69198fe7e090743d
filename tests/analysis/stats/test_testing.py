"""Tests from resamples against their interval, Student's test and planted effects."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from analysis.stats.agreement import agreement, paired_difference, percentile_interval
from analysis.stats.testing import detectable_effect, equivalence_p, one_sided_p, two_sided_p


def resampled_means(sample: np.ndarray, resamples: int = 100_000) -> np.ndarray:
    """Means of resamples, as a normal distribution has them."""
    return np.random.default_rng(0).normal(sample.mean(), sample.std() / math.sqrt(len(sample)), resamples)


def test_of_a_mean_they_are_students_t_test():
    sample = np.random.default_rng(1).normal(0.2, 1, 12)
    values = resampled_means(sample)
    assert two_sided_p(values, 12) == pytest.approx(ttest_1samp(sample, 0).pvalue, rel=0.03)
    above = ttest_1samp(sample, 0.2, alternative="greater").pvalue
    assert one_sided_p(values, 12, 0.2) == pytest.approx(above, rel=0.03)
    low, high = (ttest_1samp(sample, limit, alternative=way).pvalue for limit, way in ((-1, "greater"), (1, "less")))
    assert equivalence_p(values, 12, 1.0) == pytest.approx(max(low, high), rel=0.1)


@pytest.mark.parametrize("shift", np.linspace(0.3, 1.2, 10))
def test_p_is_below_five_percent_where_the_interval_leaves_0_out(shift: float):
    values = resampled_means(np.random.default_rng(2).normal(0, 1, 15)) + shift
    low, high = percentile_interval(values, 15)
    assert (two_sided_p(values, 15) < 0.05) == (low > 0 or high < 0)


def test_what_is_not_significant_is_not_shown_to_be_small():
    rng = np.random.default_rng(3)
    few, many = resampled_means(rng.normal(0, 1, 10)), resampled_means(rng.normal(0, 1, 1000))
    assert two_sided_p(few, 10) > 0.05 < equivalence_p(few, 10, 0.2)
    assert equivalence_p(many, 1000, 0.2) < 0.05
    assert equivalence_p(many + 0.3, 1000, 0.2) > 0.9


def test_nothing_to_test_is_nan():
    assert all(math.isnan(p) for p in (two_sided_p(np.full(5, np.nan), 9), equivalence_p(np.ones(5), 1, 0.1)))
    assert math.isnan(detectable_effect(np.empty(0), 9)) and math.isnan(detectable_effect(np.ones(9), 1))


def test_the_detectable_effect_of_a_mean_is_found_four_times_in_five():
    contexts, rng = 20, np.random.default_rng(4)
    effect = detectable_effect(rng.normal(0, 1 / math.sqrt(contexts), 100_000) * math.sqrt(19 / 20), contexts)
    samples = rng.normal(effect, 1, (20_000, contexts))
    found = samples.mean(axis=1) / (samples.std(axis=1, ddof=1) / math.sqrt(contexts)) > t.ppf(0.975, contexts - 1)
    assert found.mean() == pytest.approx(0.8, abs=0.02)


def test_the_detectable_r_and_difference_are_found_about_four_times_in_five():
    rng, contexts = np.random.default_rng(5), 40
    x, y = rng.normal(size=(2, contexts, 5))
    r = agreement(x, y, valid_reports=0, total_reports=0, seed=0).detectable
    assert r == pytest.approx(2.8 / math.sqrt(5 * contexts), rel=0.1)
    found = []
    for seed in range(150):
        x, noise = rng.normal(size=(2, contexts, 5))
        y = r * x + math.sqrt(1 - r * r) * noise
        found.append(agreement(x, y, valid_reports=0, total_reports=0, seed=seed % 3).p_permutation < 0.05)
    assert 0.7 < np.mean(found) < 0.9
    x1, x2, y = rng.normal(size=(3, contexts, 5))
    gain = paired_difference(x1, x2, y, seed=0)
    # Two independent correlations near 0, each with an sd of 1 / sqrt(points)
    assert gain.detectable == pytest.approx(2.87 * math.sqrt(2 / (5 * contexts)), rel=0.15)
    assert (gain.p_bootstrap < 0.05) == (gain.boot_low > 0 or gain.boot_high < 0)
