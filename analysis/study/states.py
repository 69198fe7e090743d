"""How one state of a model decides and reports: a step of a training, a cut adapter, a training in some layers.

A state is an arm, or the folds of a training, each on the contexts that it was asked about. Its weights are estimated
and its answers judged as those of any arm. What its answers cannot tell is missing, with the reason. The gate of the
run's instillation does not matter here, since how far instillation came is what a series of states shows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from analysis.stats.agreement import (
    RESAMPLES,
    bootstrap_r,
    bootstrap_share,
    complete_contexts,
    mean_reports,
    pearson,
    resampled_counts,
    resampled_r,
)
from analysis.stats.midpoint import Curve
from analysis.study.comparisons import ByContext, asked_source, gather
from analysis.study.gate import following, share_of
from analysis.study.results import RunResults
from analysis.study.taught import weights_of
from store.curves_summary import CorrelationSummary, StateSummary
from store.run import BASE_ARM, Source
from task.prompts import DEFAULT, Measure

Array = NDArray[np.float64]


class Along(Protocol):
    """A figure of a state that can be followed along a series."""

    @property
    def value(self) -> float:
        """The figure; NaN where there is none."""
        ...

    @property
    def missing(self) -> str | None:
        """Why there is none; None where there is."""
        ...

    @property
    def kept(self) -> NDArray[np.bool_]:
        """The contexts behind it, shape (contexts,)."""
        ...

    def resampled(self, counts: Array) -> Array:
        """It in each bootstrap resample, from how often each has each context, (resamples, contexts)."""
        ...


@dataclass(frozen=True)
class Pair:
    """r of two sets of weights of the same contexts, each (contexts, attributes); NaN where missing.

    Attributes:
        reason: Why they are not to be compared; None where they are.
    """

    x: Array
    y: Array
    reason: str | None = None

    @property
    def value(self) -> float:
        """Pearson's r."""
        return math.nan if self.reason else pearson(self.x, self.y)

    @property
    def missing(self) -> str | None:
        """See `Along`."""
        if self.reason or not math.isnan(self.value):
            return self.reason
        return "too few points, or none that differ" if self.kept.any() else "no context has both"

    @property
    def kept(self) -> NDArray[np.bool_]:
        """The contexts that have both."""
        return complete_contexts(self.x, self.y)

    def resampled(self, counts: Array) -> Array:
        """See `Along`."""
        return resampled_r(self.x[self.kept], self.y[self.kept], counts[:, self.kept])

    def told(self, seed: int) -> CorrelationSummary:
        """r and its interval, or why there is none."""
        contexts = int(self.kept.sum())
        if self.missing:
            return CorrelationSummary(testable=False, reason=self.missing, n_contexts=contexts)
        low, high = bootstrap_r(self.x, self.y, seed=seed)
        return CorrelationSummary(testable=True, r=self.value, low=low, high=high, n_contexts=contexts)


@dataclass(frozen=True)
class Share:
    """How many decisions follow the targets, of how many that these judge, each (contexts,)."""

    part: NDArray[np.int64]
    whole: NDArray[np.int64]

    @property
    def value(self) -> float:
        """The share."""
        return share_of(int(self.part.sum()), int(self.whole.sum()))

    @property
    def missing(self) -> str | None:
        """See `Along`."""
        return None if self.whole.any() else "no decision that the target weights judge"

    @property
    def kept(self) -> NDArray[np.bool_]:
        """The contexts with any such decision."""
        return self.whole > 0

    def resampled(self, counts: Array) -> Array:
        """See `Along`."""
        with np.errstate(invalid="ignore"):
            return np.asarray(counts @ self.part / (counts @ self.whole))

    def told(self, seed: int) -> dict[str, float]:
        """It and its interval."""
        low, high = bootstrap_share(self.part, self.whole, seed=seed)
        return {"agreement": self.value, "agreement_low": low, "agreement_high": high}


@dataclass(frozen=True)
class State:
    """What a summary says of a state, and the figures that can be followed along a series, by the same names."""

    told: StateSummary
    figures: Mapping[str, Along]


