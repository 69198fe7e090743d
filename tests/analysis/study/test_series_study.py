"""Series of several runs: every run a line, midpoints pooled in layers or as shares of the depth, every state a row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from bare_runs import bare_run

from analysis.pages.study_page import save_study_figures, write_study_page
from analysis.pages.study_series import draw_series
from analysis.study.__main__ import curves, table, write_study_of
from analysis.study.meta import pool
from analysis.study.several import ALL, StudyRun
from analysis.study.study import Study, figure_summaries, study_of
from store.curves_summary import (
    AblationSummary,
    CorrelationSummary,
    CutSummary,
    DepthPoint,
    DepthSummary,
    LagSummary,
    MidpointSummary,
    SideSummary,
    StateSummary,
    StepSummary,
    TrajectorySummary,
)
from store.manifests import OutputFacts, read_manifest

LAYERS = 8
NONE = CorrelationSummary(testable=False, reason="it does not decide", n_contexts=0)
KEPT = "instilled on native, layers below"


def correlation(r: float | None) -> CorrelationSummary:
    return NONE if r is None else CorrelationSummary(testable=True, reason=None, r=r, low=r - 0.1, high=r + 0.1)


def state(learned: float | None, faithful: float | None, reported: float = 0.4) -> dict[str, Any]:
    """How a state decides and reports."""
    return {
        "arms": ["an_arm"],
        "learned_vs_target": correlation(learned),
        "reported_vs_learned": correlation(faithful),
        "reported_vs_target": correlation(reported),
        "base_vs_learned": NONE,
        **{"agreement": 0.7, "agreement_low": 0.6, "agreement_high": 0.8},
        **{"readable": 1.0, "reports": 5, "constrained": False, "letter_mass": 1.0, "undecided": 0.0, "trials": 9},
    }


def trajectory(faithful: float | None) -> TrajectorySummary:
    points = [StepSummary(step=0, **state(None, None)), StepSummary(step=50, **state(0.5, 0.1))]
    return TrajectorySummary(
        training="instilled",
        teach="decisions",
        contexts="native",
        n_contexts=9,
        points=[*points, StepSummary(step=100, **state(0.9, faithful))],
        off_the_shelf=StateSummary(**state(None, None)),
    )


def midpoint(layer: float | None) -> MidpointSummary:
    if layer is None:
        return MidpointSummary(testable=False, reason="it is half-way at 3 places", n_contexts=9)
    return MidpointSummary(testable=True, reason=None, layer=layer, low=layer - 1, high=layer + 1, n_contexts=9)


def ablation(decisions: float | None, reports: float, layers: int) -> AblationSummary:
    """An adapter whose midpoints of decisions and of reports are given."""
    known = {"decisions": decisions, "reports": reports, "faithfulness": reports, "agreement": reports}
    behind = None if decisions is None else decisions - reports
    lag = LagSummary(testable=behind is not None, reason=None if behind else "no", layers=behind, low=0.0, high=3.0)
    same = LagSummary(testable=True, reason=None, layers=0.0, low=-1.0, high=1.0)
    side = SideSummary(
        points=[CutSummary(cut=cut, **state(0.1 + 0.8 * cut / layers, 0.2)) for cut in range(0, layers + 1, 2)],
        midpoints={name: midpoint(layer) for name, layer in known.items()},
        behind_reports={"decisions": lag, "agreement": same},
    )
    return AblationSummary(
        arm="instilled", base="off_the_shelf", contexts="native", n_contexts=9, layers=layers, sides={"below": side}
    )


def depth(faithful: float) -> DepthSummary:
    points = [
        DepthPoint(training=f"{side}_{k}", layers=f"{side} {k}", side=side, k=k, **state(0.1 * k, faithful))
        for side in ("first", "last")
        for k in (2, 4)
    ]
    points.append(DepthPoint(training="middle", layers="3-5", side=None, k=None, **state(0.5, 0.5)))
    whole = {"instilled": StateSummary(**state(0.9, 0.8))}
    return DepthSummary(
        teach="decisions",
        start="off_the_shelf",
        contexts="native",
        n_contexts=9,
        points=points,
        whole=whole,
        off_the_shelf=None,
    )


def planted(seed: int, model: str, faithful: float | None, decisions: float | None, layers: int) -> StudyRun:
    return bare_run(
        seed,
        model,
        name=model.rpartition("/")[2],
        trajectories={"instilled/native": trajectory(faithful).model_dump()},
        ablations={"instilled/native": ablation(decisions, 3.0, layers).model_dump()},
        depths={"decisions from off_the_shelf/native": depth(0.3).model_dump()},
    )


@pytest.fixture(scope="module")
def runs() -> list[StudyRun]:
    """Three trainings of a model, the last of which came out worst, and a run without any series."""
    truth = [(0.8, 4.0), (0.3, 5.0), (-0.4, None)]
    found = [planted(seed, "x/m", faithful, layer, LAYERS) for seed, (faithful, layer) in enumerate(truth)]
    return [*found, bare_run(9, "x/m", name="m")]


@pytest.fixture(scope="module")
def both(runs: list[StudyRun]) -> Study:
    """The same beside a model twice as deep, whose midpoint lies at the same share of it."""
    return study_of([*runs, planted(0, "y/deep", 0.5, 9.5, 2 * LAYERS)])


def test_midpoints_are_pooled_in_layers_over_the_runs_that_have_one(runs: list[StudyRun]):
    study = study_of(runs)
    figure = f"{KEPT}.midpoint_of_decisions"
    found = figure_summaries(study)[figure]
    assert found.scale == "difference" and [*found.runs] == [f"m-seed{seed}" for seed in range(3)]
    assert not found.runs["m-seed2"].testable and found.runs["m-seed2"].reason == "it is half-way at 3 places"
    wanted = pool([4, 5], [3, 4], [5, 6])
    assert (found.pooled["m"].mean, found.pooled["m"].low, found.pooled["m"].runs) == (wanted.mean, wanted.low, 2)
    behind = figure_summaries(study)[f"{KEPT}.decisions_behind_reports"].pooled["m"]
    assert (behind.mean, behind.runs) == (pytest.approx(1.5), 2)
    assert study.midpoint_figures == [
        *(f"{KEPT}.midpoint_of_{curve}" for curve in ("decisions", "reports", "faithfulness", "agreement")),
        *(f"{KEPT}.{curve}_behind_reports" for curve in ("decisions", "agreement")),
    ]


def test_models_of_different_depth_are_held_together_by_shares_of_it(both: Study):
    figures = figure_summaries(both)
    in_layers = figures[f"{KEPT}.midpoint_of_decisions"]
    assert {*in_layers.pooled} == {"m", "deep"}, "layers of different models are not averaged"
    share = figures[f"{KEPT}.midpoint_of_decisions_as_share_of_depth"]
    # The middle of layer 4 of 8 lies at 4.5 / 8, that of 5 at 5.5 / 8, and 9.5 of 16 at 10 / 16.
    assert [found.estimate for found in share.runs.values() if found.testable] == pytest.approx(
        [4.5 / 8, 5.5 / 8, 0.625]
    )
    assert share.pooled[ALL].runs == 3 and share.pooled[ALL].mean == pytest.approx(0.625, abs=1e-6)
    lag = figures[f"{KEPT}.decisions_behind_reports_as_share_of_depth"].runs["deep-seed0"]
    assert (lag.estimate, lag.low, lag.high) == pytest.approx((6.5 / 16, 0, 3 / 16)), "a distance has no middle"
    assert all(figure.endswith("_as_share_of_depth") for figure in both.midpoint_figures)


def test_every_state_of_every_run_is_a_row(both: Study):
    found = curves(both)
    assert {*found["run"]} == {"m-seed0", "m-seed1", "m-seed2", "deep-seed0"}
    mine = found[(found["run"] == "m-seed2") & (found["figure"] == "reported_vs_learned")]
    steps = mine[mine["series"] == "trajectory"]
    assert [*steps["state"]] == ["before any training", "step 0", "step 50", "step 100"]
    last = steps.iloc[-1]
    assert (last["name"], last["contexts"], last["place"], last["estimate"]) == ("instilled", "native", 100, -0.4)
    assert steps.iloc[0]["reason"] == "it does not decide" and not steps.iloc[0]["testable"]
    cuts, deep = (mine[mine["series"] == kind] for kind in ("ablation", "depth"))
    assert str(found["place"].dtype) == str(found["n_contexts"].dtype) == "Int64", "counts, not 20.0"
    assert [*cuts["place"]] == [0, 2, 4, 6, 8] and {*cuts["side"]} == {"below"}
    assert [*deep["state"]] == [
        *(f"layers {w}" for w in ("first 2", "first 4", "last 2", "last 4", "3-5")),
        "all layers",
    ]
    share = found[found["figure"] == "agreement"].iloc[0]
    assert (share["estimate"], share["low"], share["high"]) == (0.7, 0.6, 0.8)


def test_every_run_is_a_line_in_the_colour_of_its_model(both: Study):
    drawn = draw_series(both)
    assert [*drawn] == ["trajectories", "ablations", "depths"]
    for canvas, _, caption in drawn.values():
        [legend] = canvas.legends
        assert [text.get_text() for text in legend.get_texts()] == ["m-seed0", "m-seed1", "m-seed2", "deep-seed0"]
        colours = [handle.get_color() for handle in legend.get_lines()]
        assert len({*colours[:3]}) == 1 and colours[3] != colours[0]
        assert "Every run that has the series is drawn." in caption
    faithful = drawn["trajectories"][0].axes[1]
    ends = [line.get_ydata()[-1] for line in faithful.get_lines() if len(line.get_xdata()) == 3]
    assert ends == [0.8, 0.3, -0.4, 0.5], "the worst of all is there"
    assert faithful.get_ylim()[0] < -0.5, "with all of its interval"
    cuts = drawn["ablations"][0].axes[0]
    assert cuts.get_xlabel() == "cut, as share of depth" and cuts.get_xlim()[1] < 1.1
    marks = [
        float(line.get_xdata()[0])
        for line in cuts.get_lines()
        if len(line.get_xdata()) == 1 and line.get_ydata()[0] > 1
    ]
    assert marks == pytest.approx([4.5 / 8, 5.5 / 8, 10 / 16]), "the run without a midpoint has no mark"


def test_cuts_of_one_depth_are_drawn_by_layer(runs: list[StudyRun]):
    cuts = draw_series(study_of(runs))["ablations"][0].axes[0]
    assert cuts.get_xlabel() == "cut before layer" and cuts.get_xlim()[1] > LAYERS


def test_the_page_counts_runs_and_hides_none(both: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("analysis.pages.figures.save_picture", lambda canvas, path: path.write_bytes(b"picture"))
    figures = save_study_figures(both, tmp_path)
    assert {"trajectories", "ablations", "depths", "midpoints"} <= {figure.path.stem for figure in figures}
    write_study_page(both, figures, {}, [], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "“instilled” on native contexts was followed over 3 states in 4 of 5 runs (not in m-seed9)." in page
    assert "At the last state r(learned, target) is 0.90, r(reported, learned) -0.40 to 0.80." in page
    assert "Runs with a midpoint: decisions in 3 of 4, reports in 4 of 4, faithfulness in 4 of 4 and" in page
    assert "“decisions from off the shelf” on native contexts: 5 trainings in some layers only, in 4 of 5 runs" in page


def test_the_table_of_states_lies_beside_the_others_where_there_are_any(
    runs: list[StudyRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("analysis.pages.figures.save_picture", lambda canvas, path: path.write_bytes(b"picture"))
    monkeypatch.setattr("analysis.study.__main__.cross", lambda study, notes: {})
    write_study_of(study_of(runs), tmp_path / "with")
    written = pd.read_csv(tmp_path / "with" / "curves.csv")
    assert len(written) == len(curves(study_of(runs)))
    assert "curves.csv" in read_manifest(tmp_path / "with", OutputFacts).facts.files
    assert {*table(study_of(runs))["figure"]} >= {f"{KEPT}.midpoint_of_reports"}
    write_study_of(study_of(runs[3:]), tmp_path / "without")
    assert not (tmp_path / "without" / "curves.csv").exists()
    assert "Series of states" not in (tmp_path / "without" / "report.html").read_text(encoding="utf-8")
