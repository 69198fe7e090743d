"""Predictions of fresh decisions: by brute force, and with planted choosers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit

from analysis.stats.agreement import bootstrap_share
from analysis.stats.prediction import (
    LARGEST_SCALE,
    FreshDecisions,
    cross_fitted,
    cross_fitted_margins,
    other_contexts,
    predict,
)
from analysis.stats.reliability import weights_of_some
from task.weights import rescale


def chooser(contexts: int, pairs: int, seed: int, scale: float = 4.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, differences, and choices in both orders by a logistic chooser."""
    rng = np.random.default_rng(seed)
    weights = rescale(rng.uniform(-1, 1, (contexts, 5)))
    difference = rng.uniform(-1, 1, (contexts, pairs, 5))
    p = expit(scale * np.einsum("cpa,ca->cp", difference, weights) / 100)
    as_a, as_b = rng.random((contexts, pairs)) < p, rng.random((contexts, pairs)) >= p
    return weights, difference, np.stack([as_a, as_b], axis=-1).astype(float)


def decisions_of(chose_a: np.ndarray, difference: np.ndarray) -> list[tuple[int, int, int, bool]]:
    """Every decision by itself: context, pair, order, whether it was for the first option."""
    return [
        (c, p, o, bool(chose_a[c, p, o]) == (o == 0))
        for c, p, o in np.ndindex(chose_a.shape)
        if not math.isnan(chose_a[c, p, o])
    ]


def test_share_log_loss_and_scale_are_those_of_a_loop_over_decisions():
    weights, difference, chose_a = chooser(9, 12, seed=0)
    rng = np.random.default_rng(1)
    chose_a[rng.random(chose_a.shape) < 0.2] = np.nan
    reports = weights + rng.normal(0, 60, weights.shape)
    reports[3] = np.nan
    found = predict(FreshDecisions.of(chose_a, difference), reports, {"target": weights}, seed=0)["reported"]
    made = [d for d in decisions_of(chose_a, difference) if d[0] != 3]
    assert (found.n_contexts, found.n_decisions) == (8, len(made))

    def margin(c: int, p: int) -> float:
        return float(difference[c, p] @ reports[c]) / 100

    assert found.share == pytest.approx(np.mean([(margin(c, p) > 0) == first for c, p, _, first in made]))
    halves = [0, 2, 5, 7], [1, 4, 6, 8]  # places without context 3

    def loss(scale: float, contexts: list[int]) -> float:
        return -sum(
            math.log(expit(scale * margin(c, p) * (1 if first else -1))) for c, p, _, first in made if c in contexts
        )

    scales = [minimize_scalar(loss, (0, LARGEST_SCALE), args=(h,), method="bounded", bounds=(0, 50)).x for h in halves]
    assert found.scale == pytest.approx(np.mean(scales), abs=0.01)
    assert found.log_loss == pytest.approx((loss(scales[1], halves[0]) + loss(scales[0], halves[1])) / len(made), 1e-3)


def test_gains_are_paired_by_context():
    weights, difference, chose_a = chooser(12, 20, seed=2)
    reports = weights + np.random.default_rng(3).normal(0, 40, weights.shape)
    target = weights.copy()
    target[4] = np.nan
    found = predict(FreshDecisions.of(chose_a, difference), reports, {"target": target}, seed=5)
    kept = [c for c in range(12) if c != 4]
    right = {}
    for name, w in (("reported", reports), ("target", weights)):
        follows = np.einsum("cpa,ca->cp", difference, w)[..., None] > 0
        first = np.stack([chose_a[..., 0], 1 - chose_a[..., 1]], axis=-1)
        right[name] = (first == follows)[kept].sum(axis=(1, 2))
    gain = right["reported"] - right["target"]
    assert found["target"].gain == pytest.approx(gain.sum() / (11 * 40)) and found["target"].n_contexts == 11
    ends = bootstrap_share(gain, np.full(11, 40), seed=5)
    assert (found["target"].gain_low, found["target"].gain_high) == pytest.approx(ends)
    assert math.isnan(found["reported"].gain) and found["reported"].n_contexts == 12


