"""Random adapters that change a tiny model clearly, and what a model with one of them says."""

from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from transformers import AutoModelForCausalLM

from store.checkpoints import ADAPTER
from store.derived import DeriveConfig
from train.adapters import drop_base_weights
from train.derived import derive

IDS = torch.arange(30).reshape(3, 10)
"""Three rows of tokens that every tiny model knows."""


def random_adapter(model: Path, folder: Path, seed: int, std: float = 0.1, **config: object) -> Path:
    """A random adapter of the embeddings and of some matrices, unless told otherwise; every factor counts."""
    torch.manual_seed(seed)
    settings: dict[str, Any] = {"r": 4, "target_modules": ["embed_tokens", "q_proj", "down_proj"], **config}
    adapted = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model, trust_remote_code=False), LoraConfig(**settings)
    )
    for name, parameter in adapted.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=std)
    adapted.save_pretrained(folder)
    drop_base_weights(folder / ADAPTER)
    return folder


def derived(model: Path, output: Path, *terms: tuple[Path, list[dict[str, Any]]]) -> Path:
    """The weighted sum of some adapters."""
    said = [{"adapter": str(folder), "parts": parts} for folder, parts in terms]
    derive(DeriveConfig.model_validate({"model": str(model), "terms": said, "output": str(output)}))
    return output


def loaded(model: Path, adapter: Path | None) -> torch.nn.Module:
    """A model with an adapter as PEFT loads it, for answering."""
    base = AutoModelForCausalLM.from_pretrained(model, trust_remote_code=False)
    return PeftModel.from_pretrained(base, adapter) if adapter else base


def logits_of(model: torch.nn.Module) -> Tensor:
    """What a model says to `IDS`."""
    with torch.no_grad():
        return model.eval()(IDS).logits
