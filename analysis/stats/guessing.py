"""The input-only baseline: how well weights can be guessed from the text of the attributes, without any model.

Each attribute is described by the words of its name, its units, and the runs of 3 to 5 characters in its name, with
tf-idf weights; ridge regression goes from there to the weights. A context is predicted from the other contexts alone,
with the penalty that predicts best when each of *those* is left out in turn. Two things are easily got wrong:

- Predictions are deviations from the mean of the training weights. Adding that mean, which is low just where
  the context left out is high, would make predictions correlate *negatively* with weights that cannot be guessed.
- The null permutes whole contexts of weights and does everything anew, penalties included. Permuting the predictions
  instead rejects far too often, 4 times in 10 with random weights: the prediction of context 1 holds the weights of
  context 2, and the reverse. Chance is the null's mean, a little below 0: without a context that fits the others less
  well than by chance, they seem easier to predict, the chosen penalty is smaller, and its prediction larger.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.stats.agreement import bootstrap_r, pearson
from analysis.stats.records import Record
from task.contexts import Attribute, ChoiceContext
from task.replies import report_key
from task.seeding import stream

RUN_LENGTHS = (3, 4, 5)
"""Lengths of the runs of characters, which let `fuel cost` and `running costs` have something in common."""

PENALTIES = 10.0 ** np.arange(-1.0, 3.1, 0.5)
"""Candidates, in units of the mean squared length of an attribute's (centred) features."""

PERMUTATIONS = 500
"""Of the null; each repeats all fits."""