def test_cross_fitted_weights_do_not_see_the_decisions_that_they_predict():
    _, difference, chose_a = chooser(4, 20, seed=6)
    given = cross_fitted(chose_a[..., 0], difference)
    np.testing.assert_array_equal(given[0], weights_of_some(chose_a[:, 1::2, 0], difference[:, 1::2], 0))
    changed = chose_a.copy()
    changed[:, ::2] = 1 - changed[:, ::2]
    np.testing.assert_array_equal(cross_fitted(changed[..., 0], difference)[0], given[0])
    margin = cross_fitted_margins(given, difference)
    assert margin[2, 5] == pytest.approx(difference[2, 5] @ given[1, 2])
    assert margin[2, 6] == pytest.approx(difference[2, 6] @ given[0, 2])


def test_random_choices_are_not_predicted_from_weights_learned_of_them():
    rng = np.random.default_rng(7)
    difference = rng.uniform(-1, 1, (60, 40, 5))
    chose_a = rng.integers(0, 2, (60, 40, 2)).astype(float)
    learned = cross_fitted(chose_a[..., 0], difference)
    fitted = weights_of_some(chose_a[..., 0], difference, 0)
    others = {"learned": learned, "fitted_to_all": fitted}
    found = predict(FreshDecisions.of(chose_a, difference), fitted, others, seed=0)
    assert found["learned"].share == pytest.approx(0.5, abs=0.03)
    assert found["learned"].log_loss == pytest.approx(math.log(2), abs=0.01)
    assert found["fitted_to_all"].share > 0.55  # what cross-fitting takes away


def test_planted_reports_come_in_their_order():
    weights, difference, chose_a = chooser(80, 50, seed=8)
    noise = np.random.default_rng(9).normal(0, 1, weights.shape)
    others = {"learned": cross_fitted(chose_a[..., 0], difference), "target": weights}
    found = predict(FreshDecisions.of(chose_a, difference), weights + 50 * noise, others, seed=0)
    best = found["target"]
    assert list(found) == ["reported", "learned", "target", "another_context", "constant"]
    assert best.scale == pytest.approx(4.0, abs=0.3)
    assert best.share > found["learned"].share > found["reported"].share > found["constant"].share + 0.05
    assert best.log_loss < found["learned"].log_loss < found["reported"].log_loss < math.log(2)
    assert found["another_context"].share == pytest.approx(0.5, abs=0.05)
    assert found["constant"].gain_low > 0 and found["another_context"].log_loss_gain_low > 0 > best.gain_high


def test_reports_that_run_against_the_decisions_are_no_worse_than_a_coin_in_log_loss():
    weights, difference, chose_a = chooser(20, 30, seed=10)
    found = predict(FreshDecisions.of(chose_a, difference), -weights, {}, seed=0)["reported"]
    assert found.share < 0.3 and found.scale == 0 and found.log_loss == pytest.approx(math.log(2))


def test_a_chooser_without_noise_reaches_the_largest_scale():
    weights, difference, _ = chooser(10, 30, seed=11)
    follows = (np.einsum("cpa,ca->cp", difference, weights) > 0).astype(float)
    one_order = np.stack([follows, np.full_like(follows, np.nan)], axis=-1)
    found = predict(FreshDecisions.of(one_order, difference), weights, {}, seed=0)["reported"]
    assert (found.share, found.scale, found.n_decisions) == (1, LARGEST_SCALE, 300) and found.log_loss < 0.02


def test_equal_weights_on_a_pair_count_half():
    difference = np.zeros((4, 6, 5))
    difference[..., 0] = 1
    reports = np.array([[0.0, 1, 2, 3, 4]] * 4)
    found = predict(FreshDecisions.of(np.ones((4, 6, 2)), difference), reports, {}, seed=0)["reported"]
    assert found.share == 0.5


def test_another_contexts_report_is_never_ones_own():
    x = np.arange(8.0)[:, None] * np.ones(5)
    x[2] = np.nan
    found = other_contexts(x)
    assert found.shape == (5, 8, 5) and np.isnan(found[:, 2]).all()
    assert not (found == x).any() and not np.isnan(np.delete(found, 2, axis=1)).any()
    assert np.isnan(other_contexts(x[2:4])).all()


@pytest.mark.parametrize("contexts", [0, 1, 2])
def test_too_few_contexts_have_no_figure_but_counts(contexts: int):
    weights, difference, chose_a = chooser(3, 10, seed=12)
    weights[contexts:] = np.nan
    found = predict(FreshDecisions.of(chose_a, difference), weights, {"target": weights}, seed=0)
    assert {f.n_contexts for name, f in found.items() if name in ("reported", "target")} == {contexts}
    assert math.isnan(found["reported"].share_low) == (contexts < 2)
    assert math.isnan(found["reported"].log_loss) == (contexts < 2)
