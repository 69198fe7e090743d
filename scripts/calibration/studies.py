"""Ways in which reports come about, and how often an interval or a test does what it should in simulated studies."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri, stdtrit

from analysis.power import POOL, in_parallel
from analysis.stats.agreement import (
    bootstrap_r,
    mean_reports,
    pearson,
    percentile_interval,
    regression_interval,
    resampled_counts,
    resampled_r,
)
from analysis.stats.estimators import logistic_posterior
from analysis.stats.power import PERMUTATIONS, Settings, run_studies
from analysis.stats.reliability import Halves, corrected_r, halves_of_reports, halves_of_weights
from analysis.stats.simulation import (
    ATTRIBUTES,
    Pool,
    Reporter,
    average_reports,
    beliefs,
    draw_contexts,
    make_pool,
    population_r,
    simulate_decisions,
    single_reports,
    stable_error,
)
from task.seeding import stream
from task.weights import LARGEST

TRIALS, CONTEXTS = (50, 100), (50, 100)

WORKERS = os.cpu_count() or 1

ACCEPTED = {"coverage": (0.93, 0.97), "rejection": (0.04, 0.06)}
"""Shares that count as right for a 95% interval and a 5% test."""

ERROR_CORRELATIONS = (0.0, 0.5, 0.7, 0.8)
"""Of the stable errors before and after, where power is held against the guide."""

FOLLOWS = 0.82
"""Share of the decisions that follow the true weights: near the gate's threshold."""

RESAMPLES = 2000
NULL_PERMUTATIONS = 399

NOISY = 80.0
"""Noise of single reports where the corrected r has something to correct: the mean of nine has reliability .87."""


@dataclass(frozen=True)
class Situation:
    """One way in which reports come about.

    Attributes:
        name: In words.
        reporter: Who reports, before training.
        lean: Of the true weights, see `sample_true_weights`.
        effect: Accuracy after training minus before.
        error_correlation: Of the stable errors before and after.
    """

    name: str
    reporter: Reporter
    lean: float = 0.0
    effect: float = 0.1
    error_correlation: float = 0.0


SITUATIONS = (
    Situation("independent errors, accuracy .3", Reporter(0.3)),
    Situation("independent errors, accuracy .7", Reporter(0.7)),
    Situation("errors persist, no effect", Reporter(0.3), effect=0.0, error_correlation=0.7),
    Situation("errors shared in a context", Reporter(0.5, shared_error=0.5)),
    Situation("errors shared, weights lean", Reporter(0.3, shared_error=0.5), lean=0.5),
    Situation("contexts differ in scale", Reporter(0.5, scale_spread=0.5)),
    Situation("contexts known or not at all", Reporter(0.5, uneven=True)),
)
NULLS = (
    Situation("unrelated reports", Reporter(0.0), effect=0.0),
    Situation("unrelated reports, both lean", Reporter(0.0, shared_error=0.5), lean=0.5, effect=0.0),
)
CORRECTED = (
    Situation("independent errors", Reporter(0.5)),
    Situation("independent errors, noisy reports", Reporter(0.5, noise=NOISY)),
)

ALTERNATIVES: dict[str, Reporter | None] = {
    **{s.name: s.reporter for s in (SITUATIONS[0], *SITUATIONS[-2:])},
    "learned against target": None,
}
"""Where other intervals of r are compared with ours; None stands for r(learned, target)."""


@dataclass(frozen=True)
class Row:
    """One measured share: how often `what` did what it should, in one situation and size of study.

    The standard error is the binomial one where none is given, as studies are independent.
    """

    kind: str
    what: str
    situation: str
    trials: int
    contexts: int
    studies: int
    share: float
    standard_error: float = math.nan
    truth: float = math.nan
    mean_estimate: float = math.nan


