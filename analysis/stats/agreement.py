"""How well two sets of weights agree: mean reports with learned weights, learned with target weights, and so on.

All functions take arrays of shape (contexts, attributes). A context with NaN in either array is left out whole, and
every figure comes with the number of contexts and points behind it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtrit
from scipy.stats import rankdata

from analysis.stats.records import Record
from analysis.stats.testing import detectable_effect, two_sided_p
from task.errors import InputError
from task.seeding import stream

RESAMPLES = 4000
"""Bootstrap resamples: the ends of a 95% interval then jitter by a few hundredths of its width."""

PERMUTATIONS = 2000
"""Permutations of a null: the smallest p-value is 1/2001."""


@dataclass(frozen=True)
class Agreement(Record):
    """Agreement of mean reports (x) with weights (y); what cannot be computed is NaN.

    Attributes:
        r: Pearson correlation over all points.
        hdi_low, hdi_high: The paper's interval, see `regression_interval`.
        boot_low, boot_high: 95% interval from resampling contexts, see `bootstrap_r`.
        p_permutation: Two-sided p-value from permuting contexts, within folds if there are any, see `permutation_null`.
        detectable: The smallest r that reports on so many contexts would have been found at, see `detectable_r`.
        n_points, n_contexts: Complete in both.
        valid_reports, total_reports: Report trials that could be read, and that were run.
        ccc: Lin's concordance, see `concordance`.
        slope: Least-squares slope of weights on reports, as given (not standardised).
        spearman: Rank correlation over all points.
        mae: Mean absolute difference, on the scale of the weights.
        sign_agreement: Share of points with the same sign, among those where neither is zero.
        top_attribute: Share of contexts whose largest magnitude is at the same attribute; a tie counts in part.
        within_context_r: Mean over contexts of the correlation across the context's attributes.
    """

    r: float
    hdi_low: float
    hdi_high: float
    boot_low: float
    boot_high: float
    p_permutation: float
    detectable: float
    n_points: int
    n_contexts: int
    valid_reports: int
    total_reports: int
    ccc: float
    slope: float
    spearman: float
    mae: float
    sign_agreement: float
    top_attribute: float
    within_context_r: float


@dataclass(frozen=True)
class PairedDifference(Record):
    """r(x2, y) - r(x1, y) on the contexts complete in all three, with a 95% interval from resampling contexts.

    Attributes:
        difference: r(x2, y) - r(x1, y).
        boot_low, boot_high: Its interval.
        p_bootstrap: Two-sided p-value that goes with the interval, see `testing.two_sided_p`.
        detectable: The difference that so many contexts show with a power of 80%, see `testing.detectable_effect`.
        n_contexts: Contexts behind it.
    """

    difference: float
    boot_low: float
    boot_high: float
    p_bootstrap: float
    detectable: float
    n_contexts: int


def agreement(
    reports_mean: ArrayLike,
    weights: ArrayLike,
    *,
    valid_reports: int,
    total_reports: int,
    seed: int,
    folds: ArrayLike | None = None,
) -> Agreement:
    """All measures of agreement between mean reports and weights, each (contexts, attributes).

    NaN stands for a context without any valid report, see `mean_reports`, and for weights that were not measured.
    `folds` are those of `permutation_null`.
    """
    x, y = _complete(reports_mean, weights)
    r = pearson(x, y)
    hdi_low, hdi_high = regression_interval(r, x.size)
    boot_low, boot_high = bootstrap_r(x, y, seed=seed)
    null = permuted_r(reports_mean, weights, seed=seed, folds=folds)
    return Agreement(
        r=r,
        hdi_low=hdi_low,
        hdi_high=hdi_high,
        boot_low=boot_low,
        boot_high=boot_high,
        p_permutation=_permutation_p(*null),
        detectable=detectable_r(null[1], len(x)),
        n_points=x.size,
        n_contexts=len(x),
        valid_reports=valid_reports,
        total_reports=total_reports,
        ccc=concordance(x, y),
        slope=slope(x, y),
        spearman=spearman(x, y),
        mae=float(np.abs(x - y).mean()) if x.size else math.nan,
        sign_agreement=sign_agreement(x, y),
        top_attribute=top_attribute(x, y),
        within_context_r=within_context_r(x, y),
    )


def mean_reports(values: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Average each context's valid reports, shape (contexts, trials, attributes), NaN where one could not be read.

    A report that lacks any attribute is not valid, and none of its values are used. Returns the means (contexts,
    attributes), NaN for a context without a valid report, and the number of valid reports (contexts,).
    """
    reports = np.asarray(values, dtype=float)
    valid = ~np.isnan(reports).any(axis=2)
    counts = valid.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return np.where(valid[..., None], reports, 0.0).sum(axis=1) / counts[:, None], counts


