"""The analysis of a run: its summary through its types, and what its folder says that it was made from."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import pytest

from analysis import run as module
from analysis.run import summary, write_analysis
from analysis.study.results import RunResults
from store.files import hash_file
from store.manifests import OutputFacts, read_manifest
from store.run import RunFolder, read_run
from store.state_inputs import analysis_inputs
from store.summary import read_summary, write_summary
from task.errors import InputError


@pytest.fixture
def copy(simulated_run: Path, tmp_path: Path) -> RunFolder:
    """The run in another place, to be changed."""
    return RunFolder(Path(shutil.copytree(simulated_run, tmp_path / "copy")))


def test_a_summary_reads_as_it_was_written(passed: RunResults, failed: RunResults, tmp_path: Path):
    for results in (passed, failed):
        write_summary(tmp_path / "summary.json", summary(results))
        assert read_summary(tmp_path / "summary.json") == summary(results)


def test_no_comparison_can_replace_the_gate(passed: RunResults, tmp_path: Path):
    names = ["gate", "decisions", "run", "learned_vs_target"]
    renamed = [dataclasses.replace(c, name=name) for c, name in zip(passed.comparisons, names, strict=True)]
    write_summary(tmp_path / "summary.json", summary(dataclasses.replace(passed, comparisons=renamed)))
    found, usual = read_summary(tmp_path / "summary.json"), summary(passed)
    assert list(found.comparisons) == names
    assert (found.gate, found.decisions, found.run) == (usual.gate, usual.decisions, usual.run)
    assert found.learned_vs_target == usual.learned_vs_target


def test_a_comparison_that_is_not_testable_has_a_reason_and_counts_but_no_figures(
    passed: RunResults, failed: RunResults, tmp_path: Path
):
    write_summary(tmp_path / "summary.json", summary(failed))
    for c in json.loads((tmp_path / "summary.json").read_text())["comparisons"].values():
        assert c["testable"] is False and c["reason"].startswith("the gate was not passed: the share of held-out")
        assert c["total_reports"] > 0 and all(c[name] is None for name in ("r", "r_log_odds", "boot_low", "slope"))
    assert all(c.testable and c.reason is None and c.r is not None for c in summary(passed).comparisons.values())


def test_what_cannot_be_computed_is_null(passed: RunResults, tmp_path: Path):
    first = passed.comparisons[0]
    agreement = dataclasses.replace(first.agreement, r=math.nan)
    unknown = dataclasses.replace(passed, comparisons=[dataclasses.replace(first, agreement=agreement)])
    write_summary(tmp_path / "summary.json", summary(unknown))
    assert "NaN" not in (tmp_path / "summary.json").read_text()
    assert read_summary(tmp_path / "summary.json").comparisons[first.name].r is None


def test_a_summary_of_another_format_is_one_line(simulated_run: Path, tmp_path: Path):
    values = json.loads((simulated_run / "analysis" / "summary.json").read_text())
    (tmp_path / "summary.json").write_text(json.dumps({name: v for name, v in values.items() if name != "format"}))
    with pytest.raises(InputError, match=r"summary\.json: format 1, this version reads 4; run analysis\.run again"):
        read_summary(tmp_path / "summary.json")


def test_the_folder_says_what_it_was_made_from_wherever_the_run_lies(simulated_run: Path, copy: RunFolder):
    inputs = analysis_inputs(copy, read_run(copy.path))
    manifest = read_manifest(simulated_run / "analysis", OutputFacts)
    assert manifest.depends_on == inputs
    assert inputs["trial_files"] == summary_of(copy).trial_files and len(summary_of(copy).trial_files) == 4
    assert {*manifest.facts.files} == {
        path.relative_to(copy.analysis).as_posix()
        for path in copy.analysis.rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    shutil.rmtree(copy.trials_of("introspection", "reports", "trial"))
    assert analysis_inputs(copy, read_run(copy.path)) != inputs


def summary_of(run: RunFolder):
    return read_summary(run.analysis / "summary.json")


def test_an_earlier_analysis_is_replaced_whole_or_kept(copy: RunFolder, monkeypatch: pytest.MonkeyPatch):
    before = {path: hash_file(path) for path in copy.analysis.rglob("*") if path.is_file()}
    with monkeypatch.context() as patched:
        patched.setattr(module, "write_report", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_analysis(copy.path)
    assert {path: hash_file(path) for path in copy.analysis.rglob("*") if path.is_file()} == before
    write_analysis(copy.path)
    after = {path: hash_file(path) for path in copy.analysis.rglob("*") if path.is_file()}
    assert after.keys() == before.keys()
    same = [path for path, key in after.items() if before[path] == key]
    assert {path.suffix for path in same} >= {".csv", ".png", ".pdf"}
    (copy.analysis / "notes.txt").touch()
    with pytest.raises(InputError, match=r"holds notes\.txt, which analysis\.run did not write"):
        write_analysis(copy.path)


def test_trials_that_a_comparison_needs_and_lacks_are_named(copy: RunFolder):
    (copy.trials_of("introspection", "reports", "trial") / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"trials/introspection/reports: not measured, or not to the end"):
        write_analysis(copy.path)
