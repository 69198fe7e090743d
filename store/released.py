"""The files that the paper's authors released, read as they are.

    python -m store.released wording --data released --out paper.yaml

Contexts: `scenarios.csv` (order, agents, ranges) with `candidate_scenarios.json` (units) beside it.
Trials: `*_selections.csv` and `*_weight_reports.csv`. Target weights: `store.weights.load_weights`. Words: the command
above reads them out of the fine-tuning files (see `store.released_wording`) into a file that an experiment can name.

Source: Plunkett, Morris, Reddy, Morales, "Self-Interpretability" (arXiv 2505.17120).
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from store.console import run_command, say
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

    `chose_a` is 1 for A, 0 for B, NaN for a selection that is no letter; `models` are the names of those that chose.
    """

    scenario: NDArray[np.str_]
    chose_a: NDArray[np.float64]
    option_a: NDArray[np.float64]
    option_b: NDArray[np.float64]
    models: frozenset[str]


class Reports(NamedTuple):
    """Weights that a model said it used, as given, a row a trial: the choice context, and the weights by attribute.

    A row is all NaN where any of its cells is empty or not a number. `models` are the names of those that reported.
    """

    scenario: NDArray[np.str_]
    values: NDArray[np.float64]
    models: frozenset[str]


def released_records(place: Path | str) -> list[dict[str, Any]]:
    """Read the contexts of a folder, in the order of `scenarios.csv`, whose questions name the agents.

    In place of the folder such a CSV file can be given, whatever its name.

    Each is `{"name", "agent", "question", "attributes": [{"name", "units", "low", "high"}, ...]}`, like a line of our
    own files; `store.contexts.load_contexts` makes contexts of them. Units and ranges come from
    `candidate_scenarios.json`; without that file units are "" and ranges those of the CSV.

    Raises:
        InputError: No `scenarios.csv`, a file of another form, or a scenario whose attributes (their names and order)
            differ between the two files.
    """
    path = Path(place) if Path(place).is_file() else Path(place) / SCENARIOS
    if not path.is_file():
        raise InputError(f"{path}: no such file; the agents of the contexts are there, so put it beside {CANDIDATES}")
    table = _read_table(path, ["scenario", "question"], ["attr{}", "attr{}_min", "attr{}_max"])
    names, lows, highs = table.cells("attr{}"), table.numbers("attr{}_min"), table.numbers("attr{}_max")
    candidates = path.with_name(CANDIDATES)
    known = _load_candidates(candidates) if candidates.is_file() else None
    records: list[dict[str, Any]] = []
    for i, (where, row) in enumerate(zip(table.places, table.rows, strict=True)):
        name, text = row["scenario"], row["question"]
        if (match := _QUESTION.fullmatch(text)) is None:
            raise InputError(f'{where}: question {text!r}; needed: "Imagine you are X. Which ...?"')
        attributes = [_attribute(n, "", low, high) for n, low, high in zip(names[i], lows[i], highs[i], strict=True)]
        if known is not None:
            if [a["name"] for a in known.get(name, [])] != [a["name"] for a in attributes]:
                raise InputError(
                    f"{where}: {name!r} with these attributes is not in {CANDIDATES}; use files of one release"
                )
            attributes = known[name]
        records.append({"name": name, **match.groupdict(), "attributes": attributes})
    return records


def load_selections(path: Path | str, where: Where | None = None) -> Selections:
    """Read a `*_selections.csv`: `scenario, selection, A_attribute_1, ..., B_attribute_1, ...`.

    Other columns are ignored, unless they split the trials (see `_check_conditions`).

    Raises:
        InputError: No such file, a missing column, a row that is cut short, an attribute value that is no number, no
            row as `where` asks, or trials of several conditions.
    """
    table = _read_table(Path(path), ["scenario", "selection"], ["A_attribute_{}", "B_attribute_{}"])
    table = _choose(table, where or {}, ["selection"])
    codes = {"A": 1.0, "B": 0.0, None: math.nan}
    chose_a = np.array([codes[parse_letter(row["selection"])] for row in table.rows], dtype=float)
    options = table.numbers("A_attribute_{}"), table.numbers("B_attribute_{}")
    return Selections(table.scenario, chose_a, *options, table.values("model"))


def load_reports(path: Path | str, where: Where | None = None) -> Reports:
    """Read a `*_weight_reports.csv`: `scenario, report_attr1, ...`; other columns are treated as in `load_selections`.

    Raises:
        InputError: No such file, a missing column, a row that is cut short, no row as `where` asks, or trials of
            several conditions.
    """
    table = _read_table(Path(path), ["scenario"], ["report_attr{}"])
    table = _choose(table, where or {}, _numbered("report_attr{}", table.size))
    values = table.numbers("report_attr{}", required=False)
    values[np.isnan(values).any(axis=1)] = np.nan
    return Reports(table.scenario, values, table.values("explaining_model"))


def holds_rows(path: Path) -> bool:
    """Whether a CSV file is there and holds more than a header; a script that collected nothing may write a newline."""
    if not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as file:
        return sum(1 for line in file if line.strip()) > 1


