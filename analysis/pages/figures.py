"""The pictures of a run: scatters, correlations, decisions and training curves, as PNG and PDF.

Every picture has a fixed geometry in millimetres and fixed metadata, so the same results give the same bytes.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analysis.pages.drawing import (
    COLOURS,
    FAINT,
    GREY,
    INK,
    MM,
    STYLE,
    WARNING,
    ZONE,
    new_canvas,
    place_axes,
    write_above,
    write_beside,
)
from analysis.stats.agreement import Agreement
from analysis.study.comparisons import ComparisonResult
from analysis.study.gate import AGREEMENT, ANSWERS, COLLAPSED, CORRELATION
from analysis.study.results import RunResults

Array = NDArray[np.float64]

NOT_TESTABLE = "not testable"
MISSING = "\N{EN DASH}"

EDGE = 110.0
"""Where the axes of every scatter panel end; mean reports beyond it are arrows."""


@dataclass(frozen=True)
class Figure:
    """One picture on disk.

    Attributes:
        name: File name without ending.
        title: What it shows, in a few words.
        path: The PNG file; a PDF lies beside it.
        caption: How to read it.
        width_mm: Width in print.
    """

    name: str
    title: str
    path: Path
    caption: str
    width_mm: float


def save_figures(results: RunResults, folder: Path) -> list[Figure]:
    """Draw all pictures of a run into `folder`; decisions and training curves only if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = []
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        for name, draw in (
            ("scatter", draw_scatter),
            ("correlations", draw_correlations),
            ("decisions", draw_decisions),
            ("training", draw_training),
        ):
            if name == "training" and not any(_panels_of(log) for log in results.curves.values()):
                continue
            if name == "decisions" and not results.decisions:
                continue
            canvas, title, caption = draw(results)
            path = folder / f"{name}.png"
            canvas.savefig(path, dpi=200, metadata={"Software": None})
            canvas.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
            figures.append(Figure(name, title, path, caption, round(float(canvas.get_size_inches()[0]) / MM, 1)))
    return figures


def number(value: float, digits: int = 2) -> str:
    """A figure as text, a dash for NaN."""
    return MISSING if math.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0: no "-0.00"


def interval(low: float, high: float) -> str:
    """An interval as text, a dash for NaN."""
    return MISSING if math.isnan(low) else f"[{number(low)}, {number(high)}]"


def arm_order(results: RunResults) -> Callable[[str], int]:
    """Where an arm stands in the run's plan, as a key to sort by; one left from an earlier plan comes last."""
    places = {arm: place for place, arm in enumerate(results.record["arms"])}
    return lambda arm: places.get(arm, len(places))


def plain(name: str) -> str:
    """A name of the experiment file as words."""
    return name.replace("_", " ")


def why_no_r(found: Agreement) -> str:
    """Why a correlation is NaN."""
    if not found.n_contexts:
        return "no context has both"
    return "fewer than 3 points" if found.n_points < 3 else "no variation"


def draw_scatter(results: RunResults) -> tuple[Canvas, str, str]:
    """One panel a comparison, after one of learned against target weights: every attribute of every context."""
    shown = [results.learned_vs_target, *results.comparisons]
    titles = [textwrap.wrap(plain(c.name), 22) for c in shown]
    columns = _columns(len(shown))
    facts = [_facts(c, results) for c in shown]
    side, gap, left, below = 35.5, 7.0, 12.0, 11.0
    above = [3.8 * len(title) + 3.3 * len(lines) + 2.5 for title, lines in zip(titles, facts, strict=True)]
    tops = np.cumsum([0] + [max(above[i : i + columns]) + side + below for i in range(0, len(shown), columns)])
    canvas = new_canvas(left + columns * side + (columns - 1) * gap + 4, tops[-1])
    for i, comparison in enumerate(shown):
        row, column = divmod(i, columns)
        axes = place_axes(canvas, left + column * (side + gap), tops[row + 1] - below - side, side, side)
        _scatter_panel(axes, comparison, results)
        write_above(axes, titles[i], facts[i])
        axes.set_ylabel("weight from decisions" if column == 0 else "", labelpad=1)
        axes.tick_params(labelleft=column == 0)
    caption = (
        "Each point is one attribute of one context: across, the mean of the context's readable reports (in the first "
        "panel the target weight); up, the weight that drives the decisions, as estimated from them. Dotted: identity. "
    )
    if results.gate.passed:
        caption += "Solid: least squares. In brackets: 95% interval of r from resampling contexts. "
    else:
        caption += f"The gate was not passed: reports are {NOT_TESTABLE}, and no correlation with them is given. "
    colours = ", ".join(f"{_colour_name(i)} {group}" for i, group in enumerate(results.groups))
    return canvas, "Weights that drive decisions, against reports", caption + f"Contexts by colour: {colours}."


