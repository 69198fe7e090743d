"""How many contexts and trials a study needs: power and coverage by simulation, before anything is trained.

    python -m analysis.power --out runs/power                         # the usual designs (about a minute)
    python -m analysis.power --out runs/power --contexts 50 100 --trials 50 --accuracy 0.3 --effect 0.1 \\
        --error-correlation 0.7 --studies 2000                        # one comparison, closely

A design is so many contexts, decision trials in each, and decisions that follow the weights (`--noise`: the share of
them; 1 without noise). Reports have a planted accuracy before training (their correlation with the *true* weights) and
that plus an effect after it; 10 reports a context, of which a tenth cannot be read. Each simulated study is analysed
by the functions of `analysis.agreement` that analyse a real one. What is learned from decisions and what is reported
are noisy, so r(reports, learned) comes out somewhat below the planted accuracy: `population_r` is what it estimates.

The stable errors of the reports before and after training are independent unless `--error-correlation` says otherwise.
They matter: errors that persist cancel in the difference, so that independent ones are the cautious assumption.

Learned weights are estimated once for a pool of contexts for each number of trials and noise, and studies are drawn
from it with replacement, see `analysis.simulation`. Writes power.csv, power.png, power.pdf and manifest.json.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from analysis.agreement import bootstrap_r, paired_difference, pearson, permutation_null, regression_interval
from analysis.output import check_replaceable, output_folder
from analysis.power_figure import COLOURS, LINES, save_power_figure
from analysis.simulation import Pool, Reporter, before_and_after, draw_contexts, make_pool, population_r
from task.errors import InputError, run_command
from task.seeding import stream

T = TypeVar("T")

POOL = 2000
"""Contexts in a pool."""

RESAMPLES, PERMUTATIONS = 600, 200
"""Fewer than in the analysis of a real study: their noise averages out over studies."""

LEVEL = 0.05
"""Level of the tests, two-sided."""


@dataclass(frozen=True)
class Design:
    """What a study consists of; `noise` is the share of decisions that follow the true weights."""

    contexts: int
    trials: int
    noise: float
    accuracy: float


@dataclass(frozen=True)
class Settings:
    """What all designs share.

    Attributes:
        effects: Accuracies after minus before.
        error_correlation: Of the stable errors before and after, see `analysis.simulation.before_and_after`.
        studies: Simulated studies of each design.
        seed: Of everything drawn.
    """

    effects: tuple[float, ...]
    error_correlation: float
    studies: int
    seed: int


def run_design(design: Design, pool: Pool, settings: Settings) -> list[dict[str, float]]:
    """Simulate and analyse the studies of one design; one row an effect, see `power_row`."""
    before = Reporter(design.accuracy)
    after = [Reporter(design.accuracy + effect) for effect in settings.effects]
    spread = float(pool.true.std())
    rng = stream(settings.seed, f"power/{design}")
    rs, differences = [], []
    for _ in range(settings.studies):
        study = draw_contexts(pool, design.contexts, rng)
        x1, later = before_and_after(before, after, settings.error_correlation, study, spread, rng)
        rs.append(_analyse_r(x1, study.learned, settings.seed))
        differences.append([_analyse_difference(x1, x2, study.learned, settings.seed) for x2 in later])
    truth = population_r(pool, before, settings.seed)
    recovered = pearson(pool.true, pool.learned)
    rows = []
    for i, reporter in enumerate(after):
        gained = population_r(pool, reporter, settings.seed) - truth
        found = power_row(np.array(rs), np.array(differences)[:, i], truth, gained)
        known = {**asdict(design), "effect": settings.effects[i], "error_correlation": settings.error_correlation}
        rows.append({**known, "studies": settings.studies, "recovery": recovered, **found})
    return rows


def _analyse_r(x: np.ndarray, y: np.ndarray, seed: int) -> list[float]:
    """r, its permutation p-value, its bootstrap interval and the paper's, of one study."""
    r = pearson(x, y)
    p = permutation_null(x, y, seed=seed, permutations=PERMUTATIONS)[0]
    points = x.size - int(np.isnan(x).sum())
    return [r, p, *bootstrap_r(x, y, seed=seed, resamples=RESAMPLES), *regression_interval(r, points)]


def _analyse_difference(x1: np.ndarray, x2: np.ndarray, y: np.ndarray, seed: int) -> list[float]:
    """The paired difference of one study, and its interval."""
    found = paired_difference(x1, x2, y, seed=seed, resamples=RESAMPLES)
    return [found.difference, found.boot_low, found.boot_high]


def power_row(rs: np.ndarray, differences: np.ndarray, truth: float, gained: float) -> dict[str, float]:
    """Power and coverage from the studies' results.

    Args:
        rs: r, p, ends of the bootstrap interval, ends of the paper's, shape (studies, 6).
        differences: Difference, ends of its interval, shape (studies, 3).
        truth: The population's r before.
        gained: The population's r after minus that before.

    Returns:
        population_*, mean_*: What is estimated, and the mean estimate.
        power_permutation: Share of studies whose permutation test rejects that reports and weights are unrelated.
        power_bootstrap, power_difference: Share whose interval of r, of the difference, excludes 0.
        coverage_*: Share whose interval holds what is estimated.
    """
    r, p, boot_low, boot_high, hdi_low, hdi_high = rs.T
    difference, low, high = differences.T
    return {
        "population_r": truth,
        "mean_r": float(r.mean()),
        "power_permutation": float((p <= LEVEL).mean()),
        "power_bootstrap": float(1 - _share_within(boot_low, boot_high, 0)),
        "coverage_bootstrap": _share_within(boot_low, boot_high, truth),
        "coverage_regression": _share_within(hdi_low, hdi_high, truth),
        "population_difference": gained,
        "mean_difference": float(difference.mean()),
        "power_difference": float(1 - _share_within(low, high, 0)),
        "coverage_difference": _share_within(low, high, gained),
    }


