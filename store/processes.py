"""Processes that end together: a command that a launcher has started does not outlive it.

A launcher that is killed can do nothing more. So its children watch: Linux ends a direct child together with its parent
(`die_with_parent`), and a command whose output a launcher reads ends as soon as nobody reads it any longer
(`end_with_reader`), whatever stands between the two (accelerate, torchrun). Nothing is lost: stages that were killed go
on from where they were.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets when its parent ends."""

GRACE = 10.0
"""Seconds between asking processes to end and killing them."""


class Stopped(SystemExit):
    """A signal asked this process to end; its exit status is the shell's, 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(128 + number)


@contextmanager
def stoppable() -> Iterator[None]:
    """Within the block SIGTERM and SIGHUP, unless ignored, raise `Stopped`, as SIGINT raises `KeyboardInterrupt`."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    before = {
        number: signal.signal(number, stop)
        for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def die_with_parent() -> Callable[[], None] | None:
    """What a new process is to do before its program starts (`preexec_fn`), so that it is killed when its parent ends.

    None where the system is not Linux.
    """
    if not sys.platform.startswith("linux"):
        return None
    libc, parent = ctypes.CDLL(None, use_errno=True), os.getpid()

    def ask() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            os._exit(128 + signal.SIGKILL)

    return ask


def end_group(process: subprocess.Popen) -> None:
    """End a process that leads a group, with its group; killed if it takes long."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
            return


def end_with_reader(output: int = 1) -> None:
    """Kill this process as soon as nobody reads its output any longer; only where that is a pipe.

    Args:
        output: The file descriptor of the output.
    """
    if not stat.S_ISFIFO(os.fstat(output).st_mode):
        return
    watched = os.dup(output)  # libraries may put another file in the place of the first

    def watch() -> None:
        poll = select.poll()
        poll.register(watched, 0)  # only what is reported in any case: that the other end is closed
        poll.poll()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end_with_reader", daemon=True).start()
