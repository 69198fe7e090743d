"""SLURM chains without SLURM: who waits for whom, what is left out, what the job scripts run, what is refused."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiment.file import load_experiment, load_groups
from experiment.launcher import make_run
from store.model_file import load_model_file
from experiment.plan import Run, command, plan
from experiment.slurm.chain import RECORD, Job, chain, sbatch_command, still_queued, submit
from experiment.slurm.queue import job_states
from experiment.slurm.site import Site
from experiment.standing import standing
from store.settings import read_settings
from support import ROOT, run_experiment
from task.errors import InputError

FOLDER = ROOT / "scripts" / "slurm"
JOB_SCRIPTS = sorted(FOLDER.glob("*.sbatch"))
SITE = read_settings(ROOT / "configs" / "slurm" / "site.yaml", Site)
LAUNCH = Path("configs/accelerate/single_gpu.yaml")
SIMULATED = ROOT / "configs" / "experiments" / "simulated.yaml"


def run_of(experiment: Path, runs: Path) -> Run:
    loaded = load_experiment(experiment)
    return make_run(loaded, load_model_file(loaded), load_groups(loaded), 0, runs)


def jobs_of(run: Run, *overwrite: str) -> dict[str, Job]:
    return {job.name: job for job in chain(run, plan(run), SITE, LAUNCH, [*overwrite])}


def program(folder: Path, name: str, body: str) -> None:
    """A command that stands in for another."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
    (folder / name).chmod(0o755)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which a make-believe SLURM notes what was asked of it; `queue` is what squeue prints."""
    folder = tmp_path / "slurm"
    program(
        folder,
        "sbatch",
        f"""
        case "$*" in *"$(cat {folder}/refused)"*) echo "error: Invalid partition" >&2; exit 1;; esac
        echo x >> {folder}/count; echo "$@" >> {folder}/submitted; wc -l < {folder}/count""",
    )
    program(folder, "squeue", f"cat {folder}/queue")
    program(folder, "scancel", f'echo "$@" >> {folder}/cancelled')
    (folder / "refused").write_text("nothing is refused")
    (folder / "queue").write_text("")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


# Who waits for whom


def test_a_training_waits_only_for_what_it_starts_from(tiny_experiment: Path, tmp_path: Path):
    jobs = jobs_of(run_of(tiny_experiment, tmp_path))
    introspection = ["introspection_fold_1.sft", "introspection_fold_2.sft", "introspection_all.sft"]
    assert [*jobs] == ["instilled.sft", *introspection, "evaluate", "evaluate.merge", "analyse"]
    assert jobs["instilled.sft"].after == () and all(jobs[name].after == ("instilled.sft",) for name in introspection)
    assert set(jobs["evaluate"].after) == {"instilled.sft", *introspection} and jobs["evaluate"].parts == 4
    assert jobs["evaluate.merge"].after == ("evaluate",) and jobs["analyse"].after == ("evaluate.merge",)


def test_the_jobs_carry_out_every_stage_once_or_share_it(tiny_experiment: Path, tmp_path: Path):
    run = run_of(tiny_experiment, tmp_path)
    done = [name for job in jobs_of(run).values() for name in job.stages]
    assert {*done} == {stage.name for stage in plan(run)}
    assert {name for name in done if done.count(name) > 1} == {"evaluate"}


def test_what_has_finished_is_left_out(tiny_experiment: Path, straight: Path, tmp_path: Path):
    shutil.copytree(straight, tmp_path / straight.name)
    # The copy's stages name the folders of the run that it is a copy of; what they hold is the same.
    run = run_of(tiny_experiment, tmp_path)
    assert jobs_of(run) == {}
    shutil.rmtree(run.folder / "analysis")
    assert {name: job.after for name, job in jobs_of(run).items()} == {"analyse": ()}
    shutil.rmtree(run.folder / "trials" / "instilled" / "reports")
    assert {name: job.after for name, job in jobs_of(run).items()} == {
        **{"evaluate": (), "evaluate.merge": ("evaluate",), "analyse": ("evaluate.merge",)}
    }
    shutil.rmtree(run.folder / "adapters" / "introspection_all")
    jobs = jobs_of(run)
    assert [*jobs] == ["introspection_all.sft", "evaluate", "evaluate.merge", "analyse"]
    assert jobs["introspection_all.sft"].after == () and jobs["evaluate"].after == ("introspection_all.sft",)


def test_another_first_adapter_makes_what_came_after_stale(tiny_experiment: Path, straight: Path, tmp_path: Path):
    shutil.copytree(straight, tmp_path / straight.name)
    run = run_of(tiny_experiment, tmp_path)
    weights = run.folder / "adapters" / "instilled" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"x")
    with pytest.raises(InputError, match=r"introspection_fold_1.sft .*--overwrite introspection_fold_1.sft"):
        jobs_of(run)
    folds = ("introspection_fold_1.sft", "introspection_fold_2.sft", "introspection_all.sft")
    assert [*jobs_of(run, *folds)] == [*folds, "evaluate", "evaluate.merge", "analyse"]


def test_overwritten_stages_are_submitted_with_what_redoes_them(tiny_experiment: Path, straight: Path, tmp_path: Path):
    shutil.copytree(straight, tmp_path / straight.name)
    run = run_of(tiny_experiment, tmp_path)
    jobs = jobs_of(run, "introspection_all.sft", "evaluate")
    assert [*jobs] == ["introspection_all.sft", "evaluate.begin", "evaluate", "evaluate.merge", "analyse"]
    assert jobs["introspection_all.sft"].script[-1] == "--overwrite-sft"
    assert jobs["evaluate.begin"].after == ("introspection_all.sft",) and jobs["evaluate"].after == ("evaluate.begin",)
    assert len(jobs_of(run, "all")) == 4 + 4


# What the job scripts say and run


@pytest.mark.parametrize("path", [*JOB_SCRIPTS, FOLDER / "job.sh"], ids=lambda p: p.name)
def test_a_job_script_parses(path: Path):
    assert subprocess.run(["bash", "-n", path], capture_output=True, text=True).stderr == ""


@pytest.mark.parametrize("path", JOB_SCRIPTS, ids=lambda p: p.name)
def test_a_job_script_keeps_the_rules(path: Path):
    text = path.read_text()
    for line in ("output=logs/%x-%j.out", "open-mode=append", "requeue", "signal=B:USR1@120"):
        assert f"#SBATCH --{line}\n" in text
    assert "set -euo pipefail\n" in text and f"#   sbatch scripts/slurm/{path.name}" in text.replace("--array=1-4 ", "")


@pytest.mark.parametrize(
    "given",
    [
        *(["train"], ["train", "RUN"], ["train", "RUN", "arm", "nowhere.yaml"], ["train", "RUN", "nobody"]),
        *(["train", "RUN", "instilled", str(LAUNCH), "--again"], ["train", "nowhere", "instilled"]),
        *(["evaluate"], ["evaluate", "RUN"], ["trials", "RUN"], ["trials", "RUN", "--join"]),
        *(["analyse"], ["analyse", "nowhere"], ["run_experiment"], ["run_experiment", "nowhere.yaml"]),
    ],
    ids=" ".join,
)
def test_wrong_arguments_are_one_clear_line(given: list[str], tmp_path: Path):
    (tmp_path / "stages").mkdir()
    name, *arguments = [str(tmp_path) if word == "RUN" else word for word in given]
    result = subprocess.run(["bash", FOLDER / f"{name}.sbatch", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1, result.stderr
    assert "usage: sbatch" in result.stderr or "no run has begun there" in result.stderr


def carried_out(script: tuple[str, ...], folder: Path, **variables: str) -> list[list[str]]:
    """The commands that a job script runs: its Python, noted instead of run."""
    program(folder, "python", f'printf "%s\\n" "$(printf "%q " "$@")" >> {folder}/ran')
    # Each task of srun learns its rank.
    options = f'while [[ $1 == -* ]]; do echo "$1" >> {folder}/options; shift; done'
    program(folder, "srun", f'{options}\nfor SLURM_PROCID in 0 1; do export SLURM_PROCID; "$@"; done')
    (Path(script[1]) / "stages" / "environment.sh").write_text(f"PYTHON={folder}/python\n")
    (folder / "ran").unlink(missing_ok=True)
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "31234", **variables}
    subprocess.run(["bash", *script], cwd=ROOT, env=environment, check=True)
    return [shlex.split(line) for line in (folder / "ran").read_text().splitlines()]


@pytest.fixture
def begun(tiny_experiment: Path, tmp_path: Path) -> Run:
    """A run whose stages are written, with empty configurations."""
    run = run_of(tiny_experiment, tmp_path)
    (run.folder / "stages").mkdir(parents=True)
    for stage in plan(run):
        (run.folder / "stages" / f"{stage.name}.yaml").touch()
    return run


@pytest.mark.parametrize("overwrite", [(), ("all",)], ids=["", "overwrite"])
def test_jobs_run_the_commands_of_the_local_launcher(begun: Run, tmp_path: Path, overwrite: tuple[str, ...]):
    jobs = jobs_of(begun, *overwrite)
    local = {stage.name: command(stage, begun, LAUNCH, bool(overwrite))[1:] for stage in plan(begun)}
    for job in jobs.values():
        array = {f"SLURM_ARRAY_TASK_{name}": "1" for name in ("ID", "MIN", "MAX", "COUNT")} if job.parts else {}
        ran = carried_out(job.script, tmp_path / "bin", **array)
        if job.stages == ("evaluate",):
            share = {"evaluate": "--part slurm", "evaluate.merge": "--merge", "evaluate.begin": "--begin --overwrite"}
            plain = [word for word in local["evaluate"] if word != "--overwrite"]
            assert ran == [[*plain, *share[job.name].split()]]
        else:
            assert ran == [local[name] for name in job.stages]


def test_several_gpus_and_several_nodes(begun: Run, tmp_path: Path):
    script = (str(FOLDER / "train.sbatch"), str(begun.folder), "instilled", "configs/accelerate/ddp.yaml")
    [_, alone] = carried_out(script, tmp_path / "bin", SLURM_GPUS_ON_NODE="4", SLURM_NNODES="1")
    assert shlex.join(alone).startswith(
        "-m accelerate.commands.launch --config_file configs/accelerate/ddp.yaml --num_processes 4 "
        "--main_process_port 21234 train/sft.py --config "
    )
    nodes = {"SLURM_GPUS_ON_NODE": "4", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "16"}
    [_, *tasks] = carried_out(script, tmp_path / "bin", **nodes)
    options = (tmp_path / "bin" / "options").read_text().split()
    assert options == ["--ntasks-per-node=1", "--cpus-per-task=16", "--kill-on-bad-exit=1"]
    host = subprocess.run(["hostname"], capture_output=True, text=True).stdout.strip()
    for rank, task in enumerate(tasks):
        assert shlex.join(task).startswith(
            "-m accelerate.commands.launch --config_file configs/accelerate/ddp.yaml --num_machines 2 "
            f"--machine_rank {rank} --num_processes 8 --main_process_ip {host} --main_process_port 21234 train/sft.py "
        )
        assert task[-2:] == ["--config", f"{begun.folder}/stages/instilled.sft.yaml"]
    assert len(tasks) == 2


def test_a_failing_command_fails_the_job(begun: Run, tmp_path: Path):
    (begun.folder / "stages" / "environment.sh").write_text("PYTHON=false\n")
    script = ["bash", FOLDER / "analyse.sbatch", begun.folder]
    assert subprocess.run(script, cwd=ROOT).returncode == 1
    (begun.folder / "stages" / "environment.sh").write_text("module load nothing_of_this_name\nPYTHON=true\n")
    assert subprocess.run(script, cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 127


@pytest.mark.parametrize(("turns", "asked"), [("0", "requeue 31234\n"), ("20", "")])
def test_the_warning_before_the_time_limit_requeues_the_job(slurm: Path, turns: str, asked: str):
    program(slurm, "scontrol", f'echo "$@" >> {slurm}/asked')
    (slurm / "asked").touch()
    lines = f"""set -euo pipefail
        source {FOLDER}/job.sh
        trap requeue USR1
        (sleep 0.5; kill -USR1 $$) &
        run bash -c 'sleep 1.5; exit 7'"""
    environment = {**os.environ, "SLURM_JOB_ID": "31234", "SLURM_RESTART_COUNT": turns}
    result = subprocess.run(["bash", "-c", lines], env=environment, capture_output=True, text=True)
    assert result.returncode == 7, "the command ends as it would have without the warning"
    assert (slurm / "asked").read_text() == asked
    assert ("has had 20 turns" in result.stderr) == (turns == "20")


# The site file


def test_the_site_becomes_options_of_sbatch(tiny_experiment: Path, tmp_path: Path):
    values = yaml.safe_load((ROOT / "configs" / "slurm" / "site.yaml").read_text())
    values |= {"account": "lab", "partition": "gpu", "options": ["--mail-type=FAIL"], "modules": ["cuda/12.8"]}
    values["train"] |= {"gres": "gpu:a100:4", "nodes": 2}
    values["analyse"] |= {"partition": "cpu"}
    site = Site.model_validate(values)
    run = run_of(tiny_experiment, tmp_path)
    jobs, ids = jobs_of(run), {"instilled.sft": "7", "evaluate.merge": "9"}
    training = sbatch_command(run, jobs["introspection_all.sft"], site, ids)
    wanted = {"--account=lab", "--partition=gpu", "--nodes=2", "--gres=gpu:a100:4", "--time=12:00:00", "--mem=64G"}
    assert wanted | {"--mail-type=FAIL", "--dependency=afterok:7", "--kill-on-invalid-dep=yes"} < {*training}
    assert {"--partition=cpu", "--gres=none", "--account=lab"} < {*sbatch_command(run, jobs["analyse"], site, ids)}
    assert site.train.launch_file.name == "ddp.yaml" and SITE.train.launch_file == LAUNCH
    assert site.environment().splitlines() == [f"PYTHON={sys.executable}", "module load cuda/12.8", *values["setup"]]
    assert all((ROOT / s.launch_file).is_file() for s in (site.train, SITE.train))


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda v: v["train"].update(time=43200), 'train.time: a time is written in quotes, "12:00:00"'),
        (lambda v: v["train"].update(gres="2"), "train.gres: give gpu:N or gpu:TYPE:N"),
        (lambda v: v["train"].update(nodes=0), "train.nodes"),
        (lambda v: v.update(acount="lab"), "unknown key 'acount'"),
        (lambda v: v.update(options=["mail-type=FAIL"]), "'mail-type=FAIL' is no option of sbatch"),
        (lambda v: v["evaluate"].update(mem="64 GB"), "evaluate.mem"),
        (lambda v: v.pop("evaluate"), "evaluate: Field required"),
    ],
)
def test_a_bad_site_is_one_clear_line(tmp_path: Path, edit: Callable[[dict[str, Any]], Any], says: str):
    values = yaml.safe_load((ROOT / "configs" / "slurm" / "site.yaml").read_text())
    edit(values)
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=re.escape(says)):
        read_settings(tmp_path / "site.yaml", Site)


# Submission


def test_ids_are_noted_and_used_for_those_that_wait(tiny_experiment: Path, slurm: Path, tmp_path: Path):
    run = run_of(tiny_experiment, tmp_path)
    (run.folder / "stages").mkdir(parents=True)
    ids = submit(run, list(jobs_of(run).values()), SITE)
    assert [*ids.values()] == ["1", "2", "3", "4", "5", "6", "7"]
    lines = (slurm / "submitted").read_text().splitlines()
    assert "--dependency=afterok:1:2:3:4 " in lines[4] and "--array=1-4" in lines[4]
    record = json.loads((run.folder / RECORD).read_text())
    assert {name: job["id"] for name, job in record.items()} == ids
    assert record["instilled.sft"]["stages"] == ["instilled.examples", "instilled.sft"]


def test_a_refused_job_takes_back_those_before_it(tiny_experiment: Path, slurm: Path, tmp_path: Path):
    run = run_of(tiny_experiment, tmp_path)
    (run.folder / "stages").mkdir(parents=True)
    (slurm / "refused").write_text("introspection_fold_2")
    with pytest.raises(InputError, match=r"sbatch refused introspection_fold_2.sft .*Invalid partition.* cancelled"):
        submit(run, list(jobs_of(run).values()), SITE)
    assert (slurm / "cancelled").read_text() == "1 2\n"


def test_a_run_with_jobs_is_started_nowhere(slurm: Path, tmp_path: Path):
    run = run_of(SIMULATED, tmp_path)
    assert still_queued(run, must_know=True) is None
    (slurm / "queue").write_text(f"12|RUNNING|None|simulated-seed0.evaluate|run {run.folder}\n12|PENDING|x|y|z\n")
    assert "1 jobs of this run wait or run (first 12," in str(still_queued(run, must_know=True))
    (slurm / "queue").write_text(f"12|COMPLETED|None|simulated-seed0.evaluate|run {run.folder}\n")
    assert still_queued(run, must_know=True) is None
    # Known by its id, too, where a cluster has put something else into the comment
    run.folder.mkdir()
    (run.folder / RECORD).write_text(json.dumps({"evaluate": {"id": "12", "stages": ["evaluate"], "command": []}}))
    (slurm / "queue").write_text("12|PENDING|Priority|simulated-seed0.evaluate|(null)\n")
    result = run_experiment(SIMULATED, tmp_path)
    assert result.returncode == 2 and "scancel 12" in result.stderr and len(result.stderr.splitlines()) == 1
    assert not (run.folder / "trials").exists()


def test_without_slurm_nothing_is_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no squeue here"):
        still_queued(run_of(SIMULATED, tmp_path), must_know=True)
    assert still_queued(run_of(SIMULATED, tmp_path), must_know=False) is None


def test_states_in_words(slurm: Path):
    program(slurm, "sacct", "echo '3|CANCELLED by 0'; echo '4_1|FAILED'; echo '4_2|COMPLETED'")
    (slurm / "queue").write_text("1|PENDING|Dependency|a|\n2|RUNNING|None|b|\n2|RUNNING|None|b|\n2|PENDING|None|b|\n")
    assert job_states(["1", "2", "3", "4", "5"]) == {
        **{"1": "PENDING (Dependency)", "2": "1 PENDING, 2 RUNNING", "3": "CANCELLED", "4": "1 COMPLETED, 1 FAILED"}
    }


# Where a run stands


def test_status_before_during_and_after(tmp_path: Path):
    experiment = yaml.safe_load(SIMULATED.read_text())
    experiment["contexts"]["instilled"]["count"] = 6
    experiment["contexts"]["native"]["count"] = 4
    experiment["engine"]["shard_size"] = 20
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(experiment))

    def status() -> dict[str, str]:
        result = run_experiment(path, tmp_path / "runs", "--status")
        assert result.returncode == 0, result.stderr
        return dict(re.findall(r"^(evaluate|analyse) +(.*?) *$", result.stdout, re.MULTILINE))

    assert status() == {"evaluate": "not begun", "analyse": "not begun"}
    assert not (tmp_path / "runs").exists()
    assert run_experiment(path, tmp_path / "runs").returncode == 0
    assert status() == {"evaluate": "finished", "analyse": "finished"}
    folder = tmp_path / "runs" / "simulated-seed0"
    shutil.rmtree(folder / "trials" / "shuffled")
    assert status() == {"evaluate": "interrupted: 63 of 66 shards", "analyse": "stale: made from other trial files"}


def test_a_training_stands_at_its_last_complete_checkpoint(begun: Run):
    [stage] = [stage for stage in plan(begun) if stage.name == "instilled.sft"]
    assert str(standing(begun, stage)) == "not begun"
    stage.output.mkdir(parents=True)
    (stage.output / "started.json").write_text("{}")
    (stage.output / "checkpoint-2").mkdir()
    assert str(standing(begun, stage)) == "interrupted: before its first checkpoint"
