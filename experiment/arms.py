"""The arms of a run: one for each training, or one a fold, with the contexts that it is trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from experiment.file import Experiment, Training
from store.derived import Part
from store.run import BASE_ARM
from task.contexts import ChoiceContext
from task.errors import InputError
from task.seeding import stream


@dataclass(frozen=True)
class Arm:
    """One arm of a run.

    Attributes:
        trained_on: Contexts with training rows.
        held_out: Contexts left for testing; empty without folds.
        validated_on: Contexts that only its training is validated on.
        terms: Of a derived arm: the arms whose adapters it sums, with what they are multiplied by.
    """

    name: str
    training: str | None
    trained_on: list[str] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)
    validated_on: list[str] = field(default_factory=list)
    terms: dict[str, list[Part]] = field(default_factory=dict)


def expand_arms(experiment: Experiment, groups: Mapping[str, list[ChoiceContext]], seed: int) -> dict[str, list[Arm]]:
    """The arms behind each name that an experiment uses: one, or one a fold."""
    arms = {name: [Arm(name, None)] for name in (BASE_ARM, *experiment.planted)}
    for name, training in experiment.trainings.items():
        names = [c.name for c in groups[training.contexts]]
        if training.labels == "shuffled" and len(names) < 2:
            raise InputError(f"trainings.{name}: labels of one context cannot be shuffled; use more contexts")
        if training.folds is None:
            arms[name] = [_trained_arm(name, name, training, names, [], seed)]
            continue
        if training.folds > len(names):
            raise InputError(f"trainings.{name}: {training.folds} folds of {len(names)} contexts; use fewer folds")
        # The same folds for every training of a run: arms are compared on the same held-out contexts.
        order = stream(seed, "folds", training.contexts).permutation(len(names))
        arms[name] = []
        for number in range(training.folds):
            out = {names[i] for i in order[number :: training.folds]}
            kept, held = [n for n in names if n not in out], [n for n in names if n in out]
            arms[name].append(_trained_arm(f"{name}_fold_{number + 1}", name, training, kept, held, seed))
    return arms | {name: _derived_arms(name, terms, arms) for name, terms in experiment.derived.items()}


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
