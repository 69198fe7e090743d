"""What a training leaves: one plain adapter, as PEFT and vLLM load it."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from transformers import Trainer

from store.checkpoints import ADAPTER, remove_checkpoints


def save_adapter(trainer: Trainer) -> None:
    """Save the adapter as safetensors into output_dir and remove what only a resumption needs."""
    folder = Path(trainer.args.output_dir)
    trainer.save_model(str(folder))
    if trainer.is_world_process_zero():
        drop_base_weights(folder / ADAPTER)
        (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle; the manifest has the settings
        remove_checkpoints(folder)


def drop_base_weights(file: Path) -> None:
    """Leave only what was trained: PEFT puts the whole embedding matrix beside an adapter of the embeddings."""
    tensors = load_file(file)
    trained = {name: tensor for name, tensor in tensors.items() if ".lora_" in name}
    if len(trained) < len(tensors):
        save_file(trained, file, metadata={"format": "pt"})
