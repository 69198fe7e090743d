"""Which figures of what was found inside arms are held together over several runs, and on which scale."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from store.inside import TASKS
from store.inside_summary import EndsSummary, InsideDifferenceSummary, InsideSummary, PatchingSummary

ON_THEIR_OWN_SCALE = {
    "corrected_similarity",
    "similarity_difference",
    "corrected_similarity_difference",
    "faithfulness_difference",
    "layer_distance_difference",
    *(f"log2_times_fewer_{task}" for task in TASKS),
}
"""Figures that are pooled as they are; the others are cosines and correlations, pooled on Fisher's z."""

DRAWN = ("similarity", "similarity_with_faithfulness", "similarity_difference")
"""Figures that are drawn run by run."""


class InsideFigure(NamedTuple):
    """A figure of one run: of which arm, training or difference, what it is, and the contexts behind it."""

    name: str
    kind: str
    found: EndsSummary
    n_contexts: int


def inside_figures(inside: InsideSummary) -> Iterator[InsideFigure]:
    """The figures of a run that other runs may have, too.

    Within one backbone they are `similarity_with_faithfulness` of the small adapters; between two arms they are the
    differences. Every run that has a figure takes part, whatever came of it.
    """
    for name, arm in inside.arms.items():
        yield InsideFigure(name, "similarity", arm.similarity, arm.n_contexts)
        yield InsideFigure(name, "corrected_similarity", arm.corrected, arm.n_contexts)
    for name, fresh in inside.fresh.items():
        yield InsideFigure(name, "similarity", fresh.similarity, len(fresh.arms))
        yield InsideFigure(name, "similarity_with_faithfulness", fresh.relation, fresh.relation_contexts)
    for difference in inside.differences:
        yield from _of_difference(difference)
    for name, patching in inside.patching.items():
        yield from _of_patching(name, patching)


def _of_difference(found: InsideDifferenceSummary) -> Iterator[InsideFigure]:
    name = f"{found.first} less {found.second}"
    parts = {
        "similarity_difference": found.similarity,
        "corrected_similarity_difference": found.corrected,
        "faithfulness_difference": found.faithfulness,
        "layer_distance_difference": found.profile_distance,
    }
    for kind, ends in parts.items():
        if ends is not None:
            yield InsideFigure(name, kind, ends, found.n_contexts)
    for task, ends in (found.times_fewer or {}).items():
        yield InsideFigure(name, f"log2_times_fewer_{task}", _log2(ends), found.patched_contexts)


def _of_patching(name: str, found: PatchingSummary) -> Iterator[InsideFigure]:
    """How many times fewer matrices than a random order each task needs in the order of the other."""
    for curve in found.curves:
        if curve.times_fewer is not None and curve.ranked_by != curve.task:
            figure = f"log2_times_fewer_{curve.task}"
            yield InsideFigure(name, figure, _log2(curve.times_fewer), found.n_contexts[curve.task])


def _log2(found: EndsSummary) -> EndsSummary:
    """A ratio as a difference of logarithms, which can be averaged."""
    values = (found.estimate, found.low, found.high)
    logs = [None if value is None or value <= 0 else math.log2(value) for value in values]
    return EndsSummary(estimate=logs[0], low=logs[1], high=logs[2])
