"""The pictures of what was found inside arms: similarity, where scores lie, small adapters, patching."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from analysis.pages.drawing import (
    COLOUR_NAMES,
    COLOURS,
    FAINT,
    GREY,
    INK,
    ZONE,
    Drawn,
    columns_of,
    new_canvas,
    place_axes,
    write_above,
    write_beside,
)
from analysis.pages.text import as_number as value
from analysis.pages.text import plain, with_ends
from store.inside import Task
from store.inside_summary import (
    CurveSummary,
    EndsSummary,
    FreshSummary,
    InsideSummary,
    PatchingSummary,
    SimilaritySummary,
)

OF_TASK: dict[Task, str] = {"deciding": COLOURS[0], "reporting": COLOURS[1]}
"""Colours of both tasks."""

Row = tuple[str, SimilaritySummary | FreshSummary | EndsSummary | None]
"""A line of the picture of similarities: its label, and what stands there; a heading has nothing."""


def in_words(found: EndsSummary, *, signed: bool = False) -> str:
    """A figure with its interval, in the minus signs of the axes."""
    return with_ends(value(found.estimate), value(found.low), value(found.high), signed=signed).replace(
        "-", "\N{MINUS SIGN}"
    )


def draw_similarity(inside: InsideSummary) -> Drawn:
    """Every arm's similarity beside its nulls, all small adapters, and the differences."""
    rows: list[Row] = [(plain(name), arm) for name, arm in inside.arms.items()]
    rows += [(f"{plain(name)} (on {plain(fresh.backbone)})", fresh) for name, fresh in inside.fresh.items()]
    different = [d for d in inside.differences if d.similarity is not None]
    if different:
        rows.append(("difference", None))
        rows += [(f"{plain(d.first)} less {plain(d.second)}", d.similarity) for d in different]
    labels = ["\n".join(textwrap.wrap(label, 30)) for label, _ in rows]
    height = max(6.0, 3.3 * max(label.count("\n") + 1 for label in labels) + 1.2)
    above, below = 1.0, 19.0
    canvas = new_canvas(124, above + height * len(rows) + below)
    axes = place_axes(canvas, 42, above, 50, height * len(rows))
    axes.set(xlim=_limits(rows), ylim=(len(rows) - 0.5, -0.5), yticks=[], xlabel="cosine")
    axes.xaxis.labelpad = 1
    axes.spines["left"].set_visible(False)
    axes.axvline(0, color=GREY, lw=0.6, zorder=1)
    for place, (label, (_, found)) in enumerate(zip(labels, rows, strict=True)):
        write_beside(axes, place, -40, label, fontweight="bold" if found is None else "normal")
        if found is not None:
            _similarity_row(axes, place, found)
    canvas.legend(*_keys(), loc="lower center", ncols=3, columnspacing=1.2, handlelength=1.6)
    caption = (
        "Cosine of the scores for deciding and for reporting, over all rows of an adapter's matrices, averaged over "
        "contexts; bars: 95%, contexts resampled. Hollow: without the noise of contexts. Strip: mean and two "
        "standard deviations of the cosine with the rows of each matrix in random order. Grey lines: random adapters "
        "of the same shapes. Small dots: small adapters, each trained on one context; every one is shown. Differences "
        "are paired by context."
    )
    return canvas, "Do the same rows matter for deciding and for reporting?", caption


def _keys() -> tuple[list[Any], list[str]]:
    dot: dict[str, Any] = {"marker": "o", "ms": 4, "lw": 1.6, "color": COLOURS[0]}
    return [
        Line2D([], [], **dot),
        Line2D([], [], **(dot | {"lw": 0.8}), markerfacecolor="white"),
        Line2D([], [], color=ZONE, lw=6),
        Line2D([], [], color=GREY, lw=1.2),
        Line2D([], [], marker="o", ms=2.5, lw=0, color=COLOURS[2], alpha=0.6),
        Line2D([], [], marker="o", ms=4, lw=1.6, color=INK),
    ], ["similarity", "without noise", "rows in random order", "random adapters", "small adapters", "difference"]


def _limits(rows: Sequence[Row]) -> tuple[float, float]:
    """Ends of the axis, at quarters, that hold all that is drawn; from -1 to 1."""
    found = [0.0, 0.5]
    for _, row in rows:
        if isinstance(row, SimilaritySummary):
            spread = 2 * value(row.rows_null_sd)
            found += [value(row.rows_null_mean) - spread, *map(value, row.random)]
            found += [
                value(v) for ends in (row.similarity, row.corrected) for v in (ends.estimate, ends.low, ends.high)
            ]
        elif isinstance(row, FreshSummary):
            found += [*map(value, row.random), *(value(arm.similarity) for arm in row.arms)]
        elif row is not None:
            found += [value(row.estimate), value(row.low), value(row.high)]
    known = [v for v in found if not math.isnan(v)]
    return max(math.floor(4 * min(known)) / 4, -1) - 0.02, min(math.ceil(4 * max(known)) / 4, 1) + 0.02


