"""Tokens of trials: with the model's tokenizer where its files are here, from characters otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np

from eval.engines.prefixes import common_length
from experiment.planned import TokenCount, TrialTokens
from experiment.templates import tokenizer_at_hand
from store.evaluation import EngineSettings
from store.model_file import ModelFile
from task.chat import prompt_ids
from task.contexts import ChoiceContext
from task.prompts import (
    Framing,
    Measure,
    Message,
    Variant,
    Wordings,
    decision_answer,
    frame,
    report_answer,
    shown_number,
)
from task.trials import round_to_grid, sample_trials

CHARACTERS_PER_TOKEN = 4.0
"""English prose in the vocabularies of current models; used only where the model's own tokenizer is not at hand."""

TEMPLATE_TOKENS = 32
"""More than any chat template in use puts around a message; for bounds where the tokenizer is not at hand."""

SAMPLES = 3
"""Trials of a context that are looked at for what all have in common."""


def token_counter(
    model: ModelFile | None, engine: EngineSettings, seed: int, wordings: Wordings | None = None
) -> TokenCount:
    """A function from (measure, variant, context) to the tokens of its trials."""
    if model is None:
        return lambda measure, variant, context: TrialTokens(0, 0, 0, 0, 0)
    tokenizer = tokenizer_at_hand(model)

    def tokens(prompt: Sequence[Message]) -> list[Any]:
        if tokenizer is None:
            return list("".join(m["content"] for m in prompt)[:: round(CHARACTERS_PER_TOKEN)])
        return prompt_ids(tokenizer, prompt, model.template)

    def length(text: str) -> int:
        if tokenizer is None:
            return max(1, round(len(text) / CHARACTERS_PER_TOKEN))
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    @cache
    def count(measure: Measure, variant: Variant, context: ChoiceContext) -> TrialTokens:
        prompts = [tokens(prompt) for prompt in _typical(_framing(measure, variant, context, wordings), seed)]
        longest, numbers = _longest(_framing(measure, variant, context, wordings))
        if tokenizer is None:
            bound = sum(len(m["content"].encode()) + TEMPLATE_TOKENS for m in longest)
        else:
            # A number is at most as many tokens as bytes, however the longest one happens to split.
            bound = len(tokens(longest)) + sum(max(0, len(n.encode()) - length(n)) for n in numbers)
        reply, longest_reply = length(decision_answer(True)), 1
        if measure == "reports":
            reply = length(report_answer(context, [-50.0] * len(context.attributes)))
            longest_reply = engine.report_tokens
        return TrialTokens(len(prompts[0]), reply, common_length(prompts), bound, longest_reply)

    return count


def _framing(measure: Measure, variant: Variant, context: ChoiceContext, wordings: Wordings | None) -> Framing:
    """A context in a wording, with weights to tell and a choice to follow as long as any can be."""
    told = [-100.0] * len(context.attributes)
    return frame(measure, context, variant, told=told, chose="A", wordings=wordings)


def _typical(framing: Framing, seed: int) -> list[list[Message]]:
    """Prompts of the first trials of a context, the last one in the other order."""
    framing = replace(framing, told=(-50.0,) * len(framing.context.attributes))
    trials = sample_trials(seed, framing.wording.measure, framing.context, SAMPLES)
    pairs = list(zip(trials.first, trials.second, strict=True))
    return [framing.messages(a, b) for a, b in [*pairs, pairs[0][::-1]]]


def _longest(framing: Framing) -> tuple[list[Message], list[str]]:
    """A prompt with as many characters as any of a context can have, and those of its numbers that may differ.

    The numbers come with the space before each.
    """
    context, words = framing.context, framing.wording
    # The ends of a range have the most digits before the point, and a minus sign only the lower one. Written as floats
    # they may have fewer digits after it than their neighbours.
    steps = np.array([10.0**-a.decimals for a in context.attributes])
    highs = context.lows + context.spans
    places = np.stack([round_to_grid(v, context) for v in (context.lows, highs, context.lows + steps, highs - steps)])
    values, numbers = [], [" -100"] * len(context.attributes) if words.told is not None else []
    for column, attribute in zip(places.T, context.attributes, strict=True):
        shown = {shown_number(attribute, float(value), words.numbers): float(value) for value in column}
        values.append(shown[longest := max(shown, key=len)])
        numbers += [f" {longest}"] * 2 if words.options else []
    return framing.messages(values, values), numbers
