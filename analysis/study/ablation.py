"""Where an adapter keeps what it does: it is cut at several layers, and each half is asked to decide and to report.

The ends are added: where everything is kept, the arm itself, where nothing is, its base. Nothing is chosen: every cut
that was measured is a point.
"""

from __future__ import annotations

from collections.abc import Mapping

from analysis.stats.midpoint import Curve as LayerCurve
from analysis.stats.midpoint import lag
from analysis.study.results import RunResults
from analysis.study.states import Series, curve_of, series_of
from store.curves_summary import (
    AblationSummary,
    Curve,
    CutSummary,
    LagSummary,
    MidpointSummary,
    Side,
    SideSummary,
)
from store.run import BASE_ARM

CURVES: Mapping[Curve, str] = {
    "decisions": "learned_vs_target",
    "reports": "reported_vs_target",
    "faithfulness": "reported_vs_learned",
    "agreement": "agreement",
}
"""The curves of which midpoints are taken, and the figure of a state that each follows."""

OF_DECISIONS: tuple[Curve, ...] = ("decisions", "agreement")
"""Those whose midpoints are held against that of reports."""

SIDES: tuple[Side, ...] = ("below", "from")


def ablations_of(results: RunResults) -> dict[str, AblationSummary]:
    """The ablation of every arm whose adapter was cut and measured, by `ARM/group`."""
    whole = dict.fromkeys(arm.cut_of for arm in results.record.arms.values() if arm.cut_of is not None)
    found = {f"{arm}/{group}": _ablation(results, arm, group) for arm in whole for group in results.groups}
    return {name: told for name, told in found.items() if told}


def _ablation(results: RunResults, arm: str, group: str) -> AblationSummary | None:
    """The ablation of one arm on a group; None where no cut was measured there."""
    cuts = {name: made for name, made in results.record.arms.items() if made.cut_of == arm}
    series = series_of(results, cuts, group, [arm])
    if series is None:
        return None
    record = results.record.arms.get(arm)
    base = (record.on_top_of if record else None) or BASE_ARM
    layers = next((made.layer_count for made in cuts.values() if made.layer_count), None)
    sides = {}
    for side in SIDES:
        halves = {made.cut: name for name, made in cuts.items() if made.kept_side == side and made.cut is not None}
        if halves:
            whole_at, base_at = (layers, 0) if side == "below" else (0, layers)
            ends = {at: name for at, name in ((whole_at, arm), (base_at, base)) if at is not None}
            sides[side] = _side(series, {**ends, **halves})
    return AblationSummary(
        arm=arm, base=base, contexts=group, n_contexts=len(series.members), layers=layers, sides=sides
    )


def _side(series: Series, arms: Mapping[int, str]) -> SideSummary:
    """The states that keep one side, by cut, and where their curves are half-way."""
    states = {cut: state for cut in sorted(arms) if (state := series.state([arms[cut]]))}
    seed = series.results.seed
    curves = {
        name: curve_of([*states], [state.figures[of] for state in states.values()], seed) for name, of in CURVES.items()
    }
    found = {name: curve.midpoint() for name, curve in curves.items()}
    return SideSummary(
        points=[CutSummary(cut=cut, **dict(state.told)) for cut, state in states.items()],
        midpoints={name: MidpointSummary(testable=m.reason is None, **m.as_dict()) for name, m in found.items()},
        behind_reports={name: _lag(curves[name], curves["reports"], name) for name in OF_DECISIONS},
    )


def _lag(of_decisions: LayerCurve, of_reports: LayerCurve, name: Curve) -> LagSummary:
    """How many layers the midpoint of decisions lies behind that of reports, or why that cannot be told."""
    missing = {name: of_decisions.midpoint().reason, "reports": of_reports.midpoint().reason}
    if reasons := [f"{curve} has no midpoint: {reason}" for curve, reason in missing.items() if reason]:
        return LagSummary(testable=False, reason="; ".join(reasons))
    layers, low, high = lag(of_decisions, of_reports)
    return LagSummary(testable=True, layers=layers, low=low, high=high)
