"""Choice contexts: the bundled data reads well, and no two contexts are nearly the same."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from store.contexts import DATA, load_contexts
from task.contexts import Attribute, ChoiceContext, near_repetitions, problems, report_key
from task.trials import round_to_grid

RELEASED = Path(__file__).resolve().parents[3] / "shared" / "released"
EVERYTHING = [c for name in ("instilled", "native", "spare") for c in load_contexts(DATA / f"{name}.jsonl")]


def test_the_bundled_files_are_sound_together():
    assert problems(EVERYTHING) == []
    assert near_repetitions(EVERYTHING) == []


def test_every_bundled_context_reads_well():
    for context in EVERYTHING:
        assert all(attribute.units for attribute in context.attributes), context.name
        assert len(context.question.split()) <= 12, context.name
        lows, highs = context.lows, np.array([a.high for a in context.attributes])
        np.testing.assert_array_equal(round_to_grid(lows, context), lows, context.name)
        np.testing.assert_array_equal(round_to_grid(highs, context), highs, context.name)


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the paper's released files are not beside the repository")
def test_no_bundled_context_is_one_of_the_paper():
    records = json.loads((RELEASED / "candidate_scenarios.json").read_text(encoding="utf-8"))
    assert not {c.name for c in EVERYTHING} & {record["short_name"] for record in records}


@pytest.mark.parametrize("other", ["Room Size", "room_size", "ROOM-SIZE ", " room  size"])
def test_report_keys_ignore_case_and_separators(other: str):
    assert report_key(other) == report_key("room size") != report_key("room sizes")


def test_near_repetitions_names_pairs_with_three_shared_attributes():
    def context(name: str, *attribute_names: str) -> ChoiceContext:
        return ChoiceContext(name, "a traveller", "Which one?", tuple(Attribute(n, "", 0, 1) for n in attribute_names))

    inn = context("inn", "price", "size", "noise", "age")
    found = near_repetitions(
        [inn, context("hotel", "noise", "price", "size"), context("tent", "price", "size", "colour")]
    )
    assert found == ["inn and hotel share the attributes ['noise', 'price', 'size']"]