def _share_within(low: np.ndarray, high: np.ndarray, value: float) -> float:
    return float(((low <= value) & (value <= high)).mean())


def in_parallel(work: Callable[..., T], tasks: Sequence[tuple[Any, ...]], what: str) -> list[T]:
    """`work(*task)` for all tasks on all processors, in the order of the tasks, with a line of progress now and then."""
    # One thread each, or the threads of small products would wait for each other; read when a process imports numpy,
    # and so they are spawned, not forked.
    os.environ.update(OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_NUM_THREADS="1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(os.cpu_count() or 1, len(tasks)), mp_context=context) as executor:
        futures: list[Future[T]] = [executor.submit(work, *task) for task in tasks]
        step = max(1, len(tasks) // 6)
        for done, _ in enumerate(as_completed(futures), start=1):
            if done % step == 0 or done == len(tasks):
                print(f"{what}: {done}/{len(tasks)}", flush=True)
        return [future.result() for future in futures]


def power_table(designs: Sequence[Design], settings: Settings) -> pd.DataFrame:
    """One row a design and effect."""
    kinds = sorted({(design.trials, design.noise) for design in designs})
    pools = in_parallel(make_pool, [(POOL, *kind, settings.seed) for kind in kinds], "pools of learned weights")
    pool_of = dict(zip(kinds, pools, strict=True))
    tasks = [(design, pool_of[design.trials, design.noise], settings) for design in designs]
    return pd.DataFrame([row for rows in in_parallel(run_design, tasks, "designs") for row in rows])


def console_table(table: pd.DataFrame) -> str:
    """One line a design: mean r, the power to find it other than 0, and that to find each effect."""
    keys = list(Design.__dataclass_fields__)
    lines = table.pivot_table(index=keys, columns="effect", values="power_difference", sort=False)
    lines.columns = [f"{effect:+g}" for effect in lines.columns]
    first = table.groupby(keys, sort=False)[["mean_r", "power_permutation"]].first()
    first.columns = ["mean r", "r not 0"]
    return str(first.join(lines).reset_index().to_string(index=False, float_format="{:.2f}".format))


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be simulated or drawn.

    Raises:
        InputError: Names the option, the value and what is possible.
    """
    for name, least in (("contexts", 3), ("trials", 1), ("studies", 1)):
        given = np.atleast_1d(getattr(arguments, name))
        if given.min() < least:
            raise InputError(f"--{name} {given.min()}; give {least} or more")
    for name, low, high in (("accuracy", 0, 1), ("error_correlation", -1, 1)):
        for value in np.atleast_1d(getattr(arguments, name)):
            if not low <= value <= high:
                raise InputError(f"--{name.replace('_', '-')} {value:g}; give {low} to {high}")
    last = max(arguments.accuracy) + max(arguments.effect)
    if last > 1 or min(arguments.accuracy) + min(arguments.effect) < -1:
        raise InputError(f"accuracy plus effect reach {last:g}, a correlation cannot; give smaller ones")
    for name, most in (("accuracy", len(COLOURS)), ("trials", len(LINES))):
        if len(getattr(arguments, name)) > most:
            raise InputError(f"--{name} with {len(getattr(arguments, name))} values; the figure can tell {most} apart")
    for noise in arguments.noise:
        if not 0.5 < noise <= 1:
            raise InputError(f"--noise {noise:g}; give the share of decisions that follow the weights, in (0.5, 1]")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--contexts", type=int, nargs="+", default=[25, 50, 100, 200])
    add("--trials", type=int, nargs="+", default=[25, 50, 100], help="decision trials a context")
    add("--accuracy", type=float, nargs="+", default=[0.3, 0.5, 0.7], help="correlation of reports with true weights")
    add("--effect", type=float, nargs="+", default=[0.1, 0.2, 0.3], help="accuracy after minus before")
    add("--noise", type=float, nargs="+", default=[0.82], help="share of decisions that follow the weights; 1: all")
    add("--error-correlation", type=float, default=0.0, help="of the reports' stable errors before and after")
    add("--studies", type=int, default=400, help="simulated studies of each design")
    add("--seed", type=int, default=0)
    add("--out", type=Path, required=True, help="folder for the results")
    return parser.parse_args()


def main() -> None:
    """Command line."""
    arguments = parse_arguments()
    check(arguments)
    check_replaceable(arguments.out, "analysis.power")
    settings = Settings(tuple(arguments.effect), arguments.error_correlation, arguments.studies, arguments.seed)
    grid = itertools.product(arguments.noise, arguments.trials, arguments.accuracy, arguments.contexts)
    designs = [Design(contexts, trials, noise, accuracy) for noise, trials, accuracy, contexts in grid]
    table = power_table(designs, settings)
    asked = {name: value for name, value in vars(arguments).items() if name != "out"}
    with output_folder(arguments.out, "analysis.power", asked) as draft:
        table.to_csv(draft / "power.csv", index=False, float_format="%.4f")
        save_power_figure(table, draft / "power.png")
    print(console_table(table))
    error = 0.5 / np.sqrt(settings.studies)
    print(f"\npower, two-sided at {LEVEL:.0%}, from {settings.studies} studies each: +-{error:.2f} at most (1 sd)")
    print(f"{arguments.out}: power.csv (with means and coverage), power.png, power.pdf")


if __name__ == "__main__":
    run_command(main)
