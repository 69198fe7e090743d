"""House style of the pictures: colours, type, places in millimetres, and how they are saved.

Every picture has a fixed geometry in millimetres and fixed metadata, so the same results give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

Drawn = tuple[Canvas, str, str]
"""A picture, its title and its caption."""

MM = 1 / 25.4
"""Inches in a millimetre."""

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of the groups of contexts, in their order: Okabe and Ito's palette, which colour-blind readers can tell apart."""

COLOUR_NAMES = ("blue", "vermilion", "green", "pink", "orange", "light blue")
"""Of the same, for captions."""

INK, GREY, FAINT, ZONE, WARNING = "#222222", "#767676", "#D0D0D0", "#F6E3D8", "#D55E00"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.linewidth": 0.6,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.frameon": False,
    "lines.linewidth": 1.2,
    "pdf.fonttype": 42,
    # Names are the user's: a dollar sign in one is no formula.
    "text.parse_math": False,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Draw and save in the house style, whatever the user's own settings of matplotlib are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def save_picture(canvas: Canvas, path: Path) -> None:
    """Save a picture as PNG, with a PDF beside it; inside `house_style`."""
    canvas.savefig(path, dpi=200, metadata={"Software": None})
    canvas.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})


def new_canvas(width_mm: float, height_mm: float) -> Canvas:
    """An empty picture; sizes in millimetres."""
    return Canvas(figsize=(width_mm * MM, height_mm * MM), facecolor="white")


def place_axes(canvas: Canvas, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in millimetres from the upper left corner."""
    total_width, total_height = canvas.get_size_inches() / MM
    return canvas.add_axes(
        (left / total_width, 1 - (top + height) / total_height, width / total_width, height / total_height)
    )


def write_above(axes: Axes, title: list[str], facts: list[str], offset_mm: float = 0) -> None:
    """A bold title over lines of text above the axes, flush with their left edge or `offset_mm` from it."""
    across = offset_mm * MM * 72
    text: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "left", "va": "bottom"}
    for i, line in enumerate(reversed(facts)):
        axes.annotate(line, (0, 1), xytext=(across, 4 + 9.3 * i), fontsize=7, **text)
    for i, line in enumerate(reversed(title)):
        offset = 4.5 + 9.3 * len(facts) + 10.5 * i
        axes.annotate(line, (0, 1), xytext=(across, offset), fontsize=8, fontweight="bold", **text)


def write_beside(axes: Axes, place: float, offset_mm: float, text: str, **style: Any) -> None:
    """Text at a row of the axes, `offset_mm` from their left edge."""
    axes.annotate(
        text,
        (0, place),
        xycoords=("axes fraction", "data"),
        xytext=(offset_mm * MM * 72, 0),
        textcoords="offset points",
        va="center",
        linespacing=1.05,
        **style,
    )


def columns_of(panels: int) -> int:
    """Columns of a grid of small panels: four at most, or three if that leaves fewer places empty."""
    return panels if panels <= 4 else min((4, 3), key=lambda columns: -panels % columns)
