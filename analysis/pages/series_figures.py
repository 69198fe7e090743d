"""The pictures of series of states: a training step by step, a cut adapter, trainings in some layers only."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from analysis.pages.drawing import COLOURS, FAINT, GREY, INK, Drawn, new_canvas, place_axes, write_above
from analysis.pages.text import as_number, plain
from store.curves_summary import (
    AblationSummary,
    CorrelationSummary,
    Curve,
    DepthSummary,
    SideSummary,
    StateSummary,
    TrajectorySummary,
)


class Kind(NamedTuple):
    """A figure that is followed along a series: its name in a state, words, and how it is drawn."""

    name: str
    words: str
    colour: str
    line: str | tuple[int, tuple[int, ...]] = "-"


CORRELATIONS = (
    Kind("learned_vs_target", "learned, target", COLOURS[0]),
    Kind("reported_vs_learned", "reported, learned", COLOURS[1]),
    Kind("reported_vs_target", "reported, target", COLOURS[2]),
    Kind("base_vs_learned", "off-the-shelf reports, learned", GREY, (0, (4, 2))),
)
"""Correlations of a state, in the order in which they are drawn."""

SHARES = (
    Kind("agreement", "decisions that follow targets", COLOURS[0]),
    Kind("readable", "readable reports", COLOURS[4]),
    Kind("letter_mass", "P(A) + P(B)", COLOURS[5], (0, (4, 2))),
    Kind("undecided", "no decision", COLOURS[3], ":"),
)
"""Shares of a state, likewise."""

OF_CURVE: dict[Curve, Kind] = {
    "decisions": CORRELATIONS[0],
    "reports": CORRELATIONS[2],
    "faithfulness": CORRELATIONS[1],
    "agreement": SHARES[0],
}
"""The figure behind each curve of an ablation."""

EVERY_STATE = "Every state that was measured is shown; none was chosen by its outcome. "

READ = (
    "Bands: 95% intervals, contexts resampled. A cross at the foot: no such figure, since the arm did not decide or "
    "gave no readable report; the table says why. "
)


def draw_trajectories(found: Mapping[str, TrajectorySummary]) -> Drawn:
    """A row a training: correlations by step, and shares."""
    canvas, panels = _grid(len(found), height=38.0)
    for (correlations, shares), (name, told) in zip(panels, found.items(), strict=True):
        steps = [point.step for point in told.points]
        _correlations(correlations, steps, told.points, CORRELATIONS)
        _levels(correlations, told.off_the_shelf, CORRELATIONS[:3])
        _shares(shares, steps, told.points)
        facts = f"{told.n_contexts} {plain(told.contexts)} contexts, {len(steps)} states"
        _finish(correlations, shares, name, [facts], "step of the training", steps)
    caption = (
        "Left: correlations of the weights that decisions show (learned), that were taught (target), and that reports "
        "say (reported), by step. Step 0 is the arm that the training started from. "
        f"{READ}Dotted: the model before any training. Right: shares. {EVERY_STATE}"
    )
    return _with_legend(canvas, (*CORRELATIONS, *SHARES)), "A training, step by step", caption.strip()


def draw_ablations(found: Mapping[str, AblationSummary]) -> Drawn:
    """A row an adapter and side: correlations by cut with midpoints, and shares."""
    rows = [(name, told, side) for name, told in found.items() for side in told.sides]
    canvas, panels = _grid(len(rows), height=40.0, above=17.0)
    for (correlations, shares), (name, told, side) in zip(panels, rows, strict=True):
        points = told.sides[side].points
        cuts = [point.cut for point in points]
        _correlations(correlations, cuts, points, CORRELATIONS[:3])
        _shares(shares, cuts, points)
        _midpoints(correlations, shares, told.sides[side])
        half = "layers below the cut kept" if side == "below" else "layers from the cut on kept"
        facts = f"{half}; {told.n_contexts} {plain(told.contexts)} contexts"
        _finish(correlations, shares, name, [facts, "", ""], "cut before layer", cuts)
    caption = (
        "The adapter is cut before each layer, and one side of it is removed. Left: correlations; right: shares. The "
        "marks above show where a curve is half-way between its ends, with the 95% interval (layer l lies between cuts "
        f"l and l + 1); a curve without a mark has no midpoint, the table says why. {READ}{EVERY_STATE}"
    )
    return _with_legend(canvas, (*CORRELATIONS[:3], *SHARES)), "Where the adapter keeps what it does", caption.strip()


def draw_depths(found: Mapping[str, DepthSummary]) -> Drawn:
    """A row a series: decision performance and faithfulness by the number of layers that a training may change."""
    canvas, panels = _grid(len(found), height=38.0)
    for axes, (name, told) in zip(panels, found.items(), strict=True):
        many = sorted({point.k for point in told.points if point.k is not None})
        for panel, kind in zip(axes, CORRELATIONS[:2], strict=True):
            for foot, (side, colour) in enumerate(OF_SIDE.items()):
                points = sorted((p for p in told.points if p.side == side), key=lambda p: p.k or 0)
                draw_curve(panel, [p.k or 0 for p in points], correlations_of(points, kind.name), colour, foot=foot)
            _levels(panel, told.off_the_shelf, [kind._replace(colour=INK)])
            for whole in told.whole.values():
                level(panel, getattr(whole, kind.name), INK, "-")
            panel.set_ylabel(f"r({kind.words})", labelpad=1)
            frame(panel, many, "layers that the training may change")
        facts = f"{told.n_contexts} {plain(told.contexts)} contexts, {len(told.points)} trainings"
        write_above(axes[0], textwrap.wrap(plain(name.partition("/")[0]), 70), [facts])
    handles = [Line2D([], [], color=colour, marker="o", ms=3) for colour in OF_SIDE.values()]
    handles += [Line2D([], [], color=INK), Line2D([], [], color=INK, ls=":")]
    words = ["the first k layers", "the last k layers (control)", "all layers", "before any training"]
    canvas.legend(handles, words, loc="lower left", ncols=4, columnspacing=1.2, handlelength=2.2)
    caption = (
        "The same training, allowed to change some layers only. Left: decision performance. Right: faithfulness. "
        f"{READ}{EVERY_STATE}"
    )
    return canvas, "How deep a training must reach", caption.strip()


OF_SIDE = {"first": COLOURS[0], "last": COLOURS[1]}
"""Colours of the trainings in the first and in the last layers."""


def correlations_of(points: Iterable[StateSummary], name: str) -> list[CorrelationSummary]:
    """One correlation of each state."""
    return [getattr(point, name) for point in points]


def draw_curve(
    axes: Axes,
    places: Sequence[float],
    found: Sequence[CorrelationSummary],
    colour: str,
    line: Any = "-",
    foot: float = 0,
    marker: str = "o",
    band: bool = True,
) -> None:
    """A line through the correlations that there are, with their intervals; at the foot a cross for each that is not.

    `foot` is the row of the crosses, so that those of several curves do not cover one another. Without `band` intervals
    are bars alone.
    """
    r, low, high = (np.array([as_number(getattr(c, end)) for c in found]) for end in ("r", "low", "high"))
    axes.plot(places, r, ls=line, marker=marker, ms=2.5, color=colour, lw=1.1, zorder=3)
    if band:
        axes.fill_between(places, low, high, color=colour, alpha=0.13, lw=0, zorder=1)
    axes.vlines(places, low, high, color=colour, lw=0.8, alpha=0.5, zorder=2)
    missing = [place for place, c in zip(places, found, strict=True) if not c.testable]
    transform = axes.get_xaxis_transform()
    axes.plot(
        missing,
        [0.03 + 0.035 * foot] * len(missing),
        "x",
        color=colour,
        ms=3,
        transform=transform,
        clip_on=False,
        zorder=4,
    )


def level(axes: Axes, found: CorrelationSummary, colour: str, line: str = ":") -> None:
    """A horizontal line at a correlation, where there is one."""
    if found.testable:
        axes.axhline(as_number(found.r), color=colour, ls=line, lw=0.8, zorder=2)


def _grid(rows: int, height: float, above: float = 12.0) -> tuple[Canvas, list[list[Axes]]]:
    """A canvas with rows of two panels, and room for a legend below."""
    left, side, gap, below = 12.0, 68.0, 14.0, 11.0
    canvas = new_canvas(left + 2 * side + gap + 4, rows * (above + height + below) + 10)
    panels = []
    for row in range(rows):
        top = row * (above + height + below) + above
        panels.append([place_axes(canvas, left + c * (side + gap), top, side, height) for c in range(2)])
    return canvas, panels


def _correlations(axes: Axes, places: Sequence[float], points: Sequence[StateSummary], kinds: Sequence[Kind]) -> None:
    for foot, kind in enumerate(kinds):
        draw_curve(axes, places, correlations_of(points, kind.name), kind.colour, kind.line, foot)


def _levels(axes: Axes, base: StateSummary | None, kinds: Iterable[Kind]) -> None:
    for kind in kinds if base else ():
        level(axes, getattr(base, kind.name), kind.colour)


def _shares(axes: Axes, places: Sequence[float], points: Sequence[StateSummary]) -> None:
    for kind in SHARES:
        values = [as_number(getattr(point, kind.name)) for point in points]
        axes.plot(places, values, ls=kind.line, marker="o", ms=2, color=kind.colour, lw=1.1)
    low, high = ([as_number(getattr(point, f"agreement_{end}")) for point in points] for end in ("low", "high"))
    axes.fill_between(places, low, high, color=SHARES[0].colour, alpha=0.13, lw=0)
    axes.axhline(0.5, color=FAINT, lw=0.8, zorder=0)
    axes.set_ylabel("share", labelpad=1)


def _midpoints(correlations: Axes, shares: Axes, side: SideSummary) -> None:
    """A bar above the axes for each curve that has a midpoint."""
    for place, (curve, kind) in enumerate(OF_CURVE.items()):
        found, axes = side.midpoints[curve], shares if curve == "agreement" else correlations
        if found.testable:
            height = 1.03 if curve == "agreement" else 1.03 + 0.035 * place
            # A layer lies half a cut behind the cut before it.
            middle, low, high = (as_number(v) + 0.5 for v in (found.layer, found.low, found.high))
            style: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False, "color": kind.colour}
            axes.plot([low, high], [height] * 2, lw=1.6, alpha=0.6, solid_capstyle="butt", **style)
            axes.plot([middle], [height], "v", ms=3.5, **style)


def _finish(
    correlations: Axes, shares: Axes, title: str, facts: list[str], along: str, places: Sequence[float]
) -> None:
    correlations.set_ylabel("r", labelpad=1)
    frame(correlations, places, along)
    frame(shares, places, along)
    shares.set_ylim(-0.03, 1.03)
    write_above(correlations, [plain(title.partition("/")[0])], facts)


def frame(axes: Axes, places: Sequence[float], along: str) -> None:
    """What is along, and axes from -1, or from just below 0 where nothing is lower, to 1."""
    segments = [s for c in axes.collections if isinstance(c, LineCollection) for s in c.get_segments()]
    bars = [np.reshape(segment, (-1, 2))[:, 1] for segment in segments]  # one without ends is empty
    drawn = np.concatenate([np.empty(0), *bars, *(np.asarray(line.get_ydata(), float) for line in axes.get_lines())])
    lowest = min(-0.1, drawn[np.isfinite(drawn)].min(initial=0.0))
    axes.set_ylim(max(np.floor(4 * lowest) / 4, -1.0) - 0.03, 1.03)
    axes.axhline(0, color=GREY, lw=0.6, zorder=0)
    if places:
        room = 0.03 * (max(places) - min(places)) or 1.0
        axes.set_xlim(min(places) - room, max(places) + room)
    axes.locator_params(axis="x", integer=True, nbins=7)
    axes.set_xlabel(along, labelpad=1)


def _with_legend(canvas: Canvas, kinds: Sequence[Kind]) -> Canvas:
    handles = [Line2D([], [], color=kind.colour, ls=kind.line, marker="o", ms=2.5) for kind in dict.fromkeys(kinds)]
    words = [f"r({kind.words})" if kind in CORRELATIONS else kind.words for kind in dict.fromkeys(kinds)]
    canvas.legend(handles, words, loc="lower left", ncols=4, columnspacing=1.2, handlelength=2.4)
    return canvas
