"""What the launcher shows of a stage's command, and what goes to its log."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from experiment.relay import Outcome, relay
from support import ROOT

CHATTY = """
import sys
from store.console import Progress, say, warn
print("a library speaks")
print("on stderr, too", file=sys.stderr, flush=True)
with Progress(2, "step") as bar:
    bar.now("training")
    bar.advance(2)
warn("the model answers A on 97%")
say("saved after 2 steps")
"""

FAILING = """
from store.console import run_command
from task.errors import InputError
def main():
    raise InputError("train.jsonl:3: no readable row; correct it")
run_command(main)
"""


def shown(code: str, log: Path, terminal: bool = False) -> tuple[str, Outcome]:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=terminal, width=100)
    outcome = relay([sys.executable, "-c", code], log, console, {"PYTHONPATH": str(ROOT)})
    return screen.getvalue(), outcome


def test_without_a_terminal_only_warnings_are_shown(tmp_path: Path):
    screen, outcome = shown(CHATTY, tmp_path / "logs" / "stage.log")
    assert screen == "    warning: the model answers A on 97%\n"
    assert outcome.status == 0 and outcome.result == ["saved after 2 steps"] and outcome.errors == []
    lines = (tmp_path / "logs" / "stage.log").read_text().splitlines()
    assert {"a library speaks", "on stderr, too", "saved after 2 steps"} < {*lines}
    assert not [line for line in lines if "\x02" in line or '"total"' in line], "no marks and no bars in the log"


def test_on_a_terminal_there_is_a_bar_that_goes_away(tmp_path: Path):
    screen, _ = shown(CHATTY, tmp_path / "stage.log", terminal=True)
    assert "training" in screen and "2/2" in screen and "library" not in screen


def test_an_error_is_kept_without_its_prefix(tmp_path: Path):
    screen, outcome = shown(FAILING, tmp_path / "stage.log")
    assert screen == "" and outcome.status == 2
    assert outcome.errors == ["train.jsonl:3: no readable row; correct it"]


def test_a_crash_leaves_its_traceback_in_the_log(tmp_path: Path):
    _, outcome = shown("1 / 0", tmp_path / "stage.log")
    assert outcome.status == 1 and outcome.errors == []
    assert "Traceback" in (tmp_path / "stage.log").read_text()
    assert outcome.last == "ZeroDivisionError: division by zero" and outcome.killed is None


def test_logs_of_several_starts_follow_each_other(tmp_path: Path):
    for _ in range(2):
        shown("print('once')", tmp_path / "stage.log")
    assert (tmp_path / "stage.log").read_text() == "once\nonce\n"


STAGE = """
import os, pathlib, sys, time
from store.console import run_command
def main():
    pathlib.Path(sys.argv[1], "stage").write_text(str(os.getpid()))
    time.sleep(60)
run_command(main)
"""

BETWEEN = """
import os, pathlib, subprocess, sys
pathlib.Path(sys.argv[1], "between").write_text(str(os.getpid()))
subprocess.run([sys.executable, "-c", sys.argv[2], sys.argv[1]], start_new_session=True)
"""
"""Starts the command in a session of its own, as torchrun does."""

LAUNCHER = """
import signal, sys
from pathlib import Path
from rich.console import Console
from experiment.relay import relay
from store.console import run_command
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
folder, between, stage = sys.argv[1:]
run_command(lambda: relay([sys.executable, "-c", between, folder, stage], Path(folder, "log"), Console()))
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_the_command_ends_with_the_launcher_and_what_stands_between_them_too(tmp_path: Path, sent: signal.Signals):
    launcher = [sys.executable, "-c", LAUNCHER, str(tmp_path), BETWEEN, STAGE]
    process = subprocess.Popen(launcher, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True)
    wait_until(lambda: (tmp_path / "stage").exists() and (tmp_path / "stage").read_text())
    os.kill(process.pid, sent)
    _, said = process.communicate(timeout=20)
    wait_until(lambda: not any(alive(int((tmp_path / name).read_text())) for name in ("between", "stage")))
    if sent == signal.SIGKILL:
        assert process.returncode == -sent
    else:
        assert process.returncode == 128 + sent
        assert said == f"error: ended by {sent.name}; started again, the same command goes on\n"


def wait_until(condition: Callable[[], object], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie that nobody has waited for."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


CRASH = """
Traceback (most recent call last):
  File "train/sft.py", line 1, in <module>
ValueError: too long
"""

ACCELERATE = """
Traceback (most recent call last):
  File "/lib/accelerate/commands/launch.py", line 1, in <module>
    main()
subprocess.CalledProcessError: Command '['python', 'train/sft.py']' {how}.
"""

TORCHRUN = """
Traceback (most recent call last):
  File "/lib/torch/distributed/run.py", line 1, in <module>
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
train/sft.py FAILED
  traceback : Signal 9 (SIGKILL) received by PID 7
"""


@pytest.mark.parametrize(
    ("printed", "last", "killed"),
    [
        ("one\ntwo\n", "two", None),
        ("", "nothing was printed", None),
        (f"{CRASH}{ACCELERATE.format(how='returned non-zero exit status 1')}", "ValueError: too long", None),
        (f"step 3\n{ACCELERATE.format(how='died with <Signals.SIGKILL: 9>')}", "step 3", "SIGKILL"),
        (f"step 3\n{TORCHRUN}", "step 3", "SIGKILL"),
    ],
)
def test_what_is_said_last_is_not_what_accelerate_says(printed: str, last: str, killed: str | None):
    outcome = Outcome()
    for line in printed.splitlines(keepends=True):
        outcome.heard(line)
    assert (outcome.last, outcome.killed) == (last, killed)


def test_a_killed_command_and_its_input(tmp_path: Path):
    _, outcome = shown(
        "import os, sys; print(repr(sys.stdin.read()), flush=True); os.kill(os.getpid(), 9)", tmp_path / "log"
    )
    assert outcome.last == "''", "nobody is there to be asked"
    assert outcome.status == -9 and outcome.killed == "SIGKILL"
