"""Training rows of others, spoiled: one line with the file and line, or rows of texts that can be written again."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fuzzing import LONGER, End, end_of, nothing_written_outside, show_counts
from store.examples import read_examples, write_examples

MESSAGES = [
    {"role": "system", "content": "You choose."},
    {"role": "user", "content": "A or B?"},
    {"role": "assistant", "content": "A"},
]
VALUES: list[Any] = [
    *(
        None,
        True,
        0,
        -3,
        1e300,
        9**999,
        float("nan"),
        float("inf"),
        "",
        " ",
        "x" * 300,
        "\ud800",
        "é価格",
        "a\nb",
        "\0",
    ),
    *("system", "user", "assistant", "tool", "developer", "ASSISTANT", "../../evil"),
    *([], {}, ["A"], [{"type": "text", "text": "A"}], {"text": "A"}, [[]]),
]
HARMS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "blank": lambda content: b"\n\n",
    "gzip": gzip.compress,
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "latin-1": lambda content: content.replace(b"You", b"\xc9ou", 1),
    "byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "zero byte": lambda content: content + b"\0",
    "CRLF": lambda content: content.replace(b"\n", b"\r\n"),
    "old line ends": lambda content: content.replace(b"\n", b"\r"),
    "blank lines": lambda content: b"\n" + content + b"\n\n" + content,
    "key twice": lambda content: content.replace(b'"role"', b'"role": "user", "role"', 1),
    "a list": lambda content: b"[" + content.replace(b"\n", b"") + b"]",
    "indented": lambda content: json.dumps(json.loads(content), indent=1).encode(),
    "deep": lambda content: content + b"[" * 50_000,
    "CSV": lambda content: b"prompt,completion\nA or B?,A\n",
}


def row(**values: Any) -> str:
    return json.dumps({"messages": MESSAGES, **values}) + "\n"


def inputs() -> dict[str, bytes]:
    found = {what: harm(row().encode()) for what, harm in HARMS.items()}
    for value in VALUES:
        shown = ascii(value)[:30]
        for key in ("messages", "context", "index", "weight", "tools"):
            found[f"{key} {shown}"] = row(**{key: value}).encode()
        for place in (0, 2):
            for key in ("role", "content", "weight", "name"):
                said = [{**m, key: value} if i == place else m for i, m in enumerate(MESSAGES)]
                found[f"message {place} {key} {shown}"] = row(messages=said).encode()
        found[f"a message is {shown}"] = row(messages=[value, *MESSAGES]).encode()
    for key in ("role", "content"):
        lost = [{k: v for k, v in m.items() if k != key} for m in MESSAGES]
        found[f"{key} lost"] = row(messages=lost).encode()
    found["no prompt"], found["no answer"] = row(messages=MESSAGES[2:]).encode(), row(messages=MESSAGES[:2]).encode()
    whole, rng = row().encode(), np.random.default_rng(13)
    for i in range(40 * LONGER):
        at = int(rng.integers(len(whole)))
        found[f"byte {i}"] = whole[:at] + bytes([int(rng.integers(256))]) + whole[at + int(rng.integers(2)) :]
        found[f"cut {i}"] = whole[:at]
    return found


def use(path: Path) -> None:
    """Rows that are read can be written, read again as they were, and given to a tokenizer."""
    rows = read_examples(path)
    again = path.with_name("again.jsonl")
    write_examples(again, rows)
    assert read_examples(again) == rows
    for example in rows:
        assert all(isinstance(m.content, str) and m.content.encode("utf-8") is not None for m in example.messages)
        assert example.messages[-1].role == "assistant"


def test_spoiled_rows(tmp_path: Path):
    ends, path = Counter[End](), tmp_path / "in" / "rows.jsonl"
    path.parent.mkdir()
    with nothing_written_outside(tmp_path, path.parent):
        for what, content in inputs().items():
            path.write_bytes(content)
            ends[end_of(lambda: use(path), what)] += 1
    show_counts("training rows", ends)
    assert min(ends["worked"], ends["refused"]) > 20
