"""One clear line for bad input: what, where, the value, the remedy."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what, where, the value and the remedy."""


def shown(value: object, most: int = 60) -> str:
    """A value as a message quotes it: on one line, printable, and cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # Python does not write out numbers of thousands of digits
        return "a number of thousands of digits"
    return text if len(text) <= most else f"{text[: most - 3]}..."
