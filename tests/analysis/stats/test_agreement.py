"""Measures of agreement against scipy, brute force and planted truth."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import linregress, norm, pearsonr, spearmanr
from scipy.stats import t as student_t

from analysis.stats.agreement import (
    agreement,
    bootstrap_r,
    bootstrap_share,
    concordance,
    mean_reports,
    paired_difference,
    pearson,
    percentile_interval,
    permutation_null,
    regression_interval,
    sign_agreement,
    slope,
    spearman,
    top_attribute,
    within_context_r,
)
from task.errors import InputError
from task.seeding import stream

Array = NDArray[np.float64]


def related(contexts: int, seed: int, share: float = 0.5, attributes: int = 5) -> tuple[Array, Array]:
    """Two arrays whose true correlation is `share`."""
    rng = np.random.default_rng(seed)
    x, noise = rng.normal(size=(2, contexts, attributes))
    return x, share * x + math.sqrt(1 - share**2) * noise


def with_gaps(x: Array) -> Array:
    x = x.copy()
    x[2] = np.nan
    x[5, 1] = np.nan
    return x


def test_a_context_with_a_gap_is_left_out_whole() -> None:
    x, y = related(12, seed=0)
    kept = [i for i in range(12) if i not in (2, 5)]
    expected = pearsonr(x[kept].ravel(), y[kept].ravel()).statistic
    assert pearson(with_gaps(x), y) == pytest.approx(expected)
    assert pearson(x, with_gaps(y)) == pytest.approx(expected)
    for measure in (slope, spearman, sign_agreement, top_attribute, within_context_r):
        assert measure(with_gaps(x), y) == pytest.approx(measure(x[kept], y[kept]))
    assert bootstrap_r(with_gaps(x), y, seed=1) == bootstrap_r(x[kept], y[kept], seed=1)
    assert permutation_null(with_gaps(x), y, seed=1) == permutation_null(x[kept], y[kept], seed=1)


def test_correlations_and_slope_equal_scipy() -> None:
    x, y = related(30, seed=1)
    x = np.round(x)  # ties
    assert pearson(x, y) == pytest.approx(pearsonr(x.ravel(), y.ravel()).statistic)
    assert spearman(x, y) == pytest.approx(spearmanr(x.ravel(), y.ravel()).statistic)
    assert slope(x, y) == pytest.approx(linregress(x.ravel(), y.ravel()).slope)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.full((4, 3), 0.1), np.arange(12.0).reshape(4, 3)),
        (np.array([[1.0, 2.0]]), np.array([[2.0, 1.0]])),
        (np.full((4, 3), np.nan), np.ones((4, 3))),
        (np.zeros((0, 5)), np.zeros((0, 5))),
    ],
)
def test_no_variance_or_too_few_points_is_nan(x: Array, y: Array) -> None:
    assert math.isnan(pearson(x, y))
    assert math.isnan(spearman(x, y))
    assert math.isnan(slope(x, y))
    assert all(math.isnan(value) for value in bootstrap_r(x, y, seed=0))
    assert math.isnan(permutation_null(x, y, seed=0))


def test_shapes_must_match() -> None:
    with pytest.raises(InputError, match=r"\(3, 5\), \(4, 5\)"):
        pearson(np.ones((3, 5)), np.ones((4, 5)))
    with pytest.raises(InputError, match="give \\(contexts, attributes\\)"):
        pearson(np.ones(5), np.ones(5))


def test_mean_reports_uses_whole_valid_reports() -> None:
    reports = np.array(
        [
            [[10.0, 20.0], [30.0, 40.0], [np.nan, np.nan]],
            [[1.0, np.nan], [3.0, 5.0], [7.0, 9.0]],
            [[np.nan, 1.0], [np.nan, np.nan], [2.0, np.nan]],
        ]
    )
    means, counts = mean_reports(reports)
    np.testing.assert_allclose(means, [[20, 30], [5, 7], [np.nan, np.nan]])
    assert counts.tolist() == [2, 2, 0]


def test_measures_by_hand() -> None:
    x = np.array([[100.0, -50.0, 0.0], [20.0, 40.0, 100.0], [5.0, 5.0, 5.0]])
    y = np.array([[80.0, 100.0, -10.0], [10.0, -30.0, 90.0], [1.0, 2.0, 3.0]])
    # Signs: +, -, skipped; +, -, +; +, +, +
    assert sign_agreement(x, y) == pytest.approx(6 / 8)
    # No, yes, one chance in three
    assert top_attribute(x, y) == pytest.approx((0 + 1 + 1 / 3) / 3)
    within = [pearsonr(x[i], y[i]).statistic for i in (0, 1)]
    assert within_context_r(x, y) == pytest.approx(np.mean(within))


def test_regression_interval_is_the_posterior_of_the_standardised_slope() -> None:
    x, y = related(20, seed=2)
    standard_x, standard_y = ((v.ravel() - v.mean()) / v.std() for v in (x, y))
    # Under flat priors on slope and log error the marginal posterior of the slope is a t; here by quadrature over the
    # error's sd, with the intercept integrated out.
    points = x.size
    slopes, log_sds = np.linspace(-0.5, 1.5, 1601), np.linspace(-1, 1, 401)
    squares = np.array([np.square(standard_y - b * standard_x).sum() for b in slopes])
    log_mass = -(points - 1) * log_sds[:, None] - squares / (2 * np.exp(2 * log_sds[:, None]))
    mass = np.exp(log_mass - log_mass.max()).sum(axis=0)
    expected = np.interp([0.025, 0.975], np.cumsum(mass) / mass.sum(), slopes)
    np.testing.assert_allclose(regression_interval(pearson(x, y), points), expected, atol=0.003)
    assert all(math.isnan(v) for v in regression_interval(0.5, 2))
    assert all(math.isnan(v) for v in regression_interval(math.nan, 100))
    assert regression_interval(1.0, 10) == (1.0, 1.0)


def brute_force_resamples(arrays: list[Array], seed: int, resamples: int) -> list[list[Array]]:
    contexts = len(arrays[0])
    counts = stream(seed, "bootstrap").multinomial(contexts, np.full(contexts, 1 / contexts), size=resamples)
    return [[np.repeat(a, count, axis=0) for a in arrays] for count in counts]


def shares(contexts: int) -> list[float]:
    """Where an interval of that many contexts ends, as shares of the resamples (Hesterberg 2015)."""
    out = student_t.ppf(0.975, contexts - 1) * math.sqrt(contexts / (contexts - 1))
    return [norm.cdf(-out), norm.cdf(out)]


def test_the_interval_of_a_mean_over_few_contexts_is_that_of_student() -> None:
    rng = np.random.default_rng(0)
    sample = rng.normal(size=12)
    means = rng.normal(sample.mean(), sample.std() / math.sqrt(12), size=200_000)
    half = student_t.ppf(0.975, 11) * sample.std(ddof=1) / math.sqrt(12)
    low, high = percentile_interval(means, 12)
    assert (low, high) == pytest.approx((sample.mean() - half, sample.mean() + half), abs=0.02 * half)
    low, high = percentile_interval(np.append(means, np.nan), 10**6)
    assert (low, high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=1e-4)
    assert all(math.isnan(v) for v in percentile_interval(means, 1))


def test_bootstrap_equals_a_loop_over_resampled_contexts() -> None:
    x, y = related(15, seed=3)
    y = 1e4 + y  # a large offset must not cost digits
    values = [pearsonr(a.ravel(), b.ravel()).statistic for a, b in brute_force_resamples([x, y], seed=7, resamples=200)]
    np.testing.assert_allclose(bootstrap_r(x, y, seed=7, resamples=200), np.quantile(values, shares(15)), rtol=1e-8)


def test_the_interval_of_a_share_equals_a_loop_over_resampled_contexts() -> None:
    rng = np.random.default_rng(8)
    whole = rng.integers(0, 30, size=25).astype(float)
    whole[[3, 9]] = 0  # such contexts are not drawn
    part = rng.binomial(whole.astype(int), 0.7)
    kept = whole > 0
    drawn = brute_force_resamples([part[kept, None], whole[kept, None]], seed=2, resamples=300)
    expected = np.quantile([p.sum() / w.sum() for p, w in drawn], shares(int(kept.sum())))
    assert bootstrap_share(part, whole, seed=2, resamples=300) == pytest.approx(tuple(expected))
    assert np.isnan(bootstrap_share([3], [5], seed=2)).all() and np.isnan(bootstrap_share([], [], seed=2)).all()


def test_paired_difference_equals_a_loop_over_resampled_contexts() -> None:
    x2, y = related(15, seed=4)
    x1 = related(15, seed=5)[0]
    got = paired_difference(with_gaps(x1), x2, y, seed=7, resamples=200)
    kept = [i for i in range(15) if i not in (2, 5)]
    arrays = [x1[kept], x2[kept], y[kept]]
    values = [
        pearsonr(b.ravel(), c.ravel()).statistic - pearsonr(a.ravel(), c.ravel()).statistic
        for a, b, c in brute_force_resamples(arrays, seed=7, resamples=200)
    ]
    np.testing.assert_allclose([got.boot_low, got.boot_high], np.quantile(values, shares(13)))
    assert got.difference == pytest.approx(pearson(x2[kept], y[kept]) - pearson(x1[kept], y[kept]))
    assert got.n_contexts == 13
    same = paired_difference(x2, x2, y, seed=7)
    assert (same.difference, same.boot_low, same.boot_high) == (0, 0, 0)


def test_bootstrap_of_few_contexts() -> None:
    x, y = related(1, seed=6)
    assert all(math.isnan(v) for v in bootstrap_r(x, y, seed=0))
    # With two contexts of constant values, resamples of one context alone have no variance and are left out.
    low, high = bootstrap_r([[1.0, 1.0], [2.0, 2.0]], [[3.0, 3.0], [5.0, 5.0]], seed=0)
    assert (low, high) == (pytest.approx(1), pytest.approx(1))


def test_bootstrap_covers_where_attributes_of_a_context_go_together() -> None:
    truth, covered, covered_by_regression = 0.5, [], []
    for repeat in range(200):
        rng = np.random.default_rng(repeat)
        # A context's attributes share 80% of their variance, in x and in the noise.
        x, noise = (
            math.sqrt(0.8) * rng.normal(size=(80, 1)) + math.sqrt(0.2) * rng.normal(size=(80, 5)) for _ in range(2)
        )
        y = truth * x + math.sqrt(1 - truth**2) * noise
        low, high = bootstrap_r(x, y, seed=repeat, resamples=400)
        covered.append(low <= truth <= high)
        low, high = regression_interval(pearson(x, y), x.size)
        covered_by_regression.append(low <= truth <= high)
    assert 0.89 < np.mean(covered) < 0.99
    assert np.mean(covered_by_regression) < 0.8


def test_permutation_null_equals_a_loop_over_permutations() -> None:
    x, y = related(12, seed=8, share=0.3)
    orders = stream(3, "permutation_null").permuted(np.tile(np.arange(12), (99, 1)), axis=1)
    null = np.array([pearson(x[order], y) for order in orders])
    p = permutation_null(x, y, seed=3, permutations=99)
    centre = np.mean([pearson(np.roll(x, shift, axis=0), y) for shift in range(12)])
    assert p == (1 + (np.abs(null - centre) >= abs(pearson(x, y) - centre)).sum()) / 100


def test_permutation_null_rejects_five_percent_of_unrelated_reports() -> None:
    rejected = []
    for repeat in range(400):
        rng = np.random.default_rng(repeat)
        # Both are high at the first position throughout: a correlation that says nothing about contexts.
        base_rate = np.array([2.0, 0.0, 0.0, 0.0, 0.0])
        x, y = base_rate + rng.normal(size=(2, 25, 5))
        rejected.append(permutation_null(x, y, seed=repeat, permutations=199) <= 0.05)
    assert 0.02 < np.mean(rejected) < 0.085


def test_permutation_null_finds_agreement() -> None:
    x, y = related(30, seed=9, share=0.6)
    assert permutation_null(x, y, seed=0, permutations=500) == 1 / 501


def test_agreement_gathers_the_measures() -> None:
    x, y = related(20, seed=10, share=0.7)
    got = agreement(with_gaps(x), y, valid_reports=180, total_reports=200, seed=4)
    kept = [i for i in range(20) if i not in (2, 5)]
    assert (got.n_contexts, got.n_points, got.valid_reports, got.total_reports) == (18, 90, 180, 200)
    assert got.r == pearson(x[kept], y[kept])
    assert (got.boot_low, got.boot_high) == bootstrap_r(x[kept], y[kept], seed=4)
    assert (got.hdi_low, got.hdi_high) == regression_interval(got.r, 90)
    assert got.p_permutation == permutation_null(x[kept], y[kept], seed=4)
    assert got.mae == pytest.approx(np.abs(x[kept] - y[kept]).mean())
    assert got.boot_low < got.r < got.boot_high
    assert json.loads(json.dumps(got.as_dict(), allow_nan=False)) == got.as_dict()


def test_agreement_of_nothing_is_null_not_zero() -> None:
    got = agreement(np.full((3, 5), np.nan), np.ones((3, 5)), valid_reports=0, total_reports=30, seed=0).as_dict()
    known = {"n_points": 0, "n_contexts": 0, "valid_reports": 0, "total_reports": 30}
    assert got == {**dict.fromkeys(got), **known}
    nothing = paired_difference(np.full((3, 5), np.nan), np.ones((3, 5)), np.ones((3, 5)), seed=0)
    assert nothing.n_contexts == 0 and {v for k, v in nothing.as_dict().items() if k != "n_contexts"} == {None}


def test_concordance_is_lins_and_counts_scale_and_level() -> None:
    x, y = related(30, seed=8)
    s = np.cov(x.ravel(), y.ravel(), bias=True)
    expected = 2 * s[0, 1] / (s[0, 0] + s[1, 1] + (x.mean() - y.mean()) ** 2)
    assert concordance(with_gaps(x), with_gaps(y)) < pearson(with_gaps(x), with_gaps(y))
    assert concordance(x, y) == pytest.approx(expected)
    assert concordance(x, x) == pytest.approx(1)
    assert concordance(0.3 * x, x) < 0.6 and concordance(x + 2, x) < 0.6
    assert math.isnan(concordance(x, np.ones_like(x)))
