"""Trial folders whose file or manifest was spoiled: what is read is what was written, or one line says why not.

Each is tried with the hash of its file in the manifest and, as versions before left them, without.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fuzzing import LONGER, End, end_of, nothing_written_outside, show_counts
from store.contexts import DATA, load_contexts
from store.manifests import MANIFEST, Answering
from store.shards import merge_shards, remove_shards, write_shard
from store.stages import Stage
from store.trial_facts import trial_facts
from store.trials import METADATA, TRIALS, Report, TrialColumns, read_decisions, read_reports
from task.prompts import frame
from task.replies import Decided, parse_report
from task.trials import ShownTrial, sample_trials

FILES, MANIFESTS = 240, 240
"""Spoiled trial files and manifests that are tried in CI."""

CONTEXTS = load_contexts(DATA / "instilled.jsonl", 3)
BY_NAME = {context.name: context for context in CONTEXTS}


def shown(measure: Any) -> list[tuple[str, ShownTrial]]:
    """Two pairs of each context in both orders, or two reports."""
    orders = (True, False) if measure == "decisions" else (True,)
    found = []
    for context in CONTEXTS:
        trials = sample_trials(0, measure, context, 2)
        shape = frame(measure, context)
        found += [("g", ShownTrial(shape, i, trials.first[i], trials.second[i], o)) for i in range(2) for o in orders]
    return found


def reply(trial: ShownTrial, place: int) -> Report:
    """A report that can be read, and every third one that cannot."""
    names = trial.context.attribute_names
    said = "no" if place % 3 == 2 else json.dumps({name: 10 * i for i, name in enumerate(names)})
    return said, parse_report(said, names)


def finish(folder: Path, columns: TrialColumns, table: pa.Table) -> Path:
    stage = Stage(folder, {"arm": "arm"})
    write_shard(folder, 0, table, {"seconds": 1.0})
    merge_shards(folder, 1, columns)
    stage.finish(trial_facts(folder, columns, Answering(seconds=1.0, trials_per_second=2.0)))
    remove_shards(folder)
    return folder


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Finished trials: decisions, free reports, constrained reports."""
    folder, found = tmp_path_factory.mktemp("trials"), []
    trials = shown("decisions")
    columns = TrialColumns(measure="decisions", variant="plain", attributes=5)
    logps = np.log(np.random.default_rng(0).uniform(0.01, 0.5, size=(len(trials), 2)))
    logps[3] = np.nan
    found.append(finish(folder / "d", columns, columns.table(trials, Decided(logps, np.ones(len(trials), bool)))))
    trials = shown("reports")
    replies = [reply(trial, place) for place, (_, trial) in enumerate(trials)]
    columns = TrialColumns(measure="reports", variant="trial", attributes=5)
    found.append(finish(folder / "r", columns, columns.table(trials, reports=replies)))
    columns = TrialColumns(measure="reports", variant="trial", constrained=True, attributes=5)
    free = [found_reply if place < 2 else None for place, found_reply in enumerate(replies)]
    opening = np.linspace(0, 1, len(trials))
    found.append(finish(folder / "c", columns, columns.table(trials, None, replies, opening, free)))
    return found


def read(folder: Path) -> Any:
    return read_decisions(folder, BY_NAME) if "logp_a" in names_of(folder) else read_reports(folder)


def names_of(folder: Path) -> list[str]:
    """Which measure a spoiled folder is of, by its sound file's copy."""
    return list(pq.read_schema(folder / "sound.parquet").names)


def values(folder: Path) -> str:
    """What is read, as one text."""
    with np.printoptions(threshold=10_000):
        return repr(read(folder))


VALUES: list[Any] = [
    *(None, 0, -1, 1e300, float("nan"), float("inf"), "", "x" * 300, "größe", "../../evil", 10**15, True),
]


def edited(table: pa.Table, random: np.random.Generator) -> pa.Table:
    """One value is another one, of the column's type."""
    field = table.schema.field(int(random.integers(table.num_columns)))
    column = table[field.name].to_pylist()
    first = column[0]
    column[random.integers(len(column))] = VALUES[random.integers(len(VALUES))]
    try:
        new = pa.array(column, type=field.type)
    except (pa.ArrowException, TypeError):
        new = pa.array([first] * len(column), type=field.type)
    return table.set_column(table.schema.get_field_index(field.name), field, new)


def without_column(table: pa.Table, random: np.random.Generator) -> pa.Table:
    return table.drop_columns([table.column_names[random.integers(table.num_columns)]])


def renamed(table: pa.Table, random: np.random.Generator) -> pa.Table:
    names = table.column_names
    names[random.integers(len(names))] = ["", "x", "context", "logp_a", "../evil"][random.integers(5)]
    return table.rename_columns(names)


def retyped(table: pa.Table, random: np.random.Generator) -> pa.Table:
    place = int(random.integers(table.num_columns))
    kind = [pa.string(), pa.float32(), pa.int8(), pa.null(), pa.list_(pa.int64())][random.integers(5)]
    return table.set_column(place, table.column_names[place], pa.array([None] * len(table), type=kind))


