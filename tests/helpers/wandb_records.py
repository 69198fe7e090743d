"""Reads what W&B wrote for an offline run: blocks of 32 KiB with checked records, each a protocol buffer."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

BLOCK, HEADER, START = 32768, 7, 7


@dataclass
class OfflineRun:
    """One offline run: its identity, what was configured and logged, and the files that go with it."""

    folder: Path
    id: str = ""
    group: str = ""
    name: str = ""
    job_type: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)

    def steps(self, key: str) -> list[int]:
        """`train/global_step` of the entries that have a key."""
        return [entry["train/global_step"] for entry in self.history if key in entry]

    def media(self, key: str) -> Path:
        """The file behind a logged image or table."""
        [entry] = [entry[key] for entry in self.history if key in entry]
        return self.folder / "files" / entry["path"]


def offline_runs(folder: Path) -> list[OfflineRun]:
    """The offline runs of a `wandb` folder in the order of their start."""
    return [read_run(path) for path in sorted(folder.glob("offline-run-*/*.wandb"), key=lambda p: p.stat().st_ctime)]


def read_run(path: Path) -> OfflineRun:
    """One offline run from its `.wandb` file; one that was cut off is read as far as it goes."""
    run = OfflineRun(path.parent)
    for content in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.id, run.group, run.name = record.run.run_id, record.run.run_group, record.run.display_name
            run.job_type = record.run.job_type
            run.config |= _values(record.run.config.update)
        elif kind == "config":
            run.config |= _values(record.config.update)
        elif kind == "history":
            run.history.append(_values(record.history.item))
        elif kind == "summary":
            run.summary |= _values(record.summary.update)
    return run


def _records(data: bytes) -> Iterator[bytes]:
    assert data[:4] == b":W&B"
    at, whole = START, b""
    while at + HEADER <= len(data):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + HEADER])
        whole += data[at + HEADER : at + HEADER + length]
        at += HEADER + length
        if at <= len(data) and kind in (1, 4):  # all of a record, or its last part
            yield whole
            whole = b""


def _values(items: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in items:
        *outer, last = item.nested_key or [item.key]
        place = values
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = json.loads(item.value_json)
    return values


def files_with(folder: Path, *secrets: str) -> list[Path]:
    """Files below a folder that hold one of the secrets."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)]
