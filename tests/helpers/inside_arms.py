"""Adapters of the model organism and answers to look into, small enough for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from inside.adapted import Adapted, adapted
from inside.answers import Answer
from inside.loading import BaseModel
from store.checkpoints import ADAPTER
from store.contexts import DATA, load_contexts, save_contexts
from store.inside import InsideArm
from store.pretrained import load_causal_model
from support import ROOT
from task.contexts import as_ratings
from train.adapters import drop_base_weights

ORGANISM = ROOT / "models" / "organism"

LETTER, NUMBER = 40, 41
"""Tokens after which the made-up answers decide, and say a number."""


def make_adapter(folder: Path, seed: int, std: float, **config: Any) -> Path:
    """A random adapter of the organism; every factor counts."""
    torch.manual_seed(seed)
    settings = {"r": 3, "target_modules": ["q_proj", "v_proj", "down_proj"], "init_lora_weights": False, **config}
    model = get_peft_model(load_causal_model(ORGANISM), LoraConfig(**settings))
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=std)
    model.save_pretrained(folder)
    drop_base_weights(folder / ADAPTER)
    return folder


def changed(adapter: Path, folder: Path, a: float, b: float) -> Path:
    """A copy of an adapter with every A and every B multiplied by a number."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_bytes((adapter / "adapter_config.json").read_bytes())
    tensors = load_file(adapter / ADAPTER)
    save_file({n: t * (a if "lora_A" in n or "embedding_A" in n else b) for n, t in tensors.items()}, folder / ADAPTER)
    return folder


@contextmanager
def loaded(base: BaseModel, adapter: Path, frozen: Path | None = None) -> Iterator[Adapted]:
    """A model with an adapter, and maybe a frozen one below it."""
    arm = InsideArm(
        adapter=str(adapter),
        frozen=None if frozen is None else str(frozen),
        contexts=[{"name": "none", "file": "none.jsonl"}],
    )
    with adapted(base, arm) as model:
        yield model


def made_up(last: int, seed: int, count: int = 5, places: int = 1) -> list[Answer]:
    """Answers of unlike lengths whose places come after a token of their own; the token of padding is among them."""
    draws, found = np.random.default_rng(seed), []
    for _ in range(count):
        ids = draws.integers(0, 5000, size=draws.integers(8, 14)).tolist()
        where = [len(ids) - 1 - 2 * place for place in reversed(range(places))]
        for place in where:
            ids[place] = last
        ids[1] = 0
        found.append(Answer(ids, where))
    return found


DECIDING, REPORTING = made_up(LETTER, seed=1), made_up(NUMBER, seed=2, places=3)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def save_organism_contexts(path: Path, count: int) -> Path:
    """Contexts as the organism reads them."""
    contexts = load_contexts(DATA / "instilled.jsonl", count)
    save_contexts([replace(as_ratings(c), layout="side_by_side") for c in contexts], path)
    return path
