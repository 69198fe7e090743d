"""Trials of others in the released form: files elsewhere, several conditions, folds on scales of their own."""

from __future__ import annotations

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from released_layout import CONTEXTS, MODEL, OWN, REPORT_FILES, TAUGHT, numbered, write_release

from analysis import baseline, released
from analysis.released import summary
from analysis.stats.variants import standardised_by_fold
from analysis.study import __main__ as study
from analysis.study import released_files
from analysis.study.released_files import Elsewhere, contexts_hash, load_model
from analysis.study.released_results import PRINTED, read_released
from store.console import run_command
from store.contexts import save_contexts
from store.files import hash_file
from store.manifests import OutputFacts, read_manifest
from store.released import load_reports, load_selections
from store.study_summary import read_study
from store.weights import load_weights
from support import ROOT
from task.errors import InputError

RELEASED = ROOT.parent / "shared" / "released"
SELECTIONS = f"{MODEL}_instilled_selections.csv"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A release, to be changed."""
    data = tmp_path / "data"
    data.mkdir()
    write_release(data)
    return data


def found_in(folder: Path, **elsewhere: Any) -> dict[str, Any]:
    return json.loads(json.dumps(summary(read_released(folder, MODEL, Elsewhere(**elsewhere))), allow_nan=False))


def command(monkeypatch: pytest.MonkeyPatch, module: Any, *arguments: Any) -> None:
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, arguments)])
    run_command(module.main)


def edit(path: Path, **columns: Any) -> None:
    """Set columns of a CSV file."""
    pd.read_csv(path).assign(**columns).to_csv(path, index=False)


def flipped(folder: Path, *names: str) -> None:
    """Double the trials of some files: those of `flipped` 1 say the contrary."""
    for path in (folder / name for name in names):
        table = pd.read_csv(path)
        contrary = table.copy()
        if "selection" in table:
            contrary["selection"] = table["selection"].map({"A": "B", "B": "A"})
        else:
            contrary[numbered("report_attr{}")] *= -1
        pd.concat([table.assign(flipped=0), contrary.assign(flipped=1)]).to_csv(path, index=False)


def test_contexts_and_weights_may_lie_elsewhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    whole, apart = found_in(folder), tmp_path / "apart"
    apart.mkdir()
    for name in ("scenarios.csv", "instilled_weights.csv"):
        (folder / name).rename(apart / name)
    with pytest.raises(InputError, match=r"no scenarios\.csv beside the trials; name its folder, .* with --contexts"):
        found_in(folder)
    assert found_in(folder, contexts=apart, weights=apart) == whole
    (apart / "scenarios.csv").rename(apart / "others.csv")
    assert found_in(folder, contexts=apart / "others.csv", weights=apart / "instilled_weights.csv") == whole
    save_contexts(CONTEXTS, apart / "ours.jsonl")
    assert found_in(folder, contexts=apart / "ours.jsonl", weights=apart) == whole
    without = found_in(folder, contexts=apart / "ours.jsonl")
    assert without["notes"] == ["instilled_weights.csv is missing: learned weights are not held against targets"]
    elsewhere = ["--contexts", apart / "ours.jsonl", "--weights", apart]
    monkeypatch.setattr(
        released, "save_figures", lambda results, folder: (folder.mkdir(), (folder / "x").touch(), [])[2]
    )
    command(monkeypatch, released, "--data", folder, "--model", "toy", "--out", tmp_path / "out", *elsewhere)
    made = read_manifest(tmp_path / "out", OutputFacts).depends_on["inputs"]
    assert isinstance(made, dict) and made["ours.jsonl"] == hash_file(apart / "ours.jsonl")
    assert "instilled_weights.csv" in made
    capsys.readouterr()
    with pytest.raises(SystemExit):
        command(monkeypatch, baseline, "--run", folder, *elsewhere)
    assert "belong to --data" in capsys.readouterr().err


def test_an_empty_file_of_decisions_or_targets_is_an_absent_one(folder: Path):
    whole = found_in(folder)
    (folder / SELECTIONS).write_text("\n")
    (folder / "instilled_weights.csv").write_text("")
    found = found_in(folder)
    assert found["native_after"] == whole["native_after"] and found["instilled"] is None
    assert found["notes"][:2] == [
        f"{SELECTIONS} is empty: no weights of instilled contexts",
        "instilled_weights.csv is empty: learned weights are not held against targets",
    ]


def test_trials_of_several_conditions_are_chosen_from_never_pooled(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = found_in(folder)
    flipped(folder, SELECTIONS, f"{MODEL}{REPORT_FILES['instilled']}.csv")
    with pytest.raises(
        InputError, match=r"selections\.csv:1: column 'flipped' splits the trials .*--where flipped="
    ) as e:
        found_in(folder)
    assert "\n" not in str(e.value)
    upright, over = found_in(folder, where={"flipped": "0"}), found_in(folder, where={"flipped": "1.0"})
    notes = upright.pop("notes")
    assert upright == {k: v for k, v in whole.items() if k != "notes"}
    assert (
        f"{MODEL}_weight_reports.csv has no column 'flipped': all of its trials are used" in notes and len(notes) == 6
    )
    assert over["learned_vs_target"]["r"] == pytest.approx(-whole["learned_vs_target"]["r"], abs=0.02)
    assert over["instilled"]["r"] == pytest.approx(whole["instilled"]["r"], abs=0.02)
    monkeypatch.setattr(
        released, "save_figures", lambda results, folder: (folder.mkdir(), (folder / "x").touch(), [])[2]
    )
    arguments = ["--data", folder, "--model", "toy", "--out", tmp_path / "out", "--where", "flipped=0"]
    command(monkeypatch, released, *arguments)
    assert read_manifest(tmp_path / "out", OutputFacts).depends_on["where"] == {"flipped": "0"}


def test_a_study_takes_trials_that_were_chosen_and_contexts_from_elsewhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    wanted = found_in(folder)["instilled"]["r"]
    flipped(folder, SELECTIONS, f"{MODEL}_instilled_weight_reports.csv")
    (tmp_path / "apart").mkdir()
    (folder / "scenarios.csv").rename(tmp_path / "apart" / "scenarios.csv")
    monkeypatch.setattr(study, "save_study_figures", lambda found, folder: [])
    chosen = ["--where", "flipped=0", "--contexts", tmp_path / "apart", "--out", tmp_path / "out"]
    command(monkeypatch, study, "--released", folder, "toy", *chosen)
    assert read_study(tmp_path / "out" / "summary.json").figures["instilled.r"].runs[MODEL].estimate == wanted
    with pytest.raises(SystemExit):
        command(monkeypatch, study, tmp_path / "a_run", *chosen)
    assert "--where belong to --released; a run has its own contexts and weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("where", "words"),
    [
        ({"turned": "0"}, "no file of toy-1b-2025-01-31 has a column 'turned'; correct --where"),
        ({"flipped": "2"}, r"selections\.csv: no row with flipped=2; it has 0, 1"),
    ],
)
def test_a_choice_of_nothing_is_refused(folder: Path, where: dict[str, str], words: str):
    flipped(folder, SELECTIONS)
    with pytest.raises(InputError, match=words):
        found_in(folder, where=where)


@pytest.mark.parametrize("given", [["flipped"], ["=0"], ["flipped="], ["flipped=0", "flipped=1"]])
def test_a_choice_that_cannot_be_read_is_one_line(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: list[str]
):
    choices = [argument for text in given for argument in ("--where", text)]
    with pytest.raises(SystemExit):
        command(monkeypatch, released, "--data", folder, "--model", "toy", "--out", tmp_path / "out", *choices)
    assert f"--where {given[-1]}: needed: COLUMN=VALUE" in capsys.readouterr().err


def test_two_models_in_a_file_are_conditions_too(folder: Path):
    path = folder / SELECTIONS
    edit(path, model=np.arange(len(pd.read_csv(path))) % 3)
    with pytest.raises(InputError, match="column 'model' splits the trials"):
        load_selections(path)
    assert len(load_selections(path, {"model": "2"}).scenario) == 12 * 40 // 3


def test_columns_that_split_nothing_are_passed_over(folder: Path):
    path, reports = folder / SELECTIONS, folder / f"{MODEL}{REPORT_FILES['instilled']}.csv"
    table = pd.read_csv(path)
    edit(
        path,
        temperature=0,
        number=table.groupby("scenario").cumcount(),
        row=range(len(table)),
        person=table["scenario"].str.upper(),
        reply="Option " + table["selection"],
    )
    assert len(load_selections(path).scenario) == len(table)
    told = pd.read_csv(reports)
    edit(reports, reply=told[numbered("report_attr{}")].astype(str).agg(" ".join, axis=1), seconds=range(len(told)))
    assert len(load_reports(reports).scenario) == len(told)


@pytest.mark.parametrize("column", ["fold", "flipped", "arm"])
def test_an_unknown_column_of_a_weights_file_is_refused_by_name(folder: Path, column: str):
    edit(folder / "instilled_weights.csv", **{column: 1})
    with pytest.raises(
        InputError, match=rf"instilled_weights\.csv:1: unknown column '{column}'; only weights by scenario"
    ):
        found_in(folder)


def test_our_own_weights_files_are_read(tmp_path: Path):
    path = tmp_path / "weights.csv"
    path.write_text("context,raw_1,sd_1,weight_1\nhotel,0.5,0.1,-100\n")
    assert load_weights(path)["hotel"].tolist() == [-100]


def test_selections_that_are_no_letter_and_contexts_without_weights_are_counted(folder: Path):
    table = pd.read_csv(folder / SELECTIONS)
    table["selection"] = table["selection"].where(table.index % 100 > 0, "neither")
    table.loc[table["scenario"] == "taught-2", "selection"] = "A"
    table.to_csv(folder / SELECTIONS, index=False)
    found = found_in(folder)
    assert found["notes"] == [
        "4 of 480 selections on instilled contexts are no letter, and count as missing",
        "1 of 12 instilled contexts have no weights, and take no part: the rarer letter was chosen fewer than 3 times "
        "there, which determines none",
    ]
    assert found["undetermined_contexts"] == {"instilled": 1, "native": 0}
    assert found["learned_vs_target"]["n_contexts"] == 11 and found["instilled"]["n_contexts"] == 10


def test_folds_on_scales_of_their_own_are_standardised_by_themselves(folder: Path):
    path = folder / f"{MODEL}{REPORT_FILES['first']}.csv"
    columns = numbered("report_attr{}")
    before = found_in(folder)["variants"]["introspection_trained"]
    table = pd.read_csv(path)
    table[columns] = table[columns] * 0.2 + 60
    table.to_csv(path, index=False)
    found = found_in(folder)
    after = found["variants"]["introspection_trained"]
    assert after["as_given"] < before["as_given"] - 0.1
    assert after["standardised_by_fold"] == pytest.approx(before["standardised_by_fold"])
    assert found["variants"]["instilled"]["standardised_by_fold"] is None
    assert read_released(folder, MODEL).pooled_by_fold


def test_standardised_by_fold_is_the_r_of_z_scores():
    rng = np.random.default_rng(0)
    x, y, folds = rng.normal(size=(9, 5)), rng.normal(size=(9, 5)), np.array([0, 0, 0, 1, 1, 1, 1, 1, -1])
    x[4] = np.nan
    pooled = []
    for rows in ([0, 1, 2], [3, 5, 6, 7]):
        pooled.append([(v[rows] - v[rows].mean()) / v[rows].std() for v in (x, y)])
    a, b = (np.concatenate([fold[k].ravel() for fold in pooled]) for k in (0, 1))
    assert standardised_by_fold(x, y, folds) == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert math.isnan(standardised_by_fold(np.ones((2, 5)), y[:2], [0, 0]))
    assert math.isnan(standardised_by_fold(x, y, np.full(9, -1)))


def papers(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the release one that the paper prints figures of."""
    groups = {"instilled": TAUGHT, "native": OWN}
    known = {g: (40, contexts_hash(load_model(folder, MODEL).contexts[c.name] for c in cs)) for g, cs in groups.items()}
    monkeypatch.setattr(released_files, "CONTEXTS_OF_THE_PAPER", known)
    monkeypatch.setitem(PRINTED, "toy-1b", PRINTED["gpt-4o"])
    for path in folder.glob(f"{MODEL}*.csv"):
        column = "model" if "selection" in path.name else "explaining_model"
        edit(path, **{column: f"ft:{MODEL}:{released_files.ORGANISATION}:x" if "instilled" in path.name else MODEL})


