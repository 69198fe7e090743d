"""Power and coverage of the analysis by simulation: what studies of one design find, and how often they are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from analysis.stats.agreement import bootstrap_r, paired_difference, pearson, permutation_null, regression_interval
from analysis.stats.simulation import Array, Pool, Reporter, before_and_after, draw_contexts, population_r
from task.seeding import stream
from task.weights import Estimator

RESAMPLES, PERMUTATIONS = 600, 199
"""Fewer than in the analysis of a real study: their noise averages out over studies."""

LEVEL = 0.05
"""Level of the tests, two-sided."""


@dataclass(frozen=True)
class Design:
    """What a study consists of.

    Attributes:
        contexts: Its contexts.
        pairs: Pairs in each context that an arm decides between, each shown in both orders.
        noise: Share of decisions that follow the true weights.
        accuracy: Correlation of the reports before training with the true weights.
        estimator: How weights are learned from the decisions.
        reports: In each context, before training and after it.
    """

    contexts: int
    pairs: int
    noise: float
    accuracy: float
    estimator: Estimator = "logistic"
    reports: int = 10

    @property
    def asked(self) -> int:
        """Trials that a study asks for: decisions of one arm, in both orders, and reports before and after training."""
        return self.contexts * (2 * self.pairs + 2 * self.reports)

    @property
    def pool(self) -> tuple[int, float, Estimator]:
        """What its pool of learned weights depends on."""
        return self.pairs, self.noise, self.estimator


@dataclass(frozen=True)
class Settings:
    """What all designs share; `error_correlation` is explained at `analysis.stats.simulation.before_and_after`."""

    studies: int
    seed: int
    error_correlation: float = 0.0
    resamples: int = RESAMPLES
    permutations: int = PERMUTATIONS


def run_design(
    design: Design, effects: Sequence[float], pool: Pool, settings: Settings
) -> list[dict[str, float | str]]:
    """Simulate and analyse the studies of one design; one row an effect, see `power_row`."""
    before = Reporter(design.accuracy, per_context=design.reports)
    after = [Reporter(design.accuracy + effect, per_context=design.reports) for effect in effects]
    found = run_studies(before, after, pool, design.contexts, settings)
    known = {"asked": design.asked, "error_correlation": settings.error_correlation, "studies": settings.studies}
    recovery = {"recovery": pearson(pool.true, pool.learned)}
    return [{**asdict(design), "effect": e, **known, **recovery, **row} for e, row in zip(effects, found, strict=True)]


def run_studies(
    before: Reporter, after: Sequence[Reporter], pool: Pool, contexts: int, settings: Settings
) -> list[dict[str, float]]:
    """Simulate and analyse studies of so many contexts; one row of `power_row` for each reporter after training."""
    spread, seed, resamples = float(pool.true.std()), settings.seed, settings.resamples
    rng = stream(seed, f"power/{before}/{after}/{contexts}/{settings}")
    rs, differences = [], []
    for _ in range(settings.studies):
        study = draw_contexts(pool, contexts, rng)
        x, later = before_and_after(before, after, settings.error_correlation, study, spread, rng)
        r = pearson(x, study.learned)
        p = permutation_null(x, study.learned, seed=seed, permutations=settings.permutations)
        boot = bootstrap_r(x, study.learned, seed=seed, resamples=resamples)
        recovered = pearson(study.true, study.learned)
        rs.append([r, recovered, p, *boot, *regression_interval(r, int((~np.isnan(x)).sum()))])
        gains = [paired_difference(x, then, study.learned, seed=seed, resamples=resamples) for then in later]
        differences.append([[gain.difference, gain.boot_low, gain.boot_high] for gain in gains])
    truth = population_r(pool, before, seed)
    gained = [population_r(pool, reporter, seed) - truth for reporter in after]
    return [power_row(np.array(rs), np.array(differences)[:, i], truth, gain) for i, gain in enumerate(gained)]


def power_row(rs: Array, differences: Array, truth: float, gained: float) -> dict[str, float]:
    """Power and coverage from the studies' results.

    A study has a row in `rs` (r, r of learned with true weights, p, ends of the bootstrap interval, ends of the
    paper's) and one in `differences` (difference, ends of its interval). `truth` is the population's r before, `gained`
    that after minus it.

    Returns:
        population_*, mean_*: What is estimated, and the mean estimate.
        sd_r, sd_recovery, sd_difference: Standard deviation over studies: of r, of r(true, learned), of the difference.
        power_permutation: Share of studies whose permutation test rejects that reports and weights are unrelated.
        power_bootstrap, power_difference: Share whose interval of r, of the difference, excludes 0.
        coverage_*: Share whose interval holds what is estimated.
    """
    r, recovered, p, boot_low, boot_high, hdi_low, hdi_high = rs.T
    difference, low, high = differences.T
    return {
        "population_r": truth,
        "mean_r": float(r.mean()),
        "sd_r": float(r.std()),
        "sd_recovery": float(recovered.std()),
        "power_permutation": float((p <= LEVEL).mean()),
        "power_bootstrap": float(1 - _share_within(boot_low, boot_high, 0)),
        "coverage_bootstrap": _share_within(boot_low, boot_high, truth),
        "coverage_regression": _share_within(hdi_low, hdi_high, truth),
        "population_difference": gained,
        "mean_difference": float(difference.mean()),
        "sd_difference": float(difference.std()),
        "power_difference": float(1 - _share_within(low, high, 0)),
        "coverage_difference": _share_within(low, high, gained),
    }


def _share_within(low: Array, high: Array, value: float) -> float:
    return float(((low <= value) & (value <= high)).mean())
