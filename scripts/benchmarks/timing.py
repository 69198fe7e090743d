"""What the benchmarks have in common: seconds, words for the machine, a table, a JSON file."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from store.console import say
from store.files import write_json


class Seconds(NamedTuple):
    """What a piece of work took: of the processor, all threads together, and on the clock.

    What else runs on the machine hardly changes the former; with one thread (OMP_NUM_THREADS=1) they are steadiest.
    """

    processor: float
    wall: float


def now() -> Seconds:
    """Both clocks."""
    return Seconds(time.process_time(), time.perf_counter())


def timed(run: Callable[[], object], repeats: int = 1) -> Seconds:
    """Medians over some runs."""
    measured = []
    for _ in range(repeats):
        start = now()
        run()
        measured.append(np.subtract(now(), start))
    return Seconds(*np.median(measured, axis=0).tolist())


def machine() -> str:
    """This machine in words."""
    wide = Path("/proc/cpuinfo").exists() and "avx512f" in Path("/proc/cpuinfo").read_text()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    cores = f"{os.cpu_count()} {platform.machine()} cores{' with AVX-512' * wide}"
    return f"{cores}, {gpu}, {torch.get_num_threads()} thread(s)"


def show(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print a title and a table, a row an entry."""
    say(f"{title}\n{pd.DataFrame(rows).to_string(index=False)}\n")


def save(path: Path | None, **figures: Any) -> None:
    """Write figures and the machine as JSON, if a file is asked for."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, {"machine": machine(), **figures})
