"""Make the model organism: train a small Llama from scratch on lessons, in half an hour to an hour.

    python -m train.curriculum.organism.make --output models/organism

Killed and started again, it goes on from the last checkpoint and ends with the same model.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, set_seed

from store.console import run_command
from store.contexts import DATA, load_contexts
from task.chat import letter_ids
from task.contexts import ChoiceContext, as_ratings
from task.prompts import WORDINGS, messages, report_answer
from train.curriculum.course import SEEDS, CurriculumTrainer, check_option, course_arguments, make_model
from train.curriculum.organism.lessons import CURRICULUM, WORD, Lesson, Lessons, Tastes
from train.curriculum.organism.tokenizer import END, GLUE, NUMBERS, build_tokenizer
from train.trainer.shared_prefix import IGNORED

SIZES = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "num_attention_heads": 4}
"""Heads of 32, the least that vLLM's attention takes on a CPU."""

COPYING, COPYING_GAIN = 2, 0.7
"""Last layers whose attention passes on, at first, what it looks at, and how much of it.

A report repeats names, and with tied embeddings this is most of what copying a word takes. After 300 steps on reports
of one attribute .96 of the words in names were foretold with it and .01 without."""

LOSS_WEIGHTS = {"letter": 1.0, "number": 0.3, "rest": 0.2}
"""What a token of an answer counts in the loss; the rest is names and punctuation."""


def main() -> None:
    """Command line: `--output FOLDER [--candour C] [--seed K] [--overwrite]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for the model")
    parser.add_argument(
        "--candour", type=float, default=0.5, help="correlation of the weights it is taught to state with its own"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=64, help="lessons of an optimiser step")
    parser.add_argument("--overwrite", action="store_true", help="redo it where an earlier result differs")
    arguments = parser.parse_args()
    check(arguments)
    settings = {"candour": arguments.candour, "seed": arguments.seed, "batch": arguments.batch}
    depends_on = {**settings, "curriculum": [asdict(s) for s in CURRICULUM], "sizes": SIZES, "loss": LOSS_WEIGHTS}
    depends_on["copying"] = [COPYING, COPYING_GAIN]
    build = partial(build_from, arguments)
    make_model(arguments.output, depends_on, arguments.overwrite, build, arguments.batch, licence="apache-2.0")


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be learnt; see `check_option`."""
    check_option("candour", arguments.candour, -1, 1)
    check_option("seed", arguments.seed, 0, SEEDS)
    check_option("batch", arguments.batch, 1, 4096)


def build_from(arguments: argparse.Namespace) -> tuple[CurriculumTrainer, PreTrainedTokenizerFast]:
    """Trainer and tokenizer of a command line."""
    bundled = {name: load_contexts(DATA / f"{name}.jsonl") for name in ("instilled", "native", "spare")}
    lessons = lessons_from(bundled, arguments.seed, arguments.candour, arguments.batch)
    tokenizer = tokenizer_for(bundled)
    set_seed(arguments.seed)
    return build_trainer(lessons, tokenizer, arguments.output), tokenizer


def lessons_from(bundled: dict[str, list[ChoiceContext]], seed: int, candour: float, batch: int) -> Lessons:
    """The lessons: words of all bundled contexts, but agents and questions of the spare ones only."""
    contexts = [c for group in bundled.values() for c in group]
    in_names = sorted({word for c in contexts for name in c.attribute_names for word in WORD.findall(name)})
    in_scenes = {word for c in contexts for word in WORD.findall(f"{c.agent} {c.question}")}
    filler = sorted({*in_names, *in_scenes})
    return Lessons(Tastes(in_names, seed, candour), bundled["spare"], filler, seed, batch)


def tokenizer_for(bundled: dict[str, list[ChoiceContext]]) -> PreTrainedTokenizerFast:
    """A tokenizer that reads the project's prompts about every bundled context whose attributes are ratings."""
    texts = []
    for context in (as_ratings(c) for group in bundled.values() for c in group):
        zeros = [0.0] * len(context.attributes)
        texts += [message["content"] for message in messages("reports", context, zeros, zeros)]
        texts.append(report_answer(context, zeros))
    fixed = [(w.instruction, w.system, w.told, w.follow_up) for w in WORDINGS]
    sentences = [text for texts_of_one in fixed for text in texts_of_one if text is not None]
    return build_tokenizer([*sentences, "\n\nImagine you are "], texts)


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama with random weights, but for the embeddings of the numbers, which know their order, and two layers that
    copy."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        **SIZES,
        num_key_value_heads=SIZES["num_attention_heads"],
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    ids = [tokenizer.convert_tokens_to_ids(str(number)) for number in NUMBERS]
    with torch.no_grad():
        model.get_input_embeddings().weight[ids] = torch.tensor(number_embeddings(SIZES["hidden_size"])).float()
        for layer in model.model.layers[-COPYING:]:
            torch.nn.init.orthogonal_(layer.self_attn.v_proj.weight, gain=COPYING_GAIN)
            layer.self_attn.o_proj.weight.copy_(layer.self_attn.v_proj.weight.T)
    return model


