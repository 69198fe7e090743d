"""The picture of a cross-model matrix: two heat maps with their values printed."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from analysis.pages.drawing import INK, new_canvas, place_axes, write_above
from analysis.pages.text import number, plain

PALETTE = "PuOr"
"""Brown below 0, purple above: told apart by colour-blind readers, and darker the stronger."""

CELL, SMALL_CELL, MANY = 13.0, 9.5, 5
"""Side of a cell in millimetres; the small one from this many models on, so that 8 of them fit a page's width."""

CHARACTER = 1.35
"""Mean width of a character, in millimetres."""

WIDTH = 41.0
"""Least width of a panel, for its title, in millimetres."""


def draw_heatmap(
    names: list[str], matrix: NDArray[np.float64], weights: NDArray[np.float64], n_contexts: NDArray[np.int64]
) -> Canvas:
    """Reports against weights on the left, weights against weights on the right; the diagonal is framed.

    `n_contexts` is the number of contexts behind each entry of `matrix`.
    """
    side = (CELL if len(names) < MANY else SMALL_CELL) * len(names)
    # In three lines at most, which are as high as a small cell is wide.
    lines = [textwrap.wrap(plain(name), max(16, 2 + len(name) // 3)) for name in names]
    labels = ["\n".join(of_name) for of_name in lines]
    longest = max(len(line) for of_name in lines for line in of_name)
    left, above, gap, below = 9 + CHARACTER * longest, 12.0, 8.0, 7 + CHARACTER * longest
    canvas = new_canvas(left + 2 * max(side, WIDTH) + gap + 3, above + side + below)
    few, many = n_contexts.min(), n_contexts.max()
    counted = f"{many} contexts" if few == many else f"{few} to {many} contexts"
    panels = (
        ("reports against weights", "reports of", matrix, [counted]),
        ("weights against weights", "", weights, [""]),
    )
    for i, (title, rows, values, facts) in enumerate(panels):
        axes = place_axes(canvas, left + i * (max(side, WIDTH) + gap), above, side, side)
        _cells(axes, values)
        axes.set_xticks(range(len(names)), labels, rotation=90)
        axes.set_yticks(range(len(names)), labels if i == 0 else [])
        axes.set_xlabel("weights of")
        axes.set_ylabel(rows)
        write_above(axes, [title], facts)
    return canvas


def _cells(axes: Axes, values: NDArray[np.float64]) -> None:
    image = axes.imshow(values, cmap=PALETTE, vmin=-1, vmax=1)
    luminance = image.to_rgba(np.nan_to_num(values))[..., :3] @ (0.2126, 0.7152, 0.0722)
    for row, column in np.ndindex(values.shape):
        value = float(values[row, column])
        text = number(value).replace("-", "\N{MINUS SIGN}")
        axes.text(column, row, text, ha="center", va="center", color="white" if luminance[row, column] < 0.35 else INK)
    for place in range(len(values)):
        axes.add_patch(Rectangle((place - 0.5, place - 0.5), 1, 1, fill=False, edgecolor=INK, lw=1.4, clip_on=False))
    image.set_zorder(0)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
