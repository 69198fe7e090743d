"""What jobs ask of a SLURM cluster: a file like configs/slurm/site.yaml, and the options of sbatch that it becomes."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from store.settings import WrittenSettings

JobKind = Literal["train", "evaluate", "analyse"]

TIME = re.compile(r"(\d+|\d+:\d\d|\d+:\d\d:\d\d|\d+-\d+(:\d\d){0,2})")
GRES = re.compile(r"gpu(:[A-Za-z0-9_.-]+)?:(?P<count>\d+)|gpu(:[A-Za-z][A-Za-z0-9_.-]*)?")


class Resources(WrittenSettings):
    """What a kind of job asks for; None leaves it to the cluster.

    Attributes:
        account, partition, qos: Instead of the site's own.
        gres: GPUs of each node, `gpu:2` or `gpu:TYPE:2`; None for a job without GPU.
        cpus: Cores of each node.
        mem: Memory of each node, e.g. `64G`.
        time: Longest time, `HH:MM:SS` or `D-HH:MM:SS`.
    """

    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    gres: str | None = None
    cpus: int = Field(ge=1)
    mem: str | None = Field(default=None, pattern=r"^\d+[KMGT]?$")
    time: str | None = None

    @field_validator("time", mode="before")
    @classmethod
    def _check_time(cls, value: object) -> object:
        if value is not None and not (isinstance(value, str) and TIME.fullmatch(value)):
            raise ValueError('a time is written in quotes, "12:00:00" or "2-00:00:00" (YAML reads it as a number)')
        return value

    @field_validator("gres")
    @classmethod
    def _check_gres(cls, value: str | None) -> str | None:
        if value is not None and not GRES.fullmatch(value):
            raise ValueError("give gpu:N or gpu:TYPE:N, or null for none")
        return value

    @property
    def gpus(self) -> int:
        """GPUs of each node."""
        match = GRES.fullmatch(self.gres or "")
        return 0 if match is None else int(match["count"] or 1)


class TrainResources(Resources):
    """Resources of a training; `nodes` machines share it."""

    nodes: int = Field(default=1, ge=1)

    @property
    def launch_file(self) -> Path:
        """The launch configuration for these GPUs."""
        one, several = ("single_gpu", "ddp") if self.gpus else ("cpu", "cpu_ddp")
        return Path("configs/accelerate") / f"{several if max(self.gpus, 1) * self.nodes > 1 else one}.yaml"


class EvaluateResources(Resources):
    """Resources of one part of an evaluation, and how many parts share it."""

    parts: int = Field(default=1, ge=1)


class Site(WrittenSettings):
    """A site file. See configs/slurm/site.yaml.

    Attributes:
        account, partition, qos: For all jobs; None leaves them to the cluster.
        modules: Modules that every job loads.
        setup: Shell lines that every job runs before its first command, after the modules.
        options: Further options of sbatch, for all jobs.
        train, evaluate, analyse: What each kind of job asks for.
    """

    account: str | None = None
    partition: str | None = None
    qos: str | None = None
    modules: list[str] = Field(default_factory=list)
    setup: list[str] = Field(default_factory=list)
    options: list[str] = Field(default_factory=list)
    train: TrainResources
    evaluate: EvaluateResources
    analyse: Resources

    @field_validator("options")
    @classmethod
    def _check_options(cls, value: list[str]) -> list[str]:
        if strange := [option for option in value if not option.startswith("-")]:
            raise ValueError(f"{strange[0]!r} is no option of sbatch; write --name=value")
        return value

    def sbatch_options(self, kind: JobKind) -> list[str]:
        """Options of sbatch for a kind of job; they go before what a job script says itself."""
        wanted: Resources = getattr(self, kind)
        named = {
            **{key: getattr(wanted, key) or getattr(self, key) for key in ("account", "partition", "qos")},
            "nodes": wanted.nodes if isinstance(wanted, TrainResources) else 1,
            "cpus-per-task": wanted.cpus,
            "mem": wanted.mem,
            "time": wanted.time,
            "gres": wanted.gres or "none",
        }
        return [*(f"--{key}={value}" for key, value in named.items() if value is not None), *self.options]

    def environment(self) -> str:
        """The set-up of a job as shell lines: this Python unless they set another, modules, `setup`."""
        lines = [f"PYTHON={shlex.quote(sys.executable)}"]
        if self.modules:
            lines.append(f"module load {' '.join(map(shlex.quote, self.modules))}")
        return "\n".join([*lines, *self.setup]) + "\n"
