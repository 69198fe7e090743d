"""Teach a small model the skills that choosing by weights is made of, before any experiment is run with it.

    python -m train.curriculum.own_words --model models/smollm2-135m-instruct --output models/smollm2-135m-own-words
    python -m train.curriculum.warm_up --model models/smollm2-135m-instruct --ratings \\
        --own_words models/smollm2-135m-own-words --output models/smollm2-135m-warmed
    python -m train.curriculum.warm_up --settle models/smollm2-135m-warmed --model models/smollm2-135m-instruct \\
        --ratings --contexts 40 --times 1 --own_words models/smollm2-135m-own-words --output models/smollm2-135m-settled

Comparing two numbers first, then which way an attribute counts where its line says so, then from memory, then with
several attributes, all in contexts that no experiment uses. In between, texts in the model's own words hold it to the
language that it had, and reports show it their form. All layers are trained. `--settle` goes on from what came out, at
a lower rate, with more language than decisions and reports of more contexts. What comes out is a model of its own: it
is the off-the-shelf model of its experiments, and is named as such. It is saved in bfloat16, as models are published.
Killed and started again, it goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import kl_div
from transformers import PreTrainedTokenizerBase, set_seed

from store.console import run_command
from store.contexts import DATA, load_contexts
from store.files import hash_file, write_json
from store.models import fingerprint, model_folder, published_name
from store.pretrained import load_causal_model, load_tokenizer
from task.chat import letter_ids
from task.contexts import LAYOUTS, as_ratings
from task.errors import InputError
from train.curriculum.course import (
    CURVE,
    SEEDS,
    CurriculumTrainer,
    check_option,
    course_arguments,
    make_model,
    place_in,
)
from train.curriculum.own_words import TEXTS, load_own_words
from train.curriculum.skills import ENDED, REPORTS, ROWS, Lessons, WarmUpPart
from train.trainer.shared_prefix import IGNORED, shared_log_probs

SPARE = DATA / "spare.jsonl"
"""Contexts that no experiment uses."""


@dataclass(frozen=True)
class Course:
    """What one training learns from.

    Attributes:
        curriculum: Its decisions.
        trees: Trees of decisions in a group of items; see `Lessons`.
        language: Items of language that follow them.
        reported: Share of them that are reports.
        listed: Share of them that are lists of values.
        learning_rate: The highest, of AdamW.
        back: How far the weights go back to those of the model of before, as a share of the way, before the first step.
    """

    curriculum: tuple[WarmUpPart, ...]
    trees: int
    language: int
    reported: float
    listed: float
    learning_rate: float
    back: float = 0.0


LEARN = Course(
    curriculum=(
        WarmUpPart(50, 1, told=1.0, compared=0.3, against=(0.0, 0.0)),
        WarmUpPart(80, 1, told=1.0, compared=0.1, against=(0.0, 0.5)),
        WarmUpPart(40, 1, told=1.0, compared=0.1),
        WarmUpPart(50, 1, told=0.5, compared=0.1),
        WarmUpPart(60, 2, told=0.4, compared=0.2, tree=(8, 1, 2)),
        WarmUpPart(90, 5, told=0.2, compared=0.3, tree=(4, 2, 2)),
    ),
    trees=2,
    language=1,
    reported=0.25,
    listed=0.0,
    learning_rate=1e-4,
)
"""What SmolLM2-135M needed; see results/smollm2/. With weights of their own right after comparing, at once or little by
little, it forgot how to compare; so it first learns what a direction does where it reads it beside the name."""

SETTLE = Course(
    curriculum=(WarmUpPart(140, 5, told=0.3, compared=0.2, tree=(4, 2, 2)),),
    trees=1,
    language=5,
    reported=0.25,
    listed=0.2,
    learning_rate=3e-5,
    back=0.25,
)
"""What is to bring a warmed model's language back: after `LEARN` the perplexity of its own words had risen by 19%, and
half of its reports could not be read, since names were miscopied. Weights between those of both models cost fewer
decisions than they give back of language (Wortsman et al. 2022, "Robust fine-tuning of zero-shot models"): .15 of the
way took a fifth of the rise and hardly any agreement, .30 took two fifths and .08 of agreement."""

KEPT, TOLD = 4.0, 1.0
"""How much a text's divergence from the model of before counts, and a report's loss, where a tree of decisions counts
1; all of them are means, in nats. With 2 the divergence stood at .2 to .3 nats a token while weights were learned,
where 10% more perplexity is .095; with 4 it ended at .17."""


def main() -> None:
    """Command line: `--model M --own_words FOLDER --output FOLDER [--layout L] [--ratings] [--contexts N] ...`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder, or a model's name on the Hub")
    parser.add_argument("--revision")
    parser.add_argument("--settle", metavar="FOLDER", help="a model that was warmed up from --model, to go on from")
    parser.add_argument("--own_words", type=Path, required=True, help="folder of train.curriculum.own_words")
    parser.add_argument("--output", type=Path, required=True, help="folder for the warmed model")
    parser.add_argument("--layout", choices=LAYOUTS, default="side_by_side")
    parser.add_argument("--ratings", action="store_true", help="attributes as ratings of 0 to 100, without units")
    parser.add_argument("--contexts", type=int, default=16, help="spare contexts to learn with")
    parser.add_argument("--times", type=int, default=2, help="so many times the trees and texts of each step")
    parser.add_argument(
        "--wide", type=int, default=2, help="so many times the decisions of each tree; with 1 it did not learn"
    )
    parser.add_argument("--learning_rate", type=float, help="1e-4 unless given, or 3e-5 with --settle")
    parser.add_argument(
        "--bf16", action="store_true", help="bfloat16 autocast: fast only on GPUs and processors that have it"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--overwrite", action="store_true", help="redo it where an earlier result differs")
    arguments = parser.parse_args()
    check(arguments)
    load_own_words(arguments.own_words, held_out=False)  # refuses what is none of its folders
    base = model_folder(arguments.model, arguments.revision)
    start = model_folder(arguments.settle) if arguments.settle else base
    course = SETTLE if arguments.settle else LEARN
    course = replace(course, learning_rate=arguments.learning_rate or course.learning_rate)
    keys = ("layout", "ratings", "contexts", "times", "wide", "bf16", "seed")
    settings = {
        "base": fingerprint(base),
        "start": fingerprint(start),
        **{key: getattr(arguments, key) for key in keys},
    }
    shape = {
        **asdict(course),
        "own_words": hash_file(arguments.own_words / TEXTS),
        "rows": [ROWS, ENDED],
        "reports": REPORTS,
        "weights": [KEPT, TOLD],
    }
    source = published_name(arguments.model, base)
    build = partial(build_from, arguments, course, base, start)
    lessons = ROWS * arguments.wide * course.trees * arguments.times
    make_model(
        arguments.output, settings | shape, arguments.overwrite, build, lessons, dtype=torch.bfloat16, source=source
    )


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be learnt from, before a model is loaded.

    Raises:
        InputError: Names the option, the value and what is possible.
    """
    check_option("seed", arguments.seed, 0, SEEDS)
    for name in ("times", "wide"):
        check_option(name, getattr(arguments, name), 1, 64)
    if arguments.learning_rate is not None:
        check_option("learning_rate", arguments.learning_rate, 1e-9, 1)
    check_option("contexts", arguments.contexts, 2, len(load_contexts(SPARE)))  # half of them have weights of their own


def build_from(
    arguments: argparse.Namespace, course: Course, base: Path, start: Path
) -> tuple[CurriculumTrainer, PreTrainedTokenizerBase]:
    """Trainer and tokenizer of a command line: it goes on from `start` and stays near `base`."""
    set_seed(arguments.seed)
    tokenizer = load_tokenizer(base)
    spare = load_contexts(SPARE, arguments.contexts)
    contexts = [replace(as_ratings(c) if arguments.ratings else c, layout=arguments.layout) for c in spare]
    texts = load_own_words(arguments.own_words, held_out=False)
    mixture = {name: getattr(course, name) for name in ("trees", "language", "reported", "listed")}
    amounts = {"times": arguments.times, "wide": arguments.wide}
    lessons = Lessons(course.curriculum, contexts, texts, tokenizer, arguments.seed, **mixture, **amounts)
    trainer = build_trainer(base, start, lessons, arguments.output, course, arguments.bf16)
    return trainer, tokenizer


class WarmUpTrainer(CurriculumTrainer):
    """Trains on the probability of either letter, on reports, and on staying near the model of before."""

    def __init__(self, *args: Any, before: torch.nn.Module, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False  # the loss is a mean: Trainer is to divide it by the items of a step
        self._before = before.to(self.args.device).eval().requires_grad_(False)
        self._measured: dict[str, list[float]] = defaultdict(list)

    def compute_loss(self, model: torch.nn.Module, inputs: dict[str, Tensor], **_: Any) -> Tensor:
        """The loss of an item of `Lessons`."""
        found, labels = shared_log_probs(model, inputs), inputs["labels"][:, 1:]
        if "kept" in inputs:
            with torch.no_grad():
                before = shared_log_probs(self._before, inputs)
            apart = kl_div(found, before, reduction="sum", log_target=True) / labels.numel()
            return KEPT * self._noted("divergence", apart)
        right = -found.gather(2, labels.clamp(min=0)[..., None])[..., 0]
        if "chance_of_a" not in inputs:
            return TOLD * self._noted("reporting", right[labels != IGNORED].mean())
        letters = self.letter_losses(found[:, 0, self._letters], inputs["chance_of_a"]).mean()
        ends = right[:, 1:][labels[:, 1:] != IGNORED].mean()
        return self._noted("deciding", letters) + self._noted("ending", ends)

    def _noted(self, name: str, loss: Tensor) -> Tensor:
        """A part of the loss, noted for the log."""
        self._measured[name].append(float(loss.detach()))
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the parts of the loss, in nats, and how many attributes the lessons had as well."""
        if self._measured:
            logs.update({name: float(np.mean(values)) for name, values in self._measured.items()})
            logs["attributes"] = place_in(self.train_dataset.curriculum, self.state.global_step - 1)[0].attributes
            self._measured.clear()
        super().log(logs, *args, **kwargs)
        write_json(Path(self.args.output_dir) / CURVE, self.state.log_history)


def build_trainer(base: Path, start: Path, lessons: Lessons, output: Path, course: Course, bf16: bool) -> WarmUpTrainer:
    """The trainer with the whole model of `start`, so far back as the course says, and `base` beside it.

    Raises:
        InputError: They are not of one shape.
    """
    batches = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": lessons.items * lessons.times}
    rates = {"learning_rate": course.learning_rate, "warmup_steps": 20, "adam_beta2": 0.99, "bf16": bf16}
    every = {"logging_steps": 10, "save_steps": 50}
    settings = course_arguments(output, lessons.steps, lessons.seed, **batches, **rates, **every)
    model, before = (load_causal_model(folder, dtype=torch.float32) for folder in (start, base))
    if [p.shape for p in model.parameters()] != [p.shape for p in before.parameters()]:
        raise InputError(
            f"--settle {start}: not of the shape of --model {base}; give a model that was warmed up from it"
        )
    with torch.no_grad():
        for now, then in zip(model.parameters(), before.parameters(), strict=True):
            now.lerp_(then, course.back)
    return WarmUpTrainer(
        model=model,
        before=before,
        args=settings,
        data_collator=lambda items: items[0],
        train_dataset=lessons,
        letters=letter_ids(lessons.tokenizer, {}),
    )


if __name__ == "__main__":
    run_command(main)
