"""Write a run as a folder that others can load: tables, card, adapters, and a note on the collection."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from analysis.study.output import check_replaceable, output_folder
from experiment.publish.adapters import CARD, PublishedAdapter, copy_adapters
from experiment.publish.card import dataset_card, read_trial_manifest
from experiment.publish.hub import collection_note
from experiment.publish.standing import shortcomings
from experiment.publish.tables import run_tables
from store.files import write_text
from store.run import RunFolder, RunRecord, read_run
from task.errors import InputError

COMMAND = "scripts.publish"

TOKEN = re.compile(rb"\bhf_[A-Za-z0-9]{20,}")
"""What a token of the Hub looks like."""


@dataclass(frozen=True)
class Published:
    """A folder that was written: its run, the rows of each table, the adapters, and what is not in order."""

    folder: Path
    record: RunRecord
    rows: dict[str, int]
    adapters: list[PublishedAdapter]
    wrong: list[str]


def write_published(path: Path, out: Path | None = None) -> Published:
    """Write a run's published folder, in place of an earlier one of this command; whole or not at all.

    Raises:
        InputError: There is no run, no trial that can be read, `out` holds something else, or a text names this
            machine or holds a token.
    """
    run, record = RunFolder(path), read_run(path)
    folder = out or run.published
    check_replaceable(folder, COMMAND)
    found = run_tables(run, record)
    contents = {t.path.relative_to(run.path).as_posix(): read_trial_manifest(t).facts.content for t in found.taken}
    with output_folder(folder, COMMAND, {"run": record.name, "seed": record.seed, "trials": contents}) as draft:
        (draft / "data").mkdir()
        for name, table in found.tables.items():
            pq.write_table(table, draft / "data" / f"{name}.parquet", compression="zstd")
        rows = {name: len(table) for name, table in found.tables.items()}
        adapters = copy_adapters(run, record, draft)
        wrong = [*found.left_out, *shortcomings(run, record, found.taken)]
        dataset_card(record, rows, found.taken, adapters, wrong).save(draft / CARD)
        write_text(draft / "COLLECTION.md", collection_note(record, bool(adapters)))
        check_texts(draft, run.path)
    return Published(folder, record, rows, adapters, wrong)


def check_texts(folder: Path, run: Path) -> None:
    """Refuse texts that name the run's place on this machine, the user's home, or hold what looks like a token.

    Raises:
        InputError: With the file and what it holds.
    """
    places = {place for place in (run.resolve(), Path.home()) if len(place.parts) > 1}
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".md", ".json")):
        text, name = path.read_bytes(), path.relative_to(folder)
        if held := [place for place in places if f"{place}/".encode() in text or f"{place}\n".encode() in text]:
            raise InputError(f"{name}: would tell others of {held[0]}; take that path out of what it was made from")
        if TOKEN.search(text):
            raise InputError(f"{name}: holds what looks like a token; take it out of what it was made from")
