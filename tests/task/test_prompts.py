"""Prompts: every number a model is shown, and the form of the answers it is taught."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from typing import Any, get_args

import pytest

from store.contexts import DATA, load_contexts
from task.contexts import Attribute, ChoiceContext, as_ratings
from task.prompts import (
    DEFAULT,
    PROMPTS,
    SYSTEM,
    WORDINGS,
    Framing,
    Measure,
    Variant,
    Wording,
    decision_answer,
    frame,
    messages,
    report_answer,
)
from task.replies import parse_letter
from task.trials import sample_trials
from task.weights import sample_weights

MEASURES: tuple[Measure, ...] = get_args(Measure)
EVERYTHING = [c for name in ("instilled", "native", "spare") for c in load_contexts(DATA / f"{name}.jsonl")]


VARIANTS = [(measure, variant) for measure in MEASURES for variant in PROMPTS[measure]]


def framed(measure: Measure, variant: Variant, context: ChoiceContext, chose: Any = "B") -> Framing:
    return frame(measure, context, variant, told=sample_weights(1, "told_weights", context), chose=chose)


def test_every_wording_is_found_by_its_measure_and_name():
    assert {*PROMPTS} == {*MEASURES} == {*DEFAULT}
    assert len(VARIANTS) == len(WORDINGS), "no two have the same name"
    assert all(PROMPTS[wording.measure][wording.name] is wording for wording in WORDINGS)
    assert all(DEFAULT[measure] in PROMPTS[measure] for measure in MEASURES)


def test_a_wording_is_a_plain_record():
    for wording in WORDINGS:
        assert Wording(**json.loads(json.dumps(dataclasses.asdict(wording)))) == wording


HASHES = {
    "decisions/plain": "49edc3ce310259ec",
    "decisions/in_context": "da447346739e0d05",
    "decisions/cued": "7006aad92e4c6310",
    "reports/trial": "309128fe5727a38b",
    "reports/explained": "6da35096e1d16183",
    "reports/no_trial": "101cdeb471af2292",
    "reports/after_choice": "80050f2680031fbc",
    "reports/third_person": "695d0c29f1a9e8c7",
    "reports/in_context": "4c0179e511eaa206",
    "reports/cued": "b679c5fee91fea5d",
}


def test_prompts_are_those_that_results_were_measured_with():
    found = {}
    for measure, variant in VARIANTS:
        asked = []
        for context in EVERYTHING:
            trials = sample_trials(0, "decisions", context, 2)
            asked += [
                framed(measure, variant, laid_out, letter).messages(trials.first[i], trials.second[i])
                for laid_out in (context, dataclasses.replace(as_ratings(context), layout="side_by_side"))
                for i, letter in enumerate("AB")
            ]
        found[f"{measure}/{variant}"] = hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]
    assert found == HASHES


@pytest.mark.parametrize("measure", MEASURES)
def test_each_value_is_shown_once_for_each_option(measure: Measure):
    for context in EVERYTHING:
        trials = sample_trials(1, "decisions", context, 2)
        for first, second in zip(trials.first, trials.second, strict=True):
            system, user = messages(measure, context, first, second)
            assert system == {"role": "system", "content": SYSTEM}
            assert user["role"] == "user"
            head, option_a, option_b = re.split(r"\n\nOption [AB]\n", user["content"])
            instruction = PROMPTS[measure][DEFAULT[measure]].instruction
            assert head == f"{instruction}\n\nImagine you are {context.agent}. {context.question}"
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
        "Decide which of the two options below is the better one for this person. "
        "Reply with one letter and nothing else: A or B.\n"
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


@pytest.mark.parametrize(("measure", "variant"), VARIANTS)
def test_prompts_of_a_variant_share_all_that_a_trial_does_not_change(measure: Measure, variant: Variant):
    for context in EVERYTHING[:20]:
        trials = sample_trials(1, "decisions", context, 8)
        pairs = zip(trials.first, trials.second, "ABBABBAA", strict=True)
        users = [framed(measure, variant, context, letter).messages(a, b)[1:] for a, b, letter in pairs]
        texts = [prompt[0]["content"] for prompt in users]
        if not PROMPTS[measure][variant].options:
            assert len({*texts}) == 1, "without options a context has one prompt"
            continue
        # The long parts come first: nothing but the values, the choice and the short question after it follows.
        beginning = texts[0][: texts[0].index("Option A")] + f"Option A\n- {context.attributes[0].name}: "
        assert all(text.startswith(beginning) for text in texts) and len({*texts}) == len(texts)
        assert sum(len(m["content"]) for m in users[0][1:]) < 120


def test_the_default_variant_is_the_prompt_of_a_plain_context():
    context = EVERYTHING[0]
    for measure in MEASURES:
        plain = messages(measure, context, [1] * 5, [2] * 5)
        assert frame(measure, context, DEFAULT[measure]).messages([1] * 5, [2] * 5) == plain


def test_without_a_trial_no_value_is_shown_and_every_attribute_is():
    context = EVERYTHING[0]
    _, user = frame("reports", context, "no_trial").messages([1] * 5, [2] * 5)
    listed = user["content"].partition("\n\nAttributes\n")[2].split("\n")
    assert listed == [f"- {a.name} ({a.units})" for a in context.attributes]
    assert "Option" not in user["content"] and "shown" not in user["content"]


def test_the_own_choice_stands_as_the_models_reply_to_the_same_trial():
    context = EVERYTHING[0]
    trial = messages("reports", context, [1] * 5, [2] * 5)[1]["content"]
    for letter in ("A", "B"):
        framing = frame("reports", context, "after_choice", chose=letter)
        system, shown, choice, question = framing.messages([1] * 5, [2] * 5)
        assert system["content"] == SYSTEM and choice == {"role": "assistant", "content": letter}
        assert shown["content"].partition("\n\n")[2] == trial.partition("\n\n")[2], "scene and options as in a trial"
        assert question["role"] == "user" and "A or B" in shown["content"]


def test_the_third_person_is_asked_of_the_same_scene_and_trial():
    context = EVERYTHING[0]
    trial = messages("reports", context, [1] * 5, [2] * 5)[1]["content"]
    system, user = frame("reports", context, "third_person").messages([1] * 5, [2] * 5)
    scene, _, options = trial.partition("\n\n")[2].partition("\n\n")
    assert user["content"].endswith(f'It was told: "{scene}"\n\n{options}')
    asked = user["content"].partition("\n\n")[0]
    assert "another language model" in asked and " your " not in asked and " your " in trial.partition("\n\n")[0]
    assert "imagine" not in system["content"]


@pytest.mark.parametrize("measure", MEASURES)
def test_told_weights_are_those_given_with_the_range_that_they_are_of(measure: Measure):
    attributes = (Attribute("price", "euros", 40, 300), Attribute("stars", "", 1, 7))
    context = ChoiceContext("hotel", "a traveller", "Which hotel would you book?", attributes)
    _, user = frame(measure, context, "in_context", told=[-100, 41.6]).messages([80, 3], [120, 7])
    plain = messages(measure, context, [80, 3], [120, 7])[1]["content"]
    told = [line for line in user["content"].split("\n") if line not in plain.split("\n")]
    assert told[1:] == ["- price (40 to 300 euros): -100", "- stars (1 to 7): 42"] and told[0].endswith(
        "for an option):"
    )


def test_a_wording_that_lacks_its_weights_or_its_choice_is_refused():
    for variant, says in (("in_context", "tells weights"), ("after_choice", "follows a choice")):
        with pytest.raises(ValueError, match=says):
            frame("reports", EVERYTHING[0], variant).messages([1] * 5, [2] * 5)


def test_options_side_by_side():
    context = dataclasses.replace(as_ratings(EVERYTHING[0]), layout="side_by_side")
    [_, user] = messages("decisions", context, [3, 100, 0, 7, 8], [50, 0, 1, 2, 3])
    lines = [
        f"- {n}: A {a}, B {b}"
        for n, a, b in zip(context.attribute_names, [3, 100, 0, 7, 8], [50, 0, 1, 2, 3], strict=True)
    ]
    assert user["content"].endswith("?\n\n" + "\n".join(lines))
