"""The pictures of series in several runs: each run a line, each model a colour.

Every run that has a series is drawn, whatever came of it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D

from analysis.pages.drawing import COLOURS, Drawn, new_canvas, place_axes, write_above
from analysis.pages.series_figures import CORRELATIONS, EVERY_STATE, OF_CURVE, correlations_of, draw_curve, frame
from analysis.pages.text import as_number, plain
from analysis.stats.midpoint import MIDDLE
from analysis.study.several import StudyRun
from analysis.study.study import Study
from store.curves_summary import (
    AblationSummary,
    CorrelationSummary,
    Curve,
    MidpointSummary,
    Side,
    StateSummary,
)

MARKERS = "osD^v<>Ph*"
"""Of the runs of a model, in their order."""

CONTROL = (0, (4, 2))
"""How lines are dashed that are a control."""

ALL_LAYERS = 1.15
"""Where a training in all layers stands, as a multiple of the largest number of layers of the others."""

KEPT: dict[Side, str] = {"below": "layers below the cut kept", "from": "layers from the cut on kept"}

WORDS = {
    "trajectories": (
        "Trainings, step by step, run by run",
        "Correlations of the weights that decisions show (learned), that were taught (target) and that reports say "
        "(reported), at every step that was kept; step 0 is the arm that a training started from. ",
    ),
    "ablations": (
        "Where adapters keep what they do, run by run",
        "The adapter is cut before each layer, and one side of it is kept. Marks above: where a run's curve is "
        "half-way between its ends, with the 95% interval; a run without a mark has no midpoint there. ",
    ),
    "depths": (
        "How deep a training must reach, run by run",
        "The same training, allowed to change some layers only: the first k (solid), or the last k (dashed), which is "
        "the control. At the right end: the training in all layers. ",
    ),
}
"""Title and caption of each picture."""

READ = (
    "Each line is a run, each colour a model; bars: 95% intervals, contexts resampled. A cross at the foot: no such "
    f"figure in that run, curves.csv says why. {EVERY_STATE}Every run that has the series is drawn."
)


class Line(NamedTuple):
    """A run's line in a panel: where its states are, what is drawn of them, and where it is half-way."""

    run: str
    places: Sequence[float]
    found: Sequence[CorrelationSummary]
    dash: Any = "-"
    midpoint: tuple[float, float, float] | None = None


class Panel(NamedTuple):
    """What stands at the two axes of a panel, its lines, and what stands at places along, unless these are numbers."""

    up: str
    along: str
    lines: Sequence[Line]
    ticks: Mapping[float, str] | None = None


class Strip(NamedTuple):
    """Panels beside one another under one title."""

    title: str
    facts: str
    panels: Sequence[Panel]


def draw_series(study: Study) -> dict[str, Drawn]:
    """The pictures of all kinds of series that any run has, by name of their file."""
    strips = {"trajectories": _trajectories(study), "ablations": _ablations(study), "depths": _depths(study)}
    return {name: _draw(study.runs, found, *WORDS[name]) for name, found in strips.items() if found}


def title_of(series: str) -> str:
    """What a series is of."""
    return plain(series.rpartition("/")[0])


def group_of(series: str) -> str:
    """The contexts of a series."""
    return plain(series.rpartition("/")[2])


def _trajectories(study: Study) -> list[Strip]:
    """A strip a training: three correlations by step."""
    strips = []
    for name, by_run in study.trajectories.items():
        panels = [
            Panel(
                f"r({kind.words})",
                "step",
                [
                    Line(run, [p.step for p in told.points], correlations_of(told.points, kind.name))
                    for run, told in by_run.items()
                ],
            )
            for kind in CORRELATIONS[:3]
        ]
        strips.append(_strip(name, by_run, panels))
    return strips


def _ablations(study: Study) -> list[Strip]:
    """A strip an adapter and side: its curves by cut, or by share of the depth where models differ in depth."""
    as_share, strips = len(study.depths_of_models) > 1, []
    for name, by_run in study.ablations.items():
        for side, words in KEPT.items():
            there = {run: told for run, told in by_run.items() if side in told.sides and (told.layers or not as_share)}
            panels = [
                Panel(
                    kind.words if curve == "agreement" else f"r({kind.words})",
                    "cut, as share of depth" if as_share else "cut before layer",
                    [
                        _cut(run, told, side, curve, (told.layers or 1) if as_share else 1)
                        for run, told in there.items()
                    ],
                )
                for curve, kind in OF_CURVE.items()
            ]
            if there:
                strips.append(_strip(name, there, panels, f"{words}; "))
    return strips


def _cut(run: str, told: AblationSummary, side: Side, curve: Curve, layers: int) -> Line:
    """One curve of one run, with its midpoint; places are divided by `layers`."""
    found = told.sides[side]
    kept = [_share(p) if curve == "agreement" else getattr(p, OF_CURVE[curve].name) for p in found.points]
    return Line(run, [p.cut / layers for p in found.points], kept, midpoint=_place(found.midpoints[curve], layers))


def _share(state: StateSummary) -> CorrelationSummary:
    """The share of decisions that follow the targets, to be drawn as a correlation is."""
    if state.agreement is None:
        return CorrelationSummary(testable=False, reason="no decision that the target weights judge")
    return CorrelationSummary(
        testable=True, reason=None, r=state.agreement, low=state.agreement_low, high=state.agreement_high
    )


