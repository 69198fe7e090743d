"""The table of a safetensors file: which tensors it holds, read from its header, without loading any of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from store.files import read_json
from task.errors import InputError, shown

SAMPLE = 4096
"""Bytes read at the beginning, middle and end of each tensor: enough to tell two apart, quick for any size."""

LENGTH = 8
"""Bytes at the beginning of a safetensors file that say how long its header is."""


class Tensor(NamedTuple):
    """One tensor of a file: its type by safetensors' name, its shape, and where its bytes begin and end."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_table(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file by name.

    Raises:
        InputError: The file is missing, cut off, or no safetensors file.
    """
    try:
        with safe_open(str(path), framework="numpy") as file:
            file.keys()  # the library holds the header against the length of the file, and every tensor against it
        with path.open("rb") as file:
            size = int.from_bytes(file.read(LENGTH), "little")
            header: dict[str, Any] = json.loads(file.read(size))
    except (OSError, SafetensorError, ValueError) as error:
        reason = shown(" ".join(str(error).split()), 120)
        raise InputError(f"{path}: no whole safetensors file ({reason}); fetch it or write it again") from None
    start = LENGTH + size
    return {
        name: Tensor(said["dtype"], (*said["shape"],), *(start + offset for offset in said["data_offsets"]))
        for name, said in header.items()
        if name != "__metadata__"
    }


def hash_samples(path: Path) -> str:
    """A hash of a file's table and of three samples of every tensor, SHA-256 in hex.

    A tensor of up to three samples is read whole.
    """
    digest, table = hashlib.sha256(), read_table(path)
    with path.open("rb") as file:
        for name, tensor in sorted(table.items()):
            digest.update(json.dumps([name, tensor.dtype, tensor.shape, tensor.end - tensor.begin]).encode())
            for begin, end in _samples(tensor):
                file.seek(begin)
                digest.update(file.read(end - begin))
    return digest.hexdigest()


def _samples(tensor: Tensor) -> Iterator[tuple[int, int]]:
    """Where the samples of a tensor begin and end."""
    size = tensor.end - tensor.begin
    if size <= 3 * SAMPLE:
        yield tensor.begin, tensor.end
        return
    for place in (0, (size - SAMPLE) // 2, size - SAMPLE):
        yield tensor.begin + place, tensor.begin + place + SAMPLE


def weights_files(folder: Path) -> list[Path]:
    """The weights files of a model folder: those that its index names, or every safetensors file."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return sorted(folder.glob("*.safetensors"))
    said = read_json(index)
    places = said.get("weight_map") if isinstance(said, dict) else None
    if not isinstance(places, dict) or not places or not all(isinstance(name, str) for name in places.values()):
        raise InputError(f"{index}: no weight_map from tensors to files; fetch the model again")
    return [folder / Path(name).name for name in sorted({*places.values()})]
