"""The files that the paper's authors released, read as they are.

    python -m store.released wording --data released --out paper.yaml

Contexts: `scenarios.csv` (order, agents, ranges) with `candidate_scenarios.json` (units) beside it.
Trials: `*_selections.csv` and `*_weight_reports.csv`. Target weights: `store.weights.load_weights`. Words: the command
above reads them out of the fine-tuning files (see `store.released_wording`) into a file that an experiment can name.

Source: Plunkett, Morris, Reddy, Morales, "Self-Interpretability" (arXiv 2505.17120).
"""

from __future__ import annotations

import argparse
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.console import run_command, say, warn
from store.tables import Table, numbered, read_header, read_table
from store.texts import parse_json, read_number, read_text
from task.errors import InputError
from task.replies import parse_letter

SCENARIOS = "scenarios.csv"
CANDIDATES = "candidate_scenarios.json"

Where = Mapping[str, str]
"""The value that a column must have in every row that is used, by column."""

_STRUCTURE = re.compile(r"scenario|selection|(report_attr|[AB]_attribute_)\d+")
"""Columns that say what was asked and answered; any other may split trials into conditions."""

_QUESTION = re.compile(r"Imagine you are (?P<agent>.+?)\. (?P<question>Which .+\?)")


class Selections(NamedTuple):
    """Choices between two options, a row a trial: the choice context, what was chosen, values as shown by attribute.

    `chose_a` is 1 for A, 0 for B, NaN for a selection that is no letter; `models` are the names of those that chose,
    `notes` say what was odd in the file and read all the same.
    """

    scenario: NDArray[np.str_]
    chose_a: NDArray[np.float64]
    option_a: NDArray[np.float64]
    option_b: NDArray[np.float64]
    models: frozenset[str]
    notes: tuple[str, ...]


class Reports(NamedTuple):
    """Weights that a model said it used, as given, a row a trial: the choice context, and the weights by attribute.

    A row is all NaN where any of its cells is empty or not a number. `models` are the names of those that reported,
    `notes` say what was odd in the file and read all the same.
    """

    scenario: NDArray[np.str_]
    values: NDArray[np.float64]
    models: frozenset[str]
    notes: tuple[str, ...]


def released_records(place: Path | str, tell: Callable[[str], None] = warn) -> list[dict[str, Any]]:
    """Read the contexts of a folder, in the order of `scenarios.csv`, whose questions name the agents.

    In place of the folder such a CSV file can be given, whatever its name.

    Each is `{"name", "agent", "question", "attributes": [{"name", "units", "low", "high"}, ...]}`, like a line of our
    own files; `store.contexts.load_contexts` makes contexts of them. Units come from `candidate_scenarios.json`;
    without that file they are "". A row that repeats another one is left out, which `tell` is told.

    Raises:
        InputError: No `scenarios.csv`, a file of another form, a context that is there twice with different values, a
            range whose low end is not below its high one, or a scenario whose attributes (their names, order and
            ranges) differ between the two files.
    """
    path = Path(place) if Path(place).is_file() else Path(place) / SCENARIOS
    if not path.is_file():
        raise InputError(f"{path}: no such file; the agents of the contexts are there, so put it beside {CANDIDATES}")
    table = read_table(path, ["scenario", "question"], ["attr{}", "attr{}_min", "attr{}_max"]).each_once("scenario")
    for note in table.notes:
        tell(note)
    names = table.cells(numbered("attr{}", table.size))
    lows, highs = (table.numbers(numbered(pattern, table.size)) for pattern in ("attr{}_min", "attr{}_max"))
    candidates = path.with_name(CANDIDATES)
    known = _load_candidates(candidates) if candidates.is_file() else None
    records: list[dict[str, Any]] = []
    for i, (where, row) in enumerate(zip(table.places, table.rows, strict=True)):
        name, text = row["scenario"], row["question"]
        if (match := _QUESTION.fullmatch(text)) is None:
            raise InputError(f'{where}: question {text[:200]!r}; needed: "Imagine you are X. Which ...?"')
        attributes = [
            _attribute(where, n, "", low, high) for n, low, high in zip(names[i], lows[i], highs[i], strict=True)
        ]
        if known is not None:
            if [_without_units(a) for a in known.get(name, [])] != [_without_units(a) for a in attributes]:
                raise InputError(
                    f"{where}: {name[:60]!r} with these attributes and ranges is not in {CANDIDATES}; use files of one "
                    "release"
                )
            attributes = known[name]
        records.append({"name": name, **match.groupdict(), "attributes": attributes})
    return records


