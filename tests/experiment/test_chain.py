"""SLURM chains without SLURM: who waits for whom, what is left out, what the job scripts run, what is refused."""

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

from experiment.launcher import plan_runs
from experiment.plan import Run
from experiment.prepare import prepare
from experiment.slurm.chain import Job, chain
from experiment.slurm.queue import job_states
from experiment.slurm.site import Site
from experiment.slurm.submit import sbatch_command, still_queued, submit
from experiment.stage import Options, stage_command
from store.run import JobRecord, read_jobs, write_jobs
from store.settings import read_settings
from support import ROOT, run_experiment
from task.errors import InputError

FOLDER = ROOT / "scripts" / "slurm"
JOB_SCRIPTS = sorted(FOLDER.glob("*.sbatch"))
SITE = read_settings(ROOT / "configs" / "slurm" / "site.yaml", Site)
LAUNCH = Path("configs/accelerate/single_gpu.yaml")
SIMULATED = ROOT / "configs" / "experiments" / "simulated.yaml"


def run_of(experiment: Path, runs: Path) -> Run:
    return plan_runs(experiment, runs)[0]


def jobs_of(run: Run, *overwrite: str) -> dict[str, Job]:
    redo = [stage.name for stage in run.stages] if "all" in overwrite else overwrite
    return {job.name: job for job in chain(run, SITE, LAUNCH, redo)}


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
    assert {*done} == {stage.name for stage in run.stages}
    assert {name for name in done if done.count(name) > 1} == {"evaluate"}


def test_what_has_finished_is_left_out(tiny_experiment: Path, straight: Path, tmp_path: Path):
    shutil.copytree(straight, tmp_path / straight.name)
    # The copy's stages name the folders of the run that it is a copy of; what they hold is the same.
    run = run_of(tiny_experiment, tmp_path)
    assert jobs_of(run) == {}
    shutil.rmtree(run.folder.path / "analysis")
    assert {name: job.after for name, job in jobs_of(run).items()} == {"analyse": ()}
    shutil.rmtree(run.folder.path / "trials" / "instilled" / "reports-constrained")
    assert {name: job.after for name, job in jobs_of(run).items()} == {
        **{"evaluate": (), "evaluate.merge": ("evaluate",), "analyse": ("evaluate.merge",)}
    }
    shutil.rmtree(run.folder.path / "adapters" / "introspection_all")
    jobs = jobs_of(run)
    assert [*jobs] == ["introspection_all.sft", "evaluate", "evaluate.merge", "analyse"]
    assert jobs["introspection_all.sft"].after == () and jobs["evaluate"].after == ("introspection_all.sft",)