def test_the_papers_figures_stand_beside_its_own_trials_alone(folder: Path, monkeypatch: pytest.MonkeyPatch):
    assert found_in(folder)["printed_in_the_paper"] is None
    papers(folder, monkeypatch)
    assert found_in(folder)["printed_in_the_paper"]["instilled"] == 0.54
    whole = Path(shutil.copytree(folder, folder.with_name("whole")))
    edit(folder / f"{MODEL}_weight_reports.csv", explaining_model=f"ft:{MODEL}:someone-else:x")
    assert found_in(folder)["printed_in_the_paper"] is None, "reports of a model that others trained"
    pd.read_csv(whole / SELECTIONS)[3:].to_csv(whole / SELECTIONS, index=False)
    assert found_in(whole)["printed_in_the_paper"] is None, "fewer decisions"


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the paper's released files are not beside the repository")
def test_the_released_trials_are_known_as_the_papers(tmp_path: Path):
    name = "gpt-4o-mini-2024-07-18"
    assert load_model(RELEASED, name).of_the_paper
    for path in RELEASED.glob(f"{name}_*"):
        text = path.read_text(encoding="utf-8").replace(released_files.ORGANISATION, "someone-else")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    assert not load_model(tmp_path, name, Elsewhere(contexts=RELEASED, weights=RELEASED)).of_the_paper
