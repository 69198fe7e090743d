"""Submit a chain of jobs, and see whether one is under way."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiment.plan import Run
from experiment.slurm.chain import Job
from experiment.slurm.queue import cancel, queued_jobs
from experiment.slurm.site import Site
from store.files import write_text
from store.paths import project_file
from store.run import JobRecord, RunFolder, read_jobs, write_jobs
from task.errors import InputError

SCRIPT = "scripts/slurm/stage.sbatch"


def sbatch_command(run: RunFolder, job: Job, site: Site, ids: Mapping[str, str]) -> list[str]:
    """The command that submits a job; `ids` are those of the jobs that it waits for."""
    command = ["sbatch", "--parsable", f"--job-name={run.name}.{job.name}", f"--comment={_mark(run)}"]
    command += site.sbatch_options(job.kind)
    if job.parts:
        command.append(f"--array=1-{job.parts}")
    if job.after:
        # One that waits for what has failed would wait for ever.
        command += ["--dependency=afterok:" + ":".join(ids[name] for name in job.after), "--kill-on-invalid-dep=yes"]
    return [*command, str(project_file(SCRIPT)), str(run.path), *job.stages, *job.options]


def submit(run: RunFolder, jobs: list[Job], site: Site) -> dict[str, str]:
    """Submit a chain; returns the ids by name. They are noted in the run's folder one by one, as they are submitted.

    Raises:
        InputError: SLURM refuses a job; those that it had taken are cancelled.
    """
    Path("logs").mkdir(exist_ok=True)  # a job whose log has no folder fails without a word
    write_text(run.environment, site.environment())
    record, ids = read_jobs(run), dict[str, str]()
    for job in jobs:
        command = sbatch_command(run, job, site, ids)
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode:
            cancel(ids.values())
            taken = f"; the {len(ids)} jobs before it were cancelled" if ids else ""
            said = " ".join(answer.stderr.split())
            raise InputError(f"sbatch refused {job.name} ({said}); correct the site file{taken}")
        ids[job.name] = answer.stdout.strip().partition(";")[0]
        record[job.name] = JobRecord(id=ids[job.name], stages=list(job.stages), command=command)
        write_jobs(run, record)
    return ids


def submit_and_show(run: Run, jobs: list[Job], site: Site, console: Console) -> None:
    """Submit what a run still needs, and print the ids."""
    console.print(f"{run.folder.path}", style="bold", markup=False, soft_wrap=True)
    if not jobs:
        console.print("every stage has finished, nothing to submit")
        return
    ids = submit(run.folder, jobs, site)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("job", "does", "starts after"):
        table.add_column(column, overflow="fold")
    for job in jobs:
        name = f"{job.name} ({job.parts} parts)" if job.parts else job.name
        table.add_row(ids[job.name], name, " ".join(ids[other] for other in job.after))
    console.print(table)
    console.print("the same command with --status says where it stands; logs are in logs/", soft_wrap=True)


def still_queued(run: RunFolder, must_know: bool) -> str | None:
    """Why a run must not be started now: jobs of it wait or run, and two processes would do the same work twice.

    Where no job was ever submitted for the run and it is not to be submitted now, SLURM is not asked.

    Args:
        run: The run.
        must_know: Whether it is an error if SLURM does not say.

    Returns:
        One line with the jobs and the remedy; None if there are none.
    """
    ids = {job.id for job in read_jobs(run).values()}
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
        f"{run.path}: {len(numbers)} jobs of this run wait or run (first {first.id}, {first.name}, "
        f"{first.state}); see where it stands with --status, or end them with: scancel {' '.join(numbers)}"
    )


def _mark(run: RunFolder) -> str:
    return f"run {run.path.resolve()}"
