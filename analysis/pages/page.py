"""Pages from templates: one HTML file each that needs nothing beside itself."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.pages import text
from analysis.pages.figures import Figure
from analysis.pages.verdict import verdict
from analysis.stats.agreement import PERMUTATIONS, RESAMPLES
from analysis.study.results import Findings
from store.files import write_text
from task import thresholds

TEMPLATES = Path(__file__).parent / "templates"

WRITING = (
    text.interval,
    text.main_figures,
    text.number,
    text.other_figures,
    text.part_of,
    text.percent,
    text.plain,
    text.small,
)
"""Functions that templates call."""

CONSTANTS = {
    "MISSING": text.MISSING,
    "NOT_TESTABLE": text.NOT_TESTABLE,
    "PERMUTATIONS": PERMUTATIONS,
    "RESAMPLES": RESAMPLES,
    **{name: value for name, value in vars(thresholds).items() if name.isupper()},
}
"""Constants that templates show."""


def write_page(template: str, results: Findings, figures: list[Figure], path: Path, **values: Any) -> None:
    """Fill in one of the page templates and write it to `path`, with the pictures inside it.

    A value that the template needs and does not get is an error.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(CONSTANTS, **{function.__name__: function for function in WRITING})
    sources = [base64.b64encode(figure.path.read_bytes()).decode() for figure in figures]
    embedded = [(f, f"data:image/png;base64,{source}") for f, source in zip(figures, sources, strict=True)]
    page = environment.get_template(template)
    write_text(path, page.render(results=results, verdict=verdict(results), figures=embedded, **values))
