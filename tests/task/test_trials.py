"""Trials: attribute values in range and on the rounding grid, and the same however they are drawn."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from store.contexts import DATA, load_contexts
from task.contexts import Attribute, ChoiceContext
from task.trials import Trials, prefers_first, round_to_grid, sample_trials
from task.weights import shuffle_across


def context_of(*ranges: tuple[float, float], name: str = "hotel") -> ChoiceContext:
    attributes = tuple(Attribute(f"attribute {i}", "units", low, high) for i, (low, high) in enumerate(ranges))
    return ChoiceContext(name, "a traveller", "Which hotel would you book?", attributes)


ranges = st.builds(lambda low, exponent: (low, low + 10.0**exponent), st.floats(-1000, 1000), st.floats(-3, 4))


@pytest.mark.parametrize(
    ("low", "high", "decimals"),
    [
        *[(0, 5, 0), (0, 1000, 0), (-10.3, -5.3, 0)],
        *[(0, 4.9, 1), (0, 1, 1), (1.3, 2.3, 1)],
        *[(0, 0.9, 2), (0, 0.1, 2), (0.2, 0.3, 2), (0.02, 0.07, 3), (0, 0.004, 4)],
    ],
)
def test_decimals_follow_the_width_of_the_range(low: float, high: float, decimals: int):
    assert Attribute("price", "euros", low, high).decimals == decimals


@settings(deadline=None)
@given(st.floats(-1000, 1000), st.floats(-3, -0.001))
def test_a_range_below_one_shows_two_digits(low: float, exponent: float):
    attribute = Attribute("price", "euros", low, low + 10.0**exponent)
    assert 10 * (1 - 1e-6) <= attribute.span * 10**attribute.decimals < 100 * (1 + 1e-6)


@settings(deadline=None)
@example([(0.02, 0.07), (-0.07, -0.02), (-0.4, 8.0), (0.3, 0.7), (-10, 60)], 0)
@given(st.lists(ranges, min_size=1, max_size=4), st.integers(0, 1000))
def test_values_lie_in_range_and_on_the_grid(ends: list[tuple[float, float]], seed: int):
    context = context_of(*ends)
    trials = sample_trials(seed, "decisions", context, 40)
    for values in (trials.first, trials.second):
        assert values.shape == (40, len(ends))
        for attribute, column in zip(context.attributes, values.T, strict=True):
            slack = 1e-8 * 10.0**-attribute.decimals
            assert attribute.low - slack <= column.min()
            assert column.max() <= attribute.high + slack
            printed = [f"{value:.{attribute.decimals}f}" for value in column]
            assert [float(text) for text in printed] == column.tolist()
            assert not any(text.startswith("-") and float(text) == 0 for text in printed), "no prompt shows -0"


@settings(deadline=None)
@given(ranges, st.floats(0, 1))
def test_rounding_gives_the_nearest_grid_point_in_range(ends: tuple[float, float], share: float):
    context = context_of(ends)
    (attribute,) = context.attributes
    value = attribute.low + share * attribute.span
    rounded = round_to_grid(np.array([value]), context)[0]
    step, slack = Decimal(10) ** -attribute.decimals, Decimal("1e-8")
    lowest = math.ceil(Decimal(attribute.low) / step - slack)
    highest = math.floor(Decimal(attribute.high) / step + slack)
    near = range(math.floor(Decimal(value) / step) - 2, math.ceil(Decimal(value) / step) + 3)
    distances = [abs(k * step - Decimal(value)) for k in near if lowest <= k <= highest]
    assert abs(Decimal(rounded) - Decimal(value)) <= min(distances) + step * slack


def test_values_are_uniform_over_the_grid():
    trials = sample_trials(7, "decisions", context_of((0, 10)), 6000)
    # A draw in [0, 10) rounds to 0 or 10 from half an interval, to each of 1 to 9 from a whole one.
    expected = np.array([0.5, *[1.0] * 9, 0.5]) * 600
    for values in (trials.first, trials.second):
        counts = np.bincount(values[:, 0].astype(int), minlength=11)
        assert stats.chisquare(counts, expected).pvalue > 0.001
    assert abs(np.corrcoef(trials.first[:, 0], trials.second[:, 0])[0, 1]) < 0.05


@settings(deadline=None)
@given(st.integers(0, 100), st.integers(0, 40), st.integers(1, 40))
def test_a_slice_equals_the_rows_of_the_whole(seed: int, start: int, count: int):
    context = context_of((0, 10), (0.02, 0.07), (-3, 3))
    whole = sample_trials(seed, "reports", context, start + count)
    part = sample_trials(seed, "reports", context, count, start=start)
    assert len(part.index) == count
    np.testing.assert_array_equal(part.index, np.arange(start, start + count))
    np.testing.assert_array_equal(part.first, whole.first[start:])
    np.testing.assert_array_equal(part.second, whole.second[start:])


def test_purposes_contexts_and_seeds_have_their_own_trials():
    ends = [(0.0, 1000.0)] * 5
    purposes = ("train_decisions", "validate_decisions", "train_reports", "validate_reports", "decisions", "reports")
    drawn = [sample_trials(1, purpose, context_of(*ends), 100) for purpose in purposes]
    drawn += [sample_trials(2, "decisions", context_of(*ends), 100)]
    drawn += [sample_trials(1, "decisions", context_of(*ends, name="hostel"), 100)]
    rows = [tuple(row) for trials in drawn for row in np.hstack([trials.first, trials.second]).tolist()]
    assert len(set(rows)) == len(rows) == 800


def test_prefers_first_is_the_option_of_higher_utility():
    context = load_contexts(DATA / "native.jsonl")[0]
    trials = sample_trials(1, "decisions", context, 200)
    weights = [30.0, -100.0, 5.0, 0.0, 64.0]

    def utility(option: list[float]) -> float:
        scaled = [(v - a.low) / (a.high - a.low) for v, a in zip(option, context.attributes, strict=True)]
        return sum(w * s for w, s in zip(weights, scaled, strict=True))

    pairs = zip(trials.first.tolist(), trials.second.tolist(), strict=True)
    expected = [utility(first) > utility(second) for first, second in pairs]
    assert prefers_first(trials, weights).tolist() == expected
    swapped = Trials(context, trials.index, trials.second, trials.first)
    assert prefers_first(swapped, weights).tolist() == [not chosen for chosen in expected]


def test_a_tie_goes_by_the_parity_of_the_index():
    context = context_of((0, 1), (0, 1))
    first, second = np.tile([0.1, 0.3], (6, 1)), np.tile([0.3, 0.1], (6, 1))
    tied = Trials(context, np.arange(10, 16), first, second)  # 0.1 + 0.3 against 0.3 + 0.1, up to float error
    assert prefers_first(tied, [100, 100]).tolist() == [True, False] * 3


FRESH_PROCESS = """
import hashlib, json, sys
from store.contexts import DATA, load_contexts
from task.trials import sample_trials
from task.weights import shuffle_across

contexts = load_contexts(DATA / "native.jsonl", 10)
digest = hashlib.sha256()
for context in contexts:
    trials = sample_trials(3, "decisions", context, 20)
    digest.update(trials.first.tobytes() + trials.second.tobytes())
json.dump([digest.hexdigest(), shuffle_across([c.name for c in contexts], 3)], sys.stdout)
"""


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_a_fresh_process_draws_the_same(hash_seed: str):
    contexts = load_contexts(DATA / "native.jsonl", 10)
    digest = hashlib.sha256()
    for context in contexts:
        trials = sample_trials(3, "decisions", context, 20)
        digest.update(trials.first.tobytes() + trials.second.tobytes())
    command = [sys.executable, "-c", FRESH_PROCESS]
    fresh = subprocess.run(
        command, env={**os.environ, "PYTHONHASHSEED": hash_seed}, capture_output=True, text=True, check=True
    )
    assert json.loads(fresh.stdout) == [digest.hexdigest(), shuffle_across([c.name for c in contexts], 3)]
