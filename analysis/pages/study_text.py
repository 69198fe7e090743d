"""The verdicts of a study in sentences; every number in them comes from the data."""

from __future__ import annotations

import math

from analysis.pages.text import NOT_TESTABLE, listing, number, plain, with_ends
from analysis.study.verdicts import ClaimVerdict, PartVerdict
from store.study_summary import Outcome

SAID: tuple[Outcome, ...] = ("supported", "against", "not settled")
"""Outcomes of what has a figure."""


def sentence(found: ClaimVerdict) -> str:
    """A verdict in a sentence for each part of the claim."""
    parts = [_of_part(part) for part in found.parts]
    return " ".join([*dict.fromkeys(parts), *([found.claim.caution] if _spoken(found) else [])]).strip()


def _spoken(found: ClaimVerdict) -> bool:
    return found.outcome in SAID


def _of_part(part: PartVerdict) -> str:
    if part.outcome == "not measured":
        return f"{_upper(part.what)}: not measured, as no run has “{part.figures[0]}”."
    if part.outcome == "not testable":
        return f"{_upper(part.what)}: {NOT_TESTABLE}, {'; '.join(part.reasons)}."
    p = part.pooled
    figure = f"{_upper(part.what)} is {with_ends(p.mean, p.low, p.high, signed=True)}"
    return f"{figure}, {_reading(part)} ({_behind(part)}).{_size(part)}"


def _upper(words: str) -> str:
    return words if words.startswith("r") and not words[1:2].isalpha() else words[:1].upper() + words[1:]


def _reading(part: PartVerdict) -> str:
    low, high = (f"{limit:.3g}" for limit in (part.above, part.below))
    p = part.pooled
    if part.outcome == "supported" and not p.low > part.above:
        return f"not all above {low}, but each run by itself is"
    if part.outcome == "against" and not p.high < part.below:
        return f"not all below {high}, but each run by itself is"
    if part.outcome == "supported":
        small = part.pooled.high < part.below
        return f"all above {low}{f', yet all below {high}, the smallest of interest' if small else ''}"
    if part.outcome == "against":
        return f"all below {high}{', the smallest of interest' if part.above < part.below else ''}"
    return f"neither all above {low} nor all below {high}"


def _behind(part: PartVerdict) -> str:
    """The comparisons, runs and contexts behind a figure."""
    names = listing([f"“{plain(figure.partition('.')[0])}”" for figure in part.figures])
    few, many = part.n_contexts
    contexts = f"{many} contexts" if few == many else f"{few} to {many} contexts"
    p = part.pooled
    untested = f"; {NOT_TESTABLE} in others: {'; '.join(part.reasons)}" if part.reasons else ""
    if p.runs == 1:
        return f"{names}, one run, {contexts}; other trainings may differ{untested}"
    expected = f"a new one is expected within {number(p.predicted_low, signed=True)} to "
    ahead = "" if math.isnan(p.predicted_low) else f"; {expected}{number(p.predicted_high, signed=True)}"
    return f"{names}, {p.runs} runs, {contexts} each{ahead}{untested}"


def _size(part: PartVerdict) -> str:
    """What would settle it."""
    if part.outcome != "not settled":
        return ""
    ways = [
        *([f"{part.contexts} contexts{'' if part.pooled.runs == 1 else ' in each'}"] if part.contexts else []),
        *([f"{part.trainings} runs"] if part.trainings else []),
    ]
    if not ways:
        return " More contexts alone would not settle it if it stayed there."
    more = "" if part.pooled.runs > 1 else " for this training"
    return f" If it stayed there, {' or '.join(ways)} would settle it{more}."
