"""Settings files: YAML read into pydantic models, so that a typo or a bad value is one clear line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from store.files import read_json
from task.errors import InputError

S = TypeVar("S", bound=BaseModel)


class Settings(BaseModel):
    """Base of all settings: a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


def read_settings(path: Path, kind: type[S]) -> S:
    """Read a YAML file into settings; a missing file, a typo or a bad value is one clear line.

    Raises:
        InputError: Names the file, the key, the value and what was expected.
    """
    return validated(read_yaml(path), kind, path)


def read_yaml(path: Path) -> Any:
    """What a YAML file says.

    Raises:
        InputError: No such file, or no YAML.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such configuration file; see configs/ for examples")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML ({' '.join(str(error).split())}); mend it there") from None


def read_versioned(path: Path, kind: type[S], version: int, remedy: str) -> S:
    """Read a JSON file that carries its format's version, as settings.

    Raises:
        InputError: There is no such file, it is of another version (`remedy` ends the message), or a value is bad.
    """
    values = read_json(path)
    found = values.get("format", 1) if isinstance(values, dict) else None
    if found != version:
        raise InputError(f"{path}: format {found}, this version reads {version}; {remedy}")
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
    where = ".".join(str(part) for part in first["loc"]) or "settings"
    if first["type"] == "extra_forbidden":
        return f"unknown key {where!r}; remove it or correct its spelling"
    value = f" (given: {first['input']!r})" if isinstance(first["input"], str | int | float | bool | None) else ""
    more = f"; {len(error.errors()) - 1} more findings after this one" if len(error.errors()) > 1 else ""
    return f"{where}: {first['msg'].removeprefix('Value error, ')}{value}{more}"


def dump_yaml(values: dict[str, Any]) -> str:
    """Settings as YAML in the order given."""
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)
