"""Comparisons: weights measured from decisions, held against targets and against reports."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.stats.agreement import Agreement, PairedDifference, agreement, mean_reports, paired_difference, pearson
from analysis.stats.estimators import determined_contexts, log_odds_weights, logistic_posterior
from store.evaluation import measure_folder
from store.run import ComparisonRecord, DifferenceRecord, GateRecord, Source
from store.trials import DecisionTrials, ReportTrials
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import DEFAULT, Measure, Variant
from task.weights import Estimator, rescale


class ByContext(Protocol):
    """What is known of an arm, a row a context."""

    @property
    def contexts(self) -> list[str]:
        """Names of the rows."""
        ...


T = TypeVar("T", bound=ByContext)
"""What is known of an arm, by context."""

Table = NDArray[np.float64]
"""A row a context, a column an attribute."""

NO_DIRECTION = 0.05
"""A posterior whose means are all smaller, five times the error of its draws, is the prior: it shows no direction."""


@dataclass(frozen=True)
class MeasuredWeights:
    """What drives an arm's decisions, by context; each array is (contexts, attributes).

    A context whose decisions determine no weights (see `determined_contexts`), or leave the posterior at its prior, has
    NaN throughout.

    Attributes:
        contexts: Names.
        posterior_mean, posterior_sd: The paper's estimator, from the greedy letter with the first option as A.
        weights: The posterior means, or the log-odds weights where these were chosen; with a largest of 100.
        log_odds: Least squares on the log odds averaged over both orders, rescaled to a largest of 100.
        pareto_k: Reliability of each context's posterior, shape (contexts,); above 0.7 it is not to be trusted.
        estimator: What `weights` are estimated by.
    """

    contexts: list[str]
    posterior_mean: NDArray[np.float64]
    posterior_sd: NDArray[np.float64]
    weights: NDArray[np.float64]
    log_odds: NDArray[np.float64]
    pareto_k: NDArray[np.float64]
    estimator: Estimator = "logistic"

    @property
    def determined(self) -> NDArray[np.bool_]:
        """Which contexts have weights, shape (contexts,)."""
        return np.asarray(~np.isnan(self.weights).any(axis=1))


@dataclass(frozen=True)
class ComparisonResult:
    """Reports of one arm against the weights that drive another's decisions, named as in the experiment file.

    Attributes:
        agreement: With the weights of the paper's estimator.
        r_log_odds: The same correlation with the log-odds weights.
        points: One row a context and attribute: context, attribute, x (mean report, or target weight), y (weight).
        reasons: Unreadable reports by reason.
        outside: Readable reports with a value beyond +-100.
        decided_by: Whose decisions the weights come from, each with the prompts that it was asked in.
        reported_by: Likewise, whose reports; none in that of learned with target weights.
        folds: Which model reported on each context, below 0 for none, shape (contexts,) as in `points`; None where one
            model reported on all.
        fold_names: Its name, by number.
        undetermined: Contexts left out because the decisions on them determine no weights.
        constrained: Whether reports were forced into their form.
        opening: Of constrained reports: mean probability that the arm itself opens its reply so; NaN if not known.
        free_total, free_reasons: Free replies of the same arms asked for beside constrained ones, and the unreadable
            among them by reason.
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
    decided_by: list[Source] = field(default_factory=list)
    reported_by: list[Source] = field(default_factory=list)
    folds: NDArray[np.int64] | None = None
    fold_names: list[str] = field(default_factory=list)
    undetermined: int = 0
    constrained: bool = False
    opening: float = math.nan
    free_total: int = 0
    free_reasons: dict[str, int] = field(default_factory=dict)

    @property
    def members(self) -> list[str]:
        """The contexts, in the order of `points`."""
        return [str(name) for name in self.points["context"].unique()]

    @property
    def sides(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """x and y of the points, each (contexts, attributes)."""
        return table_of(self.points, "x"), table_of(self.points, "y")

    @property
    def free_readable(self) -> int:
        """Free replies beside constrained ones that could be read."""
        return self.free_total - sum(self.free_reasons.values())


def measure_weights(trials: DecisionTrials, seed: int, estimator: Estimator = "logistic") -> MeasuredWeights:
    """Both estimators of the weights that drive an arm's decisions, in the contexts that determine them.

    `estimator` is that of the two by which reports are judged.
    """
    chose_a = trials.chose_a
    kept = determined_contexts(chose_a)[:, None]
    posterior = logistic_posterior(
        np.where(kept, chose_a[..., 0], np.nan), trials.difference, seed=seed, intervals=False
    )
    with np.errstate(invalid="ignore"):
        kept &= np.abs(posterior.mean).max(axis=1, keepdims=True) > NO_DIRECTION
    mean, sd = np.where(kept, posterior.mean, np.nan), np.where(kept, posterior.sd, np.nan)
    log_odds = np.where(kept, rescale(log_odds_weights(trials.preference, trials.difference)), np.nan)
    pareto_k = np.where(kept[:, 0], posterior.pareto_k, np.nan)
    weights = log_odds if estimator == "log_odds" else rescale(mean)
    return MeasuredWeights(trials.contexts, mean, sd, weights, log_odds, pareto_k, estimator)


def learned_against_target(
    gate: GateRecord,
    members: list[str],
    contexts: Mapping[str, ChoiceContext],
    targets: Mapping[str, NDArray[np.float64]],
    measured: Mapping[str, MeasuredWeights],
    seed: int,
    variant: Variant = DEFAULT["decisions"],
) -> ComparisonResult:
    """Learned weights of the gate's arm against the weights that it was taught, in the gate's contexts `members`."""
    source = [Source(arm=gate.arm, variant=variant, contexts=members)]
    learned = gather(source, "decisions", measured, members, lambda arm: arm.weights)
    log_odds = gather(source, "decisions", measured, members, lambda arm: arm.log_odds)
    taught = np.stack([targets[n] for n in members])
    return ComparisonResult(
        name="learned_vs_target",
        reports=gate.arm,
        weights="target",
        contexts=gate.contexts,
        agreement=agreement(taught, learned, valid_reports=0, total_reports=0, seed=seed),
        r_log_odds=pearson(log_odds, taught),
        points=points_table([contexts[name] for name in members], x=taught, y=learned),
        reasons={},
        outside=0,
        decided_by=source,
        undetermined=_undetermined(source, measured),
    )


def members_of(entry: ComparisonRecord) -> list[str]:
    """The contexts of a comparison, source by source."""
    return [name for source in entry.reports for name in source.contexts]


def compare(
    entry: ComparisonRecord,
    contexts: Mapping[str, ChoiceContext],
    measured: Mapping[str, MeasuredWeights],
    reported: Mapping[str, ReportTrials],
    seed: int,
    folds: NDArray[np.int64] | None = None,
) -> ComparisonResult:
    """One comparison; its arms may be several folds, each speaking for its own contexts.

    `folds` are those of `ComparisonResult`, where the reports of one source come from several models.
    """
    members = members_of(entry)
    fold_names = [asked_source(source, "reports") for source in entry.reports]
    if folds is not None:
        fold_names = [f"fold_{fold + 1}" for fold in range(folds.max() + 1)]
    elif len(fold_names) > 1:
        folds = np.repeat(np.arange(len(fold_names)), [len(source.contexts) for source in entry.reports])
    mean, counts = mean_reports(gather(entry.reports, "reports", reported, members, lambda arm: arm.values))
    weights = gather(entry.weights, "decisions", measured, members, lambda arm: arm.weights)
    log_odds = gather(entry.weights, "decisions", measured, members, lambda arm: arm.log_odds)
    total = outside = free_total = 0
    reasons: Counter[str] = Counter()
    free_reasons: Counter[str] = Counter()
    opening: list[NDArray[np.float64]] = []
    for source in entry.reports:
        trials = _of(reported, source, "reports")
        rows = [row for row, name in enumerate(trials.contexts) if name in source.contexts]
        total, outside = total + int(trials.total[rows].sum()), outside + int(trials.outside[rows].sum())
        reasons.update(reason for row in rows for reason in trials.reasons[row])
        free_total += trials.free_total
        free_reasons.update(trials.free_reasons)
        if trials.opening is not None:
            opening.append(trials.opening[rows].ravel())
    return ComparisonResult(
        name=entry.name,
        reports=", ".join(asked_source(source, "reports") for source in entry.reports),
        weights=", ".join(asked_source(source, "decisions") for source in entry.weights),
        contexts=entry.contexts,
        agreement=agreement(
            mean, weights, valid_reports=int(counts.sum()), total_reports=total, seed=seed, folds=folds
        ),
        r_log_odds=pearson(mean, log_odds),
        points=points_table([contexts[name] for name in members], x=mean, y=weights),
        reasons=dict(sorted(reasons.items())),
        outside=outside,
        decided_by=entry.weights,
        reported_by=entry.reports,
        folds=folds,
        fold_names=[] if folds is None else fold_names,
        undetermined=_undetermined(entry.weights, measured),
        constrained=any(_of(reported, source, "reports").constrained for source in entry.reports),
        opening=float(np.nanmean(np.concatenate(opening))) if opening else math.nan,
        free_total=free_total,
        free_reasons=dict(sorted(free_reasons.items())),
    )


def _undetermined(sources: Sequence[Source], measured: Mapping[str, MeasuredWeights]) -> int:
    """Contexts on which the arms of a comparison decided, without determining weights."""
    arms = [(source, _of(measured, source, "decisions")) for source in sources]
    return sum(
        not determined
        for source, arm in arms
        for name, determined in zip(arm.contexts, arm.determined, strict=True)
        if name in source.contexts
    )


@dataclass(frozen=True)
class Difference:
    """How much better reports and weights agree in one comparison than in another, on the same contexts."""

    name: str
    before: str
    after: str
    found: PairedDifference


def differ(entry: DifferenceRecord, comparisons: Sequence[ComparisonResult], seed: int) -> Difference:
    """One entry of the experiment's `differences`, paired by context."""
    before, after = (next(c for c in comparisons if c.name == name) for name in (entry.before, entry.after))
    found = paired_difference(*paired_sides(before, after), seed=seed)
    return Difference(entry.name, before.name, after.name, found)


def paired_sides(before: ComparisonResult, after: ComparisonResult) -> tuple[Table, Table, Table]:
    """What two comparisons differ in, before and after, and what they share, on their contexts in one order.

    They share the weights, or, where these are of other arms, the reports.
    """
    (x1, y1), (x2, y2) = same_contexts(before, after)
    return (x1, x2, y2) if before.weights == after.weights else (y1, y2, x2)


def same_contexts(*comparisons: ComparisonResult) -> list[tuple[Table, Table]]:
    """`sides` of each comparison on the contexts of all, in one order: arms of several folds have their own."""
    members = sorted(set.intersection(*({*c.members} for c in comparisons)))
    found = []
    for c in comparisons:
        place = {name: row for row, name in enumerate(c.members)}
        rows = [place[name] for name in members]
        x, y = c.sides
        found.append((x[rows], y[rows]))
    return found


def table_of(points: pd.DataFrame, axis: str) -> NDArray[np.float64]:
    """The column `x` or `y` of a comparison's points, shape (contexts, attributes)."""
    return points[axis].to_numpy(dtype=float).reshape(points["context"].nunique(), -1)


def asked_arm(arm: str, measure: Measure, variant: Variant, constrained: bool = False) -> str:
    """Name of an arm as it was asked: the arm, then the prompts' variant where it is not the default, `constrained`."""
    how = [*([] if variant == DEFAULT[measure] else [variant]), *(["constrained"] if constrained else [])]
    return f"{arm} ({', '.join(how)})" if how else arm


def asked_source(source: Source, measure: Measure) -> str:
    """`asked_arm` of a source."""
    return asked_arm(source.arm, measure, source.variant, source.constrained)


def gather(
    sources: Sequence[Source],
    measure: Measure,
    found: Mapping[str, T],
    members: Sequence[str],
    values: Callable[[T], NDArray[np.float64]],
    padding: float = np.nan,
) -> NDArray[np.float64]:
    """What several arms found, in the order of the contexts `members`, each from the arm that speaks for it.

    `found` is what is known of each arm, by `asked_arm`, and `values` its array, a row a context. `padding` fills rows
    up to one length, and the rows of contexts that were not measured.

    Raises:
        InputError: An arm was not measured.
    """
    arms = [(source, _of(found, source, measure)) for source in sources]
    arrays: list[NDArray[np.float64]] = [values(arm) for _, arm in arms]
    longest = max(array.shape[1] for array in arrays)
    gathered = np.full((len(members), longest, *arrays[0].shape[2:]), padding, dtype=float)
    for (source, arm), array in zip(arms, arrays, strict=True):
        for row, name in enumerate(members):
            if name in source.contexts and name in arm.contexts:
                gathered[row, : array.shape[1]] = array[arm.contexts.index(name)]
    return gathered


def _of(found: Mapping[str, T], source: Source, measure: Measure) -> T:
    asked = asked_source(source, measure)
    if asked not in found:
        folder = measure_folder(measure, source.variant, source.constrained)
        raise InputError(
            f"trials/{source.arm}/{folder}: not measured, or not to the end; run the evaluation (again) first"
        )
    return found[asked]


def points_table(contexts: Sequence[ChoiceContext], **values: NDArray[np.float64]) -> pd.DataFrame:
    """One row a context and attribute: context, attribute, and the values, each (contexts, attributes)."""
    points = [(context.name, attribute) for context in contexts for attribute in context.attribute_names]
    table = pd.DataFrame(points, columns=["context", "attribute"])
    return table.assign(**{name: array.ravel() for name, array in values.items()})
