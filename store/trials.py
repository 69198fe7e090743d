"""Trial files: one Parquet an arm, measure and variant, a row a shown trial. Written and read by the same columns.

The file's metadata says its format, what was asked and the number of attributes, and from that all its columns follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator

from store.files import hash_file
from store.manifests import DecisionFacts, ReportFacts, read_manifest
from store.settings import Settings, describe
from store.stages import begun
from task.contexts import ChoiceContext
from task.errors import InputError, shown
from task.prompts import PROMPTS, Measure, Variant
from task.replies import Decided, ParsedReport
from task.trials import ShownTrial

TRIALS = "trials.parquet"

FORMAT: Final = 3
"""Of trial files. Format 2 did not say which decisions were made, nor whether reports were free. Format 1 did not say
what it holds."""

HALF = 0.5
"""Rule for format 2: a decision was made where P(A) + P(B) reaches this. Both letters together are then likelier than
all other tokens together, though one of them need not be the likeliest token."""

METADATA = b"trials"
"""Key in a trial file's schema metadata: `TrialColumns` as JSON."""

MOST_ATTRIBUTES = 1000
"""More columns of attributes than this are no trial file."""

OPTIONAL = ("letter", "undecided", "reply", "reason", "free_reply", "free_reason")
"""Columns that have gaps, and so have the values of reports; no other column has any."""

ROW_GROUP = 2048
"""Rows that a trial file holds together, and that are in memory at a time while it is written."""


