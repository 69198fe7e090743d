"""Does a report predict? Fresh decisions, predicted from reported weights and from what they are held against.

An agent with weights w prefers the first option of a pair by its *margin* m = w . (x1 - x2) / range. Two figures say
how well given weights predict the decisions that were made:

- the share of decisions that go to the option that these weights prefer; a margin of 0 counts half;
- the log-loss, the mean of -log P(decision), with P(first) = 1 / (1 + exp(-scale m / 100)). Weights say nothing of how
  decided an agent is, so each kind of weights gets one scale for all contexts, between 0 and `LARGEST_SCALE`, fitted on
  the other half of the contexts (those at odd places for those at even ones and the reverse). Chance is log 2 = 0.69.

A decision is fresh if the weights that predict it were not estimated from it. Reports never were. Learned weights are
cross-fitted: those from the pairs at even places predict the pairs at odd ones, and the reverse. So they rest on half
of the decisions, and lie a little below what all of them would reach.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import expit

from analysis.stats.agreement import bootstrap_share
from analysis.stats.constant import leave_out_mean
from analysis.stats.records import Record
from analysis.stats.reliability import weights_of_some
from task.weights import LARGEST

Array = NDArray[np.float64]

LARGEST_SCALE = 50.0
"""In log odds per full range of an attribute that weighs 100: there a choice between two options is as good as sure."""

SHIFTS = 5
"""How many other contexts' reports stand for another context's: the share then errs little by which they are."""

REPORTED = "reported"
"""The kind of weights that the others are held against."""

KINDS = (REPORTED, "learned", "target", "off_the_shelf", "third_person", "another_context", "constant")
"""Kinds of weights in the order in which they are shown."""


@dataclass(frozen=True)
class FreshDecisions:
    """Decisions by pair, whichever order it was shown in.

    Attributes:
        difference: (first - second) / range, shape (contexts, pairs, attributes).
        made: Decisions made on each pair, 0 to 2, shape (contexts, pairs).
        first: Those for the first option.
    """

    difference: Array
    made: Array
    first: Array

    @classmethod
    def of(cls, chose_a: ArrayLike, difference: ArrayLike) -> FreshDecisions:
        """From `chose_a`, shape (contexts, pairs, 2): the first option as A, then as B; NaN where there is none."""
        choices = np.asarray(chose_a, dtype=float)
        first = np.stack([choices[..., 0], 1 - choices[..., 1]], axis=-1)
        return cls(
            np.asarray(difference, dtype=float), (~np.isnan(first)).sum(axis=-1) * 1.0, np.nansum(first, axis=-1)
        )


@dataclass(frozen=True)
class Predicted(Record):
    """How well one kind of weights predicts fresh decisions; NaN for what cannot be computed.

    Attributes:
        share: Share of decisions predicted right.
        share_low, share_high: Its 95% interval from resampling contexts.
        log_loss: Mean -log P(decision).
        scale: That of the log-loss, mean over the two halves of the contexts.
        gain: How much larger a share reported weights predict, on the same contexts; NaN for themselves.
        gain_low, gain_high: Its interval, paired by context.
        log_loss_gain: How much smaller a log-loss they have.
        log_loss_gain_low, log_loss_gain_high: Its interval.
        n_contexts, n_decisions: With these weights, reported weights and decisions.
    """

    share: float
    share_low: float
    share_high: float
    log_loss: float
    scale: float
    gain: float
    gain_low: float
    gain_high: float
    log_loss_gain: float
    log_loss_gain_low: float
    log_loss_gain_high: float
    n_contexts: int
    n_decisions: int


def cross_fitted(chose_a: ArrayLike, difference: ArrayLike, *, seed: int = 0) -> Array:
    """Learned weights for pairs at even and at odd places, each from the other pairs; (2, contexts, attributes).

    `chose_a`, shape (contexts, pairs), and `difference` are as `logistic_posterior` takes them.
    """
    y, x = np.asarray(chose_a, dtype=float), np.asarray(difference, dtype=float)
    return np.stack([weights_of_some(y[:, 1 - half :: 2], x[:, 1 - half :: 2], seed) for half in (0, 1)])


def margins(weights: ArrayLike, difference: ArrayLike) -> Array:
    """Margins of the pairs, shape (..., contexts, pairs), by weights (..., contexts, attributes)."""
    w, x = np.asarray(weights, dtype=float), np.asarray(difference, dtype=float)
    return np.asarray((x @ w[..., None])[..., 0])


def cross_fitted_margins(weights: Array, difference: Array) -> Array:
    """Margins of the pairs by the weights of `cross_fitted`, shape (contexts, pairs)."""
    even, odd = margins(weights, difference)
    return np.where(np.arange(even.shape[1]) % 2 == 0, even, odd)


def other_contexts(reports: ArrayLike) -> Array:
    """For each context the reports of some others, shape (`SHIFTS` or fewer, contexts, attributes).

    Contexts without reports neither give nor get any.
    """
    x = np.asarray(reports, dtype=float)
    rows = np.flatnonzero(~np.isnan(x).any(axis=1))
    shifts = np.unique(np.linspace(1, len(rows) - 1, min(SHIFTS, max(len(rows) - 1, 0))).round().astype(int))
    found = np.full((max(len(shifts), 1), *x.shape), np.nan)
    for place, shift in enumerate(shifts):
        found[place, rows] = x[np.roll(rows, shift)]
    return found


def predict(
    decisions: FreshDecisions, reports: ArrayLike, others: Mapping[str, ArrayLike], *, seed: int
) -> dict[str, Predicted]:
    """How well reported weights predict decisions, and how well others do.

    Args:
        decisions: The decisions.
        reports: Mean reports, shape (contexts, attributes), NaN where there are none.
        others: Other kinds of weights by name: shape (contexts, attributes), or those of `cross_fitted`.
        seed: Of the bootstrap.

    Returns:
        By kind: `reported`, then `others`, then `another_context` (see `other_contexts`) and `constant` (see
        `constant.leave_out_mean`).
    """
    x = decisions.difference
    kinds = {REPORTED: margins(reports, x)[None]}
    for name, given in others.items():
        weights = np.asarray(given, dtype=float)
        kinds[name] = (margins(weights, x) if weights.ndim == 2 else cross_fitted_margins(weights, x))[None]
    kinds["another_context"] = margins(other_contexts(reports), x)
    kinds["constant"] = margins(leave_out_mean(reports), x)[None]
    asked = (decisions.made > 0).any(axis=1)
    known = {name: np.asarray(asked & ~np.isnan(found).any(axis=(0, 2))) for name, found in kinds.items()}
    reported = _score(kinds[REPORTED], decisions, known[REPORTED])
    made = decisions.made.sum(axis=1)
    found = {}
    for name, given in kinds.items():
        kept = known[name] & known[REPORTED]
        score = reported if name == REPORTED else _score(given, decisions, kept)
        found[name] = _predicted(score, None if name == REPORTED else reported, np.where(kept, made, 0.0), seed)
    return found


@dataclass(frozen=True)
class _Score:
    """Decisions predicted right and sum of -log P of each context, shape (contexts,), and the scale."""

    right: Array
    loss: Array
    scale: float


def _score(margin: Array, decisions: FreshDecisions, kept: NDArray[np.bool_]) -> _Score:
    """Score margins (sets, contexts, pairs), mean over the sets; contexts other than `kept` count for nothing."""
    rows = np.flatnonzero(kept)
    right, loss, scales = np.zeros(len(kept)), np.zeros(len(kept)), []
    m, made, first = margin[:, rows] / LARGEST, decisions.made[rows], decisions.first[rows]
    hits = np.where(m > 0, first, made - first)
    right[rows] = np.where(m == 0, made / 2, hits).sum(axis=2).mean(axis=0)
    even = np.arange(len(rows)) % 2 == 0
    for half, other in ((even, ~even), (~even, even)):
        if not other.any():
            loss[rows[half]], scales = math.nan, [math.nan]
            continue
        scale = _scale(m[:, other], made[other], first[other])
        steep = scale * m[:, half]
        # -log P of a decision for the first option, and for the second
        of_pair = first[half] * np.logaddexp(0, -steep) + (made - first)[half] * np.logaddexp(0, steep)
        loss[rows[half]] = of_pair.sum(axis=2).mean(axis=0)
        scales.append(scale)
    return _Score(right, loss, float(np.mean(scales)))


def _scale(margin: Array, made: Array, first: Array) -> float:
    """The scale between 0 and `LARGEST_SCALE` of the least log-loss, which is convex in it."""

    def slope(scale: float) -> float:
        return float((margin * (made * expit(scale * margin) - first)).sum())

    if slope(0.0) >= 0:
        return 0.0
    if slope(LARGEST_SCALE) <= 0:
        return LARGEST_SCALE
    return float(brentq(slope, 0.0, LARGEST_SCALE, xtol=1e-3))


def _predicted(score: _Score, reported: _Score | None, made: Array, seed: int) -> Predicted:
    """The figures of one kind; `made` are the decisions that count in each context."""
    counted, total = made > 0, float(made.sum())

    def mean(values: Array) -> tuple[float, float, float]:
        """A sum over decisions as a mean, with its interval from resampling contexts."""
        if not total:
            return math.nan, math.nan, math.nan
        return float(values[counted].sum() / total), *bootstrap_share(values, made, seed=seed)

    nothing = (math.nan, math.nan, math.nan)
    return Predicted(
        *mean(score.right),
        mean(score.loss)[0],
        score.scale,
        *(mean(reported.right - score.right) if reported else nothing),
        *(mean(score.loss - reported.loss) if reported else nothing),
        n_contexts=int(counted.sum()),
        n_decisions=int(total),
    )
