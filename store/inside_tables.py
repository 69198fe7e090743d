"""The files of attribution and patching, and what they say, as arrays and rows; without torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from store.files import draft_of
from store.inside import Order, Task
from task.errors import InputError

SCORES = "scores.parquet"
"""File of an attribution."""

PATCHING = "patching.parquet"
"""File of a patching."""

OUTSIDE = -1
"""Layer of a matrix that is in no layer, such as the embeddings'."""


@dataclass(frozen=True)
class Rows:
    """The rows of an adapter's matrices in a fixed order, all arrays of shape (rows,).

    Attributes:
        layer: Counted from 0, `OUTSIDE` for matrices in no layer; int32.
        matrix: Name of the matrix in its layer, such as `self_attn.q_proj`.
        factor: A or B.
        row: Of the factor; int32.
    """

    layer: NDArray[np.int32]
    matrix: NDArray[np.str_]
    factor: NDArray[np.str_]
    row: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.layer)


@dataclass(frozen=True)
class Scores:
    """The scores of an arm in a task.

    Attributes:
        contexts: Names.
        rows: Which row each column of `values` is about.
        values: Mean over a context's prompts, in nats, shape (contexts, rows).
    """

    contexts: tuple[str, ...]
    rows: Rows
    values: NDArray[np.float64]


SCORES_SCHEMA = pa.schema(
    [
        ("context", pa.string()),
        ("layer", pa.int32()),
        ("matrix", pa.string()),
        ("factor", pa.string()),
        ("row", pa.int32()),
        ("score", pa.float64()),
    ]
)
"""Columns of `scores.parquet`; the rows of one context follow each other, in the same order in each."""


def scores_table(context: str, rows: Rows, values: NDArray[np.float64]) -> pa.Table:
    """The scores of one context, shape (rows,), as part of a file."""
    columns = [np.full(len(rows), context), rows.layer, rows.matrix, rows.factor, rows.row, values]
    return pa.table(dict(zip(SCORES_SCHEMA.names, columns, strict=True)), schema=SCORES_SCHEMA)


def write_scores(folder: Path, scores: Scores) -> None:
    """Write `scores.parquet`, whole or not at all."""
    tables = (scores_table(name, scores.rows, row) for name, row in zip(scores.contexts, scores.values, strict=True))
    _write(folder / SCORES, SCORES_SCHEMA, tables)


def read_scores(folder: Path) -> Scores:
    """Read `scores.parquet` of a folder.

    Raises:
        InputError: There is no such file, it has other columns, no scores, or contexts with scores of different rows.
    """
    path = folder / SCORES
    table = _read(path, SCORES_SCHEMA)
    if not table.num_rows:
        raise InputError(f"{path}: no context has scores, as no report could be read; leave the arm out")
    names = table["context"].to_numpy().astype(np.str_)
    starts = np.flatnonzero(np.r_[True, names[1:] != names[:-1]])
    shape = len(starts), len(names) // len(starts)
    whole = len({*names[starts]}) == len(starts) and (np.diff([*starts, len(names)]) == shape[1]).all()
    if whole:
        layer, row = (table[name].to_numpy().reshape(shape) for name in ("layer", "row"))
        matrix, factor = (table[name].to_numpy().astype(np.str_).reshape(shape) for name in ("matrix", "factor"))
        whole = all((column == column[:1]).all() for column in (layer, matrix, factor, row))
    if not whole:
        raise InputError(f"{path}: its contexts do not have scores of the same rows; attribute the arm again")
    rows = Rows(layer[0], matrix[0], factor[0], row[0])
    return Scores(tuple(names[starts].tolist()), rows, table["score"].to_numpy().reshape(shape))


class Patched(NamedTuple):
    """What is left of a task in a context with the k first matrices of an order: a row of `patching.parquet`.

    Attributes:
        task: On which the divergence is measured.
        ranked_by: The order.
        draw: Number of a random order, from 1; 0 of the others.
        k: Matrices that are kept.
        context: Name.
        kl: KL(whole adapter || k matrices), mean over the context's prompts, in nats.
        kl_backbone: KL(whole adapter || backbone), likewise.
    """

    task: Task
    ranked_by: Order
    draw: int
    k: int
    context: str
    kl: float
    kl_backbone: float


PATCHING_SCHEMA = pa.schema(
    [
        ("task", pa.string()),
        ("ranked_by", pa.string()),
        ("draw", pa.int32()),
        ("k", pa.int32()),
        ("context", pa.string()),
        ("kl", pa.float64()),
        ("kl_backbone", pa.float64()),
    ]
)
"""Columns of `patching.parquet`."""


def patching_table(rows: Sequence[Patched]) -> pa.Table:
    """Rows as a part of a file."""
    return pa.Table.from_pylist([row._asdict() for row in rows], schema=PATCHING_SCHEMA)


def write_patching(folder: Path, rows: Sequence[Patched]) -> None:
    """Write `patching.parquet`, whole or not at all."""
    _write(folder / PATCHING, PATCHING_SCHEMA, [patching_table(rows)])


def read_patching(folder: Path) -> list[Patched]:
    """Read `patching.parquet` of a folder; raises as `read_scores`."""
    return [Patched(**row) for row in _read(folder / PATCHING, PATCHING_SCHEMA).to_pylist()]


def _write(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> None:
    with pq.ParquetWriter(draft_of(path), schema, compression="zstd") as writer:
        for table in tables:
            writer.write_table(table)
    draft_of(path).replace(path)


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    if not path.is_file():
        raise InputError(f"{path}: no such file; run the stage that writes it first")
    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: no whole Parquet file ({error}); make it again") from None
    if table.schema.remove_metadata() != schema:
        raise InputError(f"{path}: its columns are {table.schema.names}, not {schema.names}; make it again")
    return table
