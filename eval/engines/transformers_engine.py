"""The reference engine: Hugging Face transformers, base model loaded once, each arm an adapter switched on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import PeftModel
from torch import Tensor

from eval.engines.batches import Batch, Computed, compute_prefix, in_columns
from eval.engines.model_arms import ModelArms, opening_tokens
from eval.engines.prefixes import common_length, split_prompts, typical_prompts
from store.evaluation import EvalConfig
from store.pretrained import device_at_hand, load_causal_model, stop_ids
from task.chat import prompt_ids
from task.contexts import ChoiceContext
from task.prompts import Framing, longest_report, report_grammar
from task.replies import Decided
from task.trials import ShownTrial

if TYPE_CHECKING:
    import xgrammar

    from eval.engines.decoding import Reply


class TransformersEngine(ModelArms):
    """Decisions by one forward pass with logits of the last position only, reports by greedy decoding.

    What the prompts of a context share is computed once (`eval.engines.prefixes`).
    """

    name = "transformers"

    def __init__(self, config: EvalConfig) -> None:
        super().__init__(config)
        self._device = device_at_hand()
        self._heads: dict[Framing, list[int]] = {}
        self._prefixes: dict[tuple[str | int, ...], Computed] = {}

    @cached_property
    def _model(self) -> Any:
        """The base model with the adapter of every arm that has one, under the arm's name."""
        model = load_causal_model(
            self.model.name,
            self.model.revision,
            dtype=self.model.dtype,
            attn_implementation=self.model.attn_implementation,
        )
        for arm, adapter in self.adapters.items():
            if isinstance(model, PeftModel):
                model.load_adapter(adapter, adapter_name=arm)
            else:
                model = PeftModel.from_pretrained(model, adapter, adapter_name=arm)
        return model.to(self._device).eval()

    @cached_property
    def _stop_ids(self) -> list[int]:
        return stop_ids(self._model, self.tokenizer)

    @cached_property
    def _compiler(self) -> xgrammar.GrammarCompiler:
        import xgrammar  # as decoding below: decisions do without it

        size = self._model.config.get_text_config().vocab_size
        known = xgrammar.TokenizerInfo.from_huggingface(self.tokenizer, vocab_size=size, stop_token_ids=self._stop_ids)
        return xgrammar.GrammarCompiler(known)

    @torch.inference_mode()
    def ask(self, arm: str, trials: Sequence[ShownTrial]) -> Decided:
        """The letters in the distribution of the next token over the whole vocabulary."""
        logps, top = np.empty((len(trials), 2)), np.empty(len(trials), dtype=bool)
        for rows, found in self._next_token(arm, trials):
            letters = found[:, self.letters]
            logps[rows] = letters.cpu().numpy()
            top[rows] = (letters.amax(dim=-1) >= found.amax(dim=-1)).cpu().numpy()
        return Decided(logps, top)

    @torch.inference_mode()
    def opening(self, arm: str, trials: Sequence[ShownTrial]) -> NDArray[np.float64]:
        """P(the next token is one that the grammar of the trial's context allows first), shape (trials,)."""
        self.compare_with_base(arm, trials)
        found = np.empty(len(trials))
        for rows, logps in self._next_token(arm, trials):
            for row, probabilities in zip(rows, logps.exp(), strict=True):
                opens = opening_tokens(self._grammar(trials[row].context), len(probabilities))
                found[row] = float(probabilities[opens].sum())
        return np.nan_to_num(found, nan=0.0)

    def _next_token(self, arm: str, trials: Sequence[ShownTrial]) -> Iterator[tuple[list[int], Tensor]]:
        """Batches of rows with the log-probabilities of their next token, shape (rows, vocabulary)."""
        with self._switched_to(arm):
            for rows, batch, rest in self._batches(arm, trials):
                yield rows, batch.feed(in_columns(rest, left=True), logits=1)[:, -1].float().log_softmax(dim=-1)

    @torch.inference_mode()
    def report(self, arm: str, trials: Sequence[ShownTrial], constrained: bool) -> list[str | None]:
        """Greedy replies, within the grammar of each trial's context if constrained; None where logits are broken."""
        self.compare_with_base(arm, trials)
        with self._switched_to(arm):
            replies = self._replies(arm, trials, constrained)
            if stuck := [i for i, reply in enumerate(replies) if reply.stuck]:
                again = self._replies(arm, [trials[i] for i in stuck], constrained, dictated=True)
                for i, reply in zip(stuck, again, strict=True):
                    replies[i] = reply
        texts = self.tokenizer.batch_decode([r.tokens for r in replies], skip_special_tokens=True)
        return [None if reply.not_finite else text for reply, text in zip(replies, texts, strict=True)]

    def _replies(
        self, arm: str, trials: Sequence[ShownTrial], constrained: bool, dictated: bool = False
    ) -> list[Reply]:
        from eval.engines.decoding import Reply, greedy_replies

        grammars = [self._grammar(trial.context) if constrained else None for trial in trials]
        replies = [Reply(grammar, self.tokenizer, self._stop_ids, dictated) for grammar in grammars]
        for rows, batch, rest in self._batches(arm, trials):
            limit = self.engine.report_tokens
            if constrained:
                limit = max(longest_report(trials[row].context) for row in rows)
            greedy_replies(batch, rest, [replies[row] for row in rows], limit, ahead=not self._windowed)
        self.tokens["reply"] += sum(len(reply.tokens) for reply in replies)
        return replies

    def _batches(self, arm: str, trials: Sequence[ShownTrial]) -> Iterator[tuple[list[int], Batch, list[list[int]]]]:
        """Batches of rows whose shared beginnings are computed, with the rest of each row's prompt.

        Rows of like length go together, longest first, so that little is padding. A beginning is computed once and
        kept until a call no longer needs it, since the next shard mostly goes on with the same context.
        """
        prompts = self.prompts(trials)
        cuts = [0] * len(trials)
        if not self._windowed:
            cuts = split_prompts(prompts, [self._head(trial.framing) for trial in trials])
        shared: list[tuple[str | int, ...]] = [(arm, *prompt[:cut]) for prompt, cut in zip(prompts, cuts, strict=True)]
        needed = set(shared)
        self._prefixes = {key: kept for key, kept in self._prefixes.items() if key in needed}
        by_length = sorted(range(len(trials)), key=lambda i: (cuts[i] - len(prompts[i]), i))
        self.tokens["prompt"] += sum(map(len, prompts))
        self.tokens["computed"] += sum(len(prompt) - cut for prompt, cut in zip(prompts, cuts, strict=True))
        for start in range(0, len(trials), self.engine.batch_size):
            rows = by_length[start : start + self.engine.batch_size]
            batch = Batch(self._model, [self._prefix(prompts[i][: cuts[i]], shared[i]) for i in rows])
            yield rows, batch, [prompts[i][cuts[i] :] for i in rows]

    def _prefix(self, ids: list[int], key: tuple[str | int, ...]) -> Computed:
        if ids and key not in self._prefixes:
            self._prefixes[key] = compute_prefix(self._model, ids)
            self.tokens["computed"] += len(ids)
        return self._prefixes.get(key, [])

    def _head(self, framing: Framing) -> list[int]:
        """What the prompts of a context in a wording are expected to share."""
        if framing not in self._heads:
            ids = [prompt_ids(self.tokenizer, prompt, self.model.template) for prompt in typical_prompts(framing)]
            self._heads[framing] = ids[0][: common_length(ids)]
        return self._heads[framing]

    @cached_property
    def _windowed(self) -> bool:
        """Whether some layers look back only so far.

        Their window is counted in columns, padding and all, so rows must be without gaps: nothing is shared then.
        """
        return getattr(self._model.config.get_text_config(), "sliding_window", None) is not None

    def _grammar(self, context: ChoiceContext) -> xgrammar.CompiledGrammar:
        return self._compiler.compile_grammar(report_grammar(context))  # which keeps what it has compiled

    def _switched_to(self, arm: str) -> AbstractContextManager[Any]:
        """The model as this arm: its adapter active, or none for a base arm."""
        if not isinstance(self._model, PeftModel):
            return nullcontext()
        if arm not in self.adapters:
            return self._model.disable_adapter()
        self._model.set_adapter(arm)
        return nullcontext()
