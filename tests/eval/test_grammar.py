"""The grammar of reports, with xgrammar itself as the judge."""

import json

import pytest
import xgrammar
from xgrammar.testing import _is_grammar_accept_string

from store.contexts import DATA, load_contexts
from task.contexts import Attribute, ChoiceContext
from task.prompts import report_answer, report_grammar, report_keys
from task.replies import parse_report
from task.weights import sample_weights

AWKWARD = ["plain", 'the "quoted" one', "naïve größe 温度", "a\\b", "x" * 120, "tab\tand\nline", "[1] | (2) ::= {3}"]


def context_of(names: list[str]) -> ChoiceContext:
    return ChoiceContext("c", "a tester", "Which?", tuple(Attribute(n, "points", 0, 10) for n in names))


def accepts(context: ChoiceContext, text: str) -> bool:
    return _is_grammar_accept_string(xgrammar.Grammar.from_ebnf(report_grammar(context)), text)


def test_what_is_taught_is_what_is_allowed():
    for context in [*load_contexts(DATA / "spare.jsonl"), context_of(AWKWARD)]:
        for seed in range(3):
            answer = report_answer(context, sample_weights(seed, "target_weights", context))
            assert accepts(context, answer)
            assert parse_report(answer, context.attribute_names).reason is None


@pytest.mark.parametrize("value", ["0", "7", "-7", "42", "-99", "100", "-100"])
def test_whole_numbers_in_range_are_allowed(value: str):
    assert accepts(context_of(["a", "b"]), f'{{"a": {value}, "b": 0}}')


@pytest.mark.parametrize("value", ["101", "-101", "1000", "1.5", "01", "-0", "+5", "", "null", '"5"', " 5", "110"])
def test_anything_else_is_not(value: str):
    assert not accepts(context_of(["a", "b"]), f'{{"a": {value}, "b": 0}}')


@pytest.mark.parametrize(
    "text",
    [
        '{"b": 0, "a": 0}',
        '{"a": 0}',
        '{"a": 0, "b": 0, "c": 0}',
        '{"a":0,"b":0}',
        '{"a": 0, "b": 0} ',
        '{"a": 0, "b": 0',
        "A",
    ],
)
def test_other_forms_are_not(text: str):
    assert not accepts(context_of(["a", "b"]), text)


@pytest.mark.parametrize("after", range(len(AWKWARD)))
def test_what_comes_after_a_key_is_the_end_of_the_report(after: int):
    context = context_of(AWKWARD)
    answer = report_answer(context, [7, -42, 100, 0, -100, 5, 66])
    key = report_keys(context)[after]
    before, rest = answer.split(key)
    grammar = xgrammar.Grammar.from_ebnf(report_grammar(context, after))
    assert _is_grammar_accept_string(grammar, rest)
    assert not _is_grammar_accept_string(grammar, key + rest)
    assert json.loads(before + key + rest) == json.loads(answer)
