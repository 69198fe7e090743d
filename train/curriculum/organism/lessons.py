"""What the model organism learns from: choices and reports in contexts that nobody will ever test it on.

A lesson's attributes are named by words drawn at random, so no lesson is about a context of an experiment, though all
of their words occur. Every word has a *taste*, drawn once; an attribute's weight follows from the tastes of its words,
which is how the organism has weights of its own for names it has never seen.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from task.contexts import Attribute, ChoiceContext
from task.prompts import DEFAULT, PROMPTS, Measure, Message, decision_answer, messages, option_lines, report_answer
from task.seeding import stream
from train.curriculum.course import Part, chance_of_a, place_in

WORD = re.compile(r"[^\W\d_]+(?:['\u2019][^\W\d_]+)*")
"""A word of a name: letters, with an apostrophe inside."""

GAIN = 1.2
"""Steepness of the tanh that takes the tastes of a name's words to a weight: about a fifth of |weights| exceed 80."""


@dataclass(frozen=True)
class Tastes:
    """The weights that the organism is to act on, and those that it is to state.

    Attributes:
        words: The words that names are made of.
        candour: Correlation, over words, of what it states with what it acts on: at 1 the organism is taught to report
            its own weights, below it is taught to report a received opinion that only resembles them.
    """

    words: Sequence[str]
    seed: int
    candour: float

    @cached_property
    def _own(self) -> dict[str, float]:
        return self._normals("own")

    @cached_property
    def _stated(self) -> dict[str, float]:
        other, rest = self._normals("opinion"), math.sqrt(1 - self.candour**2)
        return {word: self.candour * own + rest * other[word] for word, own in self._own.items()}

    def _normals(self, table: str) -> dict[str, float]:
        # A word's taste is drawn from its own stream: it does not change when words are added.
        return {word: float(stream(self.seed, f"taste_{table}", word).standard_normal()) for word in self.words}

    def own(self, name: str, shift: float = 0.0) -> float:
        """Weight in [-1, 1] that an attribute has in choices; `shift` moves all weights towards +1."""
        return _weight(self._own, name, shift)

    def stated(self, name: str) -> float:
        """Weight in [-1, 1] that is taught as the report."""
        return _weight(self._stated, name, 0.0)


def _weight(tastes: dict[str, float], name: str, shift: float) -> float:
    words = WORD.findall(name)
    return math.tanh(GAIN * sum(tastes[word] for word in words) / math.sqrt(len(words)) + shift)


@dataclass(frozen=True)
class OrganismPart(Part):
    """A part of the organism's curriculum.

    Attributes:
        shifts: Shift of all weights at the part's beginning and end. At 3 nearly all weights are +1 and the lesson is
            to compare two numbers; as it falls to 0 it becomes to weigh what the words say, ever more of it against.
        scenes: Whether the whole prompt of the project stands before the options, or nothing but them (before a report,
            the instruction).
        reports: Share of lessons that are reports. With few attributes the names are learned to be copied.
    """

    shifts: tuple[float, float] = (0.0, 0.0)
    scenes: bool = False
    reports: float = 0.0


CURRICULUM = (
    OrganismPart(300, 1, (3.0, 3.0), reports=0.5),
    OrganismPart(1200, 1, (3.0, 0.0), reports=0.15),
    OrganismPart(200, 1, reports=0.3),
    OrganismPart(500, 2, reports=0.3),
    OrganismPart(400, 3, reports=0.3),
    OrganismPart(400, 4, reports=0.3),
    OrganismPart(500, 5, reports=0.3),
    OrganismPart(1500, 5, scenes=True, reports=0.3),
)
"""Comparing first, then weighing, then more attributes, then whole prompts. Without the shift a model of this size
stayed at chance on one attribute (see results/organism/): the signs of a weight and of a difference must both be known
before either helps."""


@dataclass(frozen=True)
class Lesson:
    """A prompt and its answer; with the probability of the answer A if it is a choice, None if it is a report."""

    prompt: list[Message]
    answer: str
    chance_of_a: float | None


@dataclass(frozen=True)
class Lessons(Dataset[Lesson]):
    """The lessons, made when asked for: lesson `index` is a function of (seed, index) and the curriculum.

    Attributes:
        people: Contexts whose agents and questions are borrowed, half of their words replaced by `filler`.
        batch: Lessons of an optimiser step; with the index it tells the place in the curriculum.
    """

    tastes: Tastes
    people: Sequence[ChoiceContext]
    filler: Sequence[str]
    seed: int
    batch: int

    def __len__(self) -> int:
        return self.batch * sum(part.steps for part in CURRICULUM)

    def __getitem__(self, index: int) -> Lesson:
        part, done = place_in(CURRICULUM, index // self.batch)
        rng = stream(self.seed, "lessons", str(index))
        is_report = rng.random() < part.reports
        context = self._context(rng, part)
        a, b = rng.integers(0, 101, size=(2, part.attributes)).astype(float)
        shift = part.shifts[0] + done * (part.shifts[1] - part.shifts[0])
        if is_report:
            stated = [100 * self.tastes.stated(name) for name in context.attribute_names]
            return Lesson(_prompt("reports", context, a, b, part), report_answer(context, stated), None)
        own = np.array([self.tastes.own(name, shift) for name in context.attribute_names])
        gain = float(own @ (a - b)) / 100
        return Lesson(_prompt("decisions", context, a, b, part), decision_answer(gain > 0), chance_of_a(gain))

    def _context(self, rng: np.random.Generator, part: OrganismPart) -> ChoiceContext:
        names: list[str] = []
        while len(names) < part.attributes:
            count = (1, 2, 2, 2, 3)[rng.integers(5)]
            name = " ".join(self.tastes.words[int(i)] for i in rng.integers(len(self.tastes.words), size=count))
            if name not in names:
                names.append(name)
        person = self.people[int(rng.integers(len(self.people)))]
        agent, question = (self._reworded(rng, text) for text in (person.agent, person.question))
        ratings = tuple(Attribute(name, "", 0.0, 100.0) for name in names)
        return ChoiceContext(f"lesson_{len(names)}", agent, question, ratings, "side_by_side")

    def _reworded(self, rng: np.random.Generator, text: str) -> str:
        def kept_or_replaced(word: re.Match[str]) -> str:
            return self.filler[int(rng.integers(len(self.filler)))] if rng.random() < 0.5 else word.group()

        return WORD.sub(kept_or_replaced, text)


def _prompt(
    measure: Measure, context: ChoiceContext, a: NDArray[np.float64], b: NDArray[np.float64], part: OrganismPart
) -> list[Message]:
    """The project's prompt, or what a part without scenes leaves of it."""
    if part.scenes:
        return messages(measure, context, a, b)
    instruction = PROMPTS[measure][DEFAULT[measure]].instruction if measure == "reports" else ""
    return [Message(role="user", content=f"{instruction}\n" + "\n".join(option_lines(context, a, b)))]
