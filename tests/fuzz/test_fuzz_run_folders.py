"""Run folders whose files were cut off, emptied, edited, deleted or replaced by a folder.

Each is looked at (`--status`, `--dry-run`), analysed, and gone on with by the launcher. Every one of these commands
succeeds or says one line; and what the launcher finishes is what was found before.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiment import launcher
from experiment.stage import Options, stage_command
from fuzzing import LONGER, End, end_of, nothing_written_outside, show_counts
from store.console import run_command
from store.run import JobRecord, RunFolder, write_jobs
from store.summary import read_summary
from support import ROOT, run_experiment
from task.errors import InputError

INPUTS = 20
"""Spoiled runs that are tried in CI."""


def deleted(file: Path, random: np.random.Generator) -> None:
    file.unlink()


def emptied(file: Path, random: np.random.Generator) -> None:
    file.write_bytes(b"")


def cut_off(file: Path, random: np.random.Generator) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: int(random.integers(0, len(content)))])


def a_folder(file: Path, random: np.random.Generator) -> None:
    file.unlink()
    file.mkdir()


def noise(file: Path, random: np.random.Generator) -> None:
    file.write_bytes(random.bytes(300))


def nonsense(file: Path, random: np.random.Generator) -> None:
    file.write_text("\x00\ud800 ü [bold] {".encode("utf-8", "surrogatepass").decode("utf-8", "replace") * 3)


def _leaf(value: Any, random: np.random.Generator) -> tuple[Any, Any]:
    """A random place in a JSON value: its container, and the key or index in it."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = keys[int(random.integers(0, len(keys)))]
        inner = value[key]
        if not isinstance(inner, dict | list) or not inner or random.random() < 0.2:
            return value, key
        value = inner


def _edited(file: Path, random: np.random.Generator, edit: Callable[[Any, Any], None]) -> None:
    """Change a JSON or YAML file in one place; other files are cut off."""
    if file.suffix not in (".json", ".yaml"):
        cut_off(file, random)
        return
    values = yaml.safe_load(file.read_text())
    edit(*_leaf(values, random))
    file.write_text(json.dumps(values))


WRONG: list[Any] = ["x", -1, 1e400, float("nan"), None, [], {}, True, "../../evil", "\ud800", "x" * 300, [[]], {"": 0}]


def wrong_type(file: Path, random: np.random.Generator) -> None:
    value = WRONG[int(random.integers(0, len(WRONG)))]
    _edited(file, random, lambda where, key: where.__setitem__(key, value))


def key_lost(file: Path, random: np.random.Generator) -> None:
    _edited(file, random, lambda where, key: where.pop(key))


def another_version(file: Path, random: np.random.Generator) -> None:
    if file.suffix == ".json" and isinstance(values := json.loads(file.read_text()), dict):
        file.write_text(json.dumps({**values, "format": [1, 99, None, "2"][int(random.integers(0, 4))]}))
    else:
        emptied(file, random)


def another_whole(file: Path, random: np.random.Generator) -> None:
    file.write_text(["null", "[]", "3", '"x"', "{}", "NaN"][int(random.integers(0, 6))])


SPOILT = (deleted, emptied, cut_off, a_folder, noise, nonsense, wrong_type, key_lost, another_version, another_whole)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished simulation of few contexts; its experiment file lies beside the runs."""
    folder = tmp_path_factory.mktemp("finished")
    values = yaml.safe_load((ROOT / "configs" / "experiments" / "simulated.yaml").read_text())
    values["contexts"]["instilled"]["count"], values["contexts"]["native"]["count"] = 4, 3
    values["measurements"] = [{**m, "per_context": 6} for m in values["measurements"]]
    (folder / "small.yaml").write_text(yaml.safe_dump(values))
    result = run_experiment(folder / "small.yaml", folder / "runs", WANDB_MODE="disabled")
    assert result.returncode == 0, result.stderr
    run = RunFolder(folder / "runs" / "simulated-seed0")
    write_jobs(run, {"evaluate": JobRecord(id="12", stages=["evaluate"], command=["sbatch"])})
    return folder


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages are carried out in this process, without figures, which are no matter here and take most of the time."""

    def carry_out(run: RunFolder, stage: str, options: Options, console: object, more: Sequence[str] = ()) -> None:
        _, _, module, *arguments = stage_command(run, stage, options, more)
        through(importlib.import_module(module).main, module, *arguments)

    monkeypatch.setattr(launcher, "run_stage", carry_out)
    monkeypatch.setattr("analysis.run.save_figures", lambda results, folder: [])
    monkeypatch.setattr("analysis.run.write_report", lambda results, told, figures, path: path.write_text(""))
    monkeypatch.setenv("WANDB_MODE", "disabled")


