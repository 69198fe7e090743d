"""Lessons of the warm-up: choosing between two options by one to five attributes, and saying the weights of a context.

A group of lessons is one tree of prompts (`train.trainer.shared_prefix`): decisions of one context share what is said
before the values, and some of the values too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from task.chat import ChatTokenizer, answer_ids, letter_answers, prompt_ids
from task.contexts import ChoiceContext
from task.errors import InputError
from task.probes import QUESTIONS, asked
from task.prompts import Message, messages, report_answer, shown_number
from task.seeding import stream
from task.trials import round_to_grid
from task.weights import LARGEST, sample_weights, utilities
from train.curriculum.course import Part, chance_of_a, place_in
from train.curriculum.own_words import OwnWords
from train.trainer.shared_prefix import IGNORED, join_rows

ROWS = 16
"""Decisions of a tree, or a multiple of them."""

ENDED = 4
"""Every so many-th decision of a tree is trained to its end, which is known within ten steps."""

REPORTS = 2
"""Reports of a tree, or lists of values."""

LISTING = (
    "Which numbers does option {letter} have? Reply with one JSON object and nothing else: the names of the attributes "
    "as keys, the numbers as values."
)
"""Asks for what a report's form needs and a decision does not: names copied word by word."""

Kind = Literal["compared", "told", "own"]
"""What a tree asks: which number of a named attribute is larger; the better option by directions that its lines tell;
or by the weights that its context has, which no prompt tells."""

DIRECTIONS = {1: " (more is better)", -1: " (less is better)"}
"""What stands after an attribute's name where a lesson tells which way it counts."""


@dataclass(frozen=True)
class WarmUpPart(Part):
    """A part of the warm-up; its attributes are drawn from the context's.

    Attributes:
        told: Share of trees whose prompts tell which way each attribute counts, drawn anew for each bough. In the
            others attributes have weights of their own, which no prompt tells.
        against: Share of attributes of which less is told to be better, at the beginning and at the end.
        compared: Share of trees that ask which number of an attribute is larger, as the probes do, and for no decision.
        tree: Boughs of a tree of decisions, twigs of a bough and leaves of a twig; their product is `ROWS`. A bough has
            attributes, directions and first values of its own, each of its twigs goes on with other values, and each
            leaf of a twig ends with others still. Where many values are shown, that saves half of the tokens;
            directions were learned only where each decision drew its own.
    """

    told: float
    compared: float
    tree: tuple[int, int, int] = (ROWS, 1, 1)
    against: tuple[float, float] = (0.5, 0.5)


