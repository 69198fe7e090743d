"""What r of reports with weights is worth: whose weights, beyond what, by fold, of what use, at what noise.

Everything here is made from comparisons and the trials behind them; the statistics are in `analysis.stats`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
from numpy.typing import NDArray

from analysis.stats.agreement import bootstrap_r, complete_contexts, mean_reports, pearson
from analysis.stats.constant import BeyondConstant, beyond_constant
from analysis.stats.folds import FoldAgreement, fold_agreements
from analysis.stats.partial import WhoseWeights, whose_weights
from analysis.stats.prediction import FreshDecisions, Predicted, cross_fitted, predict
from analysis.stats.reliability import (
    CorrectedR,
    Halves,
    corrected_r,
    halves_of_log_odds,
    halves_of_reports,
    halves_of_weights,
)
from analysis.stats.variants import Treatment, standardised_by_fold, treat_missing
from analysis.study.comparisons import ComparisonResult, MeasuredWeights, asked_source, gather, same_contexts
from analysis.study.taught import Taught, weights_of
from store.run import BASE_ARM, Source
from store.trials import DecisionTrials, ReportTrials
from task.prompts import DEFAULT, Measure
from task.seeding import stream

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """What stands beside the r of one comparison.

    Attributes:
        whose: Do reports follow the learned weights beyond the targets?
        no_target: Why that cannot be told; None if it can.
        beyond: What a constant report gets.
        folds: Agreement in each fold, by name; empty without folds.
        r_within_folds: r with each fold standardised by itself; NaN without folds.
        predictions: How well fresh decisions are predicted, by kind of weights, the reported ones first.
    """

    whose: WhoseWeights
    no_target: str | None
    beyond: BeyondConstant
    folds: dict[str, FoldAgreement]
    r_within_folds: float
    predictions: dict[str, Predicted]


@dataclass(frozen=True)
class Change:
    """Do reports change where the weights changed? r(change of report, change of weight), each arm's own weights.

    Attributes:
        r: The correlation over all points; NaN if it cannot be computed.
        boot_low, boot_high: Its 95% interval from resampling contexts.
        r_of_weights: r(weights after, weights before), on the same contexts: did decisions stay?
        r_of_weights_low, r_of_weights_high: Its interval.
        n_contexts: With both reports and both weights.
        decided_by: Whose decisions tell the weights before and after.
        reason: Why there is none, if so.
    """

    r: float = math.nan
    boot_low: float = math.nan
    boot_high: float = math.nan
    r_of_weights: float = math.nan
    r_of_weights_low: float = math.nan
    r_of_weights_high: float = math.nan
    n_contexts: int = 0
    decided_by: list[Source] = field(default_factory=list)
    reason: str | None = None


@dataclass(frozen=True)
class Parts:
    """Measurements from parts of an arm's trials, each (contexts, parts, attributes)."""

    contexts: list[str]
    first: Array
    second: Array


def weigh(
    comparisons: Sequence[ComparisonResult],
    decided: Mapping[str, DecisionTrials],
    reported: Mapping[str, ReportTrials],
    measured: Mapping[str, MeasuredWeights],
    targets: Mapping[str, Array],
    seed: int,
    taught: Sequence[Taught] = (),
) -> dict[str, Evidence]:
    """The evidence beside each comparison, by its name.

    Args:
        comparisons: Of reports with weights.
        decided, reported: Trials of each arm, by `comparisons.asked_arm`.
        measured: Weights of each arm that decided.
        targets: Target weights by context.
        seed: Of the posterior's draws, the bootstrap and the permutations.
        taught: What arms were taught to decide by that were taught other weights.
    """

    @cache
    def fitted(arm: str) -> Parts:
        trials = decided[arm]
        return Parts(trials.contexts, *cross_fitted(trials.chose_a[..., 0], trials.difference, seed=seed)[:, :, None])

    def learned(sources: Sequence[Source], members: Sequence[str]) -> Array:
        parts = {asked: fitted(asked) for source in sources if (asked := asked_source(source, "decisions"))}
        halves = (lambda arm: arm.first), (lambda arm: arm.second)
        return np.stack([gather(sources, "decisions", parts, members, half)[:, 0] for half in halves])

    found = {}
    for c in comparisons:
        members, (x, y) = c.members, c.sides
        own = weights_of(c.decided_by, taught, targets)
        target = np.array([own.get(name, np.full(x.shape[1], np.nan)) for name in members]).reshape(x.shape)
        others = {"learned": learned(c.decided_by, members), "target": target}
        others |= _further(c, reported, measured, members)
        numbers = np.full(len(x), -1) if c.folds is None else c.folds
        folds = fold_agreements(x, y, numbers, seed=seed)
        found[c.name] = Evidence(
            whose=whose_weights(x, y, target, seed=seed),
            no_target=None if complete_contexts(target).any() else f"{c.contexts} contexts have no target weights",
            beyond=beyond_constant(x, y, seed=seed),
            folds={c.fold_names[fold]: agreement for fold, agreement in folds.items()},
            r_within_folds=standardised_by_fold(x, y, numbers) if folds else math.nan,
            predictions=predict(
                _decisions(c, decided, members),
                x,
                {name: weights for name, weights in others.items() if not np.isnan(weights).all()},
                seed=seed,
            ),
        )
    return found


