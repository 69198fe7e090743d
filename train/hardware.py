"""The same training on other hardware: rows at a time by GPU memory, the effective batch unchanged."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping
from typing import Any

from packaging.version import Version

from task.errors import InputError

TOLERANCE = 0.9
"""A GPU sold as 24 GB shows 22 to 25.8 x 10^9 bytes: it counts as 24 from 90% of that on."""


FSDP2_SINCE = "1.15.0"
"""Version of accelerate from which FSDP2 resumes from a full state dict with all of it."""


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


def check_sharding(fsdp2: bool, zero3: bool, resumed: str | None, installed: str) -> None:
    """Refuse what is known to lose a sharded training, before it begins.

    Args:
        fsdp2, zero3: How parameters are split over the processes.
        resumed: The checkpoint that the training would go on from.
        installed: Version of accelerate.

    Raises:
        InputError: FSDP2 with an accelerate that loses shards of a full state, or a checkpoint under ZeRO-3, of which
            PEFT's tensors come back in another shape (DeepSpeed's issue 7436, open).
    """
    if fsdp2 and Version(installed) < Version(FSDP2_SINCE):
        raise InputError(
            f"accelerate {installed}: with FSDP2 and a full state dict it loses shards when it resumes; install "
            f"accelerate>={FSDP2_SINCE}, or use configs/accelerate/ddp.yaml"
        )
    if zero3 and resumed:
        raise InputError(
            f"{resumed}: DeepSpeed ZeRO-3 cannot resume an adapter (github.com/deepspeedai/DeepSpeed/issues/7436); "
            "begin again with --overwrite, or train with configs/accelerate/fsdp2.yaml"
        )


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
