"""The commands of stages: the same for the launcher, for SLURM's jobs and by hand."""

from __future__ import annotations

import shlex
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from experiment.stage import Options, kind_of, log_name, stage_command, training_command
from store.run import RunFolder
from support import ROOT
from task.errors import InputError

RUN = RunFolder(Path("runs/x-seed0"))
DDP = Path("configs/accelerate/ddp.yaml")


@pytest.mark.parametrize(
    ("stage", "kind", "command"),
    [
        ("a.examples", "examples", "-m train.examples --config runs/x-seed0/stages/a.examples.yaml"),
        ("evaluate", "evaluate", "-m eval.run --config runs/x-seed0/stages/evaluate.yaml"),
        ("analyse", "analyse", "-m analysis.run --run runs/x-seed0"),
        ("track", "track", "-m experiment.track --run runs/x-seed0"),
    ],
)
def test_what_a_stage_runs(stage: str, kind: str, command: str):
    assert kind_of(stage) == kind
    assert stage_command(RUN, stage, Options()) == [sys.executable, *command.split()]


def test_overwriting_and_shares_reach_only_what_takes_them():
    options = Options(DDP, overwrite=("a.examples", "evaluate", "analyse"), share=("--part", "2/3"))
    assert stage_command(RUN, "a.examples", options)[-1] == "--overwrite"
    assert stage_command(RUN, "b.examples", options)[-1] == "runs/x-seed0/stages/b.examples.yaml"
    assert stage_command(RUN, "evaluate", options)[-3:] == ["--part", "2/3", "--overwrite"]
    assert stage_command(RUN, "analyse", options)[-2:] == ["--run", "runs/x-seed0"]
    assert stage_command(RUN, "a.sft", Options(DDP, overwrite=("a.sft",)))[-2:] == ["--overwrite", "true"]


def test_a_training_is_launched_by_accelerate():
    command = stage_command(RUN, "a.sft", Options(DDP))
    assert command[1:5] == ["-m", "accelerate.commands.launch", "--config_file", str(DDP)]
    assert (ROOT / command[5]).is_file() and command[6:] == ["--config", "runs/x-seed0/stages/a.sft.yaml"]


def test_a_job_with_several_gpus_starts_one_process_each():
    job = {"SLURM_GPUS_ON_NODE": "4", "SLURM_NNODES": "1", "SLURM_JOB_ID": "31234"}
    command = training_command(["train/sft.py", "--config", "c.yaml"], DDP, job)
    assert shlex.join(command[1:]) == (
        f"-m accelerate.commands.launch --config_file {DDP} --num_processes 4 --main_process_port 21234 "
        "train/sft.py --config c.yaml"
    )
    assert training_command(["train/sft.py"], DDP, {**job, "SLURM_GPUS_ON_NODE": "1"})[-2:] == [
        str(DDP),
        "train/sft.py",
    ]


def test_on_several_nodes_every_task_learns_its_rank(tmp_path: Path):
    job = {"SLURM_GPUS_ON_NODE": "4", "SLURM_NNODES": "2", "SLURM_JOB_ID": "31234", "SLURM_CPUS_PER_TASK": "16"}
    command = training_command(["train/sft.py", "--config", "a b.yaml"], DDP, job)
    assert command[:4] == ["srun", "--ntasks-per-node=1", "--cpus-per-task=16", "--kill-on-bad-exit=1"]
    # What a task of srun would run, with a program that prints its arguments in place of Python.
    (tmp_path / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "python").chmod(0o755)
    task = [word.replace(sys.executable, str(tmp_path / "python")) for word in command[4:]]
    for rank in ("0", "1"):
        ran = subprocess.run(task, env={"SLURM_PROCID": rank, "PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
        assert ran.stdout.splitlines() == [
            *("-m", "accelerate.commands.launch", "--config_file", str(DDP), "--num_processes", "8"),
            *("--main_process_port", "21234", "--num_machines", "2", "--main_process_ip", socket.gethostname()),
            *("--machine_rank", rank, "train/sft.py", "--config", "a b.yaml"),
        ]


@pytest.mark.parametrize(
    ("stage", "share", "name"),
    [
        ("a.sft", (), "a.sft"),
        ("evaluate", (), "evaluate"),
        ("evaluate", ("--part", "2/4"), "evaluate.2-of-4"),
        ("evaluate", ("--part", "slurm"), "evaluate.7"),
        ("evaluate", ("--merge",), "evaluate.merge"),
        ("evaluate", ("--begin", "--overwrite"), "evaluate.begin"),
        ("analyse", ("--merge",), "analyse"),
    ],
)
def test_parts_that_run_side_by_side_have_logs_of_their_own(stage: str, share: tuple[str, ...], name: str):
    assert log_name(stage, Options(share=share), {"SLURM_ARRAY_TASK_ID": "7"}) == name


@pytest.mark.parametrize("stage", ["evaluation", "instilled", "a.train", ""])
def test_other_names_are_no_stage(stage: str):
    with pytest.raises(InputError, match=r"no such stage; give one of ARM\.examples"):
        kind_of(stage)


def test_a_run_that_has_not_begun_is_named(tmp_path: Path):
    command = [sys.executable, "-m", "experiment.stage", str(tmp_path / "none"), "evaluate"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 2 and len(ran.stderr.splitlines()) == 1
    assert ran.stderr.startswith(f"error: {tmp_path / 'none'}: no run has begun there")
