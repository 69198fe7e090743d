"""Derived arms: a weighted sum of adapters, by adapter, layer and matrix, as it is asked for.

A change of weights `W = sum_i w_i(layer, matrix) * scaling_i * B_i A_i` is one state of the model like any other. Dose
(one adapter times a number), adapter swap (one adapter put in another's place), ablation (some layers only) and
patching (some matrices only) are such sums.
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from store.files import read_json
from store.settings import Settings
from store.values import MOST
from task.errors import InputError

LAYER = re.compile(r"\blayers\.(\d+)\.")
"""Where the name of a matrix says its layer, counted from 0."""

RANGE = re.compile(r"(?:(?P<side>first|last) (?P<many>\d+))|(?:(?P<low>\d+)-(?P<high>\d+))")


def layers_named(text: str, count: int) -> range:
    """The layers of a model with `count` of them that a text means: `first 4`, `last 4`, or `2-5` (both included).

    `first 0` and `last 0` are none of them, which is one end of a sweep of cuts.

    Raises:
        ValueError: It is none of these, or the model has fewer layers.
    """
    found = RANGE.fullmatch(text.strip())
    if not found:
        raise ValueError(f"layers {text!r}: give 'first N', 'last N' or 'LOW-HIGH', counted from 0, both included")
    if found["side"]:
        many = int(found["many"])
        if many > count:
            raise ValueError(f"layers {text!r}: the model has {count} layers; give 0 to {count} of them")
        return range(many) if found["side"] == "first" else range(count - many, count)
    low, high = int(found["low"]), int(found["high"])
    if not low <= high < count:
        raise ValueError(f"layers {text!r}: the model has layers 0 to {count - 1}; give a range among them")
    return range(low, high + 1)


def layer_count(model: Path) -> int:
    """How many layers the text decoder of a model folder has, by its configuration alone.

    Raises:
        InputError: The configuration does not say.
    """
    settings = read_json(model / "config.json")
    count = settings.get("text_config", settings).get("num_hidden_layers") if isinstance(settings, dict) else None
    if type(count) is not int:
        raise InputError(f"{model / 'config.json'}: no num_hidden_layers; layers can be told apart by that alone")
    return count


def check_layers(text: str, model: Path) -> None:
    """Refuse layers in which a new adapter would have no matrix; held against the model where its folder is there.

    Raises:
        InputError: It means no layers, or layers that the model lacks.
    """
    known = (model / "config.json").is_file()
    try:
        if not layers_named(text, layer_count(model) if known else MOST):
            raise InputError(f"layers {text!r}: an adapter needs at least one layer; give more, or leave layers out")
    except ValueError as error:
        raise InputError(str(error)) from None


class Part(Settings):
    """A number, and the matrices of an adapter that it multiplies.

    Attributes:
        weight: The number.
        layers: See `layers_named`; all matrices when None. Matrices outside layers (embeddings) are in no range.
        matrices: Shell patterns of which one must match the end of a matrix's name (`q_proj`, `mlp.*`,
            `layers.3.self_attn.q_proj`); all when None.
    """

    weight: float = Field(default=1.0, allow_inf_nan=False)
    layers: str | None = None
    matrices: list[str] | None = Field(default=None, min_length=1)

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, text: str | None) -> str | None:
        if text is not None and not RANGE.fullmatch(text.strip()):
            layers_named(text, 0)
        return text

    def covers(self, matrix: str, layer_count: int) -> bool:
        """Whether it multiplies a matrix, by the matrix's name in the model."""
        if self.layers is not None:
            layer = LAYER.search(matrix)
            if layer is None or int(layer[1]) not in layers_named(self.layers, layer_count):
                return False
        return self.matrices is None or any(fnmatchcase(matrix, f"*.{end}") for end in self.matrices)


class Term(Settings):
    """One adapter of a sum with its numbers; a matrix that several parts cover gets their sum."""

    adapter: str
    parts: list[Part] = Field(min_length=1)

    def weight(self, matrix: str, layer_count: int) -> float:
        """What a matrix of the adapter is multiplied by."""
        return sum(part.weight for part in self.parts if part.covers(matrix, layer_count))


def parts_of(value: Any) -> Any:
    """What an experiment file says of one adapter, as parts: a number, one part, or a list of parts."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return [{"weight": value}]
    return [value] if isinstance(value, dict) else value


class DeriveConfig(Settings):
    """`python -m train.derived`: which adapters are summed, and where the sum is written.

    Attributes:
        model: Base model of all of them, a folder or a name on the Hub.
        revision: Of the model on the Hub.
        terms: The adapters, by folder.
        output: Folder of the derived adapter.
    """

    model: str
    revision: str = "main"
    terms: list[Term] = Field(min_length=1)
    output: str

    @model_validator(mode="after")
    def _check_terms(self) -> DeriveConfig:
        folders = [term.adapter for term in self.terms]
        if twice := [folder for folder in folders if folders.count(folder) > 1]:
            raise ValueError(f"terms: {twice[0]} stands twice; join its parts in one entry")
        return self
