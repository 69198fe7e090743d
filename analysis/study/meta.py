"""Several trainings together: what they say on average, how much they differ, and what a new one would give.

Each run gives an estimate with its own standard error (its contexts, resampled); trainings differ beyond that. Hence
random effects: between-run variance by Paule and Mandel (1982), interval of the mean by Hartung and Knapp (2001), whose
variance is never taken below that of the usual formula (Röver, Knapp and Friede 2015, doi:10.1186/s12874-015-0091-1:
with few alike runs it would come out too small), and a prediction interval for a new training (Higgins, Thompson and
Spiegelhalter 2009) with as many degrees of freedom.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t
from statsmodels.stats.meta_analysis import combine_effects

from analysis.stats.records import Record

LEVEL = 0.95
"""Of all intervals here."""

NEAR_1 = 1 - 1e-6
"""Correlations are moved inside this, as 1 has no Fisher z."""


@dataclass(frozen=True)
class Pooled(Record):
    """Runs together.

    Attributes:
        mean: Of all trainings of this kind, of which the runs are a sample.
        low, high: Its 95% interval; of a single run the run's own.
        between: Standard deviation between trainings beyond what resampled contexts explain, on the scale that was
            pooled on (Fisher z for correlations); NaN for a single run.
        predicted_low, predicted_high: 95% prediction interval for a new training; NaN for a single run.
        runs: How many.
    """

    mean: float
    low: float
    high: float
    between: float
    predicted_low: float
    predicted_high: float
    runs: int


def pool(estimates: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> Pooled:
    """Pool estimates with 95% intervals; runs without an estimate or interval are left out.

    The standard error of a run is taken from the width of its interval.

    Args:
        estimates: One a run.
        lows, highs: Their intervals.
    """
    values = np.array([estimates, lows, highs], dtype=float)
    values = values[:, np.isfinite(values).all(axis=0)]
    runs = values.shape[1]
    if runs == 0:
        nan = math.nan
        return Pooled(nan, nan, nan, nan, nan, nan, runs=0)
    if runs == 1:
        estimate, low, high = (float(v[0]) for v in values)
        return Pooled(estimate, low, high, math.nan, math.nan, math.nan, runs=1)
    effects, errors = values[0], (values[2] - values[1]) / (2 * norm.ppf((1 + LEVEL) / 2))
    return _random_effects(effects, np.maximum(errors, 1e-9))


def pool_correlations(estimates: Sequence[float], lows: Sequence[float], highs: Sequence[float]) -> Pooled:
    """Pool correlations with 95% intervals on Fisher's z, and give them back as correlations; see `pool`."""
    as_z = [np.arctanh(np.clip(np.array(v, dtype=float), -NEAR_1, NEAR_1)) for v in (estimates, lows, highs)]
    found = pool(*as_z)
    ends = (found.mean, found.low, found.high, found.between, found.predicted_low, found.predicted_high)
    mean, low, high, _, predicted_low, predicted_high = (math.tanh(value) for value in ends)
    return Pooled(mean, low, high, found.between, predicted_low, predicted_high, found.runs)


def _random_effects(effects: NDArray[np.float64], errors: NDArray[np.float64]) -> Pooled:
    runs = len(effects)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about intervals of single runs, which are not used
        fit = combine_effects(effects, errors**2, method_re="iterated", use_t=True)
    variance = max(float(fit.var_eff_w_re), float(fit.var_hksj_re))
    mean, between = float(fit.mean_effect_re), math.sqrt(max(float(fit.tau2), 0.0))
    reach = float(t.ppf((1 + LEVEL) / 2, runs - 1))
    half, ahead = reach * math.sqrt(variance), reach * math.sqrt(variance + between**2)
    return Pooled(mean, mean - half, mean + half, between, mean - ahead, mean + ahead, runs)


def difference_of_independent(
    before: tuple[float, float, float], after: tuple[float, float, float]
) -> tuple[float, float, float]:
    """After minus before and its interval, from two figures that err independently, each with its interval.

    Zou, "Toward using confidence intervals to compare correlations", Psychological Methods 12, 2007: the distances to
    the ends that lie towards each other, and those away from each other, add up as errors do.
    """
    (first, first_low, first_high), (second, second_low, second_high) = before, after
    difference = second - first
    low = difference - math.hypot(second - second_low, first_high - first)
    return difference, low, difference + math.hypot(second_high - second, first - first_low)