@dataclass(frozen=True)
class Series:
    """What the states of one series have in common.

    Attributes:
        group: The contexts that they were asked about are of this group.
        members: These contexts, in its order.
        target: What was taught there, shape (contexts, attributes); NaN where nothing was.
        constrained: Whether constrained reports are taken where a state has both kinds, for some have no others.
    """

    results: RunResults
    group: str
    members: list[str]
    target: Array
    constrained: bool

    def state(self, arms: Sequence[str]) -> State | None:
        """The state that `arms` are; None where none of them was asked about any of the contexts."""
        deciding, reporting = self._sources(arms, "decisions"), self._sources(arms, "reports")
        if not deciding and not reporting:
            return None
        (learned, undecided), (reported, unread) = self._learned(deciding), self._reported(reporting)
        common, uncommon = self._reported(self._sources([BASE_ARM], "reports"))
        untaught = None if complete_contexts(self.target).any() else f"{self.group} contexts have no target weights"
        pairs = {
            "learned_vs_target": Pair(self.target, learned, undecided or untaught),
            "reported_vs_learned": Pair(reported, learned, undecided or unread),
            "reported_vs_target": Pair(reported, self.target, unread or untaught),
            "base_vs_learned": Pair(common, learned, undecided or uncommon),
        }
        seed, share = self.results.seed, self._following(deciding)
        found: dict[str, Any] = {name: pair.told(seed) for name, pair in pairs.items()}
        found |= {**share.told(seed), **_decision_counts(self.results, deciding)}
        found |= _report_counts(self.results, reporting)
        return State(StateSummary(arms=list(arms), **found), {**pairs, "agreement": share})

    def _sources(self, arms: Sequence[str], measure: Measure) -> list[Source]:
        """The arms that were asked, each with those of the contexts that it was asked about."""
        found = [source for arm in arms if (source := _asked(self.results, arm, measure, self.constrained))]
        there = {*self.members}
        own = [s.model_copy(update={"contexts": [name for name in s.contexts if name in there]}) for s in found]
        return [source for source in own if source.contexts]

    def _learned(self, sources: Sequence[Source]) -> tuple[Array, str | None]:
        """The weights that decisions show, and why they are not to be used; None where they are."""
        if not sources:
            return np.full_like(self.target, np.nan), "decisions were not measured"
        asked = [asked_source(source, "decisions") for source in sources]
        why = next((why for arm in asked if (why := self.results.undecided(arm, self.group))), None)
        return gather(sources, "decisions", self.results.measured, self.members, lambda arm: arm.weights), why

    def _reported(self, sources: Sequence[Source]) -> tuple[Array, str | None]:
        """Mean reports, and why there are none; None where there are."""
        if not sources:
            return np.full_like(self.target, np.nan), "reports were not measured"
        values = gather(sources, "reports", self.results.reported, self.members, lambda arm: arm.values)
        mean, counts = mean_reports(values)
        return mean, None if counts.any() else f"none of the reports of {sources[0].arm} could be read"

    def _following(self, sources: Sequence[Source]) -> Share:
        """The decisions that follow what was taught, in each of the contexts."""
        counted = np.zeros((2, len(self.members)), dtype=np.int64)
        targets = dict(zip(self.members, self.target, strict=True))
        for source in sources:
            trials = self.results.decided[asked_source(source, "decisions")]
            found = following(trials, targets)
            for name in source.contexts:
                counted[:, self.members.index(name)] += [side[trials.contexts.index(name)] for side in found]
        return Share(counted[0], counted[1])


def series_of(results: RunResults, arms: Iterable[str], group: str, taught: Sequence[str]) -> Series | None:
    """The series of some arms on a group of contexts; None where none of them was asked about any.

    `taught` are the arms whose training says by which weights decisions were taught. Reports of all of its states are
    of one kind if they can be: a step beside the last would be a change of the form, not of what is reported.
    """
    arms = list(arms)
    asked = {name for arm in arms for name in contexts_asked(results, arm, group)}
    members = [name for name in results.groups[group] if name in asked]
    if not members:
        return None
    sources = [Source(arm=arm, variant=DEFAULT["decisions"], contexts=members) for arm in taught]
    weights = weights_of(sources, results.taught, results.targets)
    unknown = np.full(len(results.contexts[members[0]].attributes), np.nan)
    kinds = [source.constrained for arm in arms if (source := _asked(results, arm, "reports"))]
    return Series(results, group, members, np.stack([weights.get(name, unknown) for name in members]), any(kinds))


