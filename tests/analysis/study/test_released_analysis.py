"""The command that reproduces the paper, on a small folder of the released form."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from released_layout import MODEL, OWN, REPORT_FILES, TAUGHT, WEIGHTS, numbered, write_release, write_selections

from analysis import released
from analysis.released import summary, write_released
from analysis.run import weights_table
from analysis.stats.variants import standardised_first
from analysis.study.released_files import find_model
from analysis.study.released_results import ReleasedResults, read_released
from store.console import run_command
from store.files import hash_file
from store.manifests import OutputFacts, read_manifest
from task.errors import InputError

COMPARISONS = [
    "learned_vs_target",
    "off_the_shelf",
    "instilled",
    "introspection_trained",
    "native_before",
    "native_after",
]
KEYS = ["r", "hdi_low", "hdi_high", "boot_low", "boot_high", "n_points", "n_contexts", "valid_reports", "total_reports"]


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of one model: 12 taught contexts and 8 of its own, some without reports."""
    folder = tmp_path_factory.mktemp("release")
    write_release(folder)
    return folder


@pytest.fixture(scope="session")
def whole(release: Path) -> dict[str, Any]:
    """The summary of that release."""
    return summary_of(release)


@pytest.fixture
def folder(release: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(release, tmp_path / "data"))


@pytest.fixture
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take most of the time, and have tests of their own."""

    def none(results: Any, folder: Path) -> list[Any]:
        folder.mkdir()
        (folder / "none.txt").touch()
        return []

    monkeypatch.setattr(released, "save_figures", none)


def command_line(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> None:
    """What `python -m analysis.released` does with these arguments."""
    monkeypatch.setattr(sys, "argv", ["released", *map(str, arguments)])
    run_command(released.main)


def results_of(folder: Path) -> ReleasedResults:
    return read_released(folder, MODEL)


def summary_of(folder: Path) -> dict[str, Any]:
    """What `summary.json` would hold; it must be JSON, which knows no NaN."""
    return json.loads(json.dumps(summary(results_of(folder)), allow_nan=False))


def report_file(folder: Path, key: str) -> Path:
    return folder / f"{MODEL}{REPORT_FILES[key]}.csv"


def edit_reports(folder: Path, key: str, edit: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    edit(pd.read_csv(report_file(folder, key))).to_csv(report_file(folder, key), index=False)


def r_by_hand(weights: pd.DataFrame, *files: Path) -> tuple[float, int]:
    """The paper's r from the CSV files alone, and the number of points behind it."""
    reports = pd.concat([pd.read_csv(file) for file in files])
    mean = reports.groupby("scenario")[numbered("report_attr{}")].mean()
    joined = weights.set_index("context").join(mean, how="inner")
    x, y = joined[numbered("report_attr{}")], joined[numbered("weight_{}")]
    return float(np.corrcoef(x.to_numpy().ravel(), y.to_numpy().ravel())[0, 1]), x.size


def test_everything_is_written_and_r_is_that_of_the_files(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "results" / "toy"
    command_line(monkeypatch, "--data", folder, "--model", "toy", "--out", out)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in printed] == [*COMPARISONS, "page"]
    assert "11 contexts, 65/120 reports readable" in printed[2]
    assert {path.name for path in out.iterdir()} == {
        "agreement.csv",
        "figures",
        "learned_weights.csv",
        "manifest.json",
        "native_weights.csv",
        "report.html",
        "summary.json",
    }
    assert [path.name for path in out.parent.iterdir()] == ["toy"]  # no draft is left
    found = json.loads((out / "summary.json").read_text())
    assert found["model"] == MODEL and found["notes"] == []
    assert all(list(found[name])[: len(KEYS)] == KEYS and "r_given_target" in found[name] for name in COMPARISONS)
    assert found["native_before"]["no_target"] == "native contexts have no target weights"
    assert found["native_before"]["r_given_target"] is None is found["learned_vs_target"]["r_given_target"]
    assert list(found["introspection_trained"]["folds"]) == ["fold_1", "fold_2"] and not found["instilled"]["folds"]
    learned, native = (pd.read_csv(out / f"{kind}_weights.csv") for kind in ("learned", "native"))
    assert list(learned) == list(native) == ["context", *numbered("raw_{}", "sd_{}", "weight_{}")]
    assert learned["context"].tolist() == [c.name for c in TAUGHT]
    np.testing.assert_allclose(learned[numbered("weight_{}")].abs().max(axis=1), 100)
    for name, keys in {k: [k] for k in REPORT_FILES if k not in ("first", "last")}.items():
        expected = r_by_hand(native if "native" in name else learned, *(report_file(folder, k) for k in keys))
        assert (found[name]["r"], found[name]["n_points"]) == pytest.approx(expected)
    expected = r_by_hand(learned, report_file(folder, "first"), report_file(folder, "last"))
    assert (found["introspection_trained"]["r"], 60) == pytest.approx(expected)
    target = np.stack([WEIGHTS[name] for name in learned["context"]])
    r = np.corrcoef(learned[numbered("weight_{}")].to_numpy().ravel(), target.ravel())[0, 1]
    assert found["learned_vs_target"]["r"] == pytest.approx(r) and r > 0.9
    table = pd.read_csv(out / "agreement.csv").set_index("comparison")
    assert table.index.tolist() == COMPARISONS
    assert table["testable"].all() and table["r"].tolist() == [found[name]["r"] for name in COMPARISONS]
    manifest = read_manifest(out, OutputFacts)
    assert manifest.depends_on["inputs"] == {path.name: hash_file(path) for path in folder.iterdir()}
    assert {"numpy", "scipy", "pandas"} <= {*manifest.packages} and manifest.git
    check_page((out / "report.html").read_text(encoding="utf-8"), found)


