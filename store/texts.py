"""Texts that people hand in: UTF-8 or refused, their JSON and their numbers read as what they are and nothing else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from task.errors import InputError

FORMATS = {
    b"\x1f\x8b": "compressed (gzip); unpack it first",
    b"PK\x03\x04": "compressed (zip); unpack it first",
    b"BZh": "compressed (bzip2); unpack it first",
    b"\xfd7zXZ": "compressed (xz); unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed (zstd); unpack it first",
    b"PAR1": "a Parquet file; export it as text",
    b"\xff\xfe": "UTF-16; save it as UTF-8",
    b"\xfe\xff": "UTF-16; save it as UTF-8",
}
"""What a file is that begins with these bytes, and what to do about it."""

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


def read_text(path: Path) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        InputError: It cannot be read, is compressed, or in another encoding.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a file that can") from None
    for sign, what in FORMATS.items():
        if content.startswith(sign):
            raise InputError(f"{path}: {what}")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(
            f"{path}:{line}: not UTF-8 text (byte {error.object[error.start]:#x}); save it as UTF-8"
        ) from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path}:{line}: not UTF-8 text (a zero byte); save it as UTF-8")
    return text


def read_lines(path: Path) -> dict[str, str]:
    """The lines of a text that are not blank, by their place; raises as `read_text`."""
    # Not splitlines(), which also breaks a line at characters that JSON allows inside a string, such as U+2028.
    return {f"{path}:{n}": line for n, line in enumerate(read_text(path).split("\n"), start=1) if line.strip()}


def parse_json(text: str, where: str, remedy: str, integers: Callable[[str], Any] = int) -> Any:
    """What a JSON text says.

    Args:
        text: The text.
        where: Begins the message of what is wrong with it.
        remedy: Ends the message.
        integers: Makes a value of an integer; `float` takes those of any length.

    Raises:
        InputError: No JSON. A key that an object gives twice, NaN, and half of a surrogate pair are none either.
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_constant, parse_int=integers)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        reason = "half of a surrogate pair, which is no character"
    except RecursionError:
        reason = "nested too deeply"
    except ValueError as error:
        reason = str(error)
    else:
        return value
    raise InputError(f"{where}: not JSON ({reason}); {remedy}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"key {key[:60]!r} is given twice")
        found[key] = value
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no number in JSON")


def read_number(text: str) -> float:
    """A finite decimal number such as `-3`, `0.5` or `1e-05`, with spaces around it; NaN for any other text.

    Not all that `float` takes: `1_000`, digits of other scripts, `inf` and `nan` are no numbers here.
    """
    value = float(text) if _NUMBER.fullmatch(text := text.strip(" \t")) else math.nan
    return value if math.isfinite(value) else math.nan
