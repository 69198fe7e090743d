"""The README and the pages of docs/, and what is read out of them."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from functools import reduce
from typing import Any, NamedTuple

from support import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ROOMS = ("task", "store", "train", "eval", "inside", "analysis", "experiment", "scripts")
DOCS = {path.name: path.read_text(encoding="utf-8") for path in PAGES}


class Block(NamedTuple):
    """A fenced block: the page it is on, its language with what follows it, and its text."""

    page: str
    kind: str
    text: str


def fenced() -> Iterator[Block]:
    for page, text in DOCS.items():
        for kind, inside in re.findall(r"^```([^\n]+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            yield Block(page, kind, inside)


BLOCKS = list(fenced())


def block(kind: str) -> str:
    [found] = [b.text for b in BLOCKS if b.kind == kind]
    return found


def resolve(name: str) -> Any:
    """What `module:name` or `module.name` is.

    Raises:
        ImportError, AttributeError: There is no such thing.
    """
    module, _, inside = name.partition(":")
    place = ROOT / module.replace(".", "/")
    if not inside and not (place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()):
        module, _, inside = module.rpartition(".")
    return reduce(getattr, inside.split(".") if inside else [], importlib.import_module(module))


def stops(heading: str) -> list[list[str]]:
    """The functions that each stop of a way through the code names."""
    [section] = re.findall(rf"^## {heading}\n(.*?)(?=^## )", DOCS["architecture.md"], re.MULTILINE | re.DOTALL)
    found = re.findall(r"^(\d+)\. (.*(?:\n   .*)*)", section, re.MULTILINE)
    assert [int(number) for number, _ in found] == list(range(1, len(found) + 1))
    return [re.findall(r"`([\w.]+:[\w.]+)`", text) for _, text in found]
