"""Do the intervals that we print cover as often as they say, and do the tests reject as often? Measured by simulation.

    python scripts/calibration/intervals.py                      # into results/calibration, some minutes on 2 cores
    python scripts/calibration/intervals.py --studies 100 --out /tmp/calibration        # a first look

Every situation is one way in which reports come about (`scripts.calibration.studies`); studies of 50 and 100 contexts
with 50 and 100 decisions each are drawn and analysed as in `analysis.power`, and the share of intervals that hold the
truth is counted.
The truth of an interval of r(reports, learned weights) is the population's r with the same measurement noise; that of
the corrected r is the planted accuracy, without any noise. Writes README.md, calibration.csv, alternatives.csv (other
intervals of r), guide.csv (power, against the figures that studies were planned with), coverage.png and .pdf, and
manifest.json.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.power import POOL, in_parallel
from analysis.stats.simulation import make_pool
from analysis.study.output import output_folder
from scripts.calibration.page import save_coverage_figure, write_readme
from scripts.calibration.studies import (
    ALTERNATIVES,
    CORRECTED,
    FOLLOWS,
    NULLS,
    SITUATIONS,
    Row,
    alternative_rows,
    corrected_rows,
    guide_row,
    instillation_rows,
    measured_pool,
    null_rows,
    posterior_rows,
    situation_rows,
)
from store.console import run_command, say
from task.errors import InputError

TRIALS, CONTEXTS = (50, 100), (50, 100)

WORKERS = os.cpu_count() or 1

ACCEPTED = {"coverage": (0.93, 0.97), "rejection": (0.04, 0.06)}
"""Shares that count as right for a 95% interval and a 5% test."""

ERROR_CORRELATIONS = (0.0, 0.5, 0.7, 0.8)
"""Of the stable errors before and after, where power is held against the guide."""


def alternatives_table(studies: int, seed: int) -> pd.DataFrame:
    """alternatives.csv: coverage of other intervals of r, after 50 decisions a context, down to 25 contexts."""
    pool = make_pool(POOL, 50, FOLLOWS, seed)
    tasks = [(what, contexts, pool, studies, seed) for what in ALTERNATIVES for contexts in (25, *CONTEXTS)]
    found = in_parallel(alternative_rows, tasks, "alternatives", WORKERS)
    return pd.DataFrame([row for rows in found for row in rows]).round(4)


def guide_table(studies: int, seed: int) -> pd.DataFrame:
    """guide.csv: the paired difference of the guide, for choosers without and with noise."""
    choosers = (1.0, FOLLOWS)
    pools = in_parallel(make_pool, [(POOL, 50, follows, seed) for follows in choosers], "pools of the guide", WORKERS)
    grid = itertools.product(zip(choosers, pools, strict=True), ERROR_CORRELATIONS, CONTEXTS)
    tasks = [(follows, contexts, c, pool, studies, seed) for (follows, pool), c, contexts in grid]
    return pd.DataFrame(in_parallel(guide_row, tasks, "guide", WORKERS)).round(4)


def coverage_table(studies: int, seed: int) -> pd.DataFrame:
    """calibration.csv: one `Row` a line, and whether its share is as it should be."""
    kinds = sorted({(trials, s.lean) for trials in TRIALS for s in (*SITUATIONS, *NULLS)})
    made = in_parallel(make_pool, [(POOL, trials, FOLLOWS, seed, lean) for trials, lean in kinds], "pools", WORKERS)
    pools = dict(zip(kinds, made, strict=True))
    halves = in_parallel(measured_pool, [(trials, seed) for trials in TRIALS], "pools in halves", WORKERS)
    sizes = list(itertools.product(TRIALS, CONTEXTS))
    work: list[tuple[str, Callable[..., list[Row]], list[tuple[Any, ...]]]] = [
        (
            "situations",
            situation_rows,
            [(s, t, n, pools[t, s.lean], studies, seed) for s in SITUATIONS for t, n in sizes],
        ),
        ("instillation", instillation_rows, [(t, n, pools[t, 0.0], studies, seed) for t, n in sizes]),
        (
            "corrected r",
            corrected_rows,
            [(s, p, n, studies * 3 // 4, seed) for s in CORRECTED for p in halves for n in CONTEXTS],
        ),
        ("posteriors", posterior_rows, [(t, seed) for t in TRIALS]),
        ("tests", null_rows, [(s, t, n, pools[t, s.lean], 2 * studies, seed) for s in NULLS for t, n in sizes]),
    ]
    found: list[Row] = [
        row for what, do, tasks in work for rows in in_parallel(do, tasks, what, WORKERS) for row in rows
    ]
    # Of one interval together, whichever function measured it.
    order = list(dict.fromkeys(row.what for row in found))
    found.sort(key=lambda row: order.index(row.what))
    table = pd.DataFrame(found).round(4)
    low, high = (table["kind"].map({kind: ends[i] for kind, ends in ACCEPTED.items()}) for i in (0, 1))
    return table.assign(as_it_should=(low <= table["share"]) & (table["share"] <= high))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000, help="of each situation and size; of a null twice as many")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("results/calibration"))
    arguments = parser.parse_args()
    if arguments.studies < 2:
        raise InputError(f"--studies {arguments.studies}; give 2 or more, 2000 for a standard error of .005")
    asked = {"studies": arguments.studies, "seed": arguments.seed}
    with output_folder(arguments.out, "scripts.calibration.intervals", asked) as draft:
        tables = {
            "calibration": coverage_table(**asked),
            "alternatives": alternatives_table(**asked),
            "guide": guide_table(**asked),
        }
        for name, table in tables.items():
            table.to_csv(draft / f"{name}.csv", index=False)
        table = tables["calibration"]
        save_coverage_figure(table, ACCEPTED, draft / "coverage.png")
        write_readme(tables, ACCEPTED, asked, draft / "README.md")
    wrong = table[~table["as_it_should"]]
    say(f"{len(table) - len(wrong)} of {len(table)} shares are as they should be; the others:")
    say(wrong[["what", "situation", "trials", "contexts", "share", "standard_error"]].to_string(index=False))
    say(f"{arguments.out}: README.md, coverage.png, coverage.pdf, {', '.join(f'{name}.csv' for name in tables)}")


if __name__ == "__main__":
    run_command(main)
