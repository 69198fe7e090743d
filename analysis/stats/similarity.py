"""Attribution similarity: do the same rows of an adapter matter for deciding and for reporting?

Attribution gives each row of each adapter matrix a score for deciding and one for reporting, in every context. The
similarity of the two tasks is the cosine of the two vectors of scores, each averaged over contexts.

All figures here are made of inner products of contexts: D_i R_j for the scores of context i for deciding and of context
j for reporting, and D_i D_j, R_i R_j likewise. Products of *different* contexts have no noise in common. Their means

    S_D = mean of D_i D_j,   S_R = mean of R_i R_j,   C = mean of D_i R_j,   all over i != j,

are free of the noise of single contexts, and so

    reliability of a vector = S / |its mean|^2,   corrected similarity = C / sqrt(S_D S_R).

The first is the split-half reliability with the formula of Spearman and Brown (1910), of all splits at once. With m
contexts in each half, the halves' mean product is S, and their mean square is Q / m + (1 - 1 / m) S, where Q is the
mean of D_i D_i; the ratio h of both gives 2 h / (1 + h) = S / (Q / 2m + (1 - 1 / 2m) S) = S / |mean|^2. The second is
Spearman's (1904, Am. J. Psychol. 15) correction with the products of different contexts in the numerator, as he had it:
within one context the two tasks share the context's noise, which is no similarity of the tasks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.stats.agreement import RESAMPLES, percentile_interval, resampled_counts
from analysis.stats.records import Record
from analysis.stats.reliability import UNDEFINED
from analysis.stats.testing import two_sided_p
from task.seeding import stream

PERMUTATIONS = 1000
"""Of the rows within matrices: the smallest p-value is 1/1001."""

FEWEST = 5
"""Contexts below which there is no interval: resamples of fewer are few, and too often the same."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Similarity(Record):
    """Cosine of the scores for deciding and for reporting; NaN for what cannot be computed.

    Attributes:
        similarity: Of the scores averaged over contexts.
        low, high: Its 95% interval from resampling contexts.
        corrected: What it would be without the noise of contexts; NaN with one context, or where a vector's
            reliability is not positive. It may exceed 1.
        corrected_low, corrected_high: Its interval.
        reliability_deciding, reliability_reporting: Of the two vectors; NaN with one context.
        n_contexts: Contexts with scores for both.
    """

    similarity: float
    low: float
    high: float
    corrected: float
    corrected_low: float
    corrected_high: float
    reliability_deciding: float
    reliability_reporting: float
    n_contexts: int


@dataclass(frozen=True)
class Products:
    """Inner products of the scores of contexts, each (contexts, contexts): D_i D_j, R_i R_j and D_i R_j."""

    deciding: Array
    reporting: Array
    crossed: Array

    @property
    def contexts(self) -> int:
        """How many contexts."""
        return len(self.crossed)


@dataclass(frozen=True)
class Resampled:
    """The similarity and the corrected one in every resample of contexts, each (resamples,), NaN where undefined."""

    similarity: Array
    corrected: Array


@dataclass(frozen=True)
class SimilarityDifference(Record):
    """How much more similar the tasks are in one arm than in another, on the same contexts.

    Attributes:
        difference: Of the similarities.
        low, high: Its 95% interval, the same contexts resampled for both.
        p_bootstrap: Two-sided p-value that goes with the interval.
        corrected, corrected_low, corrected_high: Of the corrected similarities.
        n_contexts: Contexts of both.
    """

    difference: float
    low: float
    high: float
    p_bootstrap: float
    corrected: float
    corrected_low: float
    corrected_high: float
    n_contexts: int


@dataclass(frozen=True)
class RowNull(Record):
    """The similarity if the rows of each matrix changed places at random.

    Attributes:
        mean, sd: Of the null, exact. The mean is not 0 where both tasks use the same matrices.
        p: Two-sided p-value, (1 + permutations at least as far from the mean) / (1 + permutations).
    """

    mean: float
    sd: float
    p: float


