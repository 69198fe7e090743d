"""The pictures of a run or of released files, as PNG and PDF."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from matplotlib.figure import Figure as Canvas

from analysis.pages.comparison_figures import draw_correlations, draw_scatter
from analysis.pages.decisions_figure import draw_decisions
from analysis.pages.drawing import MM, Drawn, house_style, save_picture
from analysis.pages.training_figure import draw_training, has_curves
from analysis.study.results import Findings, RunResults

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Figure:
    """One picture on disk.

    Attributes:
        title: What it shows.
        path: Its PNG file; a PDF lies beside it.
        caption: How to read it.
        width_mm: Its width in print.
        panels: Of a scatter, the panel of each comparison: left, top, width, height in parts of the picture.
    """

    title: str
    path: Path
    caption: str
    width_mm: float
    panels: dict[str, Box] = field(default_factory=dict)


def save_figures(findings: Findings, folder: Path) -> list[Figure]:
    """Draw all pictures into `folder`; of a run also decisions, and training curves if there are any."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = []
    with house_style():
        drawn = {"scatter": draw_scatter(findings), "correlations": draw_correlations(findings)}
        if isinstance(findings, RunResults):
            drawn["decisions"] = draw_decisions(findings)
            if has_curves(findings):
                drawn["training"] = draw_training(findings)
        for name, picture in drawn.items():
            figure = saved(picture, folder / f"{name}.png")
            figures.append(replace(figure, panels=_panels(findings, picture[0])) if name == "scatter" else figure)
    return figures


def saved(picture: Drawn, path: Path) -> Figure:
    """Save a picture, as PNG and PDF; inside `house_style`."""
    canvas, title, caption = picture
    save_picture(canvas, path)
    return Figure(title, path, caption, round(float(canvas.get_size_inches()[0]) / MM, 1))


def _panels(findings: Findings, canvas: Canvas) -> dict[str, Box]:
    """Where the panels of a scatter are."""
    places = [axes.get_position() for axes in canvas.axes]
    boxes = [tuple(round(float(v), 5) for v in (p.x0, 1 - p.y1, p.width, p.height)) for p in places]
    return {c.name: (box[0], box[1], box[2], box[3]) for c, box in zip(findings.all_comparisons, boxes, strict=True)}
