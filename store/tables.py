"""CSV files that people hand in: columns found by name, every row with its file and line, numbers read strictly."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from store.texts import read_number, read_text
from task.errors import InputError

SHOWN = 200
"""Characters of a header that a message shows."""


@dataclass(frozen=True)
class Table:
    """The rows of a CSV file.

    Attributes:
        size: Highest number of the numbered columns that were asked for.
        places: The file and line of each row.
        notes: What is odd in it and was read all the same.
        ended: Whether the last line has a line break, as files have that were written to their end.
    """

    path: Path
    header: list[str]
    size: int
    places: list[str]
    rows: list[dict[str, str]]
    notes: tuple[str, ...] = ()
    ended: bool = True

    def values(self, column: str) -> frozenset[str]:
        """What a column holds; nothing where there is no such column."""
        return frozenset(row[column] for row in self.rows if column in row)

    def cells(self, columns: Sequence[str]) -> list[list[str]]:
        """The cells of some columns, by row."""
        return [[row[name] for name in columns] for row in self.rows]

    def texts(self, column: str) -> NDArray[np.str_]:
        """A column as text, shape (rows,)."""
        return np.array([row[column] for row in self.rows], dtype=np.str_)

    def numbers(self, columns: Sequence[str], *, required: bool = True) -> NDArray[np.float64]:
        """Some columns, shape (rows, columns); a cell that is no number is an error, or NaN if not required.

        Raises:
            InputError: With the file, line and cell.
        """
        cells = self.cells(columns)
        values = np.array([[read_number(cell) for cell in row] for row in cells], dtype=float)
        values = values.reshape(-1, len(columns))
        if required and np.isnan(values).any():
            row, column = np.argwhere(np.isnan(values))[0]
            given = cells[row][column][:60]
            raise InputError(f"{self.places[row]}: {columns[column]} is {given!r}; needed: a finite number")
        return values

    def keep(self, kept: Sequence[int], *notes: str) -> Table:
        """Some of the rows, and more notes."""
        rows, places = [self.rows[i] for i in kept], [self.places[i] for i in kept]
        return replace(self, rows=rows, places=places, notes=self.notes + notes)

    @property
    def repeated(self) -> list[int]:
        """Rows that are equal in every cell to an earlier one."""
        first = self._first(lambda row: tuple(row.values()))
        return [i for i, before in enumerate(first) if before != i]

    def without_repetitions(self) -> Table:
        """Every row once; how many were left out is noted."""
        if not (repeated := {*self.repeated}):
            return self
        place = self.places[min(repeated)]
        note = f"{self.path.name}: rows that repeat an earlier one, left out: {len(repeated)}, the first in line "
        kept = [i for i in range(len(self.rows)) if i not in repeated]
        return self.keep(kept, note + place.rpartition(":")[2])

    def each_once(self, column: str) -> Table:
        """Rows of which each has a value of its own in a column; those that repeat an earlier one are left out.

        Raises:
            InputError: Two rows have the same value there and differ elsewhere.
        """
        table = self.without_repetitions()
        for i, before in enumerate(table._first(lambda row: (row[column],))):
            if before != i:
                value = table.rows[i][column][:60]
                raise InputError(
                    f"{table.places[i]}: {column} {value!r} again, with other values than in line "
                    f"{table.places[before].rpartition(':')[2]}; keep the row that you mean"
                )
        return table

    def _first(self, key: Callable[[dict[str, str]], tuple[str, ...]]) -> list[int]:
        """For each row the first one of the same key."""
        first: dict[tuple[str, ...], int] = {}
        return [first.setdefault(key(row), i) for i, row in enumerate(self.rows)]


def read_header(path: Path) -> list[str]:
    """The names of a CSV file's columns, in their order; raises as `read_text`."""
    return _header(csv.reader(io.StringIO(read_text(path), newline="")))


def read_table(path: Path, names: Sequence[str], patterns: Sequence[str]) -> Table:
    """Read a CSV file; spaces around a cell do not count.

    Args:
        path: The file.
        names: Columns that it must have.
        patterns: Numbered columns that it must have: {} is replaced by 1, 2, ... up to the highest number there.

    Raises:
        InputError: It cannot be read, is no CSV file in UTF-8, lacks a column or names one twice, or has a row that is
            cut short.
    """
    text = read_text(path)
    try:
        reader = csv.reader(io.StringIO(text, newline=""))
        header = _header(reader)
        rows = [(f"{path}:{reader.line_num}", [cell.strip() for cell in row]) for row in reader if row]
    except csv.Error as error:
        raise InputError(f"{path}: not a CSV file ({error}); fetch it again") from None
    size = _need_columns(path, header, names, patterns)
    for where, row in rows:
        if len(row) != len(header):
            raise InputError(f"{where}: {len(row)} cells, the header has {len(header)}; the file may be cut off")
    ended = text.endswith(("\n", "\r")) or not rows
    places = [where for where, _ in rows]
    return Table(path, header, size, places, [dict(zip(header, row, strict=True)) for _, row in rows], ended=ended)


def _header(reader: Iterator[list[str]]) -> list[str]:
    return [name.strip() for name in next(reader, [])]


def _need_columns(path: Path, header: list[str], names: Sequence[str], patterns: Sequence[str]) -> int:
    """Make sure of the columns; returns the highest number of the patterns, at least 1."""
    if repeated := [name for name, count in Counter(header).items() if count > 1 and name]:
        raise InputError(f"{path}:1: column {repeated[0][:60]!r} is there twice; remove one")
    forms = [re.compile(re.escape(pattern).replace(r"\{\}", r"([1-9][0-9]{0,3})")) for pattern in patterns]
    numbers = [int(match[1]) for name in header for form in forms if (match := form.fullmatch(name))]
    size = max(numbers, default=1)
    needed = [*names, *(name for pattern in patterns for name in numbered(pattern, size))]
    if missing := [name for name in needed if name not in header]:
        wanted = ", ".join([*names, *(f"{pattern.format(1)}, ..." for pattern in patterns)])
        shown = str(header) if len(str(header)) <= SHOWN else f"{str(header)[:SHOWN]}..."
        commas = ", separated by commas" if len(header) == 1 and re.search(r"[;\t|]", header[0]) else ""
        raise InputError(
            f"{path}:1: column {missing[0]!r} is missing from the header {shown}; needed: {wanted}{commas}"
        )
    return size


def numbered(pattern: str, size: int) -> list[str]:
    """The columns of a pattern: {} replaced by 1, 2, ..."""
    return [pattern.format(number) for number in range(1, size + 1)]
