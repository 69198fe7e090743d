"""vLLM: the base model loaded once, every arm a LoRA request, prompts that share a beginning computed once."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
import xgrammar
from numpy.typing import NDArray
from vllm import LLM, CompletionOutput, RequestOutput, SamplingParams
from vllm.lora.request import LoRARequest
from vllm.sampling_params import StructuredOutputsParams

from eval.engines.model_arms import ModelArms, opening_tokens
from eval.engines.vllm_settings import length_arguments, lora_arguments, model_arguments, text_config
from store.evaluation import EvalConfig
from task.contexts import ChoiceContext
from task.prompts import longest_report, report_grammar, report_keys
from task.replies import Decided
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
        self._opened: tuple[str, list[list[int]]] | None = None

    @cached_property
    def _llm(self) -> LLM:
        derived = model_arguments(self.model) | length_arguments(
            self.engine, text_config(self.model), self.model.dtype, torch.cuda.is_available()
        )
        return LLM(**derived | lora_arguments(list(self.adapters.values())) | self.engine.vllm)

    def ask(self, arm: str, trials: Sequence[ShownTrial]) -> Decided:
        """The letters in the distribution of the next token over the whole vocabulary.

        The token that vLLM answers with is the likeliest one, since nothing forbids it any, and its log-probability
        comes with those of the letters.
        """
        params = SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=self.letters)
        outputs = [output.outputs[0] for output in self._generate(arm, self.prompts(trials), params)]
        logps = np.array([[_logp(output, letter) for letter in self.letters] for output in outputs])
        top = np.array([_logp(output, output.token_ids[0]) for output in outputs])
        return Decided(logps.reshape(-1, 2), logps.reshape(-1, 2).max(axis=1) >= top)

    def opening(self, arm: str, trials: Sequence[ShownTrial]) -> NDArray[np.float64]:
        """P(the next token is one that the grammar of the trial's context allows first), shape (trials,)."""
        self.compare_with_base(arm, trials)
        prompts, tokens = self.prompts(trials), [self._opening(trial.context) for trial in trials]
        params = [SamplingParams(temperature=0, max_tokens=1, logprob_token_ids=asked) for asked in tokens]
        outputs = self._generate(arm, prompts, params)
        # The constrained reports to the same prompts come next, and find them computed.
        self._opened = arm, prompts
        found = [
            sum(math.exp(_logp(output.outputs[0], token)) for token in asked)
            for output, asked in zip(outputs, tokens, strict=True)
        ]
        return np.nan_to_num(np.array(found), nan=0.0)

    def _opening(self, context: ChoiceContext) -> list[int]:
        return opening_tokens(self._compiler.compile_grammar(report_grammar(context)), self._vocabulary)

    @cached_property
    def _vocabulary(self) -> int:
        return int(text_config(self.model).vocab_size)

    @cached_property
    def _compiler(self) -> xgrammar.GrammarCompiler:
        return xgrammar.GrammarCompiler(
            xgrammar.TokenizerInfo.from_huggingface(self.tokenizer, vocab_size=self._vocabulary)
        )

    def report(self, arm: str, trials: Sequence[ShownTrial], constrained: bool) -> list[str | None]:
        """Greedy replies, within the grammar of each trial's context if constrained; None where logits are broken.

        vLLM shows no logits, so they are judged by the log-probability of each chosen token: NaN or infinite where some
        logit is NaN or plus infinity. Within a grammar it is taken after the grammar's mask, so that a broken logit of
        a token that the grammar forbids is not seen.
        """
        self.compare_with_base(arm, trials)
        prompts, params = self.prompts(trials), [self._report_params(trial, constrained) for trial in trials]
        opened, self._opened = constrained and self._opened == (arm, prompts), None
        outputs = [output.outputs[0] for output in self._generate(arm, prompts, params, keep=opened)]
        replies = [output.text if _all_finite(output) else None for output in outputs]
        # A vocabulary of whole words can spell itself into a corner (`eval.engines.decoding`); vLLM then cuts it off.
        # No token is allowed there, so the log-probability is NaN; whether logits are broken is seen on asking again.
        stuck = [i for i, output in enumerate(outputs) if constrained and not output.text.endswith("}")]
        for i, text in zip(stuck, self._dictated(arm, [trials[i] for i in stuck]), strict=True):
            replies[i] = text
        return replies

    def _report_params(self, trial: ShownTrial, constrained: bool) -> SamplingParams:
        if not constrained:
            return SamplingParams(temperature=0, max_tokens=self.engine.report_tokens, logprobs=0)
        return _within(report_grammar(trial.context), longest_report(trial.context))

    def _dictated(self, arm: str, trials: Sequence[ShownTrial]) -> list[str | None]:
        """Replies in which only the numbers are the model's: each is asked for with all before it written out.

        None where the log-probability of a number is not finite.
        """
        prompts, replies, broken = self.prompts(trials), [""] * len(trials), set()
        for place in range(max((len(trial.context.attributes) for trial in trials), default=0)):
            asked = [i for i, trial in enumerate(trials) if place < len(trial.context.attributes)]
            for i in asked:
                key = (", " if place else "{") + report_keys(trials[i].context)[place]
                replies[i] += key
                prompts[i] += self.tokenizer.encode(key, add_special_tokens=False)
            params = [_within(report_grammar(trials[i].context, after=place), NUMBER_TOKENS) for i in asked]
            outputs = self._generate(arm, [prompts[i] for i in asked], params)
            for i, output in zip(asked, outputs, strict=True):
                written = output.outputs[0].token_ids
                tokens = self._number(written)
                replies[i] += self.tokenizer.decode(tokens)
                prompts[i] += tokens
                if not written or not math.isfinite(_logp(output.outputs[0], written[0])):
                    broken.add(i)
        return [None if i in broken else reply + "}" for i, reply in enumerate(replies)]

    def _number(self, tokens: Sequence[int]) -> list[int]:
        """The tokens of the number that a text begins with, as the model spelled it."""
        ends = [end for end in range(1, len(tokens) + 1) if NUMBER.fullmatch(self.tokenizer.decode(tokens[:end]))]
        return list(tokens[: max(ends, default=0)])

    def _generate(
        self,
        arm: str,
        prompts: Sequence[list[int]],
        params: SamplingParams | Sequence[SamplingParams],
        keep: bool = False,
    ) -> list[RequestOutput]:
        # Answers may not depend on earlier calls, not even in the last digits, which what is in the cache decides;
        # `keep` says that the call before asked for another part of the same answers.
        if not keep:
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


def _logp(output: CompletionOutput, token: int) -> float:
    """The log-probability of a token as the first of a reply; NaN where vLLM gives none."""
    given = (output.logprobs or [{}])[0].get(token)
    return math.nan if given is None or given.logprob is None else given.logprob


def _all_finite(output: CompletionOutput) -> bool:
    """Whether vLLM gives a reply's tokens a log-probability together, and it is a finite number."""
    return output.cumulative_logprob is not None and math.isfinite(output.cumulative_logprob)


def _within(grammar: str, tokens: int) -> SamplingParams:
    """Greedy decoding within a grammar."""
    return SamplingParams(
        temperature=0, max_tokens=tokens, logprobs=0, structured_outputs=StructuredOutputsParams(grammar=grammar)
    )
