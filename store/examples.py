"""Training examples: the settings that they are written by, and the rows of `train.jsonl` and `validation.jsonl`.

A row is `{"messages": [system, user, assistant], "context": ..., "index": ...}`. Files of other origin, such as the
paper's released ones, need `messages` only, and may hold other keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal, Self, get_args

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from store.files import write_text
from store.settings import Settings, describe
from store.texts import parse_json, read_lines
from store.wordings import read_wordings
from task.errors import InputError
from task.prompts import DEFAULT, PROMPTS, Letter, Measure, Variant, Wordings

Part = Literal["train", "validation"]


class ExamplesConfig(Settings):
    """What to write: `train.jsonl` and `validation.jsonl` in the folder `output`.

    Attributes:
        weights: CSV of weights by context: what is taught, or what is reported.
        teach: `decisions` (choices of higher utility) or `reports` (the weights themselves).
        only: Names of the contexts to use; all of the file when None.
        shuffle_weights: Give each context the weights of another one (the shuffled-label control).
        validation_contexts: Those of them that get validation rows and no training rows; none of the others then gets
            validation rows. Where it is empty every context gets both.
        variant: Wording of what is taught, see `task.prompts.WORDINGS`.
        wording: Wording file (see `store.wordings`); None for our own words.
        rehearse: Decisions among the reports, see `rehearsed_decisions`. They follow the weights of the file also where
            those of the reports are shuffled.
        rehearse_weights: CSV of the weights that rehearsed decisions follow; None for those that are taught.
        leave_out_unknown: Whether contexts without a row among the weights are left out, and counted; otherwise they
            are refused.
        flip_under: Decisions only: a variant in which as many decisions again are taught, by the reversed weights; None
            teaches none.
    """

    contexts: str
    weights: str
    teach: Measure
    output: str
    seed: int
    train_per_context: int
    validation_per_context: int
    only: list[str] | None = None
    shuffle_weights: bool = False
    validation_contexts: list[str] = Field(default_factory=list)
    rehearse: float = 0.0
    variant: Variant = Field(default_factory=lambda found: DEFAULT[found["teach"]])
    wording: str | None = None
    flip_under: Variant | None = None
    rehearse_weights: str | None = None
    leave_out_unknown: bool | None = None

    @model_validator(mode="after")
    def _check_variant(self) -> Self:
        check_taught(self.teach, self.variant)
        check_flipped(self.teach, self.variant, self.flip_under)
        return self

    @cached_property
    def wordings(self) -> Wordings | None:
        """The words of the wording file."""
        return read_wordings(self.wording)

    def file(self, part: Part) -> Path:
        """Where the rows of a part are written."""
        return Path(self.output) / f"{part}.jsonl"


def check_taught(measure: Measure, variant: Variant) -> None:
    """Refuse to teach a variant that asks with more than a context and a trial, or that is none.

    Raises:
        ValueError: With the variants that can be taught.
    """
    known = [n for n, words in PROMPTS[measure].items() if words.options and words.told is words.follow_up is None]
    if variant not in known:
        raise ValueError(f"variant {variant!r}: {measure} can be taught as {' or '.join(known)}; name one of them")


def check_flipped(measure: Measure, variant: Variant, flip_under: Variant | None) -> None:
    """Refuse to reverse the weights of anything but decisions, or under the very words that are taught unreversed.

    Raises:
        ValueError: With what is possible.
    """
    if flip_under is None:
        return
    if measure != "decisions" or flip_under == variant:
        raise ValueError(
            f"flip_under {flip_under!r}: reversed weights are taught by decisions in other words than {variant!r}; "
            "leave it out, or name another variant of decisions"
        )
    check_taught(measure, flip_under)


def rehearsed_decisions(rehearse: float, reports: int, contexts: int) -> list[int]:
    """How many decisions of each context are rehearsed, spread as evenly as whole numbers can be.

    Args:
        rehearse: Below 1 the share of decisions among all training rows, from 1 on the decisions of each context.
        reports: Training rows of each context that are reports.
        contexts: How many contexts are taught.
    """
    total = round(rehearse / (1 - rehearse) * reports * contexts) if rehearse < 1 else int(rehearse) * contexts
    return [total * (i + 1) // contexts - total * i // contexts for i in range(contexts)]


def _of_full_weight(values: object) -> object:
    """Refuse what a fine-tuning service would leave out of its loss: here every row's answer counts in full."""
    if isinstance(values, dict) and values.get("weight") not in (None, 1):
        raise ValueError(f"weight {values['weight']!r} is not honoured, every answer counts in full; leave the row out")
    return values


class ChatMessage(BaseModel, frozen=True):
    """One message of a row."""

    _check_weight = model_validator(mode="before")(_of_full_weight)

    role: Literal["system", "user", "assistant"]
    content: str


class Example(BaseModel, frozen=True):
    """One row: a prompt, and as its last message the answer that is taught; `context` is empty where not known."""

    _check_weight = model_validator(mode="before")(_of_full_weight)

    messages: list[ChatMessage] = Field(min_length=2)
    context: str = ""
    index: int | None = None

    @property
    def measure(self) -> Measure:
        """What the row teaches: a decision where its answer is a letter."""
        return "decisions" if self.messages[-1].content.strip() in get_args(Letter) else "reports"

    @field_validator("messages")
    @classmethod
    def _end_with_an_answer(cls, messages: list[ChatMessage]) -> list[ChatMessage]:
        if messages[-1].role != "assistant":
            raise ValueError(f"the last message is by {messages[-1].role!r}; needed: a prompt, then an answer")
        return messages


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Write rows as JSON Lines; returns how many."""
    lines = [json.dumps(example.model_dump(), ensure_ascii=False) for example in examples]
    write_text(path, "".join(f"{line}\n" for line in lines))
    return len(lines)


def read_examples(path: Path) -> list[Example]:
    """Read rows; blank lines do not count.

    Raises:
        InputError: No such file, no rows, no UTF-8, or a row that cannot be trained on, with its line.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such examples file; write it with: python -m train.examples")
    examples = [read_example(line, where) for where, line in read_lines(path).items()]
    if not examples:
        raise InputError(f"{path}: no rows; write examples with: python -m train.examples")
    return examples


def read_example(line: str, where: str) -> Example:
    """One row; `where` begins the message of what is wrong with it."""
    values = parse_json(line, where, "correct the row")
    try:
        return Example.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{where}: {describe(error)}; correct the row") from None
