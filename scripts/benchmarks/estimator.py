"""How long the logistic estimator takes: beside brms, beside a fit of one context after another, with more contexts.

    python scripts/benchmarks/estimator.py

The seconds of brms were measured when its posteriors were made (scripts/brms_reference/, where they can be measured
again): brm's default of 4 chains x 2000 iterations, one after the other, with the Stan program compiled beforehand. Its
Monte Carlo error then is about 0.01, like ours. Its seconds are those of the draws; ours are given for the posterior
means, standard deviations and diagnostics, which is what every analysis here asks for, and once more with intervals.
Ratios are of processor seconds.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from analysis.stats.estimators import logistic_posterior
from analysis.stats.logistic import PRIOR_DF, PRIOR_SCALE, laplace, signed_design
from analysis.study.released_files import Decisions
from scripts.benchmarks.timing import machine, show, timed
from scripts.brms_reference.trials import read_trials
from store.console import run_command, say
from store.files import read_json
from store.paths import ROOT
from task.seeding import stream

Array = NDArray[np.float64]

FIXTURES = ROOT / "tests" / "analysis" / "stats" / "fixtures"

SIZES = (100, 300, 1000, 3000, 10_000)
TRIALS, ATTRIBUTES = 50, 5
APART = 200
"""Contexts that are fitted together and one after another."""

REPEATS = 5


def simulate(contexts: int) -> tuple[Array, Array]:
    """Choices (contexts, trials) and differences (contexts, trials, attributes), with weights from the prior."""
    rng = stream(0, "benchmark_estimator")
    shape = (contexts, TRIALS, ATTRIBUTES)
    difference = rng.random(shape) - rng.random(shape)
    weights = rng.normal(size=(contexts, ATTRIBUTES))
    probability = expit((difference @ weights[..., None])[..., 0])
    return (rng.random((contexts, TRIALS)) < probability).astype(float), difference


def fit_one(chose_a: Array, difference: Array) -> Array:
    """Posterior mode of one context's slopes under the same model, by `scipy.optimize.minimize`.

    Args:
        chose_a: 0 or 1, shape (trials,).
        difference: Shape (trials, attributes).
    """
    design = np.column_stack([np.ones(len(difference)), difference - difference.mean(axis=0)])
    design *= (2 * chose_a - 1)[:, None]

    def objective(theta: Array) -> tuple[float, Array]:
        margin = design @ theta
        intercept, slopes = theta[0], theta[1:]
        prior = (PRIOR_DF + 1) / 2 * np.log1p((intercept / PRIOR_SCALE) ** 2 / PRIOR_DF) + slopes @ slopes / 2
        pull = np.append((PRIOR_DF + 1) * intercept / (PRIOR_DF * PRIOR_SCALE**2 + intercept**2), slopes)
        return np.logaddexp(0, -margin).sum() + prior, pull - design.T @ expit(-margin)

    return minimize(objective, np.zeros(design.shape[1]), jac=True, method="BFGS").x[1:]


def by_trials(group: Decisions) -> list[tuple[Array, Array]]:
    """The choices and differences of a group, apart by number of trials, so that no time goes to padding."""
    trials = (~np.isnan(group.chose_a)).sum(axis=1)
    return [(group.chose_a[trials == n, :n], group.difference[trials == n, :n]) for n in np.unique(trials)]


def beside_brms() -> None:
    """Print seconds a context on the trials that brms was timed on, and how many times as long brms takes."""
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
    show(f"seconds a context, {contexts} contexts", rows)


def one_after_another() -> None:
    """Print what fitting contexts together saves, and that both fits find about the same."""
    chose_a, difference = simulate(APART)
    modes: list[Array] = []

    def fit_each() -> None:
        modes[:] = [fit_one(y, x) for y, x in zip(chose_a, difference, strict=True)]

    def posterior_each() -> None:
        for y, x in zip(chose_a, difference, strict=True):
            logistic_posterior(y[None], x[None])

    rows: list[dict[str, Any]] = []
    for what, run in (
        ("means, sds, intervals, together", lambda: logistic_posterior(chose_a, difference)),
        ("the same, one after another", posterior_each),
        ("modes, together", lambda: laplace(signed_design(chose_a, difference))),
        ("the same, one after another (scipy.optimize)", fit_each),
    ):
        run()
        processor, wall = timed(run, REPEATS)
        first = rows[0]["processor"] if rows else processor
        rows.append({"fit": what, "processor": processor, "wall": wall, "ratio": round(processor / first, 2)})
    show(f"seconds, {APART} contexts x {TRIALS} trials x {ATTRIBUTES} attributes", rows)
    posterior = logistic_posterior(chose_a, difference)
    apart = np.abs(posterior.mean - modes).max()
    say(f"largest |posterior mean - mode|: {apart:.3f} (they differ where a posterior is skewed)")
    say(f"largest Pareto k: {posterior.pareto_k.max():.2f}; fewest effective draws: {posterior.ess.min():.0f}\n")


def growth() -> None:
    """Print seconds for more and more contexts, and the exponent: the slope of log seconds on log contexts."""
    rows = []
    for size in SIZES:
        fit = partial(logistic_posterior, *simulate(size), intervals=False)
        processor, wall = timed(fit, REPEATS if size <= 1000 else 1)
        each = round(1000 * processor / size, 2)
        rows.append({"contexts": size, "processor": processor, "wall": wall, "ms a context": each})
    show("seconds with the contexts", rows)
    exponent = np.polyfit(np.log(SIZES), np.log([row["processor"] for row in rows]), 1)[0]
    say(f"seconds grow like contexts^{exponent:.2f}")


def main() -> None:
    """Print everything; see the top of this file."""
    say(machine())
    beside_brms()
    one_after_another()
    growth()


if __name__ == "__main__":
    run_command(main)
