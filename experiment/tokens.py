"""Tokens of trials: with the model's tokenizer where its files are here, from characters otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from eval.engines.prefixes import common_length
from experiment.plan import TokenCount, TrialTokens
from store.evaluation import EngineSettings
from store.model_file import ModelFile
from store.paths import project_file
from task.chat import prompt_ids
from task.contexts import ChoiceContext
from task.prompts import PROMPTS, Measure, Message, Variant, decision_answer, frame, report_answer
from task.trials import round_to_grid, sample_trials

CHARACTERS_PER_TOKEN = 4.0
"""English prose in the vocabularies of current models; used only where the model's own tokenizer is not at hand."""

TEMPLATE_TOKENS = 32
"""More than any chat template in use puts around a message; for bounds where the tokenizer is not at hand."""

SAMPLES = 3
"""Trials of a context that are looked at for what all have in common."""


def token_counter(model: ModelFile | None, engine: EngineSettings, seed: int) -> TokenCount:
    """A function from (measure, variant, context) to the tokens of its trials."""
    if model is None:
        return lambda measure, variant, context: TrialTokens(0, 0, 0, 0, 0)
    tokenizer = None
    if ((folder := project_file(model.name)) / "tokenizer.json").is_file():
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)

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
        prompts = [tokens(prompt) for prompt in _typical(measure, variant, context, seed)]
        longest, numbers = _longest(measure, variant, context)
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


def _typical(measure: Measure, variant: Variant, context: ChoiceContext, seed: int) -> list[list[Message]]:
    """Prompts of the first trials of a context, the last one in the other order."""
    trials = sample_trials(seed, measure, context, SAMPLES)
    pairs = list(zip(trials.first, trials.second, strict=True))
    framing = frame(measure, context, variant, told=[-50.0] * len(context.attributes), chose="A")
    return [framing.messages(a, b) for a, b in [*pairs, pairs[0][::-1]]]


def _longest(measure: Measure, variant: Variant, context: ChoiceContext) -> tuple[list[Message], list[str]]:
    """A prompt with as many characters as any of a context can have, and those of its numbers that may differ.

    The numbers come with the space before each.
    """
    words, attributes = PROMPTS[measure][variant], context.attributes
    ends = np.stack([round_to_grid(end, context) for end in (context.lows, context.lows + context.spans)])
    # Within a range the ends have the most digits, and a minus sign only the lower one.
    values = [
        float(max(column, key=lambda v: len(f"{v:.{a.decimals}f}")))
        for column, a in zip(ends.T, attributes, strict=True)
    ]
    framing = frame(measure, context, variant, told=[-100.0] * len(attributes), chose="A")
    numbers = [" -100"] * len(attributes) if words.told is not None else []
    if words.options:
        numbers += [f" {v:.{a.decimals}f}" for v, a in zip(values, attributes, strict=True)] * 2
    return framing.messages(values, values), numbers
