"""How a number, an interval, a share, a count and a name are written: on pages, in pictures, on the screen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from analysis.stats.agreement import Agreement
from analysis.stats.prediction import Predicted

NOT_TESTABLE = "not testable"
MISSING = "\N{EN DASH}"


def as_number(figure: float | None) -> float:
    """A figure of a summary, NaN for one that it lacks."""
    return math.nan if figure is None else figure


def number(value: float, digits: int = 2, *, signed: bool = False) -> str:
    """A figure as text, a dash for NaN."""
    # + 0.0: no "-0.00"
    return MISSING if math.isnan(value) else f"{round(value, digits) + 0.0:{'+' if signed else ''}.{digits}f}"


def interval(low: float, high: float, *, signed: bool = False) -> str:
    """An interval as text, a dash for NaN."""
    return MISSING if math.isnan(low) else f"[{number(low, signed=signed)}, {number(high, signed=signed)}]"


def with_ends(value: float, low: float, high: float, *, signed: bool = False) -> str:
    """A figure and its interval."""
    return f"{number(value, signed=signed)} {interval(low, high, signed=signed)}"


def with_interval(found: Agreement, *, signed: bool = False) -> str:
    """r and its interval from resampling contexts."""
    return with_ends(found.r, found.boot_low, found.boot_high, signed=signed)


def small(value: float) -> str:
    """A figure that may be small but not nothing."""
    return "<0.01" if 0 < value < 0.005 else number(value)


def p_value(p: float) -> str:
    """A p-value as text, a dash for NaN."""
    return "<0.001" if p < 0.001 else number(p, 3)


def percent(share: float, digits: int = 0) -> str:
    """A share as text, a dash for NaN."""
    return MISSING if math.isnan(share) else f"{share:.{digits}%}"


def shares(share: float, low: float, high: float) -> str:
    """A share and its interval."""
    ends = MISSING if math.isnan(low) else f"[{percent(low, 1)}, {percent(high, 1)}]"
    return f"{percent(share, 1)} {ends}"


def predicted(found: Predicted | None) -> str:
    """Share of decisions predicted right and log-loss; a dash where such weights were not measured."""
    return f"{percent(found.share)} ({number(found.log_loss)})" if found else MISSING


def part_of(part: int, whole: int) -> str:
    """Counts as text, a dash where nothing was asked for."""
    return f"{part}/{whole}" if whole else MISSING


def main_figures(a: Agreement) -> list[str]:
    """r, its two intervals and its p-value."""
    return [number(a.r), interval(a.boot_low, a.boot_high), interval(a.hdi_low, a.hdi_high), p_value(a.p_permutation)]


def other_figures(a: Agreement) -> list[str]:
    """Slope, Spearman, MAE, same sign, same top attribute, r within contexts."""
    shares = [percent(a.sign_agreement), percent(a.top_attribute)]
    return [number(a.slope), number(a.spearman), number(a.mae, 1), *shares, number(a.within_context_r)]


def plain(name: str) -> str:
    """A name of the experiment file as words."""
    return name.replace("_", " ")


def listing(words: Sequence[str]) -> str:
    """Some words as part of a sentence."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def counts(a: Agreement) -> str:
    """What is behind a correlation."""
    readable = f", {part_of(a.valid_reports, a.total_reports)} reports readable" if a.total_reports else ""
    return f"{a.n_contexts} contexts{readable}"


def by_reason(reasons: Mapping[str, int]) -> str:
    """What is missing, by reason; a dash for nothing."""
    return ", ".join(f"{plain(reason)}: {count}" for reason, count in reasons.items()) or MISSING


def why_no_r(found: Agreement) -> str:
    """Why a correlation is NaN."""
    if not found.n_contexts:
        return "no context has both"
    return "fewer than 3 points" if found.n_points < 3 else "no variation"
