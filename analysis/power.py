"""How many contexts and trials a study needs: power and coverage by simulation, before anything is trained.

    python -m analysis.power --out runs/power                         # the usual designs (about a minute)
    python -m analysis.power --out runs/power --contexts 50 100 --pairs 50 --accuracy 0.3 --effect 0.1 \\
        --error-correlation 0.7 --studies 2000                        # one comparison, closely
    python -m analysis.power --out runs/power --estimator logistic log_odds --pairs 20 100 --reports 5 10   # how cheap

A design is so many contexts, pairs of options in each, an estimator of the weights, and decisions that follow the
weights (`--noise`: the share of them; 1 without noise). Reports have a planted accuracy before training (their
correlation with the *true* weights) and that plus an effect after it; of `--reports` in a context a tenth cannot be
read. `asked` counts what a model would answer: every pair in both orders, and the reports before and after. Each
simulated study is analysed by the functions of `analysis.stats.agreement` that analyse a real one. What is learned from
decisions and what is reported are noisy, so r(reports, learned) comes out somewhat below the planted accuracy:
`population_r` is what it estimates.

The stable errors of the reports before and after training are independent unless `--error-correlation` says otherwise.
They matter: errors that persist cancel in the difference, so that independent ones are the cautious assumption.

Learned weights are estimated once for a pool of contexts for each estimator, number of pairs and noise. Studies are
drawn from it with replacement, see `analysis.stats.simulation`.

Writes power.csv, power.png, power.pdf and manifest.json.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np
import pandas as pd

from analysis.pages.power_figure import LINES, MARKERS, save_power_figure
from analysis.pages.text import number, percent
from analysis.stats.power import LEVEL, Design, Settings, run_design
from analysis.stats.simulation import ATTRIBUTES, make_pool
from analysis.study.output import output_folder
from store.console import Progress, run_command, say
from task.errors import InputError
from task.weights import Estimator

COMMAND = "analysis.power"

T = TypeVar("T")

MOST = 100_000
"""Contexts, pairs, reports and studies: far more than any study has, and what a machine's memory holds."""

POOL = 2000
"""Contexts in a pool: more than enough to stand for all contexts, see `analysis.stats.simulation`."""


def in_parallel(work: Callable[..., T], tasks: Sequence[tuple[Any, ...]], what: str, workers: int) -> list[T]:
    """`work(*task)` for all tasks, in so many processes, in the order of the tasks; a bar says how far it is."""
    # One thread each, or the threads of small products would wait for each other; read when a process imports
    # numpy, and so they are spawned, not forked.
    os.environ.update(OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_NUM_THREADS="1")
    context = multiprocessing.get_context("spawn")
    with (
        Progress(len(tasks), "task") as progress,
        ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as executor,
    ):
        progress.now(what)
        futures: list[Future[T]] = [executor.submit(work, *task) for task in tasks]
        for future in as_completed(futures):
            future.result()  # an error ends the work at once
            progress.advance(1)
        return [future.result() for future in futures]


def power_table(
    designs: Sequence[Design], effects: Sequence[float], size: int, settings: Settings, workers: int
) -> pd.DataFrame:
    """One row a design and effect, from pools of `size` contexts, computed in so many processes."""
    kinds = sorted({design.pool for design in designs})
    asked = [(size, pairs, noise, settings.seed, 0.0, estimator) for pairs, noise, estimator in kinds]
    pool_of = dict(zip(kinds, in_parallel(make_pool, asked, "pools of learned weights", workers), strict=True))
    tasks = [(design, effects, pool_of[design.pool], settings) for design in designs]
    return pd.DataFrame([row for rows in in_parallel(run_design, tasks, "designs", workers) for row in rows])


