"""What the launcher shows of a stage's command, and what goes to its log."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from experiment.relay import last_line, relay
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


def shown(code: str, log: Path, terminal: bool = False) -> tuple[str, object]:
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
    assert last_line(tmp_path / "stage.log") == "ZeroDivisionError: division by zero"
    assert last_line(tmp_path / "none.log") == "nothing was printed"


def test_logs_of_several_starts_follow_each_other(tmp_path: Path):
    for _ in range(2):
        shown("print('once')", tmp_path / "stage.log")
    assert (tmp_path / "stage.log").read_text() == "once\nonce\n"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_with_the_launcher(tmp_path: Path, sent: signal.Signals):
    child = f"import time, pathlib; pathlib.Path({str(tmp_path / 'begun')!r}).touch(); time.sleep(60)"
    code = f"""
import signal, sys
from pathlib import Path
from rich.console import Console
from experiment.relay import relay
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job begins with it ignored
relay([sys.executable, "-c", {child!r}], Path({str(tmp_path / "stage.log")!r}), Console())
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    os.kill(process.pid, sent)
    process.wait(timeout=20)
    left = subprocess.run(["pgrep", "-g", str(process.pid)], capture_output=True, text=True).stdout
    assert left == "", "nothing of its group runs on"
