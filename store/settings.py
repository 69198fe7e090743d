"""Settings files: YAML read into pydantic models, so that a typo or a bad value is one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from store.files import read_json
from store.yaml_files import read_yaml
from task.errors import InputError, shown

LONGEST_MESSAGE = 500
"""Characters of what is said of a value: names and values that a file may give are cut, what we say is not as long."""

S = TypeVar("S", bound=BaseModel)


class Settings(BaseModel):
    """Base of all settings: a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class WrittenSettings(Settings):
    """Base of settings that people write: a number is a number, and neither a text nor yes or no."""

    model_config = ConfigDict(strict=True)


def read_settings(path: Path, kind: type[S]) -> S:
    """Read a YAML file into settings; a missing file, a typo or a bad value is one clear line.

    Raises:
        InputError: Names the file, the key, the value and what was expected.
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise InputError(f"{path}: holds no settings; write `key: value` lines, see configs/ for examples")
    return validated(values, kind, path)


def read_versioned(path: Path, kind: type[S], version: int, remedy: str) -> S:
    """Read a JSON file that carries its format's version, as settings.

    Raises:
        InputError: There is no such file, it is of another version (`remedy` ends the message), or a value is bad.
    """
    values = read_json(path, remedy)
    found = values.get("format", 1) if isinstance(values, dict) else None
    if found != version:
        raise InputError(f"{path}: format {shown(found)}, this version reads {version}; {remedy}")
    return validated(values, kind, path)


def validated(values: Any, kind: type[S], path: Path) -> S:
    """Values of a file as settings; the first finding becomes one line with the file's name."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InputError(f"{path}: {describe(error)}") from None


def describe(error: ValidationError) -> str:
    """The first finding of a validation as one line: key, what is wrong with it, the value given."""
    first = error.errors()[0]
    where = _place(first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}; remove it or correct its spelling"
    given = f" (given: {shown(first['input'])})" if isinstance(first["input"], str | int | float | bool | None) else ""
    more = f"; {len(error.errors()) - 1} more findings after this one" if len(error.errors()) > 1 else ""
    said = first["msg"].removeprefix("Value error, ")
    if not said.isprintable() or len(said) > LONGEST_MESSAGE:
        said = shown(said, LONGEST_MESSAGE)
    return f"{where}: {said}{given}{more}" if where else f"{said}{given}{more}"


def _place(parts: tuple[int | str, ...]) -> str:
    """Keys joined by points; one that does not fit on a line is cut."""
    texts = (str(part) for part in parts)
    return ".".join(text if text.isprintable() and len(text) <= 60 else shown(text) for text in texts)
