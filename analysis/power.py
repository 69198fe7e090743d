"""How many contexts and trials a study needs: power and coverage by simulation, before anything is trained.

    python -m analysis.power --out runs/power                         # the usual designs (about a minute)
    python -m analysis.power --out runs/power --contexts 50 100 --trials 50 --accuracy 0.3 --effect 0.1 \\
        --error-correlation 0.7 --studies 2000                        # one comparison, closely

A design is so many contexts, decision trials in each, and decisions that follow the weights (`--noise`: the share of
them; 1 without noise). Reports have a planted accuracy before training (their correlation with the *true* weights) and
that plus an effect after it; 10 reports a context, of which a tenth cannot be read. Each simulated study is analysed
by the functions of `analysis.stats.agreement` that analyse a real one. What is learned from decisions and what is
reported are noisy, so r(reports, learned) comes out somewhat below the planted accuracy: `population_r` is what it
estimates.

The stable errors of the reports before and after training are independent unless `--error-correlation` says otherwise.
They matter: errors that persist cancel in the difference, so that independent ones are the cautious assumption.

Learned weights are estimated once for a pool of contexts for each number of trials and noise, and studies are drawn
from it with replacement, see `analysis.stats.simulation`. Writes power.csv, power.png, power.pdf and manifest.json.
"""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from analysis.pages.power_figure import LINES, MARKERS, save_power_figure
from analysis.stats.agreement import bootstrap_r, paired_difference, pearson, permutation_null, regression_interval
from analysis.stats.simulation import Array, Pool, Reporter, before_and_after, draw_contexts, make_pool, population_r
from analysis.study.output import output_folder
from store.console import run_command
from task.errors import InputError
from task.seeding import stream

S = TypeVar("S")
T = TypeVar("T")

POOL = 2000
"""Contexts in a pool: more than enough to stand for all contexts, see `analysis.stats.simulation`."""

RESAMPLES, PERMUTATIONS = 600, 199
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
        studies: Simulated studies of each design.
        seed: Of everything drawn.
        error_correlation: Of the stable errors before and after, see `analysis.stats.simulation.before_and_after`.
        resamples, permutations: Of each study's analysis.
    """

    studies: int
    seed: int
    error_correlation: float = 0.0
    resamples: int = RESAMPLES
    permutations: int = PERMUTATIONS


def run_design(design: Design, effects: Sequence[float], pool: Pool, settings: Settings) -> list[dict[str, Any]]:
    """Simulate and analyse the studies of one design; one row an effect, see `power_row`."""
    before = Reporter(design.accuracy)
    after = [Reporter(design.accuracy + effect) for effect in effects]
    found = run_studies(before, after, pool, design.contexts, settings)
    known = {"error_correlation": settings.error_correlation, "studies": settings.studies}
    known["recovery"] = pearson(pool.true, pool.learned)
    return [{**asdict(design), "effect": e, **known, **row} for e, row in zip(effects, found, strict=True)]


def run_studies(
    before: Reporter, after: Sequence[Reporter], pool: Pool, contexts: int, settings: Settings
) -> list[dict[str, float]]:
    """Simulate and analyse studies of so many contexts; one row of `power_row` for each reporter after training."""
    spread = float(pool.true.std())
    rng = stream(settings.seed, f"power/{before}/{after}/{contexts}/{settings}")
    rs, differences = [], []
    for _ in range(settings.studies):
        study = draw_contexts(pool, contexts, rng)
        x1, later = before_and_after(before, after, settings.error_correlation, study, spread, rng)
        rs.append(_analyse_r(x1, study.learned, settings))
        differences.append([_analyse_difference(x1, x2, study.learned, settings) for x2 in later])
    truth = population_r(pool, before, settings.seed)
    gained = [population_r(pool, reporter, settings.seed) - truth for reporter in after]
    return [power_row(np.array(rs), np.array(differences)[:, i], truth, gain) for i, gain in enumerate(gained)]


def _analyse_r(x: Array, y: Array, settings: Settings) -> list[float]:
    """r, its permutation p-value, its bootstrap interval and the paper's, of one study."""
    r = pearson(x, y)
    p = permutation_null(x, y, seed=settings.seed, permutations=settings.permutations)[0]
    boot = bootstrap_r(x, y, seed=settings.seed, resamples=settings.resamples)
    return [r, p, *boot, *regression_interval(r, int((~np.isnan(x)).sum()))]


