"""Two gates: did an arm decide at all, and did instillation work? Where one fails, no figure is testable."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.stats.agreement import Agreement, bootstrap_share
from analysis.stats.estimators import determined_contexts
from analysis.stats.records import Record
from store.trials import DecisionTrials
from task.thresholds import (
    CHANCE,
    COLLAPSED,
    DETERMINED,
    FLIPS,
    GATE_AGREEMENT,
    GATE_CORRELATION,
    LETTER_DECIDES,
    READABLE_DECISIONS,
    REVERSED,
    REVERSED_R,
)


@dataclass(frozen=True)
class ArmDecisions(Record):
    """How an arm decides, over all shown trials of some contexts; NaN for what is not known.

    Attributes:
        pairs: Pairs shown, each in both orders (in one where only one was asked).
        trials: Trials shown.
        readable: Share of them that are decisions.
        undecided: The others, by reason.
        contexts, determined: Contexts asked about, and those whose decisions determine weights.
        share_a: Share of decisions for A.
        letter_mass: Mean P(A) + P(B) over all shown trials.
        position_bias: Mean log odds of A whatever it stands for; 0 without position bias.
        flips: Share of pairs whose choice changes when the options change place, among those decided in both orders.
        agreement: Share of decisions that follow the target weights, NaN without targets.
        agreement_low, agreement_high: Its 95% interval from resampling contexts.
    """

    pairs: int
    trials: int
    readable: float
    undecided: dict[str, int]
    contexts: int
    determined: int
    share_a: float
    letter_mass: float
    position_bias: float
    flips: float
    agreement: float
    agreement_low: float
    agreement_high: float


@dataclass(frozen=True)
class AnswerGate(Record):
    """Whether an arm decides on a group of contexts, and if not, why not; without reasons, it passed."""

    reasons: list[str]

    @property
    def passed(self) -> bool:
        """Whether weights learned from its decisions may be compared."""
        return not self.reasons


@dataclass(frozen=True)
class GateResult(Record):
    """Whether instillation passed, by which figures and 95% intervals, and if not, why.

    `reasons` name first which limits were missed, and last the likely cause.
    """

    passed: bool
    agreement: float
    r: float
    share_a: float
    reasons: list[str]
    agreement_low: float = math.nan
    agreement_high: float = math.nan
    r_low: float = math.nan
    r_high: float = math.nan


def summarise_decisions(
    trials: DecisionTrials, members: Sequence[str], targets: Mapping[str, NDArray[np.float64]], seed: int = 0
) -> ArmDecisions:
    """How an arm decides on those of the contexts `members` that it was asked about.

    What `following` does not judge is left out of `agreement`. `seed` is that of the bootstrap.
    """
    rows = np.isin(trials.contexts, members)
    chose_a, shown = trials.chose_a[rows], trials.shown[rows]
    made = ~np.isnan(chose_a)
    both = made.all(axis=-1)
    first_chosen = _first_chosen(chose_a)
    follows, judged = (counted[rows] for counted in following(trials, targets))
    low, high = bootstrap_share(follows, judged, seed=seed)
    reasons = [reason for row in np.flatnonzero(rows) for reason in trials.reasons[row]]
    return ArmDecisions(
        pairs=int(shown.any(axis=-1).sum()),
        trials=int(shown.sum()),
        readable=_mean(made[shown]),
        undecided=dict(sorted(Counter(reasons).items())),
        contexts=int(rows.sum()),
        determined=int(determined_contexts(chose_a).sum()),
        share_a=_mean(chose_a[made]),
        letter_mass=_mean(trials.letter_mass[rows][shown]),
        position_bias=_mean(trials.log_odds[rows][both].mean(axis=-1)),
        flips=_mean(first_chosen[both, 0] != first_chosen[both, 1]),
        agreement=share_of(int(follows.sum()), int(judged.sum())),
        agreement_low=low,
        agreement_high=high,
    )


def following(
    trials: DecisionTrials, targets: Mapping[str, NDArray[np.float64]]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Decisions of each context that follow the target weights, and those that these judge, each (contexts,).

    A pair without a right answer, of equal utility or in a context without target weights, is not judged.
    """
    chose_a = trials.chose_a
    unknown = np.full(trials.difference.shape[2], np.nan)
    taught = np.stack([targets.get(name, unknown) for name in trials.contexts])
    gain = np.einsum("cpa,ca->cp", trials.difference, taught)[..., None]
    judged = ~np.isnan(chose_a) & (np.abs(gain) > 1e-9)
    follows = judged & (_first_chosen(chose_a) == (gain > 0))
    return follows.sum(axis=(1, 2)), judged.sum(axis=(1, 2))


