"""Small adapters on a frozen arm, each trained on one context: their similarity, and whether it goes with faithfulness.

Faithfulness is r(reported, learned) of one adapter over the attributes of its context, as in the study that this
repeats. Within one backbone nothing but the context differs. Two backbones differ in all that made them, so what holds
within a backbone comes first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.stats.agreement import bootstrap_r, mean_reports, pearson, permutation_null
from analysis.stats.similarity import FEWEST, mean_interval, mean_p, row_null_moments
from analysis.study.comparisons import MeasuredWeights, asked_arm
from analysis.study.inside_scores import ends, random_cosines, read_arm_scores
from store.inside_summary import FreshArmSummary, FreshSummary, InsideDifferenceSummary
from store.run import ArmRecord
from store.trials import ReportTrials
from task.prompts import DEFAULT

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fresh:
    """The small adapters of one training: the arm of each context, and what is frozen below."""

    training: str
    backbone: str
    arms: dict[str, str]


def fresh_trainings(arms: Mapping[str, ArmRecord]) -> list[Fresh]:
    """The trainings that made an arm of each context, in the order of the plan.

    The small adapter without what is frozen below it is an arm of the record, too, and is never asked.
    """
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name, arm in arms.items():
        if arm.derived and arm.on_top_of and arm.context and arm.training:
            found.setdefault((arm.training, arm.on_top_of), {})[arm.context] = name
    return [Fresh(training, backbone, members) for (training, backbone), members in found.items()]


def fresh_summary(
    fresh: Fresh,
    inside: Path,
    measured: Mapping[str, MeasuredWeights],
    reported: Mapping[str, ReportTrials],
    seed: int,
) -> FreshSummary | None:
    """What is said of the small adapters of a training; None where none of them has scores."""
    arms: list[FreshArmSummary] = []
    missing: list[str] = []
    for context, name in fresh.arms.items():
        scores = read_arm_scores(inside, name)
        if scores is None or not scores.contexts:
            missing.append(name)
            continue
        means = scores.means
        arms.append(
            FreshArmSummary(
                arm=name,
                context=context,
                similarity=scores.cosine,
                rows_null_mean=row_null_moments(means["deciding"], means["reporting"], scores.matrices.factor)[0],
                random=[*random_cosines(inside, scores)],
                faithfulness=faithfulness(name, context, measured, reported),
            )
        )
    return _summed_up(fresh, arms, missing, seed) if arms else None


def _summed_up(fresh: Fresh, arms: list[FreshArmSummary], missing: list[str], seed: int) -> FreshSummary:
    similar, faithful = (_numbers([getattr(arm, name) for arm in arms]) for name in ("similarity", "faithfulness"))
    known = ~np.isnan(similar) & ~np.isnan(faithful)
    x, y = similar[known, None], faithful[known, None]
    low, high = bootstrap_r(x, y, seed=seed) if known.sum() >= FEWEST else (math.nan, math.nan)
    draws = min((len(arm.random) for arm in arms), default=0)
    return FreshSummary(
        backbone=fresh.backbone,
        arms=arms,
        missing=missing,
        similarity=ends(mean_interval(similar[~np.isnan(similar)], seed=seed)),
        similarity_sd=float(np.nanstd(similar, ddof=1)) if (~np.isnan(similar)).sum() > 1 else None,
        faithfulness=ends(mean_interval(faithful[~np.isnan(faithful)], seed=seed)),
        random=[float(np.mean(_numbers([arm.random[draw] for arm in arms]))) for draw in range(draws)],
        relation=ends((pearson(x, y), low, high)),
        p_relation=permutation_null(x, y, seed=seed),
        relation_contexts=int(known.sum()),
    )


def faithfulness(
    arm: str, context: str, measured: Mapping[str, MeasuredWeights], reported: Mapping[str, ReportTrials]
) -> float:
    """r of an arm's mean report with the weights that drive its decisions, in one context; NaN if one is not known.

    Of its free reports where there are any, else of constrained ones.
    """
    decided = measured.get(asked_arm(arm, "decisions", DEFAULT["decisions"]))
    asked = (asked_arm(arm, "reports", DEFAULT["reports"], constrained) for constrained in (False, True))
    said = next((reported[name] for name in asked if name in reported), None)
    if decided is None or said is None or context not in decided.contexts or context not in said.contexts:
        return math.nan
    means, _ = mean_reports(said.values[[said.contexts.index(context)]])
    return pearson(means, decided.weights[[decided.contexts.index(context)]])


def fresh_difference(
    first: tuple[str, FreshSummary], second: tuple[str, FreshSummary], seed: int
) -> InsideDifferenceSummary | None:
    """The small adapters on one backbone less those on another, paired by context; None if they share none."""
    (name, one), (other_name, other) = first, second
    pairs = _pairs(one.arms, other.arms)
    if not pairs:
        return None
    found = {
        figure: _numbers([_minus(getattr(a, figure), getattr(b, figure)) for a, b in pairs])
        for figure in ("similarity", "faithfulness")
    }
    similar, faithful = (values[~np.isnan(values)] for values in found.values())
    return InsideDifferenceSummary(
        contrast="backbone",
        first=name,
        second=other_name,
        similarity=ends(mean_interval(similar, seed=seed)),
        p=mean_p(similar, seed=seed),
        faithfulness=ends(mean_interval(faithful, seed=seed)) if len(faithful) else None,
        n_contexts=len(similar),
    )


def _pairs(
    first: Sequence[FreshArmSummary], second: Sequence[FreshArmSummary]
) -> list[tuple[FreshArmSummary, FreshArmSummary]]:
    by_context = {arm.context: arm for arm in second}
    return [(arm, by_context[arm.context]) for arm in first if arm.context in by_context]


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def _numbers(values: Sequence[float | None]) -> Array:
    return np.array([math.nan if value is None else value for value in values], dtype=float)
