"""How reliable weights and mean reports are, and what their correlation would be without measurement noise.

Split-half reliability: measure twice, from two random halves of each context's trials, and correlate the two over all
points. The halves are half as long as what they stand for, which the Spearman-Brown formula makes up for:

    reliability = 2 r_half / (1 + r_half)         (Spearman 1910; Brown 1910, both in Brit. J. Psychol. 3)

Noise in two measurements pulls their correlation towards 0. Disattenuation undoes that (Spearman 1904, Am. J. Psychol.
15):

    corrected r = r / sqrt(reliability of x * reliability of y)

It takes the errors of x and y to be independent, and a half to be the whole with twice the error variance, which holds
only roughly for weights that are shrunk by a prior and rescaled to a largest of 100. So a corrected r is a rough
figure, may exceed 1, and stands beside r, never in its place.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.stats.agreement import (
    RESAMPLES,
    mean_reports,
    pearson,
    percentile_interval,
    resampled_counts,
    resampled_r,
)
from analysis.stats.estimators import log_odds_weights, logistic_posterior
from analysis.stats.records import Record
from task.weights import rescale

WEIGHT_SPLITS = 4
"""Random splits of the decisions: reliability then has an error of about 0.005, against 0.01 from one split."""

WEIGHT_DRAWS = 256
"""Draws of each half's posterior: their error is far below the posterior sd, which is what matters here."""

REPORT_SPLITS = 10
"""Random splits of the reports, which cost less."""

UNDEFINED = 0.025
"""Share of resamples without a positive reliability beyond which a corrected r gets no interval."""


@dataclass(frozen=True)
class Halves:
    """A measurement made from each half of a context's trials, for several random splits.

    Both have shape (splits, contexts, attributes), NaN for a context with fewer than 2 trials.
    """

    first: NDArray[np.float64]
    second: NDArray[np.float64]


@dataclass(frozen=True)
class CorrectedR(Record):
    """r without the noise of either side; NaN where a reliability is not positive or not known.

    Attributes:
        r: r / sqrt(reliability_x * reliability_y).
        boot_low, boot_high: 95% interval from resampling contexts, all three figures anew in each resample; NaN if
            over 2.5% of the resamples have a reliability that is not positive. Covers the noiseless r in 94-96%, see
            results/calibration.
        reliability_x, reliability_y: Spearman-Brown; 1 for what is known without error.
    """

    r: float
    boot_low: float
    boot_high: float
    reliability_x: float
    reliability_y: float


