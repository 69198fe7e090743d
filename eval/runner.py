"""The trial runner: shows trials to an arm, shard by shard, and writes what it answered."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from eval.engines.base import Engine, ShownTrial
from eval.parts import Part, Progress
from eval.variants import after_own_choice, frame_contexts
from store import shards as trial_files
from store.contexts import load_named_contexts
from store.evaluation import EvalConfig, Measurement
from store.files import hash_file, read_json
from store.stages import MANIFEST, STARTED, Stage
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import DEFAULT, PROMPTS, Measure, Message, measure_folder, messages
from task.replies import parse_report
from task.trials import sample_trials


@dataclass(frozen=True)
class TrialList:
    """All trials of a measurement, drawn when they are asked for, so that memory does not grow with their number.

    Decisions are shown in both orders (two rows a pair, next to each other), reports in one. Contexts are in the
    wording of the measurement's variant; the trials of all variants of a measure are the same.
    """

    measure: Measure
    seed: int
    contexts: Sequence[ChoiceContext]
    groups: Sequence[str]
    per_context: int

    @property
    def orders(self) -> int:
        """Rows of each pair."""
        return 2 if self.measure == "decisions" else 1

    def __len__(self) -> int:
        return len(self.contexts) * self.per_context * self.orders

    def rows(self, start: int, stop: int) -> list[tuple[str, ShownTrial]]:
        """Group and trial of rows `start` to `stop - 1`."""
        per_context = self.per_context * self.orders
        found: list[tuple[str, ShownTrial]] = []
        for number in range(start // per_context, math.ceil(stop / per_context)):
            offset = number * per_context
            wanted = range(max(start, offset) - offset, min(stop, offset + per_context) - offset)
            first_pair = wanted.start // self.orders
            pairs = math.ceil(wanted.stop / self.orders) - first_pair
            trials = sample_trials(self.seed, self.measure, self.contexts[number], pairs, start=first_pair)
            for row in wanted:
                pair, order = divmod(row - first_pair * self.orders, self.orders)
                shown = ShownTrial(
                    trials.context, int(trials.index[pair]), trials.first[pair], trials.second[pair], order == 0
                )
                found.append((self.groups[number], shown))
        return found


@dataclass(frozen=True)
class Work:
    """A measurement as shards of trials and the folder that they go to."""

    measurement: Measurement
    trials: TrialList
    folder: Path
    columns: pa.Schema
    shard_size: int
    told_weights: str | None

    @property
    def shards(self) -> int:
        """Number of shards."""
        return math.ceil(len(self.trials) / self.shard_size)

    def span(self, number: int) -> tuple[int, int]:
        """First row of a shard, and the first after it."""
        return number * self.shard_size, min(len(self.trials), (number + 1) * self.shard_size)

    def rows(self, numbers: Iterable[int]) -> int:
        """Rows of some shards together."""
        return sum(stop - start for start, stop in map(self.span, numbers))

    def has(self, number: int) -> bool:
        """Whether a shard has been written, and whole."""
        return trial_files.has_shard(self.folder, number, self.rows([number]))

    def written(self) -> list[int]:
        """Numbers of the shards that are there, whole or damaged."""
        return [n for n in range(self.shards) if trial_files.shard_path(self.folder, n).exists()]

    def inputs(self) -> dict[str, Any]:
        """All that the trial file depends on besides the engine, as JSON values."""
        wanted = self.measurement
        inputs = {
            "arm": wanted.arm,
            "measure": wanted.measure,
            "seed": self.trials.seed,
            "per_context": wanted.per_context,
            "contexts": [(g.name, hash_file(Path(g.file)), g.only) for g in wanted.contexts],
            "prompts": _prompt_hash(self),
            "shard_size": self.shard_size,
        }
        if wanted.variant != DEFAULT[wanted.measure]:
            inputs["variant"] = wanted.variant
        if wanted.tells_weights:
            inputs["told_weights"] = hash_file(Path(str(self.told_weights)))
        return inputs


def list_work(config: EvalConfig) -> list[Work]:
    """The work of an evaluation, a trial file an entry, in the order of its measurements."""
    return [_work(measurement, config) for measurement in config.measurements]


def _work(measurement: Measurement, config: EvalConfig) -> Work:
    trials = list_trials(measurement, config.seed, config.told_weights)
    folder = Path(config.output) / measurement.arm / measure_folder(measurement.measure, measurement.variant)
    columns = trial_files.schema(measurement.measure, measurement.variant, len(trials.contexts[0].attributes))
    return Work(measurement, trials, folder, columns, config.engine.shard_size, config.told_weights)


def list_trials(measurement: Measurement, seed: int, told_weights: str | None = None) -> TrialList:
    """The trials of a measurement; contexts named in `only` must be in their file."""
    contexts: list[ChoiceContext] = []
    groups: list[str] = []
    for group in measurement.contexts:
        chosen = load_named_contexts(group.file, group.only)
        contexts += chosen
        groups += [group.name] * len(chosen)
    sizes = {len(c.attributes) for c in contexts}
    if len(sizes) > 1:
        raise InputError(f"measurement of {measurement.arm}: contexts with {sorted(sizes)} attributes; measure apart")
    framed = frame_contexts(contexts, measurement, told_weights)
    return TrialList(measurement.measure, seed, framed, groups, measurement.per_context)


def evaluate(
    engine: Engine, config: EvalConfig, overwrite: bool = False, part: Part | None = None, quiet: bool = False
) -> list[Path]:
    """Make the trial files of an evaluation, or a part of their shards; returns their folders.

    Killed and called again, it goes on after the last complete shard; shards depend only on their own trials. A part
    leaves the merging to `merge`, since it does not know when the other parts are done.

    Raises:
        InputError: A trial file was made from other inputs and is not to be overwritten.
    """
    works, before = list_work(config), 0
    mine: list[list[int]] = []
    for work in works:
        mine.append([n for n in range(work.shards) if part is None or part.has(before + n)])
        before += work.shards
    total = sum(work.rows(numbers) for work, numbers in zip(works, mine, strict=True))
    with Progress(total, quiet) as progress:
        for work, numbers in zip(works, mine, strict=True):
            progress.now(f"{work.measurement.arm} {work.folder.name}")
            stage = open_stage(work, {**work.inputs(), **engine.identity(work.measurement.arm)}, overwrite)
            for number in numbers:
                if stage.finished or work.has(number):
                    progress.found(work.rows([number]))
                    continue
                write_shard(engine, work, number)
                progress.answered(work.rows([number]))
            if part is None:
                finish(work, stage)
    return [work.folder for work in works]


def open_stage(work: Work, inputs: dict[str, Any], overwrite: bool) -> Stage:
    """Open a trial folder; parts that open it in the same moment and meet it half made look again."""
    for wait in (0.1, 0.3, 1.0):
        known = any((work.folder / name).is_file() for name in (MANIFEST, STARTED))
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
    table = answer(engine, work.measurement, work.trials.rows(*work.span(number)), work.columns)
    spent = {"seconds": round(time.perf_counter() - started, 3), **engine.take_token_counts()}
    trial_files.write_shard(work.folder, number, table, spent)


def merge(config: EvalConfig) -> list[Path]:
    """Join the shards that all parts have written into trial files; returns their folders.

    What the answers depend on is taken from what the parts noted when they began, so that the join needs neither the
    model nor a GPU; all else must be as the configuration says.

    Raises:
        InputError: A trial file has not been begun, was begun with other settings, or a shard is missing.
    """
    works = list_work(config)
    for work in works:
        notes = [work.folder / name for name in (MANIFEST, STARTED) if (work.folder / name).is_file()]
        if not notes:
            raise InputError(f"{work.folder}: not begun; run the parts of the evaluation first")
        stage = Stage(work.folder, {**read_json(notes[0])["depends_on"], **work.inputs()})
        finish(work, stage)
    return [work.folder for work in works]


def finish(work: Work, stage: Stage) -> None:
    """Join the shards of a trial file and close its folder; a closed one is only cleared of shards that a kill left.

    Raises:
        InputError: A shard is missing; nothing is joined then.
    """
    if stage.finished:
        trial_files.remove_shards(work.folder)
        return
    if missing := [number for number in range(work.shards) if not work.has(number)]:
        raise InputError(
            f"{work.folder}: {len(missing)} of {work.shards} shards are missing (the first is {missing[0]}); "
            "run the parts that did not end again, then join"
        )
    spent = trial_files.merge_shards(work.folder, work.shards, work.columns)
    found = trial_files.counts(work.folder, work.measurement.measure)
    stage.finish({"counts": found, "answering": _speed(spent, len(work.trials))})
    trial_files.remove_shards(work.folder)


def _speed(spent: Mapping[str, float], trials: int) -> dict[str, Any]:
    """What a manifest says of the speed: seconds in the engine, summed over processes, and tokens where it has some."""
    seconds = max(spent["seconds"], 1e-3)
    speed = {"seconds": round(seconds, 3), "trials_per_second": round(trials / seconds, 2)}
    if "prompt" not in spent:
        return speed
    tokens = {f"{name}_tokens": int(spent[name]) for name in ("prompt", "computed", "reply")}
    shared = 1 - spent["computed"] / spent["prompt"]
    per_second = (spent["computed"] + spent["reply"]) / seconds
    return {**speed, **tokens, "share_from_cache": round(shared, 4), "tokens_per_second": round(per_second, 1)}


def answer(
    engine: Engine, measurement: Measurement, rows: Sequence[tuple[str, ShownTrial]], columns: pa.Schema
) -> pa.Table:
    """Have an engine answer some rows, and lay the answers out as columns of a trial file.

    Reports that follow the arm's own choice are asked for once it has decided on the same trials, in the same order.
    """
    trials = [trial for _, trial in rows]
    records = [_trial_columns(group, trial) for group, trial in rows]
    follows = PROMPTS[measurement.measure][measurement.variant].follow_up is not None
    if measurement.measure == "decisions" or follows:
        logps = engine.decide(measurement.arm, trials)
        chose_a = logps[:, 0] > logps[:, 1]
        for record, (logp_a, logp_b), a in zip(records, logps, chose_a, strict=True):
            record |= {"logp_a": logp_a, "logp_b": logp_b, "letter": "A" if a else "B"}
        if follows:
            trials = after_own_choice(trials, measurement.variant, chose_a)
    if measurement.measure == "reports":
        for record, trial, reply in zip(records, trials, engine.report(measurement.arm, trials), strict=True):
            record |= _report_columns(reply, trial.context)
    return pa.Table.from_pylist(records, schema=columns)


def _prompt_hash(work: Work) -> str:
    """Hash of the first prompt's wording: trials measured with other words are other trials."""
    wanted, [(_, first)] = work.measurement, work.trials.rows(0, 1)
    shown: list[tuple[Measure, ShownTrial]] = [(wanted.measure, first)]
    if PROMPTS[wanted.measure][wanted.variant].follow_up is not None:
        [chosen] = after_own_choice([first], wanted.variant, np.array([True]))
        shown = [("decisions", first), (wanted.measure, chosen)]
    wording: list[Message] = [m for kind, t in shown for m in messages(kind, t.context, t.option_a, t.option_b)]
    return hashlib.sha256(json.dumps(wording).encode()).hexdigest()[:16]


def _trial_columns(group: str, trial: ShownTrial) -> dict[str, Any]:
    values = {"first": trial.first, "second": trial.second}
    options = {f"{name}_{i + 1}": v for name, option in values.items() for i, v in enumerate(option)}
    return {
        "context": trial.context.name,
        "group": group,
        "index": trial.index,
        "first_as_a": trial.first_as_a,
        **options,
    }


def _report_columns(reply: str, context: ChoiceContext) -> dict[str, Any]:
    parsed = parse_report(reply, context.attribute_names)
    values = parsed.values or (None,) * len(context.attributes)
    by_column = {f"value_{i + 1}": value for i, value in enumerate(values)}
    return {"reply": reply, "reason": parsed.reason, **by_column, "outside": parsed.outside}
