"""Series of states of several runs: their midpoints under one name in all of them, and every state as a row.

A midpoint is a layer. Models of different depths are held together by the share of the depth at which it lies.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from analysis.stats.midpoint import MIDDLE
from analysis.study.ablation import CURVES, OF_DECISIONS, SIDES
from store.curves_summary import SideSummary, StateSummary
from store.inside_summary import EndsSummary
from store.summary import RunSummary

MIDPOINTS = tuple(f"midpoint_of_{curve}" for curve in CURVES)
"""Layers at which curves are half-way."""

LAGS = tuple(f"{curve}_behind_reports" for curve in OF_DECISIONS)
"""How many layers a midpoint lies behind that of reports."""

IN_LAYERS = (*MIDPOINTS, *LAGS)
"""Figures that are held together only over models with the same number of layers."""

AS_SHARE = "_as_share_of_depth"
"""Ends the names of the same figures as shares: 0 is before the first layer, 1 behind the last."""

ON_THEIR_OWN_SCALE = {*IN_LAYERS, *(f"{kind}{AS_SHARE}" for kind in IN_LAYERS)}
"""All of these are pooled as they are."""

SHARES = ("agreement", "readable", "letter_mass", "undecided")
"""Shares of a state; the first has an interval."""

CORRELATIONS = ("learned_vs_target", "reported_vs_learned", "reported_vs_target", "base_vs_learned")
"""Correlations of a state."""

BEFORE = "before any training"
"""What the state is called that no training has touched."""


class SeriesFigure(NamedTuple):
    """A figure of one run: of which arm and side, what it is, the contexts behind it, and why there is none."""

    name: str
    kind: str
    found: EndsSummary
    n_contexts: int
    reason: str | None


def series_figures(told: RunSummary) -> Iterator[SeriesFigure]:
    """The midpoints of a run and how far they are apart, in layers and as shares of the depth where it is known.

    One that is not defined is there, with its reason.
    """
    for ablation in told.ablations.values():
        for side in (side for side in SIDES if side in ablation.sides):
            name = f"{ablation.arm} on {ablation.contexts}, layers {side}"
            for found in _of_side(name, ablation.sides[side]):
                yield found
                if ablation.layers:
                    shift = MIDDLE if found.kind in MIDPOINTS else 0.0
                    share = _as_share(found.found, shift, ablation.layers)
                    yield found._replace(kind=f"{found.kind}{AS_SHARE}", found=share)


def _of_side(name: str, side: SideSummary) -> Iterator[SeriesFigure]:
    for curve, midpoint in side.midpoints.items():
        ends = EndsSummary(estimate=midpoint.layer, low=midpoint.low, high=midpoint.high)
        yield SeriesFigure(name, f"midpoint_of_{curve}", ends, midpoint.n_contexts, midpoint.reason)
    for curve, lag in side.behind_reports.items():
        ends = EndsSummary(estimate=lag.layers, low=lag.low, high=lag.high)
        contexts = min(side.midpoints[of].n_contexts for of in (curve, "reports"))
        yield SeriesFigure(name, f"{curve}_behind_reports", ends, contexts, lag.reason)


def _as_share(found: EndsSummary, shift: float, layers: int) -> EndsSummary:
    values = (found.estimate, found.low, found.high)
    shares = [None if value is None else (value + shift) / layers for value in values]
    return EndsSummary(estimate=shares[0], low=shares[1], high=shares[2])


class Placed(NamedTuple):
    """A state and where it stands in a series.

    Attributes:
        series: `trajectory`, `ablation` or `depth`.
        name: The training, the arm whose adapter is cut, or what the trainings taught.
        side: The layers that are kept, or that a training may change; None where there are no sides.
        place: The step, the cut, or the number of layers; None for a state at none of them.
        words: The state in words.
    """

    series: str
    name: str
    contexts: str
    side: str | None
    place: int | None
    words: str
    told: StateSummary


def placed_states(told: RunSummary) -> Iterator[Placed]:
    """Every state of every series of a run."""
    for name, trajectory in told.trajectories.items():
        at = "trajectory", _whose(name), trajectory.contexts, None
        if trajectory.off_the_shelf:
            yield Placed(*at, None, BEFORE, trajectory.off_the_shelf)
        for step in trajectory.points:
            yield Placed(*at, step.step, f"step {step.step}", step)
    for ablation in told.ablations.values():
        for side, found in ablation.sides.items():
            for cut in found.points:
                words = f"layers {side} {cut.cut}"
                yield Placed("ablation", ablation.arm, ablation.contexts, side, cut.cut, words, cut)
    for name, depth in told.depths.items():
        of = "depth", _whose(name), depth.contexts
        if depth.off_the_shelf:
            yield Placed(*of, None, None, BEFORE, depth.off_the_shelf)
        for point in depth.points:
            yield Placed(*of, point.side, point.k, f"layers {point.layers}", point)
        for state in depth.whole.values():
            yield Placed(*of, None, None, "all layers", state)


def _whose(name: str) -> str:
    """The name of a series without its group of contexts."""
    return name.rpartition("/")[0]


def state_rows(told: RunSummary) -> Iterator[dict[str, Any]]:
    """Every figure of every state of a run: a row each, with its interval, or the reason why it is missing."""
    for placed in placed_states(told):
        at = {**placed._asdict(), "arms": " ".join(placed.told.arms)}
        state = at.pop("told")
        at["state"] = at.pop("words")
        for name in CORRELATIONS:
            found = getattr(state, name)
            ends = {"estimate": found.r, "low": found.low, "high": found.high, "n_contexts": found.n_contexts}
            yield {**at, "figure": name, **ends, "testable": found.testable, "reason": found.reason}
        for name in SHARES:
            yield {**at, "figure": name, **_share(state, name)}


def _share(state: StateSummary, name: str) -> Mapping[str, Any]:
    value = getattr(state, name)
    ends = {end: getattr(state, f"{name}_{end}", None) for end in ("low", "high")}
    return {"estimate": value, **ends, "n_contexts": None, "testable": value is not None, "reason": None}
