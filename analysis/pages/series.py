"""What the page of a run shows of series of states: the pictures, and what its tables call their rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from analysis.pages.drawing import house_style
from analysis.pages.figures import Figure, saved
from analysis.pages.series_figures import OF_CURVE, draw_ablations, draw_depths, draw_trajectories
from analysis.pages.text import MISSING, as_number, listing, plain, with_ends
from store.curves_summary import (
    AblationSummary,
    CorrelationSummary,
    Curve,
    DepthSummary,
    SideSummary,
    StateSummary,
    TrajectorySummary,
)
from store.summary import RunSummary

Rows = Sequence[tuple[str, StateSummary]]
"""States with what their row of a table is called."""

BEFORE = "before any training"


def save_series(told: RunSummary, folder: Path) -> list[Figure]:
    """Draw the pictures of the series that a summary has into `folder`; none where it has none."""
    with house_style():
        drawn = {}
        if told.trajectories:
            drawn["trajectories"] = draw_trajectories(told.trajectories)
        if told.ablations:
            drawn["ablations"] = draw_ablations(told.ablations)
        if told.depths:
            drawn["depths"] = draw_depths(told.depths)
        return [saved(picture, folder / f"{name}.png") for name, picture in drawn.items()]


def r_of(found: CorrelationSummary) -> str:
    """A correlation with its interval and contexts; a dash where there is none."""
    if not found.testable or found.r is None:
        return MISSING
    return f"{with_ends(*map(as_number, (found.r, found.low, found.high)))}, {found.n_contexts}"


def why_missing(rows: Rows) -> list[str]:
    """Why correlations of some states are missing, each reason once with the rows that it holds for."""
    found: dict[str, list[str]] = {}
    for label, state in rows:
        for name in ("learned_vs_target", "reported_vs_learned", "reported_vs_target", "base_vs_learned"):
            if (reason := getattr(state, name).reason) and label not in found.setdefault(reason, []):
                found[reason].append(label)
    return [f"{listing(labels)}: {reason}" for reason, labels in found.items()]


def steps_of(told: TrajectorySummary) -> Rows:
    """The states of a training by step, and the model before any training, unless that is where it started."""
    starts = told.off_the_shelf and told.points and told.points[0].arms == told.off_the_shelf.arms
    base = [(BEFORE, told.off_the_shelf)] if told.off_the_shelf and not starts else []
    return [*base, *((str(point.step), point) for point in told.points)]


def cut_points(told: SideSummary) -> Rows:
    """The states of one side of an adapter by cut."""
    return [(str(point.cut), point) for point in told.points]


def depth_points(told: DepthSummary) -> Rows:
    """The trainings in some layers, that in all, and the model before any training."""
    base = [(BEFORE, told.off_the_shelf)] if told.off_the_shelf else []
    whole = [(f"all ({plain(name)})", state) for name, state in told.whole.items()]
    return [*base, *((point.layers, point) for point in told.points), *whole]


def cuts_of(told: AblationSummary) -> str:
    """How many cuts there are on each side."""
    return listing([f"{len(side.points)} places ({name} the cut)" for name, side in told.sides.items()])


def words_of(curve: Curve) -> str:
    """What a curve follows."""
    kind = OF_CURVE[curve]
    return kind.words if curve == "agreement" else f"r({kind.words})"
