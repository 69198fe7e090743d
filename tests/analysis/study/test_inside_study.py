"""What was found inside arms, in several runs together: every run is there, and figures are pooled as they should."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from bare_runs import bare_run

from analysis.pages.study_page import save_study_figures
from analysis.study.inside_study import inside_figures
from analysis.study.meta import pool, pool_correlations
from analysis.study.several import StudyRun, scale_of
from analysis.study.study import figure_summaries, study_of
from store.inside_summary import (
    CurveSummary,
    EndsSummary,
    FreshSummary,
    InsideDifferenceSummary,
    InsideSummary,
    PatchingSummary,
)

MEANS = [0.3, 0.35, 0.1]
"""Similarity of the small adapters in three runs; the last one is the least welcome, and is there."""


def ends(middle: float, half: float = 0.1) -> EndsSummary:
    return EndsSummary(estimate=middle, low=middle - half, high=middle + half)


def inside(similarity: float) -> InsideSummary:
    """A run with small adapters, a difference and a patching."""
    fresh = FreshSummary(
        backbone="introspection",
        arms=[],
        missing=[],
        similarity=ends(similarity),
        similarity_sd=0.2,
        faithfulness=ends(0.5),
        random=[0.0],
        relation=EndsSummary(estimate=None),
        p_relation=None,
        relation_contexts=0,
    )
    curve = {"draws": 1, "k": [1, 8], "recovery": [0.5, 1], "low": [0.4, 1], "high": [0.6, 1], "half": ends(1.0)}
    times = EndsSummary(estimate=8.0, low=4.0, high=16.0)
    curves = [
        CurveSummary(task="deciding", ranked_by="deciding", times_fewer=ends(9.0), **curve),
        CurveSummary(task="deciding", ranked_by="reporting", times_fewer=times, **curve),
        CurveSummary(task="deciding", ranked_by="random", times_fewer=None, **curve),
    ]
    difference = InsideDifferenceSummary(
        contrast="labels",
        first="introspection",
        second="shuffled",
        similarity=ends(similarity - 0.1),
        corrected=ends(similarity),
        times_fewer={"deciding": EndsSummary(estimate=2.0, low=1.0, high=None)},
        n_contexts=40,
        patched_contexts=20,
    )
    patching = PatchingSummary(
        backbone="off_the_shelf", matrices=8, n_contexts={"deciding": 30, "reporting": 0}, left_out=[], curves=curves
    )
    return InsideSummary(
        arms={}, fresh={"fresh": fresh}, differences=[difference], patching={"introspection": patching}, notes=[]
    )


@pytest.fixture(scope="module")
def runs() -> list[StudyRun]:
    return [studied(seed, similarity) for seed, similarity in enumerate(MEANS)]


def studied(seed: int, similarity: float) -> StudyRun:
    return bare_run(seed, inside=inside(similarity))


def test_figures_have_names_that_runs_share():
    found = {f"{figure.name}.{figure.kind}": figure for figure in inside_figures(inside(0.3))}
    assert [*found] == [
        "fresh.similarity",
        "fresh.similarity_with_faithfulness",
        "introspection less shuffled.similarity_difference",
        "introspection less shuffled.corrected_similarity_difference",
        "introspection less shuffled.log2_times_fewer_deciding",
        "introspection.log2_times_fewer_deciding",
    ]
    assert found["introspection.log2_times_fewer_deciding"].found == EndsSummary(estimate=3, low=2, high=4)
    assert found["introspection less shuffled.log2_times_fewer_deciding"].found.high is None
    assert found["introspection less shuffled.similarity_difference"].n_contexts == 40


def test_every_run_takes_part_and_is_shown(runs: list[StudyRun]):
    study = study_of(runs)
    figures = figure_summaries(study)
    similar, different = figures["fresh.similarity"], figures["introspection less shuffled.similarity_difference"]
    assert [found.estimate for found in similar.runs.values()] == MEANS
    lows, highs = (list(np.array(MEANS) + half) for half in (-0.1, 0.1))
    assert similar.scale == "correlation"
    assert similar.pooled["simulated"].mean == pytest.approx(pool_correlations(MEANS, lows, highs).mean)
    shifted = [[value - 0.1 for value in values] for values in (MEANS, lows, highs)]
    assert different.scale == "difference"
    assert different.pooled["simulated"].mean == pytest.approx(pool(*shifted).mean)
    assert different.pooled["simulated"].runs == 3


def test_what_a_run_could_not_tell_is_not_testable_and_takes_no_part(runs: list[StudyRun]):
    relation = runs[0].figures["fresh.similarity_with_faithfulness"]
    assert not relation.testable and math.isnan(relation.estimate)
    assert "simulated" not in figure_summaries(study_of(runs))["fresh.similarity_with_faithfulness"].pooled
    assert scale_of("introspection.log2_times_fewer_deciding") == "difference"


def test_a_study_draws_similarities_and_their_differences(runs: list[StudyRun]):
    assert study_of(runs).inside_figures == [
        "fresh.similarity",
        "fresh.similarity_with_faithfulness",
        "introspection less shuffled.similarity_difference",
    ]
    assert study_of([dataclasses.replace(runs[0], figures={})]).inside_figures == []


def test_the_page_of_a_study_has_the_picture(runs: list[StudyRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("analysis.pages.figures.save_picture", lambda canvas, path: path.touch())
    assert "inside" in [figure.path.stem for figure in save_study_figures(study_of(runs), tmp_path)]
