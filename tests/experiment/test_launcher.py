"""The launcher's command line: places that can and cannot be used, said in one line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from experiment import launcher
from experiment.relay import Outcome
from experiment.stage import why_it_failed
from store.console import run_command
from support import ROOT

SIMULATED = ROOT / "configs" / "experiments" / "simulated.yaml"

Launch = Callable[..., tuple[str, str]]


@pytest.fixture
def launch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Launch:
    """Runs the launcher in this process; returns what it prints, and the line of its error."""

    def launched(runs: Path | str, *more: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["run_experiment.py", str(SIMULATED), "--runs", str(runs), *more])
        try:
            run_command(launcher.main)
        except SystemExit as end:
            assert end.code == 2
        out, err = capsys.readouterr()
        assert len(err.splitlines()) <= 1 and "Traceback" not in err
        return out, err

    return launched


@pytest.mark.parametrize("look", ["--status", "--dry-run"])
def test_a_folder_with_brackets_is_named_as_it_is(launch: Launch, tmp_path: Path, look: str):
    for name in ("[bold]x", "[/bold]", "[red]", "a[1]"):
        out, err = launch(tmp_path / name, look)
        assert f"{tmp_path}/{name}/simulated-seed0\n" in out and not err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("look", [("--status",), ("--dry-run",), ()])
def test_a_file_in_place_of_the_folder_of_runs_and_names_that_are_no_text(
    launch: Launch, tmp_path: Path, look: tuple[str, ...]
):
    (tmp_path / "runs").write_text("mine")
    assert f"--runs {tmp_path / 'runs'}: a file, not a folder" in launch(tmp_path / "runs", *look)[1]
    for name in ("x\ny", "\udcff", "\x1b[31m"):
        assert "holds what cannot be printed; give a folder" in launch(tmp_path / name, *look)[1]
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


def test_a_place_that_cannot_be_written_to(launch: Launch, tmp_path: Path):
    assert "error: /proc/nowhere: no such file or directory; " in launch("/proc/nowhere")[1]
    assert "file name too long; give a shorter name" in launch(tmp_path / ("x" * 300))[1]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "simulated-seed0").write_text("a file")
    assert "simulated-seed0" in (said := launch(tmp_path / "runs")[1]) and "move away what stands in its place" in said


def test_what_is_said_of_a_stage_that_failed_is_true():
    log = Path("logs/a.sft.log")
    refused = Outcome(status=1, errors=["train.jsonl:3: no readable row; correct it"], last="Traceback")
    assert why_it_failed("a.sft", refused, log) == "train.jsonl:3: no readable row; correct it"
    killed = Outcome(status=1, last="step 3", killed="SIGKILL")
    assert why_it_failed("a.sft", killed, log) == (
        "stage a.sft was killed (SIGKILL); see logs/a.sft.log. The same command goes on from where it was"
    )
    crashed = Outcome(status=1, last="ValueError: too long")
    assert why_it_failed("a.sft", crashed, log) == (
        "stage a.sft ended with status 1 (ValueError: too long); see logs/a.sft.log and mend the cause"
    )
