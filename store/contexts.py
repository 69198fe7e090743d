"""Files of choice contexts: JSON Lines of our own, and those that the paper's authors released.

python -m store.contexts task/data/instilled.jsonl      # says what is wrong and where, or how many are fine
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from store.console import run_command, warn
from store.files import write_text
from store.paths import ROOT, project_file
from store.released import CANDIDATES, SCENARIOS, released_records
from store.texts import parse_json, read_lines
from task.contexts import LAYOUTS, Attribute, ChoiceContext, Layout, near_repetitions, problems
from task.errors import InputError, shown

DATA = ROOT / "task" / "data"
"""Folder of the bundled contexts: `instilled.jsonl` (100), `native.jsonl` (100) and `spare.jsonl` (54)."""


def load_contexts(path: Path | str, count: int | None = None) -> list[ChoiceContext]:
    """Read and validate the contexts of a file; the first `count` of them.

    The file is `*.jsonl` (one context a line, see `context_from_json`), or the released `candidate_scenarios.json` or
    `scenarios.csv`, which are read together (see `store.released`).

    Raises:
        InputError: The file is missing or too short, or `problems` finds something; the first finding is named.
    """
    path = project_file(path)
    contexts, places = _read(path)
    if found := problems(contexts, places):
        more = f" (and {len(found) - 1} more: python -m store.contexts {path})" if len(found) > 1 else ""
        raise InputError(found[0] + more)
    if count is not None and not 1 <= count <= len(contexts):
        raise InputError(f"{path}: {count} contexts asked for, the file has {len(contexts)}; ask for 1 to as many")
    return contexts[:count]


def _read(path: Path) -> tuple[list[ChoiceContext], list[str]]:
    """The contexts of one file before `problems` has seen them, and the place of each."""
    if not path.is_file():
        raise InputError(f"{path}: no such contexts file; give a .jsonl of contexts, e.g. {DATA / 'instilled.jsonl'}")
    if path.suffix == ".jsonl":
        lines = read_lines(path)
        contexts, places = [context_from_json(line, where) for where, line in lines.items()], list(lines)
    elif path.name in (SCENARIOS, CANDIDATES):
        contexts = load_released_contexts(path.parent)
        places = [str(path)] * len(contexts)
    else:
        raise InputError(f"{path}: not a contexts file; give a .jsonl of contexts, or the released {SCENARIOS}")
    if not contexts:
        raise InputError(f"{path}: no contexts in it; add one context a line")
    return contexts, places


def load_named_contexts(path: Path | str, only: Sequence[str] | None) -> list[ChoiceContext]:
    """The contexts of a file that are named in `only`, in that order; all of them when None."""
    contexts = load_contexts(path)
    if only is None:
        return contexts
    by_name = {c.name: c for c in contexts}
    if unknown := [name for name in only if name not in by_name]:
        raise InputError(f"{path}: has no context {unknown[0]!r}; correct the name")
    return [by_name[name] for name in only]


def load_released_contexts(place: Path | str, tell: Callable[[str], None] = warn) -> list[ChoiceContext]:
    """Read the contexts of a folder of released files, or of a CSV file of them, without looking for `problems`.

    `tell` is told what is odd in them and read all the same.
    """
    return [_from_record(record) for record in released_records(place, tell)]


def save_contexts(contexts: Iterable[ChoiceContext], path: Path) -> None:
    """Write contexts as JSON Lines, in the form that `load_contexts` reads; the layout only where it is not `lists`."""
    records = [{k: v for k, v in asdict(c).items() if (k, v) != ("layout", "lists")} for c in contexts]
    write_text(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))


def context_from_json(line: str, where: str) -> ChoiceContext:
    """Parse `{"name", "agent", "question", "attributes": [{"name", "units", "low", "high"}, ...]}`, and maybe `layout`.

    `where` begins the message of what is wrong with the line.
    """
    record = parse_json(line, where, "write one context a line", integers=float)
    layout = record.pop("layout", "lists") if isinstance(record, dict) else "lists"
    if layout not in LAYOUTS:
        raise InputError(f"{where}: layout is {shown(layout)}; needed: one of {', '.join(LAYOUTS)}")
    _check_keys(record, {"name": str, "agent": str, "question": str, "attributes": list}, where)
    for position, item in enumerate(record["attributes"], start=1):
        _check_keys(item, {"name": str, "units": str, "low": float, "high": float}, f"{where}, attribute {position}")
    return _from_record(record, cast(Layout, layout))


def _from_record(record: Mapping[str, Any], layout: Layout = "lists") -> ChoiceContext:
    attributes = (Attribute(a["name"], a["units"], float(a["low"]), float(a["high"])) for a in record["attributes"])
    return ChoiceContext(record["name"], record["agent"], record["question"], tuple(attributes), layout)


def _check_keys(record: object, wanted: dict[str, type], where: str) -> None:
    if not isinstance(record, dict):
        raise InputError(f"{where}: {shown(record)} is not an object with keys {', '.join(wanted)}")
    if missing := [k for k in wanted if k not in record]:
        raise InputError(f"{where}: {missing[0]} is missing; needed keys: {', '.join(wanted)}")
    if unknown := [k for k in record if k not in wanted]:
        raise InputError(f"{where}: unknown key {shown(unknown[0])}; allowed keys: {', '.join(wanted)}")
    for key, kind in wanted.items():
        allowed = (int, float) if kind is float else kind
        if not isinstance(record[key], allowed) or isinstance(record[key], bool):
            raise InputError(f"{where}: {key} is {shown(record[key])}; needed: a {kind.__name__}")


def main() -> None:
    """Validate the files named on the command line, together, so that names repeated across files are found too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="*", metavar="FILE.jsonl", help="files of contexts")
    paths = parser.parse_args().files
    if not paths:
        raise InputError("no file given; usage: python -m store.contexts FILE.jsonl ...")
    everything: list[ChoiceContext] = []
    places: list[str] = []
    for path in paths:
        contexts, where = _read(path)
        everything += contexts
        places += where
    if found := problems(everything, places):
        raise InputError("\n".join(found))
    for line in near_repetitions(everything):
        print(f"warning: {line}")
    print(f"{len(everything)} contexts in {len(paths)} file(s), no problem found")


if __name__ == "__main__":
    run_command(main)
