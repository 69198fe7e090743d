"""The pictures of comparisons: scatters, and correlations with their intervals."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.pages.drawing import (
    COLOUR_NAMES,
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
from analysis.pages.text import NOT_TESTABLE, listing, number, part_of, plain, why_no_r, with_interval
from analysis.stats.agreement import Agreement
from analysis.study.comparisons import ComparisonResult
from analysis.study.results import Findings
from task.thresholds import GATE_CORRELATION

EDGE = 110.0
"""Where the axes of every scatter panel end; mean reports beyond it are arrows."""


def draw_scatter(findings: Findings) -> Drawn:
    """One panel a comparison, after one of learned against target weights: every attribute of every context."""
    shown = findings.all_comparisons
    titles = [textwrap.wrap(plain(c.name), 22) for c in shown]
    columns = columns_of(len(shown))
    facts = [_facts(c, findings) for c in shown]
    side, gap, left, below = 35.5, 7.0, 12.0, 11.0
    above = [3.8 * len(title) + 3.3 * len(lines) + 2.5 for title, lines in zip(titles, facts, strict=True)]
    tops = np.cumsum([0] + [max(above[i : i + columns]) + side + below for i in range(0, len(shown), columns)])
    canvas = new_canvas(left + columns * side + (columns - 1) * gap + 4, tops[-1])
    for i, comparison in enumerate(shown):
        row, column = divmod(i, columns)
        axes = place_axes(canvas, left + column * (side + gap), tops[row + 1] - below - side, side, side)
        _scatter_panel(axes, comparison, findings)
        write_above(axes, titles[i], facts[i])
        axes.set_ylabel("weight from decisions" if column == 0 else "", labelpad=1)
        axes.tick_params(labelleft=column == 0)
    caption = (
        "Each point is one attribute of one context: across, the mean of the context's readable reports (in the first "
        "panel the target weight); up, the weight that drives the decisions, as estimated from them. Dotted: identity. "
    )
    if findings.gate.passed:
        caption += "Solid: least squares. In brackets: 95% interval of r from resampling contexts. "
    caption += untestable_in_words(findings)
    colours = ", ".join(f"{COLOUR_NAMES[i % len(COLOURS)]} {group}" for i, group in enumerate(findings.groups))
    return canvas, "Weights that drive decisions, against reports", caption + f"Contexts by colour: {colours}."


def untestable_in_words(findings: Findings) -> str:
    """For captions: which comparisons have no meaning, and why; nothing if all have one."""
    if not findings.gate.passed:
        return f"The gate was not passed: reports are {NOT_TESTABLE}, and no correlation with them is given. "
    said = (f"{listing([*map(plain, names)])}: {NOT_TESTABLE}, {why}. " for why, names in findings.withheld.items())
    return "".join(said)


def _scatter_panel(axes: Axes, comparison: ComparisonResult, findings: Findings) -> None:
    testable = findings.testable(comparison)
    points = comparison.points.dropna() if testable else comparison.points[:0]
    x, y = points["x"].to_numpy(dtype=float), points["y"].to_numpy(dtype=float)
    axes.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), xticks=[-100, 0, 100], yticks=[-100, 0, 100], box_aspect=1)
    axes.plot([-100, 100], [-100, 100], color=GREY, lw=0.7, ls=":", zorder=1)
    alpha = float(np.clip(12 / math.sqrt(max(x.size, 1)), 0.25, 0.8))
    look: dict[str, Any] = {
        "color": _colour(findings, comparison.contexts),
        "alpha": alpha,
        "linewidths": 0,
        "zorder": 2,
    }
    beyond = np.abs(x) > EDGE
    axes.scatter(x[~beyond], y[~beyond], s=7, **look)
    for side, marker in ((-1, "<"), (1, ">")):  # an axis widened for a few would not compare with the others
        there = beyond & (np.sign(x) == side)
        axes.scatter(np.full(there.sum(), side * (EDGE - 3)), y[there], marker=marker, s=14, **look)
    if testable and not math.isnan(comparison.agreement.r):
        slope, intercept = np.polyfit(x, y, 1)
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, intercept + slope * ends, color=INK, lw=1, zorder=3)
    if not testable:
        box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": GREY, "linewidth": 0.6}
        axes.text(0.5, 0.5, NOT_TESTABLE, transform=axes.transAxes, ha="center", va="center", fontsize=8, bbox=box)
    arrows = f" ({beyond.sum()} beyond the edge)" if beyond.any() else ""
    check = comparison is findings.learned_vs_target
    axes.set_xlabel("target weight" if check else f"mean report{arrows}", labelpad=1)


def _facts(comparison: ComparisonResult, findings: Findings) -> list[str]:
    """What is printed above a panel."""
    found = comparison.agreement
    if not findings.testable(comparison):
        first = NOT_TESTABLE
    elif math.isnan(found.r):
        first = f"no r: {why_no_r(found)}"
    else:
        first = f"r = {_r(found)}"
    check = comparison is findings.learned_vs_target
    readable = "" if check else f", {part_of(found.valid_reports, found.total_reports)} readable"
    facts = [first, f"{found.n_contexts} contexts ({plain(comparison.contexts)})", f"{found.n_points} points{readable}"]
    plural = "" if comparison.outside == 1 else "s"
    return [*facts, f"{comparison.outside} report{plural} beyond ±100"] if comparison.outside else facts


def _r(found: Agreement) -> str:
    """r with its bootstrap interval, in the minus signs of the axes."""
    return with_interval(found).replace("-", "\N{MINUS SIGN}")


def draw_correlations(findings: Findings) -> Drawn:
    """r of every comparison with both intervals, by group of contexts; first that of learned with target weights."""
    entries: list[str | ComparisonResult] = ["instillation", findings.learned_vs_target]
    for group in dict.fromkeys(c.contexts for c in findings.comparisons):
        entries += [f"{plain(group)} contexts", *(c for c in findings.comparisons if c.contexts == group)]
    labels = {c.name: textwrap.wrap(plain(c.name), 18) for c in findings.all_comparisons}
    above, row, below = 1.0, max(6.4, 2.8 * max(map(len, labels.values())) + 0.8), 19.0
    canvas = new_canvas(90, above + row * len(entries) + below)
    axes = place_axes(canvas, 28, above, 32, row * len(entries))
    shown = [c for c in findings.all_comparisons if findings.testable(c)]
    lows = [low for c in shown for low in (c.agreement.boot_low, c.agreement.hdi_low) if not math.isnan(low)]
    lowest = min([-0.25, *(math.floor(4 * low) / 4 for low in lows)])
    axes.set(xlim=(max(lowest, -1), 1), ylim=(len(entries) - 0.5, -0.5), yticks=[], xlabel="correlation r")
    axes.xaxis.labelpad = 1
    axes.spines["left"].set_visible(False)
    for place, entry in enumerate(entries):
        if isinstance(entry, str):
            write_beside(axes, place + 0.1, -27, entry, fontweight="bold")
        else:
            write_beside(axes, place, -25, "\n".join(labels[entry.name]))
            _correlation_row(axes, place, entry, findings)
    axes.plot([GATE_CORRELATION] * 2, [0.5, 1.5], color=GREY, lw=0.8, ls=(0, (2, 1)), zorder=1)
    thick, thin = Line2D([], [], color=INK, lw=3, alpha=0.55), Line2D([], [], color=INK, lw=0.8)
    canvas.legend([thick, thin], ["95%, contexts resampled", "95%, the paper's"], loc="lower center")
    caption = (
        "Dot: r over all attributes. Thick: 95% interval from resampling contexts. Thin: the paper's interval, which "
        f"treats attributes as independent. Dashed: the gate's threshold, {number(GATE_CORRELATION)}. "
    )
    if untestable := untestable_in_words(findings):
        caption += f"Hollow grey bars: their place says nothing. {untestable}"
    return canvas, "Correlation of reports with the weights that drive decisions", caption.strip()


def _correlation_row(axes: Axes, place: int, comparison: ComparisonResult, findings: Findings) -> None:
    found = comparison.agreement
    if not findings.testable(comparison):
        left, right = axes.get_xlim()
        axes.barh(place, right - left, 0.5, left, facecolor="white", edgecolor=GREY, lw=0.6, zorder=2)
        axes.text((left + right) / 2, place, NOT_TESTABLE, ha="center", va="center", color=GREY, zorder=3)
    elif math.isnan(found.r):
        write_beside(axes, place, 34, why_no_r(found), color=GREY)
    else:
        colour = _colour(findings, comparison.contexts)
        axes.plot([0, 0], [place - 0.5, place + 0.5], color=GREY, lw=0.8, zorder=1)
        axes.plot([found.boot_low, found.boot_high], [place] * 2, color=colour, lw=3, solid_capstyle="butt", alpha=0.55)
        axes.plot([found.hdi_low, found.hdi_high], [place + 0.26] * 2, color=colour, lw=0.8, solid_capstyle="butt")
        axes.plot(found.r, place, "o", color=colour, ms=4, markeredgecolor="white", markeredgewidth=0.5, zorder=4)
        r, ends = _r(found).split(" ", 1)
        write_beside(axes, place, 41, r, ha="right")
        write_beside(axes, place, 42, ends)


def _colour(findings: Findings, group: str) -> str:
    return COLOURS[list(findings.groups).index(group) % len(COLOURS)]
