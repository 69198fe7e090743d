"""Studies with planted weights and reports, as arrays: what power and the calibration of intervals are measured on.

A study is a number of contexts with true weights, weights learned from simulated decisions, and simulated reports.
Learning is by far the slowest part (a logistic posterior a context), so it is done once for a pool of some thousand
contexts; a study draws its contexts from the pool *with replacement* and gets fresh reports. The pool then is the
population that the study samples, no approximation to another one: contexts of a study are independent, and the
population's correlation, which an interval should cover, is known as closely as reports are drawn for the whole pool
(`population_r`). That two studies share some contexts, or that a study of 100 holds one context twice, changes nothing
about the distribution of a single study's result.

Simplifications: option values are not rounded to a grid, the letter's position does not matter, and reports are
neither rounded nor cut off at +-100.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import expit

from analysis.stats.estimators import log_odds_weights, logistic_posterior
from task.errors import InputError
from task.seeding import stream
from task.weights import LARGEST, Estimator, rescale

Array = NDArray[np.float64]

ATTRIBUTES = 5
"""Attributes of a context, as in the paper."""

POOL_DRAWS = 512
"""Draws of each posterior: means within about 0.02 of the truth, where a posterior sd is 0.6."""

POPULATION_REPEATS = 50
"""Times that reports are drawn for the whole pool: with 2000 contexts, the population's r errs by about 0.001."""

KNOWN_ACCURACY = 0.95
"""Accuracy in the contexts that an uneven reporter knows; in the others it is 0."""


@dataclass(frozen=True)
class Decisions:
    """Choices (1 for A) at differences (A - B) / range, by true weights whose largest is 100.

    `slopes` are the weights in log odds per full range, the scale of the regression; infinite without noise.
    `log_odds` are those of A, whose sign is the choice; without noise they are utilities.
    """

    true: Array
    slopes: Array
    chose_a: Array
    difference: Array
    log_odds: Array


@dataclass(frozen=True)
class Pool:
    """The contexts that studies are drawn from: true and learned weights, each (contexts, attributes)."""

    true: Array
    learned: Array


@dataclass(frozen=True)
class Reporter:
    """How reports come about. What is believed of a context is the same in each of its reports; noise is fresh.

    Attributes:
        accuracy: Correlation of what is believed with the true weights, over all attributes of all contexts.
        per_context: Reports asked for in each context.
        noise: Standard deviation of the fresh noise of one report, on the scale of the weights.
        unreadable: Share of reports that are missing.
        shared_error: Share of the variance of the stable error that the attributes of a context have in common.
        scale_spread: Standard deviation of the logarithm of a factor on all reports of a context.
        uneven: Accuracy differs: `KNOWN_ACCURACY` in as many contexts as make `accuracy` overall, 0 in the others.
    """

    accuracy: float
    per_context: int = 10
    noise: float = 10.0
    unreadable: float = 0.1
    shared_error: float = 0.0
    scale_spread: float = 0.0
    uneven: bool = False


def sample_true_weights(contexts: int, rng: np.random.Generator, lean: float = 0.0) -> Array:
    """Draws from U(-100, 100), rescaled to a largest of 100 and rounded, shape (contexts, attributes).

    With `lean`, this share of the variance before rescaling belongs to the context: its weights lean to one side,
    as native preferences do where most attributes are merits.
    """
    own = rng.uniform(-LARGEST, LARGEST, (contexts, ATTRIBUTES))
    common = rng.uniform(-LARGEST, LARGEST, (contexts, 1))
    return np.round(rescale(math.sqrt(1 - lean) * own + math.sqrt(lean) * common)) + 0.0


