"""Teach a small model the skills that choosing by weights is made of, before any experiment is run with it.

    python -m train.curriculum.warm_up --model models/smollm2-135m-instruct --ratings \\
        --output models/smollm2-135m-warmed

Comparing two numbers first, then which way an attribute counts where its line says so, then from memory, then with
several attributes, all in contexts that no experiment uses. All layers are trained, in bfloat16 on float32 weights.
What comes out is a model of its own: it is the off-the-shelf model of its experiments, and is named as such. Killed and
started again, it goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase, set_seed

from store.console import run_command
from store.contexts import DATA, load_contexts
from store.models import fingerprint, model_folder, published_name
from store.pretrained import load_causal_model, load_tokenizer
from task.chat import ChatTokenizer, letter_ids, prompt_ids
from task.contexts import LAYOUTS, ChoiceContext, as_ratings
from task.errors import InputError
from task.prompts import messages
from task.seeding import stream
from task.trials import round_to_grid
from task.weights import LARGEST, sample_weights, utilities
from train.curriculum.course import (
    SEEDS,
    CurriculumTrainer,
    Part,
    chance_of_a,
    check_option,
    course_arguments,
    make_model,
    place_in,
)
from train.trainer.shared_prefix import IGNORED, join_rows, shared_log_probs

SPARE = DATA / "spare.jsonl"
"""Contexts that no experiment uses."""

ROWS, GROUPS = 16, 2
"""Lessons of one context, which share the beginning of their prompts and are computed as one tree, and trees a step."""

DIRECTIONS = {1: " (more is better)", -1: " (less is better)"}
"""What stands after an attribute's name where a lesson tells which way it counts."""


@dataclass(frozen=True)
class WarmUpPart(Part):
    """A part of the warm-up; its attributes are drawn from the context's.

    Attributes:
        told: Share of groups whose prompts tell which way each attribute counts, drawn anew for each lesson. In the
            others attributes have weights of their own, which no prompt tells.
        against: Share of attributes of which less is told to be better, at the beginning and at the end.
    """

    told: float
    against: tuple[float, float] = (0.5, 0.5)


CURRICULUM = (
    WarmUpPart(60, 1, told=1.0, against=(0.0, 0.0)),
    WarmUpPart(100, 1, told=1.0, against=(0.0, 0.5)),
    WarmUpPart(100, 1, told=0.3),
    WarmUpPart(80, 2, told=0.3),
    WarmUpPart(80, 5, told=0.2),
)
"""What SmolLM2-135M needed; see results/smollm2/. With weights of their own right after comparing, at once or little by
little, it forgot how to compare; so it first learns what a direction does where it reads it beside the name."""


def main() -> None:
    """Command line: `--model M --output FOLDER [--layout L] [--ratings] [--contexts N] [--learning_rate R]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder, or a model's name on the Hub")
    parser.add_argument("--revision")
    parser.add_argument("--output", type=Path, required=True, help="folder for the warmed model")
    parser.add_argument("--layout", choices=LAYOUTS, default="side_by_side")
    parser.add_argument("--ratings", action="store_true", help="attributes as ratings of 0 to 100, without units")
    parser.add_argument("--contexts", type=int, default=16, help="spare contexts to learn with")
    parser.add_argument("--learning_rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="redo it where an earlier result differs")
    arguments = parser.parse_args()
    check(arguments)
    base = model_folder(arguments.model, arguments.revision)
    keys = ("layout", "ratings", "contexts", "learning_rate", "seed")
    settings = {"base": fingerprint(base), **{key: getattr(arguments, key) for key in keys}}
    shape = {"curriculum": [asdict(part) for part in CURRICULUM], "rows": ROWS, "groups": GROUPS}
    source = published_name(arguments.model, base)
    build = partial(build_from, arguments, base)
    make_model(arguments.output, settings | shape, arguments.overwrite, build, ROWS * GROUPS, source=source)


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be learnt from, before a model is loaded.

    Raises:
        InputError: Names the option, the value and what is possible.
    """
    check_option("seed", arguments.seed, 0, SEEDS)
    check_option("learning_rate", arguments.learning_rate, 1e-9, 1)
    check_option("contexts", arguments.contexts, 2, len(load_contexts(SPARE)))  # half of them have weights of their own


