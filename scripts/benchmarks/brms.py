"""How long our logistic estimator takes beside brms on the same trials, and how its time grows with the contexts.

python scripts/benchmarks/brms.py
python scripts/benchmarks/brms.py --rerun     # also time a fit of brms here; needs R with brms, compiles for a minute

The seconds of brms were measured when its posteriors were made (scripts/brms_reference/): brm's default of 4 chains x
2000 iterations, one after the other, with the Stan program compiled beforehand. Its Monte Carlo error then is about
0.01, like ours. Its seconds are those of the draws; ours are given for the posterior means, standard deviations and
diagnostics, which is what every analysis here asks for, and once more with the intervals. Compared are processor
seconds, which other jobs on the machine change less than those of the clock.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.stats.estimators import logistic_posterior
from analysis.study.released_files import Decisions
from scripts.benchmarks.estimator import simulate
from scripts.brms_reference.trials import read_trials
from store.files import read_json
from store.paths import ROOT

FIXTURES = ROOT / "tests" / "analysis" / "stats" / "fixtures"
FIT = ROOT / "scripts" / "brms_reference" / "fit.R"

GOAL = 500
SIZES = (100, 300, 1000, 3000, 10_000)
TRIALS, ATTRIBUTES = 50, 5
REPEATS = 15


def seconds(run: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Medians of the processor seconds and of the wall seconds of some runs."""
    measured = []
    for _ in range(repeats):
        start = time.process_time(), time.perf_counter()
        run()
        measured.append((time.process_time() - start[0], time.perf_counter() - start[1]))
    processor, wall = np.median(measured, axis=0)
    return float(processor), float(wall)


def rerun() -> dict[str, Any] | None:
    """What fit.R measures here and now on one context of 50 trials x 5 attributes; None without R and brms."""
    rscript = shutil.which("Rscript")
    if rscript is None or subprocess.run([rscript, "-e", "library(brms)"], capture_output=True).returncode:
        return None
    with tempfile.TemporaryDirectory() as folder:
        trials, posteriors, run = (Path(folder) / name for name in ("trials.csv", "posteriors.csv", "run.json"))
        table = pd.read_csv(FIXTURES / "brms_reference.csv")
        table[table["context"] == f"noisy_{TRIALS}x{ATTRIBUTES}"].to_csv(trials, index=False)
        result = subprocess.run([rscript, FIT, trials, posteriors, run], capture_output=True, text=True)
        if result.returncode:
            sys.exit(f"{FIT}: {result.stderr.strip()[-600:]}")
        return read_json(run)


def by_trials(group: Decisions) -> list[Decisions]:
    """The contexts of a group apart by their number of trials, so that no time goes to padding."""
    trials = (~np.isnan(group.chose_a)).sum(axis=1)
    return [
        Decisions(
            [name for name, here in zip(group.contexts, trials == count, strict=True) if here],
            group.chose_a[trials == count, :count],
            group.difference[trials == count, :count],
        )
        for count in np.unique(trials)
    ]


def print_brms(run: dict[str, Any]) -> float:
    """Print what a run of fit.R measured; returns the mean processor seconds of a fit."""
    versions, compiled = run["versions"], run["compile_seconds"]
    fits = pd.DataFrame(run["fits"])
    mean = fits[["stan", "processor", "wall"]].mean()
    print(f"brms {versions['brms']}, rstan {versions['rstan']}; measured on {run['measured']}, {run['machine']}")
    print(f"  compiling, once:           {compiled['processor']:9.3f} processor seconds, {compiled['wall']:9.3f} wall")
    print(f"  a fit, mean of {len(fits):4}:       {mean['processor']:9.3f} processor seconds, {mean['wall']:9.3f} wall")
    print(f"  sampling alone (Stan's own): {mean['stan']:7.3f}")
    return float(mean["processor"])


def print_ours(brms: float) -> None:
    """Print our seconds on the trials that brms was timed on, and how many times as long `brms` seconds a fit are."""
    groups = read_trials(FIXTURES / "brms_reference.csv")
    contexts = sum(len(group.contexts) for group in groups)
    shapes = [shape for group in groups for shape in by_trials(group)]

    def fit_all(intervals: bool) -> None:
        for shape in shapes:
            logistic_posterior(shape.chose_a, shape.difference, intervals=intervals)

    print(f"ours, on the same {contexts} contexts, now (median of {REPEATS})")
    for intervals, what in ((False, "means and sds:"), (True, "with intervals:")):
        fit_all(intervals)
        processor, wall = (value / contexts for value in seconds(partial(fit_all, intervals), REPEATS))
        print(f"  a context, {what:16}{processor:9.5f} processor seconds, {wall:9.5f} wall")
        print(f"    brms takes {brms / processor:.0f} times as long (goal: {GOAL})")


def print_growth() -> None:
    """Print our seconds for more and more contexts, and the exponent: the slope of log seconds on log contexts."""
    print(f"our time with the contexts, {TRIALS} trials x {ATTRIBUTES} attributes each")
    taken = []
    for size in SIZES:
        chose_a, difference = simulate(size, TRIALS, ATTRIBUTES)
        repeats = 5 if size <= 1000 else 1
        processor, wall = seconds(partial(logistic_posterior, chose_a, difference, intervals=False), repeats)
        taken.append(processor)
        each = 1000 * processor / size
        print(f"  {size:6} contexts  {processor:9.3f} processor seconds, {wall:9.3f} wall, {each:6.2f} ms a context")
    exponent = np.polyfit(np.log(SIZES), np.log(taken), 1)[0]
    print(f"  seconds grow like contexts^{exponent:.2f}")


def main() -> None:
    """Print everything; see the top of this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rerun", action="store_true", help="also time a fit of brms on this machine")
    arguments = parser.parse_args()
    print_ours(print_brms(read_json(FIXTURES / "brms_run.json")))
    print_growth()
    if arguments.rerun:
        run = rerun()
        if run is None:
            sys.exit("--rerun needs Rscript with brms; see scripts/brms_reference/README.md for the packages")
        print("here and now, one context:")
        print_brms(run)


if __name__ == "__main__":
    main()
