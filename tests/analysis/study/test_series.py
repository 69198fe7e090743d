"""Series of states with planted truth: steps of a training, cuts of an adapter, trainings in some layers."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted_states import STEPS, TAUGHT, planted_run

from analysis.pages.report import write_report
from analysis.pages.series import save_series
from analysis.run import summary
from analysis.study.comparisons import asked_source
from analysis.study.results import RunResults, analyse
from analysis.study.trajectory import trajectories_of
from store.run import ArmRecord, Source
from store.state_inputs import analysis_inputs
from store.summary import RunSummary, read_summary, write_summary
from store.trials import DecisionTrials, ReportTrials
from task.prompts import DEFAULT

LAYERS = 6
DECIDES, REPORTS = 3, 2
"""The layers that hold all of deciding and of reporting."""


def planted() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """How each arm answers, and what its record says."""
    base = {"sharpness": 0.0, "noise": 1.0, "report_accuracy": 0.0}
    arms: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {"off_the_shelf": (base, {})}
    steps = {10: {"report_accuracy": 0.2}, 20: {"report_accuracy": 0.6}}
    steps[30] = {"report_accuracy": 0.8, "position_bias": 50.0}
    for step, answers in steps.items():
        arms[f"instilled@{step}"] = answers, {**TAUGHT, "step": step}
    for cut in range(1, LAYERS):
        for side, decides, reports in (
            ("below", cut > DECIDES, cut > REPORTS),
            ("from", cut <= DECIDES, cut <= REPORTS),
        ):
            answers = {**(base if not decides else {}), "report_accuracy": 0.9 * reports}
            record = {"cut_of": "instilled", "cut": cut, "kept_side": side, "layer_count": LAYERS, "derived": {}}
            arms[f"instilled_{side}_{cut}"] = answers, record
    for side, accuracies in (("first", (0.3, 0.8)), ("last", (0.0, 0.1))):
        for k, accuracy in zip((2, 4), accuracies, strict=True):
            record = {**TAUGHT, "training": f"{side}_{k}", "layers": f"{side} {k}"}
            arms[f"{side}_{k}"] = {"report_accuracy": accuracy}, record
    return arms


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> RunResults:
    """What the analysis of that run finds."""
    return analyse(planted_run(tmp_path_factory.mktemp("states"), planted()).path)


@pytest.fixture(scope="module")
def told(results: RunResults) -> RunSummary:
    return summary(results)


def test_a_training_is_followed_from_its_start_to_its_end(told: RunSummary):
    assert [*told.trajectories] == ["instilled/instilled"]
    found = told.trajectories["instilled/instilled"]
    assert (found.training, found.teach, found.contexts, found.n_contexts) == (
        "instilled",
        "decisions",
        "instilled",
        20,
    )
    assert [point.step for point in found.points] == [0, 10, 20, 30, STEPS]
    assert [point.arms for point in found.points[::4]] == [["off_the_shelf"], ["instilled"]]
    for point, planted in zip(found.points[1:], (0.2, 0.6, 0.8, 0.9), strict=True):
        assert point.reported_vs_target.low - 0.05 <= planted <= point.reported_vs_target.high + 0.05
        assert (point.reports, point.readable, point.trials, point.undecided) == (80, 1, 800, 0)
        assert point.letter_mass == pytest.approx(1)
    faithful = [found.points[place].reported_vs_learned.r for place in (1, 2, 4)]
    assert faithful == sorted(faithful) and faithful[0] < 0.45 < faithful[1] < 0.75 < faithful[2]


def test_reports_of_one_kind_are_followed_where_some_steps_have_no_other(results: RunResults, told: RunSummary):
    """The finished training writes no readable report of its own accord; within the form it reports as before."""

    def name(arm: str, constrained: bool) -> str:
        source = Source(arm=arm, variant=DEFAULT["reports"], constrained=constrained, contexts=[])
        return asked_source(source, "reports")

    reported = dict(results.reported)
    for step in (10, 20, 30):
        reported[name(f"instilled@{step}", True)] = reported.pop(name(f"instilled@{step}", False))
    free = reported[name("instilled", True)] = reported[name("instilled", False)]
    reported[name("instilled", False)] = dataclasses.replace(free, values=np.full_like(free.values, np.nan))
    found = trajectories_of(dataclasses.replace(results, reported=reported))["instilled/instilled"]
    assert [point.constrained for point in found.points] == [False, True, True, True, True], (
        "the start has only free ones"
    )
    before = told.trajectories["instilled/instilled"].points[-1]
    assert found.points[-1] == before.model_copy(update={"constrained": True})


def test_the_last_point_is_what_the_run_says_of_the_finished_arm(told: RunSummary):
    last = told.trajectories["instilled/instilled"].points[-1]
    for mine, its_own in (
        (last.learned_vs_target, told.learned_vs_target),
        (last.reported_vs_learned, told.comparisons["instilled"]),
    ):
        found = its_own.r, its_own.boot_low, its_own.boot_high, its_own.n_contexts
        assert (mine.r, mine.low, mine.high, mine.n_contexts) == found
    own = told.decisions["instilled/instilled"]
    assert (last.agreement, last.agreement_low) == (own.agreement, own.agreement_low)


def test_what_an_arm_did_not_decide_is_missing_with_its_reason(told: RunSummary):
    found = told.trajectories["instilled/instilled"]
    one_letter, start = found.points[3], found.points[0]
    for state in (one_letter, start, found.off_the_shelf):
        for name in ("learned_vs_target", "reported_vs_learned", "base_vs_learned"):
            missing = getattr(state, name)
            assert not missing.testable and missing.r is None
            assert missing.reason.startswith(f"{state.arms[0]} does not decide on instilled contexts: ")
        assert state.reported_vs_target.testable, "reports need no decisions"
        assert state.agreement == pytest.approx(0.5, abs=0.06)


def test_an_adapter_is_cut_with_its_base_and_itself_at_the_ends(told: RunSummary):
    found = told.ablations["instilled/instilled"]
    assert (found.arm, found.base, found.layers, found.n_contexts) == ("instilled", "off_the_shelf", LAYERS, 20)
    below, above = found.sides["below"].points, found.sides["from"].points
    assert [p.cut for p in below] == [p.cut for p in above] == [*range(LAYERS + 1)]
    assert [below[0].arms, below[-1].arms] == [above[-1].arms, above[0].arms] == [["off_the_shelf"], ["instilled"]]


@pytest.mark.parametrize("side", ["below", "from"])
def test_midpoints_are_at_the_layers_that_hold_what_is_measured(told: RunSummary, side: Any):
    found = told.ablations["instilled/instilled"].sides[side]
    for curve, layer in (("reports", REPORTS), ("agreement", DECIDES)):
        midpoint = found.midpoints[curve]
        assert midpoint.testable and midpoint.layer == pytest.approx(layer, abs=0.25)
        assert midpoint.low <= midpoint.layer <= midpoint.high and midpoint.high - midpoint.low < 0.6
        assert (midpoint.first_cut, midpoint.last_cut, midpoint.n_contexts) == (0, LAYERS, 20)
    lag = found.behind_reports["agreement"]
    assert lag.testable and lag.layers == pytest.approx(DECIDES - REPORTS, abs=0.3) and lag.low < lag.layers < lag.high
    # Where nothing is kept that decides, there are no weights: r(learned, target) begins where the arm decides.
    assert found.midpoints["decisions"].reason and "do not differ" in found.midpoints["decisions"].reason
    assert "decisions has no midpoint" in str(found.behind_reports["decisions"].reason)


def test_trainings_in_some_layers_stand_beside_that_in_all(told: RunSummary):
    [(name, found)] = told.depths.items()
    assert name == "decisions on instilled from off_the_shelf/instilled"
    assert [(p.layers, p.side, p.k) for p in found.points][:2] == [("first 2", "first", 2), ("first 4", "first", 4)]
    faithful = {p.layers: p.reported_vs_learned.r for p in found.points}
    assert faithful["last 4"] < 0.3 < faithful["first 4"] and faithful["first 2"] < faithful["first 4"]
    assert [*found.whole] == ["instilled"] and found.off_the_shelf is not None


def test_a_summary_with_series_reads_as_it_was_written(told: RunSummary, tmp_path: Path):
    write_summary(tmp_path / "summary.json", told)
    assert read_summary(tmp_path / "summary.json") == told


def test_the_page_says_what_is_shown_and_why_points_are_missing(
    results: RunResults, told: RunSummary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("analysis.pages.figures.save_picture", lambda canvas, path: path.write_bytes(b"picture"))
    figures = save_series(told, tmp_path)
    assert [figure.path.stem for figure in figures] == ["trajectories", "ablations", "depths"]
    write_report(results, told, figures, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "“instilled” was measured at 5 steps on 20 instilled contexts." in page
    assert page.count("none was chosen by its outcome") >= 3
    assert "30: instilled@30 does not decide on instilled contexts: " in page
    assert "3 kept steps" in page and "10 cuts" in page
    assert "<b>instilled@10</b>" not in page, "a kept step is no box of its own"


def test_folds_that_speak_for_their_own_contexts_are_one_line(results: RunResults):
    half = {*results.groups["instilled"][:10]}
    whole = trajectories_of(results)["instilled/instilled"].points[2]
    parts = {"fold_1": half, "fold_2": {*results.groups["instilled"]} - half}
    record = {name: made for name, made in results.record.arms.items() if made.step is None}
    record |= {f"{arm}@20": ArmRecord(**TAUGHT, step=20) for arm in parts}
    decided = {f"{arm}@20": only(results.decided["instilled@20"], names) for arm, names in parts.items()}
    reported = {f"{arm}@20": only(results.reported["instilled@20"], names) for arm, names in parts.items()}
    measured = {f"{arm}@20": only(results.measured["instilled@20"], names) for arm, names in parts.items()}
    split = dataclasses.replace(
        results,
        record=results.record.model_copy(update={"arms": record}),
        decided={**results.decided, **decided},
        reported={**results.reported, **reported},
        measured={**results.measured, **measured},
    )
    found = trajectories_of(split)["instilled/instilled"]
    assert [point.step for point in found.points] == [0, 20], "the folds themselves were not measured"
    assert found.points[1].arms == ["fold_1@20", "fold_2@20"]
    assert found.points[1].model_copy(update={"arms": ["instilled@20"]}) == whole
    overlapping = {**split.decided, "fold_1@20": results.decided["instilled@20"]}
    apart = trajectories_of(dataclasses.replace(split, decided=overlapping))
    assert [*apart] == ["fold_1/instilled", "fold_2/instilled"]


def only(found: Any, names: set[str]) -> Any:
    """What is known of an arm on some contexts alone."""
    rows = [row for row, name in enumerate(found.contexts) if name in names]
    assert isinstance(found, DecisionTrials | ReportTrials) or hasattr(found, "pareto_k")

    def part(value: Any) -> Any:
        if isinstance(value, np.ndarray) and len(value) == len(found.contexts):
            return value[rows]
        return [value[row] for row in rows] if isinstance(value, list) and len(value) == len(found.contexts) else value

    return dataclasses.replace(found, **{f.name: part(getattr(found, f.name)) for f in dataclasses.fields(found)})


def test_a_run_without_such_arms_says_nothing_of_series(simulated_run: Path, passed: RunResults):
    written = json.loads((simulated_run / "analysis" / "summary.json").read_text())
    assert not {*written} & {"trajectories", "ablations", "depths", "inside"}
    figures = {path.stem for path in (simulated_run / "analysis" / "figures").iterdir()}
    assert not figures & {"trajectories", "ablations", "depths"}
    page = (simulated_run / "analysis" / "report.html").read_text(encoding="utf-8")
    assert "none was chosen by its outcome" not in page
    assert (
        analysis_inputs(passed.run, passed.record)["record"]
        == json.loads((simulated_run / "analysis" / "manifest.json").read_text())["depends_on"]["record"]
    )