INTERVALS = (
    ("r, contexts resampled", "coverage_bootstrap", "r"),
    ("r, the paper's interval", "coverage_regression", "r"),
    ("paired difference", "coverage_difference", "difference"),
)
TESTS = (
    ("permutation test", "power_permutation"),
    ("interval of r, contexts resampled", "power_bootstrap"),
    ("interval of the paired difference", "power_difference"),
)
"""What is counted in words, the share by the name of `analysis.stats.power.power_row`, and the figure it is about."""


def study_rows(situation: Situation, trials: int, contexts: int, pool: Pool, studies: int, seed: int) -> list[Row]:
    """How often three intervals cover; where reports are unrelated, how often three tests reject that, at 5%."""
    unrelated = situation in NULLS
    permutations = NULL_PERMUTATIONS if unrelated else PERMUTATIONS
    settings = Settings(studies, seed, situation.error_correlation, RESAMPLES, permutations)
    after = replace(situation.reporter, accuracy=situation.reporter.accuracy + situation.effect)
    (found,) = run_studies(situation.reporter, [after], pool, contexts, settings)
    where = (situation.name, trials, contexts, studies)
    if unrelated:
        return [Row("rejection", what, *where, found[share]) for what, share in TESTS]
    return [
        Row("coverage", what, *where, found[share], truth=found[f"population_{of}"], mean_estimate=found[f"mean_{of}"])
        for what, share, of in INTERVALS
    ]


def instillation_rows(trials: int, contexts: int, pool: Pool, studies: int, seed: int) -> list[Row]:
    """Coverage of both intervals of r(learned, target), which is near 1 and known without noise on one side."""
    rng = stream(seed, f"calibration/instillation/{trials}/{contexts}")
    truth, covered, estimates = pearson(pool.true, pool.learned), np.zeros(2), []
    for _ in range(studies):
        rows = rng.integers(len(pool.true), size=contexts)
        x, y = pool.true[rows], pool.learned[rows]
        estimates.append(pearson(x, y))
        intervals = bootstrap_r(x, y, seed=seed, resamples=RESAMPLES), regression_interval(estimates[-1], x.size)
        covered += [low <= truth <= high for low, high in intervals]
    where = ("learned against target", trials, contexts, studies)
    return [
        Row("coverage", what, *where, share, truth=truth, mean_estimate=float(np.mean(estimates)))
        for (what, *_), share in zip(INTERVALS[:2], covered / studies, strict=True)
    ]


def weight_halves(trials: int, seed: int) -> Halves:
    """Weights learned from random halves of each context's decisions, for the pool of that many trials."""
    decisions = simulate_decisions(POOL, trials, FOLLOWS, seed)
    rng = stream(seed, f"calibration/halves/{trials}")
    return halves_of_weights(decisions.chose_a, decisions.difference, rng=rng, seed=seed)