def test_another_first_adapter_makes_what_came_after_stale(tiny_experiment: Path, straight: Path, tmp_path: Path):
    shutil.copytree(straight, tmp_path / straight.name)
    run = run_of(tiny_experiment, tmp_path)
    weights = run.folder.path / "adapters" / "instilled" / "adapter_model.safetensors"
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
    assert jobs["introspection_all.sft"].options[-2:] == ("--overwrite", "introspection_all.sft")
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
    assert "set -euo pipefail\n" in text and f"#   sbatch scripts/slurm/{path.name} " in text


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["stage"], "usage: sbatch scripts/slurm/stage.sbatch RUN STAGE [STAGE ...]"),
        (["stage", "RUN"], "1 arguments given"),
        (["stage", "RUN", "evaluate"], "no run has begun there"),
        (["run_experiment"], "no such file: none given"),
        (["run_experiment", "nowhere.yaml"], "no such file: nowhere.yaml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_arguments_are_one_clear_line(given: list[str], says: str, tmp_path: Path):
    name, *arguments = [str(tmp_path) if word == "RUN" else word for word in given]
    result = subprocess.run(["bash", FOLDER / f"{name}.sbatch", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1 and says in result.stderr, result.stderr


def carried_out(job: Job, run: Run, folder: Path, **variables: str) -> list[list[str]]:
    """The commands of the stages that a job carries out; every Python but the job's own is noted, not run.

    The job's Python is a program that runs `experiment.stage` with `sys.executable` set to the one that takes notes.
    """
    program(folder, "noting", f'printf "%s\\n" "$(printf "%q " "$@")" >> {folder}/ran')
    code = f"import runpy, sys; sys.executable = {str(folder / 'noting')!r}; sys.argv[0] = 'stage'; "
    code += "runpy.run_module('experiment.stage', run_name='__main__')"
    program(folder, "python", f'shift 2; exec {sys.executable} -c "{code}" "$@"')
    run.folder.environment.write_text(f"PYTHON={folder}/python\n")
    (folder / "ran").unlink(missing_ok=True)
    environment = {**os.environ, "SLURM_JOB_ID": "31234", **variables}
    script = ["bash", str(FOLDER / "stage.sbatch"), str(run.folder.path), *job.stages, *job.options]
    subprocess.run(script, cwd=ROOT, env=environment, check=True, capture_output=True)
    return [shlex.split(line) for line in (folder / "ran").read_text().splitlines()]


@pytest.fixture
def begun(tiny_experiment: Path, tmp_path: Path) -> Run:
    """A run whose stages are written."""
    run = run_of(tiny_experiment, tmp_path)
    prepare(run, overwrite=False)
    return run


@pytest.mark.parametrize("overwrite", [(), ("all",)], ids=["", "overwrite"])
def test_jobs_run_the_commands_of_the_local_launcher(begun: Run, tmp_path: Path, overwrite: tuple[str, ...]):
    redo = tuple(stage.name for stage in begun.stages) if overwrite else ()
    local = {s.name: stage_command(begun.folder, s.name, Options(LAUNCH, redo))[1:] for s in begun.stages}
    for job in jobs_of(begun, *overwrite).values():
        ran = carried_out(job, begun, tmp_path / "bin")
        if job.stages == ("evaluate",):
            share = {"evaluate": "--part slurm", "evaluate.merge": "--merge", "evaluate.begin": "--begin --overwrite"}
            plain = [word for word in local["evaluate"] if word != "--overwrite"]
            assert ran == [[*plain, *share[job.name].split()]]
        else:
            assert ran == [local[name] for name in job.stages]


def test_a_failing_command_fails_the_job(begun: Run):
    begun.folder.environment.write_text("PYTHON=false\n")
    script = ["bash", FOLDER / "stage.sbatch", begun.folder.path, "analyse"]
    assert subprocess.run(script, cwd=ROOT).returncode == 1
    begun.folder.environment.write_text("module load nothing_of_this_name\nPYTHON=true\n")
    assert subprocess.run(script, cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 127
    assert subprocess.run(script[:3], cwd=ROOT, stderr=subprocess.DEVNULL).returncode == 2, "no stage is named"


@pytest.mark.parametrize(("turns", "asked"), [("0", "requeue 31234\n"), ("20", "")])
def test_the_warning_before_the_time_limit_requeues_the_job(slurm: Path, turns: str, asked: str):
    program(slurm, "scontrol", f'echo "$@" >> {slurm}/asked')
    (slurm / "asked").touch()
    lines = f"""set -euo pipefail
        source {FOLDER}/job.sh
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
    training = sbatch_command(run.folder, jobs["introspection_all.sft"], site, ids)
    wanted = {"--account=lab", "--partition=gpu", "--nodes=2", "--gres=gpu:a100:4", "--time=12:00:00", "--mem=64G"}
    assert wanted | {"--mail-type=FAIL", "--dependency=afterok:7", "--kill-on-invalid-dep=yes"} < {*training}
    assert {"--partition=cpu", "--gres=none", "--account=lab"} < {
        *sbatch_command(run.folder, jobs["analyse"], site, ids)
    }
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
    (run.folder.path / "stages").mkdir(parents=True)
    ids = submit(run.folder, list(jobs_of(run).values()), SITE)
    assert [*ids.values()] == ["1", "2", "3", "4", "5", "6", "7"]
    lines = (slurm / "submitted").read_text().splitlines()
    assert "--dependency=afterok:1:2:3:4 " in lines[4] and "--array=1-4" in lines[4]
    record = read_jobs(run.folder)
    assert {name: job.id for name, job in record.items()} == ids
    assert record["instilled.sft"].stages == ["instilled.examples", "instilled.sft"]


def test_a_refused_job_takes_back_those_before_it(tiny_experiment: Path, slurm: Path, tmp_path: Path):
    run = run_of(tiny_experiment, tmp_path)
    (run.folder.path / "stages").mkdir(parents=True)
    (slurm / "refused").write_text("introspection_fold_2")
    with pytest.raises(InputError, match=r"sbatch refused introspection_fold_2.sft .*Invalid partition.* cancelled"):
        submit(run.folder, list(jobs_of(run).values()), SITE)
    assert (slurm / "cancelled").read_text() == "1 2\n"


def test_a_run_with_jobs_is_started_nowhere(slurm: Path, tmp_path: Path):
    run = run_of(SIMULATED, tmp_path).folder
    assert still_queued(run, must_know=True) is None
    (slurm / "queue").write_text(f"12|RUNNING|None|simulated-seed0.evaluate|run {run.path}\n12|PENDING|x|y|z\n")
    assert "1 jobs of this run wait or run (first 12," in str(still_queued(run, must_know=True))
    (slurm / "queue").write_text(f"12|COMPLETED|None|simulated-seed0.evaluate|run {run.path}\n")
    assert still_queued(run, must_know=True) is None
    # Known by its id, too, where a cluster has put something else into the comment
    run.path.mkdir()
    write_jobs(run, {"evaluate": JobRecord(id="12", stages=["evaluate"], command=[])})
    (slurm / "queue").write_text("12|PENDING|Priority|simulated-seed0.evaluate|(null)\n")
    result = run_experiment(SIMULATED, tmp_path)
    assert result.returncode == 2 and "scancel 12" in result.stderr and len(result.stderr.splitlines()) == 1
    assert not run.trials.exists()


def test_without_slurm_nothing_is_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="no squeue here"):
        still_queued(run_of(SIMULATED, tmp_path).folder, must_know=True)
    assert still_queued(run_of(SIMULATED, tmp_path).folder, must_know=False) is None


def test_states_in_words(slurm: Path):
    program(slurm, "sacct", "echo '3|CANCELLED by 0'; echo '4_1|FAILED'; echo '4_2|COMPLETED'")
    (slurm / "queue").write_text("1|PENDING|Dependency|a|\n2|RUNNING|None|b|\n2|RUNNING|None|b|\n2|PENDING|None|b|\n")
    assert job_states(["1", "2", "3", "4", "5"]) == {
        **{"1": "PENDING (Dependency)", "2": "1 PENDING, 2 RUNNING", "3": "CANCELLED", "4": "1 COMPLETED, 1 FAILED"}
    }
