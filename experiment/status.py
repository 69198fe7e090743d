"""Where a run stands, stage by stage: what its folder says, and what SLURM says of its jobs where there is SLURM."""

from __future__ import annotations

from rich.console import Console

from experiment.plan import PlannedStage, Run
from experiment.slurm.chain import submitted
from experiment.slurm.queue import job_states
from experiment.standing import standing
from task.errors import InputError


def show_status(run: Run, stages: list[PlannedStage], console: Console) -> None:
    """Print a line a stage: where it stands, and the jobs that were last submitted for it with their states."""
    jobs = submitted(run)
    states, silence = dict[str, str](), ""
    try:
        if ids := [job["id"] for job in jobs.values()]:
            states = dict.fromkeys(ids, "no longer known") | job_states(ids)
    except InputError as error:
        silence = f"what became of the jobs is not known: {error}"
    console.print(f"[bold]{run.folder}", soft_wrap=True)
    rows = [("stage", "stands", "jobs" if jobs else "")]
    for stage in stages:
        mine = {job["id"]: name for name, job in jobs.items() if stage.name in job["stages"]}
        found = str(standing(run, stage))
        if any("RUNNING" in states.get(id_, "") for id_ in mine):
            found = found.replace("interrupted", "under way", 1)
        said = (f"{_task(name, id_)} {states.get(id_, '')}".strip() for id_, name in mine.items())
        rows.append((stage.name, found, "; ".join(said)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.print(line.rstrip(), soft_wrap=True, markup=False)
    if silence:
        console.print(silence, soft_wrap=True)


def _task(name: str, id_: str) -> str:
    """A job's id, with what it does for its stage where several share it: `evaluate.merge` merges."""
    stage, _, task = name.partition(".")
    return f"{id_} {task}" if stage == "evaluate" and task in ("begin", "merge") else id_
