"""Pages from templates: one HTML file each that needs nothing beside itself."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.pages.figures import Figure

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """Fill in one of the page templates; a value that it needs and does not get is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def embedded(figures: list[Figure]) -> list[tuple[Figure, str]]:
    """Figures with the source of their image: the PNG file itself, so that the page needs no file beside it."""
    sources = [base64.b64encode(figure.path.read_bytes()).decode() for figure in figures]
    return [(f, f"data:image/png;base64,{source}") for f, source in zip(figures, sources, strict=True)]