def _columns(panels: int) -> int:
    """Columns of a grid of small panels: four at most, or three if that leaves fewer places empty."""
    return panels if panels <= 4 else min((4, 3), key=lambda columns: -panels % columns)


def _scatter_panel(axes: Axes, comparison: ComparisonResult, results: RunResults) -> None:
    check = comparison is results.learned_vs_target
    testable = check or results.gate.passed
    points = comparison.points.dropna()
    x, y = points["x"].to_numpy(dtype=float), points["y"].to_numpy(dtype=float)
    axes.set(xlim=(-EDGE, EDGE), ylim=(-EDGE, EDGE), xticks=[-100, 0, 100], yticks=[-100, 0, 100], box_aspect=1)
    axes.plot([-100, 100], [-100, 100], color=GREY, lw=0.7, ls=":", zorder=1)
    colour = _colour(results, comparison.contexts) if testable else GREY
    alpha = float(np.clip(12 / math.sqrt(max(x.size, 1)), 0.25, 0.8))
    look: dict[str, Any] = {
        "s": 7,
        "color": colour,
        "alpha": alpha if testable else alpha / 2,
        "linewidths": 0,
        "zorder": 2,
    }
    beyond = np.abs(x) > EDGE
    axes.scatter(x[~beyond], y[~beyond], **look)
    for side, marker in ((-1, "<"), (1, ">")):  # an axis widened for a few would not compare with the others
        there = beyond & (np.sign(x) == side)
        axes.scatter(np.full(there.sum(), side * (EDGE - 3)), y[there], marker=marker, **{**look, "s": 14})
    if testable and not math.isnan(comparison.agreement.r):
        slope, intercept = np.polyfit(x, y, 1)
        ends = np.array([x.min(), x.max()])
        axes.plot(ends, intercept + slope * ends, color=INK, lw=1, zorder=3)
    if not testable:
        _stamp(axes)
    arrows = f" ({beyond.sum()} beyond the edge)" if beyond.any() else ""
    axes.set_xlabel("target weight" if check else f"mean report{arrows}", labelpad=1)


def _stamp(axes: Axes) -> None:
    box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": GREY, "linewidth": 0.6}
    axes.text(0.5, 0.5, NOT_TESTABLE, transform=axes.transAxes, ha="center", va="center", fontsize=8, bbox=box)


def _facts(comparison: ComparisonResult, results: RunResults) -> list[str]:
    """What is printed above a panel."""
    found = comparison.agreement
    check = comparison is results.learned_vs_target
    if not (check or results.gate.passed):
        first = NOT_TESTABLE
    elif math.isnan(found.r):
        first = f"no r: {why_no_r(found)}"
    else:
        first = f"r = {_r(found)}"
    readable = "" if check else f", {found.valid_reports}/{found.total_reports} readable"
    facts = [first, f"{found.n_contexts} contexts ({plain(comparison.contexts)})", f"{found.n_points} points{readable}"]
    plural = "" if comparison.outside == 1 else "s"
    return [*facts, f"{comparison.outside} report{plural} beyond ±100"] if comparison.outside else facts


def _r(found: Agreement) -> str:
    """r with its bootstrap interval, in the minus signs of the axes."""
    return f"{number(found.r)} {interval(found.boot_low, found.boot_high)}".replace("-", "\N{MINUS SIGN}")


