"""Runs read for a study: which figures each has, under one name in all of them, and these pooled.

A figure is called `comparison.figure` or `difference.figure`, with the names of the experiment file. Released trials
have the names of configs/experiments/organism.yaml, so that they can be read beside runs that use them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis.stats.records import Record
from analysis.study import inside_study, series_study
from analysis.study.meta import Pooled, difference_of_independent, pool, pool_correlations
from analysis.study.released_results import ReleasedResults
from store.run import RunFolder, RunRecord, read_run
from store.stages import stage_key
from store.state_inputs import analysis_is_current, finished_trials
from store.study_summary import Scale, Source
from store.summary import RunSummary, read_summary
from task.errors import InputError
from task.thresholds import SMALLEST_EFFECT
from task.weights import Estimator

ALL = "all models"
"""The group of all runs, where these are of several models."""

BASES_OF = {
    "instilled": ("off_the_shelf",),
    "instilled_constrained": ("off_the_shelf_constrained", "off_the_shelf"),
}
"""Comparisons that are held against one of the base model's reports, the first that is there: `over_off_the_shelf`."""

OF_AGREEMENT = {"r": ("r", "boot_low", "boot_high", "n_contexts")}
"""Figures of any comparison: by their names, the fields with the estimate, its ends, and the contexts behind it."""

OF_REPORTS = OF_AGREEMENT | {
    name: (name, f"{name}_low", f"{name}_high", contexts)
    for name, contexts in (
        ("r_given_target", "given_target_contexts"),
        ("r_of_target_given_learned", "given_target_contexts"),
        ("learned_over_target", "given_target_contexts"),
        ("over_constant", "n_contexts"),
        ("r_centred", "n_contexts"),
    )
}
"""Figures of a comparison of reports."""

OF_PREDICTIONS = {f"gain_over_{kind}": kind for kind in ("constant", "another_context")}
"""Figures of its predictions: how much larger a share of fresh decisions reports predict than this kind of weights."""

OF_DIFFERENCES = {
    "difference": ("difference", "boot_low", "boot_high", "n_contexts"),
    "r_of_changes": ("r_of_changes", "r_of_changes_low", "r_of_changes_high", "changes_contexts"),
    "r_of_weights": ("r_of_weights", "r_of_weights_low", "r_of_weights_high", "changes_contexts"),
}
"""Figures of a difference."""

ON_THEIR_OWN_SCALE = {
    *("over_constant", "learned_over_target", "over_off_the_shelf", "difference"),
    *OF_PREDICTIONS,
    *inside_study.ON_THEIR_OWN_SCALE,
    *series_study.ON_THEIR_OWN_SCALE,
}
"""Figures that are differences; the others are correlations."""

DIFFERENCES_OF_RELEASED = {
    ("introspection_trained", "instilled"): "gain_on_held_out_contexts",
    ("native_after", "native_before"): "gain_on_native_contexts",
}
"""Standard names of the differences of released trials, by (after, before)."""


@dataclass(frozen=True)
class Estimate(Record):
    """A figure of one run with its 95% interval; NaN for what cannot be computed, or is withheld with its `reason`."""

    estimate: float
    low: float
    high: float
    n_contexts: int
    reason: str | None = None

    @property
    def testable(self) -> bool:
        """Whether it has a meaning, and an interval."""
        return self.reason is None


@dataclass(frozen=True)
class StudyRun:
    """What a study knows of one run.

    Attributes:
        name: Of the run, or of the model whose trials were released.
        experiment: Name of the experiment; that of the source for released trials.
        group: See `grouped`.
        key: Hash of what it was computed from.
        smallest: The smallest effect of interest that its experiment file states.
        figures: By name.
        readable: Reports that could be read and that were asked for, by comparison.
        folder: Of the run; None for released trials.
        released: Released trials, analysed.
        summary: What its analysis found; None for released trials.
    """

    name: str
    model: str
    experiment: str
    source: Source
    seed: int
    key: str
    smallest: float
    figures: dict[str, Estimate]
    readable: dict[str, tuple[int, int]]
    folder: Path | None = None
    released: ReleasedResults | None = None
    group: str = ""
    summary: RunSummary | None = None

    @property
    def parameters(self) -> float | None:
        """Of the model, as its name tells: 7e9 of `Qwen2.5-7B-Instruct`; None where it does not."""
        found = re.search(r"(?<![\w.])(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", self.model.lower())
        return float(found[1]) * {"b": 1e9, "m": 1e6}[found[2]] if found else None

    @property
    def estimator(self) -> Estimator:
        """What its weights are estimated by."""
        return self.summary.estimator if self.summary else "logistic"

    @property
    def layers(self) -> int | None:
        """Of its model; None where no adapter was cut."""
        found = self.summary.ablations.values() if self.summary else ()
        return next((ablation.layers for ablation in found if ablation.layers), None)


