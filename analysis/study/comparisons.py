"""Comparisons: weights measured from decisions, held against targets and against reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.stats.agreement import Agreement, PairedDifference, agreement, mean_reports, paired_difference, pearson
from analysis.stats.estimators import log_odds_weights, logistic_posterior
from store.evaluation import measure_folder
from store.run import ComparisonRecord, DifferenceRecord, GateRecord, Source
from store.trials import DecisionTrials, ReportTrials
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import DEFAULT, Measure, Variant
from task.weights import rescale

T = TypeVar("T")


@dataclass(frozen=True)
class MeasuredWeights:
    """What drives an arm's decisions, by context; each array is (contexts, attributes).

    Attributes:
        contexts: Names.
        posterior_mean, posterior_sd: The paper's estimator, from the greedy letter with the first option as A.
        weights: The posterior means, rescaled to a largest of 100.
        log_odds: Least squares on the log odds averaged over both orders, rescaled to a largest of 100.
        pareto_k: Reliability of each context's posterior, shape (contexts,); above 0.7 it is not to be trusted.
    """

    contexts: list[str]
    posterior_mean: NDArray[np.float64]
    posterior_sd: NDArray[np.float64]
    weights: NDArray[np.float64]
    log_odds: NDArray[np.float64]
    pareto_k: NDArray[np.float64]


@dataclass(frozen=True)
class ComparisonResult:
    """Reports of one arm against the weights that drive another's decisions.

    Attributes:
        name, reports, weights, contexts: As in the experiment file.
        agreement: With the weights of the paper's estimator.
        r_log_odds: The same correlation with the log-odds weights.
        points: One row a context and attribute: context, attribute, x (mean report, or target weight), y (weight).
        reasons: Unreadable reports by reason.
        outside: Readable reports with a value beyond +-100.
    """

    name: str
    reports: str
    weights: str
    contexts: str
    agreement: Agreement
    r_log_odds: float
    points: pd.DataFrame
    reasons: dict[str, int]
    outside: int


def measure_weights(trials: DecisionTrials, seed: int) -> MeasuredWeights:
    """Both estimators of the weights that drive an arm's decisions."""
    posterior = logistic_posterior(trials.chose_a[..., 0], trials.difference, seed=seed, intervals=False)
    log_odds = log_odds_weights(trials.preference, trials.difference)
    return MeasuredWeights(
        trials.contexts,
        posterior.mean,
        posterior.sd,
        rescale(posterior.mean),
        rescale(log_odds.weights),
        posterior.pareto_k,
    )


def learned_against_target(
    gate: GateRecord,
    names: dict[str, list[str]],
    contexts: dict[str, ChoiceContext],
    targets: dict[str, NDArray[np.float64]],
    measured: dict[str, MeasuredWeights],
    seed: int,
) -> ComparisonResult:
    """Learned weights of the gate's arm against the weights that it was taught."""
    arm, group = gate.arm, gate.contexts
    members = names[group]
    source = Source(arm=arm, variant=DEFAULT["decisions"], contexts=members)
    of_arm = _of(measured, source, "decisions")
    learned = _pick(of_arm.contexts, of_arm.weights, members)
    taught = np.stack([targets[n] for n in members])
    counted = agreement(taught, learned, valid_reports=0, total_reports=0, seed=seed)
    r_log_odds = pearson(_pick(of_arm.contexts, of_arm.log_odds, members), taught)
    points = _points(contexts, members, taught, learned)
    return ComparisonResult("learned_vs_target", arm, "target", group, counted, r_log_odds, points, {}, 0)


def members_of(entry: ComparisonRecord) -> list[str]:
    """The contexts of a comparison, source by source."""
    return [name for source in entry.reports for name in source.contexts]


