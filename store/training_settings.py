"""Settings of train/sft.py that a run sets itself: an experiment or model file must not."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator

from store.values import MOST, Table
from task.errors import shown

_PLACE = "the run says where a training reads and writes"
_KEY = "it is a key of the training itself, beside `sft`"
_MODEL = "the model file says it, for training and evaluation alike"
_UPLOAD = "a run uploads nothing, and each of its arms would replace the one before"

SET_BY_THE_RUN = {
    **dict.fromkeys(
        ("output_dir", "train_file", "validation_file", "adapter", "probe_contexts", "run_name", "logging_dir", "env"),
        _PLACE,
    ),
    **dict.fromkeys(
        ("model_name_or_path", "model_revision", "dtype", "torch_dtype", "attn_implementation", "template", "licence"),
        _MODEL,
    ),
    **dict.fromkeys(("row_tokens", "gpus", "trust_remote_code", "config_name", "tokenizer_name"), _MODEL),
    **dict.fromkeys(("push_to_hub", "hub_repository", "hub_model_id", "hub_token", "hub_strategy"), _UPLOAD),
    **dict.fromkeys(("hub_private_repo", "hub_always_push", "hub_revision"), _UPLOAD),
    **dict.fromkeys(("overwrite", "overwrite_output_dir"), "name the stage after --overwrite instead"),
    "keep_steps": f"{_KEY}, called keep_every",
    "frozen_adapter": f"{_KEY}, called on_top_of",
    "layers": _KEY,
    "resume_from_checkpoint": "a training goes on from its own last checkpoint by itself",
    "seed": "the experiment's seeds say it",
    "config": "settings stand here",
}
"""Why each of them is not taken."""


WHOLE = ("effective_batch_size", "per_device_train_batch_size", "lora_r")
FRACTIONS = ("num_train_epochs", "lora_dropout")
"""Numbers that a plan reckons with; `train.values` looks at all others."""


def check_settable(values: dict[str, Any]) -> dict[str, Any]:
    """Refuse training settings that the run sets itself, and numbers that its plan cannot reckon with.

    Raises:
        ValueError: Names the first one.
    """
    for name, value in values.items():
        if why := SET_BY_THE_RUN.get(name):
            raise ValueError(f"{name} cannot be set here: {why}; leave it out")
        if name in WHOLE and not (type(value) is int and 1 <= value <= MOST):
            raise ValueError(f"{name} {shown(value)}: give a whole number, at least 1")
        if name in FRACTIONS and not (type(value) in (int, float) and 0 <= value <= MOST):
            raise ValueError(f"{name} {shown(value)}: give a number, at least 0")
    return values


TrainingTable = Annotated[Table, AfterValidator(check_settable)]
"""Training settings of an experiment or model file."""
