"""The tables of a published run: every decision, every report, the weights, and the contexts that they are of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike

from store.contexts import load_contexts
from store.run import RunFolder, RunRecord
from store.state_inputs import TrialFolder, analysis_is_current, finished_trials
from store.tables import numbered, read_table
from store.trials import decided_in, read_rows
from store.weights import load_weights
from task.contexts import ChoiceContext
from task.errors import InputError

CONFIGS = ("decisions", "reports", "weights", "contexts")
"""Names by which the tables are loaded."""


@dataclass(frozen=True)
class Tables:
    """What is published of a run's rows.

    Attributes:
        tables: Those that have rows, by name.
        taken: The trial folders that are in them.
        left_out: Why others are not, a sentence each.
    """

    tables: dict[str, pa.Table]
    taken: list[TrialFolder] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def run_tables(run: RunFolder, record: RunRecord) -> Tables:
    """All tables of a run; a trial file that its manifest does not vouch for is left out.

    Raises:
        InputError: A file of the run's inputs cannot be read, or there are no rows at all.
    """
    rows: dict[str, list[pa.Table]] = {"decisions": [], "reports": []}
    taken, left_out = [], []
    for trials in finished_trials(run, record):
        try:
            rows[trials.measure].append(trial_rows(record, trials))
            taken.append(trials)
        except InputError as error:
            left_out.append(f"left out: {str(error).replace(f'{run.path}/', '')}")
    if not taken:
        raise InputError(f"{run.trials}: no finished trials that can be read; run the experiment (again) first")
    groups = read_groups(run, record)
    found = {name: pa.concat_tables(parts, promote_options="default") for name, parts in rows.items() if parts}
    found["weights"] = pa.Table.from_pylist(list(weight_rows(run, record, groups)), schema=_weights_schema(groups))
    found["contexts"] = pa.Table.from_pylist(
        [{"group": group, **asdict(context)} for group, members in groups.items() for context in members]
    )
    return Tables({name: found[name] for name in CONFIGS if name in found and len(found[name])}, taken, left_out)


def trial_rows(record: RunRecord, trials: TrialFolder) -> pa.Table:
    """A trial file's rows, with what its place in the run says of them before its own columns."""
    columns, table = read_rows(trials.path, trials.measure)
    if columns.decides and columns.format == 2:
        table = _with_decisions(table)
    place = {"run": record.name, "seed": record.seed, **trials._asdict()}
    for position, name in enumerate(("run", "seed", "arm", "variant", "constrained")):
        table = table.add_column(position, name, pa.array([place[name]] * len(table)))
    return table.replace_schema_metadata(None)


def _with_decisions(table: pa.Table) -> pa.Table:
    """Rows of an earlier format with the columns that tell which decisions were made."""
    found = decided_in(table)
    table = table.set_column(table.column_names.index("letter"), "letter", pa.array(found.letters, pa.string()))
    table = table.append_column("top_is_letter", pa.array(found.top_is_letter))
    return table.append_column("undecided", pa.array(found.undecided, pa.string()))


def read_groups(run: RunFolder, record: RunRecord) -> dict[str, list[ChoiceContext]]:
    """The contexts of each group of a run."""
    return {group: load_contexts(run.contexts_file(group)) for group in record.groups}


def weight_rows(
    run: RunFolder, record: RunRecord, groups: Mapping[str, list[ChoiceContext]]
) -> Iterator[dict[str, object]]:
    """Every set of weights, a row a context: those that were given to the run, then those that decisions show.

    The latter are taken from the analysis, where it is of these trials.
    """
    group_of = {context.name: group for group, members in groups.items() for context in members}
    known = {"run": record.name, "seed": record.seed}
    given = {
        "target": run.target_weights,
        "redrawn": run.redrawn_weights,
        "told": run.told_weights,
        "planted": run.planted_weights,
    }
    for kind, path in given.items():
        for name, weights in load_weights(path).items() if path.is_file() else ():
            yield {**known, "kind": kind, "group": group_of.get(name), "context": name, **_spread("weight", weights)}
    if not analysis_is_current(run, record):
        return
    table = read_table(run.analysis / "weights.csv", ["arm", "group", "context"], ["weight_{}"])
    kinds = [kind for kind in ("weight", "raw", "sd", "log_odds") if f"{kind}_1" in table.header]
    values = {k: table.numbers(numbered(f"{k}_{{}}", table.size), required=False) for k in kinds}
    for i, row in enumerate(table.rows):
        spread = {name: value for kind in kinds for name, value in _spread(kind, values[kind][i]).items()}
        yield {**known, "kind": "learned", **{key: row[key] for key in ("arm", "group", "context")}, **spread}


def _spread(kind: str, weights: ArrayLike) -> dict[str, float | None]:
    """Values by numbered columns; None for what is not known."""
    found = np.asarray(weights, dtype=float)
    return {f"{kind}_{i}": float(w) if np.isfinite(w) else None for i, w in enumerate(found, start=1)}


def _weights_schema(groups: Mapping[str, list[ChoiceContext]]) -> pa.Schema:
    width = max(len(context.attributes) for members in groups.values() for context in members)
    texts = [(name, pa.string()) for name in ("kind", "arm", "group", "context")]
    values = [
        (name, pa.float64()) for kind in ("weight", "raw", "sd", "log_odds") for name in numbered(f"{kind}_{{}}", width)
    ]
    return pa.schema([("run", pa.string()), ("seed", pa.int64()), *texts, *values])
