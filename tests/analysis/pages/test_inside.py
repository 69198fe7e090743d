"""The pictures and tables of what was found inside arms."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from inside_files import LAYERS, plant_patching, plant_scores, truth
from matplotlib.text import Text

from analysis.pages.drawing import Drawn, house_style
from analysis.pages.figures import saved
from analysis.pages.inside import save_inside_figures
from analysis.pages.inside_figures import draw_fresh, draw_patching, draw_profiles, draw_similarity
from analysis.pages.inside_text import inside_tables
from analysis.pages.page import fill_in
from analysis.study.inside import look_inside
from store.inside_summary import EndsSummary, FreshArmSummary, FreshSummary, InsideSummary
from store.run import ArmRecord, GateRecord, RunFolder, RunRecord
from support import made_once

CONTEXTS = ["cars", "<b>boats", "flats", "jobs", "pets", "plants"]


def plant(folder: Path) -> None:
    inside = RunFolder(folder).inside
    half = {f"{task}/{order}": 2.0 for task in ("deciding", "reporting") for order in ("deciding", "reporting")}
    half |= {"deciding/random": 4.0, "reporting/random": 4.0}
    for seed, arm in enumerate(("introspection", "shuffled")):
        plant_scores(inside, arm, CONTEXTS, truth(seed, 0.5 - 0.4 * seed), unread=CONTEXTS[5:])
        plant_patching(inside, arm, CONTEXTS, half)
    plant_scores(inside, "introspection", CONTEXTS, truth(9, 0.0), draw=1)
    plant_scores(inside, "silent", CONTEXTS, truth(1, 0.5), unread=CONTEXTS)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> InsideSummary:
    folder = made_once(tmp_path_factory, "inside-pages", plant)
    arms = {
        "instilled": ArmRecord(training="instilled", teach="decisions"),
        "introspection": ArmRecord(training="introspection", teach="reports", labels="target", start="instilled"),
        "shuffled": ArmRecord(training="shuffled", teach="reports", labels="shuffled", start="instilled"),
        "silent": ArmRecord(training="silent", teach="decisions"),
    }
    record = RunRecord(
        name="run",
        seed=0,
        groups={},
        arms=arms,
        gate=GateRecord(arm="instilled", contexts="instilled"),
        comparisons=[],
        differences=[],
        model=None,
        experiment={},
    )
    summary = look_inside(RunFolder(folder), record, {}, {})
    assert summary is not None
    return summary.model_copy(update={"fresh": {"fresh": small_adapters()}})


def small_adapters() -> FreshSummary:
    arms = [
        FreshArmSummary(
            arm=f"fresh_{i}", context=context, similarity=0.1 * i, rows_null_mean=0.02, random=[0.01], faithfulness=f
        )
        for i, (context, f) in enumerate(zip(CONTEXTS, [0.1, 0.5, None, -0.4, 0.9, 1.0], strict=True))
    ]
    return FreshSummary(
        backbone="introspection",
        arms=arms,
        missing=[f"fresh_{i}" for i in range(6, 14)],
        similarity=EndsSummary(estimate=0.25, low=0.1, high=0.4),
        similarity_sd=0.18,
        faithfulness=EndsSummary(estimate=0.42, low=None, high=None),
        random=[0.01],
        relation=EndsSummary(estimate=0.5, low=-0.2, high=0.9),
        p_relation=0.24,
        relation_contexts=5,
    )


@pytest.fixture
def unsaved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are drawn, and not saved, which takes longer."""
    monkeypatch.setattr("analysis.pages.figures.save_picture", lambda canvas, path: path.touch())


@pytest.mark.usefixtures("unsaved")
def test_pictures_have_captions_and_widths(found: InsideSummary, tmp_path: Path):
    drawn = save_inside_figures(found, tmp_path / "first")
    assert [figure.path.stem for figure in drawn] == ["similarity", "profiles", "fresh", "patching"]
    assert all(figure.caption.endswith(".") and 50 < figure.width_mm <= 190 for figure in drawn)


def test_a_picture_is_the_same_each_time(found: InsideSummary, tmp_path: Path):
    with house_style():
        one, other = (saved(draw_fresh(found), tmp_path / f"{name}.png") for name in ("one", "other"))
    for suffix in (".png", ".pdf"):
        assert one.path.with_suffix(suffix).read_bytes() == other.path.with_suffix(suffix).read_bytes()


