"""Pages from templates: one HTML file each that needs nothing beside itself."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.pages import text
from analysis.pages.figures import Figure
from analysis.pages.verdict import verdict
from analysis.stats.agreement import PERMUTATIONS, RESAMPLES
from analysis.stats.prediction import KINDS, SHIFTS
from analysis.stats.reliability import REPORT_SPLITS, WEIGHT_SPLITS
from analysis.study.released_files import ASKED
from analysis.study.results import Findings
from store.files import write_text
from store.manifests import Manifest
from store.provenance import provenance
from task import thresholds
from task.replies import REASONS, UNDECIDED

TEMPLATES = Path(__file__).parent / "templates"

WRITING = (
    "as_number",
    "by_reason",
    "interval",
    "main_figures",
    "number",
    "other_figures",
    "part_of",
    "p_value",
    "percent",
    "predicted",
    "plain",
    "shares",
    "small",
    "with_ends",
)
"""Functions of `analysis.pages.text` that templates call."""

CONSTANTS = {
    "ASKED": ASKED,
    "KINDS": KINDS,
    "MISSING": text.MISSING,
    "NOT_TESTABLE": text.NOT_TESTABLE,
    "PERMUTATIONS": PERMUTATIONS,
    "REPORT_SPLITS": REPORT_SPLITS,
    "REASONS": REASONS,
    "RESAMPLES": RESAMPLES,
    "SHIFTS": SHIFTS,
    "UNDECIDED": UNDECIDED,
    "WEIGHT_SPLITS": WEIGHT_SPLITS,
    **{name: value for name, value in vars(thresholds).items() if name.isupper()},
}
"""Constants that templates show."""


def write_page(
    template: str,
    results: Findings,
    figures: list[Figure],
    path: Path,
    origin: Iterable[Manifest[Any]] = (),
    **values: Any,
) -> None:
    """Fill in one of the page templates and write it to `path`, with the pictures inside it.

    `origin` is where the results come from. A value that the template needs and does not get is an error.
    """
    fill_in(template, path, results=results, verdict=verdict(results), figures=figures, origin=origin, **values)


def fill_in(
    template: str, path: Path, figures: list[Figure], origin: Iterable[Manifest[Any]] = (), **values: Any
) -> None:
    """Fill in a template, of a page of whatever kind, and write it to `path`, with the pictures inside it."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(CONSTANTS, **{name: getattr(text, name) for name in WRITING})
    sources = [base64.b64encode(figure.path.read_bytes()).decode() for figure in figures]
    embedded = [(f, f"data:image/png;base64,{source}") for f, source in zip(figures, sources, strict=True)]
    page = environment.get_template(template).render(figures=embedded, made_with=_made_with(origin), **values)
    write_text(path, page)


def _made_with(origin: Iterable[Manifest[Any]]) -> dict[str, str]:
    """Revisions and versions of all stages and of this analysis."""
    made, now = list(origin), provenance()
    versions: dict[str, set[str]] = {}
    for packages in (*(stage.packages for stage in made), now["packages"]):
        for package, version in packages.items():
            versions.setdefault(package, set()).add(version)
    revisions = {git or "not a git checkout" for git in (*(stage.git for stage in made), now["git"])}
    return {
        "git": ", ".join(sorted(revisions)),
        "packages": ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in sorted(versions.items())),
        "python": ", ".join(sorted({*(stage.python for stage in made), now["python"]})),
    }