def build_from(arguments: argparse.Namespace, base: Path) -> tuple[CurriculumTrainer, PreTrainedTokenizerBase]:
    """Trainer and tokenizer of a command line."""
    set_seed(arguments.seed)
    tokenizer = load_tokenizer(base)
    spare = load_contexts(SPARE, arguments.contexts)
    contexts = [replace(as_ratings(c) if arguments.ratings else c, layout=arguments.layout) for c in spare]
    lessons = LessonGroups(contexts, tokenizer, arguments.seed)
    return build_trainer(base, lessons, arguments.output, arguments.learning_rate), tokenizer


@dataclass(frozen=True)
class LessonGroups(Dataset[dict[str, Tensor]]):
    """Groups of lessons: group `index` is a function of (seed, index) and the curriculum, and none comes twice."""

    contexts: Sequence[ChoiceContext]
    tokenizer: ChatTokenizer
    seed: int

    def __len__(self) -> int:
        return GROUPS * sum(part.steps for part in CURRICULUM)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One tree of prompts as `join_rows` lays it out, with the probability of the answer A, shape (ROWS,)."""
        part, done = place_in(CURRICULUM, index // GROUPS)
        rng = stream(self.seed, "warm_up", str(index))
        told = bool(rng.random() < part.told)
        pool = self.contexts if told else self.contexts[: len(self.contexts) // 2]
        context = pool[int(rng.integers(len(pool)))]
        if part.attributes > (found := len(context.attributes)):
            raise InputError(f"{context.name}: {found} attributes; the curriculum needs {part.attributes}")
        own = sample_weights(self.seed, "warm_up", context) / LARGEST
        against = part.against[0] + done * (part.against[1] - part.against[0])
        prompts, chances = [], []
        for _ in range(ROWS):
            chosen = rng.permutation(len(own))[: part.attributes]
            weights = np.where(rng.random(len(chosen)) < against, -1.0, 1.0) if told else own[chosen]
            shown = replace(context, attributes=tuple(context.attributes[i] for i in chosen))
            a, b = round_to_grid(shown.lows + rng.random((2, len(chosen))) * shown.spans, shown)
            gain = utilities(a, weights, shown) - utilities(b, weights, shown)
            chances.append(chance_of_a(float(gain)))
            prompt = messages("decisions", told_directions(shown, weights) if told else shown, a, b)
            prompts.append(prompt_ids(self.tokenizer, prompt, {}))
        letter = letter_ids(self.tokenizer, {})[0]
        rows = [[*prompt, letter] for prompt in prompts]
        labels = [[IGNORED] * len(prompt) + [letter] for prompt in prompts]
        return join_rows(rows, labels, additive=False) | {"chance_of_a": torch.tensor(chances)}


def told_directions(context: ChoiceContext, weights: NDArray[np.float64]) -> ChoiceContext:
    """The context with its attributes' names saying which way each counts."""
    signs = np.sign(weights).astype(int).tolist()
    named = [replace(a, name=a.name + DIRECTIONS[sign]) for a, sign in zip(context.attributes, signs, strict=True)]
    return replace(context, attributes=tuple(named))


class WarmUpTrainer(CurriculumTrainer):
    """Trains on groups of lessons, on the probability of either letter."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False  # the loss is a mean: Trainer is to divide it by the groups of a step

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Tensor], **_: Any) -> Tensor:
        """Cross-entropy between the chances of the letters and the model's, a lesson's mean."""
        pair = shared_log_probs(model, inputs)[:, 0, self._letters]
        return self.letter_losses(pair, inputs["chance_of_a"]).mean()

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log how many attributes the lessons had as well."""
        if self._agreed:
            logs["attributes"] = place_in(CURRICULUM, self.state.global_step - 1)[0].attributes
        super().log(logs, *args, **kwargs)


def build_trainer(base: Path, lessons: LessonGroups, output: Path, learning_rate: float) -> WarmUpTrainer:
    """The trainer with the whole model."""
    batches = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": GROUPS}
    rates = {"learning_rate": learning_rate, "warmup_steps": 20, "adam_beta2": 0.99, "bf16": True}
    every = {"logging_steps": 10, "save_steps": 100}
    settings = course_arguments(output, len(lessons) // GROUPS, lessons.seed, **batches, **rates, **every)
    return WarmUpTrainer(
        model=load_causal_model(base, dtype=torch.float32),
        args=settings,
        data_collator=lambda groups: groups[0],
        train_dataset=lessons,
        letters=letter_ids(lessons.tokenizer, {}),
    )


if __name__ == "__main__":
    run_command(main)
