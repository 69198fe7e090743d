"""Where a run stands, stage by stage: what its folder says, and what SLURM says of its jobs where there is SLURM."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from scripts.launch_slurm import submitted
from scripts.plan import PlannedStage, Run
from scripts.slurm_queue import job_states
from scripts.standing import standing
from task.errors import InputError

WIDTH = 160
"""Columns that the table may take."""


def show_status(run: Run, stages: list[PlannedStage], console: Console) -> None:
    """Print a line a stage: where it stands, and the jobs that were last submitted for it with their states."""
    jobs = submitted(run)
    states, silence = dict[str, str](), ""
    if jobs:
        try:
            states = job_states(job["id"] for job in jobs.values())
        except InputError as error:
            silence = f"job states are not known: {error}"
    console.print(f"[bold]{run.folder}", soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("stage", "stands", *(("job", "slurm") if jobs else ())):
        table.add_column(column, no_wrap=True)
    for stage in stages:
        mine = {name: job["id"] for name, job in jobs.items() if stage.name in job["stages"]}
        rows = [(f"{id_} {_task(name)}".strip(), states.get(id_, "no longer known")) for name, id_ in mine.items()]
        found = standing(run, stage)
        running = any(state.startswith("RUNNING") or " RUNNING" in state for _, state in rows)
        stands = str(found).replace("interrupted", "under way", 1) if running else str(found)
        columns = ("\n".join(column) for column in zip(*rows, strict=True)) if rows else ("", "")
        table.add_row(stage.name, stands, *(columns if jobs else ()))
    console.print(table, width=WIDTH, crop=False)  # in a file or a narrow terminal, too, a stage is a line
    if silence:
        console.print(silence, soft_wrap=True)


def _task(job: str) -> str:
    """What a job does for its stage, where several share it: `evaluate.merge` merges."""
    return "" if job.endswith(".sft") else job.partition(".")[2]