def columns_of(path: Path) -> list[str]:
    """The header of a CSV file."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        return next(csv.reader(file), [])


def _choose(table: _Table, where: Where, answer: Sequence[str]) -> _Table:
    """The rows in which the columns of `where` have its values, of one condition; a column not there chooses all."""
    for column, value in where.items():
        if column not in table.header:
            continue
        kept = [i for i, row in enumerate(table.rows) if _same(row[column], value)]
        if table.rows and not kept:
            known = ", ".join(sorted(table.values(column))[:5])
            raise InputError(f"{table.path}: no row with {column}={value}; it has {known}")
        table = replace(table, rows=[table.rows[i] for i in kept], places=[table.places[i] for i in kept])
    _check_conditions(table, answer)
    return table


def _same(cell: str, value: str) -> bool:
    """Whether a cell has a value: as text, or as a number (0 and 0.0)."""
    return cell.strip() == value or _number(cell) == _number(value)


def _check_conditions(table: _Table, answer: Sequence[str]) -> None:
    """Refuse trials of several conditions: what was measured under each is not the same, and is never pooled.

    A column of several values splits trials, unless each value belongs to one context (a person, say), numbers the
    trials of each context, or belongs to one answer (the raw reply, say).
    """
    several = max(Counter(table.scenario.tolist()).values(), default=0) > 1
    for column in table.header:
        if _STRUCTURE.fullmatch(column) or len(values := table.values(column)) < 2:
            continue
        pairs = Counter((row[column], row["scenario"]) for row in table.rows)
        answers = {(row[column], *(row[name] for name in answer)) for row in table.rows}
        numbers_trials = several and max(pairs.values()) == 1
        if len(pairs) == len(values) or len(answers) == len(values) or numbers_trials:
            continue
        counts = Counter(row[column] for row in table.rows).most_common(3)
        shown = ", ".join(f"{value!r} in {count} rows" for value, count in counts)
        raise InputError(
            f"{table.path}:1: column {column!r} splits the trials ({shown}), which are not pooled; choose some with "
            f"--where {column}={counts[0][0]}, or remove the column if it means nothing"
        )


@dataclass(frozen=True)
class _Table:
    """The rows of a CSV file, the file and line of each, and the number of attributes."""

    path: Path
    header: list[str]
    places: list[str]
    rows: list[dict[str, str]]
    size: int

    @property
    def scenario(self) -> NDArray[np.str_]:
        return np.array([row["scenario"] for row in self.rows], dtype=np.str_)

    def values(self, column: str) -> frozenset[str]:
        """What a column holds; nothing where there is no such column."""
        return frozenset(row[column] for row in self.rows if column in row)

    def cells(self, pattern: str) -> list[list[str]]:
        return [[row[name] for name in _numbered(pattern, self.size)] for row in self.rows]

    def numbers(self, pattern: str, *, required: bool = True) -> NDArray[np.float64]:
        """Columns `pattern`, shape (rows, attributes); a cell that is no number is an error, or NaN if not required."""
        cells = self.cells(pattern)
        values = np.array([[_number(cell) for cell in row] for row in cells], dtype=float).reshape(-1, self.size)
        if required and np.isnan(values).any():
            row, attribute = np.argwhere(np.isnan(values))[0]
            where, name = self.places[row], pattern.format(attribute + 1)
            raise InputError(f"{where}: {name} is {cells[row][attribute]!r}; needed: a finite number")
        return values


def _read_table(path: Path, names: Sequence[str], patterns: Sequence[str]) -> _Table:
    """Read the columns `names`, and `patterns` with {} replaced by 1, 2, ... up to the highest number in the header."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; give one of the CSV files that the paper's authors released")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows = [(f"{path}:{reader.line_num}", row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error}); fetch it again") from None
    forms = [re.compile(pattern.format(r"([1-9]\d?)")) for pattern in patterns]
    numbers = [int(match[1]) for name in header for form in forms if (match := form.fullmatch(name))]
    size = max(numbers, default=1)
    needed = [*names, *(name for pattern in patterns for name in _numbered(pattern, size))]
    if missing := [name for name in needed if name not in header]:
        wanted = ", ".join([*names, *(f"{pattern.format(1)}, ..." for pattern in patterns)])
        raise InputError(f"{path}:1: column {missing[0]!r} is missing from the header {header}; needed: {wanted}")
    for where, row in rows:
        if len(row) != len(header):
            raise InputError(f"{where}: {len(row)} cells, the header has {len(header)}; the file may be cut off")
    places = [where for where, _ in rows]
    return _Table(path, header, places, [dict(zip(header, row, strict=True)) for _, row in rows], size)


def _attribute(name: str, units: str, low: float, high: float) -> dict[str, Any]:
    return {"name": name, "units": units, "low": float(low), "high": float(high)}


def _load_candidates(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Read `[{"short_name", "attributes": [{"name", "units", "range": [low, high]}]}]`; more keys are fine."""
    try:
        return {
            record["short_name"]: [
                _attribute(str(item["name"]), str(item["units"]), *item["range"]) for item in record["attributes"]
            ]
            for record in json.loads(path.read_text(encoding="utf-8"))
        }
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: not the released list of contexts ({reason}); fetch it again") from None


def _numbered(pattern: str, size: int) -> list[str]:
    return [pattern.format(number) for number in range(1, size + 1)]


def _number(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


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
