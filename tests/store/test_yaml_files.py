"""YAML that says a thing twice, or what nobody meant: one line with its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from store.yaml_files import dump_yaml, read_yaml
from task.errors import InputError

BOMB = "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seeds: [0]\nname: x\nseeds: [1]\n", "x.yaml:3: key 'seeds' stands in line 1 already"),
        ("a:\n  - {b: 1, c: 2, b: 3}\n", "x.yaml:2: key 'b' stands in line 2 already"),
        ("24: 1\n'24': 2\n", "x.yaml:2: key '24' stands in line 1 already"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n  <<: *x\n", "key '<<' stands in line 3 already"),
        ("no: 1\n", "x.yaml:1: key 'no' is read as bool; put it in quotes"),
        ("2024-01-01: 1\n", "key '2024-01-01' is read as timestamp"),
        ("[1]: 1\n", "key a list or a table is read as seq"),
        (BOMB, "repeats more than 10000 values by aliases"),
        ("a: &a [*a]\n", "x.yaml:1: it contains itself"),
        ('a: "\\ud800"\n', "x.yaml:1: a character that no text can have"),
        ('a: "\\0"\n', "x.yaml:1: a character that no text can have"),
        ("a:\n\tb: 1\n", "x.yaml:2: not YAML that can be used"),
        ("a: [\n", "not YAML that can be used"),
        ("a: !!python/object/apply:os.getcwd []\n", "x.yaml:1: not YAML that can be used"),
        ("a: 2024-99-99\n", "x.yaml: not YAML that can be used"),
        ("a: !!int x\n", "x.yaml: not YAML that can be used"),
        ("a: !!float ''\n", "x.yaml: not YAML that can be used"),
        ("a: " + "9" * 5000 + "\n", "x.yaml: not YAML that can be used"),
        ("[" * 1200, "x.yaml: not YAML that can be used"),
        ("a: 1\n---\na: 2\n", "x.yaml:2: not YAML that can be used"),
    ],
    ids=lambda text: text[:20].replace("\n", " "),
)
def test_what_says_too_much_or_nothing_is_one_line_with_its_place(tmp_path: Path, text: str, says: str):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError) as caught:
        read_yaml(tmp_path / "x.yaml")
    line = str(caught.value)
    assert says in line and line.isprintable() and len(line) < 600


@pytest.mark.parametrize(("data", "says"), [(b"a: \xff", "not UTF-8"), ("a: ü".encode("utf-16"), "not UTF-8")])
def test_other_encodings_are_named(tmp_path: Path, data: bytes, says: str):
    (tmp_path / "x.yaml").write_bytes(data)
    with pytest.raises(InputError, match=says):
        read_yaml(tmp_path / "x.yaml")


@pytest.mark.parametrize("name", ["nowhere.yaml", ".", "x" * 300])
def test_what_is_no_file_is_named(tmp_path: Path, name: str):
    with pytest.raises(InputError, match=r"no such configuration file|cannot be read"):
        read_yaml(tmp_path / name)


def test_a_byte_order_mark_and_few_aliases_are_taken(tmp_path: Path):
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfa: &a {b: 1}\nc: *a\nd:\n  <<: *a\n  e: 2\n")
    assert read_yaml(tmp_path / "x.yaml") == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") is None


@pytest.mark.parametrize("value", ["1e3", "1e-4", "2024-01-01", "no", "0e9e39", "010", "~", "ü", 1e-5, 1e300, 3])
def test_what_is_written_is_read_again(tmp_path: Path, value: Any):
    """Also by TRL, which reads YAML 1.1."""
    (tmp_path / "x.yaml").write_text(dump_yaml({"a": value}))
    for found in (read_yaml(tmp_path / "x.yaml"), yaml.safe_load((tmp_path / "x.yaml").read_text())):
        assert found == {"a": value} and type(found["a"]) is type(value)


@pytest.mark.parametrize(("text", "value"), [("1e-4", 1e-4), ("1E3", 1e3), (".5e+1", 5.0), ("-2.e2", -200.0)])
def test_numbers_with_an_exponent_are_numbers(tmp_path: Path, text: str, value: float):
    (tmp_path / "x.yaml").write_text(f"a: {text}")
    assert read_yaml(tmp_path / "x.yaml") == {"a": value}
