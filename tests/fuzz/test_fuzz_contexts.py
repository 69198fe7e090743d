"""Contexts files, spoiled: one line, or contexts that can be saved, read again, shown and answered for."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuzzing import LONGER, End, end_of, nothing_written_outside, show_counts
from store.contexts import load_contexts, main, save_contexts
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import frame, report_answer
from task.replies import parse_report
from task.trials import sample_trials

RECORD: dict[str, Any] = {
    "name": "hotel",
    "agent": "a traveller",
    "question": "Which hotel would you book?",
    "attributes": [
        {"name": "price", "units": "euros", "low": 40, "high": 300},
        {"name": "room size", "units": "square metres", "low": 9, "high": 60},
    ],
}
KEYS: list[tuple[Any, ...]] = [
    *((key,) for key in RECORD),
    *(("attributes", i, key) for i in (0, 1) for key in RECORD["attributes"][0]),
    ("attributes", 0),
]
VALUES: list[Any] = [
    *("", " ", "x" * 300, "../../evil", "/tmp/x", "\ud800", "é価格", "a\nb?", "\x1b[31m", "\u202ename", "{agent}", "?"),
    *(None, True, 0, -1, 10**18, -(10**18), 9**999, 1e-300, 5e-324, 1e308, float("inf"), float("nan"), "5", "1_000"),
    *([], {}, [[]], {"low": 1}, [1, 2], ["x"]),
]
HARMS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "blank": lambda content: b"\n \n",
    "gzip": gzip.compress,
    "UTF-16": lambda content: content.decode().encode("utf-16"),
    "UTF-32": lambda content: content.decode().encode("utf-32"),
    "latin-1": lambda content: content.replace(b"a", b"\xe9", 1),
    "byte order mark": lambda content: b"\xef\xbb\xbf" + content,
    "zero byte": lambda content: content + b"\0",
    "old line ends": lambda content: content.replace(b"\n", b"\r"),
    "CRLF": lambda content: content.replace(b"\n", b"\r\n"),
    "key twice": lambda content: content.replace(b'"low"', b'"low": 3, "low"', 1),
    "one twice": lambda content: content + content,
    "deep": lambda content: content + b'{"a":' * 50_000,
    "long integer": lambda content: content.replace(b"40", b"4" * 5000),
    "a list": lambda content: b"[" + content + b"]",
    "YAML": lambda content: b"name: hotel\n",
    "a tag": lambda content: b'!!python/object/apply:os.system ["touch evil"]\n',
}


def spoiled(keys: tuple[Any, ...], change: Callable[[dict[Any, Any] | list[Any], Any], None]) -> str:
    record = deepcopy(RECORD)
    place: Any = record
    for key in keys[:-1]:
        place = place[key]
    change(place, keys[-1])
    return json.dumps(record) + "\n"


def use(contexts: list[ChoiceContext], folder: Path) -> None:
    """What is read is shown, answered and saved; texts come back, and values stay inside their range."""
    for context in contexts:
        trials = sample_trials(0, "decisions", context, 4)
        slack = 1e-9 * np.maximum(np.abs(context.lows), context.spans)
        for option in (trials.first, trials.second):
            assert (option >= context.lows - slack).all() and (option <= context.lows + context.spans + slack).all()
        for measure in ("decisions", "reports"):
            _, user = frame(measure, context).messages(trials.first[0], trials.second[0])
            assert context.question in user["content"] and user["content"].encode("utf-8")
        weights = [float(i) for i in range(len(context.attributes))]
        assert parse_report(report_answer(context, weights), context.attribute_names).values == tuple(weights)
    save_contexts(contexts, folder / "saved.jsonl")
    assert load_contexts(folder / "saved.jsonl") == contexts


def test_spoiled_contexts(tmp_path: Path):
    ends, rng = Counter[End](), np.random.default_rng(13)
    whole = spoiled(("name",), lambda *_: None).encode()
    inputs = {what: harm(whole) for what, harm in HARMS.items()}
    for keys in KEYS:
        for value in VALUES:
            inputs[f"{keys} = {str(value)[:20]!a}"] = spoiled(
                keys, lambda at, key, v=value: at.__setitem__(key, v)
            ).encode()
        inputs[f"{keys} lost"] = spoiled(keys, lambda at, key: at.__delitem__(key)).encode()
        if isinstance(keys[-1], str):
            inputs[f"{keys} misspelt"] = spoiled(keys, lambda at, key: at.__setitem__("x" + key, at.pop(key))).encode()
    for layout in ("lists", "side_by_side", "table", None, 3, ["lists"]):
        inputs[f"layout {layout}"] = spoiled(("layout",), lambda at, key, v=layout: at.__setitem__(key, v)).encode()
    many = [{"name": f"a{i}", "units": "", "low": 0, "high": i + 1} for i in range(100)]
    inputs["100 attributes"] = spoiled(("attributes",), lambda at, key: at.__setitem__(key, many)).encode()
    for i in range(40 * LONGER):
        at = int(rng.integers(len(whole)))
        inputs[f"byte {i}"] = whole[:at] + bytes([int(rng.integers(256))]) + whole[at + int(rng.integers(2)) :]
        inputs[f"cut {i}"] = whole[:at]
    path = tmp_path / "in" / "contexts.jsonl"
    path.parent.mkdir()
    with nothing_written_outside(tmp_path, path.parent):
        for what, content in inputs.items():
            path.write_bytes(content)
            ends[end_of(lambda: use(load_contexts(path), path.parent), what)] += 1
    show_counts("contexts", ends)
    assert min(ends["worked"], ends["refused"]) > 20


@pytest.mark.parametrize("what", ["missing", "a folder", "another kind"])
def test_what_is_no_contexts_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str):
    path = tmp_path / ("notes.txt" if what == "another kind" else "contexts.jsonl")
    if what == "a folder":
        path.mkdir()
    elif what == "another kind":
        path.write_text("{}")
    monkeypatch.setattr("sys.argv", ["store.contexts", str(path)])
    with pytest.raises(InputError, match=f"{path.name}: "):
        main()
