"""What a run or a model's released files say, in a paragraph."""

from __future__ import annotations

import math
from collections.abc import Mapping

from analysis.pages.text import NOT_TESTABLE, listing, number, percent, plain, why_no_r, with_interval
from analysis.stats.agreement import Agreement
from analysis.study.comparisons import ComparisonResult
from analysis.study.results import Findings
from task.replies import REASONS
from task.thresholds import FEW_CONTEXTS, OPENS, READABLE_REPORTS


def verdict(findings: Findings) -> str:
    """What the run says, in a paragraph: the gate, for each group of contexts what reports and weights do, what is not
    testable, and the cautions."""
    gate, arm = findings.gate, plain(findings.judged.arm)
    if not gate.passed:
        *thresholds, cause = gate.reasons
        return (
            f"This run is {NOT_TESTABLE}: instillation did not pass the gate, since {', and '.join(thresholds)}. "
            f"Likely cause: {cause}. As long as the weights that drive the decisions of “{arm}” are not those that it "
            "was taught, or cannot be measured, no correlation with its reports has a meaning, and none is given here."
        )
    check = findings.learned_vs_target.agreement
    sentences = [
        f"Instillation passed the gate: “{arm}” decides as its target weights ask in {percent(gate.agreement)} of "
        f"held-out decisions, and the weights learned from its decisions correlate with the targets at {_r(check)}."
    ]
    shown = findings.shown
    for group in dict.fromkeys(c.contexts for c in shown):
        sentences.append(_finding(group, [c for c in shown if c.contexts == group]))
    return " ".join([*sentences, *_withheld(findings), *_cautions(shown), *_collapses(findings.comparisons)])


def _withheld(findings: Findings) -> list[str]:
    """Which comparisons are not testable although the gate was passed, and why."""
    sentences = []
    for reason, found in findings.withheld.items():
        names = [f"“{plain(name)}”" for name in found]
        are = "are" if len(names) > 1 else "is"
        sentences.append(f"{listing(names)} {are} {NOT_TESTABLE}: {reason}.")
    return [*sentences, "Decisions that were not made do not show that weights changed."] if sentences else []


def _collapses(comparisons: list[ComparisonResult]) -> list[str]:
    """Constrained reports that the arms would not have given, since a form makes every reply readable."""
    found: dict[str, list[str]] = {}
    for c in comparisons:
        signs = []
        if c.free_readable < READABLE_REPORTS * c.free_total:
            signs.append(f"{c.free_readable} of {c.free_total} free replies could be read{_most_often(c.free_reasons)}")
        if c.opening < OPENS:
            signs.append(f"a reply is opened as asked with a mean probability of {number(c.opening)}")
        if signs:
            found.setdefault("; ".join(signs), []).append(f"“{plain(c.name)}”")
    if not found:
        return []
    each = listing([f"{listing(names)} ({signs})" for signs, names in found.items()])
    return [f"These reports were forced into a form that the arm itself no longer gives: {each}."]


def _most_often(reasons: Mapping[str, int]) -> str:
    """The most frequent reason of unreadable replies, in words."""
    most = max(reasons, key=lambda reason: reasons[reason], default="")
    words = {str(reason): words for reason, words in REASONS.items()}.get(most, "")
    return f"; most often {words[:1].lower()}{words[1:].rstrip('.')}" if words else ""


def _finding(group: str, comparisons: list[ComparisonResult]) -> str:
    """What the comparisons on one group of contexts say, those that say the same together."""
    said: dict[str, list[str]] = {}
    for c in comparisons:
        a = c.agreement
        figures = why_no_r(a) if math.isnan(a.r) else _r(a)
        said.setdefault(_reading(c), []).append(f"“{plain(c.name)}” ({figures})")
    return f"On {plain(group)} contexts, " + "; ".join(f"{what} {listing(who)}" for what, who in said.items()) + "."


def _r(a: Agreement) -> str:
    """r and its interval, kept on one line."""
    return f"r = {with_interval(a)}".replace(" ", "\N{NO-BREAK SPACE}")


def _reading(comparison: ComparisonResult) -> str:
    """What the interval from resampling contexts and the permutation test say together, without more than they do."""
    a = comparison.agreement
    if math.isnan(a.r):
        return "no correlation can be computed in"
    if math.isnan(a.boot_low) or math.isnan(a.p_permutation):
        return "there are too few contexts to say anything about"
    apart, rare = a.boot_low > 0 or a.boot_high < 0, a.p_permutation < 0.05
    if not (apart or rare):
        return "there is no evidence that reports follow the weights that drive decisions in"
    if not (apart and rare):
        return "the interval and the permutation test disagree, so that nothing is settled, about"
    if a.r < 0:
        return "reports run against the weights that drive decisions in"
    return "reports go with the weights that drive decisions in"


def _cautions(comparisons: list[ComparisonResult]) -> list[str]:
    cautions = []
    unread: dict[tuple[int, int], list[str]] = {}
    for c in comparisons:
        readable, asked = c.agreement.valid_reports, c.agreement.total_reports
        if readable < READABLE_REPORTS * asked:
            unread.setdefault((readable, asked), []).append(f"“{plain(c.name)}”")
    if unread:
        counted = listing([f"{n} of {asked} behind {listing(names)}" for (n, asked), names in unread.items()])
        cautions.append(f"Not all reports could be read: the figures speak only for {counted}.")
    few = sorted({n for c in comparisons if 0 < (n := c.agreement.n_contexts) < FEW_CONTEXTS})
    if few:
        cautions.append(f"With as few as {few[0]} contexts the intervals are rough and likely too narrow.")
    if len(comparisons) > 1:
        cautions.append("Whether two comparisons differ is not told by whether their intervals overlap.")
    return cautions
