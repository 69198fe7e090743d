"""Shards: a trial file, or another long table, on its way: written in pieces and then merged.

`shards/00012.parquet` holds one shard. A shard is written under another name and then renamed, so it is whole or not
there; `trials.parquet` is the shards in order, and the same bytes however often the work was interrupted and however
many processes shared it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from store.console import warn
from store.files import draft_of
from store.trials import ROW_GROUP, TRIALS, TrialColumns

SHARDS = "shards"

SPENT = b"spent"
"""Key in a shard's schema metadata: what its answers took, as JSON. It does not reach the merged file."""


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` of a trial folder is written."""
    return folder / SHARDS / f"{number:05d}.parquet"


def written_shards(folder: Path) -> list[int]:
    """Numbers of the shards that are there, whole or damaged."""
    return sorted(int(path.stem) for path in (folder / SHARDS).glob("*.parquet"))


def write_shard(folder: Path, number: int, table: pa.Table, spent: Mapping[str, float]) -> None:
    """Write one shard, whole or not at all, with what its answers took (seconds, tokens)."""
    path = shard_path(folder, number)
    path.parent.mkdir(exist_ok=True)
    # Named after the process, so that two that were started on the same shard by mistake do not write into one file.
    draft = path.with_suffix(f".{socket.gethostname()}.{os.getpid()}.tmp")
    pq.write_table(table.replace_schema_metadata({SPENT: json.dumps(spent)}), draft)
    draft.replace(path)


def has_shard(folder: Path, number: int, *rows: int) -> bool:
    """Whether a shard is there and readable, with one of some numbers of rows.

    A damaged one is reported and counts as none.
    """
    path = shard_path(folder, number)
    if not path.exists():
        return False
    try:
        found = shard_rows(folder, number)
    except (pa.ArrowException, OSError):
        found = -1
    if found not in rows:
        warn(f"{path}: damaged, this shard is measured again")
    return found in rows


def shard_rows(folder: Path, number: int) -> int:
    """Rows of a shard that is there."""
    return int(pq.read_metadata(shard_path(folder, number)).num_rows)


def merge_shards(folder: Path, shards: int, columns: TrialColumns) -> Counter[str]:
    """Join the shards in order into `trials.parquet`; returns what their answers took together."""
    return join_shards(folder, shards, TRIALS, columns.schema)


def join_shards(folder: Path, shards: int, name: str, schema: pa.Schema, row_group: int = ROW_GROUP) -> Counter[str]:
    """Join the shards in order into the file `name`; returns what was noted with them, summed.

    No more than a row group (`row_group` rows) and one shard are in memory at a time.
    """
    draft = draft_of(folder / name)
    spent: Counter[str] = Counter()
    held: list[pa.Table] = []
    with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
        for number in range(shards):
            with pq.ParquetFile(shard_path(folder, number)) as file:
                spent.update(json.loads(file.schema_arrow.metadata[SPENT]))
                held.append(file.read().cast(schema))
            if number == shards - 1 or sum(table.num_rows for table in held) >= row_group:
                writer.write_table(pa.concat_tables(held).combine_chunks(), row_group_size=row_group)
                held = []
    draft.replace(folder / name)
    return spent


def remove_shards(folder: Path) -> None:
    """Remove the shards, once the manifest says that the merged file is complete."""
    shutil.rmtree(folder / SHARDS, ignore_errors=True)
