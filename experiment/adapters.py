"""What is known of adapters before they are trained: their layers, ranks, and the steps of their trainings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import ceil
from typing import Any

from experiment.capacity import shapes
from experiment.made_arms import Half
from experiment.training import Training
from store import derived
from store.derived import Part, layers_named
from store.model_file import ModelFile
from store.paths import project_file
from store.run import BASE_ARM
from task.errors import InputError

RANK = 16
"""Rank of an adapter where nothing says it, TRL's default."""

EMBEDDING = "embed_tokens"
"""The matrix that a model reads tokens by: below all layers, and in none."""


def layer_count(model: ModelFile, stem: str) -> int:
    """Layers of a model, by its folder, or by configs/models/architectures.json.

    Raises:
        InputError: Neither is there.
    """
    folder = project_file(model.name)
    if (folder / "config.json").is_file():
        return derived.layer_count(folder)
    if shape := shapes().get(stem):
        return shape.layers
    raise InputError(
        f"{model.name}: how many layers it has is not known, as it is not here; fetch it, or add its shape to "
        "configs/models/architectures.json"
    )


def first_training(trainings: Mapping[str, Training], name: str) -> Training:
    """The training that made the adapter which others go on from."""
    while trainings[name].start != BASE_ARM:
        name = trainings[name].start
    return trainings[name]


def settings_of(model: ModelFile, training: Training) -> dict[str, Any]:
    """Settings of a training: the model file's, and on top of them the experiment's."""
    return {**model.training(training.teach), **training.sft}


def rank_of(model: ModelFile, trainings: Mapping[str, Training], name: str) -> int:
    """Rank of the adapter that a training makes or goes on with."""
    return int(settings_of(model, first_training(trainings, name)).get("lora_r", RANK))


def last_step(settings: Mapping[str, Any], rows: int) -> int | None:
    """Steps of a training with so many rows; None where a step has as many rows as the hardware takes at a time."""
    if (steps := settings.get("max_steps", -1)) > 0:
        return int(steps)
    if not (batch := settings.get("effective_batch_size")):
        return None
    return ceil(ceil(rows / batch) * float(settings.get("num_train_epochs", 3)))


def kept_steps(name: str, training: Training, settings: Mapping[str, Any], rows: int) -> list[int]:
    """The steps that a training keeps before its last one, which is the arm itself.

    Raises:
        InputError: They cannot be told, or there are none.
    """
    every, last = training.keep_every, last_step(settings, rows)
    where = f"trainings.{name}: keep_every {every}"
    if every is None:
        return []
    if last is None and not isinstance(every, list):
        raise InputError(
            f"{where}: the number of steps depends on the GPU; give a list of steps, or effective_batch_size"
        )
    steps = every if isinstance(every, list) else list(range(every, last or 0, every))
    if last is not None and (not steps or steps[-1] >= last):
        raise InputError(
            f"{where}: the training has {last} steps, and the last one is the arm itself; name earlier ones"
        )
    return steps


def cut_layers(name: str, training: Training, where: str | list[int], count: int) -> list[int]:
    """The layers at which a training's adapter is cut, in order.

    Args:
        name: Name of the training.
        training: The one that made the adapter.
        where: The layers that the experiment names, or `every`.
        count: Layers of the model.

    Raises:
        InputError: Nothing would be on one side of a cut.
    """
    changed = changed_layers(name, training, count)
    possible = range(changed[0] + 1, changed[-1] + 1)
    found = list(possible) if where == "every" else [int(layer) for layer in where]
    if not found or any(layer not in possible for layer in found):
        cut = "every" if where == "every" else next(layer for layer in found if layer not in possible)
        can = f"{possible[0]} to {possible[-1]}" if possible else "none, as a single layer has matrices"
        raise InputError(f"cuts.{name}: {cut}: the adapter can be cut at layers {can}; name others")
    return sorted({*found})


def changed_layers(name: str, training: Training, count: int) -> range:
    """The layers that a training's adapter has matrices in.

    Raises:
        InputError: The model has fewer.
    """
    try:
        return layers_named(training.layers, count) if training.layers else range(count)
    except ValueError as error:
        raise InputError(f"trainings.{name}: {error}") from None


def parts_of_half(part: Half, training: Training, settings: Mapping[str, Any], count: int) -> list[Part]:
    """Half of an adapter as parts of it. An embedding is below all layers."""
    if part.side == "from":
        return [Part(layers=f"{part.layer}-{count - 1}")]
    return [Part(layers=f"first {part.layer}"), *_embedding(training, settings)]


def _embedding(training: Training, settings: Mapping[str, Any]) -> Iterator[Part]:
    targets = settings.get("lora_target_modules") or []
    if training.layers is None and EMBEDDING in targets:
        yield Part(matrices=[EMBEDDING])
