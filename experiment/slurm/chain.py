"""The stages of a run as a chain of SLURM jobs: who waits for whom, and their submission."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiment.plan import PlannedStage, Run
from experiment.slurm.queue import cancel, queued_jobs
from experiment.slurm.site import JobKind, Site
from experiment.standing import Standing, standing
from store.files import read_json, write_json, write_text
from task.errors import InputError

SCRIPTS = Path("scripts/slurm")
RECORD = "jobs.json"
"""File of a run with the jobs that were submitted for it, by name: id, stages, and the command."""


@dataclass(frozen=True)
class Job:
    """A job of the chain.

    Attributes:
        name: Unique in the run: that of its last stage, and what it does for it where several jobs share the stage.
        kind: What it asks of the cluster.
        stages: Names of the stages that it carries out.
        script: A file of scripts/slurm and its arguments.
        after: Names of the jobs that must have succeeded before it starts.
        parts: Tasks of an array job; None for a single job.
    """

    name: str
    kind: JobKind
    stages: tuple[str, ...]
    script: tuple[str, ...]
    after: tuple[str, ...] = ()
    parts: int | None = None


def chain(run: Run, stages: list[PlannedStage], site: Site, launch: Path, overwrite: list[str]) -> list[Job]:
    """The jobs that a run still needs, each after those that it waits for.

    A training waits for the one that it goes on from, so arms that start from the same one run side by side. A stage is
    left out if it has finished and nothing that it depends on is done again.

    Raises:
        InputError: A finished stage was made from other inputs, and is not named in `overwrite`.
    """
    redo = {stage.name for stage in stages} if "all" in overwrite else {*overwrite}
    by_name = {stage.name: stage for stage in stages}
    evaluation, analysis = by_name["evaluate"], by_name["analyse"]
    jobs: dict[str, Job] = {}
    for stage in stages:
        if stage.kind != "sft":
            continue
        job = _training(run, stage, by_name, launch, redo, {*jobs})
        if job.after or not _left_out(run, [by_name[name] for name in job.stages], redo):
            jobs[job.name] = job
    after = tuple(name for arm in evaluation.config["arms"] if (name := f"{arm}.sft") in jobs)
    measured = not after and _left_out(run, [evaluation], redo)
    if not measured:
        jobs |= _evaluation(run, site.evaluate.parts, after, begin="evaluate" in redo)
    if not measured or "analyse" in redo or standing(run, analysis).state != "finished":
        script = (str(SCRIPTS / "analyse.sbatch"), str(run.folder))
        jobs["analyse"] = Job(
            "analyse", "analyse", ("analyse", "track"), script, () if measured else ("evaluate.merge",)
        )
    return list(jobs.values())


def _training(
    run: Run, stage: PlannedStage, by_name: Mapping[str, PlannedStage], launch: Path, redo: set[str], queued: set[str]
) -> Job:
    arm = stage.name.removesuffix(".sft")
    names = (f"{arm}.examples", stage.name)
    start = f"{Path(stage.config.get('adapter', '')).name}.sft"
    flags = [f"--overwrite-{by_name[name].kind}" for name in names if name in redo]
    script = (str(SCRIPTS / "train.sbatch"), str(run.folder), arm, str(launch), *flags)
    return Job(stage.name, "train", names, script, after=(start,) if start in queued else ())


def _evaluation(run: Run, parts: int, after: tuple[str, ...], begin: bool) -> dict[str, Job]:
    """The array and the job that joins its parts; files to be replaced are emptied by one job before all parts."""
    trials = (str(SCRIPTS / "trials.sbatch"), str(run.folder))
    jobs = [Job("evaluate.begin", "analyse", ("evaluate",), (*trials, "--begin"), after)] if begin else []
    script = (str(SCRIPTS / "evaluate.sbatch"), str(run.folder))
    jobs += [
        Job("evaluate", "evaluate", ("evaluate",), script, ("evaluate.begin",) if begin else after, parts),
        Job("evaluate.merge", "analyse", ("evaluate",), (*trials, "--merge"), ("evaluate",)),
    ]
    return {job.name: job for job in jobs}


def _left_out(run: Run, stages: list[PlannedStage], redo: set[str]) -> bool:
    """Whether stages have all finished and none is to be done again."""
    if any(stage.name in redo for stage in stages):
        return False
    found = {stage.name: standing(run, stage) for stage in stages}
    for name, stands in found.items():
        if stands.state == "stale":
            raise InputError(f"stage {name} of {run.folder}: {stands.detail}; redo it with --overwrite {name}")
    return all(stands == Standing("finished") for stands in found.values())


def sbatch_command(run: Run, job: Job, site: Site, ids: Mapping[str, str]) -> list[str]:
    """The command that submits a job; `ids` are those of the jobs that it waits for."""
    command = ["sbatch", "--parsable", f"--job-name={run.name}.{job.name}", f"--comment={_mark(run)}"]
    command += site.sbatch_options(job.kind)
    if job.parts:
        command.append(f"--array=1-{job.parts}")
    if job.after:
        # One that waits for what has failed would wait for ever.
        command += ["--dependency=afterok:" + ":".join(ids[name] for name in job.after), "--kill-on-invalid-dep=yes"]
    return [*command, *job.script]


def submit(run: Run, jobs: list[Job], site: Site) -> dict[str, str]:
    """Submit a chain; returns the ids by name. They are noted in the run's folder one by one, as they are submitted.

    Raises:
        InputError: SLURM refuses a job; those that it had taken are cancelled.
    """
    Path("logs").mkdir(exist_ok=True)  # a job whose log has no folder fails without a word
    write_text(run.folder / "stages" / "environment.sh", site.environment())
    record, ids = submitted(run), dict[str, str]()
    for job in jobs:
        command = sbatch_command(run, job, site, ids)
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode:
            cancel(ids.values())
            taken = f"; the {len(ids)} jobs before it were cancelled" if ids else ""
            said = " ".join(answer.stderr.split())
            raise InputError(f"sbatch refused {job.name} ({said}); correct the site file{taken}")
        ids[job.name] = answer.stdout.strip().partition(";")[0]
        record[job.name] = {"id": ids[job.name], "stages": list(job.stages), "command": command}
        write_json(run.folder / RECORD, record)
    return ids


def submitted(run: Run) -> dict[str, Any]:
    """The jobs that were submitted for a run, the last of each name; empty when there were none."""
    path = run.folder / RECORD
    return dict(read_json(path)) if path.is_file() else {}


def still_queued(run: Run, must_know: bool) -> str | None:
    """Why a run must not be started now: jobs of it wait or run, and two processes would do the same work twice.

    Where no job was ever submitted for the run and it is not to be submitted now, SLURM is not asked.

    Args:
        run: The run.
        must_know: Whether it is an error if SLURM does not say.

    Returns:
        One line with the jobs and the remedy; None if there are none.
    """
    ids = {job["id"] for job in submitted(run).values()}
    if not (ids or must_know):
        return None
    try:
        queued = queued_jobs()
    except InputError:
        if must_know:
            raise
        return None
    # By what was noted with the jobs, too: a submission may have been killed before it wrote down an id.
    found = [job for job in queued if job.live and (job.comment == _mark(run) or job.id in ids)]
    if not found:
        return None
    first, numbers = found[0], sorted({job.id for job in found}, key=int)
    return (
        f"{run.folder}: {len(numbers)} jobs of this run wait or run (first {first.id}, {first.name}, "
        f"{first.state}); see where it stands with --status, or end them with: scancel {' '.join(numbers)}"
    )


def _mark(run: Run) -> str:
    return f"run {run.folder.resolve()}"
