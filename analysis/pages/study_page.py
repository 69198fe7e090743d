"""The page of a study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from analysis.pages.drawing import house_style
from analysis.pages.figures import Figure, saved
from analysis.pages.page import fill_in
from analysis.pages.study_figures import draw_forest, draw_ladder, ladder
from analysis.pages.study_series import draw_series
from analysis.pages.study_text import of_series, sentence
from analysis.pages.text import MISSING, NOT_TESTABLE, number, part_of, with_ends
from analysis.study.claims import CLAIMS
from analysis.study.meta import Pooled
from analysis.study.published import FIGURES, PUBLISHED
from analysis.study.several import ALL, pooled, scale_of
from analysis.study.study import Study
from analysis.study.verdicts import ClaimVerdict


def save_study_figures(study: Study, folder: Path) -> list[Figure]:
    """Draw the pictures of a study into `folder`.

    These are correlations and differences, what was found inside arms, series of states and their midpoints, each where
    any run has them, and figures by size where sizes differ.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with house_style():
        drawn = {
            f"{scale}s": draw_forest(study.runs, figures, f"{scale.capitalize()}s, run by run and together")
            for scale in ("correlation", "difference")
            if (figures := [figure for figure in study.main_figures if scale_of(figure) == scale])
        }
        if figures := study.inside_figures:
            drawn["inside"] = draw_forest(study.runs, figures, "Deciding and reporting inside adapters, run by run")
        drawn |= draw_series(study)
        if figures := study.midpoint_figures:
            drawn["midpoints"] = draw_forest(study.runs, figures, *_midpoints(study))
        if rungs := ladder(study.runs):
            drawn["ladder"] = draw_ladder(rungs)
        return [saved(picture, folder / f"{name}.png") for name, picture in drawn.items()]


def _midpoints(study: Study) -> tuple[str, float, str]:
    """Title of the picture of midpoints, the largest that can be, and what is counted."""
    title = (
        "Where curves are half-way between their ends, layers below the cut or from it on kept, run by run and together"
    )
    if len(study.depths_of_models) == 1:
        return title, float(max(study.depths_of_models)), "layer, or layers behind"
    return title, 1.0, "share of the depth"


def write_study_page(
    study: Study, figures: list[Figure], crossed: Mapping[str, object], notes: list[str], path: Path
) -> None:
    """Write the page of a study to `path`; `crossed` are `analysis.cross_model.Crossed` by comparison."""
    fill_in(
        "study.html.j2",
        path,
        figures,
        study=study,
        claims=[claim.words for claim in CLAIMS],
        sentence=sentence,
        read_from=read_from,
        beside=beside(study),
        published=PUBLISHED,
        ours=[group for group in study.groups if group != ALL],
        crossed=crossed,
        of_series=of_series(study),
        notes=notes,
    )


def read_from(found: ClaimVerdict) -> list[str]:
    """The figures of a verdict with their intervals."""
    kept = [part.pooled for part in found.parts if part.pooled.runs]
    return [with_ends(p.mean, p.low, p.high, signed=True) for p in kept]


def beside(study: Study) -> list[tuple[str, list[str]]]:
    """The figures that were published, and those of each group of runs beside them: a row a comparison."""
    groups = {group: members for group, members in study.groups.items() if group != ALL}
    rows = []
    for name in FIGURES:
        theirs = [number(found.r[name]) for found in PUBLISHED]
        ours = []
        for members in groups.values():
            there = [run.figures[f"{name}.r"] for run in members if f"{name}.r" in run.figures]
            ours.append(_cell(pooled(f"{name}.r", there), bool(there)))
        rows.append((name, [*theirs, *ours]))
    readable = [part_of(found.readable, found.asked) for found in PUBLISHED]
    for members in groups.values():
        counts = [run.readable["instilled"] for run in members if "instilled" in run.readable]
        readable.append(part_of(*(sum(side) for side in zip(*counts, strict=True))) if counts else MISSING)
    return [*rows, ("readable reports, instilled", readable)]


def _cell(found: Pooled, measured: bool) -> str:
    if not measured:
        return MISSING
    return with_ends(found.mean, found.low, found.high) if found.runs else NOT_TESTABLE
