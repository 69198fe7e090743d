"""Values of training settings: of the type and in the range that a training can work with, said before it begins."""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from store.evaluation import Attention
from store.values import MOST
from task.errors import InputError, shown

_TINY = math.nextafter(0, 1)
_BELOW_1 = math.nextafter(1, 0)

RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("per_device_train_batch_size", "per_device_eval_batch_size", "effective_batch_size"), (1, MOST)),
    **dict.fromkeys(("gradient_accumulation_steps", "eval_accumulation_steps", "save_total_limit"), (1, MOST)),
    **dict.fromkeys(("lora_r", "row_tokens", "max_length", "ddp_timeout"), (1, MOST)),
    **dict.fromkeys(("num_train_epochs", "logging_steps", "save_steps", "eval_steps", "gpu_memory"), (_TINY, MOST)),
    **dict.fromkeys(("learning_rate", "adam_epsilon", "lora_alpha"), (_TINY, math.inf)),
    **dict.fromkeys(("weight_decay", "max_grad_norm", "neftune_noise_alpha"), (0, math.inf)),
    **dict.fromkeys(("adam_beta1", "adam_beta2", "lora_dropout"), (0, _BELOW_1)),
    **dict.fromkeys(("warmup_steps", "stop_patience", "eval_delay", "dataloader_num_workers"), (0, MOST)),
    **dict.fromkeys(("seed", "data_seed"), (0, 2**32 - 1)),
    "share_prefixes": (2, MOST),
    "max_steps": (-1, MOST),
}
"""Smallest and largest value of settings that are numbers, both taken."""

CHOICES: dict[str, tuple[Any, ...]] = {
    "attn_implementation": get_args(Attention),
    "report_to": ("wandb", "none", ["wandb"], ["none"], []),
}
"""Settings of which only some values are honoured here."""


TABLES = ("template", "gpus")
"""Settings that are typed as text and may be tables, see `train.arguments`."""


def check_values(values: Mapping[str, Any], kinds: tuple[type, ...]) -> None:
    """Refuse settings of another type than their field has, or out of range.

    Args:
        values: Settings by name; unknown ones are not looked at.
        kinds: The dataclasses that have the fields.

    Raises:
        InputError: Names the first setting, its value, and what it may be.
    """
    types = {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()}
    for name, value in values.items():
        if value is None or name not in types:
            continue
        number = _as_type(name, value, types[name])
        if isinstance(number, float) and not math.isfinite(number):
            raise InputError(f"{name} {shown(value)}: give a finite number")
        low, high = RANGES.get(name, (-math.inf, math.inf))
        if isinstance(number, int | float) and not low <= number <= high:
            raise InputError(f"{name} {shown(value)}: {_range_in_words(low, high)}")
        if name in CHOICES and value not in CHOICES[name]:
            known = ", ".join(str(choice) for choice in CHOICES[name] if isinstance(choice, str))
            raise InputError(f"{name} {shown(value)}: give one of {known}")


def _as_type(name: str, value: Any, hint: Any) -> Any:
    """A value as its field has it; a text is converted as on the command line, and nothing else is."""
    if (isinstance(value, dict) and name in TABLES) or (isinstance(value, str) and "list" in str(hint)):
        return value  # a table is a text on the command line; one entry of a list may stand alone
    if isinstance(value, Enum):
        return value
    enums: list[type[Enum]] = [kind for kind in get_args(hint) if isinstance(kind, type) and issubclass(kind, Enum)]
    if choices := [str(choice.value) for kind in enums for choice in kind]:
        if value not in choices:
            raise InputError(f"{name} {shown(value)}: give one of {', '.join(choices)}{_yes_or_no(value)}")
        return value
    try:
        return TypeAdapter(hint).validate_python(value, strict=not isinstance(value, str))
    except ValidationError as error:
        said = error.errors()[0]["msg"].removeprefix("Input should be ")
        raise InputError(f"{name} {shown(value)}: give {said}{_yes_or_no(value)}") from None


def _yes_or_no(value: Any) -> str:
    return "; YAML reads yes, no, on and off as true or false, so put a text in quotes" * isinstance(value, bool)


def _range_in_words(low: float, high: float) -> str:
    if low == _TINY:
        return "give a number above 0" if high == math.inf else f"give a number above 0, at most {high:g}"
    top = " below 1" if high == _BELOW_1 else "" if high == math.inf else f", at most {high:g}"
    return f"give a number from {low:g} on{top}"
