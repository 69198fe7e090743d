"""The report of a run: one HTML page that needs nothing beside itself."""

from __future__ import annotations

from pathlib import Path

from analysis.pages.figures import Figure
from analysis.pages.page import write_page
from analysis.study.results import RunResults

LISTED = 10
"""Contexts shown with their weights."""


def write_report(results: RunResults, figures: list[Figure], path: Path) -> None:
    """Write the report of a run to `path`, with the pictures inside it."""
    weights = list(results.learned_vs_target.points.groupby("context", sort=False))[:LISTED]
    stages = results.stages.values()
    write_page("report.html.j2", results, figures, path, stages, listed=weights, model=_model(results))


def _model(results: RunResults) -> str:
    model = results.record.model
    if model is None:
        return "none: a simulated chooser and reporter with planted weights"
    revision = [f"revision {model.revision}"] if model.revision else []
    fingerprints = [f"fingerprint {base}" for base in results.base_models]
    return ", ".join([model.name, *revision, f"dtype {model.dtype}", *fingerprints])
