"""Trial files: one Parquet an arm, measure and variant, a row a shown trial. Written and read by the same columns.

The file's metadata says its format, what was asked and the number of attributes, and from that all its columns follow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from store.manifests import Answering, DecisionFacts, ReportFacts, read_manifest
from store.settings import Settings, describe
from store.stages import begun
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import PROMPTS, Letter, Measure, Variant
from task.replies import ParsedReport
from task.trials import ShownTrial

TRIALS = "trials.parquet"

FORMAT: Final = 2
"""Of trial files. Format 1 did not say what it holds."""

METADATA = b"trials"
"""Key in a trial file's schema metadata: `TrialColumns` as JSON."""

ROW_GROUP = 2048
"""Rows that a trial file holds together, and that are in memory at a time while it is written."""


class TrialColumns(Settings):
    """Columns of a trial file.

    All files: context, group, index, first_as_a (whether the pair's first option was shown as A), first_1.. and
    second_1.. (attribute values). Decisions: logp_a, logp_b (natural log-probabilities over the whole vocabulary) and
    letter (the likelier of the two). Reports: reply (raw), reason (why it could not be read, null if it was),
    value_1.. (as given, null if unreadable), outside (a value beyond +-100). Reports that follow the arm's own decision
    have the columns of both. `attributes` is the number of attributes of each option.
    """

    format: Literal[2] = FORMAT
    measure: Measure
    variant: Variant
    attributes: int = Field(ge=1)

    @model_validator(mode="after")
    def _check_variant(self) -> TrialColumns:
        if self.variant not in PROMPTS[self.measure]:
            raise ValueError(f"{self.measure} have no variant {self.variant!r}")
        return self

    def of(self, what: Literal["first", "second", "value"]) -> list[str]:
        """Columns with a value an attribute: of the pair's first option, of its second, or of a report."""
        return [f"{what}_{i + 1}" for i in range(self.attributes)]

    @property
    def decides(self) -> bool:
        """Whether the arm decides between the options: always in decisions, in reports where they follow a choice."""
        return self.measure == "decisions" or PROMPTS[self.measure][self.variant].follow_up is not None

    @property
    def schema(self) -> pa.Schema:
        """The columns with their types, and the metadata."""
        columns = [("context", pa.string()), ("group", pa.string()), ("index", pa.int64()), ("first_as_a", pa.bool_())]
        columns += [(name, pa.float64()) for name in (*self.of("first"), *self.of("second"))]
        if self.decides:
            columns += [("logp_a", pa.float64()), ("logp_b", pa.float64()), ("letter", pa.string())]
        if self.measure == "reports":
            columns += [("reply", pa.string()), ("reason", pa.string())]
            columns += [*((name, pa.float64()) for name in self.of("value")), ("outside", pa.bool_())]
        return pa.schema(columns, metadata={METADATA: self.model_dump_json()})

    def table(
        self,
        trials: Sequence[tuple[str, ShownTrial]],
        logps: NDArray[np.float64] | None = None,
        reports: Sequence[tuple[str, ParsedReport]] | None = None,
    ) -> pa.Table:
        """Answers as rows of the file; `trials` are group and trial of each row.

        `logps` are log P(A) and log P(B), shape (rows, 2), where the arm decided; `reports` the raw replies and what
        was read of them, where it reported.
        """
        shown = [trial for _, trial in trials]
        columns: dict[str, Any] = {
            "context": [trial.context.name for trial in shown],
            "group": [group for group, _ in trials],
            "index": [trial.index for trial in shown],
            "first_as_a": [trial.first_as_a for trial in shown],
            **dict(zip(self.of("first"), np.array([trial.first for trial in shown]).T, strict=True)),
            **dict(zip(self.of("second"), np.array([trial.second for trial in shown]).T, strict=True)),
        }
        if logps is not None:
            columns |= {"logp_a": logps[:, 0], "logp_b": logps[:, 1], "letter": greedy_letters(logps)}
        if reports is not None:
            values = [report.values or (None,) * self.attributes for _, report in reports]
            columns |= {
                "reply": [reply for reply, _ in reports],
                "reason": [report.reason for _, report in reports],
                **dict(zip(self.of("value"), zip(*values, strict=True), strict=True)),
                "outside": [report.outside for _, report in reports],
            }
        return pa.table(columns, schema=self.schema)


