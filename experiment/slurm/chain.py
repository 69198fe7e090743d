"""The stages of a run as a chain of SLURM jobs: who waits for whom."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiment.plan import Run
from experiment.planned import PlannedStage
from experiment.slurm.site import JobKind, Site
from store.state import stage_state
from task.errors import InputError

LOOKING = ("attribute", "patch")
"""Stages that look inside arms, each a job of its own."""


@dataclass(frozen=True)
class Job:
    """A job of the chain.

    Attributes:
        name: Unique in the run: that of its last stage, and what it does for it where several jobs share the stage;
            `derive` and a number for sums of adapters that wait for the same jobs.
        kind: What it asks of the cluster.
        stages: Names of the stages that it carries out.
        options: Arguments of `experiment.stage` after the stages.
        after: Names of the jobs that must have succeeded before it starts.
        parts: Tasks of an array job; None for a single job.
    """

    name: str
    kind: JobKind
    stages: tuple[str, ...]
    options: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    parts: int | None = None


def chain(run: Run, site: Site, launch: Path, redo: Sequence[str]) -> list[Job]:
    """The jobs that a run still needs, each after those that it waits for.

    A training waits for the one that it goes on from, so arms that start from the same one run side by side. A stage is
    left out if it has finished and nothing that it depends on is done again.

    Args:
        run: The run.
        site: The cluster.
        launch: Launch configuration of trainings.
        redo: Names of the stages to do again.

    Raises:
        InputError: A finished stage was made from other inputs, and is not to be done again.
    """
    by_name = {stage.name: stage for stage in run.stages}
    jobs: dict[str, Job] = {}
    for stage in run.stages:
        job = _job_of_arm(stage, by_name, launch, redo, jobs)
        if job and (job.after or not _left_out(run, [by_name[name] for name in job.stages], redo)):
            jobs[job.name] = job
    jobs = _sums_together(jobs, by_name)
    evaluation = by_name["evaluate"]
    after = _jobs_of(evaluation.needs, jobs)
    measured = not after and _left_out(run, [evaluation], redo)
    if not measured:
        jobs |= {job.name: job for job in _evaluation(site.evaluate.parts, after, begin="evaluate" in redo)}
    for name in LOOKING:
        if name in by_name and (job := _looking(run, by_name[name], redo, jobs)):
            jobs[name] = job
    waits = tuple(name for name in ("evaluate.merge", *LOOKING) if name in jobs)
    if waits or "analyse" in redo or not _finished(run, by_name["analyse"]):
        jobs["analyse"] = Job("analyse", "analyse", ("analyse", "track"), after=waits)
    return list(jobs.values())


def _job_of_arm(
    stage: PlannedStage, by_name: Mapping[str, PlannedStage], launch: Path, redo: Sequence[str], jobs: Mapping[str, Job]
) -> Job | None:
    """The job that ends with a stage of an arm; None for stages that others end, or that belong to no arm."""
    arm = stage.name.rpartition(".")[0]
    stages: tuple[str, ...] = (stage.name,)
    options: tuple[str, ...] = ()
    kind: JobKind = "analyse"
    if stage.kind == "sft":
        stages, kind, options = (f"{arm}.examples", stage.name), "train", ("--slurm", "--accelerate", str(launch))
    elif stage.kind == "learn":
        stages, kind = (f"{arm}.decisions", stage.name), "evaluate"
    elif stage.kind != "derive":
        return None
    if again := [name for name in stages if name in redo]:
        options += ("--overwrite", *again)
    needs = [need for name in stages for need in by_name[name].needs if need not in stages]
    return Job(stage.name, kind, stages, options, _jobs_of(needs, jobs))


def _jobs_of(stages: Iterable[str], jobs: Mapping[str, Job]) -> tuple[str, ...]:
    """The jobs of the chain that do some stages again, each once; the other stages have finished."""
    doing = {stage: job.name for job in jobs.values() for stage in job.stages}
    return tuple(dict.fromkeys(doing[stage] for stage in stages if stage in doing))


def _sums_together(jobs: Mapping[str, Job], by_name: Mapping[str, PlannedStage]) -> dict[str, Job]:
    """The jobs with those sums of adapters as one that wait for the same: each takes a moment."""
    found = {name: job for name, job in jobs.items() if by_name[name].kind != "derive"}
    sums = [job for name, job in jobs.items() if name not in found]
    for number, after in enumerate(dict.fromkeys(job.after for job in sums), start=1):
        same = [job for job in sums if job.after == after]
        if len(same) == 1:
            found[same[0].name] = same[0]
            continue
        again = [name for job in same for name in job.options if name in by_name]
        stages = tuple(name for job in same for name in job.stages)
        options = ("--overwrite", *again) if again else ()
        found[f"derive.{number}"] = Job(f"derive.{number}", "analyse", stages, options, after)
    return found


def _evaluation(parts: int, after: tuple[str, ...], begin: bool) -> list[Job]:
    """The array and the job that joins its parts; files to be replaced are emptied by one job before all parts."""
    share = Job("evaluate", "evaluate", ("evaluate",), ("--part", "slurm"), after, parts)
    merge = Job("evaluate.merge", "analyse", ("evaluate",), ("--merge",), ("evaluate",))
    if not begin:
        return [share, merge]
    first = Job("evaluate.begin", "analyse", ("evaluate",), ("--begin",), after)
    return [first, replace(share, after=("evaluate.begin",)), merge]


def _looking(run: Run, stage: PlannedStage, redo: Sequence[str], jobs: Mapping[str, Job]) -> Job | None:
    """The job that looks inside arms, on a GPU like an evaluation; None if there is nothing to do."""
    after = _jobs_of(stage.needs, jobs)
    if not after and _left_out(run, [stage], redo):
        return None
    options = ("--overwrite", stage.name) if stage.name in redo else ()
    return Job(stage.name, "evaluate", (stage.name,), options, after)


def _left_out(run: Run, stages: list[PlannedStage], redo: Sequence[str]) -> bool:
    """Whether stages have all finished and none is to be done again."""
    if any(stage.name in redo for stage in stages):
        return False
    states = {stage.name: stage_state(run.folder, run.record, stage) for stage in stages}
    for name, state in states.items():
        if state.name == "stale":
            raise InputError(f"stage {name} of {run.folder.path}: {state.detail}; redo it with --overwrite {name}")
    return all(state.name == "finished" for state in states.values())


def _finished(run: Run, stage: PlannedStage) -> bool:
    return stage_state(run.folder, run.record, stage).name == "finished"