class TrialColumns(Settings):
    """Columns of a trial file.

    All files: context, group, index, first_as_a (whether the pair's first option was shown as A), first_1.. and
    second_1.. (attribute values). Decisions: logp_a, logp_b (natural log-probabilities over the whole vocabulary),
    top_is_letter (whether a letter is the likeliest token of all), letter (the likelier of the two, null if there is no
    decision) and undecided (why there is none, null if there is one). Reports: reply (raw), reason (why there is none
    that can be read, null if there is), value_1.. (as given, null if unreadable), outside (a value beyond +-100).
    Reports that follow the arm's own decision have the columns of both. Constrained reports: opening (the probability
    that the model itself opens its reply as the grammar asks), free_sampled (whether a free reply was asked for, too),
    free_reply and free_reason (null where none was). `attributes` is the number of attributes of each option.
    """

    format: Literal[2, 3] = FORMAT
    measure: Measure
    variant: Variant
    constrained: bool = False
    attributes: int = Field(ge=1, le=MOST_ATTRIBUTES)

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
            if self.format > 2:
                columns += [("top_is_letter", pa.bool_()), ("undecided", pa.string())]
        if self.measure == "reports":
            columns += [("reply", pa.string()), ("reason", pa.string())]
            columns += [*((name, pa.float64()) for name in self.of("value")), ("outside", pa.bool_())]
        if self.constrained:
            columns += [("opening", pa.float64()), ("free_sampled", pa.bool_())]
            columns += [("free_reply", pa.string()), ("free_reason", pa.string())]
        return pa.schema(columns, metadata={METADATA: self.model_dump_json()})

    def table(
        self,
        trials: Sequence[tuple[str, ShownTrial]],
        decided: Decided | None = None,
        reports: Sequence[Report] | None = None,
        opening: NDArray[np.float64] | None = None,
        free: Sequence[Report | None] | None = None,
    ) -> pa.Table:
        """Answers as rows of the file.

        Args:
            trials: Group and trial of each row.
            decided: The decisions, where the arm decides.
            reports: The reports, where it reports.
            opening: Of constrained reports: P(the model opens its reply as the grammar asks), shape (rows,).
            free: Of constrained reports: the free reply to the same prompt, None where none was asked for.
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
        if decided is not None:
            columns |= {"logp_a": decided.logps[:, 0], "logp_b": decided.logps[:, 1], "letter": decided.letters}
            columns |= {"top_is_letter": decided.top_is_letter, "undecided": decided.undecided}
        if reports is not None:
            values = [report.values or (None,) * self.attributes for _, report in reports]
            columns |= {
                "reply": [reply for reply, _ in reports],
                "reason": [report.reason for _, report in reports],
                **dict(zip(self.of("value"), zip(*values, strict=True), strict=True)),
                "outside": [report.outside for _, report in reports],
            }
        if free is not None:
            columns |= {
                "opening": opening,
                "free_sampled": [found is not None for found in free],
                "free_reply": [found and found[0] for found in free],
                "free_reason": [found and found[1].reason for found in free],
            }
        return pa.table(columns, schema=self.schema)


Report = tuple[str | None, ParsedReport]
"""A raw reply, None where there is none, and what was read of it."""


@dataclass(frozen=True)
class DecisionTrials:
    """Decisions of one arm, pairs by context in file order; contexts with fewer pairs are padded.

    Attributes:
        difference: (first - second) / range, shape (contexts, pairs, attributes); 0 where padded.
        log_odds: log P(A) - log P(B), shape (contexts, pairs, 2): the first option shown as A, then as B. NaN where
            padded and where no decision was made.
        letter_mass: P(A) + P(B), same shape: NaN where padded, 0 where a log-probability is not finite.
        shown: Whether the trial was shown, same shape; False where padded.
        reasons: Why decisions were not made, one entry a shown trial without one, for each context.
    """

    contexts: list[str]
    difference: NDArray[np.float64]
    log_odds: NDArray[np.float64]
    letter_mass: NDArray[np.float64]
    shown: NDArray[np.bool_]
    reasons: list[list[str]]

    @property
    def chose_a(self) -> NDArray[np.float64]:
        """1 where the decision is A, 0 where it is B, NaN where there is none; shape (contexts, pairs, 2)."""
        return np.where(np.isnan(self.log_odds), np.nan, self.log_odds > 0)

    @property
    def preference(self) -> NDArray[np.float64]:
        """Log odds of the first option without position bias, half of [first as A - first as B], (contexts, pairs).

        NaN where a decision in either order is missing.
        """
        return (self.log_odds[..., 0] - self.log_odds[..., 1]) / 2


@dataclass(frozen=True)
class ReportTrials:
    """Reports of one arm by context in file order; NaN for a report that could not be read, and as padding.

    Attributes:
        values: As reported, shape (contexts, trials, attributes).
        total: Reports asked for in each context, shape (contexts,).
        outside: Readable reports with a value beyond +-100, shape (contexts,).
        reasons: Why reports could not be read, one entry an unreadable report, for each context.
        constrained: Whether replies were forced into a grammar.
        opening: Of constrained reports: the probability that the model itself opens its reply as the grammar asks,
            shape (contexts, trials), NaN as padding. None for free reports and for files that do not say it.
        free_total: Free replies that were asked for beside the constrained ones.
        free_reasons: Why some of them could not be read, one entry each.
    """

    contexts: list[str]
    values: NDArray[np.float64]
    total: NDArray[np.int64]
    outside: NDArray[np.int64]
    reasons: list[list[str]]
    constrained: bool = False
    opening: NDArray[np.float64] | None = None
    free_total: int = 0
    free_reasons: list[str] = field(default_factory=list)


def read_decisions(folder: Path, contexts: Mapping[str, ChoiceContext]) -> DecisionTrials:
    """Read the decisions of one arm from `trials/<arm>/decisions` of a run; the contexts, by name, tell the ranges.

    Raises:
        InputError: The file is missing, cut, of another version or not as it says, or a pair lacks one of its orders.
    """
    columns, table, _ = _read(folder, DecisionFacts)
    names, context, row = _places(table)
    pair, order = row // 2, 1 - np.array(table["first_as_a"]).astype(int)
    shape = len(names), int(pair.max()) + 1
    shown = np.zeros((*shape, 2), dtype=bool)
    shown[context, pair, order] = True
    if (shown.any(axis=2) != shown.all(axis=2)).any():
        raise InputError(f"{folder / TRIALS}: pairs are not shown once in each order; measure again with --overwrite")
    first, second = _stacked(table, columns.of("first")), _stacked(table, columns.of("second"))
    difference = np.zeros((*shape, columns.attributes))
    difference[context, pair] = (first - second) / _spans(names, columns, contexts, folder)[context]
    decided = decided_in(table)
    made = np.array([missing is None for missing in decided.undecided])
    log_odds, mass = np.full((*shape, 2), np.nan), np.full((*shape, 2), np.nan)
    log_odds[context[made], pair[made], order[made]] = decided.logps[made, 0] - decided.logps[made, 1]
    mass[context, pair, order] = letter_mass(decided)
    reasons = _by_context(context, decided.undecided, len(names))
    return DecisionTrials(names, difference, log_odds, mass, shown, reasons)


def read_reports(folder: Path) -> ReportTrials:
    """Read the reports of one arm from `trials/<arm>/reports` of a run; fails as `read_decisions` does."""
    columns, table, constrained = _read(folder, ReportFacts)
    names, context, trial = _places(table)
    shape = len(names), int(trial.max()) + 1
    values = np.full((*shape, columns.attributes), np.nan)
    values[context, trial] = _stacked(table, columns.of("value"))
    total = np.bincount(context)
    outside = np.bincount(context, weights=np.array(table["outside"])).astype(int)
    reasons = _by_context(context, table["reason"].to_pylist(), len(names))
    if not columns.constrained:
        return ReportTrials(names, values, total, outside, reasons, constrained)
    opening = np.full(shape, np.nan)
    opening[context, trial] = np.array(table["opening"])
    free_reasons = table["free_reason"].drop_null().to_pylist()
    free = table["free_sampled"].to_pylist().count(True)
    return ReportTrials(names, values, total, outside, reasons, constrained, opening, free, free_reasons)


def read_rows(folder: Path, measure: Measure) -> tuple[TrialColumns, pa.Table]:
    """The rows of a trial file as they are, and its columns; fails as `read_decisions` does."""
    columns, table, _ = _read(folder, DecisionFacts if measure == "decisions" else ReportFacts)
    return columns, table


def decided_in(table: pa.Table) -> Decided:
    """The decisions of a trial file; where it does not say what the likeliest token was, by `HALF`."""
    logps = _stacked(table, ["logp_a", "logp_b"])
    if "top_is_letter" in table.column_names:
        return Decided(logps, np.array(table["top_is_letter"]))
    return Decided(logps, np.exp(logps).sum(axis=1) >= HALF)


def letter_mass(decided: Decided) -> NDArray[np.float64]:
    """P(A) + P(B), 0 where a log-probability is not finite, shape (rows,)."""
    finite = np.isfinite(decided.logps).all(axis=1, keepdims=True)
    return np.exp(np.where(finite, decided.logps, -np.inf)).sum(axis=1)


def _by_context(context: NDArray[np.int64], reasons: Sequence[str | None], contexts: int) -> list[list[str]]:
    """The reasons of each context, from those of each row."""
    found: list[list[str]] = [[] for _ in range(contexts)]
    for place, reason in zip(context, reasons, strict=True):
        if reason is not None:
            found[place].append(reason)
    return found


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


def _read(folder: Path, facts: type[DecisionFacts] | type[ReportFacts]) -> tuple[TrialColumns, pa.Table, bool]:
    """A finished trial file, held against its manifest and its own metadata, and whether its replies are constrained.

    Where the file does not say the last, its manifest does.
    """
    path, remedy = folder / TRIALS, f"delete {folder} and run the evaluation again"
    if begun(folder) != "finished":
        raise InputError(f"{folder}: no finished trials here; run the evaluation (again): it goes on where it was")
    manifest = read_manifest(folder, facts)
    wanted = manifest.facts.rows
    try:
        # Before it is read: what a bad disk left of a file may ask for any amount of memory.
        if manifest.facts.content not in (None, hash_file(path)):
            raise InputError(
                f"{path}: changed since the evaluation wrote it, by the hash in its manifest; restore it, or {remedy}"
            )
        with pq.ParquetFile(path) as file:
            columns = _check_columns(file.schema_arrow, path)
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        reason = shown(" ".join(str(error).split()), 120)
        raise InputError(f"{path}: cannot be read ({reason}); {remedy}") from None
    if len(table) != wanted:
        raise InputError(f"{path}: {len(table)} rows, its manifest says {wanted}; {remedy}")
    _check_values(table, columns, path, remedy)
    constrained = columns.constrained or (columns.format == 2 and bool(manifest.depends_on.get("constrain_reports")))
    return columns, table, constrained


def _check_columns(schema: pa.Schema, path: Path) -> TrialColumns:
    """The columns that a file says it has; an `InputError` if it is of another version, or has others."""
    remedy = "measure it again with --overwrite, or use the version that made it"
    try:
        columns = TrialColumns.model_validate_json((schema.metadata or {}).get(METADATA, b'{"format": 1}'))
    except ValidationError as error:
        raise InputError(f"{path}: not a trial file of format 2 or {FORMAT} ({describe(error)}); {remedy}") from None
    found, wanted = ({field.name: str(field.type) for field in s} for s in (schema, columns.schema))
    if differing := [name for name in {**wanted, **found} if found.get(name) != wanted.get(name)]:
        name = differing[0]
        raise InputError(
            f"{path}: column {name!r} is {found.get(name, 'missing')}, its metadata says {wanted.get(name, 'none')}; "
            f"{remedy}"
        )
    return columns


def _check_values(table: pa.Table, columns: TrialColumns, path: Path, remedy: str) -> None:
    """Refuse a file without rows, or with gaps in a column that has none."""
    if not len(table):
        raise InputError(f"{path}: no rows; {remedy}")
    gaps = {*OPTIONAL, *columns.of("value")}
    if torn := [name for name in table.column_names if name not in gaps and table[name].null_count]:
        raise InputError(f"{path}: column {torn[0]!r} has {table[torn[0]].null_count} gaps; {remedy}")


def _spans(
    names: Sequence[str], columns: TrialColumns, contexts: Mapping[str, ChoiceContext], folder: Path
) -> NDArray[np.float64]:
    """How far each attribute ranges, shape (contexts, attributes)."""
    for name in names:
        found = len(contexts[name].attributes) if name in contexts else "none"
        if found != columns.attributes:
            raise InputError(
                f"{folder / TRIALS}: context {shown(name)} has {columns.attributes} attributes, {found} among the "
                "contexts of the run; give the contexts that the trials are of"
            )
    return np.stack([contexts[name].spans for name in names])
