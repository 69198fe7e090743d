"""Estimate of the tokens of trials: with the model's tokenizer where its files are here, from characters otherwise."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from scripts.experiment import ModelFile
from scripts.plan import TokenCount, sample_prompt
from task.chat import prompt_ids
from task.contexts import ChoiceContext
from task.prompts import Measure, decision_answer, messages, report_answer

CHARACTERS_PER_TOKEN = 4.0
"""English prose in the vocabularies of current models; used only where the model's own tokenizer is not at hand."""


def token_counter(model: ModelFile | None, seed: int) -> TokenCount:
    """A function from (measure, context) to the tokens of a prompt and of its answer."""
    if model is None:
        return lambda measure, context: (0, 0)
    tokenizer = None
    if (Path(model.name) / "tokenizer.json").is_file():
        from transformers import AutoTokenizer  # slow to load, and not needed where there is nothing to count

        tokenizer = AutoTokenizer.from_pretrained(model.name)

    @cache
    def count(measure: Measure, context: ChoiceContext) -> tuple[int, int]:
        prompt = messages(measure, context, *sample_prompt(measure, context, seed))
        weights = [-50.0] * len(context.attributes)
        answer = decision_answer(True) if measure == "decisions" else report_answer(context, weights)
        if tokenizer is None:
            text = "".join(m["content"] for m in prompt)
            return round(len(text) / CHARACTERS_PER_TOKEN), max(1, round(len(answer) / CHARACTERS_PER_TOKEN))
        return len(prompt_ids(tokenizer, prompt, model.template)), len(tokenizer(answer)["input_ids"])

    return count
