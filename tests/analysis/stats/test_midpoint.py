"""Midpoints along the layers: planted curves, the rules for curves without one, and how often intervals cover."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.stats.agreement import resampled_counts, resampled_r
from analysis.stats.midpoint import Curve, crossings, lag

LAYERS = 12
CUTS = [*range(LAYERS + 1)]


def curve(values: np.ndarray, cuts: list[int] = CUTS, noise: float = 0.0, seed: int = 0) -> Curve:
    """A curve whose resamples err by themselves at every cut."""
    errors = np.random.default_rng(seed).normal(0, noise, (400, len(cuts)))
    return Curve(cuts, values, values + errors, n_contexts=50)


@pytest.mark.parametrize("layer", [0, 3, LAYERS - 1])
@pytest.mark.parametrize("turn", [1.0, -1.0])
def test_what_one_layer_holds_alone_has_its_midpoint_there(layer: int, turn: float):
    kept = np.array([float(cut > layer) for cut in CUTS])
    found = curve(turn * kept).midpoint()
    assert (found.layer, found.low, found.high) == (layer, layer, layer) and found.reason is None
    assert (found.first_cut, found.last_cut, found.start, found.end) == (0, LAYERS, 0, turn)


def test_straight_and_logistic_curves_are_half_way_in_their_middle():
    cuts = np.array(CUTS, dtype=float)
    assert curve(0.9 * cuts / LAYERS).midpoint().layer == pytest.approx((LAYERS - 1) / 2)
    # Symmetric about cut 6, so that the ends are as far from the middle.
    logistic = 0.2 + 0.7 / (1 + np.exp(-1.3 * (cuts - 6)))
    assert curve(logistic).midpoint().layer == pytest.approx(5.5)
    shifted = 1 / (1 + np.exp(-3 * (cuts - 4.2)))
    assert curve(shifted).midpoint().layer == pytest.approx(3.7, abs=0.1), "but for straight lines between cuts"


def test_a_coarse_grid_and_missing_cuts_are_joined_by_straight_lines():
    found = curve(np.array([0.0, 0.1, 0.9, 1.0]), [0, 4, 8, 12]).midpoint()
    assert found.layer == pytest.approx(5.5) and found.crossings == [found.layer]
    assert crossings([0, 1, 2], [0.0, 0.25, 1.0]) == pytest.approx([5 / 6])


def test_curves_without_one_midpoint_have_none_and_say_why():
    flat = curve(np.full(13, 0.4), noise=0.1).midpoint()
    assert math.isnan(flat.layer) and flat.reason == "its ends, cuts 0 and 12, do not differ"
    up_and_down = np.array([0.0, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1])
    twice = curve(up_and_down).midpoint()
    assert math.isnan(twice.layer) and twice.crossings == [0, 1, 2] and twice.reason == "it is half-way at 3 places"
    none = curve(np.array([0.3]), [4]).midpoint()
    assert none.reason == "fewer than two cuts have a value" and none.first_cut == 4
    assert curve(np.empty(0), []).midpoint().first_cut is None


def test_a_resample_that_crosses_several_times_widens_the_interval():
    steady = np.tile([0.0, 0, 0, 1, 1, 1], (400, 1))
    wild = steady.copy()
    wild[:40] = [0, 1, 0, 1, 0, 1]
    calm, wide = (Curve([*range(6)], steady[0], resampled, 50).midpoint() for resampled in (steady, wild))
    assert (calm.low, calm.high) == (2, 2) and (wide.low, wide.high) == (0, 4)


def test_the_lag_of_a_curve_is_that_of_its_midpoint():
    early, late = (np.array([float(cut > layer) for cut in CUTS]) for layer in (3, 8))
    assert lag(curve(late), curve(early)) == (5, 5, 5)
    assert all(map(math.isnan, lag(curve(late), curve(np.zeros(13)))))


def test_intervals_hold_the_truth_as_often_as_they_say():
    # Weights of 40 contexts; what is reported at a cut is these with noise that falls along the cuts. The truth is
    # where r of the population, 1 / sqrt(1 + noise^2), is half-way.
    noise = np.linspace(3, 0.3, LAYERS + 1)
    [truth] = crossings(CUTS, 1 / np.sqrt(1 + noise**2))
    held, contexts, studies = 0, 40, 120
    counts = resampled_counts(contexts, 0, 400)
    for study in range(studies):
        rng = np.random.default_rng(study)
        weights, errors = rng.normal(size=(2, contexts, 5))
        states = [weights + spread * errors for spread in noise]
        values = np.array([np.corrcoef(state.ravel(), weights.ravel())[0, 1] for state in states])
        resampled = np.stack([resampled_r(state, weights, counts) for state in states], axis=1)
        found = Curve(CUTS, values, resampled, contexts).midpoint()
        held += found.low <= truth <= found.high
    assert 0.88 <= held / studies <= 0.995
