"""What a command says to the person who started it: lines, warnings, one progress bar.

Started by hand, a command prints them. Started as a stage of a run (`experiment.relay`), it hands them to the launcher
as marked lines of its output; all else that it prints, such as what libraries say, goes to the run's `logs/`. Marked
lines pass through every layer that starts processes (accelerate, torchrun, srun), which an open file would not.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Literal, NamedTuple, Self

from tqdm import tqdm

from task.errors import InputError

RELAYED = "SELF_INTERPRETABILITY_RELAYED"
"""Environment variable: set where a launcher reads the output of a command."""

MARK = "\x02"
"""Begins a marked line: mark, kind, mark, text."""

Kind = Literal["say", "warn", "error", "progress"]

SECONDS_BETWEEN = 0.5
"""Between two drawings of a bar."""


class Said(NamedTuple):
    """A marked line."""

    kind: Kind
    text: str


def say(text: str) -> None:
    """A line for the user, such as a stage's result."""
    _print("say", text)


def warn(text: str) -> None:
    """A warning that concerns the user: something that they may want to change."""
    _print("warn", f"warning: {text}")


def read_marked(line: str) -> Said | None:
    """A line of a command's output as what it says to the user; None for any other line."""
    if not line.startswith(MARK):
        return None
    kind, _, text = line[1:].rstrip("\n").partition(MARK)
    return Said(kind, text)  # type: ignore[arg-type]  # only `_print` writes them


def run_command(main: Callable[[], None], quiet: bool = False) -> None:
    """Run a command-line entry point; an `InputError` becomes one line on stderr and exit status 2.

    Args:
        main: The entry point.
        quiet: Leave the line out, where another process of the same command says it. Tracebacks are always printed.
    """
    try:
        main()
    except InputError as error:
        if not quiet:
            _print("error", f"error: {error}")
        sys.exit(2)


def _print(kind: Kind, text: str) -> None:
    if RELAYED in os.environ:
        print(f"{MARK}{kind}{MARK}{' '.join(text.splitlines())}", flush=True)
    else:
        # Not print, which would write into the line of a bar.
        tqdm.write(text, file=sys.stdout if kind == "say" else sys.stderr)


class Progress:
    """One bar: steps done of all, how many a second, time left. Steps found done on disk do not count towards the rate.

    On a terminal the line is redrawn; elsewhere it is drawn every 30 seconds, as each drawing is a line of its own.
    """

    def __init__(self, total: int, unit: str, quiet: bool = False) -> None:
        self._relayed = RELAYED in os.environ and not quiet
        self._total, self._unit, self._done, self._found, self._what, self._last = total, unit, 0, 0, "", 0.0
        every = SECONDS_BETWEEN if sys.stderr.isatty() else 30
        hidden = quiet or self._relayed
        self._bar = tqdm(total=total, unit=unit, smoothing=0.1, mininterval=every, disable=hidden)

    def now(self, what: str) -> None:
        """Say what is being done."""
        self._what = what
        self._bar.set_description(what, refresh=False)

    def found(self, steps: int) -> None:
        """Count steps that had been done before."""
        self._done += steps
        self._found += steps
        if not self._bar.disable:
            self._bar.initial += steps
            self._bar.last_print_n += steps
            self._bar.n += steps

    def advance(self, steps: int) -> None:
        """Count steps that have just been done."""
        self._done += steps
        self._bar.update(steps)
        if self._relayed and time.monotonic() - self._last >= SECONDS_BETWEEN:
            self._tell()

    def _tell(self) -> None:
        self._last = time.monotonic()
        state = {"done": self._done, "found": self._found, "total": self._total, "unit": self._unit, "what": self._what}
        _print("progress", json.dumps(state))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._relayed:
            self._tell()
        self._bar.close()
