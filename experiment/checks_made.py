"""What an experiment file may not say of arms that are made beside trainings, and of looking inside; as in `checks`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from experiment.made_arms import SIDES, Half, is_made, kept_step
from store.run import BASE_ARM

if TYPE_CHECKING:
    from experiment.file import Experiment

MOST = 1000
"""Of folds, contexts and layers whose names are compared; more are refused elsewhere."""


def names_of(experiment: Experiment, name: str) -> Iterator[tuple[str, str]]:
    """Names that a training or a derived arm takes, and what each is. No name that is given has the @ of kept steps."""
    yield name, name
    for fold in range(1, min(experiment.folds(name) or 0, MOST) + 1):
        yield f"{name}_fold_{fold}", f"fold {fold} of {name}"
    training, numbers = experiment.trainings.get(name), range(1, MOST + 1)
    for number in numbers if training and training.apart else []:
        yield f"{name}_{number}", f"context {number} of {name}"
        if training and training.alone:
            yield f"{name}_{number}_alone", f"the adapter of context {number} of {name}"
    if training and training.alone:
        yield f"{name}_alone", f"the adapter of {name}"
    cuts = experiment.cuts.get(name, [])
    for layer in numbers if cuts == "every" else cuts:
        for half in (Half(name, int(layer), side) for side in SIDES):
            yield half.name, f"{name} cut at layer {layer}"


def check_made(experiment: Experiment) -> None:
    """Everything about arms that are made beside trainings.

    Raises:
        ValueError: With the first finding.
    """
    _check_single(experiment)
    _check_kept_and_cut(experiment)
    _check_inside(experiment)


def _check_single(experiment: Experiment) -> None:
    """What is built on the adapter of one arm names a training that makes one."""
    trainings = experiment.trainings
    built = [(f"trainings.{n}: start", t.start) for n, t in trainings.items()]
    built += [(f"trainings.{n}: on_top_of", t.on_top_of) for n, t in trainings.items() if t.on_top_of]
    built += [(f"derived.{n}", term) for n, terms in experiment.derived.items() for term in terms]
    built += [(f"cuts.{name}", name) for name in experiment.cuts]
    for where, arm in built:
        step = kept_step(experiment, arm)
        training = trainings.get(step[0] if step else arm)
        if training and (training.apart or training.on_top_of):
            how = "an arm of each context" if training.apart else "a sum with another adapter"
            raise ValueError(f"{where}: {arm!r} is {how}; name a training without apart and on_top_of")
        if training and training.folds and where.endswith("on_top_of"):
            raise ValueError(f"{where} {arm!r} is {training.folds} arms, one a fold; name a training without folds")
    if experiment.apart(experiment.gate.arm):
        raise ValueError(f"gate: arm {experiment.gate.arm!r} is an arm of each context; name a training without apart")
    for comparison in experiment.comparisons:
        for arm in (comparison.reports, comparison.weights):
            apart = experiment.apart(arm)
            if apart and apart.contexts != comparison.contexts:
                raise ValueError(
                    f"comparisons: {comparison.name}: {arm!r} is an arm of each context of {apart.contexts!r}, so that "
                    f"{comparison.contexts!r} would count several times; compare it on {apart.contexts!r}"
                )


def _check_kept_and_cut(experiment: Experiment) -> None:
    """Measurements of kept steps and of halves name what has them."""
    for m in experiment.measurements:
        training = experiment.trainings.get(m.arm)
        where = f"measurements: {m.measure} of {m.arm!r}"
        if m.kept and m.cuts:
            raise ValueError(f"{where}: kept and cuts are different arms; make an entry of each")
        if m.kept and (training is None or training.keep_every is None):
            raise ValueError(f"{where}: kept, but trainings.{m.arm} keeps no steps; give it keep_every: N")
        if m.cuts and m.arm not in experiment.cuts:
            raise ValueError(f"{where}: cuts, but the adapter is not cut; add cuts: {{{m.arm}: every}}")


def _check_inside(experiment: Experiment) -> None:
    """What is looked into are arms with an adapter; what is patched has scores."""
    if experiment.inside is None:
        return
    looked = experiment.inside.attribution
    patched = experiment.inside.patching.arms if experiment.inside.patching else []
    known = {*experiment.trainings, *experiment.derived}
    for where, names in (("attribution", looked.arms), ("patching", patched)):
        for arm in names:
            if arm == BASE_ARM:
                raise ValueError(f"inside.{where}: {arm!r} has no adapter; name trained arms")
            if arm not in known and not is_made(experiment, arm):
                raise ValueError(f"inside.{where}: {arm!r} is none of {listed(known)}")
        if twice := [arm for arm in names if names.count(arm) > 1]:
            raise ValueError(f"inside.{where}: {twice[0]!r} stands there twice; leave one out")
    if without := [arm for arm in patched if arm not in looked.arms]:
        raise ValueError(f"inside.patching: {without[0]!r} has no scores to rank by; add it to inside.attribution.arms")
    if unknown := [group for group in looked.contexts if group not in experiment.contexts]:
        raise ValueError(f"inside.attribution: contexts {unknown[0]!r} is none of {listed(experiment.contexts)}")


def listed(names: Iterable[str], most: int = 12) -> str:
    """Names in order, as many as a line holds."""
    found = sorted(names)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")
