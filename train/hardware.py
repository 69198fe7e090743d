"""The same training on other hardware: rows at a time by GPU memory, the effective batch unchanged."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any

from task.errors import InputError

TOLERANCE = 0.9
"""A GPU sold as 24 GB shows 22 to 25.8 x 10^9 bytes: it counts as 24 from 90% of that on."""


def gpu_memory() -> float | None:
    """Memory of the first GPU in GB (10^9 bytes), None without one."""
    import torch  # slow to load, and the arithmetic of this module does not need it

    return torch.cuda.get_device_properties(0).total_memory / 1e9 if torch.cuda.is_available() else None


def fitting_size(sizes: Iterable[int], memory: float) -> int | None:
    """The largest of some GPU sizes that a GPU of this memory has, all in GB; None if it has less than each."""
    return max((size for size in sizes if size * TOLERANCE <= memory), default=None)


def settings_for(table: Mapping[int, Mapping[str, Any]], memory: float) -> dict[str, Any]:
    """The entry of a table by GPU memory in GB for the largest memory that this GPU has.

    Raises:
        InputError: The GPU has less memory than the smallest entry asks for.
    """
    size = fitting_size(table, memory)
    if size is None:
        raise InputError(
            f"gpus: settings begin at {min(table)} GB and this GPU has {memory:.0f} GB; set "
            "per_device_train_batch_size yourself and leave gpus out (load_in_4bit needs least) or take a smaller model"
        )
    return dict(table[size])


def split_batch(effective: int, rows: int, processes: int) -> tuple[int, int]:
    """Rows at a time and accumulation steps that make an effective batch, with at most `rows` at a time.

    Raises:
        InputError: The processes cannot share the batch evenly.
    """
    if effective % processes:
        raise InputError(
            f"effective_batch_size {effective}: {processes} processes cannot share it evenly; "
            "start a number of processes that divides it, or change it"
        )
    share = effective // processes
    at_a_time = next(n for n in range(min(rows, share), 0, -1) if share % n == 0)
    return at_a_time, share // at_a_time


def check_quantization() -> None:
    """Refuse a quantised base where it cannot run.

    Raises:
        InputError: There is no CUDA, or the package bitsandbytes is not installed.
    """
    import torch

    if not torch.cuda.is_available():
        raise InputError("load_in_4bit, load_in_8bit: they need an NVIDIA GPU and there is none here; leave them out")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise InputError("load_in_4bit, load_in_8bit: bitsandbytes is not installed: pip install 'bitsandbytes>=0.46'")
