"""Carry out stages of a run, one after the other: the one place where their commands are written.

    python -m experiment.stage runs/demo-seed0 instilled.examples instilled.sft
    python -m experiment.stage runs/controls-seed0 swapped.derive       # a sum of adapters
    python -m experiment.stage runs/controls-seed0 instilled.decisions instilled.weights    # to be taught as labels
    python -m experiment.stage runs/demo-seed0 evaluate --part 2/4      # a part of the trials; or: --part slurm
    python -m experiment.stage runs/demo-seed0 evaluate --merge         # join what the parts have made
    python -m experiment.stage runs/inside-seed0 attribute patch        # look inside its adapters
    python -m experiment.stage runs/demo-seed0 evaluate --begin         # before parts replace trials of other inputs
    python -m experiment.stage runs/demo-seed0 instilled.sft --overwrite instilled.sft

The run must have been begun by scripts/run_experiment.py, which writes what the stages read. What libraries say goes to
the run's `logs/`. In a SLURM job, `--slurm` starts one training process a GPU, on all nodes of the job.
"""

from __future__ import annotations

import argparse
import os
import shlex
import socket
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from rich.console import Console

from experiment.relay import Outcome, relay
from store.console import run_command
from store.paths import project_file
from store.run import RunFolder
from store.state import Kind
from task.errors import InputError, shown
from task.names import LONGEST_FULL_NAME, name_problem

CONSOLE = Console(highlight=False)

KINDS: Mapping[str, Kind] = {kind: kind for kind in ("evaluate", "attribute", "patch", "analyse", "track")}
"""Kinds of the stages that belong to no arm."""

ARM_KINDS: Mapping[str, Kind] = {
    "examples": "examples",
    "sft": "sft",
    "decisions": "evaluate",
    "weights": "learn",
    "derive": "derive",
}
"""Kinds of the stages of an arm, by what their names end with: `ARM.sft`."""

MODULES: Mapping[Kind, str] = {
    "examples": "train.examples",
    "learn": "analysis.learned",
    "derive": "train.derived",
    "evaluate": "eval.run",
    "attribute": "inside.attribute",
    "patch": "inside.patch",
    "analyse": "analysis.run",
    "track": "experiment.track",
}


@dataclass(frozen=True)
class Options:
    """How stages are carried out.

    Attributes:
        accelerate: Launch configuration of trainings; None is chosen by the hardware.
        overwrite: Names of the stages to redo where an earlier result differs.
        share: Further arguments of `eval.run` that say which share of an evaluation to do.
        slurm: Whether this is a SLURM job, whose GPUs and nodes share a training.
    """

    accelerate: Path | None = None
    overwrite: tuple[str, ...] = ()
    share: tuple[str, ...] = ()
    slurm: bool = False


def kind_of(stage: str) -> Kind:
    """Which command a stage is, told from its name.

    Raises:
        InputError: It is no name of a stage.
    """
    arm, _, ending = stage.rpartition(".")
    if stage in KINDS:
        return KINDS[stage]
    if ending in ARM_KINDS and name_problem(arm, LONGEST_FULL_NAME) is None:
        return ARM_KINDS[ending]
    known = ", ".join([*(f"ARM.{ending}" for ending in ARM_KINDS), *KINDS])
    raise InputError(f"stage {shown(stage)}: no such stage; give one of {known}")


def batches(stages: Iterable[str], redo: Collection[str]) -> list[list[str]]:
    """Stages as processes carry them out: sums of adapters that follow each other in one, any other stage by itself.

    A sum takes a moment, the start of its process seconds, and a run may cut an adapter at dozens of layers.
    """

    def process(numbered: tuple[int, str]) -> tuple[int, bool]:
        number, stage = numbered
        return (-1 if kind_of(stage) == "derive" else number), stage in redo

    return [[stage for _, stage in found] for _, found in groupby(enumerate(stages), key=process)]


def stage_command(run: RunFolder, stage: str, options: Options, more: Sequence[str] = ()) -> list[str]:
    """The command line of a stage, and of `more` that the same process carries out."""
    kind, redo = kind_of(stage), stage in options.overwrite
    if kind == "analyse" or kind == "track":
        return [sys.executable, "-m", MODULES[kind], "--run", str(run.path)]
    config = ["--config", *(str(run.stage_config(name)) for name in (stage, *more))]
    if kind == "sft":
        script = [str(project_file("train/sft.py")), *config, *(["--overwrite", "true"] if redo else [])]
        return training_command(script, options.accelerate or default_accelerate(), os.environ if options.slurm else {})
    share = options.share if kind == "evaluate" else ()
    return [sys.executable, "-m", MODULES[kind], *config, *share, *(["--overwrite"] if redo else [])]


