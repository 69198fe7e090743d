"""Files of attribute weights: CSV with a row a context."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from store.console import warn
from store.files import write_text
from store.tables import numbered, read_header, read_table
from task.errors import InputError


def save_weights(weights: Mapping[str, ArrayLike], path: Path) -> None:
    """Write weights as CSV with columns `context, weight_1, ..., weight_n`."""
    rows = {name: np.asarray(w, dtype=float) for name, w in weights.items()}
    width = len(next(iter(rows.values())))
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["context", *numbered("weight_{}", width)])
    writer.writerows([name, *(f"{w:.10g}" for w in row)] for name, row in rows.items())
    write_text(path, text.getvalue())


def load_weights(path: Path, tell: Callable[[str], None] = warn) -> dict[str, NDArray[np.float64]]:
    """Read `context, weight_1, ...` or the released `scenario, attr1, ...`, found by their names.

    Raw means `raw_1, ...` and standard deviations `sd_1, ...`, as `analysis.released` writes them, are passed over. A
    row that repeats another one is left out, which `tell` is told.

    Raises:
        InputError: No such file, a missing or unknown column (it may split the weights into conditions), a weight that
            is no number, or a context that is there twice with different weights.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; it is written by scripts/run_experiment.py or analysis.run")
    header = read_header(path)
    key, pattern = ("scenario", "attr{}") if "scenario" in header else ("context", "weight_{}")
    if key not in header:
        raise InputError(
            f"{path}:1: columns {str(header)[:200]}; needed: context, weight_1, ... (or scenario, attr1, ...)"
        )
    table = read_table(path, [key], [pattern])
    columns = numbered(pattern, table.size)
    others = r"(raw_|sd_)[0-9]+" if key == "context" else r"(?!)"
    if unknown := [c for c in header if c != key and c not in columns and not re.fullmatch(others, c)]:
        raise InputError(
            f"{path}:1: unknown column {unknown[0][:60]!r}; only weights by {key} can be read, so choose the rows you "
            "mean and remove it"
        )
    table = table.each_once(key)
    for note in table.notes:
        tell(note)
    return dict(zip((row[key] for row in table.rows), table.numbers(columns), strict=True))
