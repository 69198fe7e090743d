"""What runs together say of the claims: supported, against, not settled, not testable, not measured.

The rule, of a part of a claim with its limits `above` and `below` (see `analysis.study.claims`), and of the pooled
estimate of a group of runs with its 95% interval [low, high]:

- supported where low > above: for an effect, where the interval lies above 0;
- against where high < below: for an effect, where the interval lies below the smallest effect of interest;
- not settled otherwise, with the number of contexts or of trainings that would settle it.

With `REPLICATED` runs or more it is also supported where the own interval of each lies above `above`, and spoken
against where each lies below `below`: few runs say little of how much trainings differ, so that the interval of their
mean may be wider than that of any of them, although an effect that is not there is not found by all of them.

A single run has the interval of its own contexts, which says nothing of other trainings. How often the rule is right:
results/verdicts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter

import numpy as np
from scipy.stats import norm, t

from analysis.study.claims import CLAIMS, Claim, Part
from analysis.study.meta import LEVEL, Pooled
from analysis.study.several import Estimate, StudyRun, pooled, scale_of
from store.study_summary import Outcome
from task.thresholds import FEW_CONTEXTS

MOST_TRAININGS = 100
"""More are not counted."""

MOST_CONTEXTS = 100_000
"""Likewise."""

REPLICATED = 3
"""Runs that must each show what they do not show together. Where trainings differ much, two may do so by luck."""

ORDER: tuple[Outcome, ...] = ("against", "not testable", "not measured", "not settled", "supported")
"""Of the outcomes of its parts, the first is that of the claim."""


Groups = Sequence[Sequence[Mapping[str, Estimate]]]
"""Figures of each run of each group."""


@dataclass(frozen=True)
class PartVerdict:
    """What is said of one part of a claim.

    Attributes:
        figures: What it was read from, one for each group; the first of the part's where none was measured.
        what: It, in words.
        above, below: Its limits.
        pooled: Over the runs where it is testable.
        n_contexts: Of these runs, least and most.
        reasons: Why it is not testable in others, each once.
        contexts, trainings: What would settle it, see `store.study_summary.PartSummary`.
    """

    figures: list[str]
    what: str
    outcome: Outcome
    above: float
    below: float
    pooled: Pooled
    n_contexts: tuple[int, int] = (0, 0)
    reasons: list[str] = field(default_factory=list)
    contexts: int | None = None
    trainings: int | None = None


@dataclass(frozen=True)
class ClaimVerdict:
    """What is said of a claim, and by what."""

    claim: Claim
    outcome: Outcome
    parts: list[PartVerdict]

    @property
    def single(self) -> bool:
        """Whether it rests on one run alone."""
        return max(part.pooled.runs for part in self.parts) == 1


def judge_claims(runs: Sequence[StudyRun], smallest: float) -> list[ClaimVerdict]:
    """Verdicts on all claims from some runs, of one group or of several."""
    groups: dict[str, list[Mapping[str, Estimate]]] = {}
    for run in runs:
        groups.setdefault(run.group, []).append(run.figures)
    return [judge_claim(claim, list(groups.values()), smallest) for claim in CLAIMS]


def judge_claim(claim: Claim, groups: Groups, smallest: float) -> ClaimVerdict:
    """The verdict on one claim from the figures of some runs, by group."""
    parts = [(part, judge_part(part, groups, smallest)) for part in claim.parts]
    left_out: tuple[Outcome, ...] = ("not measured", "not testable")
    counted = [found for part, found in parts if not (part.optional and found.outcome in left_out)]
    outcome = next(outcome for outcome in ORDER if outcome in {found.outcome for found in counted})
    return ClaimVerdict(claim, outcome, [found for _, found in parts])


def judge_part(part: Part, groups: Groups, smallest: float) -> PartVerdict:
    """The verdict on one part, in each group by that of its figures that is best known there."""
    above, below = part.limits(smallest)
    names, there = [], []
    for runs in groups:
        by_figure = {name: [run[name] for run in runs if name in run] for name in part.figures}
        measured = [(_known(found), name) for name, found in by_figure.items() if found]
        if measured:
            names.append(max(measured, key=itemgetter(0))[1])
            there += by_figure[names[-1]]
    figures = list(dict.fromkeys(names)) or [part.figures[0]]
    kept = [e for e in there if e.testable]
    together = pooled(figures[0], kept)
    reasons = list(dict.fromkeys(e.reason for e in there if e.reason))
    found = PartVerdict(figures, part.what, "not measured", above, below, together, reasons=reasons)
    if not there:
        return found
    if not kept:
        return replace(found, outcome="not testable")
    outcome = outcome_of(together, kept, above, below)
    counts = [e.n_contexts for e in kept]
    found = replace(found, outcome=outcome, n_contexts=(min(counts), max(counts)))
    if outcome != "not settled":
        return found
    contexts, trainings = settled_by(figures[0], kept, above, below)
    return replace(found, contexts=contexts, trainings=trainings)


def _known(found: Sequence[Estimate]) -> tuple[int, int]:
    """In how many runs a figure is testable with more than a few contexts, and at all."""
    kept = [e for e in found if e.testable]
    return sum(e.n_contexts >= FEW_CONTEXTS for e in kept), len(kept)


def outcome_of(together: Pooled, kept: Sequence[Estimate], above: float, below: float) -> Outcome:
    """The rule of this module, for runs `kept` and the same pooled."""
    every = len(kept) >= REPLICATED
    if together.low > above or (every and all(e.low > above for e in kept)):
        return "supported"
    if together.high < below or (every and all(e.high < below for e in kept)):
        return "against"
    return "not settled"


def settled_by(figure: str, kept: Sequence[Estimate], above: float, below: float) -> tuple[int | None, int | None]:
    """The contexts a run, and the trainings, that would settle a figure if its estimate stayed where it is.

    The interval must then end before `above` or `below`, whichever is farther off on the side of the estimate. Its half
    width is t sqrt((between^2 + within^2 / contexts) / trainings), see `analysis.study.meta`; of one training the
    spread between trainings is not known, so that only contexts are told. None where not even `MOST_CONTEXTS` or
    `MOST_TRAININGS` would do.
    """
    scaled = np.arctanh if scale_of(figure) == "correlation" else np.asarray
    lows, highs = (scaled(np.array([getattr(e, end) for e in kept])) for end in ("low", "high"))
    within = float(np.mean((highs - lows) ** 2)) / (2 * norm.ppf((1 + LEVEL) / 2)) ** 2
    together, runs = pooled(figure, kept), len(kept)
    between = 0.0 if math.isnan(together.between) else together.between
    mean, above, below = (float(scaled(value)) for value in (together.mean, above, below))
    room = max(mean - above, below - mean)
    if room <= 0:
        return None, None
    contexts = float(np.mean([e.n_contexts for e in kept]))
    spare = runs * (room / _reach(runs)) ** 2 - between**2
    needed = contexts * within / spare if spare > 0 else math.inf
    settling = (
        k for k in range(runs + 1, MOST_TRAININGS + 1) if _reach(k) * math.sqrt((between**2 + within) / k) < room
    )
    return (
        math.ceil(needed) if needed <= MOST_CONTEXTS else None,
        next(settling, None) if runs > 1 else None,
    )


def _reach(runs: int) -> float:
    """Half an interval in standard errors."""
    level = (1 + LEVEL) / 2
    return float(norm.ppf(level) if runs == 1 else t.ppf(level, runs - 1))
