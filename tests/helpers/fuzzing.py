"""What a spoiled input may end in: success, or one line that says what, where and the remedy. Nothing else.

The number of mutated inputs of a test is that of its table in CI; `FUZZ=20` tries twenty times as many.
"""

from __future__ import annotations

import os
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from task.errors import InputError

LONGER = int(os.environ.get("FUZZ", "1"))
"""How many times as many inputs are tried as in CI."""

End = Literal["worked", "refused"]

LONGEST_LINE = 1000
"""Characters of a message that a person still reads."""


def files_of(folder: Path) -> dict[Path, bytes | None]:
    """All files and folders below a folder with the files' content."""
    return {p: p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@contextmanager
def nothing_written_outside(world: Path, *allowed: Path) -> Iterator[None]:
    """Fail if anything in `world` changes that is not below one of the folders `allowed`."""
    before = files_of(world)
    yield
    after = files_of(world)
    changed = {p for p in {*before, *after} if before.get(p, b"absent") != after.get(p, b"absent")}
    stray = [p for p in changed if not any(p.is_relative_to(a) for a in allowed)]
    assert not stray, f"written outside: {sorted(map(str, stray))[:3]}"


def end_of(call: Callable[[], object], what: str) -> End:
    """How a call ends; anything but success and a readable `InputError` fails the test, with the input named.

    Args:
        call: What is tried.
        what: The mutated input in words, for the message of a failure.
    """
    try:
        call()
    except InputError as error:
        line = str(error)
        assert line.strip() and "\n" not in line, f"{what}: not one line: {line!r}"
        assert len(line) <= LONGEST_LINE, f"{what}: {len(line)} characters: {line[:200]!r}"
        assert line.isprintable(), f"{what}: unprintable: {line!r}"
        return "refused"
    except Exception:
        raise AssertionError(f"{what} ended in a traceback:\n{traceback.format_exc()}") from None
    return "worked"


def show_counts(name: str, ends: Counter[End]) -> None:
    """Print how many inputs worked and how many were refused (seen with `pytest -s`, and in a failure's report)."""
    print(f"\n{name}: {ends.total()} inputs, {ends['worked']} worked, {ends['refused']} refused")
