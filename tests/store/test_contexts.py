"""Files of choice contexts: the bundled ones, and one clear line for every defect that a file can have."""

from __future__ import annotations

import dataclasses
import gzip
import json
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.contexts import DATA, context_from_json, load_contexts, save_contexts
from task.contexts import Attribute, ChoiceContext, as_ratings, report_key
from task.errors import InputError

BUNDLED = {name: load_contexts(DATA / f"{name}.jsonl") for name in ("instilled", "native", "spare")}
EVERYTHING = [context for contexts in BUNDLED.values() for context in contexts]

HOTEL: dict[str, Any] = {
    "name": "hotel",
    "agent": "a traveller",
    "question": "Which hotel would you book?",
    "attributes": [
        {"name": "price", "units": "euros", "low": 40, "high": 300},
        {"name": "room size", "units": "square metres", "low": 9, "high": 60},
    ],
}


def test_the_bundled_files_have_their_sizes():
    assert len(BUNDLED["instilled"]) == 100
    assert len(BUNDLED["native"]) == 100
    assert len(BUNDLED["spare"]) >= 40
    assert {len(c.attributes) for c in EVERYTHING} == {5}


def test_arrays_follow_the_order_of_the_attributes():
    context = context_from_json(json.dumps(HOTEL), "here")
    assert context.attribute_names == ["price", "room size"]
    np.testing.assert_array_equal(context.lows, [40, 9])
    np.testing.assert_array_equal(context.spans, [260, 51])


texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]))
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
low_and_high = st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)).filter(lambda ends: ends[1] - ends[0] > 1e-3)
attributes = st.builds(
    lambda name, units, ends: Attribute(name, units, *ends),
    texts.filter(str.strip),
    texts,
    low_and_high,
)
contexts_of_two = st.builds(
    ChoiceContext,
    names,
    texts.filter(str.strip),
    texts.map("{}?".format),
    st.tuples(attributes, attributes).filter(lambda pair: report_key(pair[0].name) != report_key(pair[1].name)),
)


@settings(deadline=None)
@given(st.lists(contexts_of_two, min_size=1, max_size=3, unique_by=lambda c: c.name))
def test_saved_contexts_load_again(tmp_path_factory: pytest.TempPathFactory, contexts: list[ChoiceContext]):
    path = tmp_path_factory.mktemp("contexts") / "contexts.jsonl"
    save_contexts(contexts, path)
    assert load_contexts(path) == contexts


def changed(change: Callable[[dict[str, Any]], object]) -> str:
    record = deepcopy(HOTEL)
    record["name"] = "hostel"
    change(record)
    return json.dumps(record)


def attribute(position: int, **values: object) -> Callable[[dict[str, Any]], object]:
    return lambda record: record["attributes"][position].update(values)


DEFECTS: dict[str, tuple[str, list[str]]] = {
    "empty range": (changed(attribute(1, low=60)), ["hostel", "room size", "[60, 60]"]),
    "reversed range": (changed(attribute(0, low=301)), ["hostel", "price", "[301, 300]"]),
    "infinite range": (
        changed(attribute(0, high=1)).replace('"high": 1,', "").replace('"high": 1}', '"high": 1e400}'),
        ["price", "inf"],
    ),
    "very long range": (changed(attribute(0, high=int("9" * 400))), ["price", "inf"]),
    "range that is not a number": (changed(attribute(0, low=float("nan"))), ["not JSON", "NaN"]),
    "range too wide to write": (changed(attribute(0, low=-1e308, high=1e308)), ["price", "digits", "units"]),
    "range too narrow to write": (changed(attribute(0, low=0, high=1e-300)), ["price", "digits", "units"]),
    "range too narrow for its place": (changed(attribute(0, low=1e13, high=1e13 + 0.02)), ["price", "digits"]),
    "key given twice": (
        changed(lambda record: None).replace('"low": 40', '"low": 1, "low": 40'),
        ["'low' is given twice"],
    ),
    "half a surrogate pair": (changed(attribute(0, units="\ud800")), ["not JSON", "surrogate"]),
    "line break in a name": (changed(attribute(0, name="a\nb")), ["name of attribute 1", "'\\n'"]),
    "long name": (changed(lambda record: record.update(name="x" * 300)), ["300 characters", "100 at most"]),
    "nested": ('{"a":' * 9999, ["not JSON", "nested too deeply"]),
    "duplicated attribute": (changed(attribute(1, name="Price_")), ["hostel", "price", "2 times"]),
    "attribute without a name": (changed(attribute(1, name=" ")), ["hostel", "' '", "no name"]),
    "missing agent": (changed(lambda record: record.pop("agent")), ["agent is missing"]),
    "empty agent": (changed(lambda record: record.update(agent=" ")), ["hostel", "agent is missing"]),
    "no question mark": (changed(lambda record: record.update(question="Book one.")), ["'Book one.'", "'?'"]),
    "unknown key": (changed(lambda record: record.update(persona="x")), ["unknown key 'persona'", "agent"]),
    "unknown key of an attribute": (changed(attribute(1, unit="m")), ["attribute 2", "unknown key 'unit'"]),
    "missing units": (
        changed(lambda record: record["attributes"][0].pop("units")),
        ["attribute 1", "units is missing"],
    ),
    "wrong type": (changed(attribute(0, low="forty")), ["attribute 1", "low", "'forty'"]),
    "truth value as a number": (changed(attribute(0, low=True)), ["attribute 1", "low", "True"]),
    "wrong type of attributes": (changed(lambda record: record.update(attributes={})), ["attributes", "{}"]),
    "one attribute": (changed(lambda record: record["attributes"].pop()), ["hostel", "1 attributes", "2"]),
    "not JSON": ('{"name": "hostel",', ["not JSON"]),
    "not an object": ('["hostel"]', ["hostel", "not an object"]),
    "mixed attribute counts": (
        changed(lambda record: record["attributes"].append({"name": "age", "units": "", "low": 0, "high": 9})),
        ["hostel", "3 attributes", "2 at"],
    ),
    "bad name": (changed(lambda record: record.update(name="../x")), ["'../x'", "letters"]),
    "repeated name": (changed(lambda record: record.update(name="hotel")), ["hotel", "already used", ":1"]),
}


