"""YAML files: read so that nothing is said twice, taken for something else, or multiplied; and written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from task.errors import InputError, shown

MOST_REPEATED = 10_000
"""Values that a file may stand for beyond those that it writes out, by repeating them (`*name`)."""

FLOAT = re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+$")
"""`1e-4` is a number in YAML 1.2 and in JSON; PyYAML, which reads YAML 1.1, takes it for a text."""

KEYS = ("tag:yaml.org,2002:str", "tag:yaml.org,2002:int", "tag:yaml.org,2002:merge")


class _Loader(yaml.SafeLoader):
    """Reads plain values only."""


class _Dumper(yaml.SafeDumper):
    """Writes texts that look like numbers in quotes."""


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
_Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))


def read_yaml(path: Path) -> Any:
    """What a YAML file says.

    Raises:
        InputError: No such file, no YAML, or one that says a key twice, repeats itself without end, or has a key that
            is neither a text nor a whole number. Names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise InputError(f"{path}: no such configuration file; see configs/ for examples") from None
    except OSError as error:
        raise InputError(f"{shown(str(path), 120)}: cannot be read ({error.strerror}); name another file") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8") from None
    try:
        loader = _Loader(text)
        if (root := loader.get_single_node()) is None:
            return None
        _Check(loader).size(root)
        return loader.construct_document(root)
    except _Refused as error:
        raise InputError(f"{path}:{error.line}: {error.problem}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"{where}: not YAML that can be used ({_in_words(error.problem)}); mend it there") from None
    # Values that a tag does not fit (`!!int x`) end in whatever Python's own conversions raise.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not YAML that can be used ({_in_words(str(error))}); mend it there") from None


def dump_yaml(values: dict[str, Any]) -> str:
    """Settings as YAML in the order given."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _in_words(problem: str | None) -> str:
    text = " ".join((problem or "").split())
    return text if text.isprintable() and len(text) <= 300 else shown(text, 300)


class _Check:
    """Walks over the nodes of a document; what is wrong with one is an error at its line."""

    def __init__(self, loader: _Loader) -> None:
        self.loader = loader
        self.sizes: dict[int, int] = {}
        self.open: set[int] = set()
        self.repeated = 0

    def size(self, node: yaml.Node) -> int:
        """Number of values that a node stands for, aliases written out."""
        if id(node) in self.open:
            raise _Refused(node, "it contains itself; write out what is meant")
        if (known := self.sizes.get(id(node))) is not None:
            self.repeated += known
            if self.repeated > MOST_REPEATED:
                raise _Refused(node, f"it repeats more than {MOST_REPEATED} values by aliases; write out what is meant")
            return known
        self.open.add(id(node))
        total = 1
        if isinstance(node, yaml.MappingNode):
            self._check_keys(node)
            total += sum(self.size(key) + self.size(value) for key, value in node.value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(self.size(item) for item in node.value)
        elif any("\ud800" <= c <= "\udfff" or c == "\0" for c in node.value):
            raise _Refused(node, "a character that no text can have (half of a surrogate pair, or NUL); leave it out")
        self.open.remove(id(node))
        self.sizes[id(node)] = total
        return total

    def _check_keys(self, node: yaml.MappingNode) -> None:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if key.tag not in KEYS:
                said = shown(key.value) if isinstance(key, yaml.ScalarNode) else "a list or a table"
                raise _Refused(key, f"key {said} is read as {key.tag.rpartition(':')[2]}; put it in quotes")
            name = str(self.loader.construct_object(key, deep=True)) if key.tag == KEYS[1] else key.value
            if name in lines:
                raise _Refused(key, f"key {shown(name)} stands in line {lines[name]} already; leave one of them out")
            lines[name] = key.start_mark.line + 1


class _Refused(Exception):
    """YAML that is none here: where, and what is wrong with it."""

    def __init__(self, node: yaml.Node, problem: str) -> None:
        super().__init__(problem)
        self.line, self.problem = node.start_mark.line + 1, problem
