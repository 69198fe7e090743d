"""Stages: folders whose content is a function of what they depend on, with a manifest that says so.

A stage that has finished is skipped, one that was interrupted goes on, and one whose inputs changed refuses to
overwrite and says what changed. Where a stage stands without opening it is told by `store.state`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, JsonValue

from store.files import draft_of, read_json, write_json
from store.manifests import FORMAT, MANIFEST, Facts, Manifest
from store.provenance import provenance
from store.settings import Settings, read_versioned, validated
from task.errors import InputError

STARTED = "started.json"
"""File of a folder whose work is under way: what it depends on. The manifest replaces it at the end."""


class Started(Settings):
    """`started.json`."""

    format: Literal[2] = FORMAT
    depends_on: dict[str, JsonValue]
    settings: dict[str, JsonValue] | None = None


class Origin(Started):
    """What a manifest and `started.json` have in common; facts are not looked at."""

    model_config = ConfigDict(extra="ignore")

    key: str = ""


class Stage:
    """One output folder on its way from nothing to finished.

    Attributes:
        folder: Where the stage writes.
        finished: Whether the work had been done already, from the same inputs.
    """

    def __init__(
        self,
        folder: Path,
        depends_on: Mapping[str, Any],
        overwrite: bool = False,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Open a stage: create its folder, go on with it, or find it finished.

        Args:
            folder: Output folder; everything in it belongs to the stage.
            depends_on: All that the result is a function of, as JSON values (settings, hashes of input files).
            overwrite: Replace the result of other inputs. One from the same inputs is kept or gone on with, so that a
                command with --overwrite, too, can be killed and run again.
            settings: The settings as they were asked for, by which `store.state` tells whether a plan has changed.
                Others that lead to the same `depends_on` are noted in their place.

        Raises:
            InputError: The folder holds the result of other inputs or another version, or files of unknown origin.
        """
        self.folder = folder
        self.finished = False
        self._depends_on: dict[str, JsonValue] = json.loads(json.dumps(depends_on))
        self._settings: dict[str, JsonValue] | None = json.loads(json.dumps(settings))
        self._opened = time.time()
        for name in (MANIFEST, STARTED):
            if not (folder / name).exists():
                continue
            changes = _changes(folder, name, self._depends_on)
            if not changes:
                self.finished = name == MANIFEST
                self._note_settings(folder / name)
                return
            if not overwrite:
                raise InputError(_refusal(folder, changes))
            _remove(folder)
        if folder.exists() and {*folder.iterdir()} - {draft_of(folder / STARTED)}:
            raise InputError(f"{folder}: not empty and not made by this stage (no {MANIFEST}); move it away first")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / STARTED, Started(depends_on=self._depends_on, settings=self._settings).model_dump())

    def _note_settings(self, path: Path) -> None:
        values = read_json(path)
        if self._settings is not None and values.get("settings") != self._settings:
            write_json(path, {**values, "settings": self._settings})

    def finish(self, facts: Facts) -> None:
        """Write the manifest: inputs, provenance, wall time since this process opened the stage, and `facts`."""
        manifest = Manifest[Facts](
            depends_on=self._depends_on,
            settings=self._settings,
            key=stage_key(self._depends_on),
            **provenance(),
            wall_seconds=round(time.time() - self._opened, 3),
            facts=facts,
        )
        write_json(self.folder / MANIFEST, {**manifest.model_dump(mode="json"), "facts": facts.model_dump(mode="json")})
        (self.folder / STARTED).unlink(missing_ok=True)
        self.finished = True


def begun(folder: Path) -> Literal["finished", "interrupted"] | None:
    """How far the work in a folder has come; None before it has begun."""
    if (folder / MANIFEST).is_file():
        return "finished"
    return "interrupted" if (folder / STARTED).is_file() else None


def read_origin(folder: Path) -> Origin:
    """What a folder was made from, or is being made from.

    Raises:
        InputError: It has not been begun, or by another version.
    """
    name = MANIFEST if (folder / MANIFEST).is_file() else STARTED
    return read_versioned(folder / name, Origin, FORMAT, f"move {folder} away and make it again")


def _changes(folder: Path, name: str, depends_on: dict[str, JsonValue]) -> list[str]:
    """What a folder's inputs differ in from those that it was made from."""
    try:
        values = read_json(folder / name)
    except InputError as error:
        return [str(error).rpartition(";")[0]]
    found = values.get("format", 1) if isinstance(values, dict) else None
    if found != FORMAT:
        return [f"format: {_short(found)} -> {FORMAT}"]
    return differences(validated(values, Origin, folder / name).depends_on, depends_on)


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """What changed between two JSON values, one `path: old -> new` an entry."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    return [] if old == new else [f"{path}: {_short(old)} -> {_short(new)}"]


def stage_key(depends_on: Mapping[str, Any]) -> str:
    """Hash of all that a stage depends on, 16 hex digits."""
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]


def _refusal(folder: Path, changes: list[str]) -> str:
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return (
        f"{folder}: made from other inputs: {'; '.join(changes[:3])}{more}. "
        "Give --overwrite to redo it, or use another run name"
    )


def _remove(folder: Path) -> None:
    """Delete a stage's folder; moved aside first, so that a kill never leaves half of it in place."""
    doomed = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.replace(doomed)
    shutil.rmtree(doomed)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."
