"""The picture of a cross-model matrix: two heat maps with their values printed."""

from __future__ import annotations

import textwrap
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from analysis.drawing import INK, STYLE, new_canvas, place_axes, write_above
from analysis.figures import number, plain

PALETTE = "PuOr"
"""Brown below 0, purple above: told apart by colour-blind readers, and darker the stronger."""

CELL = 13.0
"""Side of a cell, in millimetres."""

WIDTH = 41.0
"""Least width of a panel, for its title, in millimetres."""


def save_heatmap(names: list[str], matrix: NDArray[np.float64], weights: NDArray[np.float64], path: Path) -> None:
    """Draw both matrices into a PNG, with a PDF beside it; the same numbers give the same bytes."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        canvas = draw_heatmap(names, matrix, weights)
        canvas.savefig(path, dpi=200, metadata={"Software": None})
        canvas.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})


def draw_heatmap(names: list[str], matrix: NDArray[np.float64], weights: NDArray[np.float64]) -> Canvas:
    """Reports against weights on the left, weights against weights on the right; the diagonal is framed."""
    side = CELL * len(names)
    labels = ["\n".join(textwrap.wrap(plain(name), 16)) for name in names]
    left, above, gap, below = 33.0, 8.0, 8.0, 25 + 3 * max(label.count("\n") for label in labels)
    canvas = new_canvas(left + 2 * max(side, WIDTH) + gap + 3, above + side + below)
    panels = (("reports against weights", "reports of", matrix), ("weights against weights", "", weights))
    for i, (title, rows, values) in enumerate(panels):
        axes = place_axes(canvas, left + i * (max(side, WIDTH) + gap), above, side, side)
        _cells(axes, values)
        axes.set_xticks(range(len(names)), labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), labels if i == 0 else [])
        axes.set_xlabel("weights of")
        axes.set_ylabel(rows)
        write_above(axes, [title], [])
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
