"""The page about one model's released files: each figure beside the paper's, and how far to believe it."""

from __future__ import annotations

from pathlib import Path

from analysis.pages.figures import Figure
from analysis.pages.page import write_page
from analysis.pages.text import interval, number
from analysis.stats.reliability import REPORT_SPLITS, WEIGHT_SPLITS
from analysis.study.released_files import ASKED
from analysis.study.released_results import ReleasedResults
from store.provenance import provenance


def write_released_page(results: ReleasedResults, figures: list[Figure], path: Path) -> None:
    """Write the page to `path`, with the pictures inside it."""
    made = provenance()
    packages = ", ".join(f"{name} {version}" for name, version in sorted(made["packages"].items()))
    missing: dict[str, list[str]] = {}
    for t in results.missing:
        cell = f"{number(t.r)} {interval(t.boot_low, t.boot_high)}, {t.n_contexts} contexts"
        missing.setdefault(t.reports, []).append(cell)
    write_page(
        "released.html.j2",
        results,
        figures,
        path,
        facts=[("git", made["git"] or "not a git checkout"), ("packages", packages), ("python", made["python"])],
        missing=missing,
        ASKED=ASKED,
        REPORT_SPLITS=REPORT_SPLITS,
        WEIGHT_SPLITS=WEIGHT_SPLITS,
    )
