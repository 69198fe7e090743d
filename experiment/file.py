"""Experiment files: what they may say, and the stages that they expand into.

An experiment names contexts, trainings, measurements and comparisons. A training with `folds: k` becomes k arms
`<name>_fold_1` ... `<name>_fold_k`, each trained on the contexts outside its fold; `contexts: held_out` in
a measurement then means the contexts of the fold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from experiment.checks import check_experiment, check_groups
from store.contexts import load_contexts
from store.derived import Part, parts_of
from store.evaluation import EngineSettings, MeasureSettings, PlantedArm
from store.examples import check_flipped, check_taught
from store.run import BASE_ARM, DifferenceRecord, GateRecord
from store.settings import WrittenSettings, read_settings
from store.training_settings import TrainingTable
from store.values import MOST, Count, Name, Number, PathText
from task.contexts import ChoiceContext, Layout, as_ratings
from task.errors import InputError
from task.prompts import DEFAULT, PROMPTS, Measure, Variant
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


Labels = Literal["target", "shuffled", "learned", "redrawn"]
"""What is taught as the weights of a context.

- `target`: those that the run has drawn for it.
- `shuffled`: the target weights of another context.
- `learned`: those that are measured in the decisions of the arm that the training starts from.
- `redrawn`: weights drawn independently of the targets, as another run would have drawn them.
"""


class Training(WrittenSettings):
    """One training, or k of them.

    Attributes:
        start: Arm to go on from; `off_the_shelf` begins a new adapter.
        teach: `decisions` or `reports`.
        contexts: Group of contexts that is taught.
        variant: Wording that is taught, see `task.prompts.WORDINGS`.
        labels: The weights that are taught, see `LABELS`.
        flip_under: Decisions only: a variant in which as many decisions again are taught by the reversed weights.
        repeat: 0, or the number of a repetition with other examples in another order; the weights stay.
        folds: Number of folds; None trains once, on all contexts of the group.
        train_per_context, validation_per_context: Examples of each context.
        validation_contexts: Reports only: so many of the contexts are not trained on but validated on, drawn by the
            seed. A context that reports are trained on tells nothing of others, so it is not validated on.
        rehearse: Reports only: decisions of the taught contexts among them, by the true target weights. Below 1 the
            share of decisions among all training rows, from 1 on the number of decisions of each context.
        sft: Training settings, on top of the model file's.
    """

    start: Name = BASE_ARM
    teach: Measure
    variant: Variant = Field(default_factory=lambda found: DEFAULT[found["teach"]])
    contexts: Name
    labels: Labels = "target"
    flip_under: Variant | None = None
    repeat: int = Field(default=0, ge=0, le=MOST)
    folds: int | None = Field(default=None, ge=2, le=MOST)
    train_per_context: Count
    validation_per_context: int = Field(ge=0, le=MOST)
    validation_contexts: int = Field(default=0, ge=0, le=MOST)
    rehearse: Number = Field(default=0.0, ge=0, le=MOST)
    sft: TrainingTable = Field(default_factory=dict)

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
        check_flipped(self.teach, self.variant, self.flip_under)
        return self

    @model_validator(mode="after")
    def _check_labels(self) -> Training:
        if self.labels == "learned" and self.teach != "reports":
            raise ValueError("labels learned: weights are learned from decisions, so reports alone can be taught them")
        return self


class ArmMeasurement(MeasureSettings):
    """An arm (or all folds of a training), measured one way on groups of contexts or on what it was not trained on."""

    contexts: list[Name] = Field(min_length=1)

    @field_validator("contexts", mode="before")
    @classmethod
    def _one_or_more(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value


class Comparison(WrittenSettings):
    """Reports of one arm held against the weights that drive the decisions of one, each in a variant of the prompts.

    Reports are free ones unless `reports_constrained` is set.
    """

    name: Name
    reports: Name
    weights: Name
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
    planted: dict[Name, PlantedArm] = Field(default_factory=dict)
    measurements: list[ArmMeasurement] = Field(min_length=1)
    comparisons: list[Comparison] = Field(min_length=1)
    differences: list[DifferenceRecord] = Field(default_factory=list)
    families: dict[Name, list[Name]] = Field(default_factory=dict)
    smallest_effect: Number | None = Field(default=None, gt=0, lt=1)
    gate: GateRecord
    estimator: Estimator = "logistic"

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
        """Number of folds of a training, or of those that an arm is derived from; None for an arm that is one."""
        training = self.folded(arm)
        return training.folds if training else None

    def folded(self, arm: str) -> Training | None:
        """The training that an arm has its folds from; None for an arm that is one."""
        found = [self.trainings[name] for name in self.derived.get(arm, [arm]) if name in self.trainings]
        return next((training for training in found if training.folds), None)


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