def shuffled(table: pa.Table, random: np.random.Generator) -> pa.Table:
    return table.take(random.permutation(len(table)))


def repeated(table: pa.Table, random: np.random.Generator) -> pa.Table:
    rows = np.arange(len(table))
    rows[random.integers(len(rows))] = random.integers(len(rows))
    return table.take(rows)


def fewer_rows(table: pa.Table, random: np.random.Generator) -> pa.Table:
    return table.slice(0, int(random.integers(len(table))))


def told_otherwise(table: pa.Table, random: np.random.Generator) -> pa.Table:
    said = json.loads(table.schema.metadata[METADATA])
    key = [*said, "more"][random.integers(len(said) + 1)]
    said[key] = ["reports", 2, 10**30, -1, None, [], True, "after_choice", 1e400][random.integers(9)]
    text: Any = json.dumps(said) if random.integers(4) else [b"\xff", b"", b"[]", b"[" * 10_000][random.integers(4)]
    return table.replace_schema_metadata({METADATA: text})


TABLES: list[Callable[[pa.Table, np.random.Generator], pa.Table]] = [
    *(edited, edited, without_column, renamed, retyped, shuffled, repeated, fewer_rows, told_otherwise)
]


def bad_bytes(content: bytes, random: np.random.Generator) -> bytes:
    """Cut off, emptied, lengthened, or with some bits flipped."""
    kind, spoiled = random.integers(4), bytearray(content)
    if kind == 0:
        return content[: int(random.integers(len(content)))]
    if kind == 1:
        return [b"", b"PAR1", b"PAR1PAR1", b"{}", content[::-1]][random.integers(5)]
    if kind == 2:
        return content + random.bytes(9)
    for place in random.integers(0, len(content), size=int(random.integers(1, 4))):
        spoiled[place] ^= 1 << int(random.integers(8))
    return bytes(spoiled)


def copy_of(folder: Path, to: Path, hashed: bool) -> Path:
    """A folder to spoil, with its sound file beside, and with or without the hash in its manifest."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(folder, to)
    shutil.copy(folder / TRIALS, to / "sound.parquet")
    if not hashed:
        manifest = json.loads((to / MANIFEST).read_text())
        del manifest["facts"]["content"]
        (to / MANIFEST).write_text(json.dumps(manifest))
    return to


def test_a_spoiled_trial_file_is_what_was_written_or_one_line(sound: list[Path], tmp_path: Path):
    ends: Counter[End] = Counter()
    with nothing_written_outside(tmp_path, tmp_path / "spoiled"):
        for number in range(FILES * LONGER):
            random, original, hashed = np.random.default_rng(number), sound[number % 3], number % 2 == 0
            folder = copy_of(original, tmp_path / "spoiled", hashed)
            spoil: Any = bad_bytes
            if random.integers(4):
                spoil = TABLES[random.integers(len(TABLES))]
                pq.write_table(spoil(pq.read_table(original / TRIALS), random), folder / TRIALS)
            else:
                (folder / TRIALS).write_bytes(bad_bytes((original / TRIALS).read_bytes(), random))
            end = end_of(partial(read, folder), f"{spoil.__name__} of {original.name} ({number})")
            ends[end] += 1
            assert end == "refused" or not hashed, f"{spoil.__name__} ({number}) was not noticed"
    show_counts("trial files", ends)
    assert ends["refused"] > ends["worked"] > 0


KEYS = ["format", "depends_on", "settings", "key", "git", "packages", "python", "host", "wall_seconds", "facts", "more"]
OTHER: list[Any] = [None, "", "x" * 300, 0, -1, 2, 1.5, 10**30, True, [], {}, {"rows": 1}, "\ud800", float("nan")]


def test_a_spoiled_manifest_changes_no_number(sound: list[Path], tmp_path: Path):
    ends: Counter[End] = Counter()
    wanted = [values(copy_of(folder, tmp_path / "sound", hashed=True)) for folder in sound]
    with nothing_written_outside(tmp_path, tmp_path / "spoiled"):
        for number in range(MANIFESTS * LONGER):
            random, which = np.random.default_rng(number), number % 3
            folder = copy_of(sound[which], tmp_path / "spoiled", hashed=bool(number % 2))
            manifest = json.loads((folder / MANIFEST).read_text())
            place: Any = manifest if random.integers(2) else manifest["facts"]
            key = [*place, *KEYS][random.integers(len(place) + len(KEYS))]
            place[key] = OTHER[random.integers(len(OTHER))]
            text = json.dumps(manifest).encode()
            if not random.integers(4):
                text = [bad_bytes(text, random), text.decode().encode("utf-16"), b"[" * 100_000][random.integers(3)]
            (folder / MANIFEST).write_bytes(text)
            end = end_of(partial(values, folder), f"{key} ({number})")
            ends[end] += 1
            assert end == "refused" or values(folder) == wanted[which], f"{key} ({number})"
    show_counts("manifests of trials", ends)
    assert ends["refused"] > 20 and ends["worked"] > 20
