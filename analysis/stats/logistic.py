"""The logistic model of one context's choices: likelihood, priors, mode; for many contexts at once.

logit P(A) = a + b . (x - mean x), with b ~ N(0, 1) independent and a ~ Student-t(3, 0, 2.5): what brms makes of
`chose_a ~ differences` with `prior(normal(0, 1), class = b)`, whose intercept is that of centred predictors.
`theta` stands for (a, b) throughout.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

PRIOR_DF, PRIOR_SCALE = 3.0, 2.5
"""Student-t prior of the intercept, brms's default."""

TRIALS_AT_ONCE = 64
"""Trials whose factors are multiplied before the logarithm is taken: each is at most 2, so 2^64, far from overflow."""

SMALL_PRODUCT = 1 << 17
"""Multiplications in one matrix product at which OpenBLAS starts no threads yet (it does beyond 2^18)."""


def signed_design(choices: NDArray[np.float64], difference: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows (1, x - mean x), negated where B was chosen and zero where missing.

    The probability of what was chosen is then expit(row . theta) in every row of (contexts, trials, 1 + attributes).
    `choices` are 1 for A, 0 for B, NaN for missing; each context needs one that is known.
    """
    present = ~np.isnan(choices)[..., None]
    x = np.where(present, difference, 0.0)
    centred = x - x.sum(axis=1, keepdims=True) / present.sum(axis=1, keepdims=True)
    sign = np.where(present, 2 * choices[..., None] - 1, 0.0)
    return sign * np.concatenate([np.ones_like(sign), centred], axis=2)


def laplace(signed: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mode (contexts, 1 + attributes) and covariance of (asinh(a / 2.5), b), by damped Newton steps for all at once.

    The intercept's prior enters the curvature through the weight (df + 1) / (df scale^2 + a^2) of its quadratic
    bound, which is positive where the Student-t's own second derivative is not. A context stops at its own
    convergence, so that the others do not change its result.
    """
    contexts, _, size = signed.shape
    theta = np.zeros((contexts, size))
    value, step, moving = _negative_log_posterior(signed, theta), np.ones(contexts), np.ones(contexts, dtype=bool)
    for _ in range(60):
        margin = (signed @ theta[..., None])[..., 0]
        miss = expit(-margin)
        precision = np.ones_like(theta)
        precision[:, 0] = (PRIOR_DF + 1) / (PRIOR_DF * PRIOR_SCALE**2 + theta[:, 0] ** 2)
        gradient = precision * theta - (signed.transpose(0, 2, 1) @ miss[..., None])[..., 0]
        curved = signed * (miss * (1 - miss))[..., None]
        hessian = curved.transpose(0, 2, 1) @ signed + precision[:, :, None] * np.eye(size)
        move = -np.linalg.solve(hessian, gradient[..., None])[..., 0]
        moving &= np.abs(move).max(axis=1) > 1e-6
        if not moving.any():
            break
        proposed = theta + step[:, None] * move
        proposed_value = _negative_log_posterior(signed, proposed)
        better = moving & (proposed_value <= value)
        theta = np.where(better[:, None], proposed, theta)
        value = np.where(better, proposed_value, value)
        step = np.where(better, 1.0, step / 2)

    slope_of_asinh = np.ones_like(theta)
    slope_of_asinh[:, 0] = 1 / np.hypot(PRIOR_SCALE, theta[:, 0])
    theta[:, 0] = np.arcsinh(theta[:, 0] / PRIOR_SCALE)
    covariance = np.linalg.inv(hessian) * slope_of_asinh[:, :, None] * slope_of_asinh[:, None, :]
    return theta, covariance


def _negative_log_posterior(signed: NDArray[np.float64], theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Up to a constant, shape (contexts,), at one `theta` a context, shape (contexts, 1 + attributes)."""
    likelihood = np.logaddexp(0, -(signed @ theta[..., None])[..., 0]).sum(axis=1)
    return likelihood - log_prior(theta[..., None])[:, 0]


def log_prior(theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log prior density up to a constant, shape (contexts, draws); `theta`: (contexts, 1 + attributes, draws)."""
    intercept = (PRIOR_DF + 1) / 2 * np.log1p((theta[:, 0] / PRIOR_SCALE) ** 2 / PRIOR_DF)
    return -intercept - np.square(theta[:, 1:]).sum(axis=1) / 2


def log_likelihood(signed: NDArray[np.float64], theta: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log likelihood, shape (contexts, draws); `signed`: `signed_design`, `theta`: (contexts, 1 + attributes, draws).

    With margin m = row . theta, log expit(m) = min(m, 0) - log(1 + exp(-|m|)), and the logarithms of several trials are
    that of their product. In single precision, which is several times as fast and errs by about 1e-5 in a sum over 100
    trials; in blocks of draws, so that the numbers of a block stay in the cache, and each product is so small that a
    BLAS does it in one thread: threads started for small products wait for each other on a busy machine.
    """
    contexts, trials, size = signed.shape
    draws = theta.shape[2]
    rows, points = signed.astype(np.float32), theta.astype(np.float32)
    total = np.zeros((contexts, draws))
    width = SMALL_PRODUCT // (min(trials, TRIALS_AT_ONCE) * size)
    for first in range(0, trials, TRIALS_AT_ONCE):
        some_rows = rows[:, first : first + TRIALS_AT_ONCE]
        for block in (slice(i, i + width) for i in range(0, draws, width)):
            margin = some_rows @ points[..., block]
            decay = np.abs(margin)
            np.exp(np.negative(decay, out=decay), out=decay)
            decay += 1
            log_product = np.log(np.multiply.reduce(decay, axis=1))
            total[:, block] += np.minimum(margin, 0, out=margin).sum(axis=1) - log_product
    # The row of a missing trial is zero and has added log 1/2.
    missing = (signed[..., 0] == 0).sum(axis=1)
    return total + np.log(2) * missing[:, None]
