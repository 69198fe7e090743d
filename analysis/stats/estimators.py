"""Which weights drive a model's choices: the paper's logistic posterior, and least squares on log odds.

Both take (A - B) / range, shape (contexts, trials, attributes), and work on all contexts at once. Their results are
on the scale of the regression; `task.weights.rescale` brings them to the scale of target and reported weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.stats.importance import (
    StandardDraws,
    normalised_weights,
    pareto_k,
    standard_draws,
    weighted_hdi,
    weighted_moments,
)
from analysis.stats.logistic import PRIOR_SCALE, laplace, log_likelihood, log_prior, signed_design
from task.errors import InputError
from task.thresholds import RARER_LETTER, TRUSTED_PARETO_K

DRAWS = 2048
"""Draws of the last round: posterior means within about 0.01 of the truth, far below a posterior sd."""

PILOT_DRAWS = 512
"""Draws of the round that starts from the Laplace approximation and only serves to fit the next proposal."""

PILOT_SPREAD = 1.3
"""The Laplace covariance is widened by this factor, since a proposal must be wider than its target."""

EXTRA_ROUNDS = 3
"""How often at most a context is done again, with four times the draws each time."""

LARGEST_DIFFERENCE = 2.0
"""(A - B) / range lies within -+1, or little beyond with values rounded out of range; more was not divided by it."""

CONTEXTS_AT_ONCE = 8
"""Contexts worked on together: enough to keep numpy busy, few enough for their draws to stay in the cache (32 take 1.6
times as long)."""


@dataclass(frozen=True)
class WeightPosterior:
    """Posterior of the weights of each context; a context without any usable trial has NaN throughout.

    Attributes:
        mean, sd: Posterior mean and standard deviation of the slopes, shape (contexts, attributes).
        hdi_low, hdi_high: Ends of the slopes' 95% highest-density interval, shape (contexts, attributes). They cover
            95% of slopes that are distributed as the prior, but only some 40% of those of a chooser that follows the
            task's weights in 82%: such slopes reach 4, and the prior N(0, 1) shrinks them. Rescaled like the means,
            they cover 98-99% of the weights. Measured in results/calibration.
        intercept_mean, intercept_sd: Of the log odds of A at the context's *mean* difference, since the predictors
            are centred; shape (contexts,). Subtract mean . (mean difference) for the log odds at no difference.
        pareto_k: Diagnostic of the importance weights, shape (contexts,); above 0.7 do not trust the context.
    """

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    hdi_low: NDArray[np.float64]
    hdi_high: NDArray[np.float64]
    intercept_mean: NDArray[np.float64]
    intercept_sd: NDArray[np.float64]
    pareto_k: NDArray[np.float64]


def logistic_posterior(
    chose_a: ArrayLike, difference: ArrayLike, *, seed: int = 0, draws: int = DRAWS, intervals: bool = True
) -> WeightPosterior:
    """The paper's estimator: one Bayesian logistic regression of the choices on the differences a context.

    logit P(A) = a + b . (x - mean x), with b ~ N(0, 1) for each attribute, a ~ Student-t(3, 0, 2.5), as brms sets it
    up (Plunkett et al. 2025). The posterior is found by importance sampling: a Laplace approximation at the mode, a
    pilot round from it, and a round from a proposal fitted to the pilot's weighted draws. Contexts whose Pareto k
    stays above `TRUSTED_PARETO_K` get up to three more rounds; `pareto_k` reports where that ended.

    Args:
        chose_a: 1 where A was chosen, 0 where B, NaN where the choice is missing, shape (contexts, trials). Missing
            trials count for nothing, not for the centring either, so NaN also pads contexts with fewer trials.
        difference: (A - B) / range, shape (contexts, trials, attributes).
        seed, draws: Of the quasi-random draws, which all contexts share; their number is a power of two.
        intervals: Whether to find the HDI, whose sorting takes about a third of the time; its ends are NaN otherwise.

    Raises:
        InputError: Shapes that do not match, a choice other than 0 or 1, or a difference that is not finite
            or beyond -+2.
    """
    choices, difference = _checked(chose_a, difference, "choice")
    present = ~np.isnan(choices)
    if wrong := set(np.unique(choices[present])) - {0.0, 1.0}:
        raise InputError(f"choices hold {min(wrong):g}; give 1 for A, 0 for B and NaN for a missing choice")
    contexts, _, attributes = difference.shape
    posterior = WeightPosterior(*np.full((4, contexts, attributes), np.nan), *np.full((3, contexts), np.nan))
    usable = np.flatnonzero(present.any(axis=1))
    for rows in np.split(usable, range(CONTEXTS_AT_ONCE, len(usable), CONTEXTS_AT_ONCE)):
        if rows.size:
            _sample(posterior, rows, signed_design(choices[rows], difference[rows]), seed, draws, intervals)
    return posterior


def determined_contexts(chose_a: ArrayLike) -> NDArray[np.bool_]:
    """Which contexts' choices determine weights, shape (contexts,): the rarer letter was given often enough.

    Where a letter is missing from the first order, which `logistic_posterior` is given, the posterior is little else
    than the prior, and rescaled to a largest of 100 it would look like weights. Where the rarer letter was given fewer
    than `RARER_LETTER` times, it nearly is; both orders together tell that.

    `chose_a` has shape (contexts, pairs, orders), NaN where a choice is missing, also throughout the second order.
    """
    choices = np.asarray(chose_a, dtype=float)
    given = np.stack([np.nansum(choices, axis=1), np.nansum(1 - choices, axis=1)])
    return np.asarray((given.sum(axis=-1).min(axis=0) >= RARER_LETTER) & (given[..., 0].min(axis=0) > 0))


def log_odds_weights(log_odds: ArrayLike, difference: ArrayLike) -> NDArray[np.float64]:
    """Least squares of each context's log odds on the differences, without an intercept.

    With every pair shown in both orders, y = [l(x1 as A) - l(x1 as B)] / 2 with l = log P(A) - log P(B) has no
    position bias left in it, so that no intercept is needed.

    `log_odds` is y, shape (contexts, trials), NaN where missing; `difference` is (x1 - x2) / range, by attribute, too.
    The weights, in log odds per full range of the attribute, are NaN throughout in a context that does not determine
    them.

    Raises:
        InputError: Shapes that do not match, an infinite log odds, or a difference that is not finite
            or beyond -+2.
    """
    outcome, difference = _checked(log_odds, difference, "log odds")
    present = ~np.isnan(outcome)
    if np.isinf(outcome).any():
        context, trial = np.argwhere(np.isinf(outcome))[0]
        raise InputError(f"log odds of context {context}, trial {trial} are infinite; give NaN for a missing value")
    y = np.where(present, outcome, 0.0)
    x = np.where(present[..., None], difference, 0.0)
    contexts, trials, attributes = x.shape
    if trials < attributes:
        return np.full((contexts, attributes), np.nan)
    left, singular, right = np.linalg.svd(x, full_matrices=False)
    determined = singular[:, -1] > singular[:, 0] * trials * np.finfo(float).eps
    # A chooser that never leans to either option shows no weights: zeros would be a direction that was not measured.
    determined &= (y != 0).any(axis=1)
    singular = np.where(determined[:, None], singular, np.nan)
    unscaled = right.transpose(0, 2, 1) / singular[:, None, :]
    return np.asarray((unscaled @ (left.transpose(0, 2, 1) @ y[..., None]))[..., 0])


def _checked(outcome: ArrayLike, difference: ArrayLike, what: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Outcome (contexts, trials) and difference (contexts, trials, attributes) as float arrays that fit together."""
    y, x = np.asarray(outcome, dtype=float), np.asarray(difference, dtype=float)
    if y.ndim != 2 or x.ndim != 3 or x.shape[:2] != y.shape or not x.shape[2]:
        raise InputError(
            f"{what} of shape {y.shape} with differences of shape {x.shape}; "
            "give (contexts, trials) and (contexts, trials, attributes)"
        )
    bad = ~np.isnan(y) & ~np.isfinite(x).all(axis=2)
    if bad.any():
        context, trial = np.argwhere(bad)[0]
        raise InputError(
            f"difference of context {context}, trial {trial} is {x[context, trial]} though its {what} is known; "
            "give finite numbers, or NaN as the outcome"
        )
    largest = np.abs(x[~np.isnan(y)]).max(initial=0)
    if largest > LARGEST_DIFFERENCE:
        raise InputError(f"differences reach {largest:g}; divide each attribute's A - B by its range, high - low")
    return y, x


