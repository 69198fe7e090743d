"""Experiment files: what they may say, and the stages that they expand into.

An experiment names contexts, trainings, measurements and comparisons. A training with `folds: k` becomes k arms
`<name>_fold_1` ... `<name>_fold_k`, each trained on the contexts outside its fold; `contexts: held_out` in
a measurement then means the contexts of the fold. Other arms are made beside a training without being defined, see
`experiment.made_arms`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from experiment.checks import check_experiment, check_groups
from experiment.inside_settings import Inside
from experiment.made_arms import trainings_of
from experiment.training import Training, training_order
from store.contexts import load_contexts
from store.derived import Part, parts_of
from store.evaluation import EngineSettings, MeasureSettings, PlantedArm
from store.run import DifferenceRecord, GateRecord
from store.settings import WrittenSettings, read_settings
from store.values import MOST, Count, FullName, Name, Number, PathText
from task.contexts import ChoiceContext, Layout, as_ratings
from task.errors import InputError
from task.prompts import PROMPTS, Measure, Variant
from task.weights import Estimator

LARGEST_SEED = 2**32 - 1
"""NumPy's generators, which the libraries seed, take 32 bits."""

Parts = Annotated[list[Part], BeforeValidator(parts_of), Field(min_length=1)]
"""What an adapter is multiplied by: a number, or parts of it with a number each."""

Seed = Annotated[int, Field(ge=0, le=LARGEST_SEED)]


class ContextSource(WrittenSettings):
    """Where a group of contexts comes from, and how they are shown.

    Attributes:
        file: Contexts file.
        count: How many of it, from its beginning; all when None.
        ratings: Every attribute is a rating from 0 to 100 instead of a quantity with units.
        layout: How the two options are shown (see `task.contexts.Layout`); None leaves it to the file.
    """

    file: PathText
    count: Count | None = None
    ratings: bool = False
    layout: Layout | None = None

    def load(self) -> list[ChoiceContext]:
        """The contexts as they are shown."""
        contexts = load_contexts(self.file, self.count)
        if self.layout is not None:
            contexts = [replace(c, layout=self.layout) for c in contexts]
        return [as_ratings(c) for c in contexts] if self.ratings else contexts


Cuts = Literal["every"] | Annotated[list[Annotated[int, Field(ge=1, le=MOST)]], Field(min_length=1)]
"""Where an adapter is cut: the first layer of the upper half, counted from 0, or every one that leaves two halves."""


class ArmMeasurement(MeasureSettings):
    """An arm (or all folds of a training), measured one way on groups of contexts or on what it was not trained on.

    Attributes:
        contexts: Groups, or `held_out`. Where a training makes an arm of each context, each is asked about its own.
        kept: Measure every step that was kept of the training instead.
        cuts: Measure both halves of every cut of the arm's adapter instead.
    """

    contexts: list[Name] = Field(min_length=1)
    kept: bool = False
    cuts: bool = False

    @field_validator("contexts", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class Comparison(WrittenSettings):
    """Reports of one arm held against the weights that drive the decisions of one, each in a variant of the prompts.

    Reports are free ones unless `reports_constrained` is set.
    """

    name: Name
    reports: FullName
    weights: FullName
    contexts: Name
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


class Experiment(WrittenSettings):
    """An experiment file. See configs/experiments/ for examples.

    `wording` names a wording file, whose words are taught and asked in place of our own (see `store.wordings`).
    `families` names comparisons and differences that are tested together, `smallest_effect` is the smallest correlation
    or difference of interest. `estimator` is what learned weights are estimated by: `logistic`, the paper's, or
    `log_odds`, which needs fewer decisions.
    `derived` has arms that are weighted sums of trainings' adapters: of each a number, or parts (see `store.derived`).
    `cuts` cuts the adapters of trainings in two, at some layers or at every one. `inside` says what is looked into.
    """

    name: Name
    seeds: list[Seed] = Field(min_length=1)
    model: PathText | None = None
    engine: EngineSettings = EngineSettings()
    wording: PathText | None = None
    contexts: dict[Name, ContextSource] = Field(min_length=1)
    target_contexts: list[Name] = Field(default=["instilled"], min_length=1)
    trainings: dict[Name, Training] = Field(default_factory=dict)
    derived: dict[Name, dict[Name, Parts]] = Field(default_factory=dict)
    cuts: dict[Name, Cuts] = Field(default_factory=dict)
    planted: dict[Name, PlantedArm] = Field(default_factory=dict)
    measurements: list[ArmMeasurement] = Field(min_length=1)
    comparisons: list[Comparison] = Field(min_length=1)
    differences: list[DifferenceRecord] = Field(default_factory=list)
    families: dict[Name, list[Name]] = Field(default_factory=dict)
    smallest_effect: Number | None = Field(default=None, gt=0, lt=1)
    gate: GateRecord
    estimator: Estimator = "logistic"
    inside: Inside | None = None

    @field_validator("target_contexts", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("seeds")
    @classmethod
    def _check_seeds(cls, seeds: list[int]) -> list[int]:
        if twice := [seed for seed in seeds if seeds.count(seed) > 1]:
            raise ValueError(f"{twice[0]} stands there twice, and each seed is one run; leave one out")
        return seeds

    @model_validator(mode="after")
    def _check(self) -> Experiment:
        check_experiment(self)
        training_order(self.trainings)
        return self

    def folds(self, arm: str) -> int | None:
        """Number of folds of a training, or of those that an arm is made from; None for an arm that is one."""
        training = self.folded(arm)
        return training.folds if training else None

    def folded(self, arm: str) -> Training | None:
        """The training that an arm has its folds from; None for an arm that is one."""
        return next((training for training in trainings_of(self, arm) if training.folds), None)

    def apart(self, arm: str) -> Training | None:
        """The training that makes an arm of each context; None for any other arm."""
        training = self.trainings.get(arm)
        return training if training and training.apart else None


def load_experiment(path: Path) -> Experiment:
    """Read an experiment file.

    Raises:
        InputError: No such file, an unknown key, a bad value, or a name (arm, group) that is nowhere defined.
    """
    return read_settings(path, Experiment)


def load_groups(experiment: Experiment) -> dict[str, list[ChoiceContext]]:
    """The contexts of each group.

    Raises:
        InputError: A file is missing or too short, a context is in two groups, or groups that are measured together
            have different numbers of attributes.
    """
    groups = {name: source.load() for name, source in experiment.contexts.items()}
    owner: dict[str, str] = {}
    for group, contexts in groups.items():
        for context in contexts:
            if context.name in owner:
                raise InputError(f"contexts: {context.name!r} is in {owner[context.name]} and in {group}; use it once")
            owner[context.name] = group
    check_groups(experiment, groups)
    return groups
