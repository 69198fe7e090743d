"""By which weights an arm was taught to decide: the targets, weights drawn again, or either reversed under a cue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.study.comparisons import asked_arm
from store.run import RunFolder, RunRecord, Source
from store.weights import load_weights
from task.prompts import DEFAULT, Variant

Weights = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Taught:
    """What a training of a whole group taught an arm to decide by, in one variant of the prompts.

    Attributes:
        arm, variant: Of the decisions.
        group: The contexts that were taught.
        weights: By context.
    """

    arm: str
    variant: Variant
    group: str
    weights: Weights

    @property
    def asked(self) -> str:
        """The arm as it is asked, see `asked_arm`."""
        return asked_arm(self.arm, "decisions", self.variant)


def taught_decisions(run: RunFolder, record: RunRecord) -> Iterator[Taught]:
    """What the trainings of a run taught through decisions; those with folds taught a part of a group: left out."""
    targets = load_weights(run.target_weights)
    for arm, made in record.arms.items():
        if made.teach != "decisions" or not made.contexts:
            continue
        weights = load_weights(run.redrawn_weights) if made.labels == "redrawn" else targets
        yield Taught(arm, DEFAULT["decisions"], made.contexts, weights)
        if made.flip_under:
            yield Taught(arm, made.flip_under, made.contexts, {name: -row for name, row in weights.items()})


def weights_of(sources: Sequence[Source], taught: Sequence[Taught], targets: Weights) -> Weights:
    """The weights that arms were taught which decide for a comparison; the targets where none was taught others."""
    by_arm = {entry.asked: entry.weights for entry in taught}
    found = dict(targets)
    for source in sources:
        own = by_arm.get(asked_arm(source.arm, "decisions", source.variant))
        if own is not None:
            found |= {name: own[name] for name in source.contexts if name in own}
    return found
