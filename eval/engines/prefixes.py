"""What the prompts of a context share from their beginning on, in token ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from task.prompts import Framing, Message
from task.trials import round_to_grid

PLACES = (0.0, 1 / 3, 2 / 3, 1.0)
"""Where in the attributes' ranges the options lie that are looked at for what all prompts of a context share."""

Prompt = list[int]


def typical_prompts(framing: Framing) -> list[list[Message]]:
    """Prompts of a context with options that differ from the first digit on, wherever its trials can differ there."""
    context = framing.context
    options = [round_to_grid(context.lows + place * context.spans, context) for place in PLACES]
    return [framing.messages(option, option) for option in options]


def common_length(prompts: Sequence[list[Any]]) -> int:
    """How far prompts are the same from their beginning on."""
    shortest, last = min(prompts), max(prompts)  # between the first and the last in order, all others agree with both
    differs = (place for place, (a, b) in enumerate(zip(shortest, last, strict=False)) if a != b)
    return next(differs, min(len(shortest), len(last)))


def split_prompts(prompts: Sequence[Prompt], heads: Sequence[Prompt]) -> list[int]:
    """The length of what each prompt shares with others of its context; the rest is its own.

    Prompts with the same expected beginning in `heads` belong together. The shared length is the same for all of them,
    shorter than expected where the tokens of one merge otherwise, and leaves each at least one token.
    """
    cuts: dict[tuple[int, ...], int] = {}
    for prompt, head in zip(prompts, heads, strict=True):
        cut = min(common_length([prompt, head]), len(prompt) - 1)
        cuts[tuple(head)] = min(cut, cuts.get(tuple(head), cut))
    return [cuts[tuple(head)] for head in heads]
