"""The arms of a run: one for each training, one a fold, one a context; and what is made of their adapters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from experiment.adapters import (
    changed_layers,
    cut_layers,
    first_training,
    kept_steps,
    layer_count,
    parts_of_half,
    settings_of,
)
from experiment.checks_made import listed
from experiment.file import Experiment
from experiment.made_arms import SIDES, Half, step_name, used_names
from experiment.training import Training
from store.derived import Part
from store.model_file import ModelFile
from store.run import BASE_ARM
from task.contexts import ChoiceContext
from task.errors import InputError
from task.names import AT
from task.seeding import stream


@dataclass(frozen=True)
class Arm:
    """One arm of a run.

    Attributes:
        trained_on: Contexts with training rows.
        held_out: Contexts left for testing; empty without folds.
        validated_on: Contexts that only its training is validated on.
        terms: Of a derived arm: the arms whose adapters it sums, with what they are multiplied by.
        step: Of a kept step of a training: its number.
        context: The one context that it was trained on, where a training makes an arm of each.
        half: Of half of an adapter: which one.
        layer_count: Of half of an adapter: layers of the model.
    """

    name: str
    training: str | None
    trained_on: list[str] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)
    validated_on: list[str] = field(default_factory=list)
    terms: dict[str, list[Part]] = field(default_factory=dict)
    step: int | None = None
    context: str | None = None
    half: Half | None = None
    layer_count: int | None = None

    @property
    def speaks_for(self) -> list[str]:
        """The contexts of the group that its training teaches which it is asked about; empty for all."""
        return [self.context] if self.context else self.held_out

    @property
    def made_by(self) -> str | None:
        """Name of the stage that writes its adapter; None for the base model and planted arms."""
        if self.terms:
            return f"{self.name}.derive"
        if self.training is None:
            return None
        trained = self.name if self.step is None else self.name.removesuffix(step_name("", self.step))
        return f"{trained}.sft"


def expand_arms(
    experiment: Experiment, model: ModelFile | None, groups: Mapping[str, list[ChoiceContext]], seed: int
) -> dict[str, list[Arm]]:
    """The arms behind each name that an experiment uses: one, or one a fold, or one a context.

    Raises:
        InputError: A training has too few contexts or steps, or the model too few layers.
    """
    arms = {name: [Arm(name, None)] for name in (BASE_ARM, *experiment.planted)}
    for name, training in experiment.trainings.items():
        arms[name] = _arms_of(name, training, [c.name for c in groups[training.contexts]], seed)
    if model is not None:
        arms |= _kept(experiment, model, arms)
    for name, training in experiment.trainings.items():
        if training.on_top_of:
            [frozen] = _behind(training.on_top_of, arms)
            alone = [replace(arm, name=alone_name(arm.name)) for arm in arms[name]]
            arms |= {alone_name(name): alone, name: [_sum(arm, frozen) for arm in arms[name]]}
    derived = {name: _derived_arms(name, terms, arms) for name, terms in experiment.derived.items()}
    arms |= derived | (_halves(experiment, model, arms) if model is not None else {})
    for name in used_names(experiment):
        _behind(name, arms)
    return arms


def _behind(name: str, arms: Mapping[str, list[Arm]]) -> list[Arm]:
    """The arms behind a name, which may be of a step or a layer that there is not.

    Raises:
        InputError: There are none.
    """
    if name not in arms:
        whole = name.partition(AT)[0] if AT in name else name.rpartition("_")[0]
        there = listed(known for known in arms if known.startswith(whole))
        raise InputError(f"{name!r}: no such step or layer; there are {there}")
    return arms[name]


def alone_name(arm: str) -> str:
    """Name of the small adapter by itself, where an arm is the sum of it and a frozen one."""
    return f"{arm}_alone"


def _arms_of(name: str, training: Training, names: Sequence[str], seed: int) -> list[Arm]:
    """The arms that a training makes: one, or one a fold, or one a context."""
    if training.labels == "shuffled" and len(names) < 2:
        raise InputError(f"trainings.{name}: labels of one context cannot be shuffled; use more contexts")
    if training.apart:
        return [Arm(f"{name}_{number}", name, [own], context=own) for number, own in enumerate(names, start=1)]
    if training.folds is None:
        return [_trained_arm(name, name, training, [*names], [], seed)]
    if training.folds > len(names):
        raise InputError(f"trainings.{name}: {training.folds} folds of {len(names)} contexts; use fewer folds")
    # The same folds for every training of a run: arms are compared on the same held-out contexts.
    order = stream(seed, "folds", training.contexts).permutation(len(names))
    found = []
    for number in range(training.folds):
        out = {names[i] for i in order[number :: training.folds]}
        kept, held = [n for n in names if n not in out], [n for n in names if n in out]
        found.append(_trained_arm(f"{name}_fold_{number + 1}", name, training, kept, held, seed))
    return found


def _trained_arm(arm: str, name: str, training: Training, kept: list[str], held: list[str], seed: int) -> Arm:
    """An arm of a training on `kept`, of which those that are only validated on are drawn."""
    if not (count := training.validation_contexts):
        return Arm(arm, name, kept, held)
    if count >= len(kept):
        raise InputError(
            f"trainings.{name}: validation_contexts {count} leave none of {len(kept)} to train on; use fewer"
        )
    # The same contexts for every training on the same ones: the arms that are compared learn from the same contexts.
    drawn = {kept[i] for i in stream(seed, "validation_contexts", "\n".join(kept)).permutation(len(kept))[:count]}
    return Arm(arm, name, [n for n in kept if n not in drawn], held, [n for n in kept if n in drawn])


def _kept(experiment: Experiment, model: ModelFile, arms: Mapping[str, list[Arm]]) -> dict[str, list[Arm]]:
    """The kept steps of all trainings, by name and step; each is an arm for every fold."""
    found: dict[str, list[Arm]] = {}
    for name, training in experiment.trainings.items():
        fewest = min(training.rows(len(arm.trained_on)) for arm in arms[name])
        for step in kept_steps(name, training, settings_of(model, training), fewest):
            own = [replace(arm, name=step_name(arm.name, step), step=step) for arm in arms[name]]
            found[step_name(name, step)] = own
    return found


def _sum(arm: Arm, frozen: Arm) -> Arm:
    """The arm that a small adapter on top of a frozen one is."""
    return replace(arm, terms={alone_name(arm.name): [Part()], frozen.name: [Part()]})


def _derived_arms(name: str, terms: Mapping[str, list[Part]], arms: Mapping[str, list[Arm]]) -> list[Arm]:
    """A sum of arms, fold by fold where some have folds; it has held out what these have."""
    folds = max(len(arms[term]) for term in terms)
    found = []
    for number in range(folds):
        taken = {term: arms[term][number] if len(arms[term]) > 1 else arms[term][0] for term in terms}
        held = next((arm.held_out for arm in taken.values() if arm.held_out), [])
        full_name = f"{name}_fold_{number + 1}" if folds > 1 else name
        found.append(Arm(full_name, None, held_out=held, terms={taken[t].name: parts for t, parts in terms.items()}))
    return found


def _halves(experiment: Experiment, model: ModelFile, arms: Mapping[str, list[Arm]]) -> dict[str, list[Arm]]:
    """Both halves of each adapter at each cut, by name; each is an arm for every fold."""
    limited = {name: training for name, training in experiment.trainings.items() if training.layers}
    if not (experiment.cuts or limited):
        return {}
    count, found = layer_count(model, Path(str(experiment.model)).stem), dict[str, list[Arm]]()
    for name, training in limited.items():
        changed_layers(name, training, count)  # refuses layers that the model does not have
    for name, where in experiment.cuts.items():
        first = first_training(experiment.trainings, name)
        for layer in cut_layers(name, first, where, count):
            for part in (Half(name, layer, side) for side in SIDES):
                parts = parts_of_half(part, first, settings_of(model, first), count)
                whole = _derived_arms(part.name, {name: parts}, arms)
                cut = [replace(arm, half=part._replace(arm=next(iter(arm.terms)))) for arm in whole]
                found[part.name] = [replace(arm, layer_count=count) for arm in cut]
    return found