def run_check(*paths: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "store.contexts", *map(str, paths)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("line", "fragments"), DEFECTS.values(), ids=DEFECTS)
def test_a_defect_is_one_line_with_place_and_value(tmp_path: Path, line: str, fragments: list[str]):
    path = tmp_path / "contexts.jsonl"
    path.write_text(json.dumps(HOTEL) + "\n\n" + line + "\n")
    with pytest.raises(InputError) as caught:
        load_contexts(path)
    first, *_ = str(caught.value).split(" (and ")
    assert first.startswith(f"{path}:3"), "the blank line counts, as in an editor"
    assert "\n" not in first
    assert all(fragment in first for fragment in fragments), first


IN_SUBPROCESS = ["empty range", "duplicated attribute", "missing agent", "unknown key", "wrong type", "not JSON"]
IN_SUBPROCESS += ["mixed attribute counts", "bad name", "repeated name"]


@pytest.mark.parametrize("defect", IN_SUBPROCESS)
def test_the_command_says_the_same_and_fails(tmp_path: Path, defect: str):
    path = tmp_path / "contexts.jsonl"
    line, fragments = DEFECTS[defect]
    path.write_text(json.dumps(HOTEL) + "\n\n" + line + "\n")
    done = run_check(path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {path}:3")
    assert done.stderr.count("\n") == 1
    assert all(fragment in done.stderr for fragment in fragments), done.stderr


def test_the_command_names_every_problem_where_it_is(tmp_path: Path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    first.write_text(json.dumps(HOTEL) + "\n")
    second.write_text(DEFECTS["empty range"][0] + "\n" + json.dumps(HOTEL) + "\n")
    done = run_check(first, second)
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    assert f"{second}:1 (hostel)" in lines[0]
    assert f"{second}:2 (hotel)" in lines[1]
    assert f"{first}:1" in lines[1]


def test_the_command_passes_the_bundled_files():
    done = run_check(*(DATA / f"{name}.jsonl" for name in BUNDLED))
    assert done.returncode == 0
    assert done.stdout == f"{len(EVERYTHING)} contexts in 3 file(s), no problem found\n"
    assert done.stderr == ""


def test_the_command_without_a_file_shows_its_usage():
    done = run_check()
    assert (done.returncode, done.stdout) == (2, "")
    assert "python -m store.contexts FILE.jsonl" in done.stderr


def test_more_problems_are_announced(tmp_path: Path):
    path = tmp_path / "contexts.jsonl"
    path.write_text(changed(lambda record: record.update(agent="", question="")))
    with pytest.raises(InputError, match=r"agent is missing.*\(and 1 more: python -m store\.contexts"):
        load_contexts(path)


def test_too_few_contexts_are_counted():
    path = DATA / "instilled.jsonl"
    assert load_contexts(path, 7) == BUNDLED["instilled"][:7]
    for count in (101, 0, -1):
        with pytest.raises(InputError, match=f"{count} contexts asked for, the file has 100") as caught:
            load_contexts(path, count)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "fragment"),
    [
        ("none.jsonl", None, "no such contexts file"),
        ("empty.jsonl", b"\n \n", "no contexts in it"),
        ("latin.jsonl", json.dumps(HOTEL).replace("traveller", "caf\xe9").encode("latin-1"), "not UTF-8"),
        ("zipped.jsonl", gzip.compress(json.dumps(HOTEL).encode(), mtime=0), "gzip"),
        ("wide.jsonl", json.dumps(HOTEL).encode("utf-16"), "UTF-16"),
        ("weights.csv", b"context,weight_1\nhotel,3\n", "not a contexts file"),
    ],
)
def test_a_file_without_contexts_is_named(tmp_path: Path, name: str, content: bytes | None, fragment: str):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=fragment) as caught:
        load_contexts(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_layout_and_ratings_survive_a_file(tmp_path: Path):
    rated = dataclasses.replace(as_ratings(EVERYTHING[0]), layout="side_by_side")
    save_contexts([rated, EVERYTHING[1]], tmp_path / "some.jsonl")
    assert load_contexts(tmp_path / "some.jsonl") == [rated, EVERYTHING[1]]
    assert {(a.low, a.high, a.units, a.decimals) for a in rated.attributes} == {(0.0, 100.0, "", 0)}
    assert "layout" not in (tmp_path / "some.jsonl").read_text().splitlines()[1]


def test_an_unknown_layout_is_one_clear_line():
    with pytest.raises(InputError, match="layout is 'table'; needed: one of lists, side_by_side"):
        context_from_json(json.dumps({**HOTEL, "layout": "table"}), "here")
