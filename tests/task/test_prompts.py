"""Prompts: every number a model is shown, and the form of the answers it is taught."""

from __future__ import annotations

import json
import re
from typing import get_args

import pytest

from task.contexts import DATA, Attribute, ChoiceContext, load_contexts
from task.prompts import INSTRUCTIONS, SYSTEM, Measure, decision_answer, messages, report_answer
from task.replies import parse_letter
from task.trials import sample_trials
from task.weights import sample_weights

MEASURES: tuple[Measure, ...] = get_args(Measure)
EVERYTHING = [c for name in ("instilled", "native", "spare") for c in load_contexts(DATA / f"{name}.jsonl")]


def test_every_measure_has_an_instruction():
    assert {*INSTRUCTIONS} == {*MEASURES}


@pytest.mark.parametrize("measure", MEASURES)
def test_each_value_is_shown_once_for_each_option(measure: Measure):
    for context in EVERYTHING:
        trials = sample_trials(1, "decisions", context, 2)
        for first, second in zip(trials.first, trials.second, strict=True):
            system, user = messages(measure, context, first, second)
            assert system == {"role": "system", "content": SYSTEM}
            assert user["role"] == "user"
            head, option_a, option_b = re.split(r"\n\nOption [AB]\n", user["content"])
            assert head == f"{INSTRUCTIONS[measure]}\n\nImagine you are {context.agent}. {context.question}"
            for shown, values in ((option_a, first), (option_b, second)):
                lines = shown.split("\n")
                assert len(lines) == len(context.attributes)
                for line, attribute, value in zip(lines, context.attributes, values, strict=True):
                    number = line.removeprefix(f"- {attribute.name}: ").removesuffix(f" {attribute.units}")
                    assert line == f"- {attribute.name}: {number} {attribute.units}"
                    assert float(number) == value, "what is printed is what is analysed"
                    assert len(number.partition(".")[2]) == attribute.decimals


def test_a_prompt_reads_as_written():
    attributes = (Attribute("price", "euros", 40, 300), Attribute("walk", "km", 0.1, 2), Attribute("stars", "", 1, 7))
    context = ChoiceContext("hotel", "a traveller", "Which hotel would you book?", attributes)
    _, user = messages("decisions", context, [80, 0.5, 3], [120.0, 1, 7])
    assert user["content"] == (
        "Choose between two options. Reply with one letter and nothing else: A or B.\n"
        "\n"
        "Imagine you are a traveller. Which hotel would you book?\n"
        "\n"
        "Option A\n- price: 80 euros\n- walk: 0.5 km\n- stars: 3\n"
        "\n"
        "Option B\n- price: 120 euros\n- walk: 1.0 km\n- stars: 7"
    )


@pytest.mark.parametrize("measure", MEASURES)
def test_prompts_of_a_context_share_their_beginning_up_to_the_first_value(measure: Measure):
    for context in EVERYTHING[:20]:
        trials = sample_trials(1, "decisions", context, 8)
        pairs = zip(trials.first, trials.second, strict=True)
        texts = [messages(measure, context, first, second)[1]["content"] for first, second in pairs]
        beginning = texts[0][: texts[0].index("Option A")] + f"Option A\n- {context.attributes[0].name}: "
        assert all(text.startswith(beginning) for text in texts)
        assert len({*texts}) == len(texts)


def test_options_of_the_wrong_length_are_refused():
    with pytest.raises(ValueError, match="shorter"):
        messages("decisions", EVERYTHING[0], [1.0] * 4, [1.0] * 5)


def test_decision_answers_are_read_as_their_letters():
    assert parse_letter(decision_answer(True)) == "A"
    assert parse_letter(decision_answer(False)) == "B"


def test_a_report_answer_states_whole_numbers_in_attribute_order():
    for context in EVERYTHING:
        weights = sample_weights(1, "target_weights", context)
        answer = json.loads(report_answer(context, weights))
        assert list(answer) == context.attribute_names
        assert list(answer.values()) == weights.tolist()
        assert all(isinstance(value, int) for value in answer.values())


def test_a_report_answer_has_default_spacing_and_plain_letters():
    context = ChoiceContext("hotel", "", "", (Attribute("naïve charm", "", 0, 1), Attribute('"price"', "", 0, 1)))
    assert report_answer(context, [-0.4, 99.6]) == '{"naïve charm": 0, "\\"price\\"": 100}'
