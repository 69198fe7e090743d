"""The arms that are looked into: checked as files first, loaded once something is really to be done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

from pydantic import JsonValue

from inside.adapted import Adapted, adapted
from inside.answers import Answer, decisions, reports
from inside.loading import BaseModel
from store.inside import InsideConfig, Task
from store.models import check_adapter, fingerprint, model_folder, template_hash
from task.contexts import ChoiceContext


class Arms:
    """The arms of a configuration.

    Attributes:
        identity: What tells the base model, for the manifests.
    """

    def __init__(self, config: InsideConfig) -> None:
        """Check the model, and that every adapter belongs to it.

        Raises:
            InputError: An adapter is missing, of another base model, or not as it says.
        """
        self._config = config
        folder = model_folder(config.model.name, config.model.revision)
        self.identity: dict[str, JsonValue] = {"base": fingerprint(folder), "chat_template": template_hash(folder)}
        for arm in config.arms.values():
            for adapter in (arm.adapter, arm.frozen):
                if adapter is not None:
                    check_adapter(Path(adapter), folder, config.model.name)

    @cached_property
    def base(self) -> BaseModel:
        """The base model, loaded when it is first asked for."""
        return BaseModel(self._config.model)

    @contextmanager
    def loaded(self, arm: str) -> Iterator[Adapted]:
        """An arm in memory."""
        with adapted(self.base, self._config.arms[arm]) as model:
            yield model

    def answers(self, model: Adapted, task: Task, context: ChoiceContext) -> list[Answer]:
        """The answers of an arm in a task to the prompts of a context; reports that cannot be read are left out."""
        if task == "deciding":
            return decisions(self.base, self._config, context)
        model.become(model.own)
        return reports(self.base, self._config, context)
