"""What the joint model of choices and reports is fitted to, and what comes of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.stats.records import Record
from analysis.stats.reliability import CorrectedR, corrected_r, halves_of_reports, halves_of_weights
from analysis.study.comparisons import ComparisonResult, gather, members_of, table_of
from analysis.study.released_results import ReleasedResults
from analysis.study.results import Findings
from task.seeding import stream

MIXED = 1.01
"""R-hat from which chains cannot be said to agree (Vehtari et al. 2021, Bayesian Analysis 16)."""


@dataclass(frozen=True)
class Case:
    """One comparison, its plain r, and the trials behind it.

    Attributes:
        chose_a: 1 where A was chosen, 0 where B, shape (contexts, trials); NaN where missing, and throughout a context
            whose decisions determine no weights.
        difference: (A - B) / range, shape (contexts, trials, attributes).
        reports: NaN where missing, shape (contexts, report trials, attributes).
        corrected: r over the square root of the reliabilities.
    """

    result: ComparisonResult
    chose_a: NDArray[np.float64]
    difference: NDArray[np.float64]
    reports: NDArray[np.float64]
    corrected: CorrectedR


@dataclass(frozen=True)
class JointFit(Record):
    """Posterior mean, sd and 95% highest-density interval of rho, and whether the chains may be believed.

    Attributes:
        rhat, ess_bulk: Rank-normalised R-hat and bulk effective sample size of rho.
        rhat_worst: Largest R-hat among rho and the other parameters that all contexts share.
        shared: Posterior mean of the correlation between the errors of a context's attributes.
        n_contexts: Contexts with both choices and reports.
        seconds: Wall time of warm-up, draws and compilation.
    """

    rho: float
    sd: float
    hdi_low: float
    hdi_high: float
    rhat: float
    ess_bulk: float
    rhat_worst: float
    divergences: int
    shared: float
    n_contexts: int
    seconds: float

    @property
    def mixed(self) -> bool:
        """Whether the chains agree."""
        return self.rhat_worst < MIXED and not self.divergences


def case_of(results: Findings, name: str) -> Case:
    """A comparison with its trials; its arms may be several folds, each speaking for its own contexts."""
    entry = next(e for e in results.entries if e.name == name)
    result = next(c for c in results.comparisons if c.name == name)
    members, seed = members_of(entry), results.seed
    chose_a = gather(entry.weights, "decisions", results.decided, members, lambda arm: arm.chose_a[..., 0])
    chose_a[np.isnan(table_of(result.points, "y")).any(axis=1)] = np.nan
    difference = gather(entry.weights, "decisions", results.decided, members, lambda arm: arm.difference, 0)
    reports = gather(entry.reports, "reports", results.reported, members, lambda arm: arm.values)
    if isinstance(results, ReleasedResults):
        return Case(result, chose_a, difference, reports, results.corrected[name])
    corrected = corrected_r(
        table_of(result.points, "x"),
        table_of(result.points, "y"),
        halves_of_reports(reports, rng=stream(seed, "halves_of_reports", name)),
        halves_of_weights(chose_a, difference, rng=stream(seed, "halves_of_weights", name), seed=seed),
        seed=seed,
    )
    return Case(result, chose_a, difference, reports, corrected)