def corrected_rows(
    situation: Situation, trials: int, contexts: int, pool: Pool, halves: Halves, studies: int, seed: int
) -> list[Row]:
    """Coverage of the corrected r, whose truth is the planted accuracy, in three quarters of the studies."""
    reporter, studies = situation.reporter, studies * 3 // 4
    rng = stream(seed, f"calibration/corrected/{situation.name}/{trials}/{contexts}")
    spread, covered, estimates = float(pool.true.std()), [], []
    for _ in range(studies):
        rows = rng.integers(len(pool.true), size=contexts)
        true = pool.true[rows]
        believed = beliefs(reporter, true, spread, stable_error(reporter, true.shape, rng), rng)
        values = single_reports(reporter, believed, rng)
        x_halves = halves_of_reports(values, rng=rng)
        y_halves = Halves(halves.first[:, rows], halves.second[:, rows])
        mean = mean_reports(values)[0]
        found = corrected_r(mean, pool.learned[rows], x_halves, y_halves, seed=seed, resamples=RESAMPLES // 2)
        covered.append(found.boot_low <= reporter.accuracy <= found.boot_high)
        estimates.append(found.r)
    share, estimate = float(np.mean(covered)), float(np.mean(estimates))
    where = (situation.name, trials, contexts, studies)
    return [Row("coverage", "corrected r", *where, share, truth=reporter.accuracy, mean_estimate=estimate)]


def posterior_rows(trials: int, seed: int) -> list[Row]:
    """Coverage of the 95% HDI of the weights: as the prior has it, and as the task has it.

    Attributes of a context share a fit: standard errors are those of a mean over contexts.
    """
    rng = stream(seed, f"calibration/posterior/{trials}")
    slopes = rng.normal(size=(POOL, ATTRIBUTES))
    difference = rng.random((POOL, trials, ATTRIBUTES)) - rng.random((POOL, trials, ATTRIBUTES))
    chose_a = (difference @ slopes[..., None])[..., 0] + rng.logistic(size=(POOL, trials)) > 0
    prior = logistic_posterior(chose_a, difference, seed=seed)
    decisions = simulate_decisions(POOL, trials, FOLLOWS, seed)
    task = logistic_posterior(decisions.chose_a, decisions.difference, seed=seed)
    to_100 = LARGEST / np.abs(task.mean).max(axis=1, keepdims=True)
    rows = []
    for situation, low, high, truth in (
        ("slopes as the prior has them", prior.hdi_low, prior.hdi_high, slopes),
        ("slopes of the task", task.hdi_low, task.hdi_high, decisions.slopes),
        ("the task, rescaled with the means", task.hdi_low * to_100, task.hdi_high * to_100, decisions.true),
    ):
        covered = ((low <= truth) & (truth <= high)).mean(axis=1)
        error = float(covered.std(ddof=1) / math.sqrt(POOL))
        rows.append(Row("coverage", "weights' 95% HDI", situation, trials, 1, POOL, float(covered.mean()), error))
    return rows


def alternative_rows(what: str, contexts: int, pool: Pool, studies: int, seed: int) -> list[dict[str, Any]]:
    """Coverage of other intervals of r that might be printed, beside ours, with the same studies and resamples.

    BCa and the jackknife as in Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapters 11 and 14; the
    jackknife's standard error is that of Fisher's z, and its interval takes a t quantile.
    """
    reporter = ALTERNATIVES[what]
    rng = stream(seed, f"calibration/alternatives/{what}/{contexts}")
    counts, left_out = resampled_counts(contexts, seed, RESAMPLES), contexts / (contexts - 1) * (1 - np.eye(contexts))
    truth = population_r(pool, reporter, seed) if reporter else pearson(pool.true, pool.learned)
    covered: dict[str, list[bool]] = {}
    for _ in range(studies):
        study = draw_contexts(pool, contexts, rng)
        x, y = study.true, study.learned
        if reporter:
            believed = beliefs(reporter, x, float(pool.true.std()), stable_error(reporter, x.shape, rng), rng)
            x = average_reports(reporter, believed, rng)
        r, resampled, jackknife = pearson(x, y), resampled_r(x, y, counts), resampled_r(x, y, left_out)
        z, turned = np.arctanh(r), jackknife.mean() - jackknife
        half = stdtrit(contexts - 1, 0.975) * np.arctanh(jackknife).std() * math.sqrt(contexts - 1)
        bias, skew = ndtri((resampled < r).mean()), (turned**3).sum() / (6 * (turned**2).sum() ** 1.5)
        out = bias + ndtri([0.025, 0.975])
        for name, ends in (
            ("plain percentiles", np.quantile(resampled, [0.025, 0.975])),
            ("ours", percentile_interval(resampled, contexts)),
            ("BCa", np.quantile(resampled, ndtr(bias + out / (1 - skew * out)))),
            ("jackknife of z", np.tanh([z - half, z + half])),
        ):
            covered.setdefault(name, []).append(bool(ends[0] <= truth <= ends[1]))
    known = {"situation": what, "contexts": contexts, "studies": studies}
    return [{**known, "interval": name, "coverage": float(np.mean(found))} for name, found in covered.items()]


def guide_row(
    follows: float, contexts: int, error_correlation: float, pool: Pool, studies: int, seed: int
) -> dict[str, float]:
    """Power of a paired difference of r(reports, learned), .30 before and .40 after, from a pool of 50 decisions."""
    recovery = pearson(pool.true, pool.learned)
    before, after = Reporter(0.3 / recovery), Reporter(0.4 / recovery)
    (found,) = run_studies(before, [after], pool, contexts, Settings(studies, seed, error_correlation))
    known = {"follows": follows, "recovery": recovery, "contexts": contexts, "error_correlation": error_correlation}
    names = ("population_r", "population_difference", "power_difference", "coverage_difference")
    return {**known, "studies": studies, **{name: found[name] for name in names}}


def alternatives_table(studies: int, seed: int) -> pd.DataFrame:
    """alternatives.csv: coverage of other intervals of r, after 50 decisions a context, down to 25 contexts."""
    pool = make_pool(POOL, 50, FOLLOWS, seed)
    tasks = [(what, contexts, pool, studies, seed) for what in ALTERNATIVES for contexts in (25, *CONTEXTS)]
    found = in_parallel(alternative_rows, tasks, "alternatives", WORKERS)
    return pd.DataFrame([row for rows in found for row in rows]).round(4)


def guide_table(studies: int, seed: int) -> pd.DataFrame:
    """guide.csv: the paired difference of the guide, for choosers without and with noise."""
    choosers = (1.0, FOLLOWS)
    pools = in_parallel(make_pool, [(POOL, 50, follows, seed) for follows in choosers], "pools of the guide", WORKERS)
    grid = itertools.product(zip(choosers, pools, strict=True), ERROR_CORRELATIONS, CONTEXTS)
    tasks = [(follows, contexts, c, pool, studies, seed) for (follows, pool), c, contexts in grid]
    return pd.DataFrame(in_parallel(guide_row, tasks, "guide", WORKERS)).round(4)


def coverage_table(studies: int, seed: int) -> pd.DataFrame:
    """calibration.csv: one `Row` a line, and whether its share is as it should be."""
    kinds = sorted({(trials, s.lean) for trials in TRIALS for s in (*SITUATIONS, *NULLS)})
    made = in_parallel(make_pool, [(POOL, trials, FOLLOWS, seed, lean) for trials, lean in kinds], "pools", WORKERS)
    pools = dict(zip(kinds, made, strict=True))
    halves = in_parallel(weight_halves, [(trials, seed) for trials in TRIALS], "pools in halves", WORKERS)
    halves_of = dict(zip(TRIALS, halves, strict=True))
    sizes = list(itertools.product(TRIALS, CONTEXTS))
    tasks: list[tuple[Any, ...]] = [
        *((study_rows, s, t, n, pools[t, s.lean], studies, seed) for s in SITUATIONS for t, n in sizes),
        *((instillation_rows, t, n, pools[t, 0.0], studies, seed) for t, n in sizes),
        *((corrected_rows, s, t, n, pools[t, 0.0], halves_of[t], studies, seed) for s in CORRECTED for t, n in sizes),
        *((posterior_rows, t, seed) for t in TRIALS),
        *((study_rows, s, t, n, pools[t, s.lean], 2 * studies, seed) for s in NULLS for t, n in sizes),
    ]
    found = [row for rows in in_parallel(_call, tasks, "studies", WORKERS) for row in rows]
    # Of one interval together, whichever function measured it.
    order = list(dict.fromkeys(row.what for row in found))
    found.sort(key=lambda row: order.index(row.what))
    table = pd.DataFrame(found)
    binomial = (table["share"] * (1 - table["share"]) / table["studies"]) ** 0.5
    table = table.assign(standard_error=table["standard_error"].fillna(binomial)).round(4)
    low, high = (table["kind"].map({kind: ends[i] for kind, ends in ACCEPTED.items()}) for i in (0, 1))
    return table.assign(as_it_should=table["share"].between(low, high))


def _call(rows: Callable[..., list[Row]], *arguments: Any) -> list[Row]:
    return rows(*arguments)
