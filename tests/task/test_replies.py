"""Replies: what is readable becomes exactly the value that was said, all else a reason."""

from __future__ import annotations

import json
import math
import re
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from task.contexts import Attribute, ChoiceContext
from task.prompts import report_answer
from task.replies import (
    LIMIT,
    REASONS,
    UNDECIDED,
    Decided,
    Reason,
    Undecided,
    number_places,
    parse_letter,
    parse_report,
    report_key,
)

PRICE_SIZE = ["price", "room size"]

names_of_attributes = st.lists(
    st.text(min_size=1, max_size=12).filter(report_key), min_size=2, max_size=5, unique_by=report_key
)


def context_with(names: list[str]) -> ChoiceContext:
    attributes = tuple(Attribute(name, "", 0.0, 10.0) for name in names)
    return ChoiceContext("hotel", "a traveller", "Which hotel would you book?", attributes)


@settings(deadline=None)
@example(['say "hi"', "back\\slash", "a{b}", "tab\there", "naïve café", "价格", "'quoted'"], 1)
@given(names_of_attributes, st.integers(0, 10**6))
def test_a_taught_answer_is_read_as_it_was_meant(names: list[str], seed: int):
    weights = [(seed * (i + 3) * 7919) % 201 - 100 for i in range(len(names))]
    answer = report_answer(context_with(names), weights)
    parsed = parse_report(answer, names)
    assert parsed.values == tuple(weights)
    assert parsed.reason is None
    assert not parsed.outside


json_like = st.text(alphabet='{}[]":,\\0123456789eE+-._ \n`priceomsNaItyuflr', max_size=60)
nested = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(PRICE_SIZE), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=400)
@given(st.one_of(st.text(), json_like, nested.map(json.dumps), json_like.map('{{"price": 3, "room size": {}'.format)))
def test_any_text_gives_values_or_a_reason(reply: str):
    parsed = parse_report(reply, PRICE_SIZE)
    assert (parsed.values is None) != (parsed.reason is None)
    if parsed.values is None:
        assert parsed.reason in get_args(Reason)
    else:
        assert len(parsed.values) == 2
        assert all(isinstance(value, float) and math.isfinite(value) for value in parsed.values)


numbers = st.integers(-(10**8), 10**8) | st.floats(-1e8, 1e8) | st.integers(-999, 999).map(str)
others = st.sampled_from([None, True, False, "high", "", "1/2", "50%", "1e3", [5], {"price": 5}, math.nan, math.inf])
cells = st.tuples(numbers, st.just(True)) | st.tuples(others, st.just(False))


@settings(deadline=None)
@given(st.tuples(cells, cells), st.booleans())
def test_values_are_read_if_and_only_if_all_are_numbers(drawn: tuple[tuple[Any, bool], ...], reorder: bool):
    pairs = [(name, value) for name, (value, _) in zip(PRICE_SIZE, drawn, strict=True)]
    parsed = parse_report(json.dumps(dict(reversed(pairs) if reorder else pairs)), PRICE_SIZE)
    if all(is_number for _, is_number in drawn):
        assert parsed.values == tuple(float(value) for value, _ in drawn)
    else:
        assert parsed.reason == "not_a_number"


prose = st.text(alphabet='abc AB.,:5"[]\n`é', max_size=12)
reports = st.fixed_dictionaries({name: st.integers(-100, 100) for name in PRICE_SIZE})


@settings(deadline=None)
@given(st.lists(st.tuples(prose, reports), min_size=1, max_size=3), prose, st.integers(0, 40))
def test_drafts_beside_the_answer_are_never_read_as_it(said: list[tuple[str, dict[str, int]]], after: str, cut: int):
    reply = "".join(text + json.dumps(report) for text, report in said)
    if len(said) == 1:
        assert parse_report(reply + after, PRICE_SIZE).values == tuple(float(said[0][1][name]) for name in PRICE_SIZE)
    else:
        assert parse_report(reply + after, PRICE_SIZE).reason == "several_objects"
        last = len(json.dumps(said[-1][1]))
        assert parse_report(reply[: len(reply) - min(cut, last - 1)], PRICE_SIZE).values is None


@pytest.mark.parametrize(
    "reply",
    [
        '{"price": -40, "room size": 100}',
        '```json\n{"price": -40, "room size": 100}\n```',
        'Sure! Here you go:\n{"price": -40, "room size": 100}\nI hope that helps. {price}',
        '```\n{"price": -40, "room size": 100}\n```\n',
        '{"room size": 100, "price": -40}',
        '{"Price": -40, "ROOM_SIZE": 100}',
        '{" price ": -40, "room-size": 100}',
        '{"price": "-40", "room size": " +100 "}',
        '{"price": -40.0, "room size": 1e2}',
        '{\n  "price":-40,\n  "room size":100\n}',
        '[{"price": -40, "room size": 100}]',
        '{"price": -40, "room size": 100}, where {price} is in euros',
    ],
)
def test_wrapping_spelling_and_order_do_not_matter(reply: str):
    assert parse_report(reply, PRICE_SIZE).values == (-40.0, 100.0)


