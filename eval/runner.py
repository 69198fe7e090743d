"""The trial runner: shows trials to an arm, shard by shard, and writes what it answered."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import JsonValue

from eval.engines.base import Engine
from eval.parts import Part
from eval.work import Work, list_work
from store import shards
from store.console import Progress
from store.evaluation import EvalConfig
from store.locks import held
from store.manifests import Answering
from store.stages import Stage, begun, read_origin
from store.trial_facts import trial_facts
from store.trials import Report
from task.errors import InputError
from task.replies import ParsedReport, parse_report
from task.trials import ShownTrial


def evaluate(
    engine: Engine, config: EvalConfig, overwrite: bool = False, part: Part | None = None, quiet: bool = False
) -> list[Path]:
    """Make the trial files of an evaluation, or a part of their shards; returns their folders.

    Killed and called again, it goes on after the last complete shard; shards depend only on their own trials. A part
    leaves the merging to `merge`, since it does not know when the other parts are done.

    Raises:
        InputError: Another process does the same part, or, where one of the two is no part, anything of the evaluation.
    """
    works, before = list_work(config), 0
    mine: list[list[int]] = []
    for work in works:
        mine.append([n for n in range(work.shards) if part is None or part.has(before + n)])
        before += work.shards
    total = sum(work.rows(numbers) for work, numbers in zip(works, mine, strict=True))
    with held(Path(config.output), part.name if part else None), Progress(total, "trial", quiet) as progress:
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
    works = list_work(config)
    with held(Path(config.output)):
        for work in works:
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
    wanted, trials = work.measurement, [trial for _, trial in rows]
    decided = engine.decide(wanted.arm, _decision_trials(work, trials)) if work.columns.decides else None
    if wanted.measure == "decisions":
        return work.columns.table(rows, decided)
    asked = dict(enumerate(trials))
    if decided is not None:
        asked = {
            row: replace(trial, framing=replace(trial.framing, chose=letter))
            for row, (trial, letter) in enumerate(zip(trials, decided.letters, strict=True))
            if letter is not None
        }
    opening: NDArray[np.float64] | None = None
    free: list[Report | None] | None = None
    if wanted.constrained:
        opening = np.zeros(len(rows))
        if asked:
            opening[[*asked]] = engine.opening(wanted.arm, [*asked.values()])
    reports = _reports(engine, wanted.arm, asked, wanted.constrained)
    if wanted.constrained:
        sample = {row: trial for row, trial in asked.items() if trial.index < wanted.free_samples}
        sampled = _reports(engine, wanted.arm, sample, constrained=False)
        free = [sampled.get(row) for row in range(len(rows))]
    found = [reports.get(row, NO_CHOICE) for row in range(len(rows))]
    return work.columns.table(rows, decided, found, opening, free)


NO_CHOICE: Report = None, ParsedReport(None, "no_choice")
"""Of a report that follows the arm's own choice where it made none."""


def _decision_trials(work: Work, trials: Sequence[ShownTrial]) -> Sequence[ShownTrial]:
    """The trials as decisions: reports follow the question that every arm decides by."""
    if work.measurement.measure == "decisions":
        return trials
    return [replace(trial, framing=work.config.decision(trial.context)) for trial in trials]


def _reports(engine: Engine, arm: str, asked: Mapping[int, ShownTrial], constrained: bool) -> dict[int, Report]:
    """The replies to some trials, and what is read of them, by row."""
    if not asked:
        return {}
    replies = engine.report(arm, [*asked.values()], constrained)
    return {
        row: (reply, parse_report(reply, trial.context.attribute_names))
        for (row, trial), reply in zip(asked.items(), replies, strict=True)
    }
