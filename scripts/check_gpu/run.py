"""Run the lines, one after the other, and show what they found."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stderr
from pathlib import Path

from rich.console import Console

from scripts.check_gpu.checking import Check, carry_out
from scripts.check_gpu.lines import CHECKS
from scripts.check_gpu.record import CheckRecord, Device, Line, read_record, write_record
from scripts.check_gpu.sizes import CPU, GPU
from scripts.check_gpu.table import show
from store.console import say
from store.provenance import provenance
from task.errors import InputError

PATIENCE = 3
"""How many times its own time a line may take before it is ended."""

AT_LEAST = 120
"""Seconds that a line has in any case: a process that begins loads torch, and vLLM compiles."""


def run(device: Device, only: Sequence[str] | None, out: Path | None) -> CheckRecord:
    """Run all lines, or some by their names; print the table and write the record.

    On a GPU each line has a process of its own: a fault of the GPU, memory that is not given back, or a hang is then
    that line's alone.

    Raises:
        InputError: There is no GPU.
    """
    name, memory, devices = describe(device)
    asked = [check for check in CHECKS if check.name in only] if only else list(CHECKS)
    apart = device == "cuda" and len(asked) > 1
    began, lines = time.monotonic(), list[Line]()
    for check in asked:
        if device == "cpu" and check.by_name and not only:
            again = f"python -m scripts.check_gpu --device cpu --only {check.name}"
            said = "left out on a CPU unless it is named"
            lines.append(Line(name=check.name, about=check.about, state="skipped", said=said, remedy=again))
        else:
            lines.append(in_a_process(check, device) if apart else here(check, device, quiet=len(asked) > 1))
        if len(asked) > 1:
            say(f"{lines[-1].state:8} {check.name:14} {lines[-1].seconds:.0f} s")
    record = CheckRecord(
        device=device,
        name=name,
        memory_gb=memory,
        devices=devices,
        **provenance(),
        seconds=round(time.monotonic() - began, 1),
        lines=lines,
    )
    if out is not None:
        write_record(out, record)
    show(record, Console(highlight=False, width=None if sys.stdout.isatty() else 120))
    return record


def describe(device: Device) -> tuple[str, float | None, int]:
    """Name of the device, its memory in GB, number of GPUs."""
    try:
        import torch
    except ImportError:
        raise InputError("torch is not installed; pip install -r requirements.txt") from None
    if device == "cpu":
        return "CPU", None, 0
    if not torch.cuda.is_available():
        raise InputError(
            "--device cuda: torch sees no CUDA device; ask for a GPU, install a torch that fits its driver, or check "
            "the twin with --device cpu"
        )
    properties = torch.cuda.get_device_properties(0)
    return properties.name, properties.total_memory / 1e9, torch.cuda.device_count()


def here(check: Check, device: Device, quiet: bool) -> Line:
    """A line in this process; what it prints is dropped if `quiet`."""
    quieten()
    with redirect_stderr(io.StringIO()) if quiet else nullcontext():
        return carry_out(check, device, GPU if device == "cuda" else CPU)


def quieten() -> None:
    """Bars and warnings of libraries would stand between the lines."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler
    try:
        from transformers.utils import logging
    except ImportError:
        return
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        from datasets.utils.logging import disable_progress_bar
    except ImportError:
        return
    disable_progress_bar()


def in_a_process(check: Check, device: Device) -> Line:
    """A line in a process of its own, which is ended where it takes much longer than it should."""
    seconds = max(AT_LEAST, PATIENCE * check.seconds)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "line.json"
        module = ["-m", "scripts.check_gpu", "--device", device, "--only", check.name, "--out", str(out)]
        why = ""
        try:
            result = subprocess.run([sys.executable, *module], capture_output=True, text=True, timeout=seconds)
            printed = result.stderr.strip().splitlines() or ["it says nothing"]
            why = f"ended with status {result.returncode}: {printed[-1][:300]}"
        except subprocess.TimeoutExpired:
            why = f"not done after {seconds:.0f} s"
        if out.is_file():
            [line] = read_record(out).lines
            return line
    spent = round(time.monotonic() - began, 2)
    return Line(name=check.name, about=check.about, state="failed", said=why, remedy=check.remedy, seconds=spent)
