"""Patching: how much of what an adapter changes is there with its k most important matrices alone.

    recovery(k) = 1 - KL(full || top k) / KL(full || backbone)

is 0 with none of the matrices and 1 with all. Contexts in which the adapter changes hardly anything have a KL(full ||
backbone) close to 0, and a ratio of their own would be wild. So sums over contexts are taken first, then the ratio of
them: a context counts by how much the adapter changes in it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.stats.agreement import RESAMPLES, percentile_interval, resampled_counts
from analysis.stats.records import Record
from analysis.stats.similarity import FEWEST

HALF = 0.5
"""The recovery at which numbers of matrices are compared."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """KL by number of matrices that are kept.

    Attributes:
        k: Numbers of matrices, ascending, shape (sizes,).
        kl: KL(full || top k), shape (draws, contexts, sizes); one draw unless the order is random.
        backbone: KL(full || backbone), shape (contexts,).
    """

    k: NDArray[np.int64]
    kl: Array
    backbone: Array

    @property
    def contexts(self) -> int:
        """How many contexts."""
        return len(self.backbone)


@dataclass(frozen=True)
class HalfRecovery(Record):
    """Matrices that half of the change needs, in the order of importance; NaN where it is not reached.

    Attributes:
        k: Interpolated on a logarithmic scale; 1 where the first matrix is enough.
        low, high: Its 95% interval from resampling contexts; NaN for an end that is not reached.
        times_fewer: How many times more matrices a random order needs; below 1 where it needs fewer.
        times_low, times_high: Its interval.
    """

    k: float
    low: float
    high: float
    times_fewer: float
    times_low: float
    times_high: float


def recovery(curve: Curve) -> Array:
    """Recovery at each k, draws averaged, shape (sizes,); NaN where the adapter changes nothing."""
    return _recovery(curve, np.ones((1, curve.contexts)))[0]


def recovery_of_draws(curve: Curve) -> Array:
    """Recovery of each draw, shape (draws, sizes)."""
    return np.array([recovery(Curve(curve.k, one[None], curve.backbone)) for one in curve.kl])


def recovery_interval(curve: Curve, *, seed: int) -> tuple[Array, Array]:
    """95% interval of `recovery` at each k from resampling contexts, low and high ends (sizes,)."""
    if curve.contexts < FEWEST:
        nothing = np.full(len(curve.k), np.nan)
        return nothing, nothing
    found = _recovery(curve, resampled_counts(curve.contexts, seed, RESAMPLES))
    ends = np.array([percentile_interval(values, curve.contexts) for values in found.T])
    return ends[:, 0], ends[:, 1]


def matrices_to(values: ArrayLike, k: ArrayLike, target: float = HALF) -> Array:
    """The k at which recovery first reaches a target, interpolated in log2 k.

    Args:
        values: Recovery at each k, shape (..., sizes).
        k: Numbers of matrices, ascending, shape (sizes,).
        target: The recovery that is asked for.

    Returns:
        Shape (...): the first k where it is reached there; infinite where it never is; NaN where recovery is.
    """
    found, steps = np.asarray(values, dtype=float), np.log2(np.asarray(k, dtype=float))
    there = found >= target
    last = there.argmax(axis=-1)
    before = np.maximum(last - 1, 0)
    y0, y1 = (np.take_along_axis(found, at[..., None], axis=-1)[..., 0] for at in (before, last))
    with np.errstate(invalid="ignore", divide="ignore"):
        part = np.where(last > 0, (target - y0) / (y1 - y0), 0.0)
    reached = 2 ** (steps[before] + part * (steps[last] - steps[before]))
    reached = np.where(there.any(axis=-1), reached, np.inf)
    return np.where(np.isnan(found).any(axis=-1), np.nan, reached)


def half_recovery(ranked: Curve, random: Curve | None, *, seed: int) -> HalfRecovery:
    """Matrices to half recovery, beside a random order of the same matrices on the same contexts if there is one."""
    once, counts = np.ones((1, ranked.contexts)), resampled_counts(ranked.contexts, seed, RESAMPLES)
    k, drawn = (_half(ranked, c) for c in (once, counts))
    nothing = np.array([np.nan])
    times, times_drawn = (
        (_half(random, c) / of if random is not None else nothing) for c, of in ((once, k), (counts, drawn))
    )
    return HalfRecovery(
        _finite(k[0]), *_ends(drawn, ranked.contexts), _finite(times[0]), *_ends(times_drawn, ranked.contexts)
    )


def times_fewer(first: Curve, second: Curve, *, seed: int) -> tuple[float, float, float]:
    """How many times more matrices the second arm needs than the first, on the same contexts, with its interval."""
    once, counts = np.ones((1, first.contexts)), resampled_counts(first.contexts, seed, RESAMPLES)
    with np.errstate(invalid="ignore"):
        whole, drawn = (_half(second, c) / _half(first, c) for c in (once, counts))
    return _finite(whole[0]), *_ends(drawn, first.contexts)


def _recovery(curve: Curve, counts: Array) -> Array:
    """Recovery for each row of `counts` (resamples, contexts): how often each context counts; (resamples, sizes)."""
    backbone = counts @ curve.backbone
    return np.asarray(1 - counts @ curve.kl.mean(axis=0) / np.where(backbone > 0, backbone, np.nan)[:, None])


def _half(curve: Curve, counts: Array) -> Array:
    return matrices_to(_recovery(curve, counts), curve.k)


def _ends(values: Array, contexts: int) -> tuple[float, float]:
    """95% interval of figures that may be infinite; NaN for ends that are."""
    if contexts < FEWEST or np.isnan(values).all():
        return math.nan, math.nan
    with np.errstate(invalid="ignore"):
        low, high = percentile_interval(values, contexts)
    return _finite(low), _finite(high)


def _finite(value: float) -> float:
    return float(value) if math.isfinite(value) else math.nan
