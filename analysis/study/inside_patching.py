"""The patching of one arm, or of all small adapters of a training together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.stats.patching import (
    Curve,
    half_recovery,
    recovery,
    recovery_interval,
    recovery_of_draws,
    times_fewer,
)
from analysis.study.inside_scores import ends
from store.inside import TASKS, Order, PatchingFacts, Task, patching_folder
from store.inside_summary import CurveSummary, EndsSummary, PatchingSummary
from store.inside_tables import Patched, read_patching
from store.manifests import read_manifest
from store.stages import begun

ORDERS: tuple[Order, ...] = ("deciding", "reporting", "random")


@dataclass(frozen=True)
class ArmPatching:
    """The patching of an arm, or of several with as many matrices, each in contexts of its own.

    Attributes:
        rows: As in the files.
        left_out: Contexts without a report that could be read.
        matrices: Of each arm.
    """

    rows: list[Patched]
    left_out: list[str]
    matrices: int

    def contexts(self, task: Task) -> list[str]:
        """The contexts in which a task was measured."""
        return list(dict.fromkeys(row.context for row in self.rows if row.task == task))

    def curve(self, task: Task, ranked_by: Order, contexts: Sequence[str] | None = None) -> Curve | None:
        """KL on a task by number of matrices in an order, on some contexts or all; None where it was not measured."""
        rows = [row for row in self.rows if (row.task, row.ranked_by) == (task, ranked_by)]
        names = [*(self.contexts(task) if contexts is None else contexts)]
        sizes, draws = sorted({row.k for row in rows}), sorted({row.draw for row in rows})
        kl = np.full((len(draws), len(names), len(sizes)), math.nan)
        backbone = np.full(len(names), math.nan)
        places = {name: place for place, name in enumerate(names)}
        for row in rows:
            if (at := places.get(row.context)) is not None:
                kl[draws.index(row.draw), at, sizes.index(row.k)] = row.kl
                backbone[at] = row.kl_backbone
        return Curve(np.array(sizes), kl, backbone) if rows and names else None


def read_arm_patching(inside: Path, arms: Sequence[str]) -> ArmPatching | None:
    """The patching of some arms together; None if that of none has finished.

    Arms whose adapters have other numbers of matrices than the first one's are left out.

    Raises:
        InputError: A file is missing, cut, or of another form.
    """
    folders = [patching_folder(inside, arm) for arm in arms]
    finished = [folder for folder in folders if begun(folder) == "finished"]
    facts = [read_manifest(folder, PatchingFacts).facts for folder in finished]
    rows: list[Patched] = []
    left_out: list[str] = []
    for folder, of_arm in zip(finished, facts, strict=True):
        if of_arm.matrices == facts[0].matrices:
            rows += read_patching(folder)
            left_out += of_arm.left_out
    return ArmPatching(rows, left_out, facts[0].matrices) if rows else None


def patching_summary(found: ArmPatching, backbone: str, seed: int) -> PatchingSummary:
    """All that is said of a patching."""
    curves = [_curve(found, task, order, seed) for task in TASKS for order in ORDERS]
    return PatchingSummary(
        backbone=backbone,
        matrices=found.matrices,
        n_contexts={task: len(found.contexts(task)) for task in TASKS},
        left_out=found.left_out,
        curves=[curve for curve in curves if curve is not None],
    )


def _curve(found: ArmPatching, task: Task, order: Order, seed: int) -> CurveSummary | None:
    curve, random = found.curve(task, order), found.curve(task, "random")
    if curve is None:
        return None
    half = half_recovery(curve, random, seed=seed)
    if order == "random":
        draws = recovery_of_draws(curve)
        low, high = draws.min(axis=0), draws.max(axis=0)
    else:
        low, high = recovery_interval(curve, seed=seed)
    against = order != "random" and random is not None
    return CurveSummary(
        task=task,
        ranked_by=order,
        draws=len(curve.kl),
        k=curve.k.tolist(),
        recovery=recovery(curve).tolist(),
        low=low.tolist(),
        high=high.tolist(),
        half=ends((half.k, half.low, half.high)),
        times_fewer=ends((half.times_fewer, half.times_low, half.times_high)) if against else None,
    )


def patching_difference(first: ArmPatching, second: ArmPatching, seed: int) -> tuple[dict[Task, EndsSummary], int]:
    """How many times fewer matrices the first needs across tasks, by the task that is measured; contexts of both.

    Across tasks: matrices are ranked by the scores of the task that is not measured.
    """
    found: dict[Task, EndsSummary] = {}
    fewest = 0
    for task, other in zip(TASKS, reversed(TASKS), strict=True):
        shared = [name for name in first.contexts(task) if name in second.contexts(task)]
        curves = [arm.curve(task, other, shared) for arm in (first, second)]
        if curves[0] is not None and curves[1] is not None:
            found[task] = ends(times_fewer(curves[0], curves[1], seed=seed))
            fewest = min(fewest, len(shared)) if fewest else len(shared)
    return found, fewest
