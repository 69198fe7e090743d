"""Experiment files: what they may say, and the stages that they expand into.

An experiment names contexts, trainings, measurements and comparisons. A training with `folds: k` becomes k arms
`<name>_fold_1` ... `<name>_fold_k`, each trained on the contexts outside its fold; `contexts: held_out` in
a measurement then means the contexts of the fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from store.contexts import load_contexts
from store.evaluation import EngineSettings, MeasureSettings, PlantedArm
from store.examples import check_taught
from store.run import DifferenceRecord, GateRecord
from store.settings import Settings, read_settings
from task.contexts import ChoiceContext, Layout, as_ratings
from task.errors import InputError
from task.prompts import DEFAULT, PROMPTS, Measure, Variant
from task.seeding import stream

BASE_ARM = "off_the_shelf"
HELD_OUT = "held_out"


class ContextSource(Settings):
    """Where a group of contexts comes from, and how they are shown.

    Attributes:
        file: Contexts file.
        count: How many of it, from its beginning; all when None.
        ratings: Every attribute is a rating from 0 to 100 instead of a quantity with units.
        layout: How the two options are shown (see `task.contexts.Layout`).
    """

    file: str
    count: int | None = Field(default=None, ge=1)
    ratings: bool = False
    layout: Layout = "lists"

    def load(self) -> list[ChoiceContext]:
        """The contexts as they are shown."""
        contexts = [replace(c, layout=self.layout) for c in load_contexts(self.file, self.count)]
        return [as_ratings(c) for c in contexts] if self.ratings else contexts


class Training(Settings):
    """One training, or k of them.

    Attributes:
        start: Arm to go on from; `off_the_shelf` begins a new adapter.
        teach: `decisions` or `reports`.
        contexts: Group of contexts that is taught.
        variant: Wording that is taught, see `task.prompts.WORDINGS`.
        labels: `target` weights, or `shuffled` across contexts (the control).
        folds: Number of folds; None trains once, on all contexts of the group.
        train_per_context, validation_per_context: Examples of each context.
        validation_contexts: Reports only: so many of the contexts are not trained on but validated on, drawn by the
            seed. A context that reports are trained on tells nothing of others, so it is not validated on.
        rehearse: Reports only: decisions of the taught contexts among them, by the true target weights. Below 1 the
            share of decisions among all training rows, from 1 on the number of decisions of each context.
        sft: Training settings, on top of the model file's.
    """

    start: str = BASE_ARM
    teach: Measure
    variant: Variant = Field(default_factory=lambda found: DEFAULT[found["teach"]])
    contexts: str
    labels: Literal["target", "shuffled"] = "target"
    folds: int | None = Field(default=None, ge=2)
    train_per_context: int = Field(ge=1)
    validation_per_context: int = Field(ge=0)
    validation_contexts: int = Field(default=0, ge=0)
    rehearse: float = Field(default=0.0, ge=0)
    sft: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_reports(self) -> Training:
        if self.teach == "decisions" and (self.validation_contexts or self.rehearse):
            raise ValueError("validation_contexts and rehearse belong to teach: reports; leave them out for decisions")
        if self.teach == "reports" and bool(self.validation_per_context) != bool(self.validation_contexts):
            raise ValueError(
                f"validation_per_context {self.validation_per_context} and validation_contexts "
                f"{self.validation_contexts}: reports are validated on contexts without training rows; set both, or "
                "validation_per_context: 0 alone"
            )
        if self.rehearse >= 1 and not self.rehearse.is_integer():
            raise ValueError(
                f"rehearse {self.rehearse:g}: give a share below 1, or a whole number of decisions of each context"
            )
        return self

    @model_validator(mode="after")
    def _check_variant(self) -> Training:
        check_taught(self.teach, self.variant)
        return self


class ArmMeasurement(MeasureSettings):
    """An arm (or all folds of a training), measured one way on groups of contexts or on what it was not trained on."""

    contexts: list[str]

    @field_validator("contexts", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class Comparison(Settings):
    """Reports of one arm held against the weights that drive the decisions of one, each in a variant of the prompts.

    Reports are free ones unless `reports_constrained` is set.
    """

    name: str
    reports: str
    weights: str
    contexts: str
    reports_variant: Variant = "trial"
    reports_constrained: bool = False
    weights_variant: Variant = "plain"

    @model_validator(mode="after")
    def _check_variants(self) -> Comparison:
        asked: list[tuple[Measure, Variant]] = [("reports", self.reports_variant), ("decisions", self.weights_variant)]
        for measure, variant in asked:
            if variant not in PROMPTS[measure]:
                raise ValueError(f"{measure} have no variant {variant!r}; they have {', '.join(PROMPTS[measure])}")
        return self


class Experiment(Settings):
    """An experiment file. See configs/experiments/ for examples.

    `wording` names a wording file, whose words are taught and asked in place of our own (see `store.wordings`).
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")
    seeds: list[int] = Field(min_length=1)
    model: str | None = None
    engine: EngineSettings = EngineSettings()
    wording: str | None = None
    contexts: dict[str, ContextSource]
    target_contexts: str = "instilled"
    trainings: dict[str, Training] = Field(default_factory=dict)
    planted: dict[str, PlantedArm] = Field(default_factory=dict)
    measurements: list[ArmMeasurement]
    comparisons: list[Comparison]
    differences: list[DifferenceRecord] = Field(default_factory=list)
    gate: GateRecord

    @model_validator(mode="after")
    def _check_names(self) -> Experiment:
        groups, arms = set(self.contexts), {BASE_ARM, *self.trainings, *self.planted}
        named = [("trainings", t.contexts, groups) for t in self.trainings.values()]
        named += [("trainings", t.start, arms) for t in self.trainings.values()]
        named += [("measurements", m.arm, arms) for m in self.measurements]
        named += [("measurements", c, groups | {HELD_OUT}) for m in self.measurements for c in m.contexts]
        named += [("comparisons", c.reports, arms) for c in self.comparisons]
        named += [("comparisons", c.weights, arms) for c in self.comparisons]
        named += [("comparisons", c.contexts, groups) for c in self.comparisons]
        named += [("gate", self.gate.arm, arms), ("gate", self.gate.contexts, groups)]
        named += [("target_contexts", self.target_contexts, groups)]
        for where, name, known in named:
            if name not in known:
                raise ValueError(f"{where}: {name!r} is none of {', '.join(sorted(known))}")
        simulated = self.engine.name == "simulated"
        if simulated and (missing := arms - {*self.planted}):
            raise ValueError(f"planted: the simulated engine needs an entry for {sorted(missing)[0]!r}")
        if not simulated and self.model is None:
            raise ValueError("model: name a file of configs/models/, or use the simulated engine")
        return self

    @model_validator(mode="after")
    def _check_folds(self) -> Experiment:
        for measurement in self.measurements:
            if HELD_OUT in measurement.contexts and not self._folds(measurement.arm):
                raise ValueError(f"measurements: {HELD_OUT} needs an arm with folds, {measurement.arm!r} has none")
        several = [(f"trainings.{name}: start", t.start) for name, t in self.trainings.items()]
        for where, arm in [*several, ("gate: arm", self.gate.arm)]:
            if folds := self._folds(arm):
                raise ValueError(
                    f"{where} {arm!r} is {folds} arms, one a fold, and one is needed; name a training without folds"
                )
        training_order(self.trainings)
        return self

    @model_validator(mode="after")
    def _check_measured(self) -> Experiment:
        measured = {(m.arm, m.measure, m.variant, m.constrained) for m in self.measurements}
        needed: list[tuple[str, str, Measure, Variant, bool]] = [
            (f"gate: {self.gate.arm} on {self.gate.contexts}", self.gate.arm, "decisions", DEFAULT["decisions"], False)
        ]
        for c in self.comparisons:
            needed.append((f"comparisons: {c.name}", c.reports, "reports", c.reports_variant, c.reports_constrained))
            needed.append((f"comparisons: {c.name}", c.weights, "decisions", c.weights_variant, False))
        for where, arm, measure, variant, constrained in needed:
            if (arm, measure, variant, constrained) not in measured:
                how = f"{variant}, constrained" if constrained else variant
                other = ""
                if (arm, measure, variant, not constrained) in measured:
                    other = f", or set reports_constrained: {str(not constrained).lower()}"
                raise ValueError(f"{where} needs {measure} of {arm} ({how}); add the measurement{other}")
        if self.gate.contexts != self.target_contexts:
            raise ValueError(
                f"gate: contexts {self.gate.contexts!r} have no target weights; give {self.target_contexts!r}"
            )
        return self

    @model_validator(mode="after")
    def _check_differences(self) -> Experiment:
        known = {c.name: (c.weights, c.weights_variant, c.contexts) for c in self.comparisons}
        for difference in self.differences:
            for name in (difference.before, difference.after):
                if name not in known:
                    raise ValueError(f"differences: {name!r} is none of {', '.join(sorted(known))}")
            if known[difference.before] != known[difference.after]:
                raise ValueError(
                    f"differences: {difference.name} needs two comparisons with the same weights on the same contexts; "
                    f"{difference.before} and {difference.after} differ in them"
                )
        return self

    def _folds(self, arm: str) -> int | None:
        return self.trainings[arm].folds if arm in self.trainings else None


