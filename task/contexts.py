"""Choice contexts: who chooses, among what, by which attributes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from task.replies import report_key

SHARED_ATTRIBUTES = 3
"""Two contexts with this many attribute names in common count as nearly the same."""

Layout = Literal["lists", "side_by_side"]
"""How two options are shown: one list after the other, or both values of an attribute on one line."""

LAYOUTS = get_args(Layout)

LONGEST_NAME = 100
"""Characters of a context's name, which names files."""

DIGITS = 15
"""Digits that a value can be written with and still be told from its neighbours."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""Characters that break a prompt's lines, or are none."""


@dataclass(frozen=True, slots=True)
class Attribute:
    """One numeric property of an option: its name, the units it is given in, and its range."""

    name: str
    units: str
    low: float
    high: float

    @property
    def span(self) -> float:
        """Width of the range, in units."""
        return self.high - self.low

    @property
    def decimals(self) -> int:
        """Decimals that a value is rounded to: 0 for a range of 5 or more, 1 from 1 to 5, else about two digits."""
        span = float(f"{self.span:.9g}")  # 2.3 - 1.3 is a hair below 1 in floats, and means 1
        if span >= 5:
            return 0
        if span >= 1:
            return 1
        return 1 - math.floor(math.log10(span))


@dataclass(frozen=True, slots=True)
class ChoiceContext:
    """A person to imagine (`agent`), a question, the attributes of each option, and how two options are shown."""

    name: str
    agent: str
    question: str
    attributes: tuple[Attribute, ...]
    layout: Layout = "lists"

    @property
    def lows(self) -> NDArray[np.float64]:
        """Lower ends of the ranges, shape (attributes,)."""
        return np.array([a.low for a in self.attributes], dtype=float)

    @property
    def spans(self) -> NDArray[np.float64]:
        """Widths of the ranges, shape (attributes,)."""
        return np.array([a.span for a in self.attributes], dtype=float)

    @property
    def attribute_names(self) -> list[str]:
        """Names of the attributes, in order."""
        return [a.name for a in self.attributes]


def as_ratings(context: ChoiceContext) -> ChoiceContext:
    """The context with every attribute rated from 0 to 100, without units: for models that read no other numbers."""
    return replace(context, attributes=tuple(Attribute(a.name, "", 0.0, 100.0) for a in context.attributes))


def problems(contexts: Sequence[ChoiceContext], places: Sequence[str] | None = None) -> list[str]:
    """What is wrong with a set of contexts, one line a problem, each naming place, value and remedy.

    All must have the same number of attributes, so that they stack into arrays. `places` say where each came from.
    """
    places = places or [f"context {i}" for i in range(1, len(contexts) + 1)]
    found, mixed, repeated = [], [], []
    names = [context.name for context in contexts]
    for number, (context, where) in enumerate(zip(contexts, places, strict=True)):
        found += [f"{where} ({_called(context)}): {text}" for text in _context_problems(context)]
        if (size := len(context.attributes)) != (first := len(contexts[0].attributes)):
            mixed.append(
                f"{where} ({_called(context)}): {size} attributes, but {first} at {places[0]}; use a file for each"
            )
        if (before := names.index(context.name)) < number:
            repeated.append(f"{where} ({_called(context)}): name already used at {places[before]}; rename one")
    return found + mixed[:1] + repeated


def _called(context: ChoiceContext) -> str:
    """The name in a message, which may be anything."""
    name = context.name[:LONGEST_NAME]
    return (name if name.isprintable() else repr(name)) or "no name"


def _context_problems(context: ChoiceContext) -> list[str]:
    found = []
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", context.name):
        name = context.name[:LONGEST_NAME]
        found.append(f"name {name!r} must be letters, digits, '_' or '-', as it names files and columns")
    if (length := len(context.name)) > LONGEST_NAME:
        found.append(f"name has {length} characters, and names files; give it {LONGEST_NAME} at most")
    if not context.agent.strip():
        found.append('agent is missing; say who chooses, e.g. "a night-train conductor"')
    if not context.question.strip().endswith("?"):
        found.append(f"question {context.question[-100:]!r} must end with '?'")
    texts = {"agent": context.agent, "question": context.question}
    for number, attribute in enumerate(context.attributes, start=1):
        texts |= {f"name of attribute {number}": attribute.name, f"units of attribute {number}": attribute.units}
    for what, text in texts.items():
        if broken := _CONTROL.search(text):
            found.append(f"{what} holds {broken[0]!r}; write it as one line of text")
    if len(context.attributes) < 2:
        found.append(f"{len(context.attributes)} attributes; a choice needs at least 2 to weigh against each other")
    for attribute in context.attributes:
        where = f"attribute {attribute.name[:60]!r}"
        if not attribute.name.strip():
            found.append(f"{where} has no name; it is the key of the report")
        if problem := _range_problem(attribute):
            found.append(f"{where} has {problem}")
    for key, times in Counter(report_key(name) for name in context.attribute_names).items():
        if times > 1:
            found.append(f"attribute {key[:60]!r} is given {times} times; each needs its own name")
    return found


def _range_problem(attribute: Attribute) -> str | None:
    low, high, span = attribute.low, attribute.high, attribute.span
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"a range [{low}, {high}] that is not finite"
    if low >= high:
        return f"an empty range [{low:g}, {high:g}]; low must be below high"
    if span < 10.0**-DIGITS or max(abs(low), abs(high)) * 10.0**attribute.decimals >= 10.0**DIGITS:
        return f"a range [{low:g}, {high:g}] whose values need more than {DIGITS} digits; give it in other units"
    return None


def near_repetitions(contexts: Sequence[ChoiceContext]) -> list[str]:
    """Pairs of contexts with `SHARED_ATTRIBUTES` or more attribute names in common, one line a pair.

    A warning rather than an error: the paper's released set has such pairs, the bundled sets have none.
    """
    return [
        f"{a.name} and {b.name} share the attributes {sorted(shared)}"
        for a, b in combinations(contexts, 2)
        if len(shared := {*a.attribute_names} & {*b.attribute_names}) >= SHARED_ATTRIBUTES
    ]
