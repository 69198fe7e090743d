"""From messages to token ids, the same way in training and in evaluation; and what a chat template must do for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from task.errors import InputError
from task.prompts import Message

REMEDY = "check the model's template arguments, e.g. template: {enable_thinking: false}"

OWN_TEMPLATE = "save the model as a folder and give it a chat_template.jinja that"

DATES = ("26 Jul 2024", "01 Jan 2001")
"""Two dates on which a template must write the same; the first is the one that Llama 3 falls back on."""

DATE_ARGUMENTS = ("date_string", "current_date")
"""Arguments by which templates in use take the date."""


class ChatTokenizer(Protocol):
    """The part of a Hugging Face tokenizer that is used here."""

    def apply_chat_template(self, conversation: Any, **kwargs: Any) -> Any:
        """Render messages through the model's chat template, as text or token ids."""
        ...

    def decode(self, token_ids: Any) -> Any:
        """The text of tokens."""
        ...


def prompt_ids(tokenizer: ChatTokenizer, messages: Sequence[Message], template: Mapping[str, Any]) -> list[int]:
    """Token ids of a prompt, ending where the assistant's answer begins.

    `template` holds further arguments of the chat template, such as `enable_thinking: false` or a pinned `date_string`.

    Raises:
        InputError: There is no chat template, or it refuses the messages.
    """
    return list(_apply(tokenizer, messages, template, add_generation_prompt=True, return_dict=False))


def answer_ids(tokenizer: ChatTokenizer, messages: Sequence[Message], template: Mapping[str, Any]) -> list[int]:
    """Token ids of the last message, an answer, and of what ends it, as they stand after the prompt before it.

    Raises:
        InputError: The prompt's tokens are not the beginning of the tokens of prompt and answer, or as `prompt_ids`.
    """
    before = prompt_ids(tokenizer, messages[:-1], template)
    whole = list(_apply(tokenizer, messages, template, return_dict=False))
    if whole[: len(before)] != before:
        raise InputError(
            f"chat template: the prompt alone is not the beginning of prompt and answer ({_roles(messages)}); {REMEDY}"
        )
    return whole[len(before) :]


