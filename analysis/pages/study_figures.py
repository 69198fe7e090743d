"""The pictures of a study: each figure by run and pooled, and figures by the size of the model."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.pages.drawing import (
    COLOURS,
    GREY,
    INK,
    Drawn,
    columns_of,
    new_canvas,
    place_axes,
    write_above,
    write_beside,
)
from analysis.pages.text import NOT_TESTABLE, plain, with_ends
from analysis.study.meta import Pooled
from analysis.study.series_study import AS_SHARE
from analysis.study.several import ALL, Estimate, StudyRun, groups_of, pooled_runs

LADDER = ("instilled.r", "introspection_trained.r", "native_after.r")
"""Figures that are drawn by the size of the model."""

Row = tuple[str, Estimate | Pooled | None]
"""A line of a forest plot: its label, and what stands there; a heading has nothing."""


def in_words(figure: str) -> str:
    """A figure's name in words; that it is a share of the depth is said along the axis."""
    comparison, _, kind = figure.removesuffix(AS_SHARE).partition(".")
    return f"{plain(comparison)}: {'r' if kind == 'r' else plain(kind)}" if kind != "difference" else plain(comparison)


def draw_forest(
    runs: Sequence[StudyRun], figures: Sequence[str], title: str, largest: float = 1, along: str = ""
) -> Drawn:
    """Figures one below the other: every run, then the runs of each group together.

    None lies beyond `largest`, up or down; `along` says what is counted.
    """
    rows = [row for figure in figures for row in _rows(runs, figure)]
    height, above, below = 3.9, 1.0, 16.0 if along else 13.0
    canvas = new_canvas(98, above + height * len(rows) + below)
    axes = place_axes(canvas, 36, above, 33, height * len(rows))
    left, right = _limits([found for _, found in rows], largest)
    axes.set(xlim=(left, right), ylim=(len(rows) - 0.5, -0.5), yticks=[], xlabel=along)
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=GREY, lw=0.6, zorder=1)
    for place, (label, found) in enumerate(rows):
        if found is None:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
            write_beside(axes, place + 0.08, -35, label, fontweight="bold", bbox=box)
        else:
            write_beside(axes, place, -33, label)
            _row(axes, place, found)
    one, together = Line2D([], [], marker="o", color=COLOURS[0], ms=3.5, lw=1.6), Line2D([], [], color=INK, lw=3)
    ahead = Line2D([], [], color=INK, lw=0.8)
    names = ["one run, 95%", "runs together, 95%", "a new training, 95%"]
    canvas.legend([one, together, ahead], names, loc="lower center", ncols=3, columnspacing=1.2, handlelength=1.6)
    caption = (
        "Blue: a run and its 95% interval, contexts resampled. Black: the runs of a model together (random effects, "
        "interval of Hartung and Knapp); thin: where a new training is expected. Runs in which a figure is "
        f"{NOT_TESTABLE} take no part. With two or three runs the black interval is wide, since they tell little of "
        "how much trainings differ."
    )
    return canvas, title, caption


def _rows(runs: Sequence[StudyRun], figure: str) -> list[Row]:
    """A heading, the runs that have the figure, and the groups of several such runs."""
    found: list[Row] = [(in_words(figure), None)]
    found += [(_short(run.name), run.figures[figure]) for run in runs if figure in run.figures]
    known = [run.group for run in runs if _has(run, figure)]
    for group, members in groups_of(runs).items():
        if group == ALL and len({*known}) == 1:
            continue  # it says the same of the only group
        together = pooled_runs(figure, members)
        if together.runs > 1:
            found.append((_short(f"together, {group}"), together))
    return found


def _short(label: str) -> str:
    return textwrap.shorten(label.replace("-", "- "), 30, placeholder=" …").replace("- ", "-")


