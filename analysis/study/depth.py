"""How deep a training must reach: trainings that may change some layers only, beside the same one in all layers.

Trainings belong together that differ in their layers alone: they taught the same, from the same arm. Those of the last
layers are the control of those of the first. Nothing is chosen: every such training that was measured is a point.
"""

from __future__ import annotations

import re

from analysis.study.results import RunResults
from analysis.study.states import series_of, together
from store.curves_summary import DepthPoint, DepthSummary
from store.run import BASE_ARM, RunRecord


def depths_of(results: RunResults) -> dict[str, DepthSummary]:
    """The series of trainings with `layers`, by `WHAT from START/group`."""
    found = {}
    for name, trainings in _series(results.record).items():
        for group in results.groups:
            if told := _depth(results, trainings, group):
                found[f"{name}/{group}"] = told
    return found


def _series(record: RunRecord) -> dict[str, dict[str, list[str]]]:
    """The arms of each training that belongs to a series, by name of the training."""
    trained = {n: made for n, made in record.arms.items() if made.training and made.step is None and not made.on_top_of}
    in_some_layers = {_lineage(record, name) for name, made in trained.items() if made.layers is not None}
    found: dict[str, dict[str, list[str]]] = {}
    for name, made in trained.items():
        if (lineage := _lineage(record, name)) in in_some_layers:
            found.setdefault(lineage, {}).setdefault(str(made.training), []).append(name)
    return found


def _lineage(record: RunRecord, arm: str) -> str:
    """What an arm was taught, and what before that, whatever the layers: the same for all trainings of a series."""
    made = record.arms.get(arm)
    if made is None or made.training is None:
        return arm
    labels = f" {made.labels}" if made.labels not in (None, "target") else ""
    cued = f" and the reverse under {made.flip_under}" if made.flip_under else ""
    group = f" on {made.contexts}" if made.contexts else ""
    return f"{made.teach}{labels}{cued}{group} from {_lineage(record, made.start or BASE_ARM)}"


def _depth(results: RunResults, trainings: dict[str, list[str]], group: str) -> DepthSummary | None:
    """One series on a group; None where none of its trainings with `layers` was measured there."""
    arms = [arm for members in trainings.values() for arm in members]
    in_some = [arm for arm in arms if results.record.arms[arm].layers is not None]
    series = series_of(results, in_some, group, in_some)
    if series is None:
        return None
    points, whole = [], {}
    for training, members in trainings.items():
        for state in filter(None, map(series.state, together(results, {arm: [arm] for arm in members}, group))):
            layers = results.record.arms[members[0]].layers
            if layers is None:
                whole[training if len(state.told.arms) == len(members) else state.told.arms[0]] = state.told
            else:
                side = re.fullmatch(r"(first|last) (\d+)", layers.strip())
                placed = {"side": side[1], "k": int(side[2])} if side else {"side": None, "k": None}
                points.append(DepthPoint(training=training, layers=layers, **placed, **dict(state.told)))
    base = series.state([BASE_ARM])
    return DepthSummary(
        teach=results.record.arms[arms[0]].teach,
        start=_lineage(results.record, results.record.arms[arms[0]].start or BASE_ARM),
        contexts=group,
        n_contexts=len(series.members),
        points=points,
        whole=whole,
        off_the_shelf=base.told if base else None,
    )