def _further(
    c: ComparisonResult,
    reported: Mapping[str, ReportTrials],
    measured: Mapping[str, MeasuredWeights],
    members: Sequence[str],
) -> dict[str, Array]:
    """Weights that were measured beside those of the comparison: of the base model, and said in the third person."""
    found = {}
    if BASE_ARM in measured and BASE_ARM not in {source.arm for source in c.decided_by}:
        base = [Source(arm=BASE_ARM, variant=DEFAULT["decisions"], contexts=list(members))]
        found["off_the_shelf"] = gather(base, "decisions", measured, members, lambda arm: arm.weights)
    third = [source.model_copy(update={"variant": "third_person"}) for source in c.reported_by]
    if third != c.reported_by and all(asked_source(source, "reports") in reported for source in third):
        found["third_person"] = _means(third, reported, members)
    return found


def _means(sources: Sequence[Source], reported: Mapping[str, ReportTrials], members: Sequence[str]) -> Array:
    return mean_reports(gather(sources, "reports", reported, members, lambda arm: arm.values))[0]


def _decisions(c: ComparisonResult, decided: Mapping[str, DecisionTrials], members: Sequence[str]) -> FreshDecisions:
    """The decisions behind a comparison's weights."""
    chose_a = gather(c.decided_by, "decisions", decided, members, lambda arm: arm.chose_a)
    difference = gather(c.decided_by, "decisions", decided, members, lambda arm: arm.difference, padding=0.0)
    return FreshDecisions.of(chose_a, difference)


def without_noise(
    comparisons: Sequence[ComparisonResult],
    decided: Mapping[str, DecisionTrials],
    reported: Mapping[str, ReportTrials],
    measured: Mapping[str, MeasuredWeights],
    seed: int,
) -> list[CorrectedR | None]:
    """r without measurement noise, of each comparison; None for one without contexts.

    What is held against target weights has noise on one side alone.
    """

    def swapped(contexts: list[str], halves: Halves) -> Parts:
        return Parts(contexts, halves.first.swapaxes(0, 1), halves.second.swapaxes(0, 1))

    @cache
    def of_weights(arm: str) -> Parts:
        trials, rng = decided[arm], stream(seed, "halves_of_weights", arm)
        if measured[arm].estimator == "log_odds":
            halves = halves_of_log_odds(trials.preference, trials.difference, rng=rng)
        else:
            halves = halves_of_weights(trials.chose_a[..., 0], trials.difference, rng=rng, seed=seed)
        return swapped(trials.contexts, halves)

    @cache
    def of_reports(arm: str) -> Parts:
        trials, rng = reported[arm], stream(seed, "halves_of_reports", arm)
        return swapped(trials.contexts, halves_of_reports(trials.values, rng=rng))

    def halves(sources: Sequence[Source], c: ComparisonResult, measure: Measure) -> Halves | None:
        if not sources:
            return None
        of = of_weights if measure == "decisions" else of_reports
        parts = {asked: of(asked) for source in sources if (asked := asked_source(source, measure))}
        sides = (lambda arm: arm.first), (lambda arm: arm.second)
        return Halves(*(gather(sources, measure, parts, c.members, side).swapaxes(0, 1) for side in sides))

    found: list[CorrectedR | None] = []
    for c in comparisons:
        sides = halves(c.reported_by, c, "reports"), halves(c.decided_by, c, "decisions")
        found.append(corrected_r(*c.sides, *sides, seed=seed) if len(c.points) else None)
    return found


def treatments(
    comparisons: Sequence[ComparisonResult],
    reported: Mapping[str, ReportTrials],
    measured: Mapping[str, MeasuredWeights],
    seed: int,
) -> list[Treatment]:
    """Missing reports treated in three ways, those of the comparisons with the same weights together."""
    found = []
    for together in _same_weights(comparisons):
        members = sorted({name for c in together for name in c.members})
        values = {c.name: gather(c.reported_by, "reports", reported, members, lambda arm: arm.values) for c in together}
        asked = {
            c.name: gather(
                c.reported_by, "reports", reported, members, lambda arm: arm.total[:, None].astype(np.float64), 0.0
            )[:, 0]
            for c in together
        }
        weights = gather(together[0].decided_by, "decisions", measured, members, lambda arm: arm.weights)
        found += treat_missing(values, asked, weights, seed=seed)
    return found


def _same_weights(comparisons: Sequence[ComparisonResult]) -> Iterator[list[ComparisonResult]]:
    """Comparisons on the same contexts with the weights of the same arms, in their order."""
    groups: dict[tuple[str, str], list[ComparisonResult]] = {}
    for c in comparisons:
        groups.setdefault((c.contexts, c.weights), []).append(c)
    yield from groups.values()


def change(
    before: ComparisonResult, after: ComparisonResult, measured: Mapping[str, MeasuredWeights], seed: int
) -> Change:
    """Do reports change where the weights of the arms that report changed? On the contexts of both comparisons."""
    first, second = (
        [Source(arm=s.arm, variant=DEFAULT["decisions"], contexts=s.contexts) for s in c.reported_by]
        for c in (before, after)
    )
    if {source.arm for source in first} & {source.arm for source in second}:
        return Change(reason="both sets of reports are of the same arm")
    if absent := [source.arm for source in (*first, *second) if source.arm not in measured]:
        return Change(reason=f"decisions of {', '.join(dict.fromkeys(absent))} were not measured")
    members = sorted({*before.members} & {*after.members})
    (x1, _), (x2, _) = same_contexts(before, after)
    y1, y2 = (gather(side, "decisions", measured, members, lambda arm: arm.weights) for side in (first, second))
    dx, dy = x2 - x1, y2 - y1
    kept = complete_contexts(dx, dy)
    y1, y2 = y1[kept], y2[kept]
    stayed = pearson(y2, y1), *bootstrap_r(y2, y1, seed=seed)
    return Change(pearson(dx, dy), *bootstrap_r(dx, dy, seed=seed), *stayed, int(kept.sum()), [*first, *second])
