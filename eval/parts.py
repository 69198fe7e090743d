"""Parts of an evaluation: processes that share its shards, each with GPUs of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from store.evaluation import EngineSettings
from store.processes import die_with_parent
from task.errors import InputError

SLURM = "slurm"
"""In place of `i/N`: the part that a task of a SLURM array job is."""


@dataclass(frozen=True)
class Part:
    """Part `number` of `of`, counted from 1.

    Shards go round in turn, counted through all measurements, so that every part has its share of each.
    """

    number: int
    of: int

    def has(self, shard: int) -> bool:
        """Whether a shard, counted through all measurements, belongs to this part."""
        return shard % self.of == self.number - 1

    @property
    def name(self) -> str:
        """As part of a file's name."""
        return f"{self.number}-of-{self.of}"

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


def parse_part(text: str, environment: Mapping[str, str]) -> Part:
    """Read `i/N`, or `slurm` for what SLURM_ARRAY_TASK_ID, _MIN, _MAX and _COUNT say of an array with steps of 1."""
    if text == SLURM:
        names = [f"SLURM_ARRAY_TASK_{name}" for name in ("ID", "MIN", "MAX", "COUNT")]
        if missing := [name for name in names if not environment.get(name, "").isdigit()]:
            raise InputError(f"--part: {missing[0]} is not set; give --part i/N, or submit with sbatch --array=1-N")
        task, first, last, count = (int(environment[name]) for name in names)
        if last - first + 1 != count:
            raise InputError(
                f"--part: array {first}-{last} of {count} tasks has gaps; use --array=1-N, or give --part i/N"
            )
        return Part(task - first + 1, count)
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--part {text}: not a part; give i/N with i from 1 to N, such as 1/4")
    return Part(int(match[1]), int(match[2]))


def visible_gpus(environment: Mapping[str, str]) -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; found without starting CUDA."""
    if (named := environment.get("CUDA_VISIBLE_DEVICES")) is not None:
        gpus = [name.strip() for name in named.split(",") if name.strip()]
        return [] if "-1" in gpus else gpus
    if shutil.which("nvidia-smi") is None:
        return []
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True).stdout
    return [str(i) for i, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]


def share_gpus(gpus: Sequence[str], processes: int, engine: EngineSettings) -> list[str | None]:
    """CUDA_VISIBLE_DEVICES of each process: as many GPUs as vLLM splits the model over; None where there are none."""
    each = int(engine.vllm.get("tensor_parallel_size", 1))
    if not gpus:
        return [None] * processes
    if processes * each > len(gpus):
        raise InputError(
            f"engine: {processes} processes with {each} GPUs each need {processes * each}, {len(gpus)} are visible; "
            "use fewer processes or a smaller tensor_parallel_size"
        )
    return [",".join(gpus[i * each : (i + 1) * each]) for i in range(processes)]


def start_parts(command: Sequence[str], devices: Sequence[str | None]) -> list[subprocess.Popen[bytes]]:
    """Start a process a part: `command` with `--part i/N --quiet`, pinned to its devices. It ends with this one."""
    started = []
    for i, pinned in enumerate(devices, start=1):
        line = [sys.executable, *command, "--part", f"{i}/{len(devices)}", "--quiet"]
        more = {} if pinned is None else {"CUDA_VISIBLE_DEVICES": pinned}
        started.append(subprocess.Popen(line, env={**os.environ, **more}, preexec_fn=die_with_parent()))
    return started
