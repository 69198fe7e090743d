"""Weights: scale, sampling, utilities, the shuffled control and the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from store.contexts import DATA, load_contexts
from store.weights import load_weights, save_weights
from task.errors import InputError
from task.weights import SMALLEST, rescale, sample_weights, shuffle_across, utilities

RELEASED = Path(__file__).resolve().parents[3] / "shared" / "released"
NATIVE = load_contexts(DATA / "native.jsonl")


@settings(deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6).filter(lambda w: max(map(abs, w)) > SMALLEST))
def test_the_largest_is_exactly_100(weights: list[float]):
    scaled = rescale(weights)
    assert np.abs(scaled).max() == 100
    largest = max(abs(w) for w in weights)
    np.testing.assert_allclose(scaled, [w / largest * 100 for w in weights], rtol=1e-12)


def test_each_context_is_scaled_by_itself():
    scaled = rescale([[11.0, -5.5], [0.0, 0.0], [3.0, np.nan], [-1e-6, 0.0]])
    np.testing.assert_array_equal(scaled, [[100, -50], [np.nan] * 2, [np.nan] * 2, [-100, 0]])


def test_what_is_nothing_but_rounding_has_no_direction():
    assert np.isnan(rescale([[1e-12, -3e-13], [0.0, -1e-320]])).all()


def test_sampled_weights_are_whole_numbers_with_one_at_100():
    drawn = np.array([sample_weights(1, "target_weights", c) for c in NATIVE])
    np.testing.assert_array_equal(np.abs(drawn).max(axis=1), 100)
    np.testing.assert_array_equal(drawn, np.round(drawn))
    assert not np.signbit(drawn[drawn == 0]).any(), "-0 would be written into the file of weights"
    assert 0.4 < (drawn > 0).mean() < 0.6


def test_sampled_weights_have_the_distribution_of_the_definition():
    generator = np.random.default_rng(0)
    raw = generator.uniform(-100, 100, (4000, 5))
    definition = np.round(raw * 100 / np.abs(raw).max(axis=1, keepdims=True))
    drawn = np.array([sample_weights(seed, "target_weights", c) for seed in range(10) for c in NATIVE])
    assert stats.ks_2samp(drawn.ravel(), definition.ravel()).pvalue > 0.001


def test_sampled_weights_are_a_function_of_seed_purpose_and_context():
    keys = [(1, "target_weights", c) for c in NATIVE[:3]] + [(2, "target_weights", NATIVE[0])]
    keys += [(1, "native_weights", NATIVE[0])]
    drawn = [tuple(sample_weights(*key)) for key in keys]
    assert len(set(drawn)) == len(drawn)
    assert drawn == [tuple(sample_weights(*key)) for key in keys]


def test_utilities_equal_the_sum_over_attributes():
    context = NATIVE[0]
    generator = np.random.default_rng(1)
    values = context.lows + generator.random((2, 3, 5)) * context.spans
    weights = generator.uniform(-100, 100, 5)
    got = utilities(values, weights, context)
    assert got.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        expected = sum(
            weight * (value - a.low) / (a.high - a.low)
            for weight, value, a in zip(weights, values[i, j], context.attributes, strict=True)
        )
        assert got[i, j] == pytest.approx(expected, rel=1e-12)


@settings(deadline=None)
@given(st.integers(2, 30), st.integers(0, 1000))
def test_shuffling_leaves_nobody_their_own_weights(size: int, seed: int):
    names = [f"context_{i}" for i in range(size)]
    given_to = shuffle_across(names, seed)
    assert sorted(given_to) == sorted(given_to.values()) == sorted(names)
    assert all(name != other for name, other in given_to.items())


def test_shuffling_depends_on_the_seed():
    names = [c.name for c in NATIVE]
    assert shuffle_across(names, 1) == shuffle_across(names, 1) != shuffle_across(names, 2)


def test_one_context_cannot_be_shuffled():
    with pytest.raises(InputError, match=r"at least 2 contexts.*hotel"):
        shuffle_across(["hotel"], 1)


def test_saved_weights_load_again(tmp_path: Path):
    weights = {c.name: sample_weights(1, "target_weights", c) for c in NATIVE}
    weights["measured"] = np.array([100.0, -12.3456, 0.000123456, 1e-7, -100.0])
    save_weights(weights, tmp_path / "weights.csv")
    loaded = load_weights(tmp_path / "weights.csv")
    assert list(loaded) == list(weights)
    for name, values in weights.items():
        np.testing.assert_array_equal(loaded[name], values)
    head = (tmp_path / "weights.csv").read_text().splitlines()[0]
    assert head == "context,weight_1,weight_2,weight_3,weight_4,weight_5"


def test_other_columns_and_a_byte_order_mark_are_passed_over(tmp_path: Path):
    path = tmp_path / "weights.csv"
    path.write_text("context,raw_1,raw_2,sd_1,weight_1,weight_2\nhotel,0.5,1,0.1,50,-100\n", encoding="utf-8-sig")
    assert {name: values.tolist() for name, values in load_weights(path).items()} == {"hotel": [50, -100]}


@pytest.mark.parametrize(
    ("text", "fragments"),
    [
        ("name,weight_1\nhotel,3\n", ["name", "context, weight_1"]),
        ("context,value\nhotel,3\n", ["value", "context, weight_1"]),
        ("", ["context, weight_1"]),
        ("context,weight_1,weight_2\nhotel,3,4\ntea,much,4\n", [":3", "much", "number"]),
        ("context,weight_1,weight_2\nhotel,3\n", [":2", "2 cells", "3"]),
        ("context,weight_1,weight_3\nhotel,3,4\n", [":1", "'weight_2' is missing"]),
        ("context,weight_1,weight_1\nhotel,3,4\n", [":1", "'weight_1' is there twice"]),
        ("context,weight_1\nhotel,3\ntea,1\nhotel,4\n", [":4", "'hotel' again", "line 2"]),
        *(
            (f"context,weight_1\nhotel,{cell}\n", [":2", "weight_1", "finite number"])
            for cell in ("1_000", "0x1f", "٣", "inf", "nan", "5%", '"1,5"', "")
        ),
    ],
)
def test_a_bad_file_is_named_in_one_line(tmp_path: Path, text: str, fragments: list[str]):
    path = tmp_path / "weights.csv"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_weights(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert all(fragment in message for fragment in fragments), message


def test_columns_are_found_by_their_numbers_and_a_row_said_twice_is_told(tmp_path: Path):
    path, told = tmp_path / "weights.csv", []
    path.write_text("weight_2,context,weight_1\n-100,hotel, 50 \n1e0,tea,2\n-100,hotel,50\n")
    loaded = load_weights(path, told.append)
    assert {name: values.tolist() for name, values in loaded.items()} == {"hotel": [50, -100], "tea": [2, 1]}
    assert told == ["weights.csv: rows that repeat an earlier one, left out: 1, the first in line 4"]


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(InputError, match="no such weights file"):
        load_weights(tmp_path / "none.csv")


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the paper's released files are not beside the repository")
def test_released_target_weights_load():
    weights = load_weights(RELEASED / "instilled_weights.csv")
    assert len(weights) == 1100
    np.testing.assert_array_equal(weights["loose_leaf_tea"], [-100, 95, 72, -67, -1])
    everything = np.array(list(weights.values()))
    np.testing.assert_array_equal(np.abs(everything).max(axis=1), 100)
