"""Adapters of the tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import make_adapter


@pytest.fixture(scope="session")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two adapters that change the answers clearly."""
    folder = tmp_path_factory.mktemp("adapters")
    return {name: make_adapter(tiny_model, folder / name, seed) for seed, name in enumerate(("one", "two"))}
