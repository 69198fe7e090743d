"""How long the logistic estimator takes, beside a fit of one context after another.

python scripts/benchmarks/estimator.py
python scripts/benchmarks/estimator.py --contexts 100 --trials 50
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from analysis.stats.estimators import WeightPosterior, logistic_posterior
from analysis.stats.logistic import PRIOR_DF, PRIOR_SCALE, laplace, signed_design
from task.seeding import stream

REPEATS = 5
"""Both are run this often, and the median is printed."""


def simulate(contexts: int, trials: int, attributes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Choices (contexts, trials) and differences (contexts, trials, attributes), with weights from the prior."""
    rng = stream(0, "benchmark_estimator")
    difference = rng.random((contexts, trials, attributes)) - rng.random((contexts, trials, attributes))
    weights = rng.normal(size=(contexts, attributes))
    probability = expit((difference @ weights[..., None])[..., 0])
    return (rng.random((contexts, trials)) < probability).astype(float), difference


def fit_one(chose_a: NDArray[np.float64], difference: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
    """Posterior mode and Laplace sd of one context's slopes under the same model, by `scipy.optimize.minimize`.

    Args:
        chose_a: 0 or 1, shape (trials,).
        difference: Shape (trials, attributes).
    """
    design = np.column_stack([np.ones(len(difference)), difference - difference.mean(axis=0)])
    design *= (2 * chose_a - 1)[:, None]

    def objective(theta: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = design @ theta
        intercept, slopes = theta[0], theta[1:]
        prior = (PRIOR_DF + 1) / 2 * np.log1p((intercept / PRIOR_SCALE) ** 2 / PRIOR_DF) + slopes @ slopes / 2
        pull = np.append((PRIOR_DF + 1) * intercept / (PRIOR_DF * PRIOR_SCALE**2 + intercept**2), slopes)
        return np.logaddexp(0, -margin).sum() + prior, pull - design.T @ expit(-margin)

    mode = minimize(objective, np.zeros(design.shape[1]), jac=True, method="BFGS").x
    chosen = expit(design @ mode)
    bound = PRIOR_DF * PRIOR_SCALE**2
    curvature = (PRIOR_DF + 1) * (bound - mode[0] ** 2) / (bound + mode[0] ** 2) ** 2
    precision = np.diag(np.append(curvature, np.ones(len(mode) - 1)))
    covariance = np.linalg.inv((design.T * (chosen * (1 - chosen))) @ design + precision)
    return mode[1:], np.sqrt(np.diagonal(covariance)[1:])


def median_seconds(run: Callable[[], object]) -> float:
    """Median wall time of `REPEATS` runs, after one that only warms up."""
    run()
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def main() -> None:
    """Print seconds, their ratios, and how far the modes are from the posterior means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, default=200)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--attributes", type=int, default=5)
    arguments = parser.parse_args()
    chose_a, difference = simulate(arguments.contexts, arguments.trials, arguments.attributes)

    def fit_each() -> list[tuple[NDArray[np.float64], ...]]:
        return [fit_one(y, x) for y, x in zip(chose_a, difference, strict=True)]

    def posterior_each() -> list[WeightPosterior]:
        return [logistic_posterior(y[None], x[None]) for y, x in zip(chose_a, difference, strict=True)]

    seconds = {
        "posterior means, sds, intervals, all contexts together": lambda: logistic_posterior(chose_a, difference),
        "  the same, one context after another": posterior_each,
        "modes and Laplace sds only, all contexts together": lambda: laplace(signed_design(chose_a, difference)),
        "  the same, one context after another (scipy.optimize)": fit_each,
    }
    print(f"{arguments.contexts} contexts x {arguments.trials} trials x {arguments.attributes} attributes")
    print(f"seconds (median of {REPEATS}), and as a multiple of the first:")
    measured = {what: median_seconds(run) for what, run in seconds.items()}
    for what, value in measured.items():
        print(f"  {what:<56} {value:7.3f} {value / next(iter(measured.values())):7.2f}")
    posterior = logistic_posterior(chose_a, difference)
    modes, sds = (np.array(part) for part in zip(*fit_each(), strict=True))
    print(
        f"largest |posterior mean - mode|: {np.abs(posterior.mean - modes).max():.3f}; they differ by definition, as a"
    )
    print(f"skewed posterior's mean is not its mode; largest |sd - Laplace sd|: {np.abs(posterior.sd - sds).max():.3f}")
    print(f"largest Pareto k: {posterior.pareto_k.max():.2f}; fewest effective draws: {posterior.ess.min():.0f}")


if __name__ == "__main__":
    main()