def _sample(
    posterior: WeightPosterior,
    rows: NDArray[np.int64],
    signed: NDArray[np.float64],
    seed: int,
    draws: int,
    intervals: bool,
) -> None:
    """Write the posterior of the contexts `rows`, whose `signed_design` is `signed`, into those rows of `posterior`."""
    size = signed.shape[2]
    location, covariance = laplace(signed)
    pilot = _weigh(signed, location, PILOT_SPREAD * covariance, standard_draws(size, PILOT_DRAWS, seed))
    location, covariance = weighted_moments(pilot.folded, normalised_weights(pilot.log_weights))
    for _ in range(1 + EXTRA_ROUNDS):
        weighed = _weigh(signed, location, covariance, standard_draws(size, draws, seed))
        for name, values in _summary(weighed, intervals).items():
            getattr(posterior, name)[rows] = values
        again = posterior.pareto_k[rows] > TRUSTED_PARETO_K
        if not again.any():
            return
        location, covariance = weighted_moments(weighed.folded[again], normalised_weights(weighed.log_weights[again]))
        rows, signed, draws = rows[again], signed[again], 4 * draws


@dataclass(frozen=True)
class _Weighed:
    """Draws of (a, b), `theta`, and of (asinh(a / 2.5), b), `folded`, with log importance weights up to a constant."""

    folded: NDArray[np.float64]
    theta: NDArray[np.float64]
    log_weights: NDArray[np.float64]


