"""Model files (`configs/models/`): a base model, and how it is best trained."""

from __future__ import annotations

from functools import reduce
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from store.evaluation import ModelSettings
from store.paths import project_file
from store.settings import WrittenSettings, describe
from store.training_settings import TrainingTable
from store.values import MOST, Count
from store.yaml_files import read_yaml
from task.errors import InputError, shown
from task.prompts import Measure

GpuSize = Annotated[int, Field(ge=1, le=MOST, strict=False)]
"""GB; a text in `run.json`, as JSON has no other keys."""


class GpuSettings(WrittenSettings):
    """What a training needs to fit a GPU.

    Attributes:
        decisions, reports: Rows at a time in the two stages; accumulation is derived from the effective batch.
        gradient_checkpointing: Compute each layer's activations again in the backward pass.
        load_in_4bit: Hold the frozen base in NF4 (QLoRA).
    """

    decisions: Count
    reports: Count
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
    row_tokens: Count | None = None
    gpus: dict[GpuSize, GpuSettings] = Field(default_factory=dict)
    sft: TrainingTable = Field(default_factory=dict)
    decisions: TrainingTable = Field(default_factory=dict)
    reports: TrainingTable = Field(default_factory=dict)

    def training(self, teach: Measure) -> dict[str, Any]:
        """Settings of the training of one measure."""
        return {**self.sft, **(self.decisions if teach == "decisions" else self.reports)}


def read_model_file(path: Path) -> ModelFile:
    """Read a model file; `extends: FILE` takes all that the file does not say itself from another one, named from it.

    Raises:
        InputError: A file is missing or extends itself, or says something wrong; names the file that says it.
    """
    chain = _chain(project_file(path), ())
    try:
        return ModelFile.model_validate(reduce(_merged, (values for _, values in reversed(chain))))
    except ValidationError as error:
        place = error.errors()[0]["loc"]
        file = max(chain, key=lambda link: _depth(link[1], place))[0]  # the first of the deepest: the one that prevails
        raise InputError(f"{file}: {describe(error)}") from None


def _chain(path: Path, before: tuple[Path, ...]) -> list[tuple[Path, dict[str, Any]]]:
    """The values of a file, and after them those of each file that it builds on."""
    if path.resolve() in before:
        raise InputError(f"{path}: extends itself, by way of {before[-1].name}; name another file")
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no settings; write `key: value` lines, such as name: ORGANISATION/MODEL")
    base = values.pop("extends", None)
    if base is not None and not isinstance(base, str):
        raise InputError(f"{path}: extends {shown(base)} is no file; name one, from the folder of this file")
    rest = [] if base is None else _chain(path.parent / base, (*before, path.resolve()))
    return [(path, values), *rest]


def _merged(base: Any, over: Any) -> Any:
    """Tables merged key by key; anything else is replaced."""
    if not (isinstance(base, dict) and isinstance(over, dict)):
        return over
    return {**base, **{key: _merged(base.get(key), value) for key, value in over.items()}}


def _depth(values: Any, place: tuple[int | str, ...]) -> int:
    """How far a path of keys leads into values."""
    if not place or not isinstance(values, dict) or place[0] not in values:
        return 0
    return 1 + _depth(values[place[0]], place[1:])
