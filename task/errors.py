"""One clear line for bad input: what, where, the value, the remedy."""

from __future__ import annotations

import sys
from collections.abc import Callable


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what, where, the value and the remedy."""


def run_command(main: Callable[[], None]) -> None:
    """Run a command-line entry point; an `InputError` becomes one line on stderr and exit status 2."""
    try:
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
