"""Probes: questions about two options whose right answer is known."""

import re

import numpy as np
import pytest

from store.contexts import DATA, load_contexts
from task.probes import SKILLS, Skill, make_probes, missing_skill
from task.prompts import PROMPTS
from task.weights import sample_weights

CONTEXTS = load_contexts(DATA / "spare.jsonl", 6)
NUMBER = r"(-?\d+(?:\.\d+)?)"


def shown(text: str, name: str) -> list[float]:
    """The values of an attribute of options A and B, read back from a prompt."""
    return [float(v) for v in re.findall(rf"^- {re.escape(name)}: {NUMBER}", text, re.M)]


@pytest.mark.parametrize("skill", ["reading", "comparing"])
def test_the_right_answer_is_the_one_that_the_options_show(skill: Skill):
    for probe in make_probes(CONTEXTS, skill, 60, seed=3):
        for prompt, first_is_a in zip(probe.prompts, (True, False), strict=True):
            text = prompt[-1]["content"]
            question = text.split("\n")[0]
            [name] = [
                n for c in CONTEXTS for n in c.attribute_names if f" {n}: " in question or f"for {n}?" in question
            ]
            a, b = shown(text, name)
            if skill == "reading":
                value = float(re.findall(NUMBER, question.split(f"{name}: ")[1])[0])
                a_is_right, b_is_right = a == value, b == value
            else:
                a_is_right, b_is_right = a > b, b > a
            assert a_is_right != b_is_right
            assert a_is_right == (probe.first_is_right == first_is_a)


def test_weighing_tells_the_weights_that_decide():
    for probe in make_probes(CONTEXTS, "weighing", 30, seed=3):
        for prompt, first_is_a in zip(probe.prompts, (True, False), strict=True):
            text = prompt[-1]["content"]
            assert text.startswith(PROMPTS["decisions"]["in_context"].instruction)
            [context] = [c for c in CONTEXTS if c.question in text]
            told = [float(w) for w in re.findall(r"\): (-?\d+)$", text, re.M)]
            assert told == sample_weights(3, "told_weights", context).tolist()
            values = np.array([shown(text, a.name) for a in context.attributes])
            gain = np.array(told) @ ((values[:, 0] - values[:, 1]) / context.spans)
            assert (gain > 0) == (probe.first_is_right == first_is_a)


@pytest.mark.parametrize("skill", SKILLS)
def test_probes_are_as_many_as_asked_balanced_and_a_function_of_the_seed(skill: Skill):
    probes = make_probes(CONTEXTS, skill, 200, seed=0)
    assert len(probes) == 200
    assert 0.35 < np.mean([p.first_is_right for p in probes]) < 0.65
    assert probes[:20] == make_probes(CONTEXTS, skill, 20, seed=0)
    assert probes[:20] != make_probes(CONTEXTS, skill, 20, seed=1)


def test_the_missing_skill_is_the_first_that_others_rest_on():
    assert missing_skill({"reading": 0.9, "comparing": 0.5, "weighing": 0.5}, 0.8) == "comparing"
    assert missing_skill({"reading": 0.6, "comparing": 0.9, "weighing": 0.9}, 0.8) == "reading"
    assert missing_skill({"reading": 0.9, "comparing": 0.8, "weighing": 0.79}, 0.8) == "weighing"
    assert missing_skill({"reading": 0.9, "comparing": 0.8, "weighing": 0.8}, 0.8) is None