def draw_correlations(results: RunResults) -> tuple[Canvas, str, str]:
    """r of every comparison with both intervals, by group of contexts; first that of learned with target weights."""
    entries: list[str | ComparisonResult] = ["instillation", results.learned_vs_target]
    for group in dict.fromkeys(c.contexts for c in results.comparisons):
        entries += [f"{plain(group)} contexts", *(c for c in results.comparisons if c.contexts == group)]
    labels = {c.name: textwrap.wrap(plain(c.name), 18) for c in (results.learned_vs_target, *results.comparisons)}
    above, row, below = 1.0, max(6.4, 2.8 * max(map(len, labels.values())) + 0.8), 19.0
    canvas = new_canvas(90, above + row * len(entries) + below)
    axes = place_axes(canvas, 28, above, 32, row * len(entries))
    shown = [results.learned_vs_target, *(results.comparisons if results.gate.passed else [])]
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
            _correlation_row(axes, place, entry, results)
    axes.plot([CORRELATION] * 2, [0.5, 1.5], color=GREY, lw=0.8, ls=(0, (2, 1)), zorder=1)
    thick, thin = Line2D([], [], color=INK, lw=3, alpha=0.55), Line2D([], [], color=INK, lw=0.8)
    canvas.legend([thick, thin], ["95%, contexts resampled", "95%, the paper's"], loc="lower center")
    caption = (
        "Dot: r over all attributes. Thick: 95% interval from resampling contexts. Thin: the paper's interval, which "
        f"treats attributes as independent. Dashed: the gate's threshold, {CORRELATION:.2f}. "
    )
    if not results.gate.passed:
        caption += f"Hollow grey bars: {NOT_TESTABLE}, because the gate was not passed; their place says nothing."
    return canvas, "Correlation of reports with the weights that drive decisions", caption.strip()


def _correlation_row(axes: Axes, place: int, comparison: ComparisonResult, results: RunResults) -> None:
    found = comparison.agreement
    check = comparison is results.learned_vs_target
    if not (check or results.gate.passed):
        left, right = axes.get_xlim()
        axes.barh(place, right - left, 0.5, left, facecolor="white", edgecolor=GREY, lw=0.6, zorder=2)
        axes.text((left + right) / 2, place, NOT_TESTABLE, ha="center", va="center", color=GREY, zorder=3)
    elif math.isnan(found.r):
        write_beside(axes, place, 34, why_no_r(found), color=GREY)
    else:
        colour = _colour(results, comparison.contexts)
        axes.plot([0, 0], [place - 0.5, place + 0.5], color=GREY, lw=0.8, zorder=1)
        axes.plot([found.boot_low, found.boot_high], [place] * 2, color=colour, lw=3, solid_capstyle="butt", alpha=0.55)
        axes.plot([found.hdi_low, found.hdi_high], [place + 0.26] * 2, color=colour, lw=0.8, solid_capstyle="butt")
        axes.plot(found.r, place, "o", color=colour, ms=4, markeredgecolor="white", markeredgewidth=0.5, zorder=4)
        r, ends = _r(found).split(" ", 1)
        write_beside(axes, place, 41, r, ha="right")
        write_beside(axes, place, 42, ends)