@pytest.mark.parametrize("draw", [draw_similarity, draw_profiles, draw_fresh, draw_patching], ids=lambda d: d.__name__)
def test_text_lies_within_the_picture(found: InsideSummary, draw: Callable[[InsideSummary], Drawn]):
    long = "introspection_of_a_second_kind_fold_2"
    renamed = {"arms": {long: found.arms["introspection"]}, "patching": {long: found.patching["introspection"]}}
    with house_style():
        canvas, _, _ = draw(found.model_copy(update=renamed))
        canvas.draw_without_rendering()
        # A tick outside the axis has a label that is not drawn.
        axes = [axis for a in canvas.axes for axis in (a.xaxis, a.yaxis)]
        beyond = {
            tick.label1
            for axis in axes
            for tick in axis.get_major_ticks()
            if not min(axis.get_view_interval()) <= tick.get_loc() <= max(axis.get_view_interval())
        }
        texts = [t for t in canvas.findobj(Text) if t.get_text().strip() and t.get_visible() and t not in beyond]
        places = {text.get_text(): text.get_window_extent() for text in texts}
    whole = canvas.bbox.padded(0.5)
    assert len(texts) > 5
    assert not [name for name, box in places.items() if not (whole.contains(*box.min) and whole.contains(*box.max))]


@pytest.mark.usefixtures("unsaved")
def test_what_is_not_there_is_not_drawn(found: InsideSummary, tmp_path: Path):
    bare = {"fresh": {}, "differences": [], "patching": {}}
    drawn = save_inside_figures(found.model_copy(update=bare), tmp_path)
    assert [figure.path.stem for figure in drawn] == ["similarity", "profiles"]
    assert save_inside_figures(found.model_copy(update={**bare, "arms": {}}), tmp_path) == []


def test_tables_say_what_the_summary_says(found: InsideSummary, tmp_path: Path):
    tables = inside_tables(found)
    assert tables is not None and inside_tables(None) is None
    [arm, other] = tables.similarity
    assert arm[0] == "introspection" and re.fullmatch(r"0\.5\d \[0\.\d\d, 0\.\d\d\]", arm[2])
    assert arm[5].endswith("(1)") and arm[6] == "0.500" and arm[9] == "5 (1 left out)"
    assert other[5] == other[6] == "\N{EN DASH}"
    assert len(tables.where) == 2 and "layers." in tables.where[0][7]
    [small] = tables.fresh
    assert small[3] == "0.50 [\N{MINUS SIGN}0.20, 0.90]" and small[8] == "0.42 \N{EN DASH}"
    [difference] = tables.differences
    assert difference[0] == "introspection less shuffled" and difference[2].startswith("+0.")
    assert difference[8] == "\N{MULTIPLICATION SIGN}1.00 [1.00, 1.00] / \N{MULTIPLICATION SIGN}1.00 [1.00, 1.00]"
    crossed = next(cells for cells in tables.patching if cells[1:3] == ["deciding", "reporting"])
    assert crossed[3:] == ["2.0 [2.0, 2.0]", "\N{MULTIPLICATION SIGN}2.00 [2.00, 2.00]", "6"]
    assert tables.notes[0].startswith("silent: no context has scores for both tasks")
    assert tables.notes[1].endswith(
        "8 of 14 have no scores for both tasks: fresh_6, fresh_7, fresh_8, fresh_9, fresh_10 ..."
    )


def test_the_page_has_all_tables_and_says_what_similarity_does_not_say(found: InsideSummary, tmp_path: Path):
    fill_in("inside.html.j2", tmp_path / "page.html", [], inside=inside_tables(found))
    page = (tmp_path / "page.html").read_text()
    assert page.count("<table>") == 5 and "no proof that one reads the other" in page
    fill_in("inside.html.j2", tmp_path / "none.html", [], inside=None)
    assert not (tmp_path / "none.html").read_text().strip()


@pytest.mark.usefixtures("unsaved")
def test_a_similarity_of_one_context_has_no_interval(tmp_path: Path):
    inside = RunFolder(tmp_path).inside
    plant_scores(inside, "introspection", ["cars"], truth(1, 0.4, LAYERS), noise=0)
    record = RunRecord(
        name="run",
        seed=0,
        groups={},
        arms={"introspection": ArmRecord(training="introspection", teach="reports")},
        gate=GateRecord(arm="introspection", contexts="instilled"),
        comparisons=[],
        differences=[],
        model=None,
        experiment={},
    )
    found = look_inside(RunFolder(tmp_path), record, {}, {})
    assert found is not None
    [cells] = inside_tables(found).similarity
    assert cells[2:5] == ["0.40 \N{EN DASH}", "\N{EN DASH} \N{EN DASH}", "\N{EN DASH} / \N{EN DASH}"]
    assert len(save_inside_figures(found, tmp_path / "figures")) == 2