def _analyse_difference(x1: Array, x2: Array, y: Array, settings: Settings) -> list[float]:
    """The paired difference of one study, and its interval."""
    found = paired_difference(x1, x2, y, seed=settings.seed, resamples=settings.resamples)
    return [found.difference, found.boot_low, found.boot_high]


def power_row(rs: Array, differences: Array, truth: float, gained: float) -> dict[str, float]:
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


def _share_within(low: Array, high: Array, value: float) -> float:
    return float(((low <= value) & (value <= high)).mean())


def in_parallel(work: Callable[..., T], tasks: Sequence[tuple[Any, ...]], what: str, workers: int) -> list[T]:
    """`work(*task)` for all tasks, in so many processes, in the order of the tasks; prints how far it is."""
    if workers == 1:
        return [work(*task) for task in _progress(tasks, what, len(tasks))]
    # One thread each, or the threads of small products would wait for each other; read when a process imports numpy,
    # and so they are spawned, not forked.
    os.environ.update(OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_NUM_THREADS="1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as executor:
        futures: list[Future[T]] = [executor.submit(work, *task) for task in tasks]
        for future in _progress(as_completed(futures), what, len(tasks)):
            future.result()  # an error ends the work at once
        return [future.result() for future in futures]


def _progress(steps: Iterable[S], what: str, total: int) -> Iterator[S]:
    """The steps, with a line printed after about every sixth of them."""
    for done, step in enumerate(steps, start=1):
        yield step
        if done % max(1, total // 6) == 0 or done == total:
            print(f"{what}: {done}/{total}", flush=True)


def power_table(
    designs: Sequence[Design], effects: Sequence[float], size: int, settings: Settings, workers: int
) -> pd.DataFrame:
    """One row a design and effect, from pools of `size` contexts, computed in so many processes."""
    kinds = sorted({(design.trials, design.noise) for design in designs})
    pools = in_parallel(
        make_pool, [(size, *kind, settings.seed) for kind in kinds], "pools of learned weights", workers
    )
    pool_of = dict(zip(kinds, pools, strict=True))
    tasks = [(design, effects, pool_of[design.trials, design.noise], settings) for design in designs]
    return pd.DataFrame([row for rows in in_parallel(run_design, tasks, "designs", workers) for row in rows])


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
    for name, low, high in (
        ("contexts", 3, math.inf),
        ("trials", 1, math.inf),
        ("studies", 1, math.inf),
        ("pool", 2, math.inf),
        ("workers", 1, math.inf),
        ("accuracy", -1, 1),
        ("error_correlation", -1, 1),
    ):
        for value in np.atleast_1d(getattr(arguments, name)):
            if not low <= value <= high:
                allowed = f"{low} or more" if high == math.inf else f"{low} to {high}"
                raise InputError(f"--{name.replace('_', '-')} {value:g}; give {allowed}")
    for accuracy, effect in itertools.product(arguments.accuracy, arguments.effect):
        if abs(accuracy + effect) > 1:
            raise InputError(f"--accuracy {accuracy:g} with --effect {effect:g} is no correlation; give smaller ones")
    for noise in arguments.noise:
        if not 0.5 < noise <= 1:
            raise InputError(f"--noise {noise:g}; give the share of decisions that follow the weights, above 0.5 to 1")
    for name, most in (("accuracy", len(MARKERS)), ("trials", len(LINES))):
        if (values := len(getattr(arguments, name))) > most:
            raise InputError(f"--{name} with {values} values; the figure tells {most} apart, so give no more")


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
    grid = itertools.product(arguments.noise, arguments.trials, arguments.accuracy, arguments.contexts)
    designs = [Design(contexts, trials, noise, accuracy) for noise, trials, accuracy, contexts in grid]
    asked = {name: value for name, value in vars(arguments).items() if name not in ("out", "workers")}
    with output_folder(arguments.out, "analysis.power", asked) as draft:
        table = power_table(designs, arguments.effect, arguments.pool, settings, arguments.workers)
        table.to_csv(draft / "power.csv", index=False, float_format="%.4f")
        save_power_figure(table, draft / "power.png")
    print(console_table(table))
    error = 0.5 / np.sqrt(settings.studies)
    print(f"\npower, two-sided at {LEVEL:.0%}, from {settings.studies} studies each: +-{error:.2f} at most (1 sd)")
    print(f"{arguments.out}: power.csv (with means and coverage), power.png, power.pdf")


if __name__ == "__main__":
    run_command(main)
