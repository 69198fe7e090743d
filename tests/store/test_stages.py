"""Stages: finished work is kept, interrupted work goes on, changed inputs touch nothing."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store import files, stages
from store.files import hash_file, read_json, write_json, write_text
from store.manifests import FORMAT, MANIFEST, ExampleFacts, Facts, read_manifest
from store.provenance import git_revision
from store.stages import STARTED, Stage, begun, differences, read_origin, stage_key
from task.errors import InputError

INPUTS: dict[str, Any] = {"model": "tiny", "train": {"epochs": 3, "rate": 1e-4}}
CHANGED: dict[str, Any] = {"model": "tiny", "train": {"epochs": 4, "rate": 1e-4}}


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()
    }


def finished(folder: Path) -> Stage:
    stage = Stage(folder, INPUTS)
    write_text(folder / "result.txt", "42\n")
    stage.finish(ExampleFacts(train=1, validation=0))
    return stage


def test_a_fresh_stage_makes_its_folder_and_then_its_manifest(tmp_path: Path):
    folder = tmp_path / "runs" / "a"
    stage = Stage(folder, INPUTS)
    assert not stage.finished
    assert read_json(folder / STARTED) == {"format": FORMAT, "depends_on": INPUTS, "settings": None}
    stage.finish(ExampleFacts(train=7, validation=0))
    assert stage.finished
    assert [p.name for p in folder.iterdir()] == [MANIFEST]
    manifest = read_manifest(folder, ExampleFacts)
    assert manifest.depends_on == INPUTS
    assert manifest.key == stage_key(INPUTS)
    assert manifest.facts.train == 7
    assert manifest.packages["numpy"] == np.__version__
    assert manifest.wall_seconds >= 0
    assert manifest.git == git_revision()


def test_a_finished_stage_is_skipped(tmp_path: Path):
    finished(tmp_path / "a")
    before = content(tmp_path / "a")
    assert Stage(tmp_path / "a", INPUTS).finished
    assert content(tmp_path / "a") == before


def test_an_interrupted_stage_goes_on(tmp_path: Path):
    Stage(tmp_path / "a", INPUTS)
    write_text(tmp_path / "a" / "shard.txt", "half")
    again = Stage(tmp_path / "a", INPUTS)
    assert not again.finished
    assert (tmp_path / "a" / "shard.txt").read_text() == "half"
    again.finish(Facts())
    assert Stage(tmp_path / "a", INPUTS).finished


def test_a_stage_killed_during_its_first_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Stage(tmp_path / "a", INPUTS)
    assert any((tmp_path / "a").iterdir()), "the half-written file is there"
    assert not Stage(tmp_path / "a", INPUTS).finished


@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_changed_inputs_are_named_and_nothing_is_touched(tmp_path: Path, state: str):
    folder = tmp_path / "a"
    if state == "finished":
        finished(folder)
    else:
        Stage(folder, INPUTS)
        write_text(folder / "shard.txt", "half")
    before = content(folder)
    with pytest.raises(InputError, match=r"train\.epochs: 3 -> 4\. Give --overwrite") as caught:
        Stage(folder, CHANGED)
    assert str(folder) in str(caught.value)
    assert "rate" not in str(caught.value)
    assert content(folder) == before


def test_many_changes_are_counted(tmp_path: Path):
    finished(tmp_path / "a")
    other = {"model": "small", "train": {"epochs": 4, "rate": 1e-3}, "seed": 1, "data": "x" * 500}
    with pytest.raises(InputError, match="and 2 more") as caught:
        Stage(tmp_path / "a", other)
    assert len(str(caught.value)) < 400 + len(str(tmp_path))


@pytest.mark.parametrize("state", ["finished", "interrupted"])
def test_overwrite_replaces_the_result_of_other_inputs(tmp_path: Path, state: str):
    folder = tmp_path / "a"
    if state == "finished":
        finished(folder)
    else:
        Stage(folder, INPUTS)
        write_text(folder / "shard.txt", "half")
    assert not Stage(folder, CHANGED, overwrite=True).finished
    assert [p.name for p in folder.iterdir()] == [STARTED]
    assert read_json(folder / STARTED)["depends_on"] == CHANGED
    assert [p.name for p in tmp_path.iterdir()] == ["a"], "nothing of the old result lies about"


def test_overwrite_keeps_what_the_same_inputs_made(tmp_path: Path):
    finished(tmp_path / "a")
    assert Stage(tmp_path / "a", INPUTS, overwrite=True).finished
    Stage(tmp_path / "b", INPUTS)
    write_text(tmp_path / "b" / "shard.txt", "half")
    assert not Stage(tmp_path / "b", INPUTS, overwrite=True).finished
    assert (tmp_path / "b" / "shard.txt").exists(), "a killed command with --overwrite goes on when it is run again"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_somebody_else_is_refused(tmp_path: Path, overwrite: bool):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.tex").write_text("years of work")
    before = content(tmp_path / "a")
    with pytest.raises(InputError, match="not made by this stage") as caught:
        Stage(tmp_path / "a", INPUTS, overwrite=overwrite)
    assert str(tmp_path / "a") in str(caught.value)
    assert content(tmp_path / "a") == before


def test_an_empty_folder_is_taken(tmp_path: Path):
    (tmp_path / "a").mkdir()
    assert not Stage(tmp_path / "a", INPUTS).finished


def test_how_far_a_folder_has_come_and_what_it_was_made_from(tmp_path: Path):
    assert begun(tmp_path / "a") is None
    Stage(tmp_path / "a", INPUTS, settings={"rate": 1})
    assert begun(tmp_path / "a") == "interrupted" and read_origin(tmp_path / "a").settings == {"rate": 1}
    shutil.rmtree(tmp_path / "a")
    finished(tmp_path / "a")
    assert begun(tmp_path / "a") == "finished"
    assert read_origin(tmp_path / "a").key == stage_key(INPUTS) and read_origin(tmp_path / "a").settings is None


def test_settings_that_lead_to_the_same_result_are_noted_in_place_of_those_before(tmp_path: Path):
    Stage(tmp_path / "a", INPUTS, settings={"logging_steps": 1}).finish(Facts())
    manifest = (tmp_path / "a" / MANIFEST).read_bytes()
    assert Stage(tmp_path / "a", INPUTS, settings={"logging_steps": 1}).finished
    assert (tmp_path / "a" / MANIFEST).read_bytes() == manifest
    assert Stage(tmp_path / "a", INPUTS, settings={"logging_steps": 5}).finished
    assert read_manifest(tmp_path / "a", Facts).settings == {"logging_steps": 5}


@pytest.mark.parametrize("name", [MANIFEST, STARTED])
def test_a_folder_of_another_format_is_refused_in_one_line(tmp_path: Path, name: str):
    Stage(tmp_path / "a", INPUTS)
    (tmp_path / "a" / STARTED).unlink()
    write_json(tmp_path / "a" / name, {"depends_on": INPUTS, "key": stage_key(INPUTS)})
    with pytest.raises(InputError, match=rf"format: 1 -> {FORMAT}\. Give --overwrite"):
        Stage(tmp_path / "a", INPUTS)
    write_json(tmp_path / "a" / MANIFEST, {"depends_on": INPUTS, "key": stage_key(INPUTS)})
    with pytest.raises(InputError, match=rf"manifest.json: format 1, this version reads {FORMAT}; move "):
        read_manifest(tmp_path / "a", Facts)


def test_a_manifest_of_another_kind_of_folder_is_refused(tmp_path: Path):
    finished(tmp_path / "a")
    with pytest.raises(InputError, match=r"manifest.json: unknown key 'facts.train'"):
        read_manifest(tmp_path / "a", Facts)


def test_the_key_depends_on_values_but_not_on_the_order_of_keys():
    reordered = {"train": {"rate": 1e-4, "epochs": 3}, "model": "tiny"}
    assert stage_key(reordered) == stage_key(INPUTS) != stage_key(CHANGED)
    assert re.fullmatch(r"[0-9a-f]{16}", stage_key(INPUTS))


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (INPUTS, INPUTS, []),
        (INPUTS, CHANGED, ["train.epochs: 3 -> 4"]),
        ({"a": 1}, {"b": 2}, ["a: 1 -> null", "b: null -> 2"]),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a: [1, 2] -> [1, 3]"]),
        ({"a": {"b": 1}}, {"a": "x"}, ['a: {"b": 1} -> "x"']),
    ],
)
def test_differences_name_path_and_values(old: Any, new: Any, expected: list[str]):
    assert differences(old, new) == expected


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "table.csv"
    write_text(path, "old")

    def full_disk(descriptor: int):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full_disk)
        with pytest.raises(OSError, match="no space left"):
            write_text(path, "new, but never on disk")
    assert path.read_text() == "old"
    write_text(path, "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("table.csv", "new")]


def test_json_round_trip_and_errors(tmp_path: Path):
    write_json(tmp_path / "a.json", {"agent": "Väinämöinen", "values": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"agent": "Väinämöinen", "values": [1, 2.5, None]}
    (tmp_path / "broken.json").write_text('{"a": ')
    with pytest.raises(InputError, match=r"broken\.json: not JSON"):
        read_json(tmp_path / "broken.json")
    with pytest.raises(InputError, match=r"none\.json: no such file"):
        read_json(tmp_path / "none.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(InputError, match=r"folder\.json: cannot be read \(Is a directory\); move it away"):
        read_json(tmp_path / "folder.json", "move it away")


def strict(text: str) -> Any:
    """JSON as readers in other languages take it."""

    def refuse(name: str):
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_what_is_no_number_is_null(tmp_path: Path):
    values = {"loss": math.nan, "curve": [1.5, math.inf, (-math.inf, {"deep": np.float64("nan")})], "n": 3, "ok": True}
    write_json(tmp_path / "a.json", values)
    found = strict((tmp_path / "a.json").read_text())
    assert found == {"loss": None, "curve": [1.5, None, [None, {"deep": None}]], "n": 3, "ok": True}
    (tmp_path / "old.json").write_text('{"loss": NaN}')
    assert math.isnan(read_json(tmp_path / "old.json")["loss"]), "written by an earlier version"


@pytest.mark.parametrize("content", [b"", b'{"format": 2, "depends', b"\xff\xfe{}", b"[" * 100_000, b"nonsense"])
@pytest.mark.parametrize("name", [MANIFEST, STARTED])
def test_a_manifest_that_was_cut_off_is_one_line_and_can_be_overwritten(tmp_path: Path, name: str, content: bytes):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name}: not JSON \(.*\); move {tmp_path / 'a'} away and make it again$"):
        read_origin(tmp_path / "a")
    with pytest.raises(InputError, match=rf"{name}: not JSON .*Give --overwrite to redo it") as caught:
        Stage(tmp_path / "a", INPUTS)
    assert "\n" not in str(caught.value)
    assert not Stage(tmp_path / "a", INPUTS, overwrite=True).finished


def test_hash_file_is_the_start_of_sha256(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"abc")
    assert hash_file(tmp_path / "a") == "ba7816bf8f01cfea" == hashlib.sha256(b"abc").hexdigest()[:16]


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_revision_is_that_of_the_source_tree():
    root = Path(stages.__file__).parent.parent
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False)
    if head.returncode:
        pytest.skip("not a git checkout")
    assert git_revision() in (head.stdout.strip(), head.stdout.strip() + "+changes")