def simulate_decisions(contexts: int, trials: int, follows: float, seed: int, lean: float = 0.0) -> Decisions:
    """Choices between options with values uniform in range, by true weights and noise on the utility difference.

    The noise is logistic, which is the estimator's own model, and equally strong in all contexts.

    `follows` is the share of decisions that go to the option of higher utility; 1 without noise.

    Raises:
        InputError: `follows` is not above one half and at most 1.
    """
    if not 0.5 < follows <= 1:
        raise InputError(f"a share of {follows:g} of decisions following the weights; give more than 0.5, at most 1")
    rng = stream(seed, f"simulation/decisions/{trials}/{follows}/{lean}")
    true = sample_true_weights(contexts, rng, lean)
    difference = rng.random((contexts, trials, ATTRIBUTES)) - rng.random((contexts, trials, ATTRIBUTES))
    utility = (difference @ true[..., None])[..., 0]
    scale, size = 0.0, np.abs(utility)
    if follows < 1:
        scale = np.exp(brentq(lambda log_scale: expit(size / np.exp(log_scale)).mean() - follows, -10.0, 15.0))
    leaning = utility + scale * rng.logistic(size=utility.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        return Decisions(true, true / scale, (leaning > 0).astype(float), difference, leaning / (scale or 1.0))


def make_pool(
    contexts: int, trials: int, follows: float, seed: int, lean: float = 0.0, estimator: Estimator = "logistic"
) -> Pool:
    """Contexts with true weights, and what an estimator learns from `trials` decisions in each.

    The paper's estimator learns from the choices in one order of each pair, that by log odds from both. Both orders
    have the same noise here, so the second one adds nothing, which is cautious: on the model organism, what least
    squares leaves over correlates between the orders at .85 to .91 in instilled contexts.
    """
    made = simulate_decisions(contexts, trials, follows, seed, lean)
    if estimator == "log_odds":
        return Pool(made.true, rescale(log_odds_weights(made.log_odds, made.difference)))
    posterior = logistic_posterior(made.chose_a, made.difference, seed=seed, draws=POOL_DRAWS, intervals=False)
    return Pool(made.true, rescale(posterior.mean))


def stable_error(reporter: Reporter, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """What a reporter believes wrongly, in standard deviations, shape (..., attributes)."""
    own, common = rng.normal(size=shape), rng.normal(size=(*shape[:-1], 1))
    return math.sqrt(1 - reporter.shared_error) * own + math.sqrt(reporter.shared_error) * common


def beliefs(reporter: Reporter, true: Array, spread: float, error: Array, rng: np.random.Generator) -> Array:
    """What all reports of a context have in common, on the scale of the weights.

    accuracy x weight + sqrt(1 - accuracy^2) x spread x error, which has the weights' own spread: `spread` is that of
    the population. `true` and `error`, from `stable_error`, have shape (..., attributes).
    """
    accuracy = np.full((*true.shape[:-1], 1), reporter.accuracy)
    if reporter.uneven:
        accuracy = np.where(rng.random(accuracy.shape) < accuracy / KNOWN_ACCURACY, KNOWN_ACCURACY, 0.0)
    believed = accuracy * true + np.sqrt(1 - accuracy**2) * spread * error
    return np.asarray(believed * np.exp(reporter.scale_spread * rng.normal(size=accuracy.shape)))


def single_reports(reporter: Reporter, believed: Array, rng: np.random.Generator) -> Array:
    """Each report, shape (contexts, per_context, attributes), NaN where unreadable; see `mean_reports`."""
    contexts, attributes = believed.shape
    values = believed[:, None] + reporter.noise * rng.normal(size=(contexts, reporter.per_context, attributes))
    unreadable = rng.random((contexts, reporter.per_context, 1)) < reporter.unreadable
    return np.where(unreadable, np.nan, values)


def average_reports(reporter: Reporter, believed: Array, rng: np.random.Generator) -> Array:
    """Mean of the readable reports, NaN in a context without any; shape of `believed`, (..., attributes).

    The mean of k reports is drawn as such, with the noise divided by sqrt(k): the same distribution as that of
    averaged `single_reports` in a fraction of the time.
    """
    readable = rng.binomial(reporter.per_context, 1 - reporter.unreadable, size=(*believed.shape[:-1], 1))
    with np.errstate(divide="ignore"):
        noise = np.where(readable > 0, reporter.noise / np.sqrt(readable), np.nan)
    return np.asarray(believed + noise * rng.normal(size=believed.shape))


def population_r(pool: Pool, reporter: Reporter, seed: int) -> float:
    """Correlation of mean reports with learned weights in the whole population: what an interval of r should cover.

    It is below `reporter.accuracy`, as both sides are measured with noise.
    """
    rng = stream(seed, f"simulation/population/{reporter}")
    sums = np.zeros(6)
    for _ in range(POPULATION_REPEATS):
        error = stable_error(reporter, pool.true.shape, rng)
        x = average_reports(reporter, beliefs(reporter, pool.true, float(pool.true.std()), error, rng), rng)
        known = ~np.isnan(x)
        x, y = x[known], pool.learned[known]
        sums += np.array([x.size, x.sum(), y.sum(), x @ x, y @ y, x @ y])
    n, sum_x, sum_y, square_x, square_y, product = sums
    covariance = product / n - sum_x * sum_y / n**2
    return float(covariance / math.sqrt((square_x / n - (sum_x / n) ** 2) * (square_y / n - (sum_y / n) ** 2)))


def draw_contexts(pool: Pool, contexts: int, rng: np.random.Generator) -> Pool:
    """The contexts of one study, drawn with replacement."""
    rows = rng.integers(len(pool.true), size=contexts)
    return Pool(pool.true[rows], pool.learned[rows])


def before_and_after(
    before: Reporter,
    after: Sequence[Reporter],
    error_correlation: float,
    study: Pool,
    spread: float,
    rng: np.random.Generator,
) -> tuple[Array, list[Array]]:
    """Mean reports of one reporter, and of what may have become of it, on the same contexts.

    Each of `after` is an alternative of its own. `error_correlation` is that of the stable errors before and after: 0
    if training brings new beliefs throughout, 1 if what was believed wrongly before is, in the same proportions,
    believed wrongly after. `spread` is the standard deviation of the true weights in the population.
    """
    error = stable_error(before, study.true.shape, rng)
    x = average_reports(before, beliefs(before, study.true, spread, error, rng), rng)
    later = []
    for reporter in after:
        fresh = stable_error(reporter, study.true.shape, rng)
        mixed = error_correlation * error + math.sqrt(1 - error_correlation**2) * fresh
        later.append(average_reports(reporter, beliefs(reporter, study.true, spread, mixed, rng), rng))
    return x, later