def load_selections(path: Path | str, where: Where | None = None) -> Selections:
    """Read a `*_selections.csv`: `scenario, selection, A_attribute_1, ..., B_attribute_1, ...`.

    Other columns are ignored, unless they split the trials (see `_check_conditions`). A row that repeats another one in
    every cell is left out, and a letter in lower case is read as that letter; the notes say how many.

    Raises:
        InputError: No such file, a missing column, a row that is cut short, an attribute value that is no number, no
            row as `where` asks, or trials of several conditions.
    """
    table = _read_trials(path, ["scenario", "selection"], ["A_attribute_{}", "B_attribute_{}"])
    table = _choose(table.without_repetitions(), where or {}, ["selection"])
    letters = [parse_letter(row["selection"]) for row in table.rows]
    in_upper_case = [
        letter or parse_letter(row["selection"].upper()) for letter, row in zip(letters, table.rows, strict=True)
    ]
    lower = sum(a != b for a, b in zip(letters, in_upper_case, strict=True))
    notes = (f"{table.path.name}: selections in lower case, read as letters: {lower}",) if lower else ()
    codes = {"A": 1.0, "B": 0.0, None: math.nan}
    chose_a = np.array([codes[letter] for letter in in_upper_case], dtype=float)
    option_a, option_b = (
        table.numbers(numbered(pattern, table.size)) for pattern in ("A_attribute_{}", "B_attribute_{}")
    )
    return Selections(table.texts("scenario"), chose_a, option_a, option_b, table.values("model"), table.notes + notes)


def load_reports(path: Path | str, where: Where | None = None) -> Reports:
    """Read a `*_weight_reports.csv`: `scenario, report_attr1, ...`; other columns are treated as in `load_selections`.

    A row that repeats another one in every cell is left out where the file says which options each report was about
    (`A_attribute_1`, ...). Where it does not, two reports may well be alike: they are kept. The notes say how many.

    Raises:
        InputError: No such file, a missing column, a row that is cut short, no row as `where` asks, or trials of
            several conditions.
    """
    table = _read_trials(path, ["scenario"], ["report_attr{}"])
    columns = numbered("report_attr{}", table.size)
    notes = []
    if "A_attribute_1" in table.header:
        table = table.without_repetitions()
    elif repeated := table.repeated:
        notes.append(f"{table.path.name}: reports equal to an earlier one, all kept: {len(repeated)}")
    table = _choose(table, where or {}, columns)
    values = table.numbers(columns, required=False)
    unreadable = np.isnan(values).any(axis=1)
    values[unreadable] = np.nan
    if unreadable.any():
        line = table.places[int(unreadable.argmax())].rpartition(":")[2]
        notes.append(
            f"{table.path.name}: reports with a cell that is no number, counted as missing: {unreadable.sum()}, "
            f"the first in line {line}"
        )
    return Reports(table.texts("scenario"), values, table.values("explaining_model"), (*table.notes, *notes))


def _read_trials(path: Path | str, names: Sequence[str], patterns: Sequence[str]) -> Table:
    """A file of trials, see `read_table`."""
    if not (path := Path(path)).is_file():
        raise InputError(f"{path}: no such file; give one of the CSV files that the paper's authors released")
    table = read_table(path, names, patterns)
    if not table.ended:
        return table.keep(range(len(table.rows)), f"{path.name}: the last line has no line break; is the file cut off?")
    return table


def holds_rows(path: Path) -> bool:
    """Whether a file is there and holds more than a header; a script that collected nothing may write a newline.

    Raises:
        InputError: It is no text in UTF-8.
    """
    return path.is_file() and sum(1 for line in read_text(path).splitlines() if line.strip()) > 1


def columns_of(path: Path) -> list[str]:
    """The header of a CSV file; raises as `read_text`."""
    return read_header(path)