def through(main: Callable[[], None], *arguments: str) -> None:
    """Run a command as its user does; the line that it ends with is raised."""
    before, environment, screen = sys.argv, {**os.environ}, io.StringIO()
    sys.argv = [*arguments]
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(screen):
            run_command(main)
    except SystemExit as end:
        assert end.code == 2
        [line] = [line for line in screen.getvalue().splitlines() if line.startswith("error: ")]
        raise InputError(line.removeprefix("error: ")) from None
    finally:
        sys.argv = before
        os.environ.clear()
        os.environ.update(environment)


def spoiled_runs(finished: Path, folder: Path) -> Iterator[tuple[str, Path]]:
    """Copies of a finished run, in each of which one file was spoiled, with what was done to it."""
    run = finished / "runs" / "simulated-seed0"
    files = sorted(p.relative_to(run) for p in run.rglob("*") if p.is_file() and p.suffix not in (".png", ".log"))
    random = np.random.default_rng(0)
    pairs = [(file, spoil) for file in files for spoil in SPOILT]
    order = random.permutation(len(pairs))
    for number in range(min(INPUTS * LONGER, len(pairs) * 3)):
        file, spoil = pairs[order[number % len(pairs)]]
        copy = folder / str(number)
        shutil.copytree(finished, copy)
        spoil(copy / "runs" / "simulated-seed0" / file, np.random.default_rng(number))
        yield f"{spoil.__name__}: {file}", copy
        shutil.rmtree(copy)


@pytest.mark.timeout(600 * LONGER)
def test_a_spoiled_run_is_gone_on_with_or_refused_in_one_line(finished: Path, tmp_path: Path):
    wanted = read_summary(finished / "runs" / "simulated-seed0" / "analysis" / "summary.json").key
    commands: dict[str, Counter[End]] = {name: Counter() for name in ("--status", "--dry-run", "analysis", "launcher")}
    for what, folder in spoiled_runs(finished, tmp_path):
        launch, run = ["run_experiment.py", str(folder / "small.yaml"), "--runs", str(folder / "runs")], folder / "runs"
        calls: dict[str, tuple[Callable[[], None], list[str]]] = {
            "--status": (launcher.main, [*launch, "--status"]),
            "--dry-run": (launcher.main, [*launch, "--dry-run"]),
            "launcher": (launcher.main, launch),
            "analysis": (
                importlib.import_module("analysis.run").main,
                ["run.py", "--run", str(run / "simulated-seed0")],
            ),
        }
        for name, (main, arguments) in calls.items():
            looks = name.startswith("--")
            with nothing_written_outside(tmp_path, *([] if looks else [run])):
                end = end_of(lambda: through(main, *arguments), f"{name} after {what}")  # noqa: B023
            commands[name][end] += 1
            # What the analysis has written is a result like any other file of a person: edited, it is theirs.
            if end == "worked" and not looks and not (name == "launcher" and ": analysis/" in what):
                found = read_summary(run / "simulated-seed0" / "analysis" / "summary.json").key
                assert found == wanted, f"{name} after {what} finds something else"
    for name, ends in commands.items():
        show_counts(f"spoiled run folders, {name}", ends)
