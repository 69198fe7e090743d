"""vLLM: the base model loaded once, every arm a LoRA request, prompts that share a beginning computed once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from vllm import LLM, RequestOutput, SamplingParams
from vllm.lora.request import LoRARequest
from vllm.sampling_params import StructuredOutputsParams

from eval.engines.model_arms import ModelArms
from eval.engines.vllm_settings import length_arguments, load_config, lora_arguments, model_arguments
from store.evaluation import EvalConfig
from task.prompts import longest_report, report_grammar, report_keys
from task.trials import ShownTrial

NUMBER = re.compile(r"-?\d+")
NUMBER_TOKENS = 6
"""Most tokens that are read of a number and what follows it: "-100" has four characters."""


class VllmEngine(ModelArms):
    """Decisions as one token with the raw log-probabilities of both letters, reports by greedy generation.

    A call answers one arm, so rows with and without an adapter never share a batch: vLLM's CPU build gives rows
    without an adapter the weights of another row's (vllm issues 48421 and 49656).
    """

    name = "vllm"

    def __init__(self, config: EvalConfig) -> None:
        super().__init__(config)
        numbered = enumerate(self.adapters.items(), start=1)
        self._requests = {arm: LoRARequest(arm, i, path) for i, (arm, path) in numbered}

    @cached_property
    def _llm(self) -> LLM:
        derived = model_arguments(self.model) | length_arguments(
            self.engine, load_config(self.model), self.model.dtype, torch.cuda.is_available()
        )
        return LLM(**derived | lora_arguments(list(self.adapters.values())) | self.engine.vllm)

    def decide(self, arm: str, trials: Sequence[ShownTrial]) -> NDArray[np.float64]:
        """log P(A) and log P(B) of the next token over the whole vocabulary, shape (trials, 2).

        `allowed_token_ids` acts after the log-probabilities are taken, so they are those of the whole vocabulary.
        """
        params = SamplingParams(
            temperature=0, max_tokens=1, allowed_token_ids=self.letters, logprob_token_ids=self.letters
        )
        outputs = self._generate(arm, self.prompts(trials), params)
        found = [[output.outputs[0].logprobs[0][letter].logprob for letter in self.letters] for output in outputs]
        return np.array(found)

    def report(self, arm: str, trials: Sequence[ShownTrial]) -> list[str]:
        """Greedy replies, within the grammar of each trial's context if reports are constrained."""
        params = [self._report_params(trial) for trial in trials]
        outputs = self._generate(arm, self.prompts(trials), params)
        replies = [output.outputs[0].text for output in outputs]
        # A vocabulary of whole words can spell itself into a corner (`eval.engines.decoding`); vLLM then cuts it off.
        stuck = [i for i, text in enumerate(replies) if self.engine.constrain_reports and not text.endswith("}")]
        for i, text in zip(stuck, self._dictated(arm, [trials[i] for i in stuck]), strict=True):
            replies[i] = text
        return replies

    def _report_params(self, trial: ShownTrial) -> SamplingParams:
        if not self.engine.constrain_reports:
            return SamplingParams(temperature=0, max_tokens=self.engine.report_tokens)
        return _within(report_grammar(trial.context), longest_report(trial.context))

    def _dictated(self, arm: str, trials: Sequence[ShownTrial]) -> list[str]:
        """Replies in which only the numbers are the model's: each is asked for with all before it written out."""
        prompts, replies = self.prompts(trials), [""] * len(trials)
        for place in range(max((len(trial.context.attributes) for trial in trials), default=0)):
            asked = [i for i, trial in enumerate(trials) if place < len(trial.context.attributes)]
            for i in asked:
                key = (", " if place else "{") + report_keys(trials[i].context)[place]
                replies[i] += key
                prompts[i] += self.tokenizer.encode(key, add_special_tokens=False)
            params = [_within(report_grammar(trials[i].context, after=place), NUMBER_TOKENS) for i in asked]
            outputs = self._generate(arm, [prompts[i] for i in asked], params)
            for i, output in zip(asked, outputs, strict=True):
                tokens = self._number(output.outputs[0].token_ids)
                replies[i] += self.tokenizer.decode(tokens)
                prompts[i] += tokens
        return [reply + "}" for reply in replies]

    def _number(self, tokens: Sequence[int]) -> list[int]:
        """The tokens of the number that a text begins with, as the model spelled it."""
        ends = [end for end in range(1, len(tokens) + 1) if NUMBER.fullmatch(self.tokenizer.decode(tokens[:end]))]
        return list(tokens[: max(ends, default=0)])

    def _generate(
        self, arm: str, prompts: Sequence[list[int]], params: SamplingParams | Sequence[SamplingParams]
    ) -> list[RequestOutput]:
        # Answers may not depend on earlier calls, not even in the last digits, which what is in the cache decides.
        self._llm.reset_prefix_cache()
        each = [params] * len(prompts) if isinstance(params, SamplingParams) else params
        # In the order of their tokens, so that prompts with the same beginning follow each other.
        order = sorted(range(len(prompts)), key=lambda i: prompts[i])
        outputs = self._llm.generate(
            [{"prompt_token_ids": prompts[i]} for i in order],
            [each[i] for i in order],
            lora_request=self._requests.get(arm),
            use_tqdm=False,
        )
        for output in outputs:
            asked, cached = len(output.prompt_token_ids or ()), output.num_cached_tokens or 0
            self.tokens.update(prompt=asked, computed=asked - cached, reply=len(output.outputs[0].token_ids))
        answers = dict(zip(order, outputs, strict=True))
        return [answers[i] for i in range(len(prompts))]


def _within(grammar: str, tokens: int) -> SamplingParams:
    """Greedy decoding within a grammar."""
    return SamplingParams(temperature=0, max_tokens=tokens, structured_outputs=StructuredOutputsParams(grammar=grammar))