def _similarity_row(axes: Axes, place: int, found: SimilaritySummary | FreshSummary | EndsSummary) -> None:
    if isinstance(found, EndsSummary):
        _bar(axes, place, found, INK)
        write_beside(axes, place, 52, in_words(found, signed=True))
        return
    for null in found.random:
        axes.plot([value(null)] * 2, [place - 0.32, place + 0.32], color=GREY, lw=1.2, zorder=2)
    if isinstance(found, FreshSummary):
        similar = [value(arm.similarity) for arm in found.arms]
        # Moved up and down in turn, so that dots at one place can be told apart.
        heights = place + 0.24 * (np.arange(len(similar)) % 3 - 1)
        axes.plot(similar, heights, "o", color=COLOURS[2], ms=2.2, alpha=0.6, markeredgewidth=0, zorder=2)
        _bar(axes, place, found.similarity, COLOURS[2])
    else:
        mean, spread = value(found.rows_null_mean), 2 * value(found.rows_null_sd)
        axes.fill_between([mean - spread, mean + spread], place - 0.32, place + 0.32, color=ZONE, lw=0, zorder=0)
        _bar(axes, place + 0.17, found.corrected, COLOURS[0], hollow=True)
        _bar(axes, place - 0.12, found.similarity, COLOURS[0])
    write_beside(axes, place, 52, in_words(found.similarity, signed=True))


def _bar(axes: Axes, place: float, found: EndsSummary, colour: str, hollow: bool = False) -> None:
    left, right = axes.get_xlim()
    low, middle, high = (float(np.clip(value(v), left, right)) for v in (found.low, found.estimate, found.high))
    axes.plot([low, high], [place] * 2, color=colour, lw=0.8 if hollow else 1.8, alpha=0.6, solid_capstyle="butt")
    face = "white" if hollow else colour
    axes.plot(middle, place, "o", ms=3.4, color=colour, markerfacecolor=face, markeredgewidth=0.7, zorder=4)


def draw_profiles(inside: InsideSummary) -> Drawn:
    """A panel an arm: in which layers the importance for each task lies."""
    names = list(inside.arms)
    columns = columns_of(len(names))
    side, height, gap, left, above, below = 36.0, 24.0, 7.0, 13.0, 14.0, 9.0
    rows = math.ceil(len(names) / columns)
    width = max(left + columns * side + (columns - 1) * gap + 5, 78)
    canvas = new_canvas(width, rows * (above + height + below) + 6)
    top = max((value(s) for a in inside.arms.values() for part in a.layers.shares.values() for s in part), default=1)
    for i, name in enumerate(names):
        row, column = divmod(i, columns)
        at = left + column * (side + gap), row * (above + height + below) + above
        axes, arm = place_axes(canvas, *at, side, height), inside.arms[name]
        layers = [int(layer) for layer in arm.layers.names]
        for task, colour in OF_TASK.items():
            shares = [value(share) for share in arm.layers.shares[task]]
            axes.plot(layers, shares, "-o", color=colour, ms=2.5 if len(layers) <= 40 else 0, lw=1.2, label=task)
        axes.set(ylim=(0, 1.08 * top or 1))
        axes.locator_params(axis="x", integer=True, nbins=5)
        axes.locator_params(axis="y", nbins=4)
        axes.set_xlabel("layer", labelpad=1)
        axes.set_ylabel("share of importance" if column == 0 else "", labelpad=2)
        axes.tick_params(labelleft=column == 0)
        peaks = " and ".join("\N{EN DASH}" if (p := arm.peak_layer[task]) is None else str(p) for task in OF_TASK)
        write_above(axes, textwrap.wrap(plain(name), 24)[:2], [f"peaks at {peaks}"])
    lines = {str(line.get_label()): line for axes in canvas.axes for line in axes.get_lines()}
    canvas.legend(lines.values(), lines.keys(), loc="lower left", ncols=2, columnspacing=1.2)
    caption = (
        "Share of the absolute scores of all rows, averaged over contexts, that lies in each layer, for deciding and "
        "for reporting. Above: the layer with most of it, for deciding and for reporting. Matrices outside layers are "
        "left out."
    )
    return canvas, "In which layers the scores lie", caption


