"""What was found inside the arms of a run: `inside_of` makes the part of `summary.json` that says so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

from analysis.stats.similarity import similarity_difference
from analysis.study.comparisons import MeasuredWeights
from analysis.study.inside_fresh import Fresh, fresh_difference, fresh_summary, fresh_trainings
from analysis.study.inside_patching import ArmPatching, patching_difference, patching_summary, read_arm_patching
from analysis.study.inside_scores import (
    ArmScores,
    distance_difference,
    ends,
    mean_layer_difference,
    random_cosines,
    read_arm_scores,
    similarity_summary,
)
from analysis.study.results import RunResults
from store.inside import TASKS, scores_folder
from store.inside_summary import Contrast, InsideDifferenceSummary, InsideSummary
from store.run import BASE_ARM, ArmRecord, RunFolder, RunRecord
from store.stages import begun
from store.trials import ReportTrials

WRONG_LABELS = ("shuffled", "redrawn")
"""Labels of report trainings that are not what the arm decides by."""

Contrasted = tuple[Contrast, str, str]
"""What two arms differ in, and the arms."""


def inside_of(results: RunResults) -> InsideSummary | None:
    """What was found inside the arms of a run that was analysed; see `look_inside`."""
    return look_inside(results.run, results.record, results.measured, results.reported)


def look_inside(
    run: RunFolder,
    record: RunRecord,
    measured: Mapping[str, MeasuredWeights],
    reported: Mapping[str, ReportTrials],
) -> InsideSummary | None:
    """All attributions and patchings of a run that have finished; None without any.

    Args:
        run, record: The run.
        measured: Weights of each arm that decided, by `comparisons.asked_arm`.
        reported: Reports of each arm, likewise.

    Raises:
        InputError: A file is missing, cut, or of another form.
    """
    if not run.inside.is_dir():
        return None
    fresh, alone, seed = fresh_trainings(record.arms), _alone(record), record.seed
    scores, notes = _scores(run, alone)
    together = {f.training: fresh_summary(f, run.inside, measured, reported, seed) for f in fresh}
    small = {name: found for name, found in together.items() if found is not None}
    patched = _patched(run, alone, fresh)
    if not (scores or small or patched):
        return None
    backbones = {name: backbone_of(record, name) for name in alone} | {f.training: f.backbone for f in fresh}
    pairs = [fresh_difference(one, other, seed) for one, other in combinations(small.items(), 2)]
    differences = [d for d in pairs if d is not None]
    contrasts = [*contrasts_of(record, alone), *(("backbone", d.first, d.second) for d in differences)]
    return InsideSummary(
        arms={
            name: similarity_summary(found, backbones[name], random_cosines(run.inside, found), seed)
            for name, found in scores.items()
        },
        fresh=small,
        differences=[*_differences(contrasts, scores, patched, differences, seed)],
        patching={name: patching_summary(found, backbones[name], seed) for name, found in patched.items()},
        notes=notes,
    )


def backbone_of(record: RunRecord, arm: str) -> str:
    """What is frozen below an arm's adapter."""
    return record.arms[arm].on_top_of or BASE_ARM


def _alone(record: RunRecord) -> list[str]:
    """The arms that are not one of a context's."""
    return [name for name, arm in record.arms.items() if not (arm.on_top_of and arm.context)]


def _scores(run: RunFolder, arms: list[str]) -> tuple[dict[str, ArmScores], list[str]]:
    """The attributions of arms, and why some of those that were begun are not there."""
    found: dict[str, ArmScores] = {}
    notes: list[str] = []
    for arm in arms:
        scores = read_arm_scores(run.inside, arm)
        if scores is None:
            if any(begun(scores_folder(run.inside, arm, task)) for task in TASKS):
                notes.append(f"{arm}: attribution has not finished for both tasks")
        elif not scores.contexts:
            notes.append(f"{arm}: no context has scores for both tasks; none of its reports could be read")
        else:
            found[arm] = scores
    return found, notes


def _patched(run: RunFolder, alone: list[str], fresh: list[Fresh]) -> dict[str, ArmPatching]:
    """The patchings of a run: of arms, and of the small adapters of each training together."""
    named = {name: [name] for name in alone} | {f.training: [*f.arms.values()] for f in fresh}
    read = {name: read_arm_patching(run.inside, members) for name, members in named.items()}
    return {name: found for name, found in read.items() if found is not None}


def contrasts_of(record: RunRecord, arms: list[str]) -> Iterator[Contrasted]:
    """Arms that differ in one thing, in the order of the plan.

    Right labels and wrong ones in the same report training, fold by fold; an arm and the one that it started from; and
    two arms on different backbones that learned the same.
    """
    known = {name: record.arms[name] for name in arms if record.arms[name].step is None}
    for (first, one), (second, other) in combinations(known.items(), 2):
        if one.training is None or other.training is None or one.training == other.training:
            continue
        same = (one.teach, one.start) == (other.teach, other.start) and _part(first, one) == _part(second, other)
        wrong = [arm.labels in WRONG_LABELS for arm in (one, other)]
        if same and one.teach == "reports" and one.on_top_of == other.on_top_of and wrong[0] != wrong[1]:
            yield ("labels", second, first) if wrong[0] else ("labels", first, second)
        elif same and one.on_top_of and other.on_top_of and one.on_top_of != other.on_top_of:
            yield "backbone", first, second
    for name, arm in known.items():
        if arm.start in known and not arm.on_top_of:
            yield "start", name, arm.start


def _part(name: str, arm: ArmRecord) -> str:
    """Which fold of its training an arm is: what its name has after the training's."""
    return name.removeprefix(arm.training or "")


def _differences(
    contrasts: list[Contrasted],
    scores: Mapping[str, ArmScores],
    patched: Mapping[str, ArmPatching],
    known: list[InsideDifferenceSummary],
    seed: int,
) -> Iterator[InsideDifferenceSummary]:
    """Every contrast of which anything can be said, with all that can; `known` has what small adapters say."""
    by_names = {(d.first, d.second): d for d in known}
    for contrast, first, second in contrasts:
        found = by_names.get((first, second))
        if found is None and first in scores and second in scores:
            found = _of_scores(contrast, scores[first], scores[second], seed)
        if first in patched and second in patched:
            times, contexts = patching_difference(patched[first], patched[second], seed)
            more = {"times_fewer": times, "patched_contexts": contexts} if times else {}
            found = (found or InsideDifferenceSummary(contrast=contrast, first=first, second=second)).model_copy(
                update=more
            )
        if found is not None:
            yield found


def _of_scores(contrast: Contrast, first: ArmScores, second: ArmScores, seed: int) -> InsideDifferenceSummary | None:
    """The difference of two attributions, on the contexts of both; None if they share none."""
    shared = [name for name in first.contexts if name in second.contexts]
    if not shared:
        return None
    found = similarity_difference(first.of(shared), second.of(shared), seed=seed)
    one, other = first.only(shared), second.only(shared)
    return InsideDifferenceSummary(
        contrast=contrast,
        first=first.arm,
        second=second.arm,
        similarity=ends((found.difference, found.low, found.high)),
        corrected=ends((found.corrected, found.corrected_low, found.corrected_high)),
        p=found.p_bootstrap,
        profile_distance=ends(distance_difference(one, other)),
        mean_layer={task: ends(mean_layer_difference(one, other, task)) for task in TASKS},
        n_contexts=len(shared),
    )