def _weigh(
    signed: NDArray[np.float64],
    location: NDArray[np.float64],
    covariance: NDArray[np.float64],
    standard: StandardDraws,
) -> _Weighed:
    """Draw from one proposal a context, given on (asinh(a / 2.5), b), and weigh the draws by the posterior.

    With choices all on one side the intercept's posterior falls off like its prior, as a^-4, which is exponential in
    the asinh and so within reach of the proposal's Student-t(2).
    """
    folded = location[:, :, None] + np.linalg.cholesky(covariance) @ standard.points
    # Beyond 25, where the prior has e^-75 left, sinh only heads for an overflow.
    folded[:, 0] = np.clip(folded[:, 0], -25, 25)
    theta = folded.copy()
    theta[:, 0] = PRIOR_SCALE * np.sinh(folded[:, 0])
    log_jacobian = np.log(np.cosh(folded[:, 0]))
    log_weights = log_likelihood(signed, theta) + log_prior(theta) + log_jacobian - standard.log_density
    return _Weighed(folded, theta, log_weights)


def _summary(weighed: _Weighed, intervals: bool) -> dict[str, NDArray[np.float64]]:
    """The fields of `WeightPosterior` that come from the draws; the ends of intervals if they are wanted."""
    weights = normalised_weights(weighed.log_weights)
    mean, covariance = weighted_moments(weighed.theta, weights)
    sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    found = {
        "mean": mean[:, 1:],
        "sd": sd[:, 1:],
        "intercept_mean": mean[:, 0],
        "intercept_sd": sd[:, 0],
        "pareto_k": pareto_k(weighed.log_weights),
    }
    if intervals:
        found["hdi_low"], found["hdi_high"] = weighted_hdi(weighed.theta[:, 1:], weights)
    return found