def scale_of(figure: str) -> Scale:
    """What a figure is pooled on."""
    return "difference" if figure.rpartition(".")[2] in ON_THEIR_OWN_SCALE else "correlation"


def pooled(figure: str, estimates: Sequence[Estimate]) -> Pooled:
    """A figure of several runs together, those where it is not testable left out."""
    kept = [e for e in estimates if e.testable]
    columns = [e.estimate for e in kept], [e.low for e in kept], [e.high for e in kept]
    return (pool_correlations if scale_of(figure) == "correlation" else pool)(*columns)


def pooled_runs(figure: str, runs: Sequence[StudyRun]) -> Pooled:
    """A figure of the runs that have it together; of none where it counts layers, and their models differ in depth."""
    there = [run for run in runs if figure in run.figures]
    if figure.rpartition(".")[2] in series_study.IN_LAYERS and len({run.layers for run in there}) > 1:
        there = []
    return pooled(figure, [run.figures[figure] for run in there])


def grouped(runs: Sequence[StudyRun]) -> list[StudyRun]:
    """The runs with their groups: the model, and the experiment where one model has runs of several.

    Trials of one model that were released in several places are called by their folders, too.

    Raises:
        InputError: Two have one name.
    """
    models = [run.name for run in runs]
    runs = [
        replace(run, name=f"{run.name} ({run.experiment})") if run.released and models.count(run.name) > 1 else run
        for run in runs
    ]
    names = [run.name for run in runs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{twice[0]}: two runs have this name; give each run once")
    experiments: dict[str, set[str]] = {}
    for run in runs:
        experiments.setdefault(run.model, set()).add(run.experiment)
    several = {model for model, found in experiments.items() if len(found) > 1}
    return [
        replace(run, group=f"{_short(run.model)} ({run.experiment})" if run.model in several else _short(run.model))
        for run in runs
    ]


def groups_of(runs: Sequence[StudyRun]) -> dict[str, list[StudyRun]]:
    """The runs of each group, and of `ALL` where there are several groups."""
    found: dict[str, list[StudyRun]] = {}
    for run in runs:
        found.setdefault(run.group, []).append(run)
    return found if len(found) == 1 else {**found, ALL: list(runs)}


def _short(model: str) -> str:
    return model.rpartition("/")[2]


def read_study_run(path: Path) -> StudyRun:
    """A run with its analysis, or a folder of results with `run.json` and the summary.

    Raises:
        InputError: There is no such run, it was not analysed, or it went on since.
    """
    record = read_run(path)
    return study_run(record, _current_summary(path, record), path)


def study_run(record: RunRecord, summary: RunSummary, folder: Path) -> StudyRun:
    """A run whose summary is known, as a study sees it."""
    return StudyRun(
        name=record.name,
        model=record.model.name if record.model else "simulated",
        experiment=record.name.removesuffix(f"-seed{record.seed}"),
        source="run",
        seed=record.seed,
        key=summary.key,
        smallest=record.smallest_effect or SMALLEST_EFFECT,
        figures=dict(_with_differences_of_r(_figures_of_run(summary))),
        readable={name: (c.valid_reports, c.total_reports) for name, c in summary.comparisons.items()},
        folder=folder,
        summary=summary,
    )


def _current_summary(path: Path, record: RunRecord) -> RunSummary:
    """The summary of a run, if it is of the trials that are there now."""
    run, again = RunFolder(path), f"run `python -m analysis.run --run {path}` first"
    if (path / "summary.json").is_file():
        return read_summary(path / "summary.json")
    if not (run.analysis / "summary.json").is_file():
        raise InputError(f"{path}: was not analysed; {again}")
    if any(True for _ in finished_trials(run, record)) and not analysis_is_current(run, record):
        raise InputError(f"{path}: went on since it was analysed; {again}")
    return read_summary(run.analysis / "summary.json")


def _figures_of_run(summary: RunSummary) -> Iterator[tuple[str, Estimate]]:
    check = summary.learned_vs_target
    yield from _figures("learned_vs_target", OF_AGREEMENT, check.model_dump(), check.reason)
    for name, c in summary.comparisons.items():
        values = c.model_dump()
        yield from _figures_of_reports(name, values, c.reason)
    for name, d in summary.differences.items():
        values = d.model_dump()
        yield from _figures(name, {"difference": OF_DIFFERENCES["difference"]}, values, d.reason)
        changes = {figure: fields for figure, fields in OF_DIFFERENCES.items() if figure != "difference"}
        yield from _figures(name, changes, values, d.reason or d.no_changes)
    if summary.inside is not None:
        for found in inside_study.inside_figures(summary.inside):
            fields = {found.kind: ("estimate", "low", "high", "n_contexts")}
            yield from _figures(found.name, fields, {**found.found.model_dump(), "n_contexts": found.n_contexts}, None)
    for placed in series_study.series_figures(summary):
        fields = {placed.kind: ("estimate", "low", "high", "n_contexts")}
        values = {**placed.found.model_dump(), "n_contexts": placed.n_contexts}
        yield from _figures(placed.name, fields, values, placed.reason)


def _figures_of_reports(name: str, values: Mapping[str, Any], reason: str | None) -> Iterator[tuple[str, Estimate]]:
    for figure, estimate in _figures(name, OF_REPORTS, values, reason):
        whose = figure.rpartition(".")[2] in ("r_given_target", "r_of_target_given_learned", "learned_over_target")
        yield figure, replace(estimate, reason=reason or values["no_target"] or estimate.reason) if whose else estimate
    for figure, kind in OF_PREDICTIONS.items():
        if found := values["predictions"].get(kind):
            fields = {figure: ("gain", "gain_low", "gain_high", "n_contexts")}
            yield from _figures(name, fields, found, reason)
        elif reason:
            yield f"{name}.{figure}", Estimate(math.nan, math.nan, math.nan, 0, reason)


def _figures(
    name: str, figures: Mapping[str, tuple[str, str, str, str]], values: Mapping[str, Any], reason: str | None
) -> Iterator[tuple[str, Estimate]]:
    """Some figures of a comparison or difference; one that cannot be computed is not testable."""
    for figure, fields in figures.items():
        estimate, low, high = (math.nan if values.get(f) is None else float(values[f]) for f in fields[:3])
        why = reason or ("it cannot be computed" if math.isnan(estimate + low + high) else None)
        yield f"{name}.{figure}", Estimate(estimate, low, high, values.get(fields[3]) or 0, why)


def _with_differences_of_r(figures: Iterator[tuple[str, Estimate]]) -> Iterator[tuple[str, Estimate]]:
    """Figures, and how much better instilled reports agree than those of the base model, where both are there."""
    found: dict[str, Estimate] = {}
    for name, estimate in figures:
        found[name] = estimate
        yield name, estimate
    for name, bases in BASES_OF.items():
        after, before = found.get(f"{name}.r"), next((found[f"{b}.r"] for b in bases if f"{b}.r" in found), None)
        if not (after and before):
            continue
        ends = difference_of_independent(
            (before.estimate, before.low, before.high), (after.estimate, after.low, after.high)
        )
        fewer = min(before.n_contexts, after.n_contexts)
        yield f"{name}.over_off_the_shelf", Estimate(*ends, fewer, after.reason or before.reason)


def released_study_run(folder: Path, results: ReleasedResults) -> StudyRun:
    """Released trials as a run."""
    return StudyRun(
        name=results.name,
        model=results.name,
        experiment=folder.name,
        source="released trials",
        seed=results.seed,
        key=stage_key(results.inputs),
        smallest=SMALLEST_EFFECT,
        figures=dict(_with_differences_of_r(_figures_of_released(results))),
        readable={c.name: (c.agreement.valid_reports, c.agreement.total_reports) for c in results.comparisons},
        released=results,
    )


def _figures_of_released(results: ReleasedResults) -> Iterator[tuple[str, Estimate]]:
    reasons = {c.name: results.untestable(c) for c in results.all_comparisons}
    check = results.learned_vs_target
    yield from _figures(check.name, OF_AGREEMENT, check.agreement.as_dict(), reasons[check.name])
    for c in results.comparisons:
        found = results.evidence[c.name]
        predictions = {kind: prediction.as_dict() for kind, prediction in found.predictions.items()}
        values = {**c.agreement.as_dict(), **found.whose.as_dict(), **found.beyond.as_dict()}
        values |= {"no_target": found.no_target, "predictions": predictions}
        yield from _figures_of_reports(c.name, values, reasons[c.name])
    for sides, found_change in results.changes.items():
        reason = next((why for name in sides if (why := reasons[name])), None)
        fields = {"difference": OF_DIFFERENCES["difference"]}
        yield from _figures(DIFFERENCES_OF_RELEASED[sides], fields, found_change.as_dict(), reason)
