"""The picture of how every arm decides."""

from __future__ import annotations

import math
import textwrap

from matplotlib.axes import Axes

from analysis.pages.drawing import (
    COLOURS,
    FAINT,
    GREY,
    INK,
    WARNING,
    ZONE,
    Drawn,
    new_canvas,
    place_axes,
    write_above,
    write_beside,
)
from analysis.pages.text import number, percent, plain
from analysis.study.results import RunResults
from task.thresholds import COLLAPSED, FLIPS, GATE_AGREEMENT, READABLE_DECISIONS

Zones = list[tuple[float, float]]
"""Figures between these ends say that the arm does not decide by the options."""


def draw_decisions(results: RunResults) -> Drawn:
    """How every arm decides on every group of contexts; figures in the shaded zones speak against it."""
    rows = results.planned_decisions
    left, side, step, above, row = 51.0, 20.0, 32.0, 8.0, 5.5
    canvas = new_canvas(178, above + row * len(rows) + 7)
    panels: list[tuple[str, str, Zones]] = [
        ("share_a", "share of A", [(-math.inf, 1 - COLLAPSED), (COLLAPSED, math.inf)]),
        ("flips", "flips with order", [(FLIPS, math.inf)]),
        ("readable", "decisions made", [(-math.inf, READABLE_DECISIONS)]),
        ("agreement", "follows targets", []),
    ]
    for i, (measure, title, zones) in enumerate(panels):
        axes = place_axes(canvas, left + i * step, above, side, row * len(rows))
        axes.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xticks=[0, 0.5, 1], xticklabels=["0", ".5", "1"], yticks=[])
        write_above(axes, [title], [])
        axes.spines["left"].set_visible(False)
        axes.hlines(range(len(rows)), 0, 1, color=FAINT, lw=0.5, zorder=1)
        if i == 0:
            for label, offset in (("arm", 2), ("contexts", 32)):
                write_above(axes, [label], [], offset - left)
        for low, high in zones:
            axes.axvspan(max(low, 0), min(high, 1), color=ZONE, lw=0, zorder=0)
        if measure == "agreement":
            axes.axvline(GATE_AGREEMENT, color=GREY, lw=0.8, ls=(0, (2, 1)), zorder=1)
        for place, ((arm, group), summary) in enumerate(rows):
            if i == 0:
                write_beside(axes, place, 2 - left, "\n".join(textwrap.wrap(plain(arm), 22)))
                write_beside(axes, place, 32 - left, plain(group))
            _dot(axes, place, getattr(summary, measure), zones, side)
    caption = (
        "Both orders of every pair. Share of A: of the decisions; each letter is right half of the time. Flips: pairs "
        "whose choice changes when the options change place. Decisions made: trials in which a letter is the likeliest "
        "of all tokens. Follows targets: share of decisions that the target weights ask for (dashed: the gate's "
        f"{percent(GATE_AGREEMENT)}; a dash where there are no targets). Shaded, with diamonds: one letter nearly "
        f"throughout, more than {percent(FLIPS)} flips, fewer than {percent(READABLE_DECISIONS)} decisions."
    )
    return canvas, "How each arm decides", caption


def _dot(axes: Axes, place: int, value: float, zones: Zones, side: float) -> None:
    text = "<.01" if 0 < value < 0.005 else number(value)
    collapsed = any(low < value < high for low, high in zones)
    write_beside(axes, place, side + 2, text, color=WARNING if collapsed else INK)
    if not math.isnan(value):
        marker, colour = ("D", WARNING) if collapsed else ("o", COLOURS[0])
        axes.plot(value, place, marker, color=colour, ms=4, clip_on=False, zorder=3)