def draw_fresh(inside: InsideSummary) -> Drawn:
    """A panel a backbone: similarity of every small adapter against its faithfulness."""
    names = [name for name, fresh in inside.fresh.items() if fresh.relation_contexts]
    columns = columns_of(len(names))
    side, gap, left, above, below = 36.0, 7.0, 13.0, 15.0, 9.0
    rows = math.ceil(len(names) / columns)
    canvas = new_canvas(max(left + columns * side + (columns - 1) * gap + 5, 60), rows * (above + side + below))
    similar = [value(arm.similarity) for name in names for arm in inside.fresh[name].arms]
    low, high = min([0.0, *similar]) - 0.05, max([0.5, *similar]) + 0.05
    for i, name in enumerate(names):
        row, column = divmod(i, columns)
        at = left + column * (side + gap), row * (above + side + below) + above
        axes, fresh = place_axes(canvas, *at, side, side), inside.fresh[name]
        x, y = ([value(getattr(arm, kind)) for arm in fresh.arms] for kind in ("faithfulness", "similarity"))
        axes.plot(x, y, "o", color=COLOURS[i % len(COLOURS)], ms=3, alpha=0.7, markeredgewidth=0)
        axes.axvline(0, color=FAINT, lw=0.6, zorder=0)
        axes.axhline(0, color=FAINT, lw=0.6, zorder=0)
        axes.set(xlim=(-1.08, 1.08), ylim=(low, high), xticks=[-1, 0, 1])
        axes.set_xlabel("faithfulness, r(reported, learned)", labelpad=1)
        axes.set_ylabel("similarity" if column == 0 else "", labelpad=2)
        axes.tick_params(labelleft=column == 0)
        facts = [f"r = {in_words(fresh.relation)}", f"{fresh.relation_contexts} contexts"]
        write_above(axes, textwrap.wrap(f"on {plain(fresh.backbone)}", 24)[:2], facts)
    caption = (
        "Each dot is a small adapter that was trained on the decisions of one context, on top of a frozen arm: across, "
        "the correlation of its mean report with the weights that drive its decisions, over the attributes of the "
        "context; up, the similarity of its scores. In a panel nothing but the context differs. r with its 95% "
        "interval, contexts resampled."
    )
    return canvas, "Within one backbone: does similarity go with faithfulness?", caption


def draw_patching(inside: InsideSummary) -> Drawn:
    """A row an arm, a panel a task: recovery by the number of matrices that are kept."""
    side, height, gap, left, above, below = 46.0, 28.0, 15.0, 13.0, 16.0, 10.0
    canvas = new_canvas(left + 2 * side + gap + 16, len(inside.patching) * (above + height + below) + 6)
    for row, (name, found) in enumerate(inside.patching.items()):
        for column, task in enumerate(OF_TASK):
            at = left + column * (side + gap), row * (above + height + below) + above
            axes = place_axes(canvas, *at, side, height)
            _patching_panel(axes, found, task)
            axes.set_ylabel("recovery" if column == 0 else "", labelpad=2)
            axes.tick_params(labelleft=column == 0)
            crossed = next((c for c in found.curves if c.task == task and c.ranked_by not in (task, "random")), None)
            count = found.n_contexts.get(task, 0)
            facts = [f"{count} context{'s' * (count != 1)}", _half_in_words(crossed)]
            write_above(axes, textwrap.wrap(f"{plain(name)}: {task}", 40)[:1], facts)
    colours = {f"ordered by {task}": colour for task, colour in OF_TASK.items()} | {"random order": GREY}
    lines = [Line2D([], [], color=colour) for colour in colours.values()] + [Line2D([], [], color=INK, ls="--")]
    canvas.legend(lines, [*colours, "the task's own order"], loc="lower left", ncols=4, columnspacing=1.2)
    caption = (
        "How much of what the adapter changes is there with its k most important matrices alone: 1 \N{MINUS SIGN} "
        "KL(full, top k) / KL(full, backbone), each summed over contexts. Matrices in the order of their scores for "
        f"deciding ({COLOUR_NAMES[0]}) or for reporting ({COLOUR_NAMES[1]}), strips: 95%, contexts resampled; grey: "
        "in random orders, from the least to the most of any. Above: matrices to half recovery in the order of the "
        "other task, and how many times more random orders need."
    )
    return canvas, "How few matrices carry each task", caption


def _patching_panel(axes: Axes, found: PatchingSummary, task: Task) -> None:
    axes.axhline(0.5, color=FAINT, lw=0.6, zorder=0)
    lowest = 0.0
    for curve in (c for c in found.curves if c.task == task):
        colour = GREY if curve.ranked_by == "random" else OF_TASK[curve.ranked_by]
        own = curve.ranked_by == task
        low, middle, high = (np.array([value(v) for v in part]) for part in (curve.low, curve.recovery, curve.high))
        axes.fill_between(curve.k, low, high, color=colour, alpha=0.18, lw=0)
        axes.plot(
            curve.k, middle, "--" if own else "-", marker="o", ms=2.2, color=colour, zorder=2 if colour == GREY else 3
        )
        lowest = min(lowest, *np.nan_to_num(middle))
    axes.set_xscale("log", base=2)
    sizes = sorted({k for curve in found.curves for k in curve.k})
    kept = sizes[:: max(1, math.ceil(len(sizes) / 6))]
    axes.set_xticks(kept, [str(k) for k in kept])
    axes.set_xticks([], minor=True)
    axes.set(ylim=(max(lowest, -1) - 0.05, 1.05), yticks=[0, 0.5, 1])
    axes.set_xlabel("matrices that are kept", labelpad=1)


def _half_in_words(curve: CurveSummary | None) -> str:
    if curve is None:
        return ""
    if curve.half.estimate is None:
        return "half recovery not reached"
    half = f"half at k = {curve.half.estimate:.1f}"
    if curve.times_fewer is None or curve.times_fewer.estimate is None:
        return half
    return f"{half}; random \N{MULTIPLICATION SIGN}{in_words(curve.times_fewer)}"
