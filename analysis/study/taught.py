"""By which weights an arm was taught to decide: the targets, weights drawn again, or either reversed under a cue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analysis.study.comparisons import asked_arm
from store.run import ArmRecord, RunFolder, RunRecord, Source
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
        inherited: Whether the arm has it from the arm that it was made from, and was taught something else since.
    """

    arm: str
    variant: Variant
    group: str
    weights: Weights
    inherited: bool = False

    @property
    def asked(self) -> str:
        """The arm as it is asked, see `asked_arm`."""
        return asked_arm(self.arm, "decisions", self.variant)


def taught_decisions(run: RunFolder, record: RunRecord) -> Iterator[Taught]:
    """What the arms of a run were taught through decisions, by their own training or by one before it.

    Trainings with folds taught a part of a group: left out.
    """
    own: dict[str, list[Taught]] = {}
    targets = load_weights(run.target_weights)
    for arm, made in record.arms.items():
        if made.teach != "decisions" or not made.contexts:
            continue
        weights = load_weights(run.redrawn_weights) if made.labels == "redrawn" else targets
        own[arm] = [Taught(arm, DEFAULT["decisions"], made.contexts, weights)]
        if made.flip_under:
            reversed_weights = {name: -row for name, row in weights.items()}
            own[arm].append(Taught(arm, made.flip_under, made.contexts, reversed_weights))
    for arm, made in record.arms.items():
        yield from own.get(arm, [])
        if made.teach != "decisions" and (teacher := _made_from(made)) is not None:
            yield from (replace(entry, arm=arm, inherited=True) for entry in _of_teacher(teacher, record, own))


def _made_from(made: ArmRecord) -> str | None:
    """The arm that an arm's training went on from, that it lies on top of, or of whose adapter it is a part."""
    return made.start or made.on_top_of or made.cut_of


def _of_teacher(arm: str | None, record: RunRecord, own: Mapping[str, list[Taught]]) -> list[Taught]:
    """What the nearest of the arms that one was made from was taught through decisions; nothing where none was."""
    while arm is not None and arm not in own:
        made = record.arms.get(arm)
        arm = _made_from(made) if made and made.teach != "decisions" else None
    return own[arm] if arm is not None else []


def weights_of(sources: Sequence[Source], taught: Sequence[Taught], targets: Weights) -> Weights:
    """The weights that arms were taught which decide for a comparison; the targets where none was taught others."""
    by_arm = {entry.asked: entry.weights for entry in taught}
    found = dict(targets)
    for source in sources:
        own = by_arm.get(asked_arm(source.arm, "decisions", source.variant))
        if own is not None:
            found |= {name: own[name] for name in source.contexts if name in own}
    return found
