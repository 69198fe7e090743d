"""The trial runner: shows trials to an arm, shard by shard, and writes what it answered."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import MutableSequence, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import JsonValue

from eval.engines.base import Engine
from eval.parts import Part
from eval.work import Work, list_work
from store import shards
from store.console import Progress
from store.evaluation import EvalConfig
from store.manifests import Answering
from store.stages import Stage, begun, read_origin
from store.trials import Report, trial_facts
from task.errors import InputError
from task.replies import ParsedReport, parse_report
from task.trials import ShownTrial


def evaluate(
    engine: Engine, config: EvalConfig, overwrite: bool = False, part: Part | None = None, quiet: bool = False
) -> list[Path]:
    """Make the trial files of an evaluation, or a part of their shards; returns their folders.

    Killed and called again, it goes on after the last complete shard; shards depend only on their own trials. A part
    leaves the merging to `merge`, since it does not know when the other parts are done.
    """
    works, before = list_work(config), 0
    mine: list[list[int]] = []
    for work in works:
        mine.append([n for n in range(work.shards) if part is None or part.has(before + n)])
        before += work.shards
    total = sum(work.rows(numbers) for work, numbers in zip(works, mine, strict=True))
    with Progress(total, "trial", quiet) as progress:
        for work, numbers in zip(works, mine, strict=True):
            progress.now(f"{work.measurement.arm} {work.folder.name}")
            stage = open_stage(work, engine, overwrite)
            for number in numbers:
                if stage.finished or work.has(number):
                    progress.found(work.rows([number]))
                    continue
                write_shard(engine, work, number)
                progress.advance(work.rows([number]))
            if part is None:
                finish(work, stage)
    return [work.folder for work in works]


def open_stage(work: Work, engine: Engine, overwrite: bool) -> Stage:
    """Open a trial folder; parts that open it in the same moment and meet it half made look again."""
    inputs: dict[str, JsonValue] = {**work.inputs(), **engine.identity(work.measurement.arm)}
    for wait in (0.1, 0.3, 1.0):
        known = begun(work.folder)
        try:
            return Stage(work.folder, inputs, overwrite)
        except (InputError, FileNotFoundError):
            if known:  # it had been begun before, so what is wrong with it does not go away
                raise
            time.sleep(wait)
    return Stage(work.folder, inputs, overwrite)


def write_shard(engine: Engine, work: Work, number: int) -> None:
    """Have an engine answer the trials of a shard, and write it."""
    started = time.perf_counter()
    table = answer(engine, work, work.trials(*work.span(number)))
    spent = {"seconds": round(time.perf_counter() - started, 3), **engine.take_token_counts()}
    shards.write_shard(work.folder, number, table, spent)


def merge(config: EvalConfig) -> None:
    """Join the shards that all parts have written into trial files.

    What the answers depend on is taken from what the parts noted when they began, so that the join needs neither the
    model nor a GPU; all else must be as the configuration says.
    """
    for work in list_work(config):
        if begun(work.folder) is None:
            raise InputError(f"{work.folder}: not begun; run the parts of the evaluation first")
        finish(work, Stage(work.folder, {**read_origin(work.folder).depends_on, **work.inputs()}))


def finish(work: Work, stage: Stage) -> None:
    """Join the shards of a trial file, if none is missing, and close its folder; remove shards that a kill left."""
    if not stage.finished:
        if missing := [number for number in range(work.shards) if not work.has(number)]:
            raise InputError(
                f"{work.folder}: {len(missing)} of {work.shards} shards are missing (the first is {missing[0]}); "
                "run the parts that did not end again, then join"
            )
        spent = shards.merge_shards(work.folder, work.shards, work.columns)
        stage.finish(trial_facts(work.folder, work.columns, _answering(spent, work.total)))
    shards.remove_shards(work.folder)


def _answering(spent: Counter[str], trials: int) -> Answering:
    seconds = max(spent["seconds"], 1e-3)
    speed = {"seconds": round(seconds, 3), "trials_per_second": round(trials / seconds, 2)}
    if spent["prompt"]:
        speed |= {f"{name}_tokens": int(spent[name]) for name in ("prompt", "computed", "reply")}
        speed["share_from_cache"] = round(1 - spent["computed"] / spent["prompt"], 4)
        speed["tokens_per_second"] = round((spent["computed"] + spent["reply"]) / seconds, 1)
    return Answering.model_validate(speed)


def answer(engine: Engine, work: Work, rows: Sequence[tuple[str, ShownTrial]]) -> pa.Table:
    """Have an engine answer some rows, and lay the answers out as columns of a trial file.

    Reports that follow the arm's own choice are asked for once it has decided on the same trials, in the same order,
    and only where it has.
    """
    arm, trials, decided = work.measurement.arm, [trial for _, trial in rows], None
    if work.columns.decides:
        # The question that every arm decides by, or the one of a variant of the decisions.
        asked = trials
        if work.measurement.measure == "reports":
            asked = [replace(trial, framing=work.config.decision(trial.context)) for trial in trials]
        decided = engine.decide(arm, asked)
    if work.measurement.measure == "decisions":
        return work.columns.table(rows, decided)
    asked_for = list(range(len(trials)))
    if decided is not None:
        letters = decided.letters
        trials = [
            replace(trial, framing=replace(trial.framing, chose=letter))
            for trial, letter in zip(trials, letters, strict=True)
        ]
        asked_for = [row for row in asked_for if letters[row] is not None]
    asked = [trials[row] for row in asked_for]
    reports: list[Report] = [NO_CHOICE] * len(trials)
    if not work.measurement.constrained:
        _fill(reports, asked_for, _reports(engine, arm, asked, False))
        return work.columns.table(rows, decided, reports)
    opening = np.zeros(len(trials))
    opening[asked_for] = engine.opening(arm, asked)
    _fill(reports, asked_for, _reports(engine, arm, asked, True))
    sampled = [row for row in asked_for if trials[row].index < work.measurement.free_samples]
    free: list[Report | None] = [None] * len(trials)
    _fill(free, sampled, _reports(engine, arm, [trials[row] for row in sampled], False))
    return work.columns.table(rows, decided, reports, opening, free)


NO_CHOICE: Report = None, ParsedReport(None, "no_choice")
"""Of a report that follows the arm's own choice where it made none."""


def _reports(engine: Engine, arm: str, trials: Sequence[ShownTrial], constrained: bool) -> list[Report]:
    if not trials:
        return []
    replies = engine.report(arm, trials, constrained)
    return [(r, parse_report(r, t.context.attribute_names)) for r, t in zip(replies, trials, strict=True)]


def _fill(reports: MutableSequence[Any], rows: Sequence[int], found: Sequence[Report]) -> None:
    for row, report in zip(rows, found, strict=True):
        reports[row] = report
