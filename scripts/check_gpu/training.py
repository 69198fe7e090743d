"""Training by our own trainer: it learns, leaves the base alone, resumes, and leaves one plain adapter."""

from __future__ import annotations

import gc
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from scripts.check_gpu.checking import Asked, Found
from scripts.check_gpu.models import model_of, write_contexts
from store.checkpoints import ADAPTER
from store.contexts import load_contexts
from store.examples import ExamplesConfig, read_examples
from store.files import hash_file
from store.manifests import BaseModelRecord, ExampleFacts
from store.models import check_adapter, fingerprint
from store.weights import save_weights
from task.weights import sample_weights
from train.adapters import save_adapter
from train.arguments import LoraArguments, TeachingArguments, TeachingConfig
from train.examples import make_examples
from train.sft import teach
from train.trainer.build import build_trainer
from train.trainer.progress import ProgressBar

ROWS = 8
"""Rows of a step."""

RATE = 2e-3
"""Learning rate: high, so that few steps show whether anything is learned."""

SAME_LOSS = {"float32": 1e-3, "bfloat16": 5e-2}
"""Most that a loss after a resumption may differ from the uninterrupted one on a GPU, whose kernels add in no fixed
order. On a CPU the adapters must be the same byte for byte."""


class Cut(Exception):
    """Ends a training as a kill would, between two checkpoints."""


class CutAt(TrainerCallback):
    """Cuts a training off after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Cut off."""
        if state.global_step == self.step:
            raise Cut


@dataclass(frozen=True)
class Trained:
    """A finished training: its adapter's folder, the loss of each step, whether the base is as it was."""

    folder: Path
    losses: dict[int, float]
    base_unchanged: bool


def write_rows(folder: Path, contexts: int, steps: int) -> ExamplesConfig:
    """Rows of instillation for so many steps."""
    file = write_contexts(contexts, folder)
    weights = {c.name: sample_weights(0, "target_weights", c) for c in load_contexts(file)}
    save_weights(weights, folder / "weights.csv")
    config = ExamplesConfig(
        contexts=str(file),
        weights=str(folder / "weights.csv"),
        teach="decisions",
        output=str(folder / "rows"),
        seed=0,
        train_per_context=-(-steps * ROWS // contexts),
        validation_per_context=4,
    )
    make_examples(config)
    return config


def arguments(
    model: Path, rows: ExamplesConfig, output: Path, dtype: str, asked: Asked, steps: int
) -> tuple[TeachingArguments, TeachingConfig, LoraArguments]:
    """The arguments of train/sft.py for a short training with a checkpoint half-way."""
    teaching = TeachingArguments(train_file=str(rows.file("train")), validation_file=str(rows.file("validation")))
    sft = TeachingConfig(
        output_dir=str(output),
        max_steps=steps,
        per_device_train_batch_size=ROWS,
        save_strategy="steps",
        save_steps=steps // 2,
        logging_steps=1,
        learning_rate=RATE,
        report_to="none",
        bf16=dtype == "bfloat16",
        use_cpu=asked.device == "cpu",
        dataloader_pin_memory=asked.device == "cuda",
        seed=0,
    )
    return teaching, sft, LoraArguments(model_name_or_path=str(model), dtype=dtype, lora_r=8, lora_alpha=16)


def train(
    model: Path, rows: ExamplesConfig, output: Path, dtype: str, asked: Asked, cut: int | None = None
) -> Trained | None:
    """Train, or go on from the last checkpoint in `output`; None where it is cut off after `cut` steps."""
    teaching, sft, lora = arguments(model, rows, output, dtype, asked, asked.sizes.steps)
    training, validation = read_examples(rows.file("train")), read_examples(rows.file("validation"))
    trainer = build_trainer(teaching, sft, lora, training, validation)
    trainer.remove_callback(ProgressBar)
    frozen = {name: p for name, p in trainer.model.named_parameters() if not p.requires_grad}
    before = {name: p.detach().clone() for name, p in frozen.items()}
    origin = BaseModelRecord(name=str(model), revision=None, fingerprint=fingerprint(model))
    try:
        if cut is not None:
            trainer.add_callback(CutAt(cut))
        teach(trainer, teaching, sft, origin, ExampleFacts(train=len(training), validation=len(validation)))
        save_adapter(trainer, None)
    except Cut:
        return None
    finally:
        losses = {entry["step"]: entry["loss"] for entry in trainer.state.log_history if "loss" in entry}
        unchanged = all(torch.equal(before[name], p.detach().to(before[name].device)) for name, p in frozen.items())
        del trainer
        gc.collect()  # a trainer refers to itself and would keep its model
    return Trained(output, losses, unchanged)


def problems_of(trained: Trained, model: Path) -> list[str]:
    """What a finished training lacks."""
    found = []
    check_adapter(trained.folder, model, str(model))  # raises what is wrong with the file
    if not all(torch.isfinite(t).all() for t in load_file(trained.folder / ADAPTER).values()):
        found.append("the adapter holds numbers that are not finite")
    losses = [loss for _, loss in sorted(trained.losses.items())]
    part = max(1, len(losses) // 4)
    if sum(losses[-part:]) >= sum(losses[:part]):
        found.append(f"the loss did not fall ({losses[0]:.3f} to {losses[-1]:.3f})")
    if not trained.base_unchanged:
        found.append("weights of the base model changed")
    if list(trained.folder.glob("checkpoint-*")):
        found.append("checkpoints are left")
    return found


def check_one(kind: str, dtype: str, rows: ExamplesConfig, folder: Path, asked: Asked) -> tuple[dict, list[str]]:
    """Train one model straight and with an interruption; figures and problems."""
    model = model_of(kind, folder)
    straight = train(model, rows, folder / "straight" / dtype / kind, dtype, asked)
    output = folder / "resumed" / dtype / kind
    train(model, rows, output, dtype, asked, cut=asked.sizes.steps // 2 + 1)
    resumed = train(model, rows, output, dtype, asked)
    assert straight is not None and resumed is not None
    problems = problems_of(straight, model)
    apart = max(abs(straight.losses[step] - loss) for step, loss in resumed.losses.items())
    same = hash_file(straight.folder / ADAPTER) == hash_file(resumed.folder / ADAPTER)
    if not same and (asked.device == "cpu" or not apart <= SAME_LOSS[dtype]):
        problems.append(f"resumed, it went another way (losses differ by up to {apart:.2g})")
    first, last = straight.losses[1], straight.losses[max(straight.losses)]
    figures = {"first_loss": first, "last_loss": last, "resumed_same_bytes": same, "resumed_losses_apart": apart}
    return figures, problems


def check(asked: Asked) -> Found:
    """All models in all types of weights, as far as there is time."""
    found, done = (
        Found(remedy="train on with dtype: float32 and see whether that holds; update torch and the driver"),
        0,
    )
    with tempfile.TemporaryDirectory() as name:
        rows = write_rows(Path(name), asked.sizes.contexts, asked.sizes.steps)
        for kind, dtypes in asked.sizes.trained:
            for dtype in dtypes:
                if asked.clock.out:
                    found.left_out.append(f"{kind} {dtype}")
                    continue
                figures, problems = check_one(kind, dtype, rows, Path(name), asked)
                found.figures[f"{kind} {dtype}"] = figures
                found.problems += [f"{kind} {dtype}: {problem}" for problem in problems]
                done += 1
    same = sum(figures["resumed_same_bytes"] for figures in found.figures.values())
    found.said = f"all {done} of {asked.sizes.steps} steps learned; resumed, {same} gave the same bytes"
    return found
