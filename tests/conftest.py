"""Shared by all tests: offline, quiet, and a tiny random model with a real tokenizer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support import make_tiny_experiment, make_tiny_model, run_experiment

# One thread: models this small gain nothing from two, and lose much where the machine is busy with something else.
os.environ.update(HF_HUB_OFFLINE="1", WANDB_MODE="disabled", TOKENIZERS_PARALLELISM="false", OMP_NUM_THREADS="1")


SLOW = ("straight", "tests/train/test_sft.py", "tests/eval/test_vllm_engine.py", "tests/eval/test_runner_kills.py")
"""Groups of tests that take minutes, from the longest: they begin, so that no process ends with one of them alone."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for processes that share them: a file stays together, and so do all that need the run `straight`."""
    for item in items:
        name = "straight" if "straight" in getattr(item, "fixturenames", ()) else item.nodeid.partition("::")[0]
        item.add_marker(pytest.mark.xdist_group(name))
    places = {name: place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: places.get(next(item.iter_markers("xdist_group")).args[0], len(SLOW)))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama, see `support.make_tiny_model`."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny", seed=0)


@pytest.fixture(scope="session")
def tiny_experiment(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """An experiment with four trainings of the tiny model, see `support.make_tiny_experiment`."""
    return make_tiny_experiment(tmp_path_factory.mktemp("experiment"), tiny_model)


@pytest.fixture(scope="session")
def straight(tiny_experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that experiment's run, which nothing interrupted; not to be changed."""
    runs = tmp_path_factory.mktemp("straight")
    result = run_experiment(tiny_experiment, runs, WANDB_MODE="offline")
    assert result.returncode == 0, result.stderr[-3000:]
    return runs / "tiny-seed0"
