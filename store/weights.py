"""Files of attribute weights: CSV with a row a context."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from task.errors import InputError


def save_weights(weights: Mapping[str, ArrayLike], path: Path) -> None:
    """Write weights as CSV with columns `context, weight_1, ..., weight_n`."""
    rows = {name: np.asarray(w, dtype=float) for name, w in weights.items()}
    width = len(next(iter(rows.values())))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["context", *(f"weight_{i + 1}" for i in range(width))])
        writer.writerows([name, *(f"{w:.10g}" for w in row)] for name, row in rows.items())


def load_weights(path: Path) -> dict[str, NDArray[np.float64]]:
    """Read `context, weight_1, ...` or the released `scenario, attr1, ...`.

    Raw means `raw_1, ...` and standard deviations `sd_1, ...`, as `analysis.released` writes them, are passed over.

    Raises:
        InputError: No such file, a missing or unknown column (it may split the weights into conditions), or a weight
            that is no number.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file; it is written by scripts/run_experiment.py or analysis.run")
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        header = reader.fieldnames or []
        prefix, key = ("attr", "scenario") if "scenario" in header else ("weight_", "context")
        columns = [c for c in header if c.startswith(prefix) and c.removeprefix(prefix).isdigit()]
        if key not in header or not columns:
            raise InputError(f"{path}: columns {header}; needed: context, weight_1, ... (or scenario, attr1, ...)")
        known = "attr" if prefix == "attr" else "weight_|raw_|sd_"
        if unknown := [c for c in header if c != key and not re.fullmatch(rf"({known})\d+", c)]:
            raise InputError(
                f"{path}:1: unknown column {unknown[0]!r}; only weights by {key} can be read, so choose the rows you "
                "mean and remove it"
            )
        try:
            return {row[key]: np.array([float(row[c]) for c in columns]) for row in reader}
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}:{reader.line_num}: {error}; every weight must be a number") from None
