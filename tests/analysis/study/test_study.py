"""Runs together: how they are read, and the command on simulated runs and released trials."""

from __future__ import annotations

import dataclasses
import math
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
from bare_runs import bare_run
from released_layout import MODEL, write_release

from analysis.cross_model import Known, who_knows
from analysis.pages.study_figures import draw_ladder, ladder
from analysis.pages.study_page import beside, save_study_figures, write_study_page
from analysis.run import summary
from analysis.study import __main__ as module
from analysis.study.meta import difference_of_independent
from analysis.study.output import output_folder
from analysis.study.released_results import read_released
from analysis.study.results import analyse
from analysis.study.several import ALL, Estimate, StudyRun, grouped, read_study_run, released_study_run
from analysis.study.study import study_of
from store.console import run_command
from store.manifests import OutputFacts, read_manifest
from store.run import DifferenceRecord, RunFolder, read_run, write_run
from store.state_inputs import analysis_inputs
from store.study_summary import read_study
from store.summary import read_summary, write_summary
from task.errors import InputError


def copied(run: Path, folder: Path, seed: int) -> Path:
    """The run as if it were one of another seed, with the differences that claims are read from, analysed."""
    copy = Path(shutil.copytree(run, folder / f"small-seed{seed}"))
    record = read_run(copy)
    gain = DifferenceRecord(name="gain_on_held_out_contexts", before="instilled", after="introspection_trained")
    write_run(copy, record.model_copy(update={"name": copy.name, "seed": seed, "differences": [gain]}))
    run = RunFolder(copy)
    with output_folder(run.analysis, "analysis.run", analysis_inputs(run, read_run(copy))) as draft:
        write_summary(draft / "summary.json", summary(analyse(copy)))  # the pictures and the page take longer
    return copy


