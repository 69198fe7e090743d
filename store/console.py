"""What a command says to the person who started it: lines, warnings, one progress bar.

Started by hand, a command prints them. Started as a stage of a run (`experiment.relay`), it hands them to the launcher
as marked lines of its output; all else that it prints, such as what libraries say, goes to the run's `logs/`. Marked
lines pass through every layer that starts processes (accelerate, torchrun, srun), which an open file would not.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, NamedTuple, NoReturn, Self

from tqdm import tqdm

from store.processes import Stopped, end_with_reader
from task.errors import InputError

RELAYED = "SELF_INTERPRETABILITY_RELAYED"
"""Environment variable: set where a launcher reads the output of a command."""

MARK = "\x02"
"""Begins a marked line: mark, kind, mark, text."""

Kind = Literal["say", "warn", "error", "progress"]

SECONDS_BETWEEN = 0.5
"""Between two drawings of a bar."""

REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "make room there, then start the same command again"),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions, or give another place"),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST), "move away what stands in its place"),
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ENOENT: "start the same command again; if it is missing again, make it",
    errno.EIO: "the disk fails; start the same command again",
}
"""What helps where a file, folder or disk cannot be used."""


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
    """Run a command-line entry point so that what a user can mend, or has asked for, ends it with one line.

    An `InputError` and an unusable file, folder or disk give status 2; a signal gives the shell's status (130 for
    Ctrl-C). Started by a launcher, the command ends with it.

    Args:
        main: The entry point.
        quiet: Leave the line out, where another process of the same command says it. Tracebacks are always printed.
    """
    if RELAYED in os.environ:
        end_with_reader()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a file's name may be no text
    try:
        main()
    except InputError as error:
        _end(f"error: {error}", 2, quiet)
    except (KeyboardInterrupt, Stopped) as stop:
        number = stop.signal if isinstance(stop, Stopped) else signal.SIGINT
        _end(f"error: ended by {number.name}; started again, the same command goes on", 128 + number, quiet)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # whoever read the output has gone; nothing is left to say
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        if (line := unusable(error)) is None:
            raise
        if RELAYED in os.environ:
            traceback.print_exc()  # for the log
        _end(f"error: {line}", 2, quiet)


def unusable(error: OSError) -> str | None:
    """One line on a file, folder or disk that cannot be used; None for an error that is about none of them."""
    number = error.errno or 0
    if error.filename is None and number not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO):
        return None
    name = "the disk" if error.filename is None else str(error.filename)
    name = name if name.isprintable() else repr(name)
    remedy = REMEDIES.get(number, "see whether it can be used")
    return f"{name}: {os.strerror(number).lower() if number else error}; {remedy}"


def _end(line: str, status: int, quiet: bool) -> NoReturn:
    """Say why a command ends, and end it."""
    if not quiet:
        with suppress(OSError):  # the terminal may be gone
            _print("error", line)
    sys.exit(status)


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
