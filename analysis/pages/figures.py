"""The pictures of a run or of released files, as PNG and PDF."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from analysis.pages.comparison_figures import draw_correlations, draw_scatter
from analysis.pages.decisions_figure import draw_decisions
from analysis.pages.drawing import MM, house_style, save_picture
from analysis.pages.training_figure import draw_training, has_curves
from analysis.study.results import Findings, RunResults


@dataclass(frozen=True)
class Figure:
    """One picture on disk: what it shows, its PNG file (a PDF lies beside it), how to read it, its width in print."""

    title: str
    path: Path
    caption: str
    width_mm: float


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
        for name, (canvas, title, caption) in drawn.items():
            path = folder / f"{name}.png"
            save_picture(canvas, path)
            figures.append(Figure(title, path, caption, round(float(canvas.get_size_inches()[0]) / MM, 1)))
    return figures
