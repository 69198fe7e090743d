"""The reference engine: Hugging Face transformers, base model loaded once, each arm an adapter switched on."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xgrammar
from numpy.typing import NDArray
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from xgrammar.contrib.hf import LogitsProcessor

from eval.config import EvalConfig
from eval.engines.base import ShownTrial
from task.chat import letter_ids, prompt_ids
from task.contexts import ChoiceContext
from task.models import check_adapter, fingerprint, model_folder
from task.prompts import Measure, messages, report_answer, report_schema
from task.stages import hash_file


class TransformersEngine:
    """Decisions by one forward pass with logits of the last position only, reports by greedy generation."""

    def __init__(self, config: EvalConfig) -> None:
        """Check model and adapters; they are loaded when the first trial is answered, which may never happen."""
        assert config.model is not None  # EvalConfig has checked it
        self._config, self._settings = config, config.model
        folder = model_folder(config.model.name, config.model.revision)
        self._fingerprint = fingerprint(folder)
        for adapter in config.arms.values():
            if adapter is not None:
                check_adapter(Path(adapter), folder, config.model.name)
        self._device = torch.accelerator.current_accelerator() or torch.device("cpu")
        self._grammars: dict[str, xgrammar.CompiledGrammar] = {}

    @cached_property
    def _tokenizer(self) -> Any:
        return AutoTokenizer.from_pretrained(self._settings.name, revision=self._settings.revision)

    @cached_property
    def _letters(self) -> list[int]:
        return list(letter_ids(self._tokenizer, self._settings.template))

    @cached_property
    def _model(self) -> Any:
        """The base model with the adapter of every arm that has one, under the arm's name."""
        model = AutoModelForCausalLM.from_pretrained(
            self._settings.name,
            revision=self._settings.revision,
            dtype=self._settings.dtype,
            attn_implementation=self._settings.attn_implementation,
            use_safetensors=True,
            trust_remote_code=self._settings.trust_remote_code,
        )
        for arm, adapter in self._config.arms.items():
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
        ids = [*(named if isinstance(named, list) else [named]), self._tokenizer.eos_token_id]
        return list(dict.fromkeys(i for i in ids if i is not None))

    @cached_property
    def _compiler(self) -> xgrammar.GrammarCompiler:
        vocabulary = self._model.config.get_text_config().vocab_size
        return xgrammar.GrammarCompiler(
            xgrammar.TokenizerInfo.from_huggingface(
                self._tokenizer, vocab_size=vocabulary, stop_token_ids=self._stop_ids
            )
        )

    @torch.inference_mode()
    def decide(self, arm: str, trials: Sequence[ShownTrial]) -> NDArray[np.float64]:
        """log P(A) and log P(B) of the next token over the whole vocabulary, shape (trials, 2)."""
        prompts = self._prompts("decisions", trials)
        answers = np.empty((len(trials), 2))
        for rows in self._batches(prompts):
            inputs = self._padded([prompts[i] for i in rows])
            with self._switched_to(arm):
                logits = self._model(**inputs, logits_to_keep=1, use_cache=False).logits[:, -1]
            answers[rows] = logits.float().log_softmax(dim=-1)[:, self._letters].cpu().numpy()
        return answers

    @torch.inference_mode()
    def report(self, arm: str, trials: Sequence[ShownTrial]) -> list[str]:
        """Greedy replies, within the JSON schema of each trial's context if reports are constrained."""
        prompts = self._prompts("reports", trials)
        replies = [""] * len(trials)
        for rows in self._batches(prompts):
            inputs = self._padded([prompts[i] for i in rows])
            contexts = [trials[i].context for i in rows]
            with self._switched_to(arm):
                output = self._model.generate(**inputs, **self._generation(contexts))
            texts = self._tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            for row, text in zip(rows, texts, strict=True):
                replies[row] = text
        return replies

    def identity(self, arm: str) -> dict[str, Any]:
        """Base model, adapter and generation settings; batch size is left out, as it is to change nothing."""
        adapter = self._config.arms[arm]
        engine = self._config.engine
        return {
            "engine": "transformers",
            "base": self._fingerprint,
            "adapter": hash_file(Path(adapter) / "adapter_model.safetensors") if adapter else None,
            "dtype": self._settings.dtype,
            "template": self._settings.template,
            "constrain_reports": engine.constrain_reports,
            "report_tokens": None if engine.constrain_reports else engine.report_tokens,
        }

    def _prompts(self, measure: Measure, trials: Sequence[ShownTrial]) -> list[list[int]]:
        shown = (messages(measure, t.context, t.option_a, t.option_b) for t in trials)
        return [prompt_ids(self._tokenizer, prompt, self._settings.template) for prompt in shown]

    def _batches(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Rows in batches of like length, longest first, so that little is padding."""
        by_length = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
        size = self._config.engine.batch_size
        return [by_length[start : start + size] for start in range(0, len(by_length), size)]

    def _padded(self, prompts: Sequence[Sequence[int]]) -> dict[str, torch.Tensor]:
        """Left-padded ids, mask and positions: every row's last prompt token stands in the last column."""
        longest = max(len(p) for p in prompts)
        pad = self._tokenizer.pad_token_id if self._tokenizer.pad_token_id is not None else self._stop_ids[0]
        ids = torch.tensor([[pad] * (longest - len(p)) + list(p) for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
        return {name: tensor.to(self._device) for name, tensor in inputs.items()}

    def _generation(self, contexts: Sequence[ChoiceContext]) -> dict[str, Any]:
        settings = {
            "do_sample": False,
            "eos_token_id": self._stop_ids,
            "pad_token_id": self._stop_ids[0],
            "max_new_tokens": self._config.engine.report_tokens,
        }
        if self._config.engine.constrain_reports:
            grammars = [self._grammar(context) for context in contexts]
            # No token is shorter than a byte, so the longest reply in bytes bounds its tokens however it is split.
            longest = (report_answer(c, [-100.0] * len(c.attributes)) for c in contexts)
            settings["max_new_tokens"] = 1 + max(len(text.encode()) for text in longest)
            settings["logits_processor"] = [LogitsProcessor(grammars)]
        return settings

    def _grammar(self, context: ChoiceContext) -> xgrammar.CompiledGrammar:
        if context.name not in self._grammars:
            schema = report_schema(context)
            self._grammars[context.name] = self._compiler.compile_json_schema(schema, any_whitespace=False)
        return self._grammars[context.name]

    def _switched_to(self, arm: str) -> AbstractContextManager[Any]:
        """The model as this arm: its adapter active, or none for a base arm."""
        if not isinstance(self._model, PeftModel):
            return nullcontext()
        if self._config.arms[arm] is None:
            return self._model.disable_adapter()
        self._model.set_adapter(arm)
        return nullcontext()
