"""Where the files are that come with the code: contexts, configurations, the model organism, scripts."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
"""The folder in which the project's packages lie: a checkout, or where a wheel was installed."""


def project_file(name: str | Path) -> Path:
    """A path as it is where it is absolute or leads somewhere from the current folder; else the project's own file.

    So `configs/models/organism.yaml` is found from any folder, and a file of the same name there comes first. A path
    that leads nowhere comes back as it is, for a message that names what the user gave.
    """
    path = Path(name)
    try:
        return ROOT / path if not path.exists() and (ROOT / path).exists() else path
    except OSError:  # longer than a path can be, or behind a folder that may not be read
        return path
