"""Adapters whose names, shapes, types, values, header or configuration were spoiled.

What is taken must be what it was: the same tensors in the same places, and the same settings.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuzzing import LONGER, End, end_of, nothing_written_outside, show_counts
from store.checkpoints import ADAPTER
from store.files import read_json
from store.lora import ADAPTER_CONFIG, LoraSettings, adapter_hash, read_lora
from store.models import check_adapter
from store.tensors import read_table
from support import make_adapter

FILES, CONFIGS = 120, 90
"""Spoiled tensor files and spoiled configurations that are tried in CI."""

Header = dict[str, Any]


@pytest.fixture(scope="module")
def sound(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny model with little in it, so that it is checked quickly."""
    return make_adapter(tiny_model, tmp_path_factory.mktemp("fuzz") / "sound", seed=0)


NAMES = [
    "",
    "x" * 300,
    "../../evil",
    "/tmp/evil",
    "base_model.model.model.norm.weight",
    "model.layers.0.self_attn.q_proj.lora_A.weight",
    "base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight",
    "base_model.model.model.layers.9.self_attn.q_proj.lora_A.weight",
    "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector",
    "\ud800",
    "line\nbreak\x1b[31m",
    "__metadata__",
    "größe 温度",
]
SHAPES: list[Any] = [
    *([], [0], [4], [32, 4], [4, 32, 1], [-4, 32], [1 << 62, 1 << 62], "4x32", None, [4.0, 32], [True, 4]),
]
TYPES = ["I64", "F8_E4M3", "BOOL", "U8", "F99", "", None, 32, "bf16"]
OFFSETS: list[Any] = [[0, 0], [512, 0], [-8, 504], [0, 1 << 62], [0], "0:512", None, [0.5, 512], [0, 512, 1024]]
SIZES = [0, 1, 7, 1 << 20, 100_000_001, 1 << 40, (1 << 63) - 1, (1 << 64) - 1]


def parts(content: bytes) -> tuple[Header, bytes]:
    """Header and data of a safetensors file."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def whole(header: Any, data: bytes, size: int | None = None) -> bytes:
    """A safetensors file, with the length of its header told as it is or otherwise."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + data


def another_name(content: bytes, random: np.random.Generator) -> bytes:
    header, data = parts(content)
    name = str(random.choice([n for n in header if n != "__metadata__"]))
    header[NAMES[random.integers(len(NAMES))]] = header.pop(name)
    return whole(header, data)


def another_entry(content: bytes, random: np.random.Generator) -> bytes:
    header, data = parts(content)
    name = str(random.choice([n for n in header if n != "__metadata__"]))
    key, values = [("shape", SHAPES), ("dtype", TYPES), ("data_offsets", OFFSETS)][random.integers(3)]
    header[name][key] = values[random.integers(len(values))]
    return whole(header, data)


def swapped(content: bytes, random: np.random.Generator) -> bytes:
    """Two tensors under each other's name: the same shapes or not."""
    header, data = parts(content)
    one, other = (str(n) for n in random.choice([n for n in header if n != "__metadata__"], 2, replace=False))
    header[one], header[other] = header[other], header[one]
    return whole(header, data)


def one_more(content: bytes, random: np.random.Generator) -> bytes:
    header, data = parts(content)
    offsets = [len(data), len(data) + 128]
    header[NAMES[random.integers(len(NAMES))]] = {"dtype": "F32", "shape": [32], "data_offsets": offsets}
    return whole(header, data + bytes(128))


def one_less(content: bytes, random: np.random.Generator) -> bytes:
    header, data = parts(content)
    last = max((n for n in header if n != "__metadata__"), key=lambda n: header[n]["data_offsets"])
    begin, end = header.pop(last)["data_offsets"]
    return whole(header, data[:begin] + data[end:])


def header_bomb(content: bytes, random: np.random.Generator) -> bytes:
    header, data = parts(content)
    text = json.dumps(header).encode()
    bombs = [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"{}",
        b"null",
        b"[]",
        b"\xff\xfe" + text,
        text[:-1],
        text + b" " * 1000,
        b'{"a": ' + b"9" * 5000 + b"}",
        text[:1] + text[1:-1] + b"," + text[1:],
        b'{"__metadata__": {"format": 7}, ' + text[1:],
    ]
    return whole(bombs[random.integers(len(bombs))], data)


def told_length(content: bytes, random: np.random.Generator) -> bytes:
    header, data = parts(content)
    return whole(header, data, SIZES[random.integers(len(SIZES))])


def cut_off(content: bytes, random: np.random.Generator) -> bytes:
    return content[: int(random.integers(0, len(content)))]


