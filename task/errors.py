"""One clear line for bad input: what, where, the value, the remedy."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what, where, the value and the remedy."""
