"""How deep a training must reach: trainings that may change some layers only, beside the same one in all layers.

Trainings belong together that differ in their layers alone: they taught the same, from the same arm. Those of the last
layers are the control of those of the first. Nothing is chosen: every such training that was measured is a point.
"""

from __future__ import annotations

import re

from analysis.study.results import RunResults
from analysis.study.states import series_of, together
from store.curves_summary import DepthPoint, DepthSummary
from store.run import BASE_ARM, ArmRecord
from task.prompts import Measure

Same = tuple[Measure | None, str, str | None, str | None]
"""What trainings of one series have in common: what they taught, the arm that they started from, labels, the cue."""


def depths_of(results: RunResults) -> dict[str, DepthSummary]:
    """The series of trainings with `layers`, by `WHAT from START/group`."""
    found = {}
    for same, trainings in _series(results).items():
        for group in results.groups:
            if told := _depth(results, same, trainings, group):
                labels = f" {same[2]}" if same[2] not in (None, "target") else ""
                found[f"{same[0]}{labels} from {same[1]}/{group}"] = told
    return found


def _same(made: ArmRecord) -> Same:
    return made.teach, made.start or BASE_ARM, made.labels, made.flip_under


def _series(results: RunResults) -> dict[Same, dict[str, list[str]]]:
    """The arms of each training that belongs to a series, by name of the training."""
    trained = {name: made for name, made in results.record.arms.items() if made.training and made.step is None}
    cut_short = {_same(made) for made in trained.values() if made.layers is not None}
    found: dict[Same, dict[str, list[str]]] = {}
    for name, made in trained.items():
        if (same := _same(made)) in cut_short and not made.on_top_of:
            found.setdefault(same, {}).setdefault(str(made.training), []).append(name)
    return found


def _depth(results: RunResults, same: Same, trainings: dict[str, list[str]], group: str) -> DepthSummary | None:
    """One series on a group; None where none of its trainings with `layers` was measured there."""
    arms = [arm for members in trainings.values() for arm in members]
    in_some = [arm for arm in arms if results.record.arms[arm].layers is not None]
    series = series_of(results, in_some, group, in_some)
    if series is None:
        return None
    points, whole = [], {}
    for training, members in trainings.items():
        for state in filter(None, map(series.state, together(results, members, group))):
            layers = results.record.arms[members[0]].layers
            if layers is None:
                whole[training if len(state.told.arms) == len(members) else state.told.arms[0]] = state.told
            else:
                side = re.fullmatch(r"(first|last) (\d+)", layers.strip())
                placed = {"side": side[1], "k": int(side[2])} if side else {"side": None, "k": None}
                points.append(DepthPoint(training=training, layers=layers, **placed, **dict(state.told)))
    base = series.state([BASE_ARM])
    return DepthSummary(
        teach=same[0],
        start=same[1],
        contexts=group,
        n_contexts=len(series.members),
        points=points,
        whole=whole,
        off_the_shelf=base and base.told,
    )