def training_command(script: Sequence[str], launch: Path, job: Mapping[str, str]) -> list[str]:
    """`accelerate launch` of a training script; one process a GPU of a SLURM job, meeting on its first node.

    Args:
        script: The script and its arguments.
        launch: Launch configuration.
        job: The environment of a SLURM job; empty outside one.
    """
    nodes, gpus = int(job.get("SLURM_NNODES", 1)), int(job.get("SLURM_GPUS_ON_NODE", 0))
    processes = nodes * max(gpus, 1)
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(launch)]
    if processes == 1:
        return [*command, *script]
    # Jobs that share a node keep apart by a port of their own.
    port = 20000 + int(job.get("SLURM_JOB_ID", 0)) % 10000
    command += ["--num_processes", str(processes), "--main_process_port", str(port)]
    if nodes == 1:
        return [*command, *script]
    command += ["--num_machines", str(nodes), "--main_process_ip", socket.gethostname(), "--machine_rank"]
    # One task a node, which learns its own rank; srun does not take the cores from the job by itself.
    cores = job.get("SLURM_CPUS_PER_TASK", "1")
    srun = ["srun", "--ntasks-per-node=1", f"--cpus-per-task={cores}", "--kill-on-bad-exit=1"]
    return [*srun, "bash", "-c", f'exec {shlex.join(command)} "$SLURM_PROCID" "$@"', "task", *script]


def default_accelerate() -> Path:
    """The launch configuration for this machine: one process on a GPU if there is one, on the CPU otherwise."""
    import torch  # slow to load, and not needed for a dry run

    return project_file(f"configs/accelerate/{'single_gpu' if torch.cuda.is_available() else 'cpu'}.yaml")


def log_name(stage: str, options: Options, environment: Mapping[str, str]) -> str:
    """Name of a stage's log; parts of an evaluation, which run side by side, have one each."""
    if kind_of(stage) != "evaluate" or not options.share:
        return stage
    *_, word = options.share if "--part" in options.share else options.share[:1]
    part = environment.get("SLURM_ARRAY_TASK_ID", "1") if word == "slurm" else word.strip("-").replace("/", "-of-")
    return f"{stage}.{part}"


def run_stage(run: RunFolder, stage: str, options: Options, console: Console, more: Sequence[str] = ()) -> None:
    """Carry out one stage, and `more` of one batch, in one process; the result of each is one line.

    Raises:
        InputError: It failed: by its own line, or by the last line that it printed.
    """
    started = time.monotonic()
    log = run.log(log_name(stage, options, os.environ))
    outcome = relay(stage_command(run, stage, options, more), log, console)
    if outcome.status:
        raise InputError(why_it_failed(stage, outcome, log))
    *before, last = outcome.result or ["done"]
    for line in before:
        console.print(f"    {line}", soft_wrap=True, markup=False)
    console.print(f"    {last} ({time.monotonic() - started:.0f} s)", soft_wrap=True, markup=False)


def why_it_failed(stage: str, outcome: Outcome, log: Path) -> str:
    """One line on a stage that failed. That the same command goes on is said only where it does."""
    if outcome.errors:
        return outcome.errors[0]
    if outcome.killed:
        return f"stage {stage} was killed ({outcome.killed}); see {log}. The same command goes on from where it was"
    return f"stage {stage} ended with status {outcome.status} ({outcome.last}); see {log} and mend the cause"


def main() -> None:
    """Command line: `RUN STAGE ... [--overwrite STAGE ...] [--accelerate FILE] [--part i/N | --merge | --begin]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder, e.g. runs/demo-seed0")
    parser.add_argument(
        "stages", nargs="+", metavar="stage", help="e.g. ARM.examples, ARM.sft, evaluate, analyse, track"
    )
    parser.add_argument("--overwrite", nargs="+", default=[], metavar="STAGE", help="stages to redo")
    parser.add_argument("--accelerate", type=Path, help="file of configs/accelerate/ (default: by hardware)")
    parser.add_argument("--slurm", action="store_true", help="train on all GPUs and nodes of this SLURM job")
    sharing = parser.add_mutually_exclusive_group()
    sharing.add_argument("--part", metavar="i/N", help="answer only the shards of one part, or: slurm")
    sharing.add_argument("--begin", action="store_true", help="open the trial folders, replacing those of other inputs")
    sharing.add_argument("--merge", action="store_true", help="join the shards of all parts")
    arguments = parser.parse_args()
    run = RunFolder(arguments.run)
    if not run.record.is_file():
        raise InputError(
            f"{run.path}: no run has begun there; begin it with: python scripts/run_experiment.py FILE.yaml"
        )
    for stage in arguments.stages:
        if kind_of(stage) not in ("analyse", "track") and not run.stage_config(stage).is_file():
            raise InputError(f"{run.stage_config(stage)}: no such stage in this run; see: run_experiment.py --status")
    share: tuple[str, ...] = ("--part", arguments.part) if arguments.part else ()
    if arguments.begin or arguments.merge:
        share = ("--begin", "--overwrite") if arguments.begin else ("--merge",)
    options = Options(arguments.accelerate, tuple(arguments.overwrite), share, arguments.slurm)
    for stage, *more in batches(arguments.stages, arguments.overwrite):
        CONSOLE.print(" ".join([stage, *more]), style="bold", markup=False)
        run_stage(run, stage, options, CONSOLE, more)


if __name__ == "__main__":
    run_command(main)
