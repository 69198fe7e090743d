"""Training examples a second: the plain recipe beside ours, at equal loss.

    python scripts/benchmarks/training.py --out results/benchmarks/training.json

Every recipe runs the same rows of instillation through the real trainer with LoRA, at a learning rate of 0: the
optimizer does its work and the model stays as it was, so that the mean loss of an epoch must be the same for all.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets.utils.logging import disable_progress_bar
from transformers import PrinterCallback, TrainerCallback
from transformers.utils.logging import set_verbosity_error
from trl import SFTConfig, SFTTrainer, get_peft_config

from scripts.benchmarks.timing import Seconds, machine, now, save, show
from store.console import run_command
from store.contexts import DATA, load_contexts, save_contexts
from store.examples import ExamplesConfig, read_examples
from store.pretrained import load_tokenizer
from store.weights import save_weights
from task.errors import InputError
from task.weights import sample_weights
from train.arguments import LoraArguments, TeachingArguments, TeachingConfig
from train.examples import make_examples
from train.trainer.build import build_trainer, load_model, to_dataset

BATCH = 8
"""Rows of a step, the effective batch of SmolLM2's instillation."""


class FullLogitsTrainer(SFTTrainer):
    """The plain recipe with the loss of transformers' own models, which computes the logits of every position.

    TRL 1.16 scores the labels in tiles where there is Triton; without it, it scores every position and is slower than
    this on a CPU.
    """

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Mean negative log-likelihood of the labels of one batch."""
        return model(**inputs, use_cache=False).loss


@dataclass(frozen=True)
class Recipe:
    """One way to train.

    Attributes:
        name: What it is, in words.
        plain: Trainer of a plain recipe (eager attention, activations computed again); None for ours (sdpa, kept).
        share: `share_prefixes` of ours.
        rows: Rows at a time; gradients are accumulated to `BATCH`.
    """

    name: str
    plain: type[SFTTrainer] | None = None
    share: int | None = None
    rows: int = BATCH


RECIPES = (
    Recipe("plain: TRL's SFTTrainer as it is, eager attention, checkpointing", plain=SFTTrainer),
    Recipe("plain, loss from transformers' full logits", plain=FullLogitsTrainer),
    Recipe("ours: sdpa, no checkpointing, logits at the labels"),
    Recipe("ours, share_prefixes 4, four rows at a time", share=4, rows=4),
    Recipe("ours, share_prefixes 8", share=8),
)


class StepClock(TrainerCallback):
    """When each step of a training ended, with all that went before it (batches are laid out between the steps)."""

    def __init__(self) -> None:
        self.ends: list[Seconds] = []

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.ends.append(now())

    def fewest(self) -> Seconds:
        """Fewest seconds a step: what else runs on a machine only adds. The first step, which warms up, is left out."""
        return Seconds(*np.diff(self.ends, axis=0).min(axis=0).tolist())


def write_rows(folder: Path, contexts: int) -> Path:
    """Write instillation's rows of a few contexts, a batch each, and return their file."""
    chosen = load_contexts(DATA / "instilled.jsonl", contexts)
    save_contexts(chosen, folder / "contexts.jsonl")
    save_weights({c.name: sample_weights(0, "target_weights", c) for c in chosen}, folder / "weights.csv")
    config = ExamplesConfig(
        contexts=str(folder / "contexts.jsonl"),
        weights=str(folder / "weights.csv"),
        teach="decisions",
        output=str(folder / "rows"),
        seed=0,
        train_per_context=BATCH,
        validation_per_context=1,
    )
    make_examples(config)
    return config.file("train")


def trainer_of(recipe: Recipe, model: str, rows: Path, folder: Path) -> SFTTrainer:
    """The trainer of a recipe over the rows, one epoch at a learning rate of 0."""
    attention = "eager" if recipe.plain else "sdpa"
    lora = LoraArguments(
        model_name_or_path=model, attn_implementation=attention, dtype="float32", lora_r=16, lora_alpha=32
    )
    common: dict[str, Any] = {
        "output_dir": str(folder / "out"),
        "num_train_epochs": 1,
        "per_device_train_batch_size": recipe.rows,
        "gradient_accumulation_steps": BATCH // recipe.rows,
        "learning_rate": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": recipe.plain is not None,
        "dataloader_pin_memory": False,
    }
    if recipe.plain is None:
        teaching = TeachingArguments(train_file=str(rows), share_prefixes=recipe.share)
        return build_trainer(teaching, TeachingConfig(**common), lora, read_examples(rows), [])
    on_cpu = not torch.accelerator.is_available()
    return recipe.plain(
        model=load_model(lora, None),
        args=SFTConfig(**common, max_length=None, use_cpu=on_cpu, bf16=not on_cpu),
        train_dataset=to_dataset(read_examples(rows), {}),
        processing_class=load_tokenizer(model),
        peft_config=get_peft_config(lora),
    )


def measure(recipe: Recipe, model: str, rows: Path, folder: Path) -> dict[str, Any]:
    """Examples a second, mean loss of the epoch, and tokens that go through the model for one epoch."""
    trainer, clock = trainer_of(recipe, model, rows, folder), StepClock()
    trainer.add_callback(clock)
    trainer.remove_callback(PrinterCallback)
    tokens = 0

    def count(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        nonlocal tokens
        tokens += kwargs["input_ids"].numel()

    trainer.model.register_forward_pre_hook(count, with_kwargs=True)
    trainer.train()
    processor, wall = clock.fewest()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "recipe": recipe.name,
        "examples_per_second": round(BATCH / wall, 3),
        "processor_seconds_per_example": round(processor / BATCH, 3),
        "loss": sum(losses) / len(losses),
        "tokens": tokens,
    }


def compare(model: str, rows: Path, folder: Path) -> list[dict[str, Any]]:
    """Measure all recipes; adds how much faster each is than the fastest plain one, and the difference in loss."""
    found = []
    for recipe in RECIPES:
        found.append(measure(recipe, model, rows, folder))
        gc.collect()  # a trainer refers to itself and would keep its model
    plain = max(
        (entry for entry, recipe in zip(found, RECIPES, strict=True) if recipe.plain),
        key=lambda entry: entry["examples_per_second"],
    )
    spent = "processor_seconds_per_example"
    for entry in found:
        entry["ratio"] = round(entry["examples_per_second"] / plain["examples_per_second"], 2)
        entry["processor_ratio"] = round(plain[spent] / entry[spent], 2)
        entry["loss_difference"] = entry["loss"] - plain["loss"]
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="models/smollm2-135m-instruct")
    parser.add_argument("--contexts", type=int, default=4)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    asked = parser.parse_args()
    if asked.contexts < 2:
        raise InputError(f"--contexts {asked.contexts}; give 2 or more: the first one's step only warms up")
    set_verbosity_error()
    disable_progress_bar()
    with tempfile.TemporaryDirectory() as name:
        found = compare(asked.model, write_rows(Path(name), asked.contexts), Path(name))
    count = asked.contexts * BATCH
    show(f"{count} rows of instillation, {BATCH} a step, {asked.model}, {machine()}", found)
    save(asked.out, model=asked.model, rows=count, batch=BATCH, recipes=found)


if __name__ == "__main__":
    run_command(main)