def letter_answers(tokenizer: ChatTokenizer, template: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    """Token ids of the answers A and B where they really stand, see `answer_ids`.

    Each begins with its letter, a token of its own, and they go on alike.

    Raises:
        InputError: They do not, or the template's text depends on the date, or as `answer_ids`.
    """
    question: Message = {"role": "user", "content": "A or B?"}
    check_date(tokenizer, [question], template)
    a = answer_ids(tokenizer, [question, {"role": "assistant", "content": "A"}], template)
    b = answer_ids(tokenizer, [question, {"role": "assistant", "content": "B"}], template)
    if not (a and b) or a[0] == b[0]:
        raise InputError(
            "chat template: the answers A and B begin with the same token, so P(A) and P(B) cannot be told apart; "
            + REMEDY
        )
    first = [tokenizer.decode([ids[0]]) for ids in (a, b)]
    if [text.strip(" ") for text in first] != ["A", "B"] or a[1:] != b[1:]:
        raise InputError(
            f"chat template: the answers A and B begin with the tokens {first[0]!r} and {first[1]!r}, not with letters "
            f"that are tokens of their own; {OWN_TEMPLATE} puts nothing beside the answer that joins with it"
        )
    return a, b


def letter_ids(tokenizer: ChatTokenizer, template: Mapping[str, Any]) -> tuple[int, int]:
    """Token ids of the letters themselves, see `letter_answers`."""
    a, b = letter_answers(tokenizer, template)
    return a[0], b[0]


def check_template(
    tokenizer: ChatTokenizer, dialogues: Iterable[Sequence[Message]], template: Mapping[str, Any]
) -> None:
    """Refuse a chat template through which prompts and answers would not be read as they are meant.

    Args:
        tokenizer: The tokenizer with the template.
        dialogues: Prompts, each with an answer as its last message. All are rendered. The tokens of one of each shape
            are looked at: those with the same roles in the same order, and with a letter as the answer or another.
        template: Further arguments of the template.

    Raises:
        InputError: The template refuses one, leaves text of it out, or as `letter_answers` and `answer_ids`.
    """
    shapes: dict[tuple[str, bool], Sequence[Message]] = {}
    for number, dialogue in enumerate(dialogues, start=1):
        shape = _roles(dialogue), dialogue[-1]["content"] in ("A", "B")
        try:
            _check_text(tokenizer, dialogue, template)
        except InputError as error:
            # What it does to all of a shape needs no number: it is about the roles.
            raise InputError(f"{error} (row {number})" if shape in shapes else str(error)) from None
        shapes.setdefault(shape, dialogue)
    letters = dict(zip("AB", letter_answers(tokenizer, template), strict=True))
    for dialogue in shapes.values():
        check_date(tokenizer, dialogue, template)
        found, answer = answer_ids(tokenizer, dialogue, template), dialogue[-1]["content"]
        if found != letters.get(answer, found):
            raise InputError(
                f"chat template: the answer {answer} has other tokens after {_roles(dialogue[:-1])} than after a "
                f"question alone; {REMEDY}"
            )


def _check_text(tokenizer: ChatTokenizer, dialogue: Sequence[Message], template: Mapping[str, Any]) -> None:
    """Refuse a template that does not take a dialogue, or leaves text of it out."""
    text = _apply(tokenizer, dialogue, template, tokenize=False)
    if lost := [m["role"] for m in dialogue if m["content"].strip() not in text]:
        raise _refusal(tokenizer, dialogue, template, f"the text of {lost[0]} is lost or changed")


def check_date(tokenizer: ChatTokenizer, messages: Sequence[Message], template: Mapping[str, Any]) -> None:
    """Refuse a template that writes another text on another day: trials would differ, and their key would not say so.

    Raises:
        InputError: It does, with the argument that pins the date where it has one.
    """

    def texts(arguments: Mapping[str, Any]) -> set[str]:
        # What a template knows of the day it has from this function; an argument of that name takes its place.
        return {
            _apply(tokenizer, messages, arguments, tokenize=False, strftime_now=lambda form, day=day: day)
            for day in DATES
        }

    if len(texts(template)) == 1:
        return
    for name in DATE_ARGUMENTS:
        if len(texts({**template, name: DATES[0]})) == 1:
            remedy = f'pin it in the model\'s file, e.g. template: {{{name}: "{DATES[0]}"}}'
            break
    else:
        remedy = f"no argument pins it; {OWN_TEMPLATE} names a fixed date"
    raise InputError(f"chat template: its text depends on the date; {remedy}")


def _apply(tokenizer: ChatTokenizer, messages: Sequence[Message], template: Mapping[str, Any], **how: Any) -> Any:
    """Render messages through the chat template; what a template may raise becomes an `InputError`."""
    if getattr(tokenizer, "chat_template", "unknown") is None:
        raise InputError(
            "chat template: the tokenizer has none; name a model that was tuned for instructions, or "
            f"{OWN_TEMPLATE} writes {_roles(messages)}"
        )
    try:
        return tokenizer.apply_chat_template(list(messages), **{**template, **how})
    except Exception as error:  # templates raise what they like, and their expressions meet what they do not expect
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise _refusal(tokenizer, messages, template, reason) from None


def _refusal(
    tokenizer: ChatTokenizer, messages: Sequence[Message], template: Mapping[str, Any], reason: str
) -> InputError:
    """What a template does not take of messages that it refuses or loses text of, and what to do about it."""
    parts = [{"role": m["role"], "content": [{"type": "text", "text": m["content"]}]} for m in messages]
    if _renders(tokenizer, parts, messages, template):
        what, wanted = "takes messages in parts only, as models that see do", "takes plain text"
    elif messages[0]["role"] == "system" and _renders(tokenizer, messages[1:], messages[1:], template):
        what, wanted = "takes no system text", "writes it before the first question"
    else:
        what, wanted = f"does not take {_roles(messages)}", "takes them as plain text, without tools"
    return InputError(f"chat template: {what} ({reason}); {OWN_TEMPLATE} {wanted}")


def _renders(
    tokenizer: ChatTokenizer, given: Sequence[Any], messages: Sequence[Message], template: Mapping[str, Any]
) -> bool:
    """Whether a template takes messages in a form that they are given in, and loses no text of them."""
    try:
        text = tokenizer.apply_chat_template(list(given), tokenize=False, **template)
    except Exception:  # as above: refused is refused
        return False
    return all(m["content"].strip() in text for m in messages)


def _roles(messages: Sequence[Message]) -> str:
    """The roles of messages in their order, in words."""
    return ", ".join(m["role"] for m in messages)
