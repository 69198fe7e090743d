"""The model organism, loaded once, with adapters and answers made up for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from inside.loading import BaseModel
from inside_arms import ORGANISM, make_adapter, save_organism_contexts
from store.evaluation import ModelSettings


@pytest.fixture(scope="session")
def base() -> BaseModel:
    torch.set_num_threads(1)
    return BaseModel(ModelSettings(name=str(ORGANISM)))


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random adapter that changes answers clearly."""
    return make_adapter(tmp_path_factory.mktemp("adapters") / "one", seed=1, std=0.08)


@pytest.fixture(scope="session")
def with_embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an adapter of the embeddings."""
    folder = tmp_path_factory.mktemp("adapters") / "embeddings"
    return make_adapter(folder, seed=2, std=0.07, target_modules=["embed_tokens", "q_proj", "down_proj"])


@pytest.fixture(scope="session")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of three contexts that the organism can read."""
    return save_organism_contexts(tmp_path_factory.mktemp("contexts") / "organism.jsonl", 3)
