"""The answers of an arm to the prompts of a context, and the places in them where its next token is looked at.

- Deciding: the one place after the prompt, where the letter stands. The distribution is over the whole vocabulary.
- Reporting: the tokens of the numbers in the arm's own greedy report, given to the model again as they are (teacher
  forcing). White space and quotes between a colon and its number count as the number where they are tokens of their
  own: tokenizers write a minus sign and the space before it as one token, so that the sign is decided there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from inside.loading import BaseModel
from store.inside import InsideConfig, Task, shown_trials
from task.chat import prompt_ids
from task.contexts import ChoiceContext
from task.replies import number_places


@dataclass(frozen=True)
class Answer:
    """A prompt with as much of its answer as is needed.

    Attributes:
        ids: Token ids.
        places: Those of `ids` after which the next token is looked at, in order; the last is the end of `ids`.
    """

    ids: list[int]
    places: list[int]


def decisions(base: BaseModel, config: InsideConfig, context: ChoiceContext) -> list[Answer]:
    """The place of the letter after each prompt of a context."""
    return [Answer(ids, [len(ids) - 1]) for ids in _prompts(base, config, "deciding", context)]


def reports(base: BaseModel, config: InsideConfig, context: ChoiceContext) -> list[Answer]:
    """The numbers of the greedy reports of the model as it stands; reports that cannot be read are left out."""
    prompts = _prompts(base, config, "reporting", context)
    replies = base.greedy_replies(prompts, config.report_tokens, config.batch_size)
    found = []
    for prompt, reply in zip(prompts, replies, strict=True):
        if numbers := number_tokens(base.tokenizer, reply, context.attribute_names):
            before = len(prompt) - 1
            found.append(Answer(prompt + reply[: numbers[-1]], [before + token for token in numbers]))
    return found


def number_tokens(tokenizer: Any, reply: Sequence[int], names: Sequence[str]) -> list[int]:
    """Which tokens of a reply make up its numbers; none where it is no report that can be read."""
    texts = [_text(tokenizer, reply[:end]) for end in range(len(reply) + 1)]
    if (places := number_places(texts[-1], names)) is None:
        return []
    spans = [(len(before), len(after)) for before, after in pairwise(texts)]
    return [
        token
        for token, (start, end) in enumerate(spans)
        if any((start < p.end and end > p.start) or p.gap <= start < end <= p.start for p in places)
    ]


def _text(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def _prompts(base: BaseModel, config: InsideConfig, task: Task, context: ChoiceContext) -> list[list[int]]:
    trials = shown_trials(config, task, context)
    return [prompt_ids(base.tokenizer, trial.prompt, config.model.template) for trial in trials]
