"""Patching: how much of a task is left when only a few matrices of an adapter change the backbone.

Matrices are ranked by the sum of the sizes of their rows' scores in a task (A and B together), each score being the
mean over contexts. The first k of an order are kept and the others left out, for k = 1, 2, 4 ... and all. What is left
is told by KL(whole adapter || k matrices) beside KL(whole adapter || backbone), at the places of the arm's own answers,
in decisions as well as in reports (`inside.divergence`): 1 minus their quotient is the share that is recovered.

Leaving a matrix out in memory is the same as a derived arm that gives it weight 0 (`store.derived`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from inside.adapted import Adapted, Matrix
from inside.answers import Answer
from inside.divergence import batches
from store.inside import Order, Task
from store.inside_tables import Scores
from task.errors import InputError
from task.seeding import stream

Ranking = tuple[Order, int, list[int]]
"""By what matrices are ranked, the number of a random order (0 of the others), and the matrices' places in order."""


def ranked(matrices: Sequence[Matrix], scores: Scores, where: str) -> list[int]:
    """The places of matrices, from the largest sum of sizes of scores to the smallest; ties by their places.

    Raises:
        InputError: The scores are of other matrices; `where` begins the message.
    """
    sums: dict[tuple[int, str], float] = {}
    sizes = np.abs(scores.values.mean(axis=0))
    for layer, name, size in zip(scores.rows.layer.tolist(), scores.rows.matrix.tolist(), sizes.tolist(), strict=True):
        sums[layer, name] = sums.get((layer, name), 0.0) + size
    if {*sums} != {(matrix.layer, matrix.name) for matrix in matrices}:
        raise InputError(f"{where}: scores of other matrices than those of the adapter; attribute the arm again")
    return sorted(range(len(matrices)), key=lambda place: -sums[matrices[place].layer, matrices[place].name])


def rankings(
    matrices: Sequence[Matrix], scores: Mapping[Task, Scores], random: int, seed: int, where: str
) -> list[Ranking]:
    """The orders in which matrices are taken: by each task that has scores, then random ones."""
    found: list[Ranking] = [(task, 0, ranked(matrices, own, where)) for task, own in scores.items()]
    for draw in range(1, random + 1):
        found.append(("random", draw, stream(seed, f"order of matrices {draw}").permutation(len(matrices)).tolist()))
    return found


def kept_counts(matrices: int) -> list[int]:
    """How many matrices are kept in turn: 1, 2, 4 ... and all."""
    return [*(1 << power for power in range((matrices - 1).bit_length())), matrices]


@torch.no_grad()
def divergences(
    model: Adapted, answers: Sequence[Answer], kept: Sequence[frozenset[int]], batch_size: int
) -> list[float]:
    """KL(whole adapter || adapter with some matrices only) for sets of places of matrices, means over answers, in nats.

    A set that stands there twice is computed once.
    """
    sums = dict.fromkeys(kept, 0.0)
    for batch in batches(answers, batch_size, model.base.device):
        whole = batch.log_probabilities(model.base)
        for places in sums:
            with model.only(places):
                sums[places] += float(batch.divergence(whole, batch.log_probabilities(model.base)))
    return [sums[places] / len(answers) for places in kept]
