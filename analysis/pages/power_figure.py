"""The picture of power: against the number of contexts, a panel for each question."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from analysis.pages.drawing import COLOURS, FAINT, INK, house_style, new_canvas, place_axes, save_picture, write_above
from analysis.pages.text import percent, plain

LINES = ("-", (0, (4, 1.5)), (0, (1, 1.2)), (0, (4, 1.2, 1, 1.2)))
"""Of the numbers of pairs, from the largest."""

MARKERS = "osD^vP"
"""Of the accuracies, in the order of their colours."""

USUAL = 0.8
"""Power that studies are usually planned for."""

LEFT, SIDE, HIGH, GAP, ABOVE, BELOW = 11.0, 34.0, 26.0, 8.0, 9.0, 7.0
"""Places in millimetres: panels are SIDE x HIGH, two in a row of 90 mm."""


BLOCKS = ["noise", "estimator", "reports"]
"""Columns whose values have a block of panels each."""


def save_power_figure(table: pd.DataFrame, path: Path) -> None:
    """Draw `analysis.power`'s table as PNG, with a PDF beside it; 90 mm wide, a block of panels for each of BLOCKS."""
    with house_style():
        effects, blocks = sorted(table["effect"].unique()), list(table.groupby(BLOCKS, sort=False))
        rows = (len(effects) + 2) // 2
        block = rows * (ABOVE + HIGH + BELOW)
        legend = 4.2 * max(table["accuracy"].nunique(), table["pairs"].nunique()) + 8
        canvas = new_canvas(90, len(blocks) * block + legend)
        for i, (_, part) in enumerate(blocks):
            for panel, effect in enumerate([None, *effects]):
                row, column = divmod(panel, 2)
                top = i * block + row * (ABOVE + HIGH + BELOW) + ABOVE
                axes = place_axes(canvas, LEFT + column * (SIDE + GAP), top, SIDE, HIGH)
                if effect is None:
                    chosen = part[part["effect"] == effects[0]]
                    _panel(axes, chosen, "power_permutation", "r other than 0")
                else:
                    _panel(axes, part[part["effect"] == effect], "power_difference", f"difference of {effect:+g}")
                axes.set_ylabel("power" if column == 0 else "", labelpad=2)
                axes.set_xlabel("contexts" if panel >= len(effects) - 1 else "", labelpad=1)
                if len(blocks) > 1 and panel == 0:
                    noise, estimator, reports = (part[name].iloc[0] for name in BLOCKS)
                    said = f"{percent(noise)} of decisions follow, {plain(estimator)}, {reports} reports"
                    write_above(axes, [said], [""], -LEFT + 1)
        _legend(canvas, table)
        save_picture(canvas, path)


def _panel(axes: Axes, part: pd.DataFrame, column: str, title: str) -> None:
    contexts = sorted(part["contexts"].unique())
    axes.set_xscale("log", base=2)
    axes.set(ylim=(0, 1.02), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
    axes.set_xticks(contexts, [str(n) for n in contexts])
    axes.minorticks_off()
    axes.axhline(USUAL, color=FAINT, lw=0.8, zorder=0)
    for i, accuracy in enumerate(sorted(part["accuracy"].unique())):
        for j, pairs in enumerate(sorted(part["pairs"].unique(), reverse=True)):
            line = part[(part["accuracy"] == accuracy) & (part["pairs"] == pairs)].sort_values("contexts")
            axes.plot(
                line["contexts"], line[column], color=COLOURS[i], ls=LINES[j], marker=MARKERS[i], ms=2.6, lw=0.9, mew=0
            )
    write_above(axes, [], [title])


def _legend(canvas: Canvas, table: pd.DataFrame) -> None:
    accuracies, pairs = sorted(table["accuracy"].unique()), sorted(table["pairs"].unique(), reverse=True)
    coloured = [
        Line2D([], [], color=COLOURS[i], marker=MARKERS[i], ms=3.5, mew=0, label=f"accuracy {accuracy:g} before")
        for i, accuracy in enumerate(accuracies)
    ]
    styled = [Line2D([], [], color=INK, ls=LINES[j], label=f"{count} pairs a context") for j, count in enumerate(pairs)]
    for handles, place in ((coloured, 0.04), (styled, 0.52)):
        canvas.add_artist(
            canvas.legend(handles=handles, loc="lower left", bbox_to_anchor=(place, 0.0), borderaxespad=0.3)
        )
