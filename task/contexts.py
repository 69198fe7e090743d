"""Choice contexts: who chooses, among what, by which attributes.

python -m task.contexts task/data/instilled.jsonl      # says what is wrong and where, or how many are fine
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from task.errors import InputError, run_command
from task.released import CANDIDATES, SCENARIOS, released_records
from task.replies import report_key

DATA = Path(__file__).parent / "data"
"""Folder of the bundled contexts: `instilled.jsonl` (100), `native.jsonl` (100) and `spare.jsonl` (54)."""

SHARED_ATTRIBUTES = 3
"""Two contexts with this many attribute names in common count as nearly the same."""

Layout = Literal["lists", "side_by_side"]
"""How two options are shown: one list after the other, or both values of an attribute on one line."""

LAYOUTS = get_args(Layout)


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


def load_contexts(path: Path | str, count: int | None = None) -> list[ChoiceContext]:
    """Read and validate the contexts of a JSON Lines file, or of the paper's released files; the first `count` of them.

    Args:
        path: `*.jsonl` (one context a line, see `context_from_json`), or the released `candidate_scenarios.json` or
            `scenarios.csv`, which are read together (see `task.released`).
        count: How many to return; all of them when None.

    Raises:
        InputError: The file is missing or too short, or `problems` finds something; the first finding is named.
    """
    path = Path(path)
    contexts, places = _read(path)
    if found := problems(contexts, places):
        more = f" (and {len(found) - 1} more: python -m task.contexts {path})" if len(found) > 1 else ""
        raise InputError(found[0] + more)
    if count is not None and count > len(contexts):
        raise InputError(f"{path}: {count} contexts asked for, the file has {len(contexts)}; ask for fewer or add some")
    return contexts[:count]


def _read(path: Path) -> tuple[list[ChoiceContext], list[str]]:
    """The contexts of one file before `problems` has seen them, and the place of each."""
    if not path.is_file():
        raise InputError(f"{path}: no such contexts file; give a .jsonl of contexts, e.g. {DATA / 'instilled.jsonl'}")
    if path.suffix == ".jsonl":
        located = [(f"{path}:{number}", line) for number, line in _lines(path)]
        contexts = [context_from_json(line, where) for where, line in located]
        places = [where for where, _ in located]
    elif path.name in (SCENARIOS, CANDIDATES):
        contexts = load_released_contexts(path.parent)
        places = [str(path)] * len(contexts)
    else:
        raise InputError(f"{path}: not a contexts file; give a .jsonl of contexts, or the released {SCENARIOS}")
    if not contexts:
        raise InputError(f"{path}: no contexts in it; add one context a line")
    return contexts, places


def load_named_contexts(path: Path | str, only: Sequence[str] | None) -> list[ChoiceContext]:
    """The contexts of a file that are named in `only`, in that order; all of them when None.

    Raises:
        InputError: As `load_contexts`, or a name is not in the file.
    """
    contexts = load_contexts(path)
    if only is None:
        return contexts
    by_name = {c.name: c for c in contexts}
    if unknown := [name for name in only if name not in by_name]:
        raise InputError(f"{path}: has no context {unknown[0]!r}; correct the name")
    return [by_name[name] for name in only]


def load_released_contexts(folder: Path | str) -> list[ChoiceContext]:
    """Read the contexts of a folder of released files as they are, without looking for `problems`.

    Raises:
        InputError: See `task.released.released_records`.
    """
    return [_from_record(record) for record in released_records(folder)]


def save_contexts(contexts: Iterable[ChoiceContext], path: Path) -> None:
    """Write contexts as JSON Lines, in the form that `load_contexts` reads."""
    path.write_text("".join(json.dumps(_record(c), ensure_ascii=False) + "\n" for c in contexts), encoding="utf-8")


def _record(context: ChoiceContext) -> dict[str, Any]:
    """A context as a JSON object; the layout is left out where it is the usual one."""
    record = asdict(context)
    return record if context.layout != "lists" else {k: v for k, v in record.items() if k != "layout"}


def as_ratings(context: ChoiceContext) -> ChoiceContext:
    """The context with every attribute rated from 0 to 100, without units: for models that read no other numbers."""
    return replace(context, attributes=tuple(Attribute(a.name, "", 0.0, 100.0) for a in context.attributes))


def context_from_json(line: str, where: str) -> ChoiceContext:
    """Parse `{"name", "agent", "question", "attributes": [{"name", "units", "low", "high"}, ...]}`, and maybe `layout`.

    Raises:
        InputError: Not JSON, or a key is missing, unknown or of the wrong type; `where` begins the message.
    """
    try:
        record = json.loads(line, parse_int=float)
    except json.JSONDecodeError as error:
        raise InputError(f"{where}: not JSON ({error}); write one context a line") from None
    layout = record.pop("layout", "lists") if isinstance(record, dict) else "lists"
    if layout not in LAYOUTS:
        raise InputError(f"{where}: layout is {layout!r}; needed: one of {', '.join(LAYOUTS)}")
    _check_keys(record, {"name": str, "agent": str, "question": str, "attributes": list}, where)
    for position, item in enumerate(record["attributes"], start=1):
        _check_keys(item, {"name": str, "units": str, "low": float, "high": float}, f"{where}, attribute {position}")
    return replace(_from_record(record), layout=cast(Layout, layout))


def _from_record(record: Mapping[str, Any]) -> ChoiceContext:
    attributes = (Attribute(a["name"], a["units"], float(a["low"]), float(a["high"])) for a in record["attributes"])
    return ChoiceContext(record["name"], record["agent"], record["question"], tuple(attributes))


def problems(contexts: Sequence[ChoiceContext], places: Sequence[str] | None = None) -> list[str]:
    """What is wrong with a set of contexts, one line a problem, each naming place, value and remedy.

    Args:
        contexts: The set; all must have the same number of attributes, so that they stack into arrays.
        places: Where each context came from (file and line); its position in the set when None.
    """
    places = places or [f"context {i}" for i in range(1, len(contexts) + 1)]
    found = []
    for context, where in zip(contexts, places, strict=True):
        found += [f"{where} ({context.name or 'no name'}): {text}" for text in _context_problems(context)]
    return found + _mixed_sizes(contexts, places) + _repetitions(contexts, places)


def _context_problems(context: ChoiceContext) -> list[str]:
    found = []
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", context.name):
        found.append(f"name {context.name!r} must be letters, digits, '_' or '-', as it names files and columns")
    if not context.agent.strip():
        found.append('agent is missing; say who chooses, e.g. "a night-train conductor"')
    if not context.question.strip().endswith("?"):
        found.append(f"question {context.question!r} must end with '?'")
    if len(context.attributes) < 2:
        found.append(f"{len(context.attributes)} attributes; a choice needs at least 2 to weigh against each other")
    for attribute in context.attributes:
        where = f"attribute {attribute.name!r}"
        if not attribute.name.strip():
            found.append(f"{where} has no name; it is the key of the report")
        if not (math.isfinite(attribute.low) and math.isfinite(attribute.high)):
            found.append(f"{where} has a range [{attribute.low}, {attribute.high}] that is not finite")
        elif attribute.low >= attribute.high:
            found.append(f"{where} has an empty range [{attribute.low:g}, {attribute.high:g}]; low must be below high")
    for key, times in Counter(report_key(name) for name in context.attribute_names).items():
        if times > 1:
            found.append(f"attribute {key!r} is given {times} times; each needs its own name")
    return found


def _mixed_sizes(contexts: Sequence[ChoiceContext], places: Sequence[str]) -> list[str]:
    for context, where in zip(contexts, places, strict=True):
        if (size := len(context.attributes)) != (first := len(contexts[0].attributes)):
            return [f"{where} ({context.name}): {size} attributes, but {first} at {places[0]}; use a file for each"]
    return []


def _repetitions(contexts: Sequence[ChoiceContext], places: Sequence[str]) -> list[str]:
    found = []
    first: dict[str, str] = {}
    for context, where in zip(contexts, places, strict=True):
        if context.name in first:
            found.append(f"{where} ({context.name}): name already used at {first[context.name]}; rename one")
        first.setdefault(context.name, where)
    return found


def near_repetitions(contexts: Sequence[ChoiceContext]) -> list[str]:
    """Pairs of contexts with `SHARED_ATTRIBUTES` or more attribute names in common, one line a pair.

    A warning rather than an error: the paper's released set has such pairs, the bundled sets have none.
    """
    return [
        f"{a.name} and {b.name} share the attributes {sorted(shared)}"
        for a, b in combinations(contexts, 2)
        if len(shared := {*a.attribute_names} & {*b.attribute_names}) >= SHARED_ATTRIBUTES
    ]


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error}); save it as UTF-8") from None
    # Not splitlines(), which also breaks a line at characters that JSON allows inside a string, such as U+2028.
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _check_keys(record: object, wanted: dict[str, type], where: str) -> None:
    if not isinstance(record, dict):
        raise InputError(f"{where}: {str(record)[:60]!r} is not an object with keys {', '.join(wanted)}")
    if missing := [k for k in wanted if k not in record]:
        raise InputError(f"{where}: {missing[0]} is missing; needed keys: {', '.join(wanted)}")
    if unknown := [k for k in record if k not in wanted]:
        raise InputError(f"{where}: unknown key {unknown[0]!r}; allowed keys: {', '.join(wanted)}")
    for key, kind in wanted.items():
        allowed = (int, float) if kind is float else kind
        if not isinstance(record[key], allowed) or isinstance(record[key], bool):
            raise InputError(f"{where}: {key} is {record[key]!r}; needed: a {kind.__name__}")


def main() -> None:
    """Validate the files named on the command line, together, so that names repeated across files are found too."""
    if not sys.argv[1:]:
        raise InputError("no file given; usage: python -m task.contexts FILE.jsonl ...")
    everything: list[ChoiceContext] = []
    places: list[str] = []
    for path in sys.argv[1:]:
        contexts, where = _read(Path(path))
        everything += contexts
        places += where
    if found := problems(everything, places):
        raise InputError("\n".join(found))
    for line in near_repetitions(everything):
        print(f"warning: {line}")
    print(f"{len(everything)} contexts in {len(sys.argv) - 1} file(s), no problem found")


if __name__ == "__main__":
    run_command(main)