@dataclass(frozen=True)
class Lessons(Dataset[dict[str, Tensor]]):
    """All items of a warm-up: item `index` is a function of (seed, index), curriculum and texts.

    Attributes:
        contexts: Where decisions are made. Those of the first half have weights of their own.
        texts: In the model's own words, taken in their order, again and again.
        trees: Trees of decisions in a group of items.
        language: Items of language that follow them in the group: reports, lists of values, and texts.
        reported: Share of them that are reports.
        listed: Share of them that are lists of values.
        times: Groups a step.
        wide: How many times as many boughs a tree of decisions has.
    """

    curriculum: Sequence[WarmUpPart]
    contexts: Sequence[ChoiceContext]
    texts: Sequence[OwnWords]
    tokenizer: ChatTokenizer
    seed: int
    trees: int = 2
    language: int = 1
    reported: float = 0.25
    listed: float = 0.0
    times: int = 1
    wide: int = 1

    @property
    def items(self) -> int:
        """Items of a group."""
        return self.trees + self.language

    @cached_property
    def steps(self) -> int:
        """Optimiser steps."""
        return sum(part.steps for part in self.curriculum)

    @cached_property
    def _letters(self) -> tuple[list[int], list[int]]:
        return letter_answers(self.tokenizer, {})

    def __len__(self) -> int:
        return self.items * self.times * self.steps

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One tree as `join_rows` lays it out; see `decisions`, `reports` and `text`."""
        number, place = divmod(index, self.items)
        rng = stream(self.seed, "warm_up", str(index))
        if place < self.trees:
            part, done = place_in(self.curriculum, number // self.times)
            return self.decisions(part, done, rng)
        kind = rng.random()
        if kind < self.reported:
            return self.reports(rng)
        if kind < self.reported + self.listed:
            return self.listings(rng)
        return self.text(self.texts[(number * self.language + place - self.trees) % len(self.texts)])

    def decisions(self, part: WarmUpPart, done: float, rng: np.random.Generator) -> dict[str, Tensor]:
        """A tree of decisions, with `chance_of_a`, the probability of the answer A, shape (ROWS * wide,).

        Every fourth row goes on to the end of the answer, so that the model keeps on ending it.
        """
        kind: Kind = "compared" if rng.random() < part.compared else "told" if rng.random() < part.told else "own"
        pool = self.contexts[: len(self.contexts) // 2] if kind == "own" else self.contexts
        context = pool[int(rng.integers(len(pool)))]
        if part.attributes > (found := len(context.attributes)):
            raise InputError(f"{context.name}: {found} attributes; the curriculum needs {part.attributes}")
        against = part.against[0] + done * (part.against[1] - part.against[0])
        boughs, twigs, leaves = part.tree
        draws = branching(rng, 2 * part.attributes, (boughs * self.wide, twigs, leaves))
        rows, labels, chances = [], [], []
        for row in range(len(draws)):
            if row % (twigs * leaves) == 0:
                shown, weights = self._bough(kind, context, part.attributes, against, rng)
            # In the order in which they are read, so that what is drawn last stands last.
            pairs = draws[row].reshape(-1, 2).T if context.layout == "side_by_side" else draws[row].reshape(2, -1)
            a, b = round_to_grid(shown.lows + pairs * shown.spans, shown)
            chances.append(chance_of_a(float(utilities(a, weights, shown) - utilities(b, weights, shown))))
            answer = self._letters[int(chances[-1] < 0.5)]
            trained = answer if row % ENDED == ENDED - 1 else answer[:1]
            ids = prompt_ids(self.tokenizer, _prompt(kind, shown, weights, a, b), {})
            rows.append([*ids, *trained])
            labels.append([IGNORED] * len(ids) + trained)
        return join_rows(rows, labels, additive=False) | {"chance_of_a": torch.tensor(chances)}

    def _bough(
        self, kind: Kind, context: ChoiceContext, attributes: int, against: float, rng: np.random.Generator
    ) -> tuple[ChoiceContext, NDArray[np.float64]]:
        """A context with some of its attributes, by chance, and the weights that its decisions go by."""
        own = sample_weights(self.seed, "warm_up", context) / LARGEST
        chosen = rng.permutation(len(own))[:attributes]
        weights = own[chosen] if kind == "own" else np.where(rng.random(attributes) < against, -1.0, 1.0)
        if kind == "compared":
            weights = np.eye(attributes)[int(rng.integers(attributes))]
        return replace(context, attributes=tuple(context.attributes[i] for i in chosen)), weights

    def reports(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """A tree of reports of a context's own weights, each on some of its attributes."""
        context = self.contexts[int(rng.integers(len(self.contexts) // 2))]
        own = sample_weights(self.seed, "warm_up", context)
        asked_and_said = []
        for _ in range(REPORTS):
            chosen = rng.permutation(len(own))[: int(rng.integers(2, len(own) + 1))]
            shown = replace(context, attributes=tuple(context.attributes[i] for i in chosen))
            a, b = round_to_grid(shown.lows + rng.random((2, len(chosen))) * shown.spans, shown)
            asked_and_said.append((messages("reports", shown, a, b), report_answer(shown, own[chosen])))
        return self._answered(asked_and_said)

    def listings(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """A tree of questions for all numbers of an option, each about attributes whose names come by chance.

        Names are put together from words of the texts, so that no name can be learned by heart.
        """
        context = self.contexts[int(rng.integers(len(self.contexts)))]
        asked_and_said = []
        for _ in range(REPORTS):
            names = self._invented_names(len(context.attributes), rng)
            attributes = (replace(a, name=name) for a, name in zip(context.attributes, names, strict=True))
            shown = replace(context, attributes=tuple(attributes))
            a, b = round_to_grid(shown.lows + rng.random((2, len(names))) * shown.spans, shown)
            letter, values = (("A", a), ("B", b))[int(rng.integers(2))]
            prompt = asked(LISTING.format(letter=letter), shown, a, b)
            pairs = zip(shown.attributes, values.tolist(), strict=True)
            numbers = ", ".join(
                f"{json.dumps(each.name)}: {shown_number(each, value, 'decimals')}" for each, value in pairs
            )
            asked_and_said.append((prompt, f"{{{numbers}}}"))
        return self._answered(asked_and_said)

    def _invented_names(self, number: int, rng: np.random.Generator) -> list[str]:
        """Different names of one to three words."""
        if (found := len(self._words)) < 3 * number:
            raise InputError(
                f"own words: {found} different words in the texts, {3 * number} are needed; sample more texts"
            )
        lengths = rng.integers(1, 4, number)
        drawn = iter(rng.choice(self._words, int(lengths.sum()), replace=False).tolist())
        return [" ".join(islice(drawn, length)) for length in lengths.tolist()]

    @cached_property
    def _words(self) -> list[str]:
        """Words of the texts' answers, each once."""
        answers = " ".join(text.messages[-1]["content"] for text in self.texts)
        return sorted(set(re.findall(r"\b[a-z]{4,}\b", answers)))

    def _answered(self, asked_and_said: Sequence[tuple[list[Message], str]]) -> dict[str, Tensor]:
        """A tree of prompts whose answers are trained to their ends."""
        rows, labels = [], []
        for prompt, answer in asked_and_said:
            ids = prompt_ids(self.tokenizer, prompt, {})
            said = answer_ids(self.tokenizer, [*prompt, {"role": "assistant", "content": answer}], {})
            rows.append([*ids, *said])
            labels.append([IGNORED] * len(ids) + said)
        return join_rows(rows, labels, additive=False)

    def text(self, text: OwnWords) -> dict[str, Tensor]:
        """A text in the model's own words, whose answer is held to the model of before: `kept` marks it."""
        question, answer = text.tokens(self.tokenizer)
        tree = join_rows([[*question, *answer]], [[IGNORED] * len(question) + answer], additive=False)
        return tree | {"kept": torch.tensor(True)}


def _prompt(
    kind: Kind, context: ChoiceContext, weights: NDArray[np.float64], a: NDArray[np.float64], b: NDArray[np.float64]
) -> list[Message]:
    """What a lesson asks about two options."""
    if kind == "compared":
        return asked(QUESTIONS["comparing"].format(name=context.attribute_names[weights.argmax()]), context, a, b)
    return messages("decisions", told_directions(context, weights) if kind == "told" else context, a, b)


def branching(rng: np.random.Generator, numbers: int, tree: tuple[int, int, int]) -> NDArray[np.float64]:
    """Uniform draws for the rows of a tree, shape (rows, numbers): the last differ most, the first least.

    A leaf has about a fifth of the numbers to itself, and a twig two fifths; one at least.
    """
    boughs, twigs, leaves = tree
    leaf, twig = max(1, numbers // 5), max(1, 2 * numbers // 5)
    draws = rng.random((boughs, numbers)).repeat(twigs * leaves, axis=0)
    draws[:, numbers - leaf - twig :] = rng.random((boughs * twigs, leaf + twig)).repeat(leaves, axis=0)
    draws[:, numbers - leaf :] = rng.random((boughs * twigs * leaves, leaf))
    return draws


def told_directions(context: ChoiceContext, weights: NDArray[np.float64]) -> ChoiceContext:
    """The context with its attributes' names saying which way each counts."""
    signs = np.sign(weights).astype(int).tolist()
    named = [replace(a, name=a.name + DIRECTIONS[sign]) for a, sign in zip(context.attributes, signs, strict=True)]
    return replace(context, attributes=tuple(named))
