"""What engines that run a model share: arms, token ids, and what answers depend on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from store.checkpoints import ADAPTER
from store.evaluation import EvalConfig
from store.files import hash_file
from store.models import check_adapter, fingerprint, model_folder
from store.paths import project_file
from task.chat import letter_ids, prompt_ids
from task.trials import ShownTrial


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
        self._fingerprint = fingerprint(folder)
        self.tokens: Counter[str] = Counter()
        for adapter in self.adapters.values():
            check_adapter(Path(adapter), folder, self.model.name)

    @cached_property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return AutoTokenizer.from_pretrained(str(project_file(self.model.name)), revision=self.model.revision)

    @cached_property
    def letters(self) -> list[int]:
        """Token ids of the answers A and B."""
        return list(letter_ids(self.tokenizer, self.model.template))

    def prompts(self, trials: Sequence[ShownTrial]) -> list[list[int]]:
        """Token ids of the prompt of each trial."""
        return [prompt_ids(self.tokenizer, trial.prompt, self.model.template) for trial in trials]

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
            "adapter": hash_file(Path(adapter) / ADAPTER) if adapter else None,
            **self._inputs,
        }
