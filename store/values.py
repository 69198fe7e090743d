"""Kinds of values in settings: names, paths, counts, numbers, and tables of a library's own settings."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from task.errors import shown
from task.names import LONGEST_FULL_NAME, name_problem

MOST = 10**9
"""Of anything that is counted. More is a slip of the pen, and numbers beyond 64 bits fail somewhere far from it."""

LONGEST_PART = 255
"""Bytes of one part of a path that file systems take."""

LONGEST_PATH = 1000
"""Characters of a path, below what systems take; a run's folders are put before it."""


def _check_name(value: str) -> str:
    if problem := name_problem(value):
        raise ValueError(problem)
    return value


def _check_full_name(value: str) -> str:
    if problem := name_problem(value, LONGEST_FULL_NAME):
        raise ValueError(problem)
    return value


def _check_path(value: str) -> str:
    longest_part = max(len(part.encode(errors="replace")) for part in value.split("/"))
    if not value or not value.isprintable() or longest_part > LONGEST_PART or len(value) > LONGEST_PATH:
        raise ValueError("no path that a file can have; name a file or folder")
    return value


def _check_table(value: dict[str, Any]) -> dict[str, Any]:
    for leaf in _leaves(value):
        if not _is_plain(leaf):
            raise ValueError(f"{shown(leaf)} is no text, number, yes or no that JSON has; write another value")
    return value


def _leaves(value: Any) -> Iterator[Any]:
    """The values within lists and tables."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list):
        yield value
        return
    for item in value:
        yield from _leaves(item)


def _is_plain(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | bool) or (isinstance(value, int) and abs(value) < 1 << 63)


Name = Annotated[str, AfterValidator(_check_name)]
"""A name that a person gives, see `task.names`."""

FullName = Annotated[str, AfterValidator(_check_full_name)]
"""A name with what is appended to it: of a run (its seed), of an arm (its fold)."""

PathText = Annotated[str, AfterValidator(_check_path)]
"""A path, there or not."""

Count = Annotated[int, Field(ge=1, le=MOST)]
"""How many of something there are, at least one."""

Number = Annotated[float, Field(allow_inf_nan=False)]
"""A number that is one: neither infinite nor NaN."""

Table = Annotated[dict[str, Any], AfterValidator(_check_table)]
"""Settings of a library by their names, with values that JSON has."""

Figure = Annotated[float | None, BeforeValidator(lambda value: None if value != value else value)]
"""A number that was found, None for what cannot be computed or is withheld, and for NaN, which JSON does not have."""
