"""Looking inside arms: settings of attribution and patching, their folders, and what their manifests say.

Deciding and reporting are two tasks of one adapter. Attribution gives each row of each of its matrices a score in each
task. Patching says how much of a task is left with a few of the matrices. `inside/` writes both, `analysis/` reads them
through `store.inside_tables`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from store.contexts import load_named_contexts
from store.evaluation import ContextGroup, ModelSettings
from store.manifests import Facts
from store.settings import WrittenSettings
from store.values import Count, FullName, PathText
from store.wordings import read_wordings
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import Measure, frame
from task.trials import ShownTrial, sample_trials

Task = Literal["deciding", "reporting"]
"""What an adapter is used for: choosing a letter, or saying the numbers of a report."""

Order = Literal["deciding", "reporting", "random"]
"""By what matrices are ranked: their scores in a task, or by chance."""

TASKS: tuple[Task, ...] = get_args(Task)


class InsideArm(WrittenSettings):
    """An arm as base model, backbone and adapter.

    Attributes:
        adapter: Folder of what is looked at: the arm's adapter, or the part of it above the backbone.
        frozen: Folder of the adapter that is the backbone together with the base model; None where that is it alone.
        contexts: What the arm is asked about.
    """

    adapter: PathText
    frozen: PathText | None = None
    contexts: list[ContextGroup] = Field(min_length=1)

    def load(self) -> list[ChoiceContext]:
        """The contexts, in order.

        Raises:
            InputError: One is named twice, or their file lacks one.
        """
        found = [context for group in self.contexts for context in load_named_contexts(group.file, group.only)]
        names = [context.name for context in found]
        if twice := [name for name in names if names.count(name) > 1]:
            raise InputError(f"contexts {[g.name for g in self.contexts]}: {twice[0]!r} is there twice; leave one out")
        return found


class InsideConfig(WrittenSettings):
    """What attribution and patching have in common.

    Attributes:
        seed: Of the trials that are shown, which are those of the measurements, and of what is random.
        output: The run's folder `inside`.
        prompts: Of each context, for each task.
        batch_size: Prompts in one pass; with the model's size it decides about memory.
        report_tokens: Most tokens of a report.
        wording: Wording file of the prompts (see `store.wordings`); None for our own words.
    """

    seed: int
    output: PathText
    model: ModelSettings
    arms: dict[FullName, InsideArm] = Field(min_length=1)
    prompts: Count = 50
    batch_size: Count = 8
    report_tokens: Annotated[Count, Field(ge=8)] = 160
    wording: PathText | None = None

    @field_validator("arms")
    @classmethod
    def _check_arms(cls, arms: dict[str, InsideArm]) -> dict[str, InsideArm]:
        if len({name.lower() for name in arms}) < len(arms):
            raise ValueError(f"two of {sorted(arms)} are one folder where case does not count; rename one")
        return arms


class AttributeConfig(InsideConfig):
    """`python -m inside.attribute`: which arms get scores.

    Attributes:
        steps: Doses between the backbone and the whole adapter at which the gradient is taken.
        random: Random adapters for each arm, with the shapes and the matrix norms of its own.
    """

    steps: Count = 7
    random: Annotated[int, Field(ge=0, le=1000)] = 0


class PatchConfig(InsideConfig):
    """`python -m inside.patch`: which arms, attributed before, are reduced to a few of their matrices.

    Attributes:
        random: Random orders of the matrices, beside those by the scores of either task.
    """

    random: Annotated[int, Field(ge=0, le=1000)] = 3


def shown_trials(config: InsideConfig, task: Task, context: ChoiceContext) -> list[ShownTrial]:
    """The trials of a context that show a task: the first of its measurement, in the default wording.

    Pairs to decide between are shown in one order and the other by turns.
    """
    measure: Measure = "decisions" if task == "deciding" else "reports"
    framing = frame(measure, context, wordings=read_wordings(config.wording))
    drawn = sample_trials(config.seed, measure, context, config.prompts)
    pairs = zip(drawn.index.tolist(), drawn.first, drawn.second, strict=True)
    return [ShownTrial(framing, i, first, second, task == "reporting" or i % 2 == 0) for i, first, second in pairs]


def scores_folder(inside: Path, arm: str, task: Task, draw: int = 0) -> Path:
    """Folder of an arm's scores in a task; of its random adapter number `draw` where that is above 0."""
    return inside / arm / (f"random_{draw}/{task}" if draw else task)


def patching_folder(inside: Path, arm: str) -> Path:
    """Folder of an arm's patching."""
    return inside / arm / "patching"


class AttributionFacts(Facts):
    """Of the scores of an arm in a task.

    Attributes:
        contexts: Contexts with scores.
        left_out: Contexts without: no report of theirs could be read.
        prompts: Prompts that the scores are means over, in all contexts.
        unreadable: Reports whose numbers could not be found, left out.
        steps: See `AttributeConfig`.
        change: L(1) - L(0), mean over prompts, in nats. L(s) is the divergence of s times the adapter from the whole
            one, see `inside.attribution`; L(1) is 0.
        scored: The sum of all scores, mean over prompts; equal to `change` but for the finite number of steps.
        relative_error: Sum over contexts of |scored - change| as a share of the sum of |change|; None where there is
            none.
        seconds: That it took, without loading the model.
    """

    contexts: int
    left_out: list[str]
    prompts: int
    unreadable: int
    steps: int
    change: float
    scored: float
    relative_error: float | None
    seconds: float


class PatchingFacts(Facts):
    """Of the patching of an arm.

    Attributes:
        contexts: Contexts that were asked about.
        left_out: Those of them without a report that could be read: deciding alone was measured there.
        matrices: Of the adapter.
        unreadable: Reports whose numbers could not be found, left out.
        seconds: That it took, without loading the model.
    """

    contexts: int
    left_out: list[str]
    matrices: int
    unreadable: int
    seconds: float
