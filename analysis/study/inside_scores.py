"""The attribution of one arm, read and summed up: its scores for both tasks on the contexts that have both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.stats.score_profile import (
    Shares,
    distance,
    jackknifed,
    largest_row,
    mean_place,
    rows_with_half,
    shares,
    without_each_matrix,
)
from analysis.stats.similarity import Products, cosine, permuted_rows, products, similarity
from store.inside import TASKS, AttributionFacts, Task, scores_folder
from store.inside_summary import EndsSummary, ProfileSummary, SimilaritySummary
from store.inside_tables import OUTSIDE, Rows, Scores, read_scores
from store.manifests import read_manifest
from store.stages import begun

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Matrices:
    """Which matrix each row of an adapter belongs to, its rows in the order (layer, matrix, factor, row).

    Attributes:
        order: Of the rows as they are in the file, shape (rows,).
        factor: Number of the factor of each row, ascending, shape (rows,).
        matrix: Likewise of the matrix, A and B together.
        layer: Layer of each row.
        kind: Number of the name of each row's matrix.
        layers, kinds: What these numbers mean.
        names: Of the matrices, by number.
    """

    order: NDArray[np.int64]
    factor: NDArray[np.int64]
    matrix: NDArray[np.int64]
    layer: NDArray[np.int64]
    kind: NDArray[np.int64]
    layers: list[int]
    kinds: list[str]
    names: list[str]


@dataclass(frozen=True)
class ArmScores:
    """Scores of an arm, its rows in the order of `matrices`.

    Attributes:
        contexts: Those with scores for both tasks.
        left_out: The others.
        scores: By task, shape (contexts, rows).
        facts: What the attribution says of itself, by task.
    """

    arm: str
    contexts: list[str]
    left_out: list[str]
    matrices: Matrices
    scores: dict[Task, Array]
    facts: dict[Task, AttributionFacts]

    @cached_property
    def products(self) -> Products:
        """Inner products of the contexts."""
        return products(self.scores["deciding"], self.scores["reporting"])

    @cached_property
    def means(self) -> dict[Task, Array]:
        """Scores averaged over contexts, by task, shape (rows,)."""
        return {task: values.mean(axis=0) for task, values in self.scores.items()}

    @cached_property
    def layer_shares(self) -> dict[Task, Shares]:
        """Share of the importance in each of the layers, by task."""
        place = np.searchsorted(self.matrices.layers, self.matrices.layer)
        place = np.where(self.matrices.layer == OUTSIDE, -1, place)
        return {task: shares(values, place, len(self.matrices.layers)) for task, values in self.scores.items()}

    @property
    def cosine(self) -> float:
        """The similarity."""
        return cosine(self.means["deciding"], self.means["reporting"])

    def of(self, contexts: list[str]) -> Products:
        """`products` of some of the contexts, in this order."""
        place = [self.contexts.index(name) for name in contexts]
        at = np.ix_(place, place)
        return Products(self.products.deciding[at], self.products.reporting[at], self.products.crossed[at])

    def only(self, contexts: list[str]) -> ArmScores:
        """The scores on some of the contexts, in this order."""
        if contexts == self.contexts:
            return self
        place = [self.contexts.index(name) for name in contexts]
        kept = {task: values[place] for task, values in self.scores.items()}
        return ArmScores(self.arm, contexts, self.left_out, self.matrices, kept, self.facts)


def read_arm_scores(inside: Path, arm: str, draw: int = 0) -> ArmScores | None:
    """The scores of an arm, or of its random adapter number `draw`; None unless both tasks have finished.

    Raises:
        InputError: A file is missing, cut, or of another form.
    """
    folders = {task: scores_folder(inside, arm, task, draw) for task in TASKS}
    if any(begun(folder) != "finished" for folder in folders.values()):
        return None
    facts = {task: read_manifest(folder, AttributionFacts).facts for task, folder in folders.items()}
    if not all(told.contexts for told in facts.values()):
        nothing = np.zeros(0, dtype=int)
        matrices = Matrices(nothing, nothing, nothing, nothing, nothing, [], [], [])
        return ArmScores(arm, [], facts["reporting"].left_out, matrices, {}, facts)
    read = {task: read_scores(folder) for task, folder in folders.items()}
    shared = [name for name in read["deciding"].contexts if name in read["reporting"].contexts]
    asked = dict.fromkeys([*read["deciding"].contexts, *(name for told in facts.values() for name in told.left_out)])
    found = matrices_of(read["deciding"].rows)
    scores = {task: _of_contexts(table, shared)[:, found.order] for task, table in read.items()}
    return ArmScores(arm, shared, [name for name in asked if name not in shared], found, scores, facts)


def _of_contexts(table: Scores, contexts: list[str]) -> Array:
    return table.values[[table.contexts.index(name) for name in contexts]]


def matrices_of(rows: Rows) -> Matrices:
    """Sort the rows of an adapter into matrices and layers."""
    kinds, kind = np.unique(rows.matrix, return_inverse=True)
    order = np.lexsort((rows.row, rows.factor, kind, rows.layer))
    layer, kind, factor = rows.layer[order].astype(int), kind[order], rows.factor[order]
    new = np.r_[True, (layer[1:] != layer[:-1]) | (kind[1:] != kind[:-1])]
    places = zip(layer[new].tolist(), kind[new].tolist(), strict=True)
    return Matrices(
        order=order,
        factor=np.cumsum(new | np.r_[True, factor[1:] != factor[:-1]]) - 1,
        matrix=np.cumsum(new) - 1,
        layer=layer,
        kind=kind,
        layers=[int(at) for at in np.unique(layer) if at != OUTSIDE],
        kinds=[str(name) for name in kinds],
        names=[str(kinds[k]) if at == OUTSIDE else f"layers.{at}.{kinds[k]}" for at, k in places],
    )


def random_cosines(inside: Path, scores: ArmScores) -> list[float]:
    """The similarity of each random adapter in the place of an arm's, on the arm's contexts that it has."""
    found: list[float] = []
    while (drawn := read_arm_scores(inside, scores.arm, len(found) + 1)) is not None:
        shared = [name for name in scores.contexts if name in drawn.contexts]
        found.append(drawn.only(shared).cosine if shared else math.nan)
    return found


def ends(figures: tuple[float, float, float]) -> EndsSummary:
    """A figure with its interval."""
    return EndsSummary(estimate=figures[0], low=figures[1], high=figures[2])


def p_of_random(similarity_found: float, random: list[float]) -> float | None:
    """(1 + random adapters at least as similar) / (1 + all); None without any."""
    known = [value for value in random if not math.isnan(value)]
    if math.isnan(similarity_found) or not known:
        return None
    return (1 + sum(value >= similarity_found for value in known)) / (1 + len(known))


def similarity_summary(found: ArmScores, backbone: str, random: list[float], seed: int) -> SimilaritySummary:
    """All that is said of an arm's attribution."""
    at, (d, r) = found.matrices, (found.means[task] for task in TASKS)
    cosines, null = similarity(found.products, seed=seed), permuted_rows(d, r, at.factor, seed=seed)
    without = without_each_matrix(d, r, at.matrix)
    known = without[~np.isnan(without)]
    layers = found.layer_shares
    return SimilaritySummary(
        backbone=backbone,
        n_contexts=cosines.n_contexts,
        left_out=found.left_out,
        rows=len(d),
        matrices=len(at.names),
        similarity=ends((cosines.similarity, cosines.low, cosines.high)),
        corrected=ends((cosines.corrected, cosines.corrected_low, cosines.corrected_high)),
        reliability={"deciding": cosines.reliability_deciding, "reporting": cosines.reliability_reporting},
        random=[*random],
        p_random=p_of_random(cosines.similarity, random),
        rows_null_mean=null.mean,
        rows_null_sd=null.sd,
        p_rows=null.p,
        without_matrix_low=known.min() if known.size else None,
        without_matrix_high=known.max() if known.size else None,
        decisive_matrix=at.names[int(np.nanargmax(np.abs(without - cosines.similarity)))] if known.size else "",
        rows_with_half={task: rows_with_half(mean) for task, mean in found.means.items()},
        largest_row={task: largest_row(mean) for task, mean in found.means.items()},
        layers=ProfileSummary(names=[*map(str, at.layers)], shares={t: s.whole.tolist() for t, s in layers.items()}),
        kinds=ProfileSummary(
            names=at.kinds,
            shares={t: shares(values, at.kind, len(at.kinds)).whole.tolist() for t, values in found.scores.items()},
        ),
        peak_layer={task: _peak(share, at.layers) for task, share in layers.items()},
        mean_layer={task: ends(mean_layer(found, task)) for task in TASKS},
        profile_distance=ends(profile_distance(found)),
        completeness_error={task: facts.relative_error for task, facts in found.facts.items()},
        unreadable=found.facts["reporting"].unreadable,
    )


