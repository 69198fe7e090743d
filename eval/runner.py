"""The trial runner: shows trials to an arm, shard by shard, and writes what it answered."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm import tqdm

from eval import trial_files
from eval.config import EngineSettings, Measurement
from eval.engines.base import Engine, ShownTrial
from task.contexts import ChoiceContext, load_named_contexts
from task.errors import InputError
from task.prompts import Measure, messages
from task.replies import parse_report
from task.stages import Stage, hash_file
from task.trials import sample_trials


@dataclass(frozen=True)
class TrialList:
    """All trials of a measurement, drawn when they are asked for, so that memory does not grow with their number.

    Decisions are shown in both orders (two rows a pair, next to each other), reports in one.
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


def list_trials(measurement: Measurement, seed: int) -> TrialList:
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
    return TrialList(measurement.measure, seed, contexts, groups, measurement.per_context)


def measure(
    engine: Engine, measurement: Measurement, settings: EngineSettings, seed: int, output: Path, overwrite: bool
) -> Path:
    """Make one trial file, or find it made; returns its folder.

    Killed and called again, it goes on after the last complete shard; shards depend only on their own trials.
    """
    trials = list_trials(measurement, seed)
    folder = output / measurement.arm / measurement.measure
    inputs = {
        "arm": measurement.arm,
        "measure": measurement.measure,
        "seed": seed,
        "per_context": measurement.per_context,
        "contexts": [(g.name, hash_file(Path(g.file)), g.only) for g in measurement.contexts],
        "prompts": _prompt_hash(trials),
        "shard_size": settings.shard_size,
        **engine.identity(measurement.arm),
    }
    stage = Stage(folder, inputs, overwrite)
    if stage.finished:
        return folder
    columns = trial_files.schema(measurement.measure, len(trials.contexts[0].attributes))
    shards = math.ceil(len(trials) / settings.shard_size)
    with tqdm(total=len(trials), desc=f"{measurement.arm} {measurement.measure}", unit="trial", smoothing=0.1) as bar:
        for number in range(shards):
            start, stop = number * settings.shard_size, min(len(trials), (number + 1) * settings.shard_size)
            if not trial_files.has_part(folder, number, stop - start):
                table = answer(engine, measurement, trials.rows(start, stop), columns)
                trial_files.write_part(folder, number, table)
            bar.update(stop - start)
    trial_files.merge_parts(folder, shards, columns)
    stage.finish({"counts": counts(folder, measurement.measure)})
    trial_files.remove_parts(folder)
    return folder


def answer(
    engine: Engine, measurement: Measurement, rows: Sequence[tuple[str, ShownTrial]], columns: pa.Schema
) -> pa.Table:
    """Have an engine answer some rows, and lay the answers out as columns of a trial file."""
    trials = [trial for _, trial in rows]
    records = [_trial_columns(group, trial) for group, trial in rows]
    if measurement.measure == "decisions":
        for record, (logp_a, logp_b) in zip(records, engine.decide(measurement.arm, trials), strict=True):
            record |= {"logp_a": logp_a, "logp_b": logp_b, "letter": "A" if logp_a > logp_b else "B"}
    else:
        for record, trial, reply in zip(records, trials, engine.report(measurement.arm, trials), strict=True):
            record |= _report_columns(reply, trial.context)
    return pa.Table.from_pylist(records, schema=columns)


def counts(folder: Path, measure: Measure) -> dict[str, Any]:
    """What a manifest says of a trial file: rows, and how they turned out."""
    if measure == "decisions":
        table = trial_files.read_columns(folder, ["letter", "logp_a", "logp_b"])
        mass = np.exp(table["logp_a"].to_numpy()) + np.exp(table["logp_b"].to_numpy())
        share_a = float(np.mean([letter == "A" for letter in table["letter"].to_pylist()]))
        return {"rows": table.num_rows, "share_a": round(share_a, 4), "mean_letter_mass": round(float(mass.mean()), 4)}
    table = trial_files.read_columns(folder, ["reason", "outside"])
    reasons = Counter(reason for reason in table["reason"].to_pylist() if reason is not None)
    return {
        "rows": table.num_rows,
        "readable": table.num_rows - sum(reasons.values()),
        "unreadable": dict(sorted(reasons.items())),
        "outside": sum(bool(o) for o in table["outside"].to_pylist()),
    }


def _prompt_hash(trials: TrialList) -> str:
    """Hash of the first prompt's wording: trials measured with other words are other trials."""
    [(_, first)] = trials.rows(0, 1)
    wording = messages(trials.measure, first.context, first.option_a, first.option_b)
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
