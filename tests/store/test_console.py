"""What a command says: printed where it was started by hand, marked where a launcher reads it."""

from __future__ import annotations

import errno
import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from store.console import MARK, RELAYED, Progress, Said, read_marked, run_command, say, warn
from store.processes import Stopped
from support import ROOT
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


@pytest.mark.parametrize(
    ("stop", "status", "name"), [(KeyboardInterrupt(), 130, "SIGINT"), (Stopped(signal.SIGHUP), 129, "SIGHUP")]
)
def test_ctrl_c_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, stop: BaseException, status: int, name: str
):
    monkeypatch.delenv(RELAYED, raising=False)
    with pytest.raises(SystemExit) as ended:
        run_command(lambda: throw(stop))
    assert ended.value.code == status
    assert capsys.readouterr().err == f"error: ended by {name}; started again, the same command goes on\n"


def throw(error: BaseException) -> None:
    raise error


def full_disk() -> None:
    if not Path("/dev/full").is_char_device():
        pytest.skip("this machine has no /dev/full")  # writing would make a plain file of that name
    with Path("/dev/full").open("w") as file:
        file.write("x")


def a_file_for_a_folder() -> None:
    Path(__file__, "x").mkdir()


def a_folder_for_a_file() -> None:
    Path("/").write_text("x")


def a_long_name() -> None:
    Path("x" * 300).write_text("x")


def a_read_only_place() -> None:
    throw(OSError(errno.EROFS, "Read-only file system", "/run\n/x"))


@pytest.mark.parametrize(
    ("main", "says"),
    [
        (full_disk, "the disk: no space left on device; make room there, then start the same command again"),
        (a_file_for_a_folder, "/x: not a directory; move away what stands in its place"),
        (a_folder_for_a_file, "/: is a directory; move away what stands in its place"),
        (a_long_name, "xx: file name too long; give a shorter name"),
        (a_read_only_place, "'/run\\n/x': read-only file system; change its permissions, or give another place"),
    ],
)
def test_an_unusable_place_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, main: Callable[[], None], says: str
):
    monkeypatch.delenv(RELAYED, raising=False)
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: ") and said.endswith(f"{says}\n") and len(said.splitlines()) == 1


@pytest.mark.usefixtures("relayed")
def test_for_a_launcher_the_traceback_of_an_unusable_place_is_in_the_log(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        run_command(a_file_for_a_folder)
    out, err = capsys.readouterr()
    said = read_marked(out)
    assert said is not None and said.kind == "error" and "not a directory" in said.text and "Traceback" in err


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), OSError("no place is named"), ConnectionRefusedError(111, "no")]
)
def test_what_is_no_bad_input_keeps_its_traceback(error: Exception):
    with pytest.raises(type(error)):
        run_command(lambda: throw(error), quiet=True)


def test_a_reader_that_goes_away_and_a_name_that_is_no_text_leave_no_traceback(tmp_path: Path):
    code = (
        "import os; from store.console import run_command, say\n"
        "run_command(lambda: [say(os.fsdecode(b'\\xff')) for _ in range(100000)])"
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} | head -n 1"
    ran = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert (ran.stdout, ran.stderr) == ("\\udcff\n", "")


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