def _choose(table: Table, where: Where, answer: Sequence[str]) -> Table:
    """The rows in which the columns of `where` have its values, of one condition; a column not there chooses all."""
    for column, value in where.items():
        if column not in table.header:
            continue
        kept = [i for i, row in enumerate(table.rows) if _same(row[column], value)]
        if table.rows and not kept:
            known = ", ".join(text[:60] for text in sorted(table.values(column))[:5])
            raise InputError(f"{table.path}: no row with {column}={value}; it has {known}")
        table = table.keep(kept)
    _check_conditions(table, answer)
    return table


def _same(cell: str, value: str) -> bool:
    """Whether a cell has a value: as text, or as a number (0 and 0.0)."""
    return cell == value or read_number(cell) == read_number(value)


def _check_conditions(table: Table, answer: Sequence[str]) -> None:
    """Refuse trials of several conditions: what was measured under each is not the same, and is never pooled.

    A column of several values splits trials, unless each value belongs to one context (a person, say), numbers the
    trials of each context, or belongs to one answer (the raw reply, say).
    """
    several = max(Counter(row["scenario"] for row in table.rows).values(), default=0) > 1
    for column in table.header:
        if _STRUCTURE.fullmatch(column) or len(values := table.values(column)) < 2:
            continue
        pairs = Counter((row[column], row["scenario"]) for row in table.rows)
        answers = {(row[column], *(row[name] for name in answer)) for row in table.rows}
        numbers_trials = several and max(pairs.values()) == 1
        if len(pairs) == len(values) or len(answers) == len(values) or numbers_trials:
            continue
        counts = Counter(row[column] for row in table.rows).most_common(3)
        shown = ", ".join(f"{value[:60]!r} in {count} rows" for value, count in counts)
        raise InputError(
            f"{table.path}:1: column {column[:60]!r} splits the trials ({shown}), which are not pooled; choose some "
            f"with --where {column[:60]}={counts[0][0][:60]}, or remove the column if it means nothing"
        )


def _attribute(where: str, name: str, units: str, low: float, high: float) -> dict[str, Any]:
    if not low < high:
        raise InputError(
            f"{where}: {name[:60]!r} has the range [{low:g}, {high:g}]; its low end must be below its high one"
        )
    return {"name": name, "units": units, "low": float(low), "high": float(high)}


def _without_units(attribute: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attribute.items() if key != "units"}


def _load_candidates(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Read `[{"short_name", "attributes": [{"name", "units", "range": [low, high]}]}]`; more keys are fine."""
    found: dict[str, list[dict[str, Any]]] = {}
    wanted = f"{path}: not the released list of contexts"
    records = parse_json(read_text(path), wanted, "fetch it again", integers=float)
    for number, record in enumerate(records if isinstance(records, list) else [records], start=1):
        where = f"{path}, context {number}"
        try:
            name, given = str(record["short_name"]), record["attributes"]
            attributes = [
                _attribute(where, str(item["name"]), str(item["units"]), *map(_finite, item["range"])) for item in given
            ]
        except (KeyError, TypeError) as error:
            reason = f"context {number}: {type(error).__name__}: {error}"
            raise InputError(f"{wanted} ({reason}); fetch it again") from None
        if found.setdefault(name, attributes) != attributes:
            raise InputError(f"{where}: {name[:60]!r} again, with other attributes; keep the one that you mean")
    return found


def _finite(value: Any) -> float:
    if not isinstance(value, float) or not math.isfinite(value):
        raise TypeError(f"{str(value)[:60]!r} is no finite number")
    return value


def main() -> None:
    """Command line: `wording --data FOLDER --out FILE`."""
    from store.released_wording import write_wording  # it reads contexts, which are read with the help of this module

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    wording = parser.add_subparsers(required=True, metavar="wording").add_parser(
        "wording", help="read the words of the fine-tuning files into a wording file"
    )
    wording.add_argument("--data", type=Path, required=True, help="folder with the released files")
    wording.add_argument("--out", type=Path, required=True, help="wording file to write (YAML)")
    arguments = parser.parse_args()
    rows = write_wording(arguments.data, arguments.out)
    counted = " and ".join(f"{count} rows of {measure}" for measure, count in rows.items())
    say(f"{arguments.out}: {counted} rendered to the last character")


if __name__ == "__main__":
    run_command(main)
