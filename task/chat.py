"""From messages to token ids, the same way in training and in evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from task.errors import InputError
from task.prompts import Message

REMEDY = "check the model's template arguments, e.g. template: {enable_thinking: false}"


class ChatTokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        """Render messages through the model's chat template, as text or token ids."""
        ...


def prompt_ids(tokenizer: ChatTokenizer, messages: Sequence[Message], template: Mapping[str, Any]) -> list[int]:
    """Token ids of a prompt, ending where the assistant's answer begins.

    `template` holds further arguments of the chat template, such as `enable_thinking: false` or a pinned `date_string`.
    """
    ids = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False, **template)
    return list(ids)


def answer_ids(tokenizer: ChatTokenizer, messages: Sequence[Message], template: Mapping[str, Any]) -> list[int]:
    """Token ids of the last message, an answer, and of what ends it, as they stand after the prompt before it.

    Raises:
        InputError: The prompt's tokens are not the beginning of the tokens of prompt and answer.
    """
    before = prompt_ids(tokenizer, messages[:-1], template)
    whole = list(tokenizer.apply_chat_template(list(messages), return_dict=False, **template))
    if whole[: len(before)] != before:
        raise InputError(f"chat template: the prompt alone is not the beginning of prompt and answer; {REMEDY}")
    return whole[len(before) :]


def letter_answers(tokenizer: ChatTokenizer, template: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Token ids of the answers A and B where they really stand, see `answer_ids`; they begin with different tokens."""
    question: Message = {"role": "user", "content": "A or B?"}
    a = answer_ids(tokenizer, [question, {"role": "assistant", "content": "A"}], template)
    b = answer_ids(tokenizer, [question, {"role": "assistant", "content": "B"}], template)
    if a[0] == b[0]:
        raise InputError(
            "chat template: the answers A and B begin with the same token, so P(A) and P(B) cannot be told apart; "
            + REMEDY
        )
    return a, b


def letter_ids(tokenizer: ChatTokenizer, template: Mapping[str, Any]) -> tuple[int, int]:
    """Token ids of the letters themselves, see `letter_answers`."""
    a, b = letter_answers(tokenizer, template)
    return a[0], b[0]