def halves_of_weights(
    chose_a: ArrayLike, difference: ArrayLike, *, rng: np.random.Generator, seed: int = 0, splits: int = WEIGHT_SPLITS
) -> Halves:
    """Weights by `logistic_posterior`, rescaled to a largest of 100, from random halves of each context's decisions.

    `chose_a` and `difference` are as `logistic_posterior` takes them; `rng` draws the splits, `seed` is that of the
    posterior's draws. A half with one letter alone has no weights, see `weights_of_some`.
    """
    choices, differences = np.asarray(chose_a, dtype=float), np.asarray(difference, dtype=float)

    def weights(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        x = np.take_along_axis(differences, rows[..., None], axis=1)
        return weights_of_some(np.take_along_axis(choices, rows, axis=1), x, seed)

    return _halves(~np.isnan(choices), splits, rng, weights)


def halves_of_log_odds(
    preference: ArrayLike, difference: ArrayLike, *, rng: np.random.Generator, splits: int = WEIGHT_SPLITS
) -> Halves:
    """Weights by `log_odds_weights`, rescaled to a largest of 100, from random halves of each context's pairs.

    `preference` and `difference` are as `log_odds_weights` takes them.
    """
    leaning, differences = np.asarray(preference, dtype=float), np.asarray(difference, dtype=float)

    def weights(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        x = np.take_along_axis(differences, rows[..., None], axis=1)
        return rescale(log_odds_weights(np.take_along_axis(leaning, rows, axis=1), x))

    return _halves(~np.isnan(leaning), splits, rng, weights)


def weights_of_some(choices: NDArray[np.float64], difference: NDArray[np.float64], seed: int) -> NDArray[np.float64]:
    """Weights by `logistic_posterior`, rescaled to a largest of 100, from some of each context's decisions.

    Where these are all of one letter, the posterior is the prior, and the weights are NaN.
    """
    both = (choices == 0).any(axis=1, keepdims=True) & (choices == 1).any(axis=1, keepdims=True)
    y = np.where(both, choices, np.nan)
    return rescale(logistic_posterior(y, difference, seed=seed, draws=WEIGHT_DRAWS, intervals=False).mean)


def halves_of_reports(values: ArrayLike, *, rng: np.random.Generator, splits: int = REPORT_SPLITS) -> Halves:
    """Mean reports from random halves of each context's valid reports, which are as `mean_reports` takes them."""
    reports = np.asarray(values, dtype=float)

    def means(rows: NDArray[np.int64]) -> NDArray[np.float64]:
        return mean_reports(np.take_along_axis(reports, rows[..., None], axis=1))[0]

    return _halves(~np.isnan(reports).any(axis=2), splits, rng, means)


def reliability(halves: Halves) -> float:
    """Spearman-Brown of the correlation of halves over all points, the correlations averaged over the splits.

    Contexts with fewer than 2 trials are left out; NaN when fewer than 2 contexts remain, or without variance.
    """
    first, second, kept = _measured(halves)
    if kept.sum() < 2:
        return math.nan
    return float(spearman_brown(np.mean([pearson(a, b) for a, b in zip(first, second, strict=True)])))


def spearman_brown(r_half: ArrayLike) -> NDArray[np.float64]:
    """2 r / (1 + r): reliability of the whole from the correlation of its halves; NaN at -1, where it has no limit."""
    r = np.asarray(r_half, dtype=float)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(r > -1, 2 * r / (1 + r), np.nan)


def corrected_r(
    x: ArrayLike,
    y: ArrayLike,
    x_halves: Halves | None,
    y_halves: Halves | None,
    *,
    seed: int,
    resamples: int = RESAMPLES,
) -> CorrectedR:
    """Pearson's r of x and y, and what it would be without the noise of either.

    Reliabilities are those on the contexts complete in x and y, which r speaks of; of these, contexts with fewer than 2
    trials enter r but cannot enter the reliability.

    x and y have shape (contexts, attributes), NaN where not measured; their halves are None for what is known without
    error, such as target weights.
    """
    x_all, y_all = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    kept = ~(np.isnan(x_all) | np.isnan(y_all)).any(axis=1)
    x_kept, y_kept = x_all[kept], y_all[kept]
    counts = resampled_counts(len(x_kept), seed, resamples)
    found: list[float] = []
    product = np.ones(resamples)
    for halves in (x_halves, y_halves):
        if halves is None:
            found.append(1.0)
            continue
        halves = Halves(halves.first[:, kept], halves.second[:, kept])
        found.append(reliability(halves))
        product *= _positive(_resampled_reliability(halves, counts))
    resampled = resampled_r(x_kept, y_kept, counts) / np.sqrt(product)
    undefined = bool(np.isnan(resampled).mean() > UNDEFINED)
    low, high = (math.nan, math.nan) if undefined else percentile_interval(resampled, len(x_kept))
    both = float(_positive(np.array(found)).prod())
    return CorrectedR(pearson(x_kept, y_kept) / math.sqrt(both), low, high, *found)


def _halves(
    present: NDArray[np.bool_],
    splits: int,
    rng: np.random.Generator,
    measure: Callable[[NDArray[np.int64]], NDArray[np.float64]],
) -> Halves:
    """`measure` of the places (contexts, half of the trials) of each half, by split.

    Every other trial of a random order, in which missing ones come last, makes one half: they differ by one at most.
    """
    orders = np.where(present, rng.random((splits, *present.shape)), np.inf).argsort(axis=-1)
    return Halves(*(np.stack([measure(order[:, half::2]) for order in orders]) for half in (0, 1)))


def _measured(halves: Halves) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Both halves on the contexts that have both in every split, and which contexts these are."""
    kept = ~(np.isnan(halves.first) | np.isnan(halves.second)).any(axis=(0, 2))
    return halves.first[:, kept], halves.second[:, kept], kept


def _resampled_reliability(halves: Halves, counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """`reliability` in every resample, shape (resamples,); `counts`: (resamples, contexts)."""
    first, second, kept = _measured(halves)
    drawn = counts[:, kept]
    with np.errstate(invalid="ignore", divide="ignore"):
        # A resample holds more or fewer of these contexts than there are; the sums in resampled_r are over all.
        drawn *= drawn.shape[1] / drawn.sum(axis=1, keepdims=True)
    return spearman_brown(np.mean([resampled_r(a, b, drawn) for a, b in zip(first, second, strict=True)], axis=0))


def _positive(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """NaN for a reliability of 0 or below, which leaves nothing to correct by."""
    return np.where(values > 0, values, np.nan)
