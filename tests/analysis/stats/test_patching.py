"""Patching curves against planted ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.stats.patching import (
    Curve,
    half_recovery,
    matrices_to,
    recovery,
    recovery_interval,
    recovery_of_draws,
    times_fewer,
)

K = np.array([1, 2, 4, 8, 16, 28])


def curve(recovered: list[float], backbone: list[float] | None = None, draws: int = 1) -> Curve:
    """The same recovery in every context."""
    whole = np.array([1.0, 3.0, 0.5, 2.0, 4.0, 1.5, 2.5, 0.01] if backbone is None else backbone)
    kl = whole[:, None] * (1 - np.array(recovered))
    return Curve(K, np.tile(kl, (draws, 1, 1)), whole)


def test_recovery_is_planted_and_found():
    planted = [0.1, 0.3, 0.45, 0.55, 0.9, 1.0]
    np.testing.assert_allclose(recovery(curve(planted)), planted)
    low, high = recovery_interval(curve(planted), seed=0)
    np.testing.assert_allclose(low, planted)
    np.testing.assert_allclose(high, planted)
    found = half_recovery(curve(planted), None, seed=0)
    assert found.k == pytest.approx(2**2.5)  # half-way between 4 and 8, on a logarithmic scale
    assert (found.low, found.high) == pytest.approx((2**2.5, 2**2.5))
    assert math.isnan(found.times_fewer)


def test_a_context_in_which_the_adapter_changes_nothing_does_not_matter():
    still = Curve(K, np.array([[[0.5] * 6, [1e-7] * 6]]), np.array([1.0, 1e-9]))
    np.testing.assert_allclose(recovery(still), 0.5, atol=1e-6)  # the mean of ratios would be about -50
    assert np.isnan(recovery(Curve(K, np.zeros((1, 2, 6)), np.zeros(2)))).all()


@pytest.mark.parametrize(
    ("recovered", "k"),
    [
        ([0.6, 0.7, 0.8, 0.9, 1.0, 1.0], 1.0),
        ([0.0, 0.0, 0.0, 0.0, 0.5, 1.0], 16.0),
        ([0.0, 0.0, 0.0, 0.0, 0.0, 1.0], 2 ** (4 + 0.5 * math.log2(28 / 16))),
        ([-0.5, 0.5, 0.2, 0.4, 0.6, 1.0], 2.0),  # the first time
        ([0.0, 0.1, 0.2, 0.3, 0.4, 0.49], math.inf),
        ([0.0, math.nan, 0.2, 0.3, 0.4, 0.8], math.nan),
    ],
)
def test_the_number_of_matrices_to_half(recovered: list[float], k: float):
    assert float(matrices_to(recovered, K)) == pytest.approx(k, nan_ok=True)
    found = half_recovery(curve(recovered), None, seed=0).k
    assert found == pytest.approx(k if math.isfinite(k) else math.nan, nan_ok=True)


def test_a_random_order_needs_so_many_times_more():
    ranked, random = [0.5, 0.8, 0.9, 1, 1, 1], [0, 0.1, 0.3, 0.5, 0.8, 1]
    found = half_recovery(curve(ranked), curve(random, draws=3), seed=0)
    assert (found.times_fewer, found.times_low, found.times_high) == pytest.approx((8, 8, 8))
    assert times_fewer(curve(ranked), curve(random), seed=0) == pytest.approx((8, 8, 8))
    assert times_fewer(curve(random), curve(ranked), seed=0)[0] == pytest.approx(1 / 8)


def test_draws_of_a_random_order_make_a_band():
    one, other = curve([0.0, 0.2, 0.4, 0.6, 0.8, 1]), curve([0.2, 0.4, 0.6, 0.8, 1, 1])
    both = Curve(K, np.concatenate([one.kl, other.kl]), one.backbone)
    np.testing.assert_allclose(recovery_of_draws(both)[1], [0.2, 0.4, 0.6, 0.8, 1, 1])
    np.testing.assert_allclose(recovery(both), [0.1, 0.3, 0.5, 0.7, 0.9, 1])


def test_the_interval_by_context_holds_the_truth():
    """Recovery differs between contexts; in 95% of 300 studies, give or take three standard errors."""
    rng, truth = np.random.default_rng(0), np.array([0.1, 0.25, 0.4, 0.6, 0.85, 1.0])
    held = held_k = 0
    known = float(matrices_to(truth, K))
    for _ in range(300):
        size = rng.exponential(size=25)
        kl = size[:, None] * (1 - truth * rng.normal(1, 0.4, (25, 1)))
        found = Curve(K, kl[None], size)
        low, high = recovery_interval(found, seed=0)
        held += low[3] <= truth[3] <= high[3]
        half = half_recovery(found, None, seed=0)
        held_k += half.low <= known <= half.high
    assert 0.90 <= held / 300 <= 0.99 and 0.90 <= held_k / 300 <= 0.99


def test_few_contexts_have_no_interval_and_one_end_may_not_be_reached():
    few = curve([0, 0.2, 0.4, 0.6, 0.8, 1], backbone=[1.0, 2.0])
    assert np.isnan(recovery_interval(few, seed=0)).all()
    assert half_recovery(few, None, seed=0).k == pytest.approx(2**2.5)
    assert math.isnan(half_recovery(few, None, seed=0).low)
    size = np.ones(10)
    kl = np.where(np.arange(10)[:, None] < 5, 1 - np.linspace(0, 0.8, 6), 1.0)[None]  # half of them never recover
    found = half_recovery(Curve(K, kl, size), None, seed=0)
    assert math.isnan(found.k) and math.isnan(found.high) and found.low > 1
