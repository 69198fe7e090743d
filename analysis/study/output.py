"""Folders that an analysis writes: whole or not at all, with a manifest, in place of its own earlier one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from store.locks import held
from store.manifests import MANIFEST, OutputFacts, read_manifest
from store.stages import STARTED, Stage
from task.errors import InputError


@contextmanager
def output_folder(final: Path, command: str, depends_on: Mapping[str, Any]) -> Iterator[Path]:
    """A draft folder that becomes `final` when the block ends without an error.

    Args:
        final: Folder of the output; an earlier one of the same command is replaced.
        command: Who writes, e.g. `analysis.baseline`; kept in the manifest.
        depends_on: Input keys and settings, for the manifest.

    Raises:
        InputError: See `check_replaceable`; or another process writes there.
    """
    check_replaceable(final, command)
    with held(final):
        draft = final.with_name(f".{final.name}.tmp")
        shutil.rmtree(draft, ignore_errors=True)
        stage = Stage(draft, {"command": command, **depends_on})
        yield draft
        stage.finish(OutputFacts(files=[name for name in _files(draft) if name not in (MANIFEST, STARTED)]))
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)


def check_replaceable(final: Path, command: str) -> None:
    """Make sure that `final` is not there, is empty, or holds an output of this command and nothing else.

    Commands that work for long call it first, too.

    Raises:
        InputError: It holds something else.
    """
    if not final.exists() or (final.is_dir() and not any(final.iterdir())):
        return
    made = None
    if (final / MANIFEST).is_file():
        with suppress(InputError):  # another version's, or another kind of folder
            made = read_manifest(final, OutputFacts)
    if made is None or made.depends_on.get("command") != command:
        raise InputError(f"{final}: was not made by {command} of this version (no such {MANIFEST}); move it away first")
    if foreign := sorted({*_files(final)} - {MANIFEST, *made.facts.files}):
        raise InputError(f"{final}: holds {foreign[0]}, which {command} did not write; move it away first")


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
