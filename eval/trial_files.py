"""Trial files: one Parquet an arm and measure, a row a shown trial, written in shards that are merged at the end.

`parts/00012.parquet` holds one shard. A part is written under another name and then renamed, so it is whole or not
there; `trials.parquet` is the parts in order, and the same bytes however often the work was interrupted.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from task.errors import InputError
from task.prompts import Measure

TRIALS = "trials.parquet"
PARTS = "parts"


def schema(measure: Measure, attributes: int) -> pa.Schema:
    """Columns of a trial file.

    Both measures: context, group, index, first_as_a (whether the pair's first option was shown as A), first_1.. and
    second_1.. (attribute values). Decisions: logp_a, logp_b (natural log-probabilities over the whole vocabulary) and
    letter (the likelier of the two). Reports: reply (raw), reason (why it could not be read, null if it was),
    value_1.. (as given, null if unreadable), outside (a value beyond +-100).
    """
    columns = [("context", pa.string()), ("group", pa.string()), ("index", pa.int64()), ("first_as_a", pa.bool_())]
    for prefix in ("first", "second"):
        columns += [(f"{prefix}_{i + 1}", pa.float64()) for i in range(attributes)]
    if measure == "decisions":
        columns += [("logp_a", pa.float64()), ("logp_b", pa.float64()), ("letter", pa.string())]
    else:
        columns += [("reply", pa.string()), ("reason", pa.string())]
        columns += [(f"value_{i + 1}", pa.float64()) for i in range(attributes)] + [("outside", pa.bool_())]
    return pa.schema(columns)


def part_path(folder: Path, number: int) -> Path:
    """Where shard `number` of a trial folder is written."""
    return folder / PARTS / f"{number:05d}.parquet"


def write_part(folder: Path, number: int, table: pa.Table) -> None:
    """Write one shard, whole or not at all."""
    path = part_path(folder, number)
    path.parent.mkdir(exist_ok=True)
    draft = path.with_suffix(".tmp")
    pq.write_table(table, draft)
    draft.replace(path)


def has_part(folder: Path, number: int, rows: int) -> bool:
    """Whether a shard is there and readable with its number of rows; a damaged one is reported and done again."""
    path = part_path(folder, number)
    if not path.exists():
        return False
    try:
        found = pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError):
        found = -1
    if found != rows:
        print(f"{path}: damaged, this shard is measured again")
    return found == rows


def merge_parts(folder: Path, shards: int, columns: pa.Schema) -> None:
    """Join the parts in order into `trials.parquet`, holding one at a time in memory."""
    draft = folder / f".{TRIALS}.tmp"
    with pq.ParquetWriter(draft, columns, compression="zstd") as writer:
        for number in range(shards):
            writer.write_table(pq.read_table(part_path(folder, number), schema=columns))
    draft.replace(folder / TRIALS)


def remove_parts(folder: Path) -> None:
    """Remove the parts, once the manifest says that the merged file is complete."""
    shutil.rmtree(folder / PARTS, ignore_errors=True)


def read_columns(folder: Path, columns: Sequence[str]) -> pa.Table:
    """Some columns of a merged trial file."""
    path = folder / TRIALS
    try:
        return pq.read_table(path, columns=list(columns))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path}: cannot be read ({error}); measure it again with --overwrite") from None
