"""Locks of stages' folders: who comes second is told who holds it, and a lock dies with its process."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest

from store import locks
from store.locks import held, lock_path
from support import ROOT
from task.errors import InputError

HOLD = """
import os, sys, time
from pathlib import Path
from store.locks import held
with held(Path(sys.argv[1]), sys.argv[2] or None):
    if sys.argv[3] == "fork" and os.fork() == 0:
        time.sleep(60)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE", 0.1)


@contextmanager
def another(folder: Path, part: str = "", more: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a folder."""
    command = [sys.executable, "-c", HOLD, str(folder), part, more]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=ROOT, text=True, start_new_session=True, **pipes) as process:  # type: ignore[call-overload]
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_who_comes_second_is_told_who_holds_it_since_when(tmp_path: Path):
    with another(tmp_path / "a") as process:
        with pytest.raises(InputError) as caught, held(tmp_path / "a"):
            pass
        since = r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S*"
        who = rf"process {process.pid} on {re.escape(socket.gethostname())} \(-c\), {since}, works there"
        assert re.fullmatch(
            rf"{re.escape(str(tmp_path / 'a'))}: {who}; wait until it has ended, or end it", str(caught.value)
        )
        with held(tmp_path / "b"):
            pass


def test_who_has_just_begun_is_given_time_to_say_who_it_is(tmp_path: Path):
    path = lock_path(tmp_path / "a")
    with path.open("wb", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        says = Timer(0.15, file.write, [locks._identity()])
        says.start()
        with pytest.raises(InputError, match=rf"process {os.getpid()} on .*, since 20"), held(tmp_path / "a"):
            pass
        says.join()


def test_a_lock_dies_with_its_process_even_if_a_forked_child_lives_on(tmp_path: Path):
    with another(tmp_path / "a", more="fork") as process:
        process.kill()
        process.wait()
        assert lock_path(tmp_path / "a").exists(), "its file is left"
        with held(tmp_path / "a"):
            pass
        os.killpg(process.pid, 9)
    assert not list(tmp_path.iterdir()), "nothing is left, and the folder itself was not made"


def test_a_lock_is_waited_for_as_long_as_a_killed_process_takes_to_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(locks, "PATIENCE", 20)
    with another(tmp_path / "a") as process:
        process.stdin.close()  # which ends it in a moment
        with held(tmp_path / "a"):
            pass


def test_parts_work_side_by_side_and_each_of_them_once(tmp_path: Path):
    folder = tmp_path / "trials"
    with another(folder, "1-of-3") as process:
        with held(folder, "2-of-3"):
            pass
        for part in ("1-of-3", None):
            with (
                pytest.raises(InputError, match=rf"process {process.pid} .*, part 1 of 3\), since"),
                held(folder, part),
            ):
                pass
    with held(folder), pytest.raises(InputError, match=rf"process {os.getpid()} "):
        locks.Lock(folder, lock_path(folder), shared=True)


def test_a_process_that_lets_parts_work_beside_it_keeps_everybody_else_out(tmp_path: Path):
    folder = tmp_path / "trials"
    with held(folder) as lock:
        lock.share()
        with another(folder, "1-of-2"), pytest.raises(InputError, match="part 1 of 2"):
            locks.Lock(folder, lock_path(folder))
        lock.exclude()
        with held(folder), pytest.raises(InputError, match=rf"process {os.getpid()} "):
            locks.Lock(folder, lock_path(folder), shared=True)
    assert not list(tmp_path.glob(".trials.lock"))


def test_the_same_folder_by_another_name_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    spelled = ("runs/x", "./runs/x", "link/x", "runs/../runs/x", str(tmp_path / "runs" / "x"))
    assert {lock_path(Path(path)) for path in spelled} == {tmp_path / "runs" / ".x.lock"}
    assert lock_path(Path()) == tmp_path.with_name(f".{tmp_path.name}.lock")


def test_where_a_file_system_has_no_locks_work_goes_on_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def none(file: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    with held(tmp_path / "a"):
        pass
    assert "no locks in this file system" in capsys.readouterr().err


def test_a_full_disk_is_no_reason_not_to_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with held(tmp_path / "a"), pytest.raises(InputError, match="another process works there"):
        locks.Lock(tmp_path / "a", lock_path(tmp_path / "a"))