UNREADABLE: list[tuple[str, Reason]] = [
    ("", "empty"),
    (" \n\t", "empty"),
    ("A", "letter"),
    (" B.\n", "letter"),
    ('"A"', "letter"),
    ("A\n\nB\nA", "letter"),
    ("Option B", "letter"),
    ("**A**", "letter"),
    ("AABBA", "letter"),
    ("C", "no_json"),
    ("I choose A", "no_json"),
    ("A because it is cheap", "no_json"),
    ("A" * 100_000 + "!?" * 1000 + "z", "no_json"),
    ("price: 5, room size: 6", "no_json"),
    ("{price: 5, room size: 6}", "no_json"),
    ("{'price': 5, 'room size': 6}", "no_json"),
    ('{"price": 5, "room size": 6,}', "no_json"),
    ('{"price": +5, "room size": 6}', "no_json"),
    ('{"price": 2 * 3, "room size": 6}', "no_json"),
    ('{"price": 5, "room size": 6', "truncated"),
    ('{"price": 5, "room si', "truncated"),
    ('{"price": ' + '{"a":' * 100_000, "truncated"),
    ('{"price": ' + "[" * 100_000 + "}", "no_json"),
    ("[5, 6]", "not_an_object"),
    ('"five"', "not_an_object"),
    ('{"price": 5, "room size": 6} {"price": 7, "room size": 8}', "several_objects"),
    ('{"price": 5, "room size": 6}\n\n```json\n{"price": 5, "room size": 6}\n```', "several_objects"),
    ('[{"price": 5, "room size": 6}, {"price": 5}]', "several_objects"),
    ('{"price": 5} {"room size": 6}', "several_objects"),
    ('{"price": 5, "room size": 6} or {so} {}', "several_objects"),
    ('{"price": 5, "room size": 6}\nOn reflection: {"price": 7, "room si', "several_objects"),
    ('{"price": 5, "room size": 6}, "truncated": {', "several_objects"),
    ('{"price": {"draft": 5}, "room size": 6} {"price": 7}', "several_objects"),
    ('{"price": "٣", "room size": 6}', "not_a_number"),
    ('{"price": 5, "price": 6, "room size": 7}', "repeated_key"),
    ('{"price": 5, "Price": 5, "room size": 7}', "repeated_key"),
    ('{"price": 5}', "missing_key"),
    ("{}", "missing_key"),
    ('{"price": 5, "size of room": 6}', "missing_key"),
    ('{"weights": {"price": 5, "room size": 6}}', "missing_key"),
    ('{"price": 5, "room size": 6, "choice": "A"}', "extra_key"),
    ('{"price": true, "room size": 6}', "not_a_number"),
    ('{"price": null, "room size": 6}', "not_a_number"),
    ('{"price": NaN, "room size": 6}', "not_a_number"),
    ('{"price": Infinity, "room size": -Infinity}', "not_a_number"),
    ('{"price": 1e400, "room size": 6}', "not_a_number"),
    ('{"price": "1e400", "room size": 6}', "not_a_number"),
    ('{"price": "NaN", "room size": 6}', "not_a_number"),
    ('{"price": ' + "9" * 20 + ', "room size": 6}', "not_a_number"),
    ('{"price": ' + "9" * 5000 + ', "room size": 6}', "not_a_number"),  # Python refuses such an int
    ('{"price": "' + "9" * 5000 + '", "room size": 6}', "not_a_number"),
    ('{"price": [5], "room size": 6}', "not_a_number"),
    ('{"price": {"value": 5}, "room size": 6}', "not_a_number"),
    ('{"price": "", "room size": 6}', "not_a_number"),
]


@pytest.mark.parametrize(("reply", "reason"), UNREADABLE, ids=[f"{i}-{r}" for i, (_, r) in enumerate(UNREADABLE)])
def test_an_unreadable_report_has_its_reason(reply: str, reason: Reason):
    parsed = parse_report(reply, PRICE_SIZE)
    assert parsed.values is None
    assert parsed.reason == reason


def test_a_reply_that_does_not_exist_is_missing():
    assert parse_report(None, PRICE_SIZE).reason == "not_finite"


