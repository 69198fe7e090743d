"""The report of a run: one HTML page that needs nothing beside itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from analysis.pages.figures import Figure
from analysis.pages.page import write_page
from analysis.study.results import RunResults
from store.provenance import provenance
from task.thresholds import TRUSTED_PARETO_K

LISTED = 10
"""Contexts shown with their weights."""


def write_report(results: RunResults, figures: list[Figure], path: Path) -> None:
    """Write the report of a run to `path`, with the pictures inside it."""
    write_page(
        "report.html.j2",
        results,
        figures,
        path,
        unreliable=_unreliable(results),
        listed=list(results.learned_vs_target.points.groupby("context", sort=False))[:LISTED],
        facts=provenance_rows(results),
    )


def provenance_rows(results: RunResults) -> list[tuple[str, str]]:
    """Where the figures come from: model, seed, revisions and versions of all stages and of this analysis."""
    made, now = results.stages.values(), provenance()
    versions: dict[str, set[str]] = {}
    for packages in (*(stage.packages for stage in made), now["packages"]):
        for package, version in packages.items():
            versions.setdefault(package, set()).add(version)
    return [
        ("run", f"{results.name}, seed {results.seed}"),
        ("model", _model(results)),
        ("git", _distinct(git or "not a git checkout" for git in (*(stage.git for stage in made), now["git"]))),
        ("packages", ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in sorted(versions.items()))),
        ("python", _distinct((*(stage.python for stage in made), now["python"]))),
    ]


def _model(results: RunResults) -> str:
    model = results.record.model
    if model is None:
        return "none: a simulated chooser and reporter with planted weights"
    revision = [f"revision {model.revision}"] if model.revision else []
    fingerprints = [f"fingerprint {base}" for base in results.base_models]
    return ", ".join([model.name, *revision, f"dtype {model.dtype}", *fingerprints])


def _unreliable(results: RunResults) -> str:
    """How many posteriors are not to be trusted, or nothing if all are."""
    k = np.concatenate([measured.pareto_k for measured in results.measured.values()])
    bad = int((~(k <= TRUSTED_PARETO_K)).sum())
    return f"{bad} of {len(k)}" if bad else ""


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))