@dataclass(frozen=True)
class Arm:
    """One arm of a run.

    Attributes:
        trained_on: Contexts with training rows.
        held_out: Contexts left for testing; empty without folds.
        validated_on: Contexts that only its training is validated on.
    """

    name: str
    training: str | None
    trained_on: list[str] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)
    validated_on: list[str] = field(default_factory=list)


def training_order(trainings: Mapping[str, Training]) -> list[str]:
    """Names of the trainings, each after the one that it goes on from.

    Raises:
        ValueError: They go round in a circle.
    """
    order: list[str] = []
    while len(order) < len(trainings):
        ready = [n for n, t in trainings.items() if n not in order and (t.start not in trainings or t.start in order)]
        if not ready:
            stuck = sorted(set(trainings) - set(order))
            raise ValueError(f"trainings go round in a circle: {', '.join(stuck)}")
        order += ready
    return order


def load_experiment(path: Path) -> Experiment:
    """Read an experiment file.

    Raises:
        InputError: No such file, an unknown key, a bad value, or a name (arm, group) that is nowhere defined.
    """
    return read_settings(path, Experiment)


def load_groups(experiment: Experiment) -> dict[str, list[ChoiceContext]]:
    """The contexts of each group.

    Raises:
        InputError: A file is missing or too short, or a context is in two groups.
    """
    groups = {name: source.load() for name, source in experiment.contexts.items()}
    owner: dict[str, str] = {}
    for group, contexts in groups.items():
        for context in contexts:
            if context.name in owner:
                raise InputError(f"contexts: {context.name!r} is in {owner[context.name]} and in {group}; use it once")
            owner[context.name] = group
    return groups


def expand_arms(experiment: Experiment, groups: Mapping[str, list[ChoiceContext]], seed: int) -> dict[str, list[Arm]]:
    """The arms behind each name that an experiment uses: one, or one a fold."""
    arms = {name: [Arm(name, None)] for name in (BASE_ARM, *experiment.planted)}
    for name, training in experiment.trainings.items():
        names = [c.name for c in groups[training.contexts]]
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
    return arms


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