def compare(
    entry: ComparisonRecord,
    contexts: dict[str, ChoiceContext],
    measured: dict[str, MeasuredWeights],
    reported: dict[str, ReportTrials],
    seed: int,
) -> ComparisonResult:
    """One comparison; its arms may be several folds, each speaking for its own contexts."""
    members = members_of(entry)
    mean = np.full((len(members), len(contexts[members[0]].attributes)), np.nan)
    weights, log_odds = mean.copy(), mean.copy()
    valid = total = outside = 0
    reasons: Counter[str] = Counter()
    for source in entry.reports:
        trials = _of(reported, source, "reports")
        rows = [trials.contexts.index(n) for n in source.contexts if n in trials.contexts]
        means, counts = mean_reports(trials.values[rows])
        mean[[members.index(trials.contexts[row]) for row in rows]] = means
        valid, total = valid + int(counts.sum()), total + int(trials.total[rows].sum())
        outside += int(trials.outside[rows].sum())
        reasons.update(reason for row in rows for reason in trials.reasons[row])
    for source in entry.weights:
        of_arm = _of(measured, source, "decisions")
        rows = [members.index(n) for n in source.contexts if n in members]
        known = [members[row] for row in rows]
        weights[rows] = _pick(of_arm.contexts, of_arm.weights, known)
        log_odds[rows] = _pick(of_arm.contexts, of_arm.log_odds, known)
    return ComparisonResult(
        name=entry.name,
        reports=", ".join(_asked(source, "reports") for source in entry.reports),
        weights=", ".join(_asked(source, "decisions") for source in entry.weights),
        contexts=entry.contexts,
        agreement=agreement(mean, weights, valid_reports=valid, total_reports=total, seed=seed),
        r_log_odds=pearson(mean, log_odds),
        points=_points(contexts, members, mean, weights),
        reasons=dict(sorted(reasons.items())),
        outside=outside,
    )


@dataclass(frozen=True)
class Difference:
    """How much better one comparison's reports agree with the weights than another's, on the same contexts."""

    name: str
    before: str
    after: str
    found: PairedDifference


def differ(entry: DifferenceRecord, comparisons: Sequence[ComparisonResult], seed: int) -> Difference:
    """One entry of the experiment's `differences`, paired by context."""
    by_name = {c.name: c for c in comparisons}
    before, after = by_name[entry.before], by_name[entry.after]
    # Arms of several folds list the contexts in their own order.
    members = sorted({*before.points["context"]} & {*after.points["context"]})
    x1, x2, y = _stacked(before, "x", members), _stacked(after, "x", members), _stacked(after, "y", members)
    return Difference(entry.name, before.name, after.name, paired_difference(x1, x2, y, seed=seed))


def _stacked(comparison: ComparisonResult, column: str, members: list[str]) -> NDArray[np.float64]:
    values = dict(iter(comparison.points.groupby("context")[column]))
    return np.stack([values[name].to_numpy() for name in members])


def asked_arm(arm: str, measure: Measure, variant: Variant) -> str:
    """Name of an arm as it was asked: the arm, followed by the variant of the prompts where it is not the default."""
    return arm if variant == DEFAULT[measure] else f"{arm} ({variant})"


def _asked(source: Source, measure: Measure) -> str:
    return asked_arm(source.arm, measure, source.variant)


def _of(found: dict[str, T], source: Source, measure: Measure) -> T:
    asked = _asked(source, measure)
    if asked not in found:
        folder = measure_folder(measure, source.variant)
        raise InputError(
            f"trials/{source.arm}/{folder}: not measured, or not to the end; run the evaluation (again) first"
        )
    return found[asked]


def _pick(names: list[str], values: NDArray[np.float64], members: list[str]) -> NDArray[np.float64]:
    """Rows of `values` (of the contexts `names`) in the order of `members`, NaN for those that were not measured."""
    place = {name: row for row, name in enumerate(names)}
    picked = np.full((len(members), values.shape[1]), np.nan)
    known = [row for row, name in enumerate(members) if name in place]
    picked[known] = values[[place[members[row]] for row in known]]
    return picked


def _points(
    contexts: dict[str, ChoiceContext], members: list[str], x: NDArray[np.float64], y: NDArray[np.float64]
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "context": np.repeat(members, x.shape[1]),
            "attribute": [name for member in members for name in contexts[member].attribute_names],
            "x": x.ravel(),
            "y": y.ravel(),
        }
    )
