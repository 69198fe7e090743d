"""Shared by all tests: offline, quiet, and a tiny random model with a real tokenizer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import make_tiny_model

# One thread: models this small gain nothing from two, and lose much where the machine is busy with something else.
os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="offline", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama, see `support.make_tiny_model`."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", seed=0)
