"""Replies parsed into a value or a named reason; an unreadable reply is missing, never a value."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

LIMIT = 100.0
"""Reports are asked for on the scale from -100 to 100."""

Reason = Literal[
    "empty", "no_json", "truncated", "not_an_object", "repeated_key", "missing_key", "extra_key", "not_a_number"
]
"""Why a reply could not be read."""

_NUMBER = re.compile(r"\s*[+-]?\d{1,9}(\.\d{1,9})?\s*")


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


def parse_report(reply: str, names: Sequence[str]) -> ParsedReport:
    """Read the first JSON object of a reply as one number for each attribute name.

    Text and code fences around the object are passed over. Keys match without regard to case, spaces, `_` and `-`.
    Numbers in quotes count as numbers; true, null, NaN and arithmetic do not. A repeated, missing or further key makes
    the report unreadable, since which number was meant is then a guess.
    """
    if not reply.strip():
        return ParsedReport(None, "empty")
    start = reply.find("{")
    if start < 0:
        return ParsedReport(None, "not_an_object" if reply.lstrip()[:1] in ("[", '"') else "no_json")
    try:
        pairs, _ = _DECODER.raw_decode(reply, start)
    except (json.JSONDecodeError, RecursionError):
        return ParsedReport(None, "no_json" if "}" in reply[start:] else "truncated")
    return _match(pairs, names)


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
