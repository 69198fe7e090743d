"""The report of a run: one HTML page that needs nothing beside itself, unless its trials are too many."""

from __future__ import annotations

from pathlib import Path

from analysis.pages import series
from analysis.pages.design import control_differences, controls, tree
from analysis.pages.explorer import explorer
from analysis.pages.figures import Figure
from analysis.pages.inside_text import inside_tables
from analysis.pages.page import write_page
from analysis.pages.study_page import read_from
from analysis.pages.study_text import sentence
from analysis.study.results import RunResults
from analysis.study.several import study_run
from analysis.study.verdicts import judge_claims
from store.files import write_text
from store.summary import RunSummary

OF_SERIES = (
    series.r_of,
    series.why_missing,
    series.steps_of,
    series.cut_points,
    series.cuts_of,
    series.depth_points,
    series.words_of,
)
"""Functions that the tables of series call."""

LISTED = 10
"""Contexts shown with their weights in a table."""

TRIALS = "trials.js"
"""Trials that are too many for the page, beside it."""


def write_report(results: RunResults, summary: RunSummary, figures: list[Figure], path: Path) -> None:
    """Write the report of a run, of which `summary` has the figures, to `path`, with the pictures and trials inside."""
    weights = list(results.learned_vs_target.points.groupby("context", sort=False))[:LISTED]
    studied = study_run(results.record, summary, results.run.path)
    found = explorer(results, figures)
    if found.beside:
        write_text(path.with_name(TRIALS), f'window.packedTrials = "{found.packed}";\n')
    write_page(
        "report.html.j2",
        results,
        figures,
        path,
        results.stages.values(),
        listed=weights,
        model=_model(results),
        verdicts=judge_claims([studied], studied.smallest),
        smallest=studied.smallest,
        read_from=read_from,
        sentence=sentence,
        tree=tree(results),
        controls=controls(results),
        control_differences=control_differences(results),
        explorer=found,
        told=summary,
        inside=inside_tables(summary.inside),
        **{function.__name__: function for function in OF_SERIES},
    )


def _model(results: RunResults) -> str:
    model = results.record.model
    if model is None:
        return "none: a simulated chooser and reporter with planted weights"
    revision = [f"revision {model.revision}"] if model.revision else []
    fingerprints = [f"fingerprint {base}" for base in results.base_models]
    return ", ".join([model.name, *revision, f"dtype {model.dtype}", *fingerprints])
