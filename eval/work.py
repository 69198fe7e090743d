"""What an evaluation has to do: each measurement as rows of shown trials, in shards, and the folder that they go to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
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
        folder, columns, total: Of the trial file; `total` is the number of its rows.
        shards: Number of shards.
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
        wanted, orders = self.measurement, self.measurement.orders
        found: list[tuple[str, ShownTrial]] = []
        for number in range(start // (per_context := wanted.rows_per_context), math.ceil(stop / per_context)):
            group, framing = self.framings[number]
            offset = number * per_context
            rows = range(max(start, offset) - offset, min(stop, offset + per_context) - offset)
            first_pair = rows.start // orders
            pairs = math.ceil(rows.stop / orders) - first_pair
            drawn = sample_trials(self.config.seed, wanted.measure, framing.context, pairs, start=first_pair)
            for row in rows:
                pair, order = divmod(row - first_pair * orders, orders)
                options = drawn.first[pair], drawn.second[pair]
                found.append((group, ShownTrial(framing, int(drawn.index[pair]), *options, order == 0)))
        return found


def list_work(config: EvalConfig) -> list[Work]:
    """The work of an evaluation, a trial file an entry, in the order of its measurements."""
    return [_work(config, measurement) for measurement in config.measurements]


def _work(config: EvalConfig, measurement: Measurement) -> Work:
    framings = config.framings_of(measurement)
    attributes = len(framings[0][1].context.attributes)
    columns = TrialColumns(measure=measurement.measure, variant=measurement.variant, attributes=attributes)
    total = len(framings) * measurement.rows_per_context
    folder, shards = config.folder_of(measurement), config.engine.shards(total)
    return Work(config, measurement, framings, folder, columns, total, shards)