def _peak(share: Shares, layers: list[int]) -> int | None:
    return layers[int(share.whole.argmax())] if layers and not np.isnan(share.whole).any() else None


def mean_layer(found: ArmScores, task: Task) -> tuple[float, float, float]:
    """Mean layer of a task, weighted by importance, with its interval."""
    return jackknifed(*_mean_layers(found, task))


def profile_distance(found: ArmScores) -> tuple[float, float, float]:
    """How far the layers of both tasks lie apart, with its interval."""
    return jackknifed(*_distances(found))


def mean_layer_difference(first: ArmScores, second: ArmScores, task: Task) -> tuple[float, float, float]:
    """The mean layer of one arm less that of another, on the same contexts in one order."""
    (one, rest), (other, other_rest) = (_mean_layers(found, task) for found in (first, second))
    return jackknifed(one - other, rest - other_rest)


def distance_difference(first: ArmScores, second: ArmScores) -> tuple[float, float, float]:
    """`profile_distance` of one arm less that of another, on the same contexts in one order."""
    (one, rest), (other, other_rest) = (_distances(found) for found in (first, second))
    return jackknifed(one - other, rest - other_rest)


def _mean_layers(found: ArmScores, task: Task) -> tuple[Array, Array]:
    """Of all contexts together, and without each of them."""
    share = found.layer_shares[task]
    return mean_place(share.whole, found.matrices.layers), mean_place(share.left_out, found.matrices.layers)


def _distances(found: ArmScores) -> tuple[Array, Array]:
    one, other = (found.layer_shares[task] for task in TASKS)
    return distance(one.whole, other.whole), distance(one.left_out, other.left_out)
