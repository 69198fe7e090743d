"""What engines that run a model share: arms, token ids, and what answers depend on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from store.evaluation import EvalConfig
from store.lora import adapter_hash
from store.models import changes_nothing, check_adapter, fingerprint, model_folder, template_hash
from store.pretrained import load_tokenizer
from task.chat import letter_ids, prompt_ids
from task.errors import InputError
from task.replies import Decided
from task.trials import ShownTrial

if TYPE_CHECKING:
    import xgrammar

COMPARED = 8
"""Prompts by which an arm is told from its base model."""

BASE = ""
"""An arm without an adapter; no arm of an experiment has this name."""


class ModelArms:
    """A base model and its adapters as files; a subclass loads them when the first trial is answered."""

    name: str

    def __init__(self, config: EvalConfig) -> None:
        """Check the model and that every adapter belongs to it."""
        assert config.model is not None  # EvalConfig has checked it
        self.engine, self.model = config.engine, config.model
        self.adapters = {arm: folder for arm, folder in config.arms.items() if folder is not None}
        self._inputs = config.model_inputs()
        folder = model_folder(self.model.name, self.model.revision)
        self._fingerprint, self._chat_template = fingerprint(folder), template_hash(folder)
        self.tokens: Counter[str] = Counter()
        self._compared: set[str] = set()
        for adapter in self.adapters.values():
            check_adapter(Path(adapter), folder, self.model.name)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return load_tokenizer(self.model.name, self.model.revision)

    @cached_property
    def letters(self) -> list[int]:
        """Token ids of the answers A and B."""
        return list(letter_ids(self.tokenizer, self.model.template))

    def prompts(self, trials: Sequence[ShownTrial]) -> list[list[int]]:
        """Token ids of the prompt of each trial."""
        return [prompt_ids(self.tokenizer, trial.prompt, self.model.template) for trial in trials]

    def ask(self, arm: str, trials: Sequence[ShownTrial]) -> Decided:
        """The next token after each prompt; what a subclass computes."""
        raise NotImplementedError

    def decide(self, arm: str, trials: Sequence[ShownTrial]) -> Decided:
        """How likely the letters are as the next token, and whether one is the likeliest."""
        self.compare_with_base(arm, trials)
        return self.ask(arm, trials)

    def compare_with_base(self, arm: str, trials: Sequence[ShownTrial]) -> None:
        """Refuse an adapter that changes nothing, once an arm, when its first trials are answered.

        A derived arm of dose 0 says of itself that it changes nothing, and is its base model.

        Raises:
            InputError: The arm and its base model answer the first prompts the same, to the last digit.
        """
        if arm not in self.adapters or arm in self._compared or not trials or changes_nothing(self.adapters[arm]):
            return
        self._compared.add(arm)
        counted = self.tokens.copy()  # what is asked here is no trial
        own, base = (self.ask(one, trials[:COMPARED]).logps for one in (arm, BASE))
        self.tokens = counted
        if np.array_equal(own, base):
            raise InputError(
                f"{self.adapters[arm]}: arm {arm!r} answers as its base model does, to the last digit, so the adapter "
                "changes nothing; train it again, or look whether its keys are those of this model"
            )

    def take_token_counts(self) -> dict[str, int]:
        """Tokens since the last call, see `eval.engines.base.Engine`."""
        found = dict(self.tokens)
        self.tokens.clear()
        return found

    def identity(self, arm: str) -> dict[str, Any]:
        """Base model, adapter and generation settings."""
        adapter = self.adapters.get(arm)
        return {
            "engine": self.name,
            "base": self._fingerprint,
            "chat_template": self._chat_template,
            "adapter": adapter_hash(Path(adapter)) if adapter else None,
            **self._inputs,
        }


def opening_tokens(grammar: xgrammar.CompiledGrammar, vocabulary: int) -> list[int]:
    """Ids of the tokens that a grammar allows first, in a vocabulary of this size."""
    import xgrammar  # decisions do without it, so that they can be asked for where it is not installed

    bitmask = xgrammar.allocate_token_bitmask(1, vocabulary)
    xgrammar.GrammarMatcher(grammar).fill_next_token_bitmask(bitmask)
    words = bitmask[0].numpy().view(np.uint32)
    bits = (words[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    found: list[int] = np.flatnonzero(bits.ravel()[:vocabulary]).tolist()
    return found