def _limits(found: Sequence[Estimate | Pooled | None], largest: float) -> tuple[float, float]:
    """Ends of the axis, at quarters of `largest`, that hold all intervals; none beyond it, up or down."""
    ends = [end / largest for row in found if row is not None for end in _ends(row) if not math.isnan(end)]
    low, high = min([0.0, *ends]), max([0.25, *ends])
    left, right = max(math.floor(4 * low) / 4, -1.0) - 0.02, min(math.ceil(4 * high) / 4, 1.0) + 0.02
    return left * largest, right * largest


def _ends(found: Estimate | Pooled) -> tuple[float, ...]:
    if isinstance(found, Estimate):
        return (found.low, found.high) if found.testable else ()
    return found.low, found.high


def _row(axes: Axes, place: int, found: Estimate | Pooled) -> None:
    if isinstance(found, Estimate) and not found.testable:
        write_beside(axes, place, 35, NOT_TESTABLE, color=GREY)
        return
    left, right = axes.get_xlim()
    if isinstance(found, Estimate):
        value, colour, width = found.estimate, COLOURS[0], 1.6
    else:
        value, colour, width = found.mean, INK, 3.0
        axes.plot(np.clip([found.predicted_low, found.predicted_high], left, right), [place] * 2, color=INK, lw=0.8)
    axes.plot(
        np.clip([found.low, found.high], left, right),
        [place] * 2,
        color=colour,
        lw=width,
        alpha=0.6,
        solid_capstyle="butt",
    )
    axes.plot(value, place, "o", color=colour, ms=3.5, markeredgecolor="white", markeredgewidth=0.4, zorder=4)
    text = with_ends(value, found.low, found.high).replace("-", "\N{MINUS SIGN}")
    write_beside(axes, place, 35, text, fontweight="bold" if isinstance(found, Pooled) else "normal")


def ladder(runs: Sequence[StudyRun]) -> dict[str, list[tuple[float, Estimate]]]:
    """Figures of `LADDER` by the size of the model, where there are models of several sizes."""
    found = {
        figure: [(run.parameters, run.figures[figure]) for run in runs if run.parameters and _has(run, figure)]
        for figure in LADDER
    }
    return {figure: rungs for figure, rungs in found.items() if len({size for size, _ in rungs}) > 1}


def _has(run: StudyRun, figure: str) -> bool:
    return figure in run.figures and run.figures[figure].testable


def draw_ladder(rungs: Mapping[str, Sequence[tuple[float, Estimate]]]) -> Drawn:
    """A panel a figure: every run at the size of its model."""
    columns = columns_of(len(rungs))
    side, gap, left, above, below = 36.0, 7.0, 12.0, 8.0, 11.0
    rows = math.ceil(len(rungs) / columns)
    canvas = new_canvas(left + columns * side + (columns - 1) * gap + 4, rows * (above + side + below))
    for i, (figure, found) in enumerate(rungs.items()):
        row, column = divmod(i, columns)
        axes = place_axes(canvas, left + column * (side + gap), row * (above + side + below) + above, side, side)
        sizes = sorted({size for size, _ in found})
        axes.set(xscale="log", ylim=(-0.3, 1), xlim=(sizes[0] / 1.6, sizes[-1] * 1.6))
        axes.set_xticks(sizes, [_size(size) for size in sizes])
        axes.set_xticks([], minor=True)
        axes.axhline(0, color=GREY, lw=0.6)
        for size, e in found:
            axes.plot([size, size], [e.low, e.high], color=COLOURS[0], lw=1.6, alpha=0.6, solid_capstyle="butt")
            axes.plot(size, e.estimate, "o", color=COLOURS[0], ms=4, markeredgecolor="white", markeredgewidth=0.4)
        axes.set_xlabel("parameters", labelpad=1)
        write_above(axes, [in_words(figure)], [])
    caption = (
        "Each run at the number of parameters that the model's name tells, with its 95% interval, contexts resampled. "
        "Models of other sizes differ in more than their size."
    )
    return canvas, "By the size of the model", caption


def _size(parameters: float) -> str:
    return f"{parameters / 1e9:g}B" if parameters >= 1e9 else f"{parameters / 1e6:g}M"
