"""The reference engine: Hugging Face transformers, base model loaded once, each arm an adapter switched on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xgrammar
from numpy.typing import NDArray
from peft import PeftModel
from transformers import AutoModelForCausalLM
from xgrammar.contrib.hf import LogitsProcessor

from eval.config import EvalConfig
from eval.engines.base import ShownTrial
from eval.engines.model_arms import ModelArms, longest_report
from task.contexts import ChoiceContext
from task.prompts import report_grammar


class TransformersEngine(ModelArms):
    """Decisions by one forward pass with logits of the last position only, reports by greedy generation."""

    name = "transformers"

    def __init__(self, config: EvalConfig) -> None:
        super().__init__(config)
        self._device = torch.accelerator.current_accelerator() or torch.device("cpu")
        self._grammars: dict[str, xgrammar.CompiledGrammar] = {}

    @cached_property
    def _model(self) -> Any:
        """The base model with the adapter of every arm that has one, under the arm's name."""
        model = AutoModelForCausalLM.from_pretrained(
            self.model.name,
            revision=self.model.revision,
            dtype=self.model.dtype,
            attn_implementation=self.model.attn_implementation,
            use_safetensors=True,
            trust_remote_code=self.model.trust_remote_code,
        )
        for arm, adapter in self.arms.items():
            if adapter is None:
                continue
            if isinstance(model, PeftModel):
                model.load_adapter(adapter, adapter_name=arm)
            else:
                model = PeftModel.from_pretrained(model, adapter, adapter_name=arm)
        return model.to(self._device).eval()

    @cached_property
    def _stop_ids(self) -> list[int]:
        """All token ids that end a reply; models name one, several, or leave it to the tokenizer."""
        named = self._model.generation_config.eos_token_id
        ids = [*(named if isinstance(named, list) else [named]), self.tokenizer.eos_token_id]
        return list(dict.fromkeys(i for i in ids if i is not None))

    @cached_property
    def _compiler(self) -> xgrammar.GrammarCompiler:
        vocabulary = self._model.config.get_text_config().vocab_size
        return xgrammar.GrammarCompiler(
            xgrammar.TokenizerInfo.from_huggingface(
                self.tokenizer, vocab_size=vocabulary, stop_token_ids=self._stop_ids
            )
        )

    @torch.inference_mode()
    def decide(self, arm: str, trials: Sequence[ShownTrial]) -> NDArray[np.float64]:
        """log P(A) and log P(B) of the next token over the whole vocabulary, shape (trials, 2)."""
        prompts = self.prompts("decisions", trials)
        answers = np.empty((len(trials), 2))
        for rows in self._batches(prompts):
            inputs = self._padded([prompts[i] for i in rows])
            with self._switched_to(arm):
                logits = self._model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
            answers[rows] = logits.float().log_softmax(dim=-1)[:, self.letters].cpu().numpy()
        return answers

    @torch.inference_mode()
    def report(self, arm: str, trials: Sequence[ShownTrial]) -> list[str]:
        """Greedy replies, within the JSON schema of each trial's context if reports are constrained."""
        prompts = self.prompts("reports", trials)
        replies = [""] * len(trials)
        for rows in self._batches(prompts):
            inputs = self._padded([prompts[i] for i in rows])
            contexts = [trials[i].context for i in rows]
            with self._switched_to(arm):
                output = self._model.generate(**inputs, **self._generation(contexts))
            texts = self.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for row, text in zip(rows, texts, strict=True):
                replies[row] = text
        return replies

    def _batches(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Rows in batches of like length, longest first, so that little is padding."""
        by_length = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        size = self.engine.batch_size
        return [by_length[start : start + size] for start in range(0, len(by_length), size)]

    def _padded(self, prompts: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """Left-padded ids, mask and positions: every row's last prompt token stands in the last column."""
        longest = max(len(p) for p in prompts)
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else self._stop_ids[0]
        ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        return {name: tensor.to(self._device) for name, tensor in inputs.items()}

    def _generation(self, contexts: Sequence[ChoiceContext]) -> dict[str, Any]:
        settings = {
            "do_sample": False,
            "eos_token_id": self._stop_ids,
            "pad_token_id": self._stop_ids[0],
            "max_new_tokens": self.engine.report_tokens,
        }
        if self.engine.constrain_reports:
            grammars = [self._grammar(context) for context in contexts]
            settings["max_new_tokens"] = max(longest_report(c) for c in contexts)
            settings["logits_processor"] = [LogitsProcessor(grammars)]
        return settings

    def _grammar(self, context: ChoiceContext) -> xgrammar.CompiledGrammar:
        if context.name not in self._grammars:
            self._grammars[context.name] = self._compiler.compile_grammar(report_grammar(context))
        return self._grammars[context.name]

    def _switched_to(self, arm: str) -> AbstractContextManager[Any]:
        """The model as this arm: its adapter active, or none for a base arm."""
        if not isinstance(self._model, PeftModel):
            return nullcontext()
        if self.arms[arm] is None:
            return self._model.disable_adapter()
        self._model.set_adapter(arm)
        return nullcontext()
