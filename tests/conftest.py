"""Shared by all tests: offline, quiet, and a tiny random model with a real tokenizer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import made_once, make_tiny_experiment, make_tiny_model, run_experiment

# One thread: models this small gain nothing from two, and lose much where the machine is busy with something else.
os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="disabled", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")


SLOW = (
    "experiment/test_pipeline",
    "experiment/test_inside_pipeline",
    "train/test_sft",
    "experiment/test_chain",
    "experiment/test_state",
    "eval/test_vllm",
)
"""Files of tests that take minutes. They begin, so that no process ends with one of them alone; those that need the run
`straight` most likely come to the process that has made it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put slow files first, in their order."""
    places = {name: place for place, name in enumerate(SLOW)}

    def place(item: pytest.Item) -> int:
        return next((place for name, place in places.items() if f"tests/{name}" in item.nodeid), len(SLOW))

    items.sort(key=place)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama, see `support.make_tiny_model`."""
    return made_once(tmp_path_factory, "model", lambda folder: make_tiny_model(folder / "tiny", seed=0)) / "tiny"


@pytest.fixture(scope="session")
def tiny_experiment(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """An experiment with four trainings of the tiny model, see `support.make_tiny_experiment`."""
    made = made_once(tmp_path_factory, "experiment", lambda folder: make_tiny_experiment(folder, tiny_model))
    return made / "tiny.yaml"


@pytest.fixture(scope="session")
def straight(tiny_experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that experiment's run, which nothing interrupted; not to be changed."""

    def run(folder: Path) -> None:
        result = run_experiment(tiny_experiment, folder, WANDB_MODE="offline")
        assert result.returncode == 0, result.stderr[-3000:]

    return made_once(tmp_path_factory, "straight", run) / "tiny-seed0"