@pytest.fixture(scope="module")
def runs(simulated_run: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two trainings on the same weights."""
    folder = tmp_path_factory.mktemp("study")
    return [copied(simulated_run, folder, seed) for seed in (0, 1)]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released")
    write_release(folder)
    return folder


def made(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["study", *map(str, arguments)])
    run_command(module.main)


def test_the_command(
    runs: list[Path],
    release: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "study"
    made(monkeypatch, *runs, "--released", release, "toy", "--out", out)
    printed, found = capsys.readouterr().out, read_study(out / "summary.json")
    assert {*found.runs} == {"small-seed0", "small-seed1", MODEL}
    assert {*found.verdicts} == {"simulated", MODEL, ALL}
    for run in runs:
        its_own = read_summary(run / "analysis" / "summary.json").comparisons["instilled"]
        mine = found.figures["instilled.r"].runs[run.name]
        assert (mine.estimate, mine.low, mine.high) == (its_own.r, its_own.boot_low, its_own.boot_high)
    together = found.figures["instilled.r"].pooled
    assert (together["simulated"].runs, together[MODEL].runs, together[ALL].runs) == (2, 1, 3)
    claims = found.verdicts["simulated"]
    assert claims["training_helps_on_held_out_contexts"].parts[0].figures == ["gain_on_held_out_contexts.difference"]
    assert claims["follows_a_swap"].outcome == "not measured"
    assert claims["decisions_stayed"].outcome == "not testable", "decisions of introspection were not measured"
    assert f"simulated: follows_a_swap: not measured. {claims['follows_a_swap'].sentence}" in printed
    # The two simulated runs were taught the same and share contexts; the released model has its own.
    crossed = next(c for name, c in found.cross_model.items() if name.startswith("instilled"))
    assert crossed.runs == ["small-seed0", "small-seed1"]
    assert crossed.rows["small-seed0"]["twins"] and crossed.rows["small-seed0"]["third_parties"] is None
    table = pd.read_csv(out / "study.csv")
    assert {*table["figure"]} == {*found.figures} and {*table["run"]} == {*found.runs}
    row = table[(table["figure"] == "instilled.r") & (table["run"] == MODEL)].iloc[0]
    assert row["testable"] and row["n_contexts"] == 11 and row["claims"] == "instilled_weights_are_reported"
    page = (out / "report.html").read_text()
    assert all(text in page for text in (*found.runs, "GPT-4o-mini", "Qwen2.5-7B", "0.51", "574/1000"))
    assert claims["training_helps_on_held_out_contexts"].sentence in page
    assert "http://" not in page and "https://" not in page and page.count("data:image/png") == 2
    assert {"report.html", "study.csv", "summary.json"} <= {*read_manifest(out, OutputFacts).facts.files}
    made(monkeypatch, runs[0], "--out", out)  # an earlier one is replaced
    assert {*read_study(out / "summary.json").runs} == {"small-seed0"}


def test_a_folder_of_results_is_a_run(runs: list[Path], tmp_path: Path):
    for file in ("run.json", "analysis/summary.json"):
        shutil.copy(runs[0] / file, tmp_path)
    there, here = read_study_run(runs[0]), read_study_run(tmp_path)
    assert there.figures == here.figures and there.key == here.key and here.experiment == "small"
    made = module.cross(study_of([here, dataclasses.replace(here, name="other")]), [])
    assert not made, "no trials, so no matrix"


def test_runs_that_cannot_be_read_are_one_line(runs: list[Path], tmp_path: Path):
    with pytest.raises(InputError, match="no run given; name run folders, or released trials"):
        module.read_runs([], [])
    with pytest.raises(InputError, match=r"run\.json: no such file"):
        read_study_run(tmp_path)
    copy = RunFolder(Path(shutil.copytree(runs[0], tmp_path / "copy")))
    shutil.rmtree(copy.trials_of("introspection", "reports", "trial"))
    with pytest.raises(InputError, match=r"copy: went on since it was analysed; run `python -m analysis\.run --run"):
        read_study_run(copy.path)
    shutil.rmtree(copy.analysis)
    with pytest.raises(InputError, match="copy: was not analysed; run"):
        read_study_run(copy.path)
    with pytest.raises(InputError, match="small-seed0: two runs have this name"):
        module.read_runs([runs[0], runs[0]], [])


def test_released_trials_are_a_run_with_the_names_of_configurations(release: Path):
    results = read_released(release, MODEL)
    run = released_study_run(release, results)
    by_name = {c.name: c.agreement for c in results.comparisons}
    assert run.figures["introspection_trained.r"].estimate == by_name["introspection_trained"].r
    gain = results.changes["introspection_trained", "instilled"]
    assert run.figures["gain_on_held_out_contexts.difference"].estimate == gain.difference
    whose = results.evidence["instilled"].whose
    assert run.figures["instilled.learned_over_target"].low == whose.learned_over_target_low
    assert run.figures["native_after.r_given_target"].reason == "native contexts have no target weights"
    assert "gain_on_native_contexts.difference" in run.figures and run.readable["instilled"][1] == 120
    twice = grouped([run, dataclasses.replace(run, experiment="elsewhere")])
    assert [r.name for r in twice] == [f"{MODEL} ({release.name})", f"{MODEL} (elsewhere)"]


def run_of(name: str, model: str, figures: dict[str, Estimate] | None = None, experiment: str = "e") -> StudyRun:
    return StudyRun(name, model, experiment, "run", 0, "key", 0.1, figures or {}, {})


def test_sizes_are_told_by_names_and_make_a_ladder_where_they_differ():
    names = (
        "Qwen/Qwen2.5-7B-Instruct",
        "google/gemma-3-4b-it",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "models/organism",
    )
    assert [run_of("a", name).parameters for name in names] == [7e9, 4e9, 135e6, None]
    known = {
        "instilled.r": Estimate(0.5, 0.4, 0.6, 50),
        "native_after.r": Estimate(math.nan, math.nan, math.nan, 0, "no"),
    }
    found = ladder([run_of("a", names[0], known), run_of("b", names[1], known), run_of("c", names[3], known)])
    assert {figure: [size for size, _ in rungs] for figure, rungs in found.items()} == {"instilled.r": [7e9, 4e9]}
    canvas, title, _ = draw_ladder(found)
    assert title and [label.get_text() for label in canvas.axes[0].get_xticklabels()] == ["4B", "7B"]
    assert not ladder([run_of("a", names[0], known), run_of("b", names[0], known)])


def test_runs_of_one_model_are_a_group_for_each_experiment():
    runs = [run_of("a", "x/m"), run_of("b", "x/m"), run_of("c", "y/n")]
    assert [run.group for run in grouped(runs)] == ["m", "m", "n"]
    other = [*runs, run_of("d", "x/m", experiment="f")]
    assert [run.group for run in grouped(other)] == ["m (e)", "m (e)", "n", "m (f)"]
    assert list(study_of(runs).groups) == ["m", "n", ALL] and list(study_of(runs[:2]).groups) == ["m"]


def test_a_study_in_which_nothing_is_testable_has_a_page_that_says_so(tmp_path: Path):
    known = {
        f"{name}.r": Estimate(math.nan, math.nan, math.nan, 9, "the gate was not passed") for name in ("instilled",)
    }
    study = study_of([run_of("a", "m", {"learned_vs_target.r": Estimate(0.3, 0.2, 0.4, 9), **known})])
    write_study_page(study, save_study_figures(study, tmp_path / "figures"), {}, [], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "not testable, the gate was not passed" in page and "not measured" in page
    assert page.count("data:image/png") == 1, "no differences, so no picture of them"


def test_published_figures_stand_beside_ours():
    known = {"instilled.r": Estimate(0.5, 0.4, 0.6, 50), "native_after.r": Estimate(0.5, 0.4, 0.6, 9, "it broke")}
    run = dataclasses.replace(run_of("a", "m", known), readable={"instilled": (7, 20)})
    rows = dict(beside(study_of([run])))
    assert rows["instilled"] == ["0.54", "0.50", "0.26", "0.50 [0.40, 0.60]"]
    assert rows["native_after"][3] == "not testable" and rows["native_before"][3] == "\N{EN DASH}"
    assert rows["readable reports, instilled"] == ["1000/1000", "574/1000", "904/1000", "7/20"]


def test_the_difference_of_two_figures_is_as_wide_as_both_together():
    found = difference_of_independent((0.1, 0.0, 0.3), (0.5, 0.2, 0.6))
    assert found == pytest.approx((0.4, 0.4 - math.hypot(0.3, 0.2), 0.4 + math.hypot(0.1, 0.1)))


def test_twins_are_told_from_third_parties(runs: list[Path]):
    models = [module._model(run, module._findings(run), "instilled") for run in map(read_study_run, runs)]
    stranger = dataclasses.replace(models[1], name="stranger", base="another")
    found = who_knows([*models, stranger])
    one: Known = found["small-seed0"]
    assert one.twins and one.third_parties and one.others_weights and one.twins.own == pytest.approx(one.own)
    assert one.twins.difference == pytest.approx(one.third_parties.difference), "the stranger is a copy of the twin"
    assert found["stranger"].twins is None and found["stranger"].third_parties is not None


def test_runs_by_different_estimators_are_pooled_with_a_word_of_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    alike = study_of([bare_run(0), bare_run(1)])
    mixed = study_of([bare_run(0), bare_run(1), bare_run(2, estimator="log_odds")])
    assert module.mixed_estimators(alike) is None
    words = (
        "weights are estimated by logistic in looked-seed0, looked-seed1; by log_odds in looked-seed2: what is pooled "
        "over these mixes estimators"
    )
    monkeypatch.setattr(module, "read_runs", lambda *options: mixed)
    monkeypatch.setattr(module, "save_study_figures", lambda found, folder: [])
    monkeypatch.setattr(module, "cross", lambda found, notes: {})
    made(monkeypatch, "looked", "--out", tmp_path / "study")
    assert capsys.readouterr().err.count(f"warning: {words}") == 1
    assert read_study(tmp_path / "study" / "summary.json").notes == [words]
    assert f"<p>W{words[1:]}.</p>" in (tmp_path / "study" / "report.html").read_text()