def contexts_asked(results: RunResults, arm: str, group: str) -> list[str]:
    """The contexts of a group that an arm was asked about, in the group's order."""
    sources = [source for measure in ("decisions", "reports") if (source := _asked(results, arm, measure))]
    asked = {name for source in sources for name in source.contexts}
    return [name for name in results.groups[group] if name in asked]


def together(results: RunResults, arms: Mapping[str, Sequence[str]], group: str) -> list[list[str]]:
    """Arms that make one line: the folds of a training, where each was asked about contexts of its own; else each.

    `arms` are these with their states, which were asked.
    """
    each = [{name for state in states for name in contexts_asked(results, state, group)} for states in arms.values()]
    apart = len(set().union(*each)) == sum(map(len, each))
    return [list(arms)] if apart else [[arm] for arm in arms]


def curve_of(cuts: Sequence[int], figures: Sequence[Along], seed: int) -> Curve:
    """A curve of one figure, with the same contexts resampled at every cut; cuts that lack it are left out."""
    there = [(cut, figure) for cut, figure in zip(cuts, figures, strict=True) if not figure.missing]
    counts = resampled_counts(len(figures[0].kept), seed, RESAMPLES)
    return Curve(
        cuts=[cut for cut, _ in there],
        values=np.array([figure.value for _, figure in there]),
        resampled=np.array([figure.resampled(counts) for _, figure in there]).reshape(len(there), RESAMPLES).T,
        n_contexts=min((int(figure.kept.sum()) for _, figure in there), default=0),
    )


def _asked(results: RunResults, arm: str, measure: Measure, constrained_first: bool = False) -> Source | None:
    """How an arm was asked by default, about which contexts: for free reports, or, where there are none, in a form.

    With `constrained_first`, for reports in a form, or, where there are none, for free ones.
    """
    found: Mapping[str, ByContext] = results.decided if measure == "decisions" else results.reported
    for constrained in (constrained_first, not constrained_first):
        source = Source(arm=arm, variant=DEFAULT[measure], constrained=constrained, contexts=[])
        if (asked := asked_source(source, measure)) in found:
            return source.model_copy(update={"contexts": found[asked].contexts})
    return None


def _decision_counts(results: RunResults, sources: Sequence[Source]) -> dict[str, Any]:
    """How many trials there were, what share of them is no decision, and the mean probability of a letter."""
    undecided, mass = [np.empty(0)], [np.empty(0)]
    for source in sources:
        trials = results.decided[asked_source(source, "decisions")]
        rows = np.isin(trials.contexts, source.contexts)
        undecided.append(np.isnan(trials.log_odds[rows][trials.shown[rows]]))
        mass.append(trials.letter_mass[rows][trials.shown[rows]])
    shown = sum(map(len, mass))
    if not shown:
        return {"trials": 0, "undecided": None, "letter_mass": None}
    return {
        "trials": shown,
        "undecided": float(np.concatenate(undecided).mean()),
        "letter_mass": float(np.concatenate(mass).mean()),
    }


def _report_counts(results: RunResults, sources: Sequence[Source]) -> dict[str, Any]:
    """How many reports were asked for, what share of them could be read, and whether a form forced them."""
    asked = readable = 0
    for source in sources:
        trials = results.reported[asked_source(source, "reports")]
        rows = np.isin(trials.contexts, source.contexts)
        asked += int(trials.total[rows].sum())
        readable += int((~np.isnan(trials.values[rows]).any(axis=2)).sum())
    constrained = any(source.constrained for source in sources)
    return {"reports": asked, "readable": readable / asked if asked else None, "constrained": constrained}