def pearson(x: ArrayLike, y: ArrayLike) -> float:
    """Pearson correlation over all points of the complete contexts; NaN with under 3 points or without variance."""
    x, y = _complete(x, y)
    if x.size < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    dx, dy = x - x.mean(), y - y.mean()
    return float(np.clip((dx * dy).sum() / math.sqrt((dx * dx).sum() * (dy * dy).sum()), -1, 1))


def spearman(x: ArrayLike, y: ArrayLike) -> float:
    """Spearman's rank correlation over all points of the complete contexts; NaN where `pearson` is."""
    x, y = _complete(x, y)
    return pearson(rankdata(x).reshape(x.shape), rankdata(y).reshape(y.shape))


def slope(x: ArrayLike, y: ArrayLike) -> float:
    """Least-squares slope of y on x, with an intercept, over the complete contexts; NaN where `pearson` is."""
    x, y = _complete(x, y)
    r = pearson(x, y)
    return math.nan if math.isnan(r) else r * float(y.std() / x.std())


def concordance(x: ArrayLike, y: ArrayLike) -> float:
    """Lin's concordance over all points of the complete contexts; NaN where `pearson` is.

    2 cov(x, y) / (var x + var y + (mean x - mean y)^2) (Lin, "A concordance correlation coefficient to evaluate
    reproducibility", Biometrics 45, 1989): r, times what a difference in scale or level takes away. It is 1 only where
    reports *are* the weights, and never beyond r.
    """
    x, y = _complete(x, y)
    r = pearson(x, y)
    if math.isnan(r):
        return math.nan
    return float(2 * r * x.std() * y.std() / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


def sign_agreement(x: ArrayLike, y: ArrayLike) -> float:
    """Share of points with the same sign among those where neither is zero; NaN if there is none."""
    x, y = _complete(x, y)
    signed = (x != 0) & (y != 0)
    return float((np.sign(x) == np.sign(y))[signed].mean()) if signed.any() else math.nan


def top_attribute(x: ArrayLike, y: ArrayLike) -> float:
    """Share of complete contexts whose largest |value| is at the same attribute in both; NaN without contexts.

    Tied attributes count as if the tie were broken at random, so a report of all equal values scores chance.
    """
    x, y = _complete(x, y)
    if not x.size:
        return math.nan
    top_x, top_y = (np.abs(v) == np.abs(v).max(axis=1, keepdims=True) for v in (x, y))
    return float(((top_x & top_y).sum(axis=1) / (top_x.sum(axis=1) * top_y.sum(axis=1))).mean())


def within_context_r(x: ArrayLike, y: ArrayLike) -> float:
    """Mean over contexts of Pearson's r across the attributes; contexts without variance in x or y are left out.

    It asks whether reports tell a context's attributes apart, whatever the contexts' levels and scales.
    """
    x, y = _complete(x, y)
    varied = (np.ptp(x, axis=1) > 0) & (np.ptp(y, axis=1) > 0)
    if not varied.any() or x.shape[1] < 3:
        return math.nan
    dx, dy = (v[varied] - v[varied].mean(axis=1, keepdims=True) for v in (x, y))
    return float(((dx * dy).sum(axis=1) / np.sqrt((dx**2).sum(axis=1) * (dy**2).sum(axis=1))).mean())


def regression_interval(r: float, n_points: int) -> tuple[float, float]:
    """The paper's interval: r -+ t(.975, n - 2) sqrt((1 - r^2) / (n - 2)); NaN with fewer than 3 points.

    This is, in closed form, the 95% HDI of the slope in a Bayesian regression of standardised weights on standardised
    reports under a flat prior on the slope; Plunkett et al. (2025) sample it with brms. It is no 95% interval of r, and
    `bootstrap_r` is the one to believe. Measured in results/calibration, it covers 100% at r = .95, 96% at r = .3 with
    independent attributes, as the slope's sd goes with sqrt(1 - r^2) where that of r goes with 1 - r^2; and 80-90%
    where the attributes of a context go together, which it takes as independent: where some contexts are known and
    others not at all, or where both weights and errors lean to one side.
    """
    if math.isnan(r) or n_points < 3:
        return math.nan, math.nan
    half = float(stdtrit(n_points - 2, 0.975)) * math.sqrt((1 - r * r) / (n_points - 2))
    return r - half, r + half


def bootstrap_r(x: ArrayLike, y: ArrayLike, *, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95% interval of `pearson` from resampling whole contexts, see `percentile_interval`; NaN with under 2 of them."""
    x, y = _complete(x, y)
    counts = resampled_counts(len(x), seed, resamples)
    return percentile_interval(resampled_r(x, y, counts), len(x))


def bootstrap_share(part: ArrayLike, whole: ArrayLike, *, seed: int, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95% interval of sum(part) / sum(whole) from resampling contexts; NaN with under 2 of them.

    `part` and `whole` are counts of each context, such as decisions that follow the targets and all decisions, shape
    (contexts,); contexts without any are left out.
    """
    counted = np.asarray(whole, dtype=float)
    kept = counted > 0
    counts = resampled_counts(int(kept.sum()), seed, resamples)
    with np.errstate(invalid="ignore"):
        shares = counts @ np.asarray(part, dtype=float)[kept] / (counts @ counted[kept])
    return percentile_interval(shares, int(kept.sum()))


def paired_difference(
    x1: ArrayLike, x2: ArrayLike, y: ArrayLike, *, seed: int, resamples: int = RESAMPLES
) -> PairedDifference:
    """How much better `x2` agrees with `y` than `x1` does: r(x2, y) - r(x1, y).

    All three have shape (contexts, attributes), and only contexts complete in all of them are used. Both
    correlations of a resample are taken over the same resampled contexts, so what the two share cancels.
    """
    x1, x2, y = _complete(x1, x2, y)
    counts = resampled_counts(len(y), seed, resamples)
    values = resampled_r(x2, y, counts) - resampled_r(x1, y, counts)
    ends, p = percentile_interval(values, len(y)), two_sided_p(values, len(y))
    return PairedDifference(pearson(x2, y) - pearson(x1, y), *ends, p, detectable_effect(values, len(y)), len(y))


def permutation_null(
    x: ArrayLike, y: ArrayLike, *, seed: int, permutations: int = PERMUTATIONS, folds: ArrayLike | None = None
) -> float:
    """Would the reports of *other* contexts agree as well? Permutes whole contexts' vectors of x against y.

    Returns the two-sided p-value, (1 + count) / (1 + permutations). Counted are permutations at least as far as the
    observed r from the null's exact mean, which is not zero if some attribute position is high in both x and y
    throughout. NaN with fewer than 2 complete contexts, or no variance.

    Args:
        x: Mean reports, shape (contexts, attributes).
        y: Weights, same shape.
        seed: Of the permutations.
        permutations: Their number.
        folds: Which model reported on each context, shape (contexts,). Contexts then change places within a fold only:
            reports of two models differ in level, and so do the weights of two sets of contexts, which makes an r that
            permutations across folds take away: they would take it for knowledge of the contexts.
    """
    return _permutation_p(*permuted_r(x, y, seed=seed, permutations=permutations, folds=folds))


def _permutation_p(observed: float, null: NDArray[np.float64], centre: float) -> float:
    if math.isnan(observed) or not null.size:
        return math.nan
    as_far = np.abs(null - centre) >= abs(observed - centre) - 1e-12
    return (1 + int(as_far.sum())) / (1 + len(null))


def detectable_r(null: NDArray[np.float64], contexts: int) -> float:
    """The r that is found with a power of 80%, from r with contexts permuted; NaN without permutations.

    On Fisher's z, whose spread does not depend on r, and which is r near 0, where the null lies.
    """
    return math.tanh(detectable_effect(null, contexts))


def permuted_r(
    x: ArrayLike, y: ArrayLike, *, seed: int, permutations: int = PERMUTATIONS, folds: ArrayLike | None = None
) -> tuple[float, NDArray[np.float64], float]:
    """r, r with contexts permuted, shape (permutations,), and the exact mean of the latter; see `permutation_null`.

    No permutations with fewer than 2 complete contexts, or without variance.
    """
    whole = np.zeros(len(np.asarray(x)), dtype=int) if folds is None else np.asarray(folds)
    x, y, fold = (*_complete(x, y), whole[complete_contexts(x, y)])
    observed = pearson(x, y)
    if math.isnan(observed) or len(x) < 2:
        return observed, np.empty(0), math.nan
    standard_x, standard_y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    # Entry (i, j) is what r gains when context j of y meets context i of x; a permutation picks one i for each j.
    gains = standard_x @ standard_y.T / standard_x.size
    rng = stream(seed, "permutation_null")
    null, centre = np.zeros(permutations), 0.0
    for members in (np.flatnonzero(fold == label) for label in np.unique(fold)):
        orders = rng.permuted(np.tile(members, (permutations, 1)), axis=1)
        null += gains[orders, members].sum(axis=1)
        centre += gains[np.ix_(members, members)].sum() / len(members)
    return observed, null, centre


def complete_contexts(*arrays: ArrayLike) -> NDArray[np.bool_]:
    """Which contexts have no NaN in any of the arrays (contexts, attributes), shape (contexts,)."""
    return np.asarray(~np.any([np.isnan(np.asarray(a, dtype=float)).any(axis=1) for a in arrays], axis=0))


def _complete(*arrays: ArrayLike) -> list[NDArray[np.float64]]:
    """The contexts without NaN in any of the arrays; all must be of one shape (contexts, attributes)."""
    values = [np.asarray(a, dtype=float) for a in arrays]
    shapes = [v.shape for v in values]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2:
        raise InputError(f"agreement between arrays of shapes {shapes}; give (contexts, attributes), the same for all")
    kept = complete_contexts(*values)
    return [v[kept] for v in values]


@lru_cache(maxsize=16)  # drawing takes longer than all that is done with it, and comparisons share it
def resampled_counts(contexts: int, seed: int, resamples: int) -> NDArray[np.float64]:
    """How often each context is drawn in each bootstrap resample, shape (resamples, contexts); read-only."""
    if not contexts:
        return np.zeros((resamples, 0))
    rng = stream(seed, "bootstrap")
    counts = rng.multinomial(contexts, np.full(contexts, 1 / contexts), size=resamples).astype(float)
    counts.flags.writeable = False
    return counts


def resampled_r(x: NDArray[np.float64], y: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson's r of every resample, shape (resamples,), from sums a context; NaN without variance.

    x and y are complete, (contexts, attributes); counts, from `resampled_counts`, have shape (resamples, contexts).
    These may be columns of the counts of more contexts; r of a resample that drew none of them is NaN.
    """
    if math.isnan(pearson(x, y)) or len(x) < 2:
        return np.full(len(counts), np.nan)
    # Standardised first, so that the differences of sums below lose no digits.
    x, y = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()
    drawn = counts.sum(axis=1, keepdims=True) * x.shape[1]
    with np.errstate(invalid="ignore"):
        sums = counts @ np.stack([v.sum(axis=1) for v in (x, y, x * x, y * y, x * y)], axis=1) / drawn
    mean_x, mean_y, square_x, square_y, product = sums.T
    var_x, var_y = square_x - mean_x**2, square_y - mean_y**2
    varied = (var_x > 1e-12) & (var_y > 1e-12)
    scale = np.sqrt(np.where(varied, var_x * var_y, np.nan))
    return np.clip((product - mean_x * mean_y) / scale, -1, 1)


def percentile_interval(values: NDArray[np.float64], contexts: int) -> tuple[float, float]:
    """Interval of a figure from its values in the bootstrap resamples, those that are numbers; NaN if none is.

    The central 95% of the resamples' values are too narrow a 95% interval with few contexts: about as narrow as a
    normal's -+1.96 sd with variance / n where it takes a t quantile and variance / (n - 1). So the ends are taken
    further out, at the shares Phi(-+t sqrt(n / (n - 1))) with t(.975, n - 1) for n contexts (Hesterberg, "What teachers
    should know about the bootstrap", The American Statistician 69, 2015): .0212 with 50, .0176 with 25, towards .025 as
    n grows. Measured in results/calibration with 50 or 100 contexts, intervals of r then cover 93.6-95.7%, but only
    92.6-94.2% where contexts differ much in the scale of their reports, so that a few of them decide r.
    """
    values = values[~np.isnan(values)]
    if not values.size or contexts < 2:
        return math.nan, math.nan
    share = float(ndtr(-stdtrit(contexts - 1, 0.975) * math.sqrt(contexts / (contexts - 1))))
    low, high = np.quantile(values, [share, 1 - share])
    return float(low), float(high)
