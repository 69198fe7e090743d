"""Probes: does a model have the skills that choosing by weights is made of, or where does it fail?

Reading, comparing and weighing are asked apart, about the options of ordinary trials, each with a letter as answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Literal, get_args

from numpy.typing import NDArray

from task.contexts import ChoiceContext
from task.prompts import SYSTEM, Message, frame, option_lines, shown_values
from task.trials import prefers_first, sample_trials
from task.weights import sample_weights

Skill = Literal["reading", "comparing", "weighing"]
"""Reading: find which option has a given value. Comparing: which of two values is larger. Weighing: which option is
better by weights that the prompt tells (the decision prompt `in_context`)."""

SKILLS: tuple[Skill, ...] = get_args(Skill)

QUESTIONS: dict[Skill, str] = {
    "reading": "Which option has {name}: {value}? Reply with one letter and nothing else: A or B.",
    "comparing": "Which option has the larger number for {name}? Reply with one letter and nothing else: A or B.",
}


@dataclass(frozen=True)
class Probe:
    """A question about a pair of options: its prompt with `first` shown as option A, and with it shown as option B."""

    skill: Skill
    prompts: tuple[list[Message], list[Message]]
    first_is_right: bool


def make_probes(contexts: Sequence[ChoiceContext], skill: Skill, number: int, seed: int) -> list[Probe]:
    """Probes of one skill, `number` of them, going round the contexts and their attributes."""
    return list(islice((p for i in count() if (p := _probe(contexts, skill, i, seed)) is not None), number))


def _probe(contexts: Sequence[ChoiceContext], skill: Skill, index: int, seed: int) -> Probe | None:
    """Probe `index` of a skill; None where the options have the same value of the attribute asked about."""
    round_, place = divmod(index, len(contexts))
    context = contexts[place]
    trial = sample_trials(seed, "probes", context, 1, start=round_)
    first, second = trial.first[0], trial.second[0]
    if skill == "weighing":
        weights = sample_weights(seed, "told_weights", context)
        told = frame("decisions", context, "in_context", told=weights)
        both = told.messages(first, second), told.messages(second, first)
        return Probe(skill, both, bool(prefers_first(trial, weights)[0]))
    about = (round_ + place) % len(context.attributes)
    if first[about] == second[about]:
        return None
    # Which option the value is taken from goes by the index, so that the right answer is not always the same one.
    right = index % 2 == 0 if skill == "reading" else bool(first[about] > second[about])
    value = shown_values(context, first if right else second)[about]
    question = QUESTIONS[skill].format(name=context.attribute_names[about], value=value)
    prompts = asked(question, context, first, second), asked(question, context, second, first)
    return Probe(skill, prompts, right)


def asked(question: str, context: ChoiceContext, a: NDArray, b: NDArray) -> list[Message]:
    """The prompt that asks a question about two options, with values of shape (attributes,)."""
    return [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": "\n".join([question, "", *option_lines(context, a, b)])},
    ]


def missing_skill(shares: dict[Skill, float], needed: float) -> Skill | None:
    """The first skill that falls short, in the order in which each needs the one before; None if all are there."""
    return next((skill for skill in SKILLS if shares[skill] < needed), None)
