"""Arms that an experiment file names without defining them: kept steps of trainings, halves of cut adapters.

- `instilled@100`: the adapter of a training at a step that `keep_every` keeps.
- `instilled_below_2`, `instilled_from_2`: the adapter of a training that `cuts` cuts, the layers below 2 or the others.
- `fresh_1`, `fresh_2` ...: a training that is `apart`, on one context each. The training's own name means all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from task.names import AT

if TYPE_CHECKING:
    from experiment.file import ArmMeasurement, Experiment
    from experiment.training import Training

Side = Literal["below", "from"]
"""Half of a cut adapter: the layers below the cut, or those from it on."""

SIDES: tuple[Side, ...] = ("below", "from")

HALF = re.compile(r"(?P<arm>.+)_(?P<side>below|from)_(?P<layer>0|[1-9]\d*)")


class Half(NamedTuple):
    """Half of an adapter: whose, the first layer above the cut, and which side of it is kept."""

    arm: str
    layer: int
    side: Side

    @property
    def name(self) -> str:
        """Name of the arm."""
        return f"{self.arm}_{self.side}_{self.layer}"


def step_name(training: str, step: int) -> str:
    """Name of a kept step of a training, or of one of its folds."""
    return f"{training}{AT}{step}"


def kept_step(experiment: Experiment, name: str) -> tuple[str, int] | None:
    """The training and the step that a name means, if the training keeps such a step, however few it has."""
    training, at, step = name.partition(AT)
    if not at or training not in experiment.trainings or not step.isdecimal():
        return None
    every = experiment.trainings[training].keep_every
    kept = every is not None and (int(step) in every if isinstance(every, list) else int(step) % every == 0)
    return (training, int(step)) if kept else None


def half(experiment: Experiment, name: str) -> Half | None:
    """The half of an adapter that a name means, if the adapter is cut there, however few layers it has."""
    found = HALF.fullmatch(name)
    if found is None or found["arm"] not in experiment.cuts:
        return None
    where, layer = experiment.cuts[found["arm"]], int(found["layer"])
    side: Side = "below" if found["side"] == "below" else "from"
    return Half(found["arm"], layer, side) if where == "every" or layer in where else None


def is_made(experiment: Experiment, name: str) -> bool:
    """Whether a name means an arm that is made beside a training."""
    return kept_step(experiment, name) is not None or half(experiment, name) is not None


def trainings_of(experiment: Experiment, name: str) -> list[Training]:
    """The trainings that an arm's adapter comes from: one, or the terms of a sum; none for the base model."""
    names: Iterable[str] = experiment.derived.get(name, [name])
    if step := kept_step(experiment, name):
        names = [step[0]]
    elif part := half(experiment, name):
        names = [part.arm]
    return [experiment.trainings[known] for known in names if known in experiment.trainings]


def asks(experiment: Experiment, measurement: ArmMeasurement, arm: str) -> bool:
    """Whether a measurement is one of an arm, by itself or as one of the kept steps or halves that it asks."""
    if measurement.kept:
        step = kept_step(experiment, arm)
        return step is not None and step[0] == measurement.arm
    if measurement.cuts:
        part = half(experiment, arm)
        return part is not None and part.arm == measurement.arm
    return measurement.arm == arm


def used_names(experiment: Experiment) -> list[str]:
    """The arms that an experiment measures, compares, builds on or looks into, by the names that it gives them."""
    names = [*(m.arm for m in experiment.measurements), experiment.gate.arm]
    names += [arm for c in experiment.comparisons for arm in (c.reports, c.weights)]
    names += [training.on_top_of for training in experiment.trainings.values() if training.on_top_of]
    return names + (experiment.inside.attribution.arms if experiment.inside else [])
