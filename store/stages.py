"""Stages: folders whose content is a function of what they depend on, with a manifest that says so.

A stage that has finished is skipped, one that was interrupted goes on, and one whose inputs changed refuses to
overwrite and says what changed.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from store.files import draft_of, read_json, write_json
from store.provenance import provenance
from task.errors import InputError

MANIFEST = "manifest.json"
STARTED = "started.json"


class Stage:
    """One output folder on its way from nothing to finished.

    `started.json` holds what the folder depends on while the work is under way; `manifest.json` replaces it at the end.

    Attributes:
        folder: Where the stage writes.
        finished: Whether the work had been done already, from the same inputs.
    """

    def __init__(self, folder: Path, depends_on: Mapping[str, Any], overwrite: bool = False) -> None:
        """Open a stage: create its folder, go on with it, or find it finished.

        Args:
            folder: Output folder; everything in it belongs to the stage.
            depends_on: All that the result is a function of, as JSON values (settings, hashes of input files).
            overwrite: Replace the result of other inputs. One from the same inputs is kept or gone on with, so that a
                command with --overwrite, too, can be killed and run again.

        Raises:
            InputError: The folder holds the result of other inputs, or files of unknown origin.
        """
        self.folder = folder
        self.finished = False
        self._depends_on = json.loads(json.dumps(depends_on))
        self._opened = time.time()
        for name in (MANIFEST, STARTED):
            if not (folder / name).exists():
                continue
            changes = differences(read_json(folder / name).get("depends_on", {}), self._depends_on)
            if not changes:
                self.finished = name == MANIFEST
                return
            if not overwrite:
                raise InputError(_refusal(folder, changes))
            _remove(folder)
        if folder.exists() and {*folder.iterdir()} - {draft_of(folder / STARTED)}:
            raise InputError(f"{folder}: not empty and not made by this stage (no {MANIFEST}); move it away first")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / STARTED, {"depends_on": self._depends_on})

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Write the manifest: inputs, provenance, wall time since this process opened the stage, and `facts`."""
        manifest = {
            "depends_on": self._depends_on,
            "key": stage_key(self._depends_on),
            **provenance(),
            "wall_seconds": round(time.time() - self._opened, 3),
            **facts,
        }
        write_json(self.folder / MANIFEST, manifest)
        (self.folder / STARTED).unlink(missing_ok=True)
        self.finished = True


def differences(old: Any, new: Any, path: str = "") -> list[str]:
    """What changed between two JSON values, one `path: old -> new` an entry."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted({*old, *new})
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    return [] if old == new else [f"{path}: {_short(old)} -> {_short(new)}"]


def stage_key(depends_on: Mapping[str, Any]) -> str:
    """Hash of all that a stage depends on, 16 hex digits."""
    return hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]


def finished_key(folder: Path, remedy: str) -> str:
    """The key of a finished stage, for the stages that depend on it.

    Raises:
        InputError: The stage is not there or was interrupted; `remedy` ends the message.
    """
    if not (folder / MANIFEST).is_file():
        state = "was interrupted" if (folder / STARTED).is_file() else "does not exist"
        raise InputError(f"{folder}: {state}; {remedy}")
    return str(read_json(folder / MANIFEST)["key"])


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
