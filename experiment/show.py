"""What the launcher shows: the plan of a run, where it stands, the files worth opening."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiment.capacity import memory_lines, serving_lines
from experiment.plan import Run
from experiment.planned import PlannedStage
from experiment.slurm.chain import Job
from experiment.slurm.queue import job_states
from experiment.slurm.site import Site
from experiment.slurm.submit import sbatch_command
from experiment.templates import chat_template_line
from store.evaluation import EngineSettings
from store.run import read_jobs
from store.state import stage_state
from task.errors import InputError


def show_plan(run: Run, console: Console) -> None:
    """Print the stages of a run with their sizes."""
    console.print(f"{run.folder.path}", style="bold", markup=False, soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("stage")
    table.add_column("size")
    table.add_column("tokens", justify="right")
    table.add_column("unique", justify="right")
    for stage in run.stages:
        table.add_row(
            escape(stage.name), escape(stage.size), *(f"{n:,}" if n else "" for n in (stage.tokens, stage.unique))
        )
    table.add_row("together", "", f"{sum(stage.tokens for stage in run.stages):,}")
    console.print(table)
    for line in _notes(run, run.stages):
        console.print(line, markup=False, soft_wrap=True)


def _notes(run: Run, stages: Sequence[PlannedStage]) -> list[str]:
    """What else is worth knowing before a run starts: words, lengths, memory of the training, what vLLM is given."""
    lines = [f"wording: {run.record.wording}", *(f"warning: {line}" for line in run.warnings)]
    lines += [f"{stage.name}: {stage.notes}" for stage in stages if stage.notes]
    if run.model and run.experiment.model:
        name = Path(run.experiment.model).stem
        lines.append(f"  {chat_template_line(run)}")
        lines += [f"  training {line}" for line in memory_lines(name, run.model)]
        [engine] = [EngineSettings.model_validate(s.config["engine"]) for s in stages if s.name == "evaluate"]
        lines += [f"  {line}" for line in serving_lines(name, run.model, engine)]
    return lines


def show_chain(run: Run, jobs: Sequence[Job], site: Site, console: Console) -> None:
    """Print the commands that would submit what a run still needs; jobs have names for ids."""
    for job in jobs:
        command = sbatch_command(run.folder, job, site, {name: f"JOB({name})" for name in job.after})
        console.print(shlex.join(command), markup=False, soft_wrap=True)


def show_status(run: Run, console: Console) -> None:
    """Print a line a stage: where it stands, and the jobs that were last submitted for it with their states."""
    jobs = read_jobs(run.folder)
    states, silence = dict[str, str](), ""
    try:
        if ids := [job.id for job in jobs.values()]:
            states = dict.fromkeys(ids, "no longer known") | job_states(ids)
    except InputError as error:
        silence = f"what became of the jobs is not known: {error}"
    rows = [("stage", "stands", "jobs" if jobs else "")]
    for stage in run.stages:
        mine = {job.id: name for name, job in jobs.items() if stage.name in job.stages}
        found = str(stage_state(run.folder, run.record, stage))
        if any("RUNNING" in states.get(id_, "") for id_ in mine):
            found = found.replace("interrupted", "under way", 1)
        said = (f"{_task(name, id_)} {states.get(id_, '')}".strip() for id_, name in mine.items())
        rows.append((stage.name, found, "; ".join(said)))
    console.print(f"{run.folder.path}", style="bold", markup=False, soft_wrap=True)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        console.print(line.rstrip(), soft_wrap=True, markup=False)
    if silence:
        console.print(silence, markup=False, soft_wrap=True)


def _task(name: str, id_: str) -> str:
    """A job's id, with what it does for its stage where several share it: `evaluate.merge` merges."""
    stage, _, task = name.partition(".")
    return f"{id_} {task}" if stage == "evaluate" and task in ("begin", "merge") else id_


def show_results(runs: Sequence[Run], console: Console) -> None:
    """Name the files worth opening."""
    console.print("[bold]done")
    for run in runs:
        for path, gloss in (
            (run.folder.analysis / "report.html", "everything on one page: open this"),
            (run.folder.analysis / "summary.json", "the figures, for machines"),
            (run.folder.analysis / "figures", "the pictures"),
            (run.folder.trials, "every trial, with the raw replies"),
        ):
            console.print(f"  {path}  ({gloss})", markup=False, soft_wrap=True)
