"""What an evaluation has to do: each measurement as rows of shown trials, in shards, and the folder that they go to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pydantic import JsonValue

from store.evaluation import EvalConfig, Measurement
from store.shards import has_shard, written_shards
from store.stages import begun
from store.trials import TrialColumns
from task.prompts import Framing
from task.trials import ShownTrial, sample_trials


@dataclass(frozen=True)
class Work:
    """A measurement as shards of trials, drawn when they are asked for, so that memory does not grow with their number.

    Decisions are shown in both orders (two rows a pair, next to each other), reports in one. The trials of all variants
    of a measure are the same.

    Attributes:
        framings: Group and context in the measurement's wording, in the order of the rows.
        folder, columns, total, shards: Of the trial file; `total` is the number of its rows.
    """

    config: EvalConfig
    measurement: Measurement
    framings: list[tuple[str, Framing]]
    folder: Path
    columns: TrialColumns
    total: int
    shards: int

    def span(self, number: int) -> tuple[int, int]:
        """First row of a shard, and the first after it."""
        size = self.config.engine.shard_size
        return number * size, min(self.total, (number + 1) * size)

    def rows(self, numbers: Iterable[int]) -> int:
        """Rows of some shards together."""
        return sum(stop - start for start, stop in map(self.span, numbers))

    def has(self, number: int) -> bool:
        """Whether a shard has been written, and whole."""
        return has_shard(self.folder, number, self.rows([number]))

    def answered(self) -> int:
        """Rows that are there: all of them in a finished folder, else those of its shards."""
        return self.total if begun(self.folder) == "finished" else self.rows(written_shards(self.folder))

    def inputs(self) -> dict[str, JsonValue]:
        """All that the trial file depends on besides the engine."""
        return self.config.inputs_of(self.measurement)

    def trials(self, start: int, stop: int) -> list[tuple[str, ShownTrial]]:
        """Group and trial of rows `start` to `stop - 1`."""
        wanted, per_context = self.measurement, self.measurement.rows_per_context
        found: list[tuple[str, ShownTrial]] = []
        for number, rows in groupby(range(start, stop), key=lambda row: row // per_context):
            group, framing = self.framings[number]
            shown = [divmod(row % per_context, wanted.orders) for row in rows]
            first, last = shown[0][0], shown[-1][0]
            drawn = sample_trials(self.config.seed, wanted.measure, framing.context, last - first + 1, start=first)
            for pair, order in shown:
                options = drawn.first[pair - first], drawn.second[pair - first]
                found.append((group, ShownTrial(framing, pair, *options, order == 0)))
        return found


def list_work(config: EvalConfig) -> list[Work]:
    """The work of an evaluation, a trial file an entry, in the order of its measurements."""
    return [_work(config, measurement) for measurement in config.measurements]


def _work(config: EvalConfig, measurement: Measurement) -> Work:
    framings = config.framings_of(measurement)
    attributes = len(framings[0][1].context.attributes)
    asked = measurement.model_dump(include={"measure", "variant", "constrained"})
    columns = TrialColumns(**asked, attributes=attributes)
    total = len(framings) * measurement.rows_per_context
    folder, shards = config.folder_of(measurement), config.engine.shards(total)
    return Work(config, measurement, framings, folder, columns, total, shards)
