"""What the joint model of choices and reports is fitted to, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.stats.records import Record
from analysis.stats.reliability import CorrectedR, corrected_r, halves_of_reports, halves_of_weights
from analysis.study.comparisons import ComparisonResult, members_of
from analysis.study.released_files import REPORTS
from analysis.study.released_results import ReleasedResults
from analysis.study.results import RunResults
from store.run import Source
from store.trials import read_decisions, read_reports
from task.prompts import Variant
from task.seeding import stream

MIXED = 1.01
"""R-hat from which chains cannot be said to agree (Vehtari et al. 2021, Bayesian Analysis 16)."""

Found = Mapping[tuple[str, Variant], tuple[list[str], NDArray[np.float64]]]
"""By arm and variant: names of contexts, and an array with a row for each."""


@dataclass(frozen=True)
class Case:
    """One comparison with the trials behind it.

    Attributes:
        result: The comparison with its plain r.
        chose_a: 1 where A was chosen, 0 where B, NaN where missing, shape (contexts, trials).
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
    """Posterior of rho, and whether the chains may be believed.

    Attributes:
        rho, sd: Posterior mean and standard deviation.
        hdi_low, hdi_high: 95% highest-density interval.
        rhat: Rank-normalised R-hat of rho.
        ess_bulk: Bulk effective sample size of rho.
        rhat_worst: Largest R-hat among rho and the other parameters that all contexts share.
        divergences: Divergent transitions after warm-up.
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


@dataclass(frozen=True)
class JointResult:
    """The joint model of one comparison.

    Attributes:
        case: The comparison with its trials.
        testable: Whether the gate was passed; nothing is fitted otherwise.
        fit: None where it is not testable, or where the data say nothing of rho.
        reason: Why there is no fit, otherwise "".
    """

    case: Case
    testable: bool
    fit: JointFit | None
    reason: str = ""

    @property
    def mixed(self) -> bool:
        """Whether the chains of the fit agree."""
        return self.fit is not None and self.fit.rhat_worst < MIXED and not self.fit.divergences

    def as_dict(self) -> dict[str, Any]:
        """JSON values; `rho` is None, with the reason, where there is no fit."""
        plain = self.case.result.agreement.as_dict()
        counts = {key: plain[key] for key in ("valid_reports", "total_reports")}
        if self.fit is None:
            return {"testable": self.testable, "rho": None, "reason": self.reason, **counts}
        return {
            "testable": self.testable,
            **self.fit.as_dict(),
            "mixed": self.mixed,
            **counts,
            "plain": {key: plain[key] for key in ("r", "boot_low", "boot_high", "n_contexts")},
            "without_noise": self.case.corrected.as_dict(),
        }


def case_of(results: RunResults | ReleasedResults, name: str) -> Case:
    """A comparison with its trials."""
    if isinstance(results, RunResults):
        return run_case(results, name)
    result = next(c for c in results.findings.comparisons if c.name == name)
    made, reports = results.data.decisions[REPORTS[name][0]], results.data.reports[name]
    return Case(result, made.chose_a, made.difference, reports.values, results.corrected[name])


def run_case(results: RunResults, name: str) -> Case:
    """A comparison of a run; its arms may be several folds, each speaking for its own contexts."""
    entry = next(e for e in results.record.comparisons if e.name == name)
    result = next(c for c in results.comparisons if c.name == name)
    members, run = members_of(entry), results.run
    decided = {
        (s.arm, s.variant): read_decisions(run.trials_of(s.arm, "decisions", s.variant), results.contexts)
        for s in entry.weights
    }
    reported = {(s.arm, s.variant): read_reports(run.trials_of(s.arm, "reports", s.variant)) for s in entry.reports}
    letters = {key: (trials.contexts, trials.chose_a[..., 0]) for key, trials in decided.items()}
    differences = {key: (trials.contexts, trials.difference) for key, trials in decided.items()}
    chose_a = _stacked(entry.weights, members, letters, np.nan)
    difference = _stacked(entry.weights, members, differences, 0)
    reports = _stacked(entry.reports, members, {k: (t.contexts, t.values) for k, t in reported.items()}, np.nan)
    mean, weights = (result.points[axis].to_numpy().reshape(len(members), -1) for axis in "xy")
    seed = results.seed
    corrected = corrected_r(
        mean,
        weights,
        halves_of_reports(reports, rng=stream(seed, "halves_of_reports", name)),
        halves_of_weights(chose_a, difference, rng=stream(seed, "halves_of_weights", name), seed=seed),
        seed=seed,
    )
    return Case(result, chose_a, difference, reports, corrected)


def _stacked(sources: list[Source], members: list[str], found: Found, padding: float) -> NDArray[np.float64]:
    """Rows of several arms in the order of `members`, each from the arm that speaks for it, padded to one length."""
    shapes = [values.shape[1:] for _, values in found.values()]
    stacked = np.full((len(members), max(s[0] for s in shapes), *shapes[0][1:]), padding, dtype=float)
    for source in sources:
        names, values = found[source.arm, source.variant]
        for row, name in enumerate(members):
            if name in source.contexts and name in names:
                stacked[row, : values.shape[1]] = values[names.index(name)]
    return stacked