def cosine(x: ArrayLike, y: ArrayLike) -> float:
    """Cosine of two vectors; NaN if one of them is 0."""
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(np.clip(a @ b / size, -1, 1)) if size else math.nan


def products(deciding: ArrayLike, reporting: ArrayLike) -> Products:
    """The inner products of two tables of scores, each (contexts, rows)."""
    d, r = np.asarray(deciding, dtype=float), np.asarray(reporting, dtype=float)
    return Products(d @ d.T, r @ r.T, d @ r.T)


def similarity(found: Products, *, seed: int, resamples: int = RESAMPLES) -> Similarity:
    """All figures of `Similarity`, from the inner products of an arm's scores."""
    once = np.ones((1, found.contexts))
    whole, drawn = _figures(found, once), resample(found, seed=seed, resamples=resamples)
    return Similarity(
        float(whole.similarity[0]),
        *_interval(drawn.similarity, found.contexts),
        float(whole.corrected[0]),
        *_interval(drawn.corrected, found.contexts),
        reliability(found.deciding),
        reliability(found.reporting),
        found.contexts,
    )


def reliability(product: ArrayLike) -> float:
    """Split-half reliability of a mean over contexts, from inner products (contexts, contexts); NaN for one context."""
    own = np.asarray(product, dtype=float)
    between, square = (float(value[0]) for value in _means(own, np.ones((1, len(own)))))
    return between / square if square > 0 else math.nan


def resample(found: Products, *, seed: int, resamples: int = RESAMPLES) -> Resampled:
    """Both figures in every resample of contexts; two arms with as many contexts get the same resamples.

    A context that is drawn twice is no second measurement: products of a context with itself would pass for
    reliability, and their noise would make a vector longer. So products of different contexts are averaged apart, and
    the square of a mean is put together as that of as many contexts that all differ.
    """
    return _figures(found, resampled_counts(found.contexts, seed, resamples))


def similarity_difference(first: Products, second: Products, *, seed: int) -> SimilarityDifference:
    """The similarity of one arm less that of another, both on the same contexts in one order."""
    once = np.ones((1, first.contexts))
    (whole, other), n = (_figures(found, once) for found in (first, second)), first.contexts
    drawn, drawn_other = (resample(found, seed=seed) for found in (first, second))
    differences = drawn.similarity - drawn_other.similarity
    low, high = _interval(differences, n)
    return SimilarityDifference(
        float(whole.similarity[0] - other.similarity[0]),
        low,
        high,
        math.nan if math.isnan(low) else two_sided_p(differences, n),
        float(whole.corrected[0] - other.corrected[0]),
        *_interval(drawn.corrected - drawn_other.corrected, n),
        n,
    )


def permuted_rows(
    deciding: ArrayLike, reporting: ArrayLike, matrix: ArrayLike, *, seed: int, permutations: int = PERMUTATIONS
) -> RowNull:
    """The null of rows that change places within their matrix.

    Args:
        deciding: Scores averaged over contexts, shape (rows,).
        reporting: Likewise.
        matrix: Number of the matrix of each row, shape (rows,), in ascending order.
        seed: Of the permutations.
        permutations: Their number.
    """
    d, r, starts = np.asarray(deciding, dtype=float), np.asarray(reporting, dtype=float), matrix_starts(matrix)
    mean, sd = row_null_moments(d, r, matrix)
    size = math.sqrt(float(d @ d) * float(r @ r))
    if not size:
        return RowNull(math.nan, math.nan, math.nan)
    rng, null = stream(seed, "permuted_rows"), np.zeros(permutations)
    for one, other in zip(np.split(d, starts[1:]), np.split(r, starts[1:]), strict=True):
        null += rng.permuted(np.tile(one, (permutations, 1)), axis=1) @ other / size
    as_far = np.abs(null - mean) >= abs(float(d @ r) / size - mean) - 1e-12
    return RowNull(mean, sd, (1 + int(as_far.sum())) / (1 + permutations))


