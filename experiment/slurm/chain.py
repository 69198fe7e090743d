"""The stages of a run as a chain of SLURM jobs: who waits for whom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from experiment.plan import PlannedStage, Run
from experiment.slurm.site import JobKind, Site
from store.state import stage_state
from task.errors import InputError


@dataclass(frozen=True)
class Job:
    """A job of the chain.

    Attributes:
        name: Unique in the run: that of its last stage, and what it does for it where several jobs share the stage.
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
        if stage.kind == "sft":
            job = _training(stage, launch, redo, {*jobs})
            if job.after or not _left_out(run, [by_name[name] for name in job.stages], redo):
                jobs[job.name] = job
    evaluation = by_name["evaluate"]
    after = tuple(name for arm in evaluation.config["arms"] if (name := f"{arm}.sft") in jobs)
    measured = not after and _left_out(run, [evaluation], redo)
    if not measured:
        jobs |= {job.name: job for job in _evaluation(site.evaluate.parts, after, begin="evaluate" in redo)}
    if not measured or "analyse" in redo or not _finished(run, by_name["analyse"]):
        waits = () if measured else ("evaluate.merge",)
        jobs["analyse"] = Job("analyse", "analyse", ("analyse", "track"), after=waits)
    return list(jobs.values())


def _training(stage: PlannedStage, launch: Path, redo: Sequence[str], queued: set[str]) -> Job:
    stages = (f"{stage.name.removesuffix('.sft')}.examples", stage.name)
    options: tuple[str, ...] = ("--slurm", "--accelerate", str(launch))
    if again := [name for name in stages if name in redo]:
        options += ("--overwrite", *again)
    start = f"{Path(stage.config.get('adapter', '')).name}.sft"
    return Job(stage.name, "train", stages, options, (start,) if start in queued else ())


def _evaluation(parts: int, after: tuple[str, ...], begin: bool) -> list[Job]:
    """The array and the job that joins its parts; files to be replaced are emptied by one job before all parts."""
    share = Job("evaluate", "evaluate", ("evaluate",), ("--part", "slurm"), after, parts)
    merge = Job("evaluate.merge", "analyse", ("evaluate",), ("--merge",), ("evaluate",))
    if not begin:
        return [share, merge]
    first = Job("evaluate.begin", "analyse", ("evaluate",), ("--begin",), after)
    return [first, replace(share, after=("evaluate.begin",)), merge]


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