def check_page(page: str, found: dict[str, Any]) -> None:
    assert not re.search(r"""(?:src|href)=["'](?!data:)|url\(|<script""", page)  # needs nothing beside itself
    assert page.count("data:image/png;base64,") == 2
    assert all(f"<td>{found[name]['r']:.2f}</td>" in page for name in COMPARISONS)
    assert ">65/120</td>" in page  # readable of those asked for, on all contexts
    assert "missing as 0" in page and "Spearman-Brown" in page


def test_counts_are_of_ten_reports_for_each_context_with_decisions(whole: dict[str, Any]):
    counts = {
        name: tuple(whole[name][k] for k in ("valid_reports", "total_reports", "n_contexts")) for name in COMPARISONS
    }
    assert counts == {
        "learned_vs_target": (0, 0, 12),
        "off_the_shelf": (120, 120, 12),
        "instilled": (65, 120, 11),
        "introspection_trained": (114, 120, 12),
        "native_before": (40, 80, 4),
        "native_after": (80, 80, 8),
    }


@pytest.mark.parametrize("left", [None, "", "\n", "\r\n\n", "header"])
@pytest.mark.parametrize("key", REPORT_FILES)
def test_reports_that_are_missing_are_null_with_a_note(folder: Path, whole: dict[str, Any], key: str, left: str | None):
    path = report_file(folder, key)
    header = path.read_text().splitlines()[0]
    path.unlink()
    if left is not None:
        path.write_text(f"{header}\n" if left == "header" else left)
    found = summary_of(folder)
    name = "introspection_trained" if key in ("first", "last") else key
    assert found[name] is None
    state = "is missing" if left is None else "is empty"
    assert found["notes"] == [f"{path.name} {state}: no {name}"]
    assert all(found[other] == whole[other] for other in COMPARISONS if other != name)


def test_a_report_or_two_are_no_crash(folder: Path, tmp_path: Path):
    edit_reports(folder, "native_before", lambda table: table.head(1))
    edit_reports(folder, "instilled", lambda table: table.assign(report_attr2=np.nan))
    found = summary_of(folder)
    assert found["native_before"]["n_points"] == 5 and found["native_before"]["boot_low"] is None
    assert found["without_noise"]["native_before"]["r"] is None
    assert found["instilled"] is None and "without a readable report" in " ".join(found["notes"])
    write_released(folder, MODEL, tmp_path / "out")


