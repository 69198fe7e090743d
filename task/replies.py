"""Answers read as a value or a named reason; what cannot be read or was not decided is missing, never a value."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

LIMIT = 100.0
"""Reports are asked for on the scale from -100 to 100."""

Undecided = Literal["no_letter", "not_finite"]
"""Why a decision was not made."""

UNDECIDED: dict[Undecided, str] = {
    "no_letter": "The likeliest next token is no letter.",
    "not_finite": "A log-probability is not a finite number.",
}
"""What each reason means, for people."""

Reason = Literal[
    "empty",
    "letter",
    "no_json",
    "truncated",
    "not_an_object",
    "several_objects",
    "repeated_key",
    "missing_key",
    "extra_key",
    "not_a_number",
    "not_finite",
    "no_choice",
]
"""Why there is no report: the rule that its reply failed."""

REASONS: dict[Reason, str] = {
    "empty": "The reply is empty.",
    "letter": "The reply is a letter, as if a decision had been asked for.",
    "no_json": "The reply holds no JSON object.",
    "truncated": "The reply ends before its JSON object does.",
    "not_an_object": "The reply is JSON, but a list or a text instead of an object.",
    "several_objects": "The reply holds a JSON object and another or part of one, so which was meant is a guess.",
    "repeated_key": "An attribute is given more than once.",
    "missing_key": "An attribute is not given.",
    "extra_key": "Something is given that is no attribute.",
    "not_a_number": "A value is no number.",
    "not_finite": "The model's scores of the next token are not finite numbers, so there is no reply.",
    "no_choice": "The report is about the model's own choice, and it made none.",
}
"""What each reason means, for people."""

_LETTERS = re.compile(r"\W*(([Oo]ption\s+)?[AB]\W*)+")
_NUMBER = re.compile(r"\s*[+-]?\d{1,9}(\.\d{1,9})?\s*", re.ASCII)
_PAIR = re.compile(r'"(?:[^"\\]|\\.)*"\s*:(?P<gap>[\s"]*)(?P<number>[-+.\deE]+)\s*"?')
_BEGUN = re.compile(r"\{\s*(\"|$)")


@dataclass(frozen=True)
class Decided:
    """Answers to decision prompts, by the next token.

    Attributes:
        logps: log P(A) and log P(B) over the whole vocabulary, shape (trials, 2).
        top_is_letter: Whether A or B is the likeliest token of all, shape (trials,); a letter as likely as another
            token counts as the likeliest.
    """

    logps: NDArray[np.float64]
    top_is_letter: NDArray[np.bool_]

    @property
    def undecided(self) -> list[Undecided | None]:
        """Why each decision was not made, None where it was."""
        finite = [bool(np.isfinite(row).all()) for row in self.logps]
        return [
            "not_finite" if not known else None if letter else "no_letter"
            for known, letter in zip(finite, self.top_is_letter, strict=True)
        ]

    @property
    def letters(self) -> list[Literal["A", "B"] | None]:
        """The likelier letter, None where no decision was made."""
        return [
            None if missing else "A" if a > b else "B"
            for (a, b), missing in zip(self.logps, self.undecided, strict=True)
        ]


@dataclass(frozen=True)
class ParsedReport:
    """A report's values in attribute order, or the reason why there are none (exactly one of the two is None)."""

    values: tuple[float, ...] | None
    reason: Reason | None

    @property
    def outside(self) -> bool:
        """Whether a value lies beyond +-100; such reports are kept as given and counted."""
        return self.values is not None and any(abs(v) > LIMIT for v in self.values)


def report_key(name: str) -> str:
    """An attribute name as it is compared with the keys of a report: without case, and `_`, `-` and spaces alike."""
    return re.sub(r"[\s_-]+", " ", name).strip().casefold()


def parse_letter(reply: str) -> Literal["A", "B"] | None:
    """The letter of a reply that is `A` or `B`, in quotes, brackets or with a full stop at most; None otherwise."""
    match = re.fullmatch(r"""[\s"'(*]*([AB])[\s"').*]*""", reply)
    return match.group(1) if match else None  # type: ignore[return-value]


def parse_report(reply: str | None, names: Sequence[str]) -> ParsedReport:
    """Read the JSON object of a reply as one number for each attribute name.

    Text and code fences around the object are passed over. Keys match without regard to case, spaces, `_` and `-`.
    Numbers in quotes count as numbers; true, null, NaN and arithmetic do not. A repeated, missing or further key makes
    the report unreadable, since which number was meant is then a guess. So does a second object, also one that was cut
    off (a draft, then the answer) or that says the same: a model that goes on past its answer has not ended it.
    `reply` is None where the model's scores were not finite.
    """
    if reply is None:
        return ParsedReport(None, "not_finite")
    if not reply.strip():
        return ParsedReport(None, "empty")
    start = reply.find("{")
    if start < 0:
        if _LETTERS.fullmatch(reply):
            return ParsedReport(None, "letter")
        return ParsedReport(None, "not_an_object" if reply.lstrip()[:1] in ("[", '"') else "no_json")
    try:
        pairs, end = _DECODER.raw_decode(reply, start)
    except (json.JSONDecodeError, RecursionError):
        return ParsedReport(None, "no_json" if "}" in reply[start:] else "truncated")
    if _holds_object(reply[end:]):
        return ParsedReport(None, "several_objects")
    return _match(pairs, names)


class NumberPlace(NamedTuple):
    """Where a number stands in a reply, by its characters.

    Attributes:
        gap: First character after the colon before it.
        start: Its first character.
        end: The first character after it.
    """

    gap: int
    start: int
    end: int


def number_places(reply: str, names: Sequence[str]) -> list[NumberPlace] | None:
    """Where the numbers of a report stand, in the order of the reply; None where `parse_report` cannot read it."""
    if parse_report(reply, names).values is None:
        return None
    # What can be read is one object without lists and objects in it, so each pair is a text, a colon and a number.
    found = _PAIR.finditer(reply, start := reply.find("{"), _DECODER.raw_decode(reply, start)[1])
    return [NumberPlace(pair.start("gap"), *pair.span("number")) for pair in found]


def _holds_object(text: str) -> bool:
    """Whether there is a JSON object in a text, whole or begun."""
    if _BEGUN.search(text):
        return True
    for found in re.finditer("{", text):
        try:
            _DECODER.raw_decode(text, found.start())
        except (json.JSONDecodeError, RecursionError):
            continue
        return True
    return False


def _match(pairs: list[tuple[str, Any]], names: Sequence[str]) -> ParsedReport:
    given = [report_key(key) for key, _ in pairs]
    wanted = [report_key(name) for name in names]
    if len(set(given)) < len(given):
        return ParsedReport(None, "repeated_key")
    if set(wanted) - set(given):
        return ParsedReport(None, "missing_key")
    if len(given) > len(wanted):
        return ParsedReport(None, "extra_key")
    by_key = {key: _number(value) for key, (_, value) in zip(given, pairs, strict=True)}
    values = [by_key[key] for key in wanted]
    if any(value is None for value in values):
        return ParsedReport(None, "not_a_number")
    return ParsedReport(tuple(value for value in values if value is not None), None)


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    return value if isinstance(value, float) and abs(value) < 1e9 else None


def _no_constant(name: str) -> None:
    """NaN and Infinity are not JSON, though Python's decoder takes them; as None they are no number."""


# Pairs instead of a dict keep repeated keys visible.
# Integers as floats: Python refuses to read an integer of more than 4300 digits, a float becomes infinite.
_DECODER = json.JSONDecoder(object_pairs_hook=lambda pairs: pairs, parse_constant=_no_constant, parse_int=float)