def _place(found: MidpointSummary, layers: int) -> tuple[float, float, float] | None:
    """A midpoint with its ends along the cuts: a layer lies half a cut behind the cut before it."""
    if not found.testable:
        return None
    middle, low, high = ((as_number(v) + MIDDLE) / layers for v in (found.layer, found.low, found.high))
    return middle, low, high


def _depths(study: Study) -> list[Strip]:
    """A strip a series of trainings: decision performance and faithfulness by the number of layers."""
    strips = []
    for name, by_run in study.depths.items():
        most = max((p.k for told in by_run.values() for p in told.points if p.k), default=1)
        panels = []
        for kind in CORRELATIONS[:2]:
            lines = []
            for run, told in by_run.items():
                for side, dash in (("first", "-"), ("last", CONTROL)):
                    points = sorted((p for p in told.points if p.side == side), key=lambda point: point.k or 0)
                    lines.append(Line(run, [p.k or 0 for p in points], correlations_of(points, kind.name), dash))
                whole = correlations_of(told.whole.values(), kind.name)
                lines.append(Line(run, [most * ALL_LAYERS] * len(whole), whole, "None"))
            ticks = {most * ALL_LAYERS: "all"} | {
                k: str(k) for told in by_run.values() for p in told.points if (k := p.k)
            }
            panels.append(Panel(f"r({kind.words})", "layers that the training may change", lines, ticks))
        strips.append(_strip(name, by_run, panels))
    return strips


def _strip(name: str, runs: Mapping[str, object], panels: Sequence[Panel], more: str = "") -> Strip:
    count = f"{len(runs)} run{'s' if len(runs) > 1 else ''}"
    return Strip(title_of(name), f"{more}{count}; {group_of(name)} contexts", panels)


def _draw(runs: Sequence[StudyRun], strips: Sequence[Strip], title: str, caption: str) -> Drawn:
    """The strips one below the other, with every run that is in any of them in the legend."""
    left, gap, height, below, width = 12.0, 14.0, 36.0, 11.0, 176.0
    marked = any(line.midpoint for strip in strips for panel in strip.panels for line in panel.lines)
    above, room = (20.0, ["", "", ""]) if marked else (11.0, [])
    drawn = {line.run for strip in strips for panel in strip.panels for line in panel.lines}
    styles = {name: style for name, style in _styles(runs).items() if name in drawn}
    columns = 3
    foot = 4.0 * math.ceil(len(styles) / columns) + 3
    canvas = new_canvas(width, len(strips) * (above + height + below) + foot)
    for row, strip in enumerate(strips):
        side = (width - left - 4 - gap * (len(strip.panels) - 1)) / len(strip.panels)
        for column, panel in enumerate(strip.panels):
            top = row * (above + height + below) + above
            axes = place_axes(canvas, left + column * (side + gap), top, side, height)
            _panel(axes, panel, styles)
            if not column:
                write_above(axes, [strip.title], [strip.facts, *room])
    _legend(canvas, runs, styles, columns)
    return canvas, title, f"{caption}{READ}"


def _styles(runs: Sequence[StudyRun]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each run: of its model, and of its place among the runs of that model."""
    found: dict[str, tuple[str, str]] = {}
    groups: dict[str, int] = {}
    for run in runs:
        place = groups.setdefault(run.group, 0)
        groups[run.group] += 1
        model, around = [*groups].index(run.group) % len(COLOURS), [*groups].index(run.group) // len(COLOURS)
        found[run.name] = COLOURS[model], MARKERS[(place + around) % len(MARKERS)]
    return found


def _panel(axes: Axes, panel: Panel, styles: Mapping[str, tuple[str, str]]) -> None:
    order = [*dict.fromkeys(line.run for line in panel.lines)]
    rise = min(1.0, 8 / len(order))  # the crosses of all runs stay in the lower third
    for line in panel.lines:
        colour, marker = styles[line.run]
        place = order.index(line.run)
        draw_curve(axes, line.places, line.found, colour, line.dash, place * rise, marker=marker, band=False)
        if line.midpoint:
            middle, low, high = line.midpoint
            at: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "clip_on": False, "color": colour}
            level = 1.03 + 0.035 * place * rise
            axes.plot([low, high], [level] * 2, lw=1.2, alpha=0.5, solid_capstyle="butt", **at)
            axes.plot([middle], [level], marker, ms=2.5, **at)
    axes.set_ylabel(panel.up, labelpad=1)
    places = [place for line in panel.lines for place in line.places]
    frame(axes, places, panel.along)
    if panel.ticks:
        axes.set_xticks([*panel.ticks], [*panel.ticks.values()])
    elif any(place % 1 for place in places):
        axes.locator_params(axis="x", integer=False, nbins=5)


def _legend(canvas: Canvas, runs: Sequence[StudyRun], styles: Mapping[str, tuple[str, str]], columns: int) -> None:
    groups = {run.name: run.group for run in runs}
    several = len({groups[name] for name in styles}) > 1
    handles = [Line2D([], [], color=colour, marker=marker, ms=3) for colour, marker in styles.values()]
    words = [f"{name}, {groups[name]}" if several and groups[name] not in name else name for name in styles]
    canvas.legend(handles, words, loc="lower left", ncols=columns, columnspacing=1.2, handlelength=2.2)