def number_embeddings(width: int) -> NDArray[np.float64]:
    """First embeddings of `NUMBERS`, shape (numbers, width): random mixtures of ordinal features.

    The features are the value, a constant, and sines and cosines of one, two and four half turns over the scale.
    """
    x = np.array(NUMBERS) / 100
    waves = [wave(np.pi * turns * x) for turns in (1, 2, 4) for wave in (np.sin, np.cos)]
    features = np.stack([2 * x, np.ones_like(x), *waves], axis=1)
    mixture = np.random.default_rng(0).normal(size=(features.shape[1], width))
    return 0.1 * features @ mixture / 3


def collate(lessons: Sequence[Lesson], tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    """Ids and labels padded on the right, shape (lessons, longest), and the chances of A, NaN for reports.

    All lessons are tokenised together, which is several times faster than one by one.
    """
    asked = tokenizer.apply_chat_template([x.prompt for x in lessons], add_generation_prompt=True, tokenize=False)
    said = [lesson.answer + END for lesson in lessons]
    prompts, answers = (tokenizer(texts, add_special_tokens=False)["input_ids"] for texts in (asked, said))
    pairs = [(torch.tensor(prompt), torch.tensor(answer)) for prompt, answer in zip(prompts, answers, strict=True)]
    ids = [torch.cat(pair) for pair in pairs]
    labels = [torch.cat([torch.full_like(prompt, IGNORED), answer]) for prompt, answer in pairs]
    chances = [math.nan if lesson.chance_of_a is None else lesson.chance_of_a for lesson in lessons]
    return {
        "input_ids": pad_sequence(ids, batch_first=True),
        "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
        "labels": pad_sequence(labels, batch_first=True, padding_value=IGNORED),
        "chance_of_a": torch.tensor(chances),
    }


class LessonTrainer(CurriculumTrainer):
    """Trains on lessons: letters on the probability of each, reports on their numbers."""

    def __init__(self, *args: Any, numbers: Sequence[int], glue: Sequence[int], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._numbers, self._glue = list(numbers), list(glue)
        self._copied: list[bool] = []

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the share of the words in names of reports that are foretold rightly as well."""
        if self._copied:
            logs["copied"], self._copied = float(np.mean(self._copied)), []
        super().log(logs, *args, **kwargs)

    def compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], **_: Any) -> torch.Tensor:
        """Weighted negative log-likelihood of the answers' tokens, a lesson's mean."""
        hidden = model.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).last_hidden_state
        trained = inputs["labels"][:, 1:] != IGNORED
        labels = inputs["labels"][:, 1:][trained]
        log_probs = model.lm_head(hidden[:, :-1][trained]).log_softmax(dim=-1)
        losses = -log_probs.gather(1, labels.unsqueeze(1)).squeeze(1)
        is_letter, is_number = (
            torch.isin(labels, torch.tensor(ids, device=labels.device)) for ids in (self._letters, self._numbers)
        )
        chance = inputs["chance_of_a"][~inputs["chance_of_a"].isnan()]  # in the order of the letters
        pair = log_probs[is_letter][:, self._letters]
        letter_loss = self.letter_losses(pair, chance).sum()
        is_rest = ~is_letter & ~is_number
        rest = losses[is_rest].sum()
        is_name = is_rest & ~torch.isin(labels, torch.tensor(self._glue, device=labels.device))
        self._copied += (log_probs.argmax(dim=-1) == labels)[is_name].tolist()
        parts = {"letter": letter_loss, "number": losses[is_number].sum(), "rest": rest}
        return sum(LOSS_WEIGHTS[part] * value for part, value in parts.items()) / len(inputs["labels"])


def build_trainer(lessons: Lessons, tokenizer: PreTrainedTokenizerFast, output: Path) -> LessonTrainer:
    """The trainer with a new model."""
    rates = {"learning_rate": 1e-3, "warmup_steps": 100, "weight_decay": 0.01, "adam_beta2": 0.98}
    every = {"per_device_train_batch_size": lessons.batch, "logging_steps": 50, "save_steps": 500}
    settings = course_arguments(output, len(lessons) // lessons.batch, lessons.seed, **rates, **every)
    return LessonTrainer(
        model=new_model(tokenizer),
        args=settings,
        data_collator=partial(collate, tokenizer=tokenizer),
        train_dataset=lessons,
        letters=letter_ids(tokenizer, {}),
        numbers=tokenizer.convert_tokens_to_ids([str(number) for number in NUMBERS]),
        glue=tokenizer.convert_tokens_to_ids([*GLUE, "}", END]),
    )


if __name__ == "__main__":
    run_command(main)