def _first_chosen(chose_a: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where a pair's first option was chosen, in either order; shape (contexts, pairs, 2)."""
    return np.stack([chose_a[..., 0], 1 - chose_a[..., 1]], axis=-1)


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if values.size else math.nan


def share_of(part: int, whole: int) -> float:
    """Part of a whole; NaN of nothing."""
    return part / whole if whole else math.nan


def judge_answers(decisions: ArmDecisions) -> AnswerGate:
    """The answer gate: enough trials are decisions, the options decide them, and enough contexts determine weights.

    The limits are chosen by simulation, see results/gates. Where pairs were shown in one order, as in the paper's
    released files, flips are not known and not judged.
    """
    d, reasons = decisions, []
    if not d.readable >= READABLE_DECISIONS:
        why = _listed(d.undecided)
        reasons.append(f"{d.readable:.0%} of its trials are decisions{why}, fewer than {READABLE_DECISIONS:.0%}")
    if d.flips > FLIPS:
        reasons.append(f"{d.flips:.0%} of its choices change when the options change place, more than {FLIPS:.0%}")
    if not d.determined >= DETERMINED * d.contexts or not d.determined:
        counted = f"{d.determined} of {d.contexts} contexts"
        reasons.append(f"its decisions determine the weights of {counted}, fewer than {DETERMINED:.0%}")
    return AnswerGate(reasons)


def _listed(undecided: Mapping[str, int]) -> str:
    found = ", ".join(f"{reason.replace('_', ' ')}: {count}" for reason, count in undecided.items())
    return f" ({found})" if found else ""


def judge(
    decisions: ArmDecisions, learned: Agreement, stopped_early: str | None = None, missing_skill: str | None = None
) -> GateResult:
    """The instillation gate: the arm decides, and the lower ends of two 95% intervals reach their limits.

    A NaN does not pass.

    Args:
        decisions: Of the arm on the contexts that it was taught.
        learned: Its learned weights against the target weights.
        stopped_early: Why its training was stopped, which is the likely cause of a failure.
        missing_skill: What the probes of the base model said that it lacks.
    """
    d, reasons = decisions, list(judge_answers(decisions).reasons)
    if not d.agreement_low >= GATE_AGREEMENT:
        shown = _with_ends(d.agreement, d.agreement_low, d.agreement_high, ".0%")
        limit = f"the lower end must reach {GATE_AGREEMENT:.0%}"
        reasons.append(f"the share of held-out decisions that follow the target weights is {shown}, where {limit}")
    if not learned.boot_low >= GATE_CORRELATION:
        shown = _with_ends(learned.r, learned.boot_low, learned.boot_high, ".2f")
        reasons.append(f"r(learned, target) is {shown}, where the lower end must reach {GATE_CORRELATION:.2f}")
    passed = not reasons
    if not passed:
        cause = f"training stopped at {stopped_early}" if stopped_early else likely_cause(decisions, learned.r)
        reasons.append(f"{cause}; the base model lacks {missing_skill}" if missing_skill else cause)
    return GateResult(
        passed=passed,
        agreement=d.agreement,
        r=learned.r,
        share_a=d.share_a,
        reasons=reasons,
        agreement_low=d.agreement_low,
        agreement_high=d.agreement_high,
        r_low=learned.boot_low,
        r_high=learned.boot_high,
    )


def _with_ends(value: float, low: float, high: float, form: str) -> str:
    if math.isnan(value):
        return "unknown"
    ends = "no interval" if math.isnan(low) else f"95% interval {low:{form}} to {high:{form}}"
    return f"{value:{form}} ({ends})"


def likely_cause(decisions: ArmDecisions, r: float) -> str:
    """What most likely went wrong with an instillation, told from how the arm decides and r(learned, target)."""
    letter = "A" if decisions.share_a > 0.5 else "B"
    share = max(decisions.share_a, 1 - decisions.share_a)
    if decisions.readable < READABLE_DECISIONS:
        return (
            f"the model does not answer with a letter (mean P(A) + P(B) is {decisions.letter_mass:.2f}): "
            "check that training and evaluation use the same prompt and chat template, or train longer"
        )
    if share > COLLAPSED:
        return (
            f"the model answers {letter} on {share:.0%} of trials whatever the options are (collapse): it learned the "
            "form of the answer, not the comparison; train longer, on more examples, with a higher rate or rank"
        )
    if decisions.agreement <= REVERSED or r <= REVERSED_R:
        return (
            "decisions go against the target weights (reversed), which chance does not bring about: check the signs of "
            "the weights, which option a letter stands for, and that training and evaluation use the same weights"
        )
    if decisions.flips > LETTER_DECIDES:
        return (
            f"{decisions.flips:.0%} of the choices change when the options change place: the letter, not the option, "
            "decides; train longer, on more examples"
        )
    if decisions.agreement < CHANCE:
        return (
            "decisions are close to chance: the model has not learned to weigh the attributes; "
            "train longer, on more examples, or use a larger model"
        )
    if decisions.agreement >= GATE_AGREEMENT and r >= GATE_CORRELATION:
        return (
            "the figures reach the limits, the lower ends of their intervals do not: measure more contexts, or train "
            "longer"
        )
    return "decisions follow the target weights in part: more examples, more epochs or more trials a context may do"