def console_table(table: pd.DataFrame) -> str:
    """One line a design: trials, recovery, r with its sd, the power to find it other than 0, and each effect's."""
    keys = [*Design.__dataclass_fields__, "asked"]
    lines = table.pivot_table(index=keys, columns="effect", values="power_difference", sort=False)
    lines.columns = [f"{effect:+g}" for effect in lines.columns]
    first = table.groupby(keys, sort=False)[["recovery", "mean_r", "sd_r", "power_permutation"]].first()
    first.columns = ["recovery", "mean r", "sd of r", "r not 0"]
    return str(first.join(lines).reset_index().to_string(index=False, float_format="{:.3g}".format))


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be simulated or drawn.

    Raises:
        InputError: Names the option, the value and what is possible.
    """
    for name, low, high in (
        ("contexts", 3, MOST),
        ("pairs", ATTRIBUTES, MOST),
        ("reports", 1, MOST),
        ("studies", 1, MOST),
        ("pool", 2, MOST),
        ("workers", 1, 1024),
        ("seed", 0, 2**32 - 1),
        ("accuracy", -1, 1),
        ("effect", -2, 2),
        ("error_correlation", -1, 1),
    ):
        given = getattr(arguments, name)
        for value in given if isinstance(given, list) else [given]:
            if not low <= value <= high:
                raise InputError(f"--{name.replace('_', '-')} {value:g}; give {low} to {high}")
    for accuracy, effect in itertools.product(arguments.accuracy, arguments.effect):
        if abs(accuracy + effect) > 1:
            raise InputError(f"--accuracy {accuracy:g} with --effect {effect:g} is no correlation; give smaller ones")
    for noise in arguments.noise:
        if not 0.5 < noise <= 1:
            raise InputError(f"--noise {noise:g}; give the share of decisions that follow the weights, above 0.5 to 1")
    for name, most in (("accuracy", len(MARKERS)), ("pairs", len(LINES))):
        if (values := len(getattr(arguments, name))) > most:
            raise InputError(f"--{name} with {values} values; the figure tells {most} apart, so give no more")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--contexts", type=int, nargs="+", default=[25, 50, 100, 200])
    add("--estimator", nargs="+", default=["logistic"], choices=get_args(Estimator), help="of the weights")
    add("--pairs", type=int, nargs="+", default=[25, 50, 100], help="pairs a context, each shown in both orders")
    add("--reports", type=int, nargs="+", default=[10], help="reports a context, before training and after it")
    add("--accuracy", type=float, nargs="+", default=[0.3, 0.5, 0.7], help="correlation of reports with true weights")
    add("--effect", type=float, nargs="+", default=[0.1, 0.2, 0.3], help="accuracy after minus before")
    add("--noise", type=float, nargs="+", default=[0.82], help="share of decisions that follow the weights; 1: all")
    add("--error-correlation", type=float, default=0.0, help="of the reports' stable errors before and after")
    add("--studies", type=int, default=400, help="simulated studies of each design")
    add("--pool", type=int, default=POOL, help="contexts that studies are drawn from, with replacement")
    add("--workers", type=int, default=os.cpu_count(), help="processes; changes nothing about the results")
    add("--seed", type=int, default=0)
    add("--out", type=Path, required=True, help="folder for the results")
    return parser.parse_args()


def main() -> None:
    """Command line."""
    arguments = parse_arguments()
    check(arguments)
    settings = Settings(arguments.studies, arguments.seed, arguments.error_correlation)
    a = arguments
    grid = itertools.product(a.noise, a.estimator, a.reports, a.pairs, a.accuracy, a.contexts)
    designs = [Design(n, pairs, noise, accuracy, by, reports) for noise, by, reports, pairs, accuracy, n in grid]
    asked = {name: value for name, value in vars(arguments).items() if name not in ("out", "workers")}
    with output_folder(arguments.out, COMMAND, asked) as draft:
        table = power_table(designs, arguments.effect, arguments.pool, settings, arguments.workers)
        table.to_csv(draft / "power.csv", index=False, float_format="%.4f")
        save_power_figure(table, draft / "power.png")
    say(console_table(table))
    error = 0.5 / np.sqrt(settings.studies)
    studies = f"{settings.studies} studies each: +-{number(error)} at most (1 sd)"
    say(f"\npower, two-sided at {percent(LEVEL)}, from {studies}")
    say(f"{arguments.out}: power.csv (with means and coverage), power.png, power.pdf")


if __name__ == "__main__":
    run_command(main)
