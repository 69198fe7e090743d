"""What a command says: printed where it was started by hand, marked where a launcher reads it."""

from __future__ import annotations

import json

import pytest

from store.console import MARK, RELAYED, Progress, Said, read_marked, run_command, say, warn
from task.errors import InputError


@pytest.fixture
def relayed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RELAYED, "1")


def fail() -> None:
    raise InputError("runs/x: no such run;\ngive another")


def test_by_hand_lines_are_printed_as_they_are(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(RELAYED, raising=False)
    say("12 rows")
    warn("all A")
    assert capsys.readouterr() == ("12 rows\n", "warning: all A\n")


@pytest.mark.usefixtures("relayed")
def test_for_a_launcher_each_is_one_marked_line(capsys: pytest.CaptureFixture[str]):
    say("12 rows\nin 2 files")
    warn("all A")
    with pytest.raises(SystemExit) as ended:
        run_command(fail)
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert err == "" and [read_marked(line) for line in out.splitlines(keepends=True)] == [
        Said("say", "12 rows in 2 files"),
        Said("warn", "warning: all A"),
        Said("error", "error: runs/x: no such run; give another"),
    ]


def test_other_lines_are_not_marked():
    assert read_marked("Loading weights: 100%\n") is None and read_marked(f" {MARK}say{MARK}x") is None


def test_bad_input_is_one_line_unless_another_process_says_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv(RELAYED, raising=False)
    for quiet, said in ((False, "error: runs/x: no such run;\ngive another\n"), (True, "")):
        with pytest.raises(SystemExit):
            run_command(fail, quiet=quiet)
        assert capsys.readouterr().err == said


def test_what_is_no_bad_input_keeps_its_traceback():
    def crash() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(crash, quiet=True)


@pytest.mark.usefixtures("relayed")
def test_progress_tells_what_was_done_and_what_was_found(capsys: pytest.CaptureFixture[str]):
    with Progress(10, "trial") as progress:
        progress.now("instilled decisions")
        progress.found(4)
        progress.advance(1)
        progress.advance(5)
    told = [read_marked(line) for line in capsys.readouterr().out.splitlines()]
    assert {said.kind for said in told if said} == {"progress"}
    states = [json.loads(said.text) for said in told if said]
    assert states[0] | {"done": 10} == states[-1]
    assert states[-1] == {"done": 10, "found": 4, "total": 10, "unit": "trial", "what": "instilled decisions"}
    assert len(states) == 2, "the second advance came at once, and the end tells it"


def test_a_quiet_progress_says_nothing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    for value in ("1", None):
        monkeypatch.setenv(RELAYED, value) if value else monkeypatch.delenv(RELAYED)
        with Progress(3, "step", quiet=True) as progress:
            progress.advance(3)
        assert capsys.readouterr() == ("", "")
