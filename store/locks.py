"""Locks on the folders of stages: two processes never fill one folder, and a lock dies with its process.

The lock of `adapters/instilled` is a file beside it, `adapters/.instilled.lock`, that is locked for the time of the
work (`flock`). It says who works there. The system takes the lock away when the process ends, however it ends; a file
that a killed process leaves behind locks nothing. Where several hosts share a folder, the file system must carry locks
from one to the other; see docs/several_gpus_and_slurm.md.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from store.console import warn
from task.errors import InputError

UNKNOWN = "another process"
"""Who holds a lock that does not say."""

PATIENCE = 2.0
"""Seconds for which a lock is waited for: a process that was killed a moment ago may not be gone yet."""

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
"""What a file system without locks answers."""

_mine: dict[Path, Lock] = {}


class Lock:
    """The lock of a folder, held by this process; made by `held`."""

    def __init__(self, folder: Path, path: Path, shared: bool = False) -> None:
        """Take the lock, for this process alone or with parts beside it, or raise `InputError`."""
        self._folder, self._path, self._file = folder, path, -1
        if shared:
            self.share()
        else:
            self.exclude()

    def exclude(self) -> None:
        """Hold the folder against every other process.

        Raises:
            InputError: Another process works there; the line says which, and since when.
        """
        self._take(fcntl.LOCK_EX)
        with suppress(OSError):  # on a full disk the lock holds all the same
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, _identity(), 0)

    def share(self) -> None:
        """Let parts work beside this process, and nobody else.

        Raises:
            InputError: Another process holds the folder for itself.
        """
        self._take(fcntl.LOCK_SH)

    def _take(self, kind: int) -> None:
        until = time.monotonic() + PATIENCE
        while not self._try(kind):
            late = time.monotonic() - until
            # Whoever has just begun has not said who it is yet, and whoever has just ended is no reason to refuse.
            if late > 0 and ((who := _holder(self._path)) != UNKNOWN or late > PATIENCE):
                self.close()
                raise InputError(f"{self._folder}: {who} works there; wait until it has ended, or end it")
            time.sleep(0.05)

    def _try(self, kind: int) -> bool:
        if self._file < 0:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            warn(f"{self._folder}: no locks in this file system; start no second command that writes there")
            return True
        # Whoever held it last may have removed the file since it was opened; another may lock a new one by now.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._file), self._path.stat()):
                return True
        self.close()
        return False

    def release(self) -> None:
        """Let go; the file is removed, unless other parts still hold it."""
        if self._file < 0:
            return
        with suppress(OSError):  # including the one that says that others hold it
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._path.unlink()
        self.close()

    def close(self) -> None:
        """Close the file, and with it this process's part in the lock."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1


@contextmanager
def held(folder: Path, part: str | None = None) -> Iterator[Lock]:
    """Hold a folder against other processes while the block runs. Within it, the same process may hold it again.

    Args:
        folder: Where a stage writes; it need not be there yet.
        part: What of the work is done, such as `2-of-4`. Parts work side by side, each of them once; who takes the
            whole folder waits for all of them.

    Raises:
        InputError: Another process works there; the line says which, and since when.
    """
    path = lock_path(folder)
    if path in _mine:
        yield _mine[path]
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(folder, path, shared=part is not None) as lock:
        if part is None:
            yield lock
        else:
            with _locked(folder, path.with_name(f"{path.name}.{part}")):
                yield lock


@contextmanager
def _locked(folder: Path, path: Path, shared: bool = False) -> Iterator[Lock]:
    lock = _mine[path] = Lock(folder, path, shared)
    try:
        yield lock
    finally:
        _mine.pop(path, None)  # not there in a forked child that leaves the block
        lock.release()


def lock_path(folder: Path) -> Path:
    """The file by which a folder is locked: beside it, so that it is no part of its content."""
    place = folder.resolve()
    return place.with_name(f".{place.name}.lock")


def _identity() -> bytes:
    """Who this process is. Of the command line only the script: arguments may hold what is nobody's business."""
    command = "/".join(Path(sys.argv[0]).parts[-2:])
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "command": command, "since": since}).encode()


def _holder(path: Path) -> str:
    """Who holds a lock, in words: the process that has it for itself, or the first of the parts."""
    for candidate in (path, *sorted(path.parent.glob(f"{glob.escape(path.name)}.*"))):
        if _is_exclusive(candidate):
            return _in_words(candidate)
    return _in_words(path)


def _is_exclusive(path: Path) -> bool:
    """Whether a process holds a lock file for itself."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def _in_words(path: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        who = json.loads(path.read_bytes())
        part = path.name.partition(".lock.")[2].replace("-", " ")
        command = f"{who['command']}, part {part}" if part else who["command"]
        return f"process {who['pid']} on {who['host']} ({command}), since {who['since']},"
    return UNKNOWN


def _forget() -> None:
    """In a forked child: the locks are the parent's, and must not outlive it in the child's open files."""
    for lock in _mine.values():
        lock.close()
    _mine.clear()


os.register_at_fork(after_in_child=_forget)
