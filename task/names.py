"""Names that become folders and files, columns and keys: one pattern for all of them."""

from __future__ import annotations

import re

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

LONGEST_NAME = 64
"""Characters of a name that a person gives."""

LONGEST_FULL_NAME = 96
"""Characters of a name with what is appended to it: `-seed4294967295`, `_fold_12`. File systems take 255 bytes."""


def name_problem(name: str, longest: int = LONGEST_NAME) -> str | None:
    """What is wrong with a name, in words; None if nothing is."""
    if len(name) > longest:
        return f"a name of {len(name)} characters; at most {longest} are taken, as it names files"
    if not NAME.fullmatch(name):
        return "a name is letters, digits, '_' or '-' and begins with a letter or digit, as it names files"
    return None
