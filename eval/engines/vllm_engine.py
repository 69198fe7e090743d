"""vLLM: the base model loaded once, every arm a LoRA request, prompts that share a beginning computed once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from vllm import LLM, SamplingParams
from vllm.lora.request import LoRARequest
from vllm.sampling_params import StructuredOutputsParams

from eval.config import EvalConfig
from eval.engines.base import ShownTrial
from eval.engines.model_arms import ModelArms, longest_report
from task.prompts import report_grammar

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM accepts as `max_lora_rank`; an adapter takes the next larger one."""


class VllmEngine(ModelArms):
    """Decisions as one token with the raw log-probabilities of both letters, reports by greedy generation.

    A call answers one arm, so rows with and without an adapter never share a batch: vLLM's CPU build gives rows
    without an adapter the weights of another row's (vllm issues 48421 and 49656).
    """

    name = "vllm"

    def __init__(self, config: EvalConfig) -> None:
        super().__init__(config)
        adapters = {arm: path for arm, path in self.arms.items() if path is not None}
        self._requests = {arm: LoRARequest(arm, i, path) for i, (arm, path) in enumerate(adapters.items(), start=1)}

    @cached_property
    def _llm(self) -> LLM:
        return LLM(**llm_arguments(self))

    def decide(self, arm: str, trials: Sequence[ShownTrial]) -> NDArray[np.float64]:
        """log P(A) and log P(B) of the next token over the whole vocabulary, shape (trials, 2).

        `allowed_token_ids` acts after the log-probabilities are taken, so they are those of the whole vocabulary.
        """
        params = SamplingParams(
            temperature=0, max_tokens=1, allowed_token_ids=self.letters, logprob_token_ids=self.letters
        )
        outputs = self._generate(arm, self.prompts("decisions", trials), params)
        found = [[output.outputs[0].logprobs[0][letter].logprob for letter in self.letters] for output in outputs]
        return np.array(found)

    def report(self, arm: str, trials: Sequence[ShownTrial]) -> list[str]:
        """Greedy replies, within the grammar of each trial's context if reports are constrained."""
        params = [self._report_params(trial) for trial in trials]
        return [output.outputs[0].text for output in self._generate(arm, self.prompts("reports", trials), params)]

    def _report_params(self, trial: ShownTrial) -> SamplingParams:
        if not self.engine.constrain_reports:
            return SamplingParams(temperature=0, max_tokens=self.engine.report_tokens)
        grammar = StructuredOutputsParams(grammar=report_grammar(trial.context))
        return SamplingParams(temperature=0, max_tokens=longest_report(trial.context), structured_outputs=grammar)

    def _generate(
        self, arm: str, prompts: Sequence[list[int]], params: SamplingParams | Sequence[SamplingParams]
    ) -> list[Any]:
        # Prompts in the order of the trials, which is by context: what a context's prompts share is in the cache.
        inputs = [{"prompt_token_ids": ids} for ids in prompts]
        return self._llm.generate(inputs, params, lora_request=self._requests.get(arm), use_tqdm=False)


def llm_arguments(arms: ModelArms) -> dict[str, Any]:
    """Arguments of `vllm.LLM` for a set of arms: derived ones, then those of the configuration."""
    model, adapters = arms.model, [path for path in arms.arms.values() if path is not None]
    derived: dict[str, Any] = {
        "model": model.name,
        "revision": model.revision,
        "dtype": model.dtype,
        "trust_remote_code": model.trust_remote_code,
        "seed": 0,
        # Prompts have a few hundred tokens; a model's full context length would only bind memory.
        "max_model_len": 2048,
        "enable_prefix_caching": True,
        "disable_log_stats": False,
    }
    if adapters:
        derived |= {
            "enable_lora": True,
            "max_loras": 1,  # a call answers one arm
            "max_cpu_loras": len(adapters),
            "max_lora_rank": lora_rank(adapters),
        }
    if not torch.cuda.is_available():
        # Short blocks, so that short shared beginnings fill some; small steps, as LoRA gathers its weights by token.
        derived |= {"enforce_eager": True, "block_size": 32, "max_num_batched_tokens": 512, "max_model_len": 512}
    return {**derived, **arms.engine.vllm}


def lora_rank(adapters: Sequence[str]) -> int:
    """The smallest rank that vLLM accepts and that holds every adapter."""
    ranks = [json.loads((Path(path) / "adapter_config.json").read_text())["r"] for path in adapters]
    return next(rank for rank in RANKS if rank >= max(ranks))
