"""A new adapter beside a frozen one: both change what the model answers, and the new one alone is trained and saved.

The base model with the frozen adapter is the new one's backbone. Both stay adapters of one model, which PEFT adds up
in every matrix. Folded into the base's weights the frozen one would lose what a bfloat16 or quantised base rounds away,
and an adapter of tied embeddings would change the head, too, which it leaves alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel, TrainerCallback, set_seed

from task.errors import InputError

NEW = "default"
"""What PEFT calls the adapter that is trained. It comes first among the active ones: the trainer resumes that."""

FROZEN = "frozen"


def beside_frozen(model: PreTrainedModel, config: LoraConfig, frozen: Path, seed: int, upcast: bool) -> PeftModel:
    """A model with a new adapter and, active beside it, a frozen one.

    The new adapter is made first, right after the seed is set, as TRL makes one on a base model: with the same
    settings it begins the same whatever the backbone is.

    Args:
        model: The base model.
        config: Of the new adapter.
        frozen: Folder of the frozen adapter.
        seed: Of the training.
        upcast: Whether adapters are held in float32 where the base is in 16 bits.
    """
    set_seed(seed)
    both = get_peft_model(model, config, autocast_adapter_dtype=upcast)
    said = LoraConfig.from_pretrained(frozen)
    said.inference_mode, said.lora_dropout = True, 0.0  # it is the arm that was measured, which drops out nothing
    both.add_adapter(FROZEN, said, autocast_adapter_dtype=upcast)
    both.load_adapter(frozen, FROZEN, autocast_adapter_dtype=upcast)
    _activate_both(both)
    # PEFT would save the frozen one, too, and the trainer, resumed from two, would go on without it.
    both.save_pretrained = partial(both.save_pretrained, selected_adapters=[NEW])
    return both


def _activate_both(model: PeftModel) -> None:
    model.base_model.set_adapter([NEW, FROZEN])
    model.set_requires_grad(FROZEN, False)


@contextmanager
def backbone_alone(model: PeftModel) -> Iterator[None]:
    """The model without the adapter that is trained: the base model, or the frozen arm."""
    if FROZEN not in model.peft_config:
        with model.disable_adapter():
            yield
        return
    model.base_model.set_adapter(FROZEN, inference_mode=True)
    try:
        yield
    finally:
        _activate_both(model)


def frozen_hash(model: torch.nn.Module) -> str:
    """A hash of the frozen adapter's tensors, of what this process holds of them where they are sharded."""
    digest = hashlib.sha256()
    for name, parameter in model.named_parameters():
        if FROZEN in name.split("."):
            held = getattr(parameter, "ds_tensor", parameter)  # DeepSpeed's share of it
            held = held.to_local() if hasattr(held, "to_local") else held  # FSDP's
            digest.update(held.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class FrozenStays(TrainerCallback):
    """Holds a training to what it promises: the frozen adapter is the same after the last step as before the first."""

    def on_train_begin(self, args: Any, state: Any, control: Any, model: torch.nn.Module, **_: Any) -> None:
        """Note the tensors, and that none of them is trained."""
        if trained := [n for n, p in model.named_parameters() if FROZEN in n.split(".") and p.requires_grad]:
            raise InputError(f"frozen_adapter: {len(trained)} of its tensors would be trained ({trained[0]})")
        self._before = frozen_hash(model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: torch.nn.Module, **_: Any) -> None:
        """Compare them with what they were."""
        if frozen_hash(model) != self._before:
            raise InputError("frozen_adapter: its tensors changed in training, so the new adapter belongs to no arm")