def draw_decisions(results: RunResults) -> tuple[Canvas, str, str]:
    """How every arm decides on every group of contexts; figures in the shaded zones speak of a collapse."""
    rows = sorted(results.decisions.items(), key=lambda item: arm_order(results)(item[0][0]))
    left, side, step, above, row = 51.0, 20.0, 32.0, 8.0, 5.5
    canvas = new_canvas(178, above + row * len(rows) + 7)
    panels: list[tuple[str, str, list[tuple[float, float]]]] = [
        ("share_a", "share of A", [(-math.inf, 1 - COLLAPSED), (COLLAPSED, math.inf)]),
        ("flips", "flips with order", []),
        ("letter_mass", "P(A) + P(B)", [(-math.inf, ANSWERS)]),
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
            axes.axvline(AGREEMENT, color=GREY, lw=0.8, ls=(0, (2, 1)), zorder=1)
        for place, ((arm, group), summary) in enumerate(rows):
            if i == 0:
                write_beside(axes, place, 2 - left, "\n".join(textwrap.wrap(plain(arm), 22)))
                write_beside(axes, place, 32 - left, plain(group))
            _dot(axes, place, getattr(summary, measure), zones, side)
    caption = (
        "Both orders of every pair. Share of A: of the greedy letters; each letter is right half of the time. Flips: "
        "pairs whose choice changes when the options change place. P(A) + P(B): mean probability of a letter at all. "
        f"Follows targets: share of decisions that the target weights ask for (dashed: the gate's {AGREEMENT:.0%}; a "
        "dash where there are no targets). Shaded, with diamonds: collapse, or hardly any letters."
    )
    return canvas, "How each arm decides", caption


def _dot(axes: Axes, place: int, value: float, zones: list[tuple[float, float]], side: float) -> None:
    text = "<.01" if 0 < value < 0.005 else number(value)
    collapsed = any(low < value < high for low, high in zones)
    write_beside(axes, place, side + 2, text, color=WARNING if collapsed else INK)
    if not math.isnan(value):
        marker, colour = ("D", WARNING) if collapsed else ("o", COLOURS[0])
        axes.plot(value, place, marker, color=colour, ms=4, clip_on=False, zorder=3)


MEASURES = (
    ("letter_accuracy", "letter accuracy", COLOURS[4], "-"),
    ("agreement", "agreement", COLOURS[0], (0, (4, 2))),
    ("share_a", "share of A", GREY, ":"),
)
"""What training on decisions logs beside the loss: key, label, colour, line."""


def draw_training(results: RunResults) -> tuple[Canvas, str, str]:
    """Loss of every trained arm by step, and how the arms that were taught decisions decide meanwhile."""
    arms = sorted(results.curves, key=arm_order(results))
    panels = [(arm, kind) for arm in arms for kind in _panels_of(results.curves[arm])]
    columns = _columns(len(panels))
    side, height, gap, left, above, below = 33.0, 24.0, 12.0, 12.0, 13.0, 9.0
    rows = math.ceil(len(panels) / columns)
    width = left + columns * side + (columns - 1) * gap + 5
    keys = 5 if width >= 130 else 3 if width >= 80 else 1
    canvas = new_canvas(width, rows * (above + height + below) + 4 * math.ceil(5 / keys) + 3)
    for i, (arm, kind) in enumerate(panels):
        row, column = divmod(i, columns)
        axes = place_axes(canvas, left + column * (side + gap), row * (above + height + below) + above, side, height)
        _curves(axes, results.curves[arm], kind)
        write_above(axes, textwrap.wrap(plain(arm), 24)[:2], [kind])
        axes.set_xlabel("step", labelpad=1)
        axes.locator_params(axis="x", integer=True, nbins=4)
    lines = {str(line.get_label()): line for axes in canvas.axes for line in axes.get_lines()}
    canvas.legend(lines.values(), lines.keys(), loc="lower left", ncols=keys, columnspacing=1.2, handlelength=2.2)
    caption = (
        "Loss, and for arms that are taught decisions the share of trials in which the right letter is the likeliest "
        "of all tokens (letter accuracy) or the likelier of the two letters (agreement), and the share of A. "
        "Held-out trials where they were evaluated, else the training batches."
    )
    return canvas, "Training", caption


def _panels_of(log: list[dict[str, Any]]) -> list[str]:
    """Which panels a training log can fill: `loss`, `held-out decisions`, `training decisions`."""
    panels = ["loss"] if _logged(log, "loss")[0].size or _logged(log, "eval_loss")[0].size else []
    for prefix, panel in (("eval_", "held-out decisions"), ("", "training decisions")):
        if any(_logged(log, prefix + key)[0].size for key, *_ in MEASURES):
            return [*panels, panel]
    return panels


def _logged(log: Iterable[dict[str, Any]], key: str) -> tuple[Array, Array]:
    """Steps and values of one key; of several entries for a step, the last."""
    found = {entry["step"]: float(entry[key]) for entry in log if key in entry and "step" in entry}
    steps = sorted(found)
    return np.array(steps, dtype=float), np.array([found[step] for step in steps])


def _curves(axes: Axes, log: list[dict[str, Any]], kind: str) -> None:
    if kind == "loss":
        axes.plot(*_logged(log, "loss"), color=GREY, lw=0.9, label="training loss")
        if (held_out := _logged(log, "eval_loss"))[0].size:
            axes.plot(*held_out, "o-", color=INK, ms=2.5, label="held-out loss")
    else:
        prefix = "eval_" if kind.startswith("held-out") else ""
        for key, label, colour, line in MEASURES:
            steps, values = _logged(log, prefix + key)
            axes.plot(steps, values, color=colour, ls=line, marker="o" * (len(steps) <= 30), ms=2, label=label)
        axes.set(ylim=(-0.03, 1.03), yticks=[0, 0.5, 1])
    axes.set_xlim(0, 1.02 * max(entry.get("step", 0) for entry in log) or 1)


def _colour(results: RunResults, group: str) -> str:
    return COLOURS[list(results.groups).index(group) % len(COLOURS)]


def _colour_name(i: int) -> str:
    return ("blue", "vermilion", "green", "pink", "orange", "light blue")[i % len(COLOURS)]