def test_every_reason_is_tested_and_explained():
    assert {reason for _, reason in UNREADABLE} | {"not_finite", "no_choice"} == {*get_args(Reason)} == {*REASONS}
    assert {*get_args(Undecided)} == {*UNDECIDED}
    assert all(text.endswith(".") and "\n" not in text for text in (*REASONS.values(), *UNDECIDED.values()))


NAN, INF = math.nan, math.inf
DECISIONS: list[tuple[float, float, bool, str | None, str | None]] = [
    (-0.1, -3.0, True, "A", None),
    (-3.0, -0.1, True, "B", None),
    (-0.7, -0.7, True, "B", None),
    (-0.8, -1.1, False, None, "no_letter"),  # P(A) + P(B) is .78, and yet another token is likelier than either
    (-2.0, -2.5, True, "A", None),  # P(A) + P(B) is .22, spread over a vocabulary without a likelier token
    (NAN, NAN, False, None, "not_finite"),
    (-0.1, NAN, True, None, "not_finite"),
    (-0.1, -INF, True, None, "not_finite"),
    (INF, -0.1, True, None, "not_finite"),
]


@pytest.mark.parametrize(("logp_a", "logp_b", "top", "letter", "reason"), DECISIONS)
def test_a_decision_is_a_letter_or_a_reason(
    logp_a: float, logp_b: float, top: bool, letter: str | None, reason: str | None
):
    decided = Decided(np.array([[logp_a, logp_b]]), np.array([top]))
    assert (decided.letters, decided.undecided) == ([letter], [reason])


def test_no_decisions_at_all():
    nothing = Decided(np.empty((0, 2)), np.empty(0, dtype=bool))
    assert nothing.letters == nothing.undecided == []


def test_every_cut_of_an_answer_is_truncated():
    answer = '{"price": -40, "room size": 100}'
    assert parse_report(answer, PRICE_SIZE).reason is None
    assert {parse_report(answer[:kept], PRICE_SIZE).reason for kept in range(1, len(answer))} == {"truncated"}


@pytest.mark.parametrize(
    ("values", "outside"), [((-100, 100), False), ((100.5, 0), True), ((0, -2388), True), ((0, 0), False)]
)
def test_reports_beyond_the_scale_are_kept_and_marked(values: tuple[float, float], outside: bool):
    parsed = parse_report(json.dumps(dict(zip(PRICE_SIZE, values, strict=True))), PRICE_SIZE)
    assert parsed.values == values
    assert parsed.outside is outside
    assert LIMIT == 100


@settings(deadline=None)
@given(st.sampled_from("AB"), st.text(" \n\t\"'(*", max_size=4), st.text(" \n\t\"').*", max_size=4))
def test_a_letter_in_quotes_brackets_or_with_a_full_stop_is_read(letter: str, before: str, after: str):
    assert parse_letter(before + letter + after) == letter


@pytest.mark.parametrize(
    "reply",
    [
        "",
        " ",
        "C",
        "a",
        "b",
        "AB",
        "A B",
        "A or B",
        "A, B",
        "Option A",
        "I choose A.",
        "A because",
        "1",
        "\N{GREEK CAPITAL LETTER BETA}",
        "Ä",
        "none",
    ],
)
def test_other_replies_are_no_letter(reply: str):
    assert parse_letter(reply) is None


@settings(deadline=None, max_examples=300)
@given(st.text() | st.text(alphabet="AB \n\"'().*ab"))
def test_a_letter_is_all_that_a_readable_reply_says(reply: str):
    letter = parse_letter(reply)
    said = re.sub(r"[\W_]", "", reply)
    if said not in ("A", "B"):
        assert letter is None
    assert letter in (None, said)


@given(names_of_attributes, st.data())
def test_numbers_are_found_where_they_stand(names: list[str], data: st.DataObject):
    order = data.draw(st.permutations(names))
    values = {name: data.draw(st.integers(-100, 100) | st.decimals(-99, 99, places=2).map(str)) for name in order}
    text = data.draw(st.sampled_from(["", "Sure! ", 'The "weights": 7 are\n```json\n']))
    reply = (
        text + json.dumps(values, ensure_ascii=data.draw(st.booleans())) + data.draw(st.sampled_from(["", ' "a": 3']))
    )
    places = number_places(reply, names)
    assert places is not None
    assert [float(reply[place.start : place.end]) for place in places] == [float(value) for value in values.values()]
    assert all(reply[place.gap - 1] == ":" and not reply[place.gap : place.start].strip(' "') for place in places)


def test_numbers_of_what_cannot_be_read_are_nowhere():
    assert number_places('{"price": 3}', PRICE_SIZE) is None
    assert number_places("A", PRICE_SIZE) is None
