"""Output folders: whole or not at all, and over nothing but an earlier output of the same command."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.study.output import check_replaceable, output_folder
from analysis.study.results import RunResults
from store.manifests import OutputFacts, read_manifest
from store.stages import read_origin
from task.errors import InputError


def write(folder: Path, *names: str, command: str = "analysis.x", **depends_on: int) -> None:
    with output_folder(folder, command, depends_on) as draft:
        for name in names:
            (draft / name).write_text(name)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_earlier_output_is_replaced_whole(tmp_path: Path):
    write(tmp_path / "deep" / "out", "a.csv", "b.csv", seed=1)
    write(tmp_path / "deep" / "out", "c.csv", seed=2)
    assert names(tmp_path / "deep") == {"out"}
    assert names(tmp_path / "deep" / "out") == {"c.csv", "manifest.json"}
    manifest = read_manifest(tmp_path / "deep" / "out", OutputFacts)
    assert manifest.depends_on == {"command": "analysis.x", "seed": 2} and manifest.facts.files == ["c.csv"]
    assert "numpy" in manifest.packages


def test_an_error_leaves_the_earlier_output(tmp_path: Path):
    write(tmp_path / "out", "a.csv")
    with pytest.raises(ZeroDivisionError), output_folder(tmp_path / "out", "analysis.x", {}) as draft:
        (draft / "half.csv").touch()
        raise ZeroDivisionError
    assert names(tmp_path / "out") == {"a.csv", "manifest.json"}
    write(tmp_path / "out", "b.csv")
    assert names(tmp_path / "out") == {"b.csv", "manifest.json"} and names(tmp_path) == {"out"}


def test_what_the_command_did_not_write_is_left_alone(tmp_path: Path):
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", "a.csv")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"mine: was not made by analysis\.x"):
        write(tmp_path / "mine", "a.csv")
    with pytest.raises(InputError, match=r"empty: was not made by analysis\.y"):
        check_replaceable(tmp_path / "empty", "analysis.y")
    (tmp_path / "empty" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"empty: holds notes\.txt, which analysis\.x did not write"):
        write(tmp_path / "empty", "a.csv")
    assert names(tmp_path / "mine") == {"thesis.tex"}


def test_a_runs_inputs_are_its_trial_files(simulated_run: Path, passed: RunResults):
    manifests = (simulated_run / "trials").rglob("manifest.json")
    keys = {str(path.parent.relative_to(simulated_run)): read_origin(path.parent).key for path in manifests}
    assert passed.inputs == {"run": "small-seed0", "seed": 0, "trial_files": keys} and len(keys) == 4
