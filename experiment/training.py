"""A training of an experiment file: what it teaches whom, and which arms it makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from store.derived import RANGE, layers_named
from store.examples import check_flipped, check_taught, rehearsed_decisions
from store.run import BASE_ARM
from store.settings import WrittenSettings
from store.training_settings import TrainingTable
from store.values import MOST, Count, FullName, Name, Number
from task.names import AT
from task.prompts import DEFAULT, Measure, Variant

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
        keep_every: Steps whose adapter is kept as an arm of its own, `NAME@STEP`: these, or every so many. The last
            step is the arm itself.
        layers: The layers that a new adapter has matrices in (see `store.derived.layers_named`); all when None.
        on_top_of: An arm, or a kept step of one, whose adapter is frozen while a new one is trained on top of it. The
            arm that is measured is the sum of both.
        apart: Train once for each context of the group, on that one alone: `NAME_1`, `NAME_2` ...
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
    keep_every: Count | Annotated[list[Count], Field(min_length=1)] | None = None
    layers: str | None = None
    on_top_of: FullName | None = None
    apart: bool = False

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

    @field_validator("keep_every")
    @classmethod
    def _check_steps(cls, steps: int | list[int] | None) -> int | list[int] | None:
        if isinstance(steps, list) and steps != sorted({*steps}):
            raise ValueError(f"steps {steps}: name each once, in order")
        return steps

    @field_validator("layers")
    @classmethod
    def _check_layers(cls, text: str | None) -> str | None:
        if text is not None and not RANGE.fullmatch(text.strip()):
            layers_named(text, 0)
        return text

    @model_validator(mode="after")
    def _check_new_adapter(self) -> Training:
        for name, value in (("layers", self.layers), ("on_top_of", self.on_top_of)):
            if value and self.start != BASE_ARM:
                raise ValueError(
                    f"{name} {value!r} is of a new adapter, and start {self.start!r} goes on with one; "
                    "leave one of them out"
                )
        if self.on_top_of and self.labels == "learned":
            raise ValueError(
                "labels learned: of the arm that a training starts from, not on_top_of; leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _check_one_adapter(self) -> Training:
        makes = {"on_top_of": self.on_top_of is not None, "apart": self.apart}
        other = {"folds": self.folds is not None, "keep_every": self.keep_every is not None}
        for name in (name for name, said in makes.items() if said):
            if clash := next((key for key, said in other.items() if said), None):
                raise ValueError(f"{name} and {clash} do not go together; leave one of them out")
        if self.apart and (self.labels == "shuffled" or self.validation_contexts):
            what = "labels shuffled" if self.labels == "shuffled" else "validation_contexts"
            raise ValueError(
                f"apart: each training has a single context, so that {what} cannot be; leave one of them out"
            )
        return self

    @property
    def learns_from(self) -> str:
        """The arm whose answers it changes: the one that it goes on from, or that its adapter is on top of."""
        return self.on_top_of or self.start

    @property
    def alone(self) -> bool:
        """Whether its adapters are no arms by themselves, but one term of a sum."""
        return self.on_top_of is not None

    @property
    def single(self) -> bool:
        """Whether it makes one adapter, an arm of its own that others can build on."""
        return not (self.folds or self.apart or self.on_top_of)

    def rows(self, contexts: int) -> int:
        """Training rows of so many contexts."""
        return self.taught_rows(contexts) + sum(rehearsed_decisions(self.rehearse, self.train_per_context, contexts))

    def taught_rows(self, contexts: int) -> int:
        """Training rows of so many contexts, without rehearsed decisions."""
        return contexts * self.train_per_context * (2 if self.flip_under else 1)


def training_order(trainings: Mapping[str, Training]) -> list[str]:
    """Names of the trainings, each after the one that it goes on from, or is on top of.

    Raises:
        ValueError: They go round in a circle.
    """
    order: list[str] = []
    before = {name: training.learns_from.partition(AT)[0] for name, training in trainings.items()}
    while len(order) < len(trainings):
        ready = [n for n, first in before.items() if n not in order and (first not in trainings or first in order)]
        if not ready:
            stuck = sorted(set(trainings) - set(order))
            raise ValueError(f"trainings go round in a circle: {', '.join(stuck)}")
        order += ready
    return order
