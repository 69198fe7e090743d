"""Model files: a base model, and how it is best trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from experiment.file import Experiment
from store.evaluation import ModelSettings
from store.settings import Settings, read_settings
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
    """A file of configs/models/: the base model, and how it is best trained.

    Attributes:
        row_tokens: Most tokens of a training row; the memory is planned for it and longer rows are refused.
        gpus: By GPU memory in GB: rows at a time, and what else the training needs to fit. The training
            looks its own GPU up, so a run's settings are the same on all of them.
        sft: Training settings of both stages (any argument of train/sft.py).
        decisions: Settings of instillation, on top of `sft`.
        reports: Settings of introspection training, on top of `sft`.
    """

    row_tokens: int | None = Field(default=None, ge=1)
    gpus: dict[int, GpuSettings] = Field(default_factory=dict)
    sft: dict[str, Any] = Field(default_factory=dict)
    decisions: dict[str, Any] = Field(default_factory=dict)
    reports: dict[str, Any] = Field(default_factory=dict)


def load_model_file(experiment: Experiment) -> ModelFile | None:
    """Read the model file that an experiment names; None for a simulation."""
    return read_settings(Path(experiment.model), ModelFile) if experiment.model else None