def greedy_letters(logps: NDArray[np.float64]) -> list[Letter]:
    """The likelier letter by log P(A) and log P(B), shape (rows, 2)."""
    return ["A" if a > b else "B" for a, b in logps]


@dataclass(frozen=True)
class DecisionTrials:
    """Decisions of one arm, pairs by context in file order; NaN pads contexts with fewer pairs.

    Attributes:
        difference: (first - second) / range, shape (contexts, pairs, attributes); 0 where padded.
        log_odds: log P(A) - log P(B), shape (contexts, pairs, 2): the first option shown as A, then as B.
        letter_mass: P(A) + P(B), same shape.
    """

    contexts: list[str]
    difference: NDArray[np.float64]
    log_odds: NDArray[np.float64]
    letter_mass: NDArray[np.float64]

    @property
    def chose_a(self) -> NDArray[np.float64]:
        """1 where the greedy letter is A, 0 where it is B, NaN where padded; shape (contexts, pairs, 2)."""
        return np.where(np.isnan(self.log_odds), np.nan, self.log_odds > 0)

    @property
    def preference(self) -> NDArray[np.float64]:
        """Log odds of the first option without position bias, half of [first as A - first as B], (contexts, pairs)."""
        return (self.log_odds[..., 0] - self.log_odds[..., 1]) / 2


@dataclass(frozen=True)
class ReportTrials:
    """Reports of one arm by context in file order; NaN for a report that could not be read, and as padding.

    Attributes:
        values: As reported, shape (contexts, trials, attributes).
        total: Reports asked for in each context, shape (contexts,).
        outside: Readable reports with a value beyond +-100, shape (contexts,).
        reasons: Why reports could not be read, one entry an unreadable report, for each context.
    """

    contexts: list[str]
    values: NDArray[np.float64]
    total: NDArray[np.int64]
    outside: NDArray[np.int64]
    reasons: list[list[str]]


def read_decisions(folder: Path, contexts: Mapping[str, ChoiceContext]) -> DecisionTrials:
    """Read the decisions of one arm from `trials/<arm>/decisions` of a run; the contexts, by name, tell the ranges.

    Raises:
        InputError: The file is missing, cut, of another version or not as it says, or a pair lacks one of its orders.
    """
    columns, table = _read(folder, DecisionFacts)
    names, context, row = _places(table)
    pair, order = row // 2, 1 - np.array(table["first_as_a"]).astype(int)
    shape = len(names), int(pair.max()) + 1
    shown = np.zeros((*shape, 2), dtype=bool)
    shown[context, pair, order] = True
    if (shown.any(axis=2) != shown.all(axis=2)).any():
        raise InputError(f"{folder / TRIALS}: pairs are not shown once in each order; measure again with --overwrite")
    first, second = _stacked(table, columns.of("first")), _stacked(table, columns.of("second"))
    difference = np.zeros((*shape, columns.attributes))
    difference[context, pair] = (first - second) / np.stack([contexts[name].spans for name in names])[context]
    log_odds, mass = np.full((*shape, 2), np.nan), np.full((*shape, 2), np.nan)
    logp_a, logp_b = np.array(table["logp_a"]), np.array(table["logp_b"])
    log_odds[context, pair, order] = logp_a - logp_b
    mass[context, pair, order] = np.exp(logp_a) + np.exp(logp_b)
    return DecisionTrials(names, difference, log_odds, mass)


