"""Where a curve along the layers is half-way between its ends.

An adapter is cut at several layers, and each state has a value: a curve over cuts, with straight lines between them.
Layer l lies between cut l and cut l + 1, so a crossing at cut c is at layer c - 1/2: what layer 3 holds alone makes the
curve jump between cuts 3 and 4, and its midpoint is layer 3.

Rules. The ends are the outermost cuts whose state has a value; a value that is missing in between is skipped. The
midpoint is where the curve crosses the mean of its two ends. There is none where the ends do not differ (the 95%
interval of their difference, contexts resampled, holds 0), and none where the curve crosses several times; then the
crossings are given. The interval is made of the same resampled contexts at all cuts. A resample that crosses several
times counts with its first crossing for the lower end and with its last for the upper, so that the interval is rather
too wide; one whose ends do not differ, or differ the other way, is left out, which at most a few in a hundred are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.stats.agreement import percentile_interval
from analysis.stats.records import Record

Array = NDArray[np.float64]

MIDDLE = 0.5
"""How far the middle of a layer lies behind the cut before it."""


@dataclass(frozen=True)
class Midpoint(Record):
    """The layer at which a curve is half-way; NaN, with a reason, where it is not defined.

    Attributes:
        layer: Counted from 0.
        low, high: 95% interval, contexts resampled.
        start, end: The curve's values at its ends.
        first_cut, last_cut: The ends.
        crossings: Layers at which it crosses the mean of both.
        n_contexts: The fewest behind any value.
        reason: Why there is no midpoint; None where there is one.
    """

    layer: float
    low: float
    high: float
    start: float
    end: float
    first_cut: int | None
    last_cut: int | None
    crossings: list[float]
    n_contexts: int
    reason: str | None = None


@dataclass(frozen=True)
class Curve:
    """A curve over cuts, and the same curve in each bootstrap resample; cuts without a value are left out.

    Attributes:
        cuts: Ascending.
        values: At each cut, shape (cuts,).
        resampled: Shape (resamples, cuts), the same contexts in one row of all curves.
        n_contexts: The fewest behind any value.
    """

    cuts: list[int]
    values: Array
    resampled: Array
    n_contexts: int

    @cached_property
    def outer(self) -> tuple[Array, Array]:
        """The first and the last crossing of each resample; NaN where its ends do not differ as the curve's do."""
        if len(self.cuts) < 2:
            return np.full(len(self.resampled), np.nan), np.full(len(self.resampled), np.nan)
        return _outer_crossings(self.cuts, self.resampled, falls=bool(self.values[-1] < self.values[0]))

    def midpoint(self) -> Midpoint:
        """Where the curve is half-way between its ends, by the rules above."""
        if len(self.cuts) < 2:
            return _none(self, [], "fewer than two cuts have a value")
        ends = percentile_interval(self.resampled[:, -1] - self.resampled[:, 0], self.n_contexts)
        if not (ends[0] > 0 or ends[1] < 0):
            return _none(self, [], f"its ends, cuts {self.cuts[0]} and {self.cuts[-1]}, do not differ")
        found = crossings(self.cuts, self.values)
        if len(found) > 1:
            return _none(self, found, f"it is half-way at {len(found)} places")
        low, _ = percentile_interval(self.outer[0], self.n_contexts)
        _, high = percentile_interval(self.outer[1], self.n_contexts)
        return Midpoint(found[0], low, high, *_ends(self), found, self.n_contexts)


def crossings(cuts: Sequence[int], values: ArrayLike) -> list[float]:
    """The layers at which a curve passes the mean of its ends, in order; none where the ends are the same."""
    v, c = np.asarray(values, dtype=float), np.asarray(cuts, dtype=float)
    above = _towards_the_end(v[None], falls=bool(v[-1] < v[0]))[0]
    steps = np.flatnonzero((above[:-1] < 0) != (above[1:] < 0)) if v[0] != v[-1] else np.empty(0, dtype=int)
    return [float(_place(c, above, step)) for step in steps]


def lag(one: Curve, other: Curve) -> tuple[float, float, float]:
    """Midpoint of one curve less that of another and its interval; NaN where one of them has none."""
    layers = one.midpoint().layer - other.midpoint().layer
    if math.isnan(layers):
        return math.nan, math.nan, math.nan
    contexts = min(one.n_contexts, other.n_contexts)
    low, _ = percentile_interval(one.outer[0] - other.outer[1], contexts)
    _, high = percentile_interval(one.outer[1] - other.outer[0], contexts)
    return layers, low, high


def _none(curve: Curve, found: list[float], reason: str) -> Midpoint:
    return Midpoint(math.nan, math.nan, math.nan, *_ends(curve), found, curve.n_contexts, reason)


def _ends(curve: Curve) -> tuple[float, float, int | None, int | None]:
    if not curve.cuts:
        return math.nan, math.nan, None, None
    return float(curve.values[0]), float(curve.values[-1]), curve.cuts[0], curve.cuts[-1]


def _towards_the_end(values: Array, falls: bool) -> Array:
    """Values less the mean of both ends, turned so that a curve begins below 0 and ends above; (curves, cuts)."""
    half = (values[:, :1] + values[:, -1:]) / 2
    return half - values if falls else values - half


def _place(cuts: Array, above: Array, step: int | np.int64) -> float:
    """The layer of the crossing between a cut and the next."""
    before, after = above[step], above[step + 1]
    return float(cuts[step] + (cuts[step + 1] - cuts[step]) * before / (before - after)) - MIDDLE


def _outer_crossings(cuts: Sequence[int], resampled: Array, falls: bool) -> tuple[Array, Array]:
    """The first and the last crossing of each resample, shape (resamples,)."""
    first, last = np.full((2, len(resampled)), np.nan)
    above, c = _towards_the_end(resampled, falls), np.asarray(cuts, dtype=float)
    kept = np.flatnonzero((above[:, 0] < 0) & ~np.isnan(above).any(axis=1))
    passed = (above[kept, :-1] < 0) != (above[kept, 1:] < 0)
    for found, steps in ((first, passed.argmax(axis=1)), (last, passed.shape[1] - 1 - passed[:, ::-1].argmax(axis=1))):
        before, after = above[kept, steps], above[kept, steps + 1]
        found[kept] = c[steps] + (c[steps + 1] - c[steps]) * before / (before - after) - MIDDLE
    return first, last
