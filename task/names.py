"""Names that become folders and files, columns and keys: one pattern for all of them."""

from __future__ import annotations

import re

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

AT = "@"
"""Stands between a training and a step of it that was kept: `instilled@100`. No name that a person gives has it."""

FULL_NAME = re.compile(rf"{NAME.pattern}({AT}[1-9][0-9]*)?")

LONGEST_NAME = 64
"""Characters of a name that a person gives."""

LONGEST_FULL_NAME = 96
"""Characters of a name with what is appended to it: `-seed4294967295`, `_fold_12@3000`. File systems take 255 bytes."""


def name_problem(name: str, longest: int = LONGEST_NAME) -> str | None:
    """What is wrong with a name, in words; None if nothing is."""
    if len(name) > longest:
        return f"a name of {len(name)} characters; at most {longest} are taken, as it names files"
    if not (FULL_NAME if longest > LONGEST_NAME else NAME).fullmatch(name):
        return "a name is letters, digits, '_' or '-' and begins with a letter or digit, as it names files"
    return None
