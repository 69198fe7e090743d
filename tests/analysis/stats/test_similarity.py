"""Attribution similarity: planted scores, closed forms, brute force, and simulation of its intervals and its null."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest

from analysis.stats.agreement import percentile_interval, resampled_counts
from analysis.stats.score_profile import (
    distance,
    jackknifed,
    largest_row,
    mean_place,
    rows_with_half,
    shares,
    without_each_matrix,
)
from analysis.stats.similarity import (
    cosine,
    mean_interval,
    permuted_rows,
    products,
    reliability,
    row_null_moments,
    similarity,
    similarity_difference,
)

ROWS = 60


def vectors(
    rng: np.random.Generator, angle: float, rows: int = ROWS
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Two vectors of length sqrt(rows) with a given cosine."""
    basis, _ = np.linalg.qr(rng.normal(size=(rows, 2)))
    first, second = basis.T * math.sqrt(rows)
    return first, angle * first + math.sqrt(1 - angle**2) * second


def noisy(
    rng: np.random.Generator, truth: NDArray[np.float64], contexts: int, noise: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    return truth + noise * rng.normal(size=(contexts, len(truth)))


@pytest.mark.parametrize("angle", [-0.5, 0.0, 0.34, 1.0])
def test_a_planted_cosine_is_found_without_noise(angle: float):
    d, r = vectors(np.random.default_rng(0), angle)
    found = similarity(products(np.tile(d, (6, 1)), np.tile(7 * r, (6, 1))), seed=0)
    assert found.similarity == pytest.approx(angle, abs=1e-12)
    assert found.corrected == pytest.approx(angle, abs=1e-12)
    assert found.reliability_deciding == found.reliability_reporting == pytest.approx(1)
    assert (found.low, found.high) == pytest.approx((angle, angle), abs=1e-9)


def test_similarity_is_the_cosine_of_the_scores_averaged_over_contexts():
    rng = np.random.default_rng(1)
    d, r = rng.normal(0.3, 1, (7, ROWS)), rng.normal(0.3, 1, (7, ROWS))
    mean_d, mean_r = d.mean(axis=0), r.mean(axis=0)
    by_definition = mean_d @ mean_r / np.linalg.norm(mean_d) / np.linalg.norm(mean_r)
    assert similarity(products(d, r), seed=0).similarity == pytest.approx(by_definition)
    assert cosine(mean_d, mean_r) == pytest.approx(by_definition)
    assert math.isnan(cosine(mean_d, 0 * mean_r))


def test_reliability_is_that_of_all_splits_in_halves():
    scores = np.random.default_rng(2).normal(0.4, 1, (8, ROWS))
    parts = [np.isin(np.arange(8), half) for half in itertools.combinations(range(8), 4)]
    halves = np.array([(scores[part].mean(axis=0), scores[~part].mean(axis=0)) for part in parts])
    product = np.einsum("sr,sr->s", halves[:, 0], halves[:, 1]).mean()
    half = product / np.einsum("shr,shr->sh", halves, halves).mean()
    assert reliability(scores @ scores.T) == pytest.approx(2 * half / (1 + half))


@pytest.mark.parametrize(("contexts", "noise"), [(10, 1.0), (10, 3.0), (40, 3.0)])
def test_reliability_is_the_share_of_the_signal(contexts: int, noise: float):
    rng = np.random.default_rng(3)
    truth, _ = vectors(rng, 0, rows=4000)
    scores = noisy(rng, truth, contexts, noise)
    assert reliability(scores @ scores.T) == pytest.approx(1 / (1 + noise**2 / contexts), abs=0.03)


def test_the_correction_recovers_a_planted_cosine_whose_noise_the_tasks_share():
    rng = np.random.default_rng(4)
    d, r = vectors(rng, 0.5, rows=4000)
    shared = 2 * rng.normal(size=(12, 4000))  # of a context: in both tasks, and no similarity of them
    found = similarity(products(noisy(rng, d, 12, 1) + shared, noisy(rng, r, 12, 1) + shared), seed=0)
    assert found.corrected == pytest.approx(0.5, abs=0.03)
    assert found.corrected_low < 0.5 < found.corrected_high
    alone = similarity(products(noisy(rng, d, 12, 3), noisy(rng, r, 12, 3)), seed=0)
    assert alone.similarity == pytest.approx(0.5 / (1 + 9 / 12), abs=0.03)
    assert alone.corrected == pytest.approx(0.5, abs=0.04)


def test_what_is_not_defined_is_not_given():
    rng = np.random.default_rng(5)
    one = similarity(products(rng.normal(size=(1, ROWS)), rng.normal(size=(1, ROWS))), seed=0)
    assert -1 < one.similarity < 1 and one.n_contexts == 1
    rest = (one.low, one.high, one.corrected, one.reliability_deciding, one.reliability_reporting)
    assert all(math.isnan(value) for value in rest)
    opposite = np.stack([np.ones(ROWS), -np.ones(ROWS) * 0.9])  # halves that contradict each other
    found = similarity(products(opposite, np.ones((2, ROWS))), seed=0)
    assert found.reliability_deciding < 0 and math.isnan(found.corrected)
    assert math.isnan(similarity(products(np.zeros((6, ROWS)), np.ones((6, ROWS))), seed=0).similarity)


def test_intervals_of_both_cosines_hold_the_truth():
    """In 95% of 300 studies, give or take three standard errors; resamples that repeat contexts miss it often."""
    rng, contexts, noise, angle = np.random.default_rng(6), 15, 2.0, 0.4
    d, r = vectors(rng, angle)
    attenuated = angle / (1 + noise**2 / contexts)
    raw = corrected = 0
    for _ in range(300):
        table = products(noisy(rng, d, contexts, noise), noisy(rng, r, contexts, noise))
        found = similarity(table, seed=0, resamples=500)
        raw += found.low <= attenuated <= found.high
        corrected += found.corrected_low <= angle <= found.corrected_high
    assert 0.91 <= raw / 300 <= 0.99 and 0.91 <= corrected / 300 <= 0.99


def test_a_plain_bootstrap_would_miss_the_cosine_where_rows_are_many():
    """Why contexts that are drawn twice are no second measurement."""
    rng, n, noise, angle, studies = np.random.default_rng(16), 15, 2.0, 0.5, 60
    d, r = vectors(rng, angle, rows=2000)
    counts, truth = resampled_counts(n, 0, 500), angle / (1 + noise**2 / n)
    ours = plain = 0
    for _ in range(studies):
        table = products(noisy(rng, d, n, noise), noisy(rng, r, n, noise))
        found = similarity(table, seed=0, resamples=500)
        ours += found.low <= truth <= found.high
        both, own, other = (
            ((counts @ p) * counts).sum(axis=1) for p in (table.crossed, table.deciding, table.reporting)
        )
        low, high = percentile_interval(both / np.sqrt(own * other), n)
        plain += low <= truth <= high
    assert ours / studies > 0.85 and plain / studies < 0.5


def test_a_difference_is_paired_by_context():
    rng = np.random.default_rng(7)
    (d, r), (e, s) = vectors(rng, 0.6), vectors(rng, 0.1)
    high, low = (products(noisy(rng, a, 20, 1), noisy(rng, b, 20, 1)) for a, b in ((d, r), (e, s)))
    found = similarity_difference(high, low, seed=0)
    apart = similarity(high, seed=0), similarity(low, seed=0)
    assert found.difference == pytest.approx(apart[0].similarity - apart[1].similarity)
    assert found.corrected == pytest.approx(apart[0].corrected - apart[1].corrected)
    assert found.low < found.difference < found.high and found.low > 0 and found.p_bootstrap < 0.05
    same = similarity_difference(high, high, seed=0)
    assert (same.difference, same.low, same.high) == (0, 0, 0)


def test_the_null_of_rows_has_its_exact_moments():
    rng = np.random.default_rng(8)
    d, r, matrix = rng.normal(1, 1, 9), rng.normal(1, 1, 9), np.repeat([0, 1, 2], [3, 2, 4])
    size = np.linalg.norm(d) * np.linalg.norm(r)
    orders = itertools.product(*(itertools.permutations(np.flatnonzero(matrix == m)) for m in range(3)))
    everyone = np.array([d[[*itertools.chain(*order)]] @ r / size for order in orders])
    assert row_null_moments(d, r, matrix) == pytest.approx((everyone.mean(), everyone.std()))
    observed = abs(d @ r / size - everyone.mean())
    known = np.mean(np.abs(everyone - everyone.mean()) >= observed - 1e-12)
    assert permuted_rows(d, r, matrix, seed=0).p == pytest.approx(known, abs=0.05)


def test_p_values_are_uniform_where_rows_have_nothing_to_do_with_each_other():
    rng, matrix = np.random.default_rng(9), np.repeat(np.arange(4), 15)
    level = np.repeat(rng.normal(size=4), 15)  # matrices differ in both tasks alike, rows within them do not
    found = [
        permuted_rows(level + rng.normal(size=ROWS), level + rng.normal(size=ROWS), matrix, seed=s, permutations=199)
        for s in range(300)
    ]
    assert kstest([null.p for null in found], "uniform").pvalue > 0.01
    assert np.mean([null.mean for null in found]) > 0.1
    d, r = vectors(rng, 0.9)
    assert permuted_rows(d, r, matrix, seed=0).p == pytest.approx(1 / 1001)


def test_adapters_in_layers_of_their_own_share_nothing():
    rng, matrix = np.random.default_rng(10), np.repeat(np.arange(4), 15)
    early = matrix < 2
    d, r = rng.exponential(size=(8, ROWS)) * early, rng.exponential(size=(8, ROWS)) * ~early
    assert similarity(products(d, r), seed=0).similarity == 0
    layers = [shares(scores, matrix, 4) for scores in (d, r)]
    assert distance(layers[0].whole, layers[1].whole) == 1
    assert mean_place(layers[0].whole, range(4)) < 1 < 2 < mean_place(layers[1].whole, range(4))


def test_shares_are_those_of_the_averaged_scores_and_of_each_context_left_out():
    scores = np.random.default_rng(11).normal(size=(6, ROWS))
    layer = np.repeat([-1, 0, 1, 2], 15)  # -1: outside layers

    def by_definition(rows: NDArray[np.float64]) -> list[float]:
        sizes = np.abs(rows.mean(axis=0))
        return [sizes[layer == k].sum() / sizes[layer >= 0].sum() for k in range(3)]

    found = shares(scores, layer, 3)
    np.testing.assert_allclose(found.whole, by_definition(scores))
    np.testing.assert_allclose(found.left_out, [by_definition(np.delete(scores, i, axis=0)) for i in range(6)])
    assert shares(scores[:1], layer, 3).left_out.shape == (0, 3)
    assert np.isnan(shares(0 * scores, layer, 3).whole).all()


def test_a_jackknife_of_a_mean_is_its_t_interval():
    values = np.random.default_rng(12).normal(size=20)
    left_out = [np.delete(values, i).mean() for i in range(20)]
    half = 2.0930240544082634 * values.std(ddof=1) / math.sqrt(20)
    assert jackknifed(values.mean(), left_out) == pytest.approx(
        (values.mean(), values.mean() - half, values.mean() + half)
    )
    assert math.isnan(jackknifed(1.0, [1.0, 1.1, 0.9])[1])


def test_concentration_and_the_part_of_single_matrices():
    matrix = np.repeat(np.arange(4), 15)
    even, single = np.ones(ROWS), np.r_[100.0, np.full(ROWS - 1, 0.01)]
    assert (rows_with_half(even), largest_row(even)) == (0.5, pytest.approx(1 / ROWS))
    assert rows_with_half(single) == 1 / ROWS and largest_row(single) > 0.999
    rng = np.random.default_rng(13)
    d, r = rng.normal(size=ROWS), rng.normal(size=ROWS)
    d[0] = r[0] = 30  # one row of the first matrix makes the cosine
    found = without_each_matrix(d, r, matrix)
    np.testing.assert_allclose(found, [cosine(d[matrix != m], r[matrix != m]) for m in range(4)])
    assert abs(found[0]) < 0.4 < 0.9 < found[1:].min()
    only = np.where(matrix == 2, 1.0, 0.0)
    assert np.isnan(without_each_matrix(only, only, matrix)[2])


def test_a_mean_over_contexts_has_an_interval_from_resampling_them():
    values = np.random.default_rng(14).normal(0.3, 0.1, 30)
    mean, low, high = mean_interval(values, seed=0)
    assert mean == pytest.approx(values.mean())
    assert high - low == pytest.approx(2 * 2.045 * values.std(ddof=1) / math.sqrt(30), rel=0.1)
    assert math.isnan(mean_interval(values[:3], seed=0)[1]) and math.isnan(mean_interval([], seed=0)[0])