def longer(content: bytes, random: np.random.Generator) -> bytes:
    return content + random.bytes(int(random.integers(1, 100)))


def flipped(content: bytes, random: np.random.Generator) -> bytes:
    """Bits of the header, as a bad disk leaves them."""
    spoiled = bytearray(content)
    for place in random.integers(0, 8 + int.from_bytes(content[:8], "little"), size=int(random.integers(1, 4))):
        spoiled[place] ^= 1 << int(random.integers(8))
    return bytes(spoiled)


def not_a_number(content: bytes, random: np.random.Generator) -> bytes:
    header, data = parts(content)
    return whole(header, np.full(len(data) // 4, np.nan, np.float32).tobytes())


SPOIL: list[Callable[[bytes, np.random.Generator], bytes]] = [
    *(another_name, another_entry, swapped, one_more, one_less, header_bomb),
    *(told_length, cut_off, longer, flipped, not_a_number),
]


def table_of(adapter: Path) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {name: (tensor.dtype, tensor.shape) for name, tensor in read_table(adapter / ADAPTER).items()}


def take(adapter: Path, base: Path) -> None:
    """All that an adapter goes through before it is loaded."""
    check_adapter(adapter, base, str(base))
    adapter_hash(adapter)


def test_a_spoiled_file_of_tensors_is_the_same_adapter_or_one_line(sound: Path, tiny_model: Path, tmp_path: Path):
    adapter, content, wanted = tmp_path / "adapter", (sound / ADAPTER).read_bytes(), table_of(sound)
    shutil.copytree(sound, adapter)
    ends: Counter[End] = Counter()
    with nothing_written_outside(tmp_path, adapter):
        for number in range(FILES * LONGER):
            spoil = SPOIL[number % len(SPOIL)]
            (adapter / ADAPTER).write_bytes(spoil(content, np.random.default_rng(number)))
            end = end_of(lambda: take(adapter, tiny_model), f"{spoil.__name__} ({number})")
            ends[end] += 1
            if end == "worked":
                assert table_of(adapter) == wanted, f"{spoil.__name__} ({number})"
    show_counts("tensor files of adapters", ends)
    assert ends["refused"] > ends["worked"] > 0


VALUES: list[Any] = [
    *(None, "", "x", "16", 0, -1, 1, 0.5, 1e300, 10**30, float("nan"), float("inf"), True, [], ["x"], [["x"]], {}),
    *({"q_proj": 4}, "../../evil", "/tmp/evil", "\ud800", "x" * 300, ".*", "(", "all-linear", [0], [1, "x"], "b\n"),
]
KEYS = [
    *LoraSettings.model_fields,
    *("peft_type", "bias", "init_lora_weights", "use_dora", "rank_pattern", "modules_to_save", "layer_replication"),
    *("base_model_name_or_path", "task_type", "unknown", "peft_version", "loftq_config", "trainable_token_indices"),
]


def texts(config: dict[str, Any]) -> list[bytes]:
    """The configuration as no tool writes it."""
    text = json.dumps(config)
    return [
        b"",
        b"null",
        b"[]",
        b"7",
        b"[" * 100_000,
        text[: len(text) // 2].encode(),
        text.encode("utf-16"),
        b"\xff" + text.encode(),
        text.encode() + b"x",
        text.replace("{", "{" + '"r": 99999999, ', 1).encode() + b"}",
        b"\x00" * 100,
    ]


def test_a_spoiled_configuration_is_the_same_adapter_or_one_line(sound: Path, tiny_model: Path, tmp_path: Path):
    adapter, config = tmp_path / "adapter", read_json(sound / ADAPTER_CONFIG)
    shutil.copytree(sound, adapter)
    ends: Counter[End] = Counter()

    def try_it(content: bytes, what: str) -> None:
        (adapter / ADAPTER_CONFIG).write_bytes(content)
        end = end_of(lambda: take(adapter, tiny_model), what)
        ends[end] += 1
        if end == "worked":
            now, before = read_lora(adapter), read_lora(sound)
            assert now.r == before.r and (adapter_hash(adapter) == adapter_hash(sound)) == (now == before), what

    with nothing_written_outside(tmp_path, adapter):
        for content in texts(config):
            try_it(content, f"{content[:40]!r}")
        for number in range(CONFIGS * LONGER):
            random = np.random.default_rng(number)
            key, value = KEYS[random.integers(len(KEYS))], VALUES[random.integers(len(VALUES))]
            spoiled = {**config, key: value}
            if not random.integers(6):
                del spoiled[key]
            try_it(json.dumps(spoiled).encode(), f"{key}: {value!r} ({number})")
    show_counts("configurations of adapters", ends)
    assert ends["refused"] > 10 and ends["worked"] > 10
