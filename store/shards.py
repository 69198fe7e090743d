"""Trial files: one Parquet an arm, measure and variant, a row a shown trial, written in shards and then merged.

`shards/00012.parquet` holds one shard. A shard is written under another name and then renamed, so it is whole or not
there; `trials.parquet` is the shards in order, and the same bytes however often the work was interrupted and however
many processes shared it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from task.errors import InputError
from task.prompts import PROMPTS, Measure, Variant

TRIALS = "trials.parquet"
SHARDS = "shards"

ROW_GROUP = 2048
"""Rows that a merged file holds together, and that are in memory at a time while it is written or read."""

SPENT = b"spent"
"""Key in a shard's schema metadata: what its answers took, as JSON. It does not reach the merged file."""


def schema(measure: Measure, variant: Variant, attributes: int) -> pa.Schema:
    """Columns of a trial file.

    Both measures: context, group, index, first_as_a (whether the pair's first option was shown as A), first_1.. and
    second_1.. (attribute values). Decisions: logp_a, logp_b (natural log-probabilities over the whole vocabulary) and
    letter (the likelier of the two). Reports: reply (raw), reason (why it could not be read, null if it was),
    value_1.. (as given, null if unreadable), outside (a value beyond +-100). Reports that follow the arm's own decision
    have the columns of both.
    """
    columns = [("context", pa.string()), ("group", pa.string()), ("index", pa.int64()), ("first_as_a", pa.bool_())]
    for prefix in ("first", "second"):
        columns += [(f"{prefix}_{i + 1}", pa.float64()) for i in range(attributes)]
    if measure == "decisions" or PROMPTS[measure][variant].follow_up is not None:
        columns += [("logp_a", pa.float64()), ("logp_b", pa.float64()), ("letter", pa.string())]
    if measure == "reports":
        columns += [("reply", pa.string()), ("reason", pa.string())]
        columns += [(f"value_{i + 1}", pa.float64()) for i in range(attributes)] + [("outside", pa.bool_())]
    return pa.schema(columns)


def shard_path(folder: Path, number: int) -> Path:
    """Where shard `number` of a trial folder is written."""
    return folder / SHARDS / f"{number:05d}.parquet"


def write_shard(folder: Path, number: int, table: pa.Table, spent: Mapping[str, float]) -> None:
    """Write one shard, whole or not at all, with what its answers took (seconds, tokens)."""
    path = shard_path(folder, number)
    path.parent.mkdir(exist_ok=True)
    # Named after the process, so that two that were started on the same shard by mistake do not write into one file.
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    pq.write_table(table.replace_schema_metadata({SPENT: json.dumps(spent)}), draft)
    draft.replace(path)


def has_shard(folder: Path, number: int, rows: int) -> bool:
    """Whether a shard is there and readable with its number of rows; a damaged one is reported and counts as none."""
    path = shard_path(folder, number)
    if not path.exists():
        return False
    try:
        found = pq.read_metadata(path).num_rows
    except (pa.ArrowException, OSError):
        found = -1
    if found != rows:
        print(f"{path}: damaged, this shard is measured again")
    return found == rows


def merge_shards(folder: Path, shards: int, columns: pa.Schema) -> Counter[str]:
    """Join the shards in order into `trials.parquet`; returns what their answers took together.

    No more than `ROW_GROUP` rows and one shard are in memory at a time.
    """
    draft = folder / f".{TRIALS}.tmp"
    spent: Counter[str] = Counter()
    held: list[pa.Table] = []
    with pq.ParquetWriter(draft, columns, compression="zstd") as writer:
        for number in range(shards):
            with pq.ParquetFile(shard_path(folder, number)) as file:
                spent.update(json.loads(file.schema_arrow.metadata[SPENT]))
                held.append(file.read().replace_schema_metadata(None))
            if number == shards - 1 or sum(table.num_rows for table in held) >= ROW_GROUP:
                writer.write_table(pa.concat_tables(held).combine_chunks(), row_group_size=ROW_GROUP)
                held = []
    draft.replace(folder / TRIALS)
    return spent


def remove_shards(folder: Path) -> None:
    """Remove the shards, once the manifest says that the merged file is complete."""
    shutil.rmtree(folder / SHARDS, ignore_errors=True)


def counts(folder: Path, measure: Measure) -> dict[str, Any]:
    """What a manifest says of a trial file: rows, and how they turned out; read a row group at a time."""
    rows = share_a = mass = outside = 0.0
    reasons: Counter[str] = Counter()
    wanted = ["letter", "logp_a", "logp_b"] if measure == "decisions" else ["reason", "outside"]
    try:
        with pq.ParquetFile(folder / TRIALS) as file:
            for batch in file.iter_batches(ROW_GROUP, columns=wanted):
                rows += batch.num_rows
                if measure == "decisions":
                    share_a += batch["letter"].to_pylist().count("A")
                    mass += float((np.exp(batch["logp_a"].to_numpy()) + np.exp(batch["logp_b"].to_numpy())).sum())
                else:
                    reasons.update(reason for reason in batch["reason"].to_pylist() if reason is not None)
                    outside += batch["outside"].to_pylist().count(True)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{folder / TRIALS}: cannot be read ({error}); measure it again with --overwrite") from None
    if measure == "decisions":
        return {"rows": int(rows), "share_a": round(share_a / rows, 4), "mean_letter_mass": round(mass / rows, 4)}
    return {
        "rows": int(rows),
        "readable": int(rows) - sum(reasons.values()),
        "unreadable": dict(sorted(reasons.items())),
        "outside": int(outside),
    }
