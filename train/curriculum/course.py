"""What trainings by a curriculum share: lessons in their order, each once, how many are answered rightly, and the way
from an empty folder to a model that has a manifest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

from store.checkpoints import MODEL, last_complete_checkpoint, remove_checkpoints
from store.console import say, warn
from store.files import write_json
from store.locks import held
from store.manifests import ModelFacts
from store.stages import Stage
from task.errors import InputError
from train.trainer.progress import show_progress

SEEDS = 2**32 - 1
"""The largest seed of all the libraries that take one."""

CURVE = "learning_curve.json"
"""File of a model with what its training logged."""

RATIONALITY = 8.0
"""Log-odds of the better option per unit of utility difference. A noisy chooser: certainty would leave a model so sure
of itself that teaching it other weights begins with a long unlearning."""


@dataclass(frozen=True)
class Part:
    """A part of a curriculum: so many optimiser steps on options with so many attributes."""

    steps: int
    attributes: int


P = TypeVar("P", bound=Part)


def place_in(curriculum: Sequence[P], step: int) -> tuple[P, float]:
    """The part of a curriculum that a step belongs to, and how far into it the step is, from 0 to 1."""
    for part in curriculum:
        if step < part.steps:
            return part, step / part.steps
        step -= part.steps
    raise IndexError(f"step {step} is past the end of the curriculum")


def chance_of_a(gain: float) -> float:
    """Probability with which a noisy chooser takes option A, by the utility that it has more than B."""
    return 1 / (1 + math.exp(-RATIONALITY * gain))


class CurriculumTrainer(Trainer):
    """Takes lessons in their order, and logs the agreement of its choices with the better options."""

    def __init__(self, *args: Any, letters: tuple[int, int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._letters = list(letters)
        self._agreed: list[float] = []
        show_progress(self)

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)

    def letter_losses(self, pair: Tensor, chance: Tensor) -> Tensor:
        """Cross-entropy between the chance of A that is taught and the model's; notes the agreement.

        `pair` holds log P(A) and log P(B), shape (choices, 2); the chance and what comes back have shape (choices,).
        """
        self._agreed += ((pair[:, 0] > pair[:, 1]) == (chance > 0.5)).float().tolist()
        return -(chance * pair[:, 0] + (1 - chance) * pair[:, 1])

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the agreement with the better option since the last time; as no lesson comes twice, it is held out."""
        if self._agreed:
            logs["agreement"], self._agreed = float(np.mean(self._agreed)), []
        super().log(logs, *args, **kwargs)


def check_option(name: str, value: float, low: float, high: float) -> None:
    """Refuse a value of an option that no training can be done with, before a model is loaded or made.

    Raises:
        InputError: Names the option, the value and what is possible.
    """
    if not low <= value <= high:
        raise InputError(f"--{name} {value:g}; give {low:g} to {high:g}")


def course_arguments(folder: Path, steps: int, seed: int, **more: Any) -> TrainingArguments:
    """Arguments of a training by a curriculum: its rate falls linearly over the last fifth of the steps."""
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        lr_scheduler_type="warmup_stable_decay",
        lr_scheduler_kwargs={"num_decay_steps": steps // 5},
        save_total_limit=1,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        seed=seed,
        use_cpu=not torch.accelerator.is_available(),
        **more,
    )


def make_model(
    folder: Path,
    depends_on: Mapping[str, Any],
    overwrite: bool,
    build: Callable[[], tuple[CurriculumTrainer, PreTrainedTokenizerBase]],
    lessons_per_step: int,
    dtype: torch.dtype = torch.float32,
    **origin: str | None,
) -> None:
    """Train a model, or go on from the last checkpoint, and save it with its tokenizer, learning curve and manifest.

    `build` makes the trainer and the tokenizer, if there is something to do; `dtype` is the type of the saved weights;
    `origin` is what the manifest is to say of the model, see `ModelFacts`; `depends_on` and `overwrite` are those of
    `Stage`.
    """
    with held(folder):
        stage = Stage(folder, depends_on, overwrite)
        if stage.finished:
            say(f"{folder}: finished before, nothing to do")
            return
        trainer, tokenizer = build()
        checkpoint = last_complete_checkpoint(folder, MODEL, tell=warn)
        if checkpoint:
            warn(f"resuming from {checkpoint}")
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trainer.model.to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        remove_checkpoints(folder)
        write_json(folder / CURVE, trainer.state.log_history)
        lessons, parameters = trainer.state.global_step * lessons_per_step, trainer.model.num_parameters()
        stage.finish(ModelFacts(lessons=lessons, parameters=parameters, **origin))
        far = f"{folder / CURVE}"
        say(f"{folder}: {parameters:,} parameters after {lessons:,} lessons; how far it came: {far}")
