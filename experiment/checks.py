"""What an experiment file may not say, found before the first stage: each finding is one line with a remedy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING

from experiment.checks_made import check_made, listed, names_of
from experiment.made_arms import asks, is_made, used_names
from store.run import BASE_ARM
from store.summary import RunSummary
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import DEFAULT, Measure, Variant

if TYPE_CHECKING:
    from experiment.file import ArmMeasurement, Experiment

HELD_OUT = "held_out"

STAGES = ("evaluate", "attribute", "patch", "analyse", "track")
"""Stages that belong to no arm."""

Asked = tuple[str, Measure, Variant, bool]
"""Arm, measure, variant, constrained: what a trial file is called by."""


def check_experiment(experiment: Experiment) -> None:
    """Everything that an experiment file alone can be wrong in.

    Raises:
        ValueError: With the first finding.
    """
    _check_collisions(experiment)
    _check_references(experiment)
    _check_engine(experiment)
    _check_folds(experiment)
    _check_derived(experiment)
    check_made(experiment)
    _check_measurements(experiment)
    _check_compared(experiment)
    _check_differences(experiment)
    _check_families(experiment)


def check_groups(experiment: Experiment, groups: Mapping[str, Sequence[ChoiceContext]]) -> None:
    """What the contexts of an experiment can be wrong in.

    Raises:
        InputError: A measurement is of contexts with different numbers of attributes, which share no trial file; or a
            simulation has a single context, whose weights no other one has.
    """
    if experiment.engine.name == "simulated" and sum(map(len, groups.values())) < 2:
        raise InputError("contexts: the simulated engine needs at least 2 contexts; raise count or add a group")
    for measurement in experiment.measurements:
        names = _groups_of(experiment, measurement)
        sizes = {name: len(groups[name][0].attributes) for name in names}
        if len({*sizes.values()}) > 1:
            found = ", ".join(f"{size} in {name!r}" for name, size in sizes.items())
            raise InputError(
                f"measurements: {measurement.measure} of {measurement.arm!r} ask of contexts with different numbers of "
                f"attributes ({found}); make a measurement of each group"
            )


def _check_collisions(experiment: Experiment) -> None:
    """Names that would be one folder, one row or one key, also on a disk that takes `A` and `a` for the same."""
    for name in experiment.trainings:
        if name.lower() in (BASE_ARM, HELD_OUT, *STAGES):
            raise ValueError(f"trainings: {name!r} means something else in a run; give the training another name")
    for name in experiment.planted:
        if name.lower() in (HELD_OUT, *STAGES):
            raise ValueError(f"planted: {name!r} means something else in a run; give the arm another name")
    for name in experiment.contexts:
        if name.lower() == HELD_OUT:
            raise ValueError(f"contexts: {name!r} means the contexts outside a fold; give the group another name")
    for name in experiment.derived:
        if name.lower() in (BASE_ARM, HELD_OUT, *STAGES):
            raise ValueError(f"derived: {name!r} means something else in a run; give the arm another name")
    arms = [(BASE_ARM, BASE_ARM)]
    arms += chain.from_iterable(names_of(experiment, name) for name in (*experiment.trainings, *experiment.derived))
    arms += [(name, name) for name in experiment.planted if name != BASE_ARM and name not in experiment.trainings]
    _refuse_twins("arms", arms)
    _refuse_twins("contexts", [(name, name) for name in experiment.contexts])
    for where, entries in (("comparisons", experiment.comparisons), ("differences", experiment.differences)):
        names = [entry.name for entry in entries]
        if taken := [name for name in names if name.lower() in (*RunSummary.model_fields, "learned_vs_target")]:
            raise ValueError(f"{where}: {taken[0]!r} is a key of summary.json; give it another name")
        _refuse_twins(where, [(name, name) for name in names])


def _refuse_twins(where: str, names: Iterable[tuple[str, str]]) -> None:
    """Refuse two (name, what it is) of one name, upper and lower case alike."""
    seen: dict[str, str] = {}
    for name, what in names:
        if name.lower() in seen:
            raise ValueError(f"{where}: {seen[name.lower()]!r} and {what!r} have one name, {name!r}; rename one")
        seen[name.lower()] = what


def _check_references(experiment: Experiment) -> None:
    """Names that are nowhere defined."""
    groups, trained = {*experiment.contexts}, {BASE_ARM, *experiment.trainings, *experiment.planted}
    trainings, measurements, comparisons = experiment.trainings, experiment.measurements, experiment.comparisons
    made = {name for name in used_names(experiment) if is_made(experiment, name)}
    arms = trained | {*experiment.derived} | made
    named = [("trainings", t.contexts, groups) for t in trainings.values()]
    named += [("trainings", t.start, trained) for t in trainings.values()]
    named += [("trainings", t.on_top_of, {*trainings} | made) for t in trainings.values() if t.on_top_of]
    named += [("cuts", name, {*trainings}) for name in experiment.cuts]
    named += [("derived", name, {*trainings}) for terms in experiment.derived.values() for name in terms]
    named += [("measurements", m.arm, arms) for m in measurements]
    named += [("measurements", c, groups | {HELD_OUT}) for m in measurements for c in m.contexts]
    named += [("comparisons", c.reports, arms) for c in comparisons]
    named += [("comparisons", c.weights, arms) for c in comparisons]
    named += [("comparisons", c.contexts, groups) for c in comparisons]
    named += [("gate", experiment.gate.arm, arms), ("gate", experiment.gate.contexts, groups)]
    named += [("target_contexts", name, groups) for name in experiment.target_contexts]
    for where, name, known in named:
        if name not in known:
            raise ValueError(f"{where}: {name!r} is none of {listed(known)}")
    targets = experiment.target_contexts
    taught = [(f"trainings.{n}", t.contexts) for n, t in trainings.items() if t.labels != "learned"]
    for where, name in [*taught, ("gate", experiment.gate.contexts)]:
        if name not in targets:
            raise ValueError(
                f"{where}: contexts {name!r} have no target weights; give {listed(targets)}, or add the group to "
                "target_contexts"
            )


def _check_engine(experiment: Experiment) -> None:
    """Planted arms are simulated, trained ones are not."""
    if experiment.engine.name != "simulated":
        if experiment.model is None:
            raise ValueError("model: name a file of configs/models/, or use the simulated engine")
        if experiment.planted:
            raise ValueError(
                f"planted: {next(iter(experiment.planted))!r} would be the model itself under another name; "
                "leave it out, or use the simulated engine"
            )
        return
    if experiment.trainings:
        raise ValueError(
            f"trainings: the simulated engine trains nothing; leave {next(iter(experiment.trainings))!r} out, "
            "or say under planted how it would answer"
        )
    if BASE_ARM not in experiment.planted:
        raise ValueError(f"planted: the simulated engine needs an entry for {BASE_ARM!r}")


def _check_folds(experiment: Experiment) -> None:
    """Where one arm is needed, or one that has contexts held out."""
    several = [(f"trainings.{name}: start", t.start) for name, t in experiment.trainings.items()]
    for where, arm in [*several, ("gate: arm", experiment.gate.arm)]:
        if folds := experiment.folds(arm):
            raise ValueError(
                f"{where} {arm!r} is {folds} arms, one a fold, and one is needed; name a training without folds"
            )
    for comparison in experiment.comparisons:
        for arm in (comparison.reports, comparison.weights):
            folded = experiment.folded(arm)
            if folded and folded.contexts != comparison.contexts:
                # Every fold would speak for every context, each of which would count several times.
                raise ValueError(
                    f"comparisons: {comparison.name}: {arm!r} is {experiment.folds(arm)} arms, none of which was "
                    f"trained on {comparison.contexts!r}; name a training without folds"
                )


def _check_derived(experiment: Experiment) -> None:
    """Folds of a sum are those of its terms, which must then have the same."""
    for name, terms in experiment.derived.items():
        if not terms:
            raise ValueError(f"derived.{name}: sums nothing; name trainings, each with a number")
        folded = {(t.folds, t.contexts) for t in (experiment.trainings[term] for term in terms) if t.folds}
        if len(folded) > 1:
            raise ValueError(
                f"derived.{name}: sums trainings with folds of different number or contexts; use those of one kind"
            )


def _check_measurements(experiment: Experiment) -> None:
    """Each trial file is asked for once, and each context in it."""
    seen: set[tuple[Asked, bool, bool]] = set()
    for m in experiment.measurements:
        if HELD_OUT in m.contexts and not experiment.folds(m.arm):
            raise ValueError(f"measurements: {HELD_OUT} needs an arm with folds, {m.arm!r} has none")
        groups = _groups_of(experiment, m)
        if twice := [c for c, group in zip(m.contexts, groups, strict=True) if groups.count(group) > 1]:
            raise ValueError(
                f"measurements: {m.measure} of {m.arm!r} have contexts {twice[0]!r} and {twice[1]!r}, the same ones "
                "twice; leave one out"
            )
        if (asked := (_asked(m), m.kept, m.cuts)) in seen:
            raise ValueError(f"measurements: {m.measure} of {m.arm!r} are asked for twice; join the entries")
        seen.add(asked)


def _groups_of(experiment: Experiment, m: ArmMeasurement) -> list[str]:
    """The groups of a measurement; what is held out is of the group that the arm was trained on."""
    folded = experiment.folded(m.arm)
    return [folded.contexts if folded and group == HELD_OUT else group for group in m.contexts]


def _asked(m: ArmMeasurement) -> Asked:
    return m.arm, m.measure, m.variant, m.constrained


def _contexts_asked(experiment: Experiment, asked: Asked) -> list[str] | None:
    """The contexts that an arm is asked about in one way; None where it is not."""
    arm, *how = asked
    for m in experiment.measurements:
        if asks(experiment, m, arm) and [m.measure, m.variant, m.constrained] == how:
            return m.contexts
    return None


def _check_compared(experiment: Experiment) -> None:
    """What the gate and the comparisons read is measured, on the contexts that they are about."""
    gate = experiment.gate
    needed: list[tuple[str, Asked, str]] = [
        (f"gate: {gate.arm} on {gate.contexts}", (gate.arm, "decisions", DEFAULT["decisions"], False), gate.contexts)
    ]
    for name, training in experiment.trainings.items():
        if training.labels == "learned":
            if experiment.estimator != "logistic":
                raise ValueError(
                    f"trainings.{name}: labels learned are by estimator: logistic; leave the other one out"
                )
            asked: Asked = (training.start, "decisions", DEFAULT["decisions"], False)
            needed.append((f"trainings.{name}: labels learned", asked, training.contexts))
    for c in experiment.comparisons:
        where = f"comparisons: {c.name}"
        needed.append((where, (c.reports, "reports", c.reports_variant, c.reports_constrained), c.contexts))
        needed.append((where, (c.weights, "decisions", c.weights_variant, False), c.contexts))
    for where, asked, group in needed:
        arm, measure, variant, constrained = asked
        how = f"{variant}, constrained" if constrained else variant
        measured = _contexts_asked(experiment, asked)
        if measured is None:
            free = _contexts_asked(experiment, (arm, measure, variant, not constrained)) is not None
            other = f", or set reports_constrained: {str(not constrained).lower()}" if free else ""
            raise ValueError(f"{where} needs {measure} of {arm} ({how}); add the measurement{other}")
        folded = experiment.folded(arm)
        held_out = HELD_OUT in measured and folded is not None and folded.contexts == group
        if group not in measured and not held_out:
            raise ValueError(
                f"{where} needs {measure} of {arm} ({how}) on {group!r}, which are measured on "
                f"{listed(measured)}; add the group to that measurement"
            )


def _check_families(experiment: Experiment) -> None:
    """Families are of comparisons and differences, each of which stands there once."""
    known = {c.name for c in experiment.comparisons} | {d.name for d in experiment.differences}
    for family, members in experiment.families.items():
        if not members:
            raise ValueError(f"families: {family!r} has no members; name comparisons or differences, or leave it out")
        for name in members:
            if name not in known:
                raise ValueError(f"families: {family}: {name!r} is none of {listed(known)}")
            if name in {c.name for c in experiment.comparisons} & {d.name for d in experiment.differences}:
                raise ValueError(f"families: {family}: {name!r} is a comparison and a difference; rename one")
            if members.count(name) > 1:
                raise ValueError(f"families: {family}: {name!r} stands there twice; leave one out")


def _check_differences(experiment: Experiment) -> None:
    """Differences are between comparisons with the same weights or the same reports, on the same contexts."""
    known = {c.name: c for c in experiment.comparisons}
    for difference in experiment.differences:
        for name in (difference.before, difference.after):
            if name not in known:
                raise ValueError(f"differences: {name!r} is none of {listed(known)}")
        one, two = known[difference.before], known[difference.after]
        same_weights = (one.weights, one.weights_variant) == (two.weights, two.weights_variant)
        reports = [(c.reports, c.reports_variant, c.reports_constrained) for c in (one, two)]
        if one.contexts != two.contexts or not (same_weights or reports[0] == reports[1]):
            raise ValueError(
                f"differences: {difference.name} needs two comparisons on the same contexts with the same weights, or "
                f"with the same reports; {one.name} and {two.name} differ in them"
            )
