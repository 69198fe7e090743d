"""From messages to token ids, the same way in training and in evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from task.errors import InputError
from task.prompts import Message


class ChatTokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        """Render messages through the model's chat template, as text or token ids."""
        ...


def prompt_ids(tokenizer: ChatTokenizer, messages: Sequence[Message], template: Mapping[str, Any]) -> list[int]:
    """Token ids of a prompt, ending where the assistant's answer begins.

    Args:
        tokenizer: A Hugging Face tokenizer with a chat template.
        messages: The prompt's messages.
        template: Further arguments of the template, such as `enable_thinking: false` or a pinned `date_string`.
    """
    ids = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False, **template)
    return list(ids)


def letter_ids(tokenizer: ChatTokenizer, template: Mapping[str, Any]) -> tuple[int, int]:
    """Token ids of the answers A and B where they really stand: right after the generation prompt.

    Raises:
        InputError: The prompt's tokens are not the beginning of the tokens of prompt and answer, or a letter is not
            one token there; then P(A) and P(B) cannot be read from one position.
    """
    question: list[Message] = [{"role": "user", "content": "A or B?"}]
    before = prompt_ids(tokenizer, question, template)
    found = []
    for letter in "AB":
        answer: Message = {"role": "assistant", "content": letter}
        whole = list(tokenizer.apply_chat_template([*question, answer], return_dict=False, **template))
        if whole[: len(before)] != before:
            raise InputError(
                "chat template: the prompt alone is not the beginning of prompt and answer; "
                "check the model's template arguments, e.g. template: {enable_thinking: false}"
            )
        found.append(whole[len(before)])
    if found[0] == found[1]:
        raise InputError(
            "chat template: the answers A and B begin with the same token, so P(A) and P(B) cannot be told apart; "
            "check the model's template arguments, e.g. template: {enable_thinking: false}"
        )
    return found[0], found[1]