def row_null_moments(deciding: ArrayLike, reporting: ArrayLike, matrix: ArrayLike) -> tuple[float, float]:
    """Mean and standard deviation of the null of `permuted_rows`, exact.

    A sum of products under a random permutation of n values has the mean n mean(d) mean(r) and the variance
    SS_d SS_r / (n - 1), where SS is a sum of squared deviations (Wald and Wolfowitz 1944, Ann. Math. Stat. 15).
    """
    d, r, starts = np.asarray(deciding, dtype=float), np.asarray(reporting, dtype=float), matrix_starts(matrix)
    size = math.sqrt(float(d @ d) * float(r @ r))
    if not size:
        return math.nan, math.nan
    many = np.diff([*starts, len(d)])
    sum_d, sum_r, square_d, square_r = (np.add.reduceat(values, starts) for values in (d, r, d * d, r * r))
    spread = np.maximum(square_d - sum_d**2 / many, 0) * np.maximum(square_r - sum_r**2 / many, 0)
    variance = float((spread / np.maximum(many - 1, 1)).sum())
    return float((sum_d * sum_r / many).sum()) / size, math.sqrt(variance) / size


def matrix_starts(matrix: ArrayLike) -> NDArray[np.int64]:
    """Where each matrix begins, from the number of the matrix of each row in ascending order."""
    numbers = np.asarray(matrix)
    return np.flatnonzero(np.r_[True, numbers[1:] != numbers[:-1]])


def mean_interval(values: ArrayLike, *, seed: int) -> tuple[float, float, float]:
    """Mean of one figure a context, shape (contexts,), with its 95% interval from resampling them."""
    found = np.asarray(values, dtype=float)
    if not found.size:
        return math.nan, math.nan, math.nan
    counts = resampled_counts(len(found), seed, RESAMPLES)
    return float(found.mean()), *_interval(counts @ found / len(found), len(found))


def mean_p(values: ArrayLike, *, seed: int) -> float:
    """Two-sided p-value of "the mean is 0" that goes with the interval of `mean_interval`; NaN where there is none."""
    found = np.asarray(values, dtype=float)
    if len(found) < FEWEST:
        return math.nan
    return two_sided_p(resampled_counts(len(found), seed, RESAMPLES) @ found / len(found), len(found))


def _figures(found: Products, counts: Array) -> Resampled:
    """Both figures for each row of `counts`, (resamples, contexts): how often each context counts."""
    own_d, own_r, both = (_means(product, counts) for product in (found.deciding, found.reporting, found.crossed))
    with np.errstate(invalid="ignore", divide="ignore"):
        whole = both[1] / np.sqrt(_positive(own_d[1]) * _positive(own_r[1]))
        corrected = both[0] / np.sqrt(_positive(own_d[0]) * _positive(own_r[0]))
    return Resampled(np.clip(whole, -1, 1), corrected)


def _means(product: Array, counts: Array) -> tuple[Array, Array]:
    """Mean product of two different contexts, and the product of two means over contexts, by row of `counts`."""
    n, own = counts.shape[1], np.diag(product)
    pairs = n * n - (counts**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = (((counts @ product) * counts).sum(axis=1) - counts**2 @ own) / np.where(pairs > 0, pairs, np.nan)
    within = counts @ own / n
    return between, within if n == 1 else between * (1 - 1 / n) + within / n


def _positive(values: Array) -> Array:
    return np.where(values > 0, values, np.nan)


def _interval(values: Array, contexts: int) -> tuple[float, float]:
    """95% interval; NaN with few contexts, or where too many resamples leave the figure undefined."""
    if contexts < FEWEST or np.isnan(values).mean() > UNDEFINED:
        return math.nan, math.nan
    return percentile_interval(values, contexts)