FEWEST = 10
"""Contexts below which nothing is fitted."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Baseline(Record):
    """How well one set of weights can be guessed from the attributes' text; NaN where that cannot be computed.

    Attributes:
        weights: `target`, or the arm whose decisions they drive.
        contexts: Name of the group.
        r: Pearson correlation of predictions with weights over all points.
        boot_low, boot_high: 95% interval from resampling contexts, the predictions held fixed: for the size of r, not
            for whether it is chance.
        p_permutation: Two-sided, from permuting contexts and fitting anew.
        null_mean, null_low, null_high: Mean and central 95% of r under that null.
        n_contexts, n_points: Contexts and points behind it.
        n_features: Words, units and runs of characters that two or more contexts share.
    """

    weights: str
    contexts: str
    r: float
    boot_low: float
    boot_high: float
    p_permutation: float
    null_mean: float
    null_low: float
    null_high: float
    n_contexts: int
    n_points: int
    n_features: int


def tokens(attribute: Attribute) -> set[str]:
    """Words and runs of characters of the name, and the units, each marked with its kind."""
    name, units = report_key(attribute.name), report_key(attribute.units)
    padded = f" {name} "
    runs = {f"run:{padded[i : i + n]}" for n in RUN_LENGTHS for i in range(len(padded) - n + 1)}
    return runs | {f"word:{word}" for word in re.findall(r"\w+", name)} | {f"units:{units}" if units else "units:none"}


def text_features(contexts: Sequence[ChoiceContext]) -> Array:
    """tf-idf of the attributes' tokens, rows of length 1, shape (contexts * attributes, tokens of 2 or more contexts).

    idf = 1 + log((1 + contexts) / (1 + contexts with the token)). A token that one context alone has says nothing of
    the others.
    """
    of_attributes = [tokens(a) for context in contexts for a in context.attributes]
    of_contexts = Counter(t for context in contexts for t in set().union(*(tokens(a) for a in context.attributes)))
    places = {token: i for i, token in enumerate(sorted(t for t, n in of_contexts.items() if n > 1))}
    idf = {t: 1 + math.log((1 + len(contexts)) / (1 + of_contexts[t])) for t in places}
    table = np.zeros((len(of_attributes), len(places)))
    for row, found in enumerate(of_attributes):
        for token in found & places.keys():
            table[row, places[token]] = idf[token]
    length = np.linalg.norm(table, axis=1, keepdims=True)
    return table / np.where(length > 0, length, 1)


def leave_contexts_out(features: Array, weights: Array) -> Array:
    """Predict each context's weights from the others, as deviations from their mean.

    Ridge regression with an intercept that is not penalised. With H the matrix that takes the weights to the fitted
    ones, the errors on the rows S when S is left out are (I - H_SS)^-1 (I - H)_S y, exactly (Cook & Weisberg 1982,
    Residuals and Influence in Regression, 2.3; for ridge through its augmented rows). S is one context for the
    prediction, and that context and one other for the choice of its penalty.

    Features have shape (contexts * attributes, features). Each set of weights (contexts, attributes, sets) is predicted
    by itself, and the predictions for a context are a function of the other contexts' weights only.
    """
    contexts, attributes, sets = weights.shape
    centred = features - features.mean(axis=0)
    gram = centred @ centred.T
    scale, identity = np.trace(gram) / len(gram), np.eye(len(gram))
    errors = np.empty((len(PENALTIES), contexts, attributes, sets))
    inner = np.empty((len(PENALTIES), contexts, sets))
    for i, penalty in enumerate(PENALTIES):
        maker = identity - 1 / len(gram) - np.linalg.solve(gram + penalty * scale * identity, gram)  # I - H
        blocks = maker.reshape(contexts, attributes, contexts, attributes)
        residuals = (maker @ weights.reshape(-1, sets)).reshape(weights.shape)
        for c in range(contexts):
            errors[i, c], inner[i, c] = _errors_without(c, blocks, residuals)
    best = inner.argmin(axis=0)
    predicted = weights - np.take_along_axis(errors, best[None, :, None, :], axis=0)[0]
    mean_of_others = (weights.sum(axis=(0, 1)) - weights.sum(axis=1)) / ((contexts - 1) * attributes)
    return predicted - mean_of_others[:, None]


def _errors_without(c: int, blocks: Array, residuals: Array) -> tuple[Array, Array]:
    """Errors on the context `c` that is left out (attributes, sets), and the sum of squares of the others (sets,).

    Each of the others is left out as well. `blocks` is I - H, shape (contexts, attributes, contexts, attributes);
    `residuals` is (I - H) y, shape (contexts, attributes, sets).
    """
    others = np.arange(len(blocks)) != c
    own = np.linalg.inv(blocks[c, :, c])
    errors: Array = own @ residuals[c]
    # The lower part of the solution for both contexts, by elimination of the one that is left out throughout.
    across = blocks[others, :, c]
    within = blocks[others, :, others] - across @ own @ blocks[c, :, others]
    inner = np.linalg.solve(within, residuals[others] - across @ errors)
    return errors, np.square(inner).sum(axis=(0, 1))


def baseline(
    label: str, group: str, contexts: Sequence[ChoiceContext], weights: Array, seed: int
) -> tuple[Baseline, Array]:
    """Guess weights (contexts, attributes) from text; contexts with NaN are left out.

    The predictions that are returned, too, are deviations; NaN where nothing was predicted.
    """
    predictions = np.full(weights.shape, np.nan)
    kept = ~np.isnan(weights).any(axis=1)
    weights = weights[kept]
    count = len(weights)
    features = text_features([contexts[i] for i in np.flatnonzero(kept)])
    sizes = {"n_contexts": count, "n_points": weights.size, "n_features": features.shape[1]}
    if count < FEWEST or not features.shape[1]:
        nan = math.nan
        return Baseline(label, group, nan, nan, nan, nan, nan, nan, nan, **sizes), predictions
    rng = stream(seed, "baseline", f"{label}/{group}")
    orders = [np.arange(count), *(rng.permutation(count) for _ in range(PERMUTATIONS))]
    sets = np.stack([weights[order] for order in orders], axis=2)
    predicted = leave_contexts_out(features, sets)
    r, *null = (pearson(predicted[..., i], sets[..., i]) for i in range(len(orders)))
    low, high = bootstrap_r(predicted[..., 0], weights, seed=seed)
    predictions[kept] = predicted[..., 0]
    return Baseline(label, group, r, low, high, *_null(r, np.array(null)), **sizes), predictions


def _null(r: float, null: Array) -> tuple[float, float, float, float]:
    """Two-sided p-value about the null's mean, that mean, and the ends of its central 95%."""
    if math.isnan(r):
        return math.nan, math.nan, math.nan, math.nan
    mean = float(null.mean())
    as_far = int((np.abs(null - mean) >= abs(r - mean) - 1e-12).sum())
    low, high = np.quantile(null, [0.025, 0.975])
    return (1 + as_far) / (1 + len(null)), mean, float(low), float(high)