@pytest.mark.usefixtures("without_pictures")
def test_without_targets_there_is_no_gate(folder: Path, whole: dict[str, Any], tmp_path: Path):
    (folder / "instilled_weights.csv").unlink()
    write_released(folder, MODEL, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found["learned_vs_target"] is None and found["native_after"] == whole["native_after"]
    assert found["gate"]["passed"] is False and "instilled_weights.csv is missing" in found["gate"]["reasons"][-1]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "not testable" in page and f"<td>{whole['native_after']['r']:.2f}</td>" not in page


@pytest.mark.parametrize(
    ("suffix", "silent"),
    [
        ("_instilled_selections.csv", COMPARISONS[:4]),
        ("_instilled_latent_selections.csv", COMPARISONS[4:]),
    ],
)
def test_one_file_of_decisions_is_enough_for_its_contexts(
    folder: Path, whole: dict[str, Any], tmp_path: Path, suffix: str, silent: list[str]
):
    (folder / f"{MODEL}{suffix}").unlink()
    write_released(folder, MODEL, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [name for name in COMPARISONS if found[name] is None] == silent
    assert all(found[name] == whole[name] for name in COMPARISONS if name not in silent)
    assert (tmp_path / "out" / "learned_weights.csv").exists() == ("latent" in suffix)
    assert (tmp_path / "out" / "native_weights.csv").exists() != ("latent" in suffix)


@pytest.mark.usefixtures("without_pictures")
def test_a_model_that_learned_nothing_is_not_testable(folder: Path, tmp_path: Path):
    path = folder / f"{MODEL}_instilled_selections.csv"
    table = pd.read_csv(path)
    table["selection"] = "A"
    table.to_csv(path, index=False)
    write_released(folder, MODEL, tmp_path / "out")
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found["gate"]["passed"] is False and found["gate"]["share_a"] == 1
    assert "collapse" in found["gate"]["reasons"][-1]
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count(">not testable") == 6, "there are no learned weights either"
    assert f"<td>{found['native_after']['r']:.2f}</td>" not in page
    assert list(found["not_testable"]) == COMPARISONS and found["learned_vs_target"]["r"] is None
    assert found["undetermined_contexts"] == {"instilled": 12, "native": 0}
    table = pd.read_csv(tmp_path / "out" / "agreement.csv")
    assert not table["testable"].any()


def test_the_gate_counts_decisions_that_follow_the_targets(folder: Path):
    assert results_of(folder).gate.agreement == 1
    path = folder / f"{MODEL}_instilled_selections.csv"
    table = pd.read_csv(path)
    table.loc[:47, "selection"] = table.loc[:47, "selection"].map({"A": "B", "B": "A"})
    table.loc[48:59, "selection"] = "neither"
    table.to_csv(path, index=False)
    assert results_of(folder).gate.agreement == pytest.approx(1 - 48 / 468)


def test_values_out_of_range_are_counted_and_kept_as_given(folder: Path):
    def exaggerate(table: pd.DataFrame) -> pd.DataFrame:
        table.loc[table.index[3], "report_attr2"] = 2388
        table.loc[table.index[30], "report_attr5"] = -130
        return table

    edit_reports(folder, "native_after", exaggerate)
    results = results_of(folder)
    weights = weights_table(results.measured["native"])
    found = results.variants["native_after"]
    path = report_file(folder, "native_after")
    assert summary(results)["native_after"]["r"] == found.as_given
    assert found.as_given == pytest.approx(r_by_hand(weights, path)[0])
    assert (found.outside, found.largest) == (2, 2388)
    table = pd.read_csv(path)
    columns = numbered("report_attr{}")
    table.assign(**table[columns].clip(-100, 100)).to_csv(path, index=False)
    assert found.clipped == pytest.approx(r_by_hand(weights, path)[0])
    table[(table[columns].abs() <= 100).all(axis=1)].to_csv(path, index=False)
    assert found.dropped == pytest.approx(r_by_hand(weights, path)[0])
    assert len({round(r, 6) for r in (found.as_given, found.clipped, found.dropped)}) == 3


def test_standardised_first_is_the_slope_of_the_paper(whole: dict[str, Any]):
    rng = np.random.default_rng(0)
    y = rng.normal(size=(40, 5))
    x = 0.5 * y + rng.normal(size=y.shape)
    x[np.abs(y).max(axis=1) > 2] = np.nan
    y[0] = np.nan
    measured, reported = ~np.isnan(y).any(axis=1), ~np.isnan(x).any(axis=1)
    z_y = (y - y[measured].mean()) / y[measured].std(ddof=1)
    both = measured & reported
    z_x = (x - x[both].mean()) / x[both].std(ddof=1)
    slope = np.polyfit(z_x[both].ravel(), z_y[both].ravel(), 1)[0]
    assert standardised_first(x, y) == pytest.approx(slope)
    assert slope != pytest.approx(np.corrcoef(x[both].ravel(), y[both].ravel())[0, 1], abs=0.01)
    assert math.isnan(standardised_first(np.full((3, 5), np.nan), np.ones((3, 5))))
    assert whole["instilled_standardised_first"] == whole["variants"]["instilled"]["standardised_first"]


def test_reports_on_other_contexts_are_left_out_with_a_note(folder: Path, whole: dict[str, Any]):
    other = pd.DataFrame([["m", "v", "own-15", i, *[7.0] * 14] for i in range(4)])
    with report_file(folder, "instilled").open("a") as file:
        file.write(other.to_csv(header=False, index=False))
    found = summary_of(folder)
    assert found["notes"] == ["instilled: 4 reports on contexts without decisions are left out"]
    assert found["instilled"] == whole["instilled"]


@pytest.mark.parametrize(
    ("name", "old", "new", "words"),
    [
        ("_instilled_selections.csv", "taught-3", "unheard", r"selections\.csv: no context 'unheard' of 5 attributes"),
        ("_instilled_selections.csv", "taught-3,B,", "taught-3,B,x", r"selections\.csv:\d+: A_attribute_1 is 'x"),
        ("_weight_reports.csv", "report_attr4", "other", r"reports\.csv:1: column 'report_attr4' is missing"),
    ],
)
def test_a_broken_file_is_one_line(folder: Path, name: str, old: str, new: str, words: str):
    path = folder / f"{MODEL}{name}"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=words) as caught:
        results_of(folder)
    assert "\n" not in str(caught.value)


def test_a_model_is_found_by_its_name_or_the_beginning_of_just_one(folder: Path):
    write_selections(folder, "_instilled_latent_selections.csv", OWN, model="toy-1b")
    write_selections(folder, "_instilled_selections.csv", TAUGHT, model="other")
    assert find_model(folder, MODEL) == MODEL
    assert find_model(folder, "toy-1b") == "toy-1b"  # a whole name goes first
    assert find_model(folder, "toy-1b-") == MODEL
    assert find_model(folder, "o") == "other"
    with pytest.raises(InputError, match=rf"'toy' can be toy-1b, {MODEL}; give one of: other, toy-1b, {MODEL}"):
        find_model(folder, "toy")
    with pytest.raises(InputError, match=r"has no gpt_instilled_selections\.csv or .*; give one of: other"):
        find_model(folder, "gpt")


def test_a_folder_without_such_files_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as caught:
        command_line(monkeypatch, "--data", tmp_path, "--model", "gpt-4o-mini", "--out", tmp_path / "out")
    printed = capsys.readouterr()
    assert caught.value.code == 2 and not printed.out
    assert printed.err.count("\n") == 1 and printed.err.startswith(f"error: {tmp_path}: no decisions of any model")
    assert "<model>_instilled_selections.csv" in printed.err
    with pytest.raises(InputError, match="no such folder; give the one with the paper's released files"):
        find_model(tmp_path / "nowhere", "gpt-4o-mini")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("without_pictures")
def test_only_a_result_of_this_command_is_replaced(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = tmp_path / "out"
    out.mkdir()
    write_released(folder, MODEL, out)  # empty: nothing to lose
    first = {path.name: hash_file(path) for path in out.iterdir() if path.is_file()}
    report_file(folder, "native_after").unlink()
    with monkeypatch.context() as patched:
        patched.setattr(released, "write_page", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_released(folder, MODEL, out)
    assert {path.name: hash_file(path) for path in out.iterdir() if path.is_file()} == first
    write_released(folder, MODEL, out)
    assert json.loads((out / "summary.json").read_text())["native_after"] is None
    (out / "figures" / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match=r"holds figures/mine\.txt, which analysis\.released did not write"):
        write_released(folder, MODEL, out)
    (out / "figures" / "mine.txt").unlink()
    (out / "manifest.json").write_text('{"depends_on": {"command": "other"}}')
    for taken in (out, folder, folder / "scenarios.csv"):
        with pytest.raises(InputError, match="was not made by analysis"):
            write_released(folder, MODEL, taken)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


@pytest.mark.usefixtures("without_pictures")
def test_the_same_files_give_the_same_bytes(folder: Path, tmp_path: Path):
    for name in ("a", "b"):
        write_released(folder, MODEL, tmp_path / name)
    files = read_manifest(tmp_path / "a", OutputFacts).facts.files
    assert len(files) == 6
    assert all(hash_file(tmp_path / "a" / f) == hash_file(tmp_path / "b" / f) for f in files)
