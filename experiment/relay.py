"""Run the command of a stage: what it says to the user is shown, everything that it prints goes to its log."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from store.console import RELAYED, read_marked


@dataclass
class Outcome:
    """How a command ended, and what it said: its exit status, the lines of its result, its errors."""

    status: int = 0
    result: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


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
    with log.open("a", encoding="utf-8") as file, _Bar(console) as bar, _started(command, environment) as process:
        assert process.stdout is not None  # it is a pipe
        for line in process.stdout:
            said = read_marked(line)
            if said is None:
                file.write(line)
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
    outcome.status = process.returncode
    return outcome


@contextmanager
def _started(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """The process of a command; it ends with this block, also where this process is asked to end."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    try:
        yield process
    except BaseException:
        process.terminate()
        raise
    finally:
        process.wait()
        signal.signal(signal.SIGTERM, before)


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


def last_line(log: Path) -> str:
    """The last line of a log that says anything."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    return next((line.strip()[:200] for line in reversed(lines) if line.strip()), "nothing was printed")
