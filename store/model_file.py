"""Model files (`configs/models/`): a base model, and how it is best trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from store.evaluation import ModelSettings
from store.settings import Settings, read_yaml, validated
from task.errors import InputError
from task.prompts import Measure


class GpuSettings(Settings):
    """What a training needs to fit a GPU.

    Attributes:
        decisions, reports: Rows at a time in the two stages; accumulation is derived from the effective batch.
        gradient_checkpointing: Compute each layer's activations again in the backward pass.
        load_in_4bit: Hold the frozen base in NF4 (QLoRA).
    """

    decisions: int = Field(ge=1)
    reports: int = Field(ge=1)
    gradient_checkpointing: bool = False
    load_in_4bit: bool = False

    def sft(self, teach: Measure) -> dict[str, Any]:
        """Settings of train/sft.py for one stage."""
        rows = self.decisions if teach == "decisions" else self.reports
        flags = {"gradient_checkpointing": self.gradient_checkpointing, "load_in_4bit": self.load_in_4bit}
        return {"per_device_train_batch_size": rows, **{name: True for name, on in flags.items() if on}}


class ModelFile(ModelSettings):
    """A file of configs/models/, with what it inherits.

    Attributes:
        licence: Of the model, in the Hub's spelling; it goes into the card of each adapter.
        row_tokens: Most tokens of a training row; the memory is planned for it and longer rows are refused.
        gpus: By GPU memory in GB: rows at a time, and what else the training needs to fit. The training
            looks its own GPU up, so a run's settings are the same on all of them.
        sft: Training settings of both stages (any argument of train/sft.py).
        decisions: Settings of instillation, on top of `sft`.
        reports: Settings of introspection training, on top of `sft`.
    """

    licence: str | None = None
    row_tokens: int | None = Field(default=None, ge=1)
    gpus: dict[int, GpuSettings] = Field(default_factory=dict)
    sft: dict[str, Any] = Field(default_factory=dict)
    decisions: dict[str, Any] = Field(default_factory=dict)
    reports: dict[str, Any] = Field(default_factory=dict)

    def training(self, teach: Measure) -> dict[str, Any]:
        """Settings of the training of one measure."""
        return {**self.sft, **(self.decisions if teach == "decisions" else self.reports)}


def read_model_file(path: Path) -> ModelFile:
    """Read a model file; `extends: FILE` takes all that the file does not say itself from another one beside it.

    Raises:
        InputError: A file is missing or extends itself, a key is unknown, or a value is bad.
    """
    return validated(_resolved(path, ()), ModelFile, path)


def _resolved(path: Path, before: tuple[Path, ...]) -> Any:
    """The values of a file on top of those that it extends."""
    if path in before:
        raise InputError(f"{path}: extends itself, by way of {before[-1]}; name another file")
    values = read_yaml(path)
    if not isinstance(values, dict) or "extends" not in values:
        return values
    base = path.parent / str(values.pop("extends"))
    return _merged(_resolved(base, (*before, path)), values)


def _merged(base: Any, over: Any) -> Any:
    """Tables merged key by key; anything else is replaced."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return {**base, **{key: _merged(base.get(key), value) for key, value in over.items()}}
