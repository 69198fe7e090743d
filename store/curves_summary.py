"""What `summary.json` says of series of states of one model: steps of a training, cuts of an adapter, depths.

Nothing in a series is chosen by its outcome: it has every step that was kept, every cut and every training with
`layers` that the experiment file asks for.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from store.settings import Settings
from store.values import Figure
from store.verdict import Verdict
from task.prompts import Measure

Curve = Literal["decisions", "reports", "faithfulness", "agreement"]
"""What is followed along the cuts: r(learned, target), r(reported, target), r(reported, learned), and the share of
decisions that follow the targets. The last needs no weights: it is there also where decisions show none."""

Side = Literal["below", "from"]
"""Which half of an adapter is kept: the layers below a cut, or those from it on."""


class CorrelationSummary(Verdict):
    """Pearson's r over all attributes of the contexts that have both sides, and its interval, contexts resampled."""

    r: Figure = None
    low: Figure = None
    high: Figure = None
    n_contexts: int = 0


class StateSummary(Settings):
    """How one state of a model decides and reports on a group of contexts.

    Attributes:
        arms: The arm, or the folds of a training, each on its own contexts.
        learned_vs_target: Decision performance: the weights that drive its decisions against those that were taught.
        reported_vs_learned: Faithfulness: its reports against the weights that drive its own decisions.
        reported_vs_target: Its reports against those that were taught.
        base_vs_learned: Reports of the model before any training against the weights that drive these decisions: what
            faithfulness is reached by common sense.
        agreement: Share of its decisions that follow the weights that were taught; half of them do by chance.
        agreement_low, agreement_high: Its interval, contexts resampled.
        readable: Share of its reports that could be read; None where none was asked for.
        reports: Reports that were asked for.
        constrained: Whether they were forced into their form.
        letter_mass: Mean P(A) + P(B); None where no decision was asked for.
        undecided: Share of trials without a decision, likewise.
        trials: Trials of decisions that were shown.
    """

    arms: list[str]
    learned_vs_target: CorrelationSummary
    reported_vs_learned: CorrelationSummary
    reported_vs_target: CorrelationSummary
    base_vs_learned: CorrelationSummary
    agreement: Figure
    agreement_low: Figure
    agreement_high: Figure
    readable: Figure
    reports: int
    constrained: bool
    letter_mass: Figure
    undecided: Figure
    trials: int


class StepSummary(StateSummary):
    """A training after `step` steps."""

    step: int


class TrajectorySummary(Settings):
    """One training from its start to its end, on one group of contexts.

    Attributes:
        training, teach: Its name in the experiment file, and what it taught.
        contexts: The group.
        n_contexts: How many of it any of the states was asked about.
        points: By step: 0 is the arm that it started from, the last is the finished training; each where measured.
        off_the_shelf: The model before any training, where it was measured.
    """

    training: str
    teach: Measure | None
    contexts: str
    n_contexts: int
    points: list[StepSummary]
    off_the_shelf: StateSummary | None


class CutSummary(StateSummary):
    """An adapter with the layers on one side of `cut` alone; at a curve's ends stand the whole arm and its base."""

    cut: int


class MidpointSummary(Verdict):
    """The layer at which a curve is half-way between its ends; see `analysis.stats.midpoint`.

    Attributes:
        layer: Counted from 0, so that all that layer 3 holds alone gives 3; None where it is not defined.
        low, high: 95% interval, contexts resampled.
        start, end: The curve's value at both ends: at the first and at the last cut whose state has one.
        first_cut, last_cut: These cuts; None without two of them.
        crossings: Every layer at which the curve passes half-way; `layer` is that of a curve with just one.
        n_contexts: The fewest behind any point of the curve.
    """

    layer: Figure = None
    low: Figure = None
    high: Figure = None
    start: Figure = None
    end: Figure = None
    first_cut: int | None = None
    last_cut: int | None = None
    crossings: list[float] = Field(default_factory=list)
    n_contexts: int = 0


class LagSummary(Verdict):
    """How many layers the midpoint of one curve lies behind another's; both over the same resampled contexts."""

    layers: Figure = None
    low: Figure = None
    high: Figure = None


class SideSummary(Settings):
    """The states that keep one side of an adapter, by cut, with the midpoint of each curve.

    Attributes:
        behind_reports: Midpoints of `decisions` and of `agreement` less that of `reports`.
    """

    points: list[CutSummary]
    midpoints: dict[Curve, MidpointSummary]
    behind_reports: dict[Curve, LagSummary]


class AblationSummary(Settings):
    """One adapter cut at every layer that was asked for, on one group of contexts.

    Attributes:
        arm: Whose adapter it is.
        base: What is left where nothing of it is kept.
        contexts, n_contexts: As of a trajectory.
        layers: Of the model; None where the record does not say.
        sides: By the side that is kept.
    """

    arm: str
    base: str
    contexts: str
    n_contexts: int
    layers: int | None
    sides: dict[Side, SideSummary]


class DepthPoint(StateSummary):
    """A training in some layers only.

    Attributes:
        training: Its name in the experiment file.
        layers: As the experiment file says them: `first 2`, `last 2`, `3-5`.
        side, k: The `first` or `last` k layers; None for a range.
    """

    training: str
    layers: str
    side: Literal["first", "last"] | None
    k: int | None


class DepthSummary(Settings):
    """Trainings that differ in the layers that they may change, on one group of contexts.

    Attributes:
        teach, start: What all of them taught, and what before that, whatever the layers.
        contexts, n_contexts: As of a trajectory.
        points: In the order of the experiment file; the `last` layers are the control of the `first`.
        whole: The same training in all layers, by name; empty where there is none.
        off_the_shelf: The model before any training, where it was measured.
    """

    teach: Measure | None
    start: str
    contexts: str
    n_contexts: int
    points: list[DepthPoint]
    whole: dict[str, StateSummary]
    off_the_shelf: StateSummary | None
