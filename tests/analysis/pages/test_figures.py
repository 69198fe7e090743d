"""Pictures: what they show against the numbers, that all text fits, and that the same numbers give the same bytes."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure as Canvas
from matplotlib.text import Text
from PIL import Image

from analysis.pages.comparison_figures import draw_correlations, draw_scatter
from analysis.pages.decisions_figure import draw_decisions
from analysis.pages.drawing import house_style
from analysis.pages.figures import save_figures
from analysis.pages.text import NOT_TESTABLE, interval, number
from analysis.pages.training_figure import draw_training
from analysis.stats.agreement import agreement
from analysis.study.comparisons import ComparisonResult
from analysis.study.results import RunResults
from store.run import ArmRecord
from task.thresholds import COLLAPSED

Draw = Callable[[RunResults], tuple[Canvas, str, str]]

DECISIONS_LOG: list[dict[str, Any]] = [
    {"step": 10, "loss": 2.0, "agreement": 0.5, "letter_accuracy": 0.4, "share_a": 0.6},
    {"step": 20, "loss": 1.0, "agreement": 0.6, "letter_accuracy": 0.6, "share_a": 0.5},
    {"step": 20, "eval_loss": 1.1, "eval_agreement": 0.70, "eval_letter_accuracy": 0.65, "eval_share_a": 0.55},
    {"step": 20, "train_runtime": 3.0},
    {"step": 20, "eval_loss": 1.2, "eval_agreement": 0.75, "eval_letter_accuracy": 0.70, "eval_share_a": 0.50},
]
REPORTS_LOG: list[dict[str, Any]] = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.5}]


PLANNED = ("off_the_shelf", "instilled", "introspection_fold_1")


def draw(picture: Draw, results: RunResults) -> Canvas:
    with house_style():
        canvas = picture(results)[0]
        canvas.draw_without_rendering()
    return canvas


def texts(artist: Canvas | Axes) -> list[Text]:
    """All text that is drawn; matplotlib also holds labels of ticks beyond the ends of an axis."""
    beyond = set()
    for axis in artist.findobj(Axis):
        low, high = sorted(axis.get_view_interval())
        beyond |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    return [t for t in artist.findobj(Text) if t.get_text().strip() and t.get_visible() and t not in beyond]


def words(artist: Canvas | Axes) -> str:
    return "\n".join(text.get_text().replace("\N{MINUS SIGN}", "-") for text in texts(artist))


def moved(comparison: ComparisonResult, name: str, change: Callable[[Any], Any], outside: int = 0) -> ComparisonResult:
    """A comparison under another name with other reports."""
    points = comparison.points.assign(x=change(comparison.points["x"]))
    x, y = (points[axis].to_numpy().reshape(-1, 5) for axis in "xy")
    found = agreement(x, y, valid_reports=5, total_reports=60, seed=0)
    return dataclasses.replace(comparison, name=name, points=points, agreement=found, outside=outside)


def hard(results: RunResults) -> RunResults:
    """Names, numbers and logs that a drawing could stumble over."""
    first, *_, last = results.comparisons
    summary = results.decisions["instilled", "native"]
    return dataclasses.replace(
        results,
        record=results.record.model_copy(update={"arms": {arm: ArmRecord() for arm in PLANNED}}),
        comparisons=[
            moved(first, "introspection_own_decisions_of_a_second_kind", lambda x: 5 * x, outside=37),
            moved(first, "paid_$x_and_$y_<b>&", lambda x: 0 * x - 40),
            moved(first, "never_readable", lambda x: x * math.nan),
            moved(last, "beyond_all_bounds", lambda x: -3e6 * x, outside=30),
            *results.comparisons,
        ],
        decisions={
            ("introspection_fold_1_of_a_second_kind", "native"): summary,
            ("instilled", "native"): dataclasses.replace(summary, share_a=0.93, letter_mass=0.2, flips=1.0),
            ("off_the_shelf", "instilled"): dataclasses.replace(summary, share_a=0.0, letter_mass=1e-5, agreement=0.5),
        },
        curves={"introspection_fold_1": REPORTS_LOG, "instilled": DECISIONS_LOG, "left_over": REPORTS_LOG},
    )


def hard_and_failed(results: RunResults) -> RunResults:
    gate = dataclasses.replace(results.gate, passed=False, reasons=["decisions", "cause"])
    return dataclasses.replace(hard(results), gate=gate)


@pytest.mark.parametrize("picture", [draw_scatter, draw_correlations, draw_decisions, draw_training])
@pytest.mark.parametrize("variant", [hard, hard_and_failed])
def test_text_is_legible_inside_the_picture_and_free_of_overlaps(
    passed: RunResults, picture: Draw, variant: Callable[[RunResults], RunResults]
) -> None:
    canvas = draw(picture, variant(passed))
    shown = texts(canvas)
    assert min(text.get_fontsize() for text in shown) >= 7
    boxes = [(text.get_text(), text.get_window_extent()) for text in shown]
    inside = canvas.bbox.padded(0.5)
    assert not [text for text, box in boxes if not inside.containsx(box.x0) or not inside.containsx(box.x1)]
    assert not [text for text, box in boxes if not inside.containsy(box.y0) or not inside.containsy(box.y1)]
    shrunk = [(text, box.padded(-1.2)) for text, box in boxes]
    assert not [(a, b) for (a, one), (b, other) in itertools.combinations(shrunk, 2) if one.overlaps(other)]


def test_scatter_panels_show_the_points_and_print_their_figures(passed: RunResults) -> None:
    check, *panels = draw(draw_scatter, passed).axes
    target = passed.learned_vs_target
    plotted = offsets(check)
    np.testing.assert_allclose(plotted, target.points[["x", "y"]])
    for axes, comparison in zip(panels, passed.comparisons, strict=True):
        found = comparison.agreement
        np.testing.assert_allclose(offsets(axes), comparison.points[["x", "y"]].dropna())
        assert axes.get_xlim() == axes.get_ylim() == (-110, 110)
        printed = words(axes)
        assert f"r = {found.r:.2f} [{found.boot_low:.2f}, {found.boot_high:.2f}]" in printed
        assert f"{found.n_contexts} contexts" in printed
        assert f"{found.n_points} points, {found.valid_reports}/{found.total_reports} readable" in printed
        (line,) = (line for line in axes.get_lines() if line.get_linestyle() == "-")
        x, y = line.get_data()
        assert (y[1] - y[0]) / (x[1] - x[0]) == pytest.approx(found.slope)


def offsets(axes: Axes) -> Any:
    points, *arrows = (artist for artist in axes.collections if isinstance(artist, PathCollection))
    assert not sum(len(a.get_offsets()) for a in arrows)
    return points.get_offsets()


def test_scatter_panels_of_a_failed_gate_are_stamped_and_print_no_correlation(failed: RunResults) -> None:
    check, *panels = draw(draw_scatter, failed).axes
    assert NOT_TESTABLE not in words(check)
    for axes, comparison in zip(panels, failed.comparisons, strict=True):
        assert words(axes).count(NOT_TESTABLE) == 2
        assert "r = " not in words(axes)
        assert f"{comparison.agreement.r:.2f}" not in words(axes)
        assert not [line for line in axes.get_lines() if line.get_linestyle() == "-"]


def test_points_outside_are_arrows_at_the_edge_of_the_same_axis_and_are_counted(passed: RunResults) -> None:
    _, wide, constant, empty, *_ = draw(draw_scatter, hard(passed)).axes
    inside, left, right = (artist for artist in wide.collections if isinstance(artist, PathCollection))
    x = hard(passed).comparisons[0].points["x"].dropna().to_numpy()
    assert wide.get_xlim() == constant.get_xlim() == (-110, 110)
    assert [len(a.get_offsets()) for a in (inside, left, right)] == [
        (np.abs(x) <= 110).sum(),
        (x < -110).sum(),
        (x > 110).sum(),
    ]
    assert len(left.get_offsets()) > 0
    assert (left.get_offsets()[:, 0] == -107).all()
    assert f"{(np.abs(x) > 110).sum()} beyond the edge" in wide.get_xlabel()
    assert "37 reports beyond ±100" in words(wide)
    assert "no r: no variation" in words(constant)
    assert "no r: no context has both" in words(empty)


def test_correlations_draw_both_intervals_in_the_order_of_the_experiment(passed: RunResults) -> None:
    (axes,) = draw(draw_correlations, passed).axes
    shown = {"thick": [], "thin": [], "r": []}  # type: dict[str, list[Any]]
    for line in axes.get_lines():
        kind = "r" if line.get_marker() == "o" else {3.0: "thick", 0.8: "thin"}[line.get_linewidth()]
        x, y = line.get_data()
        if kind == "r" or (x[0] != x[1] and y[0] == y[1]):
            shown[kind].append(tuple(np.atleast_1d(x)))
    found = [c.agreement for c in (passed.learned_vs_target, *passed.comparisons)]
    assert shown["r"] == [(a.r,) for a in found]
    assert shown["thick"] == [(a.boot_low, a.boot_high) for a in found]
    assert shown["thin"] == [(a.hdi_low, a.hdi_high) for a in found]
    places = [words(axes).index(f"[{a.boot_low:.2f}, {a.boot_high:.2f}]") for a in found]
    assert places == sorted(places)


def test_correlations_of_a_failed_gate_are_hollow_and_tell_no_value(failed: RunResults) -> None:
    (axes,) = draw(draw_correlations, failed).axes
    bars = axes.patches
    assert len(bars) == words(axes).count(NOT_TESTABLE) == len(failed.comparisons)
    assert {(bar.get_x(), bar.get_x() + bar.get_width()) for bar in bars} == {axes.get_xlim()}
    assert all(mpl.colors.to_hex(bar.get_facecolor()) == "#ffffff" for bar in bars)
    assert [line.get_xdata()[0] for line in axes.get_lines() if line.get_marker() == "o"] == [
        failed.learned_vs_target.agreement.r
    ]
    assert not [c.name for c in failed.comparisons if f"{c.agreement.r:.2f}" in words(axes)]


def test_decisions_print_every_figure_and_mark_a_collapse(passed: RunResults, failed: RunResults) -> None:
    for results, diamonds in ((passed, 0), (failed, 1)):
        share, flips, _, follows = draw(draw_decisions, results).axes
        assert sum(line.get_marker() == "D" for line in share.get_lines()) == diamonds
        for summary in results.decisions.values():
            assert number(summary.share_a) in words(share)
            assert number(summary.flips) in words(flips)
            assert number(summary.agreement) in words(follows)
    summary = dataclasses.replace(passed.decisions["instilled", "native"], share_a=COLLAPSED)
    at_bound = dataclasses.replace(passed, decisions={("instilled", "native"): summary})
    assert not [line for line in draw(draw_decisions, at_bound).axes[0].get_lines() if line.get_marker() == "D"]


def test_training_curves_show_held_out_figures_where_there_are_any(passed: RunResults) -> None:
    batches = [entry for entry in DECISIONS_LOG if "loss" in entry]
    curves = {"introspection": REPORTS_LOG, "instilled": DECISIONS_LOG, "off_the_shelf": batches}
    axes = draw(draw_training, dataclasses.replace(passed, curves=curves)).axes
    drawn = [{line.get_label(): list(line.get_ydata()) for line in panel.get_lines()} for panel in axes]
    assert drawn == [
        {"training loss": [2.0, 1.0]},
        {"letter accuracy": [0.4, 0.6], "agreement": [0.5, 0.6], "share of A": [0.6, 0.5]},
        {"training loss": [2.0, 1.0], "held-out loss": [1.2]},
        {"letter accuracy": [0.70], "agreement": [0.75], "share of A": [0.50]},
        {"training loss": [3.0, 2.5]},
    ]
    assert [words(panel).count("held-out decisions") for panel in axes] == [0, 0, 0, 1, 0]


def test_a_loss_that_was_no_number_is_a_gap_in_its_curve(passed: RunResults) -> None:
    log = [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}, {"step": 3, "loss": 1.0}]
    [panel] = draw(draw_training, dataclasses.replace(passed, curves={"instilled": log})).axes
    [first, gap, last] = panel.get_lines()[0].get_ydata()
    assert (first, last) == (2.0, 1.0) and gap != gap


def test_files_are_whole_of_the_size_that_they_say_and_the_same_each_time(passed: RunResults, tmp_path: Path) -> None:
    with_curves = dataclasses.replace(passed, curves={"instilled": DECISIONS_LOG})
    first, second = (save_figures(with_curves, tmp_path / name) for name in ("first", "second"))
    assert [figure.path.stem for figure in first] == ["scatter", "correlations", "decisions", "training"]
    for one, other in zip(first, second, strict=True):
        with Image.open(one.path) as image:
            image.load()
            assert image.format == "PNG"
            assert image.width == pytest.approx(one.width_mm / 25.4 * 200, abs=1.5)
            assert image.convert("L").getextrema()[0] < 100
        assert one.width_mm <= 180
        for suffix in (".png", ".pdf"):
            assert one.path.with_suffix(suffix).read_bytes() == other.path.with_suffix(suffix).read_bytes()
        assert one.path.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    assert {p.stem for p in (tmp_path / "first").iterdir()} == {figure.path.stem for figure in first}


def test_there_are_no_training_curves_without_logs(simulated_run: Path) -> None:
    assert {p.stem for p in (simulated_run / "analysis" / "figures").iterdir()} == {
        "scatter",
        "correlations",
        "decisions",
    }


def test_numbers_as_text() -> None:
    assert (number(0.456), number(12.34, 1), number(math.nan)) == ("0.46", "12.3", "–")  # noqa: RUF001
    assert interval(-0.1, 0.25) == "[-0.10, 0.25]"
    assert interval(math.nan, math.nan) == "–"  # noqa: RUF001
