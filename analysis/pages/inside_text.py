"""The tables of what was found inside arms: rows of cells as they are printed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from analysis.pages.inside_figures import in_words
from analysis.pages.text import MISSING, number, p_value, percent, plain
from analysis.pages.text import as_number as value
from store.inside import TASKS, Task
from store.inside_summary import (
    Contrast,
    EndsSummary,
    FreshSummary,
    InsideDifferenceSummary,
    InsideSummary,
    SimilaritySummary,
)

CONTRASTS: dict[Contrast, str] = {
    "labels": "right labels less wrong ones",
    "start": "after a training less before it",
    "backbone": "on one backbone less on another",
}
"""What arms of a difference differ in."""

Cells = list[str]


@dataclass(frozen=True)
class InsideTables:
    """Tables, each a list of rows with the row's name first; `notes` are sentences without a full stop."""

    similarity: list[Cells]
    where: list[Cells]
    fresh: list[Cells]
    differences: list[Cells]
    patching: list[Cells]
    notes: list[str]


def inside_tables(inside: InsideSummary | None) -> InsideTables | None:
    """What stands on the page of a run; None where nothing was looked into."""
    if inside is None:
        return None
    return InsideTables(
        similarity=[_similarity(name, arm) for name, arm in inside.arms.items()],
        where=[_where(name, arm) for name, arm in inside.arms.items()],
        fresh=[_fresh(name, fresh) for name, fresh in inside.fresh.items()],
        differences=[_difference(found) for found in inside.differences],
        patching=[
            [plain(name), curve.task, curve.ranked_by, _half(curve.half), _times(curve.times_fewer), str(contexts)]
            for name, found in inside.patching.items()
            for curve in found.curves
            for contexts in [found.n_contexts.get(curve.task, 0)]
        ],
        notes=[*inside.notes, *_missing(inside)],
    )


def _similarity(name: str, arm: SimilaritySummary) -> Cells:
    known = [v for v in map(value, arm.random) if not math.isnan(v)]
    random = f"{number(min(known))} to {number(max(known))} ({len(known)})" if known else MISSING
    return [
        plain(name),
        plain(arm.backbone),
        in_words(arm.similarity),
        in_words(arm.corrected),
        " / ".join(number(value(arm.reliability[task])) for task in TASKS),
        random,
        _p(arm.p_random),
        f"{number(value(arm.rows_null_mean))} ± {number(value(arm.rows_null_sd))}",
        _p(arm.p_rows),
        str(arm.n_contexts) + (f" ({len(arm.left_out)} left out)" if arm.left_out else ""),
    ]


def _where(name: str, arm: SimilaritySummary) -> Cells:
    def both(texts: dict[Task, str]) -> str:
        return " / ".join(texts[task] for task in TASKS)

    without = f"{number(value(arm.without_matrix_low))} to {number(value(arm.without_matrix_high))}"
    kinds = [
        max(zip(arm.kinds.shares[task], arm.kinds.names, strict=True), key=lambda pair: value(pair[0]))
        for task in TASKS
    ]
    return [
        plain(name),
        both({task: MISSING if (peak := arm.peak_layer[task]) is None else str(peak) for task in TASKS}),
        both({task: in_words(arm.mean_layer[task]) for task in TASKS}),
        in_words(arm.profile_distance),
        " / ".join(f"{kind} ({percent(value(share))})" for share, kind in kinds),
        both({task: percent(value(arm.rows_with_half[task]), 1) for task in TASKS}),
        both({task: percent(value(arm.largest_row[task])) for task in TASKS}),
        f"{without} ({arm.decisive_matrix})" if arm.decisive_matrix else MISSING,
        both({task: percent(value(arm.completeness_error[task]), 1) for task in TASKS}),
    ]


def _fresh(name: str, fresh: FreshSummary) -> Cells:
    nulls = [v for arm in fresh.arms if not math.isnan(v := value(arm.rows_null_mean))]
    return [
        plain(name),
        plain(fresh.backbone),
        str(len(fresh.arms)),
        in_words(fresh.relation),
        _p(fresh.p_relation),
        str(fresh.relation_contexts),
        in_words(fresh.similarity),
        number(value(fresh.similarity_sd)),
        in_words(fresh.faithfulness),
        ", ".join(number(value(v)) for v in fresh.random) or MISSING,
        number(sum(nulls) / len(nulls)) if nulls else MISSING,
    ]


def _difference(found: InsideDifferenceSummary) -> Cells:
    def shown(ends: EndsSummary | None) -> str:
        return MISSING if ends is None else in_words(ends, signed=True)

    layers, times = found.mean_layer or {}, found.times_fewer or {}
    return [
        f"{plain(found.first)} less {plain(found.second)}",
        CONTRASTS[found.contrast],
        shown(found.similarity),
        _p(found.p),
        shown(found.corrected),
        shown(found.faithfulness),
        shown(found.profile_distance),
        " / ".join(shown(layers[task]) for task in TASKS) if layers else MISSING,
        " / ".join(_times(times.get(task)) for task in TASKS) if times else MISSING,
        str(max(found.n_contexts, found.patched_contexts)),
    ]


def _half(found: EndsSummary) -> str:
    if found.estimate is None:
        return "not reached"
    high = "not reached" if found.high is None else number(found.high, 1)
    ends = "" if found.low is None else f" [{number(found.low, 1)}, {high}]"
    return f"{number(found.estimate, 1)}{ends}"


def _times(found: EndsSummary | None) -> str:
    return MISSING if found is None or found.estimate is None else f"\N{MULTIPLICATION SIGN}{in_words(found)}"


def _p(p: float | None) -> str:
    return p_value(value(p))


def _missing(inside: InsideSummary) -> list[str]:
    notes = []
    for name, fresh in ((name, fresh) for name, fresh in inside.fresh.items() if fresh.missing):
        whole, more = len(fresh.missing) + len(fresh.arms), " ..." if len(fresh.missing) > 5 else ""
        which = f"{', '.join(fresh.missing[:5])}{more}"
        notes.append(f"{plain(name)}: {len(fresh.missing)} of {whole} have no scores for both tasks: {which}")
    return notes
