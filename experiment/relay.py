"""Run the command of a stage: what it says to the user is shown, everything that it prints goes to its log."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from store.console import RELAYED, read_marked
from store.processes import die_with_parent, end_group, stoppable

KILLED = re.compile(r"died with <Signals\.(SIG\w+)|Signal \d+ \((SIG\w+)\) received by PID")
"""How accelerate and torchrun say that the process which they had started was killed."""

STARTER = re.compile(r"subprocess\.CalledProcessError: Command|torch\.distributed\.elastic\S*\.ChildFailedError")
"""Last line of the traceback in which they say that it failed; the reason stands before it."""


@dataclass
class Outcome:
    """How a command ended, and what it said.

    Attributes:
        status: Exit status; negative is the signal that ended it.
        result, errors: The lines of its result, and its errors.
        last: The last line that it printed, other than those in which accelerate says that its script failed.
        killed: Name of the signal that ended it, or the process that it had started; None if there was none.
    """

    status: int = 0
    result: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    last: str = "nothing was printed"
    killed: str | None = None
    _before: str = ""
    _over: bool = False

    def heard(self, line: str) -> None:
        """Take in a line of what libraries print."""
        text = line.strip()[:200]
        if found := KILLED.search(line):
            self.killed = next(name for name in found.groups() if name)
        if text == "Traceback (most recent call last):":
            self._before = self.last
        if STARTER.match(text):
            self.last, self._over = self._before, True
        elif text and not self._over:
            self.last = text

    def ended(self, status: int) -> None:
        """Note the exit status."""
        self.status = status
        if status < 0:
            self.killed = signal.Signals(-status).name


def relay(command: Sequence[str], log: Path, console: Console, more: Mapping[str, str] | None = None) -> Outcome:
    """Run a command, with one bar on a terminal, and warnings as they come.

    Args:
        command: What to run.
        log: File that everything the command prints is appended to.
        console: Where bar and warnings are shown.
        more: Environment variables on top of this process's own.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    outcome = Outcome()
    environment = {**os.environ, **(more or {}), RELAYED: "1"}
    # The process first: it is forked while no thread draws a bar.
    with log.open("a", encoding="utf-8") as file, _started(command, environment) as process, _Bar(console) as bar:
        assert process.stdout is not None  # it is a pipe
        for line in process.stdout:
            said = read_marked(line)
            if said is None:
                file.write(line)
                outcome.heard(line)
            elif said.kind == "progress":
                bar.show(said.text)
            else:
                file.write(f"{said.text}\n")
                if said.kind == "say":
                    outcome.result.append(said.text)
                elif said.kind == "error":
                    outcome.errors.append(said.text.removeprefix("error: "))
                else:
                    console.print(f"    {said.text}", style="yellow", soft_wrap=True, markup=False)
            file.flush()
    outcome.ended(process.returncode)
    return outcome


@contextmanager
def _started(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The process of a command in a group of its own; it ends with this block, and with this process."""
    with stoppable():
        process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,  # nobody is there to be asked
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            process_group=0,
            preexec_fn=die_with_parent(),
        )
        try:
            yield process
            process.wait()
        except BaseException:
            end_group(process)
            raise


class _Bar:
    """The bar of a stage; drawn on terminals only."""

    def __init__(self, console: Console) -> None:
        columns = (TextColumn("    {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._progress.add_task("", total=None, visible=False)

    def show(self, state: str) -> None:
        """Draw what a line of `store.console.Progress` says."""
        values = json.loads(state)
        # The time left follows from steps done now, not from those that were found done on disk.
        self._progress.update(
            self._task, visible=True, total=values["total"], completed=values["done"], description=values["what"]
        )

    def __enter__(self) -> _Bar:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
