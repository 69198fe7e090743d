"""Training examples: the settings that they are written by, and the rows of `train.jsonl` and `validation.jsonl`.

A row is `{"messages": [system, user, assistant], "context": ..., "index": ...}`. Files of other origin, such as the
paper's released ones, need `messages` only, and may hold other keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError, field_validator

from store.files import write_text
from store.settings import Settings, describe
from task.errors import InputError
from task.prompts import Measure

Part = Literal["train", "validation"]


class ExamplesConfig(Settings):
    """What to write: `train.jsonl` and `validation.jsonl` in the folder `output`.

    Attributes:
        weights: CSV of weights by context: what is taught, or what is reported.
        teach: `decisions` (choices of higher utility) or `reports` (the weights themselves).
        only: Names of the contexts to use; all of the file when None.
        shuffle_weights: Give each context the weights of another one (the shuffled-label control).
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

    def file(self, part: Part) -> Path:
        """Where the rows of a part are written."""
        return Path(self.output) / f"{part}.jsonl"


class ChatMessage(BaseModel, frozen=True):
    """One message of a row."""

    role: Literal["system", "user", "assistant"]
    content: str


class Example(BaseModel, frozen=True):
    """One row: a prompt, and as its last message the answer that is taught; `context` is empty where not known."""

    messages: list[ChatMessage] = Field(min_length=2)
    context: str = ""
    index: int | None = None

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
    """Read rows; what is wrong with one is an `InputError` that names the line."""
    if not path.is_file():
        raise InputError(f"{path}: no such examples file; write it with: python -m train.examples")
    examples = []
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                examples.append(Example.model_validate(json.loads(line)))
            except json.JSONDecodeError as error:
                raise InputError(f"{path}:{number}: not JSON ({error}); correct the row") from None
            except ValidationError as error:
                raise InputError(f"{path}:{number}: {describe(error)}; correct the row") from None
    if not examples:
        raise InputError(f"{path}: no rows; write examples with: python -m train.examples")
    return examples