def read_reports(folder: Path) -> ReportTrials:
    """Read the reports of one arm from `trials/<arm>/reports` of a run; fails as `read_decisions` does."""
    columns, table = _read(folder, ReportFacts)
    names, context, trial = _places(table)
    values = np.full((len(names), int(trial.max()) + 1, columns.attributes), np.nan)
    values[context, trial] = _stacked(table, columns.of("value"))
    total = np.bincount(context)
    outside = np.bincount(context, weights=np.array(table["outside"])).astype(int)
    reasons: list[list[str]] = [[] for _ in names]
    for place, reason in zip(context, table["reason"].to_pylist(), strict=True):
        if reason is not None:
            reasons[place].append(reason)
    return ReportTrials(names, values, total, outside, reasons)


def _stacked(table: pa.Table, columns: Sequence[str]) -> NDArray[np.float64]:
    return np.stack([np.array(table[name]) for name in columns], axis=1)


def _places(table: pa.Table) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Context names in file order, and each row's place: its context, and how many of the context come before it."""
    encoded = table["context"].combine_chunks().dictionary_encode()
    context = np.array(encoded.indices).astype(np.int64)
    by_context = np.argsort(context, kind="stable")
    counts = np.bincount(context)
    row = np.empty(len(context), dtype=np.int64)
    row[by_context] = np.arange(len(context)) - np.repeat(np.cumsum(counts) - counts, counts)
    return encoded.dictionary.to_pylist(), context, row


def _read(folder: Path, facts: type[DecisionFacts] | type[ReportFacts]) -> tuple[TrialColumns, pa.Table]:
    """A finished trial file, held against its manifest and its own metadata."""
    path = folder / TRIALS
    if begun(folder) != "finished":
        raise InputError(f"{folder}: no finished trials here; run the evaluation (again): it goes on where it was")
    wanted = read_manifest(folder, facts).facts.rows
    try:
        with pq.ParquetFile(path) as file:
            columns = _check_columns(file.schema_arrow, path)
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(f"{path}: cannot be read ({reason}); delete {folder} and run the evaluation again") from None
    if len(table) != wanted:
        raise InputError(
            f"{path}: {len(table)} rows, its manifest says {wanted}; delete {folder} and run the evaluation again"
        )
    return columns, table


def _check_columns(schema: pa.Schema, path: Path) -> TrialColumns:
    """The columns that a file says it has; an `InputError` if it is of another version, or has others."""
    remedy = "measure it again with --overwrite, or use the version that made it"
    try:
        columns = TrialColumns.model_validate_json((schema.metadata or {}).get(METADATA, b'{"format": 1}'))
    except ValidationError as error:
        raise InputError(f"{path}: not a trial file of format {FORMAT} ({describe(error)}); {remedy}") from None
    found, wanted = ({field.name: str(field.type) for field in s} for s in (schema, columns.schema))
    if differing := [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]:
        name = differing[0]
        raise InputError(
            f"{path}: column {name!r} is {found.get(name, 'missing')}, its metadata says {wanted.get(name, 'none')}; "
            f"{remedy}"
        )
    return columns


def trial_facts(folder: Path, columns: TrialColumns, answering: Answering) -> DecisionFacts | ReportFacts:
    """What a manifest says of a trial file: how the trials turned out."""
    wanted = ["letter", "logp_a", "logp_b"] if columns.measure == "decisions" else ["reason", "outside"]
    try:
        table = pq.read_table(folder / TRIALS, columns=wanted)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{folder / TRIALS}: cannot be read ({error}); measure it again with --overwrite") from None
    if columns.measure == "decisions":
        share_a = float(np.mean(np.array(table["letter"]) == "A"))
        mass = float(np.mean(np.exp(table["logp_a"]) + np.exp(table["logp_b"])))
        return DecisionFacts(
            rows=len(table), share_a=round(share_a, 4), mean_letter_mass=round(mass, 4), answering=answering
        )
    unreadable = Counter(sorted(table["reason"].drop_null().to_pylist()))
    return ReportFacts(
        rows=len(table),
        readable=len(table) - unreadable.total(),
        unreadable=dict(unreadable),
        outside=table["outside"].to_pylist().count(True),
        answering=answering,
    )
