"""What a training leaves: one plain adapter, as PEFT and vLLM load it, in which something was learned."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import Trainer

from store.checkpoints import ADAPTER, remove_checkpoints
from store.files import read_json, write_json
from store.lora import ADAPTER_CONFIG
from task.errors import InputError

FROM_ZERO = (".lora_B.", ".lora_embedding_A")
"""Factors of an adapter that begin at zero, so that a new adapter changes nothing."""


def save_adapter(trainer: Trainer, start: str | None) -> None:
    """Save the adapter as safetensors into output_dir and remove what only a resumption needs.

    What is saved is judged, and not what is in memory: where parameters are sharded, the main process alone has all
    of them, and only while it saves. `start` is the folder of the adapter that training went on from.

    Raises:
        InputError: Nothing was learned, or training diverged; no adapter is left that could be taken for a trained one.
    """
    folder = Path(trainer.args.output_dir)
    save_plain(trainer, folder)
    if trainer.is_world_process_zero():
        begun = Path(start) / ADAPTER if start else None
        if problem := not_learned(folder / ADAPTER, begun, trainer.args.learning_rate):
            (folder / ADAPTER).unlink()
            raise InputError(f"{folder}: {problem}")
        remove_checkpoints(folder)


def save_plain(trainer: Trainer, folder: Path) -> None:
    """Save the adapter as it is now: what was trained and no more, in an order that does not depend on the process.

    All processes take part, as the trainer gathers what is sharded; the main one alone writes.
    """
    trainer.save_model(str(folder), _internal_call=True)
    if trainer.is_world_process_zero():
        drop_base_weights(folder / ADAPTER)
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle; the manifest has the settings
        order_names(folder / ADAPTER_CONFIG)


def drop_base_weights(file: Path) -> None:
    """Leave only what was trained: PEFT puts the whole embedding matrix beside an adapter of the embeddings."""
    tensors = load_file(file)
    trained = {name: tensor for name, tensor in tensors.items() if ".lora_" in name}
    if len(trained) < len(tensors):
        save_file(trained, file, metadata={"format": "pt"})


def order_names(file: Path) -> None:
    """Put the names in an adapter's configuration in order: PEFT writes sets, whose order differs between processes."""
    config = read_json(file)
    write_json(file, {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()})


def not_learned(file: Path, start: Path | None, learning_rate: float) -> str | None:
    """Why the adapter in a file cannot be what a training learned, with the likely cause; None where it can.

    Each tensor must have a finite norm (in float32, in which values of 1e19 have none either), no factor that begins at
    zero may still be zero, and some tensor must differ from the adapter in the file `start`, if training went on from
    one.
    """
    tensors = load_file(file)
    if diverged := [n for n, tensor in tensors.items() if not torch.linalg.vector_norm(tensor.float()).isfinite()]:
        return (
            f"training diverged, {len(diverged)} of {len(tensors)} tensors of the adapter are not finite "
            f"({diverged[0]}): learning_rate {learning_rate:g} is too high; take a third of it, or a longer warm-up"
        )
    before = load_file(start) if start else {}
    if start and all(name in before and torch.equal(t, before[name].to(t.dtype)) for name, t in tensors.items()):
        return f"nothing was learned, the adapter is still that of {start.parent}: {_cause(learning_rate)}"
    factors = [name for name in tensors if any(part in name for part in FROM_ZERO)]
    if still := [name for name in factors if not tensors[name].any()]:
        found = f"{len(still)} of {len(factors)} factors of the adapter are still zero ({still[0]})"
        return f"{found}: {_cause(learning_rate)}"
    return None


def _cause(learning_rate: float) -> str:
    if learning_rate <= 0:
        return f"learning_rate is {learning_rate:g}; give one above 0"
    return (
        f"layers are frozen or take no part in the answer, or learning_rate {learning_rate:g} is too small to show or "
        "was 0 in every step (a warm-up without end); check lora_target_modules and warmup_steps"
    )
