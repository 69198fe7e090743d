"""Rows that a model learns from: read from JSON Lines, checked, and in the form that TRL trains on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datasets import Dataset

from task.chat import prompt_ids
from task.errors import InputError


def read_rows(path: str | None) -> list[dict[str, Any]]:
    """Read JSON Lines with `messages`, whose last message is the assistant's, and `context` where there is one."""
    if path is None:
        return []
    if not Path(path).is_file():
        raise InputError(f"{path}: no such examples file; write it with: python -m train.examples")
    rows = []
    with Path(path).open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
                messages = row["messages"]
                role = messages[-1]["role"]
            except (json.JSONDecodeError, KeyError, TypeError, IndexError) as error:
                raise InputError(f"{path}:{number}: no readable `messages` ({error!r}); correct the row") from None
            if role != "assistant" or len(messages) < 2:
                raise InputError(f"{path}:{number}: the last message is by {role!r}; needed: a prompt, then an answer")
            rows.append({"prompt": messages[:-1], "completion": messages[-1:], "context": str(row.get("context", ""))})
    if not rows:
        raise InputError(f"{path}: no rows; write examples with: python -m train.examples")
    return rows


def count_decisions(rows: list[dict[str, Any]]) -> int:
    """How many rows are answered with a letter."""
    return sum(row["completion"][0]["content"] in ("A", "B") for row in rows)


def to_dataset(rows: list[dict[str, Any]], template: dict[str, Any]) -> Dataset:
    """Rows in TRL's prompt/completion form, for which the loss covers the completion only."""
    return Dataset.from_list([{**row, **({"chat_template_kwargs": template} if template else {})} for row in rows])


def check_template(row: dict[str, Any], tokenizer: Any, template: dict[str, Any], path: str) -> None:
    """Refuse a chat template under which training would see other prompt tokens than evaluation does."""
    before = prompt_ids(tokenizer, row["prompt"], template)
    whole = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=False, **template)
    if list(whole[: len(before)]) != before:
        raise InputError(
            f"{path}:1: under this chat template the prompt is not the beginning of prompt and answer; "
            "set the model's template arguments, e.g. template: {enable_thinking: false}"
        )
