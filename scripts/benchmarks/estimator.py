"""How long the logistic estimator takes beside brms on the same trials.

    python scripts/benchmarks/estimator.py

The seconds of brms were measured when its posteriors were made (scripts/brms_reference/, where they can be measured
again): brm's default of 4 chains x 2000 iterations, one after the other, with the Stan program compiled beforehand. Its
Monte Carlo error then is about 0.01, like ours. Its seconds are those of the draws; ours are given for the posterior
means, standard deviations and diagnostics, which is what every analysis here asks for, and once more with intervals.
Ratios are of processor seconds.
"""

from __future__ import annotations

import argparse
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.stats.estimators import logistic_posterior
from scripts.benchmarks.timing import machine, show, timed
from scripts.brms_reference.trials import Decisions, read_trials
from store.console import run_command
from store.files import read_json
from store.paths import ROOT

FIXTURES = ROOT / "tests" / "analysis" / "stats" / "fixtures"

REPEATS = 5


def by_trials(group: Decisions) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """The choices and differences of a group, apart by number of trials, so that no time goes to padding."""
    trials = (~np.isnan(group.chose_a)).sum(axis=1)
    return [(group.chose_a[trials == n, :n], group.difference[trials == n, :n]) for n in np.unique(trials)]


def main() -> None:
    """Print seconds a context on the trials that brms was timed on, and how many times as long brms takes."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    run = read_json(FIXTURES / "brms_run.json")
    brms = pd.DataFrame(run["fits"])[["processor", "wall"]].mean()
    groups = read_trials(FIXTURES / "brms_reference.csv")
    contexts = sum(len(group.contexts) for group in groups)
    shapes = [shape for group in groups for shape in by_trials(group)]

    def fit_all(intervals: bool) -> None:
        for chose_a, difference in shapes:
            logistic_posterior(chose_a, difference, intervals=intervals)

    rows = [{"fit": f"brms {run['versions']['brms']}, on {run['machine']}", **brms.round(5), "brms takes times": 1}]
    for intervals, what in ((False, "ours: means and sds"), (True, "ours, with intervals")):
        fit_all(intervals)  # warms up
        seconds = pd.Series(timed(partial(fit_all, intervals), REPEATS)._asdict()) / contexts
        rows.append({"fit": what, **seconds.round(5), "brms takes times": round(brms.processor / seconds.processor)})
    show(f"seconds a context, {contexts} contexts, {machine()}", rows)


if __name__ == "__main__":
    run_command(main)
