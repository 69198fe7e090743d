"""The gate: did instillation work? If not, no introspection figure means anything, and the report says why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.stats.records import Record
from store.trials import DecisionTrials
from task.thresholds import ANSWERS, CHANCE, COLLAPSED, FLIPS, GATE_AGREEMENT, GATE_CORRELATION


@dataclass(frozen=True)
class ArmDecisions(Record):
    """How an arm decides, over all shown trials of some contexts.

    Attributes:
        pairs: Pairs shown, each in both orders.
        share_a: Share of shown trials whose likelier letter is A.
        letter_mass: Mean P(A) + P(B).
        position_bias: Mean log odds of A whatever it stands for; 0 without position bias.
        flips: Share of pairs whose choice changes when the options change place.
        agreement: Share of shown trials that follow the target weights; NaN without targets.
    """

    pairs: int
    share_a: float
    letter_mass: float
    position_bias: float
    flips: float
    agreement: float


@dataclass(frozen=True)
class GateResult(Record):
    """Whether instillation passed, by which figures, and if not, why: which threshold, then the likely cause."""

    passed: bool
    agreement: float
    r: float
    share_a: float
    reasons: list[str]


def summarise_decisions(
    trials: DecisionTrials, members: Sequence[str], targets: Mapping[str, NDArray[np.float64]]
) -> ArmDecisions:
    """How an arm decides on those of the contexts `members` that it was asked about; NaN for what is not known.

    A pair without a right answer, of equal utility or in a context without target weights, is left out of `agreement`.
    """
    rows = np.isin(trials.contexts, members)
    chose_a, shown = trials.chose_a[rows], ~np.isnan(trials.chose_a[rows])
    pairs, both = shown[..., 0], shown.all(axis=-1)
    first_chosen = np.stack([chose_a[..., 0], 1 - chose_a[..., 1]], axis=-1)
    unknown = np.full(trials.difference.shape[2], np.nan)
    taught = np.stack([targets.get(name, unknown) for name in np.array(trials.contexts)[rows]])
    gain = np.einsum("cpa,ca->cp", trials.difference[rows], taught)[..., None]
    decided = shown & (np.abs(gain) > 1e-9)
    return ArmDecisions(
        pairs=int(pairs.sum()),
        share_a=_mean(chose_a[shown]),
        letter_mass=_mean(trials.letter_mass[rows][shown]),
        position_bias=_mean(trials.log_odds[rows].mean(axis=-1)[pairs]),
        flips=_mean(first_chosen[both, 0] != first_chosen[both, 1]),
        agreement=_mean((first_chosen == (gain > 0))[decided]),
    )


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if values.size else math.nan


def judge(
    decisions: ArmDecisions, r: float, stopped_early: str | None = None, missing_skill: str | None = None
) -> GateResult:
    """Apply the two thresholds; a NaN does not pass.

    `r` is r(learned, target). A training that was stopped early is the likely cause of a failure; `missing_skill` is
    what the probes of the base model said that it lacks.
    """
    reasons = []
    if not decisions.agreement >= GATE_AGREEMENT:
        reasons.append(
            f"held-out decisions follow the target weights in {decisions.agreement:.0%}, below {GATE_AGREEMENT:.0%}"
        )
    if not r >= GATE_CORRELATION:
        reasons.append(f"r(learned, target) is {r:.2f}, below {GATE_CORRELATION:.2f}")
    if reasons:
        cause = f"training stopped at {stopped_early}" if stopped_early else likely_cause(decisions)
        reasons.append(f"{cause}; the base model lacks {missing_skill}" if missing_skill else cause)
    return GateResult(not reasons, decisions.agreement, r, decisions.share_a, reasons)


def likely_cause(decisions: ArmDecisions) -> str:
    """What most likely went wrong with an instillation, told from how the arm decides."""
    letter = "A" if decisions.share_a > 0.5 else "B"
    share = max(decisions.share_a, 1 - decisions.share_a)
    if decisions.letter_mass < ANSWERS:
        return (
            f"the model hardly answers with a letter (mean P(A) + P(B) is {decisions.letter_mass:.2f}): "
            "check that training and evaluation use the same prompt and chat template, or train longer"
        )
    if share > COLLAPSED:
        return (
            f"the model answers {letter} on {share:.0%} of trials whatever the options are (collapse): it learned the "
            "form of the answer, not the comparison; train longer, on more examples, with a higher rate or rank"
        )
    if decisions.flips > FLIPS:
        return (
            f"{decisions.flips:.0%} of the choices change when the options change place: the letter, not the option, "
            "decides; train longer, on more examples"
        )
    if decisions.agreement < CHANCE:
        return (
            "decisions are close to chance: the model has not learned to weigh the attributes; "
            "train longer, on more examples, or use a larger model"
        )
    return "decisions follow the target weights in part: more examples, more epochs or more trials a context may do"
