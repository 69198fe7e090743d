"""Trial files read back into arrays by context, and held against their manifests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from store.files import read_json
from store.stages import MANIFEST
from task.contexts import ChoiceContext
from task.errors import InputError

TRIALS = "trials.parquet"


@dataclass(frozen=True)
class DecisionTrials:
    """Decisions of one arm, pairs by context; NaN pads contexts with fewer pairs.

    Attributes:
        contexts: Names of the contexts, in file order.
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
    """Reports of one arm by context; NaN for a report that could not be read, and as padding.

    Attributes:
        contexts: Names of the contexts, in file order.
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
    """Read the decisions of one arm.

    Args:
        folder: `trials/<arm>/decisions` of a run.
        contexts: Contexts of the run by name, for the ranges.

    Raises:
        InputError: See `read_trials`; also if a pair lacks one of its two orders.
    """
    table = read_trials(folder)
    names, rows, pairs, context, pair = _layout(table, per_trial=2)
    order = 1 - table["first_as_a"].to_numpy(dtype=int)
    if len(set(zip(context, pair, order, strict=True))) < len(table) or len(table) % 2:
        raise InputError(f"{folder / TRIALS}: pairs are not shown once in each order; measure again with --overwrite")
    attributes = sum(c.startswith("first_") and c != "first_as_a" for c in table.columns)
    spans = np.stack([contexts[n].spans for n in names])
    first, second = (
        table[[f"{option}_{i + 1}" for i in range(attributes)]].to_numpy() for option in ("first", "second")
    )
    difference = np.zeros((rows, pairs, attributes))
    difference[context, pair] = (first - second) / spans[context]
    log_odds, mass = np.full((rows, pairs, 2), np.nan), np.full((rows, pairs, 2), np.nan)
    logp_a, logp_b = table["logp_a"].to_numpy(), table["logp_b"].to_numpy()
    log_odds[context, pair, order] = logp_a - logp_b
    mass[context, pair, order] = np.exp(logp_a) + np.exp(logp_b)
    return DecisionTrials(names, difference, log_odds, mass)


def read_reports(folder: Path) -> ReportTrials:
    """Read the reports of one arm from `trials/<arm>/reports` of a run."""
    table = read_trials(folder)
    names, rows, trials, context, trial = _layout(table, per_trial=1)
    columns = [c for c in table.columns if c.startswith("value_")]
    values = np.full((rows, trials, len(columns)), np.nan)
    values[context, trial] = table[columns].to_numpy(dtype=float)
    total = np.bincount(context, minlength=rows)
    outside = np.bincount(context, weights=table["outside"].to_numpy(dtype=float), minlength=rows).astype(int)
    unread = table["reason"].notna().to_numpy()
    reasons: list[list[str]] = [[] for _ in names]
    for row, reason in zip(context[unread], table["reason"][unread], strict=True):
        reasons[row].append(str(reason))
    return ReportTrials(names, values, total, outside, reasons)


def read_trials(folder: Path) -> pd.DataFrame:
    """Read a finished trial file.

    Raises:
        InputError: The file is missing, was cut, or has not the number of rows that its manifest says.
    """
    path = folder / TRIALS
    if not (folder / MANIFEST).is_file():
        raise InputError(f"{folder}: no finished trials here; run the evaluation (again): it goes on where it was")
    wanted = read_json(folder / MANIFEST)["counts"]["rows"]
    try:
        table = pd.read_parquet(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(f"{path}: cannot be read ({reason}); delete {folder} and run the evaluation again") from None
    if len(table) != wanted:
        raise InputError(
            f"{path}: {len(table)} rows, its manifest says {wanted}; delete {folder} and run the evaluation again"
        )
    return table


def _layout(table: pd.DataFrame, per_trial: int) -> tuple[list[str], int, int, NDArray[np.int64], NDArray[np.int64]]:
    """Context names in file order, array sizes, and each row's place: its context and its trial within it."""
    context, names = pd.factorize(table["context"])
    trial = table.groupby(context, sort=False).cumcount().to_numpy() // per_trial
    return [str(n) for n in names], len(names), int(trial.max()) + 1, context.astype(np.int64), trial.astype(np.int64)
