"""The verdicts of a study in sentences; every number in them comes from the data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from analysis.pages.study_series import KEPT, group_of, title_of
from analysis.pages.text import NOT_TESTABLE, as_number, listing, number, plain, with_ends
from analysis.study.ablation import CURVES
from analysis.study.study import Study
from analysis.study.verdicts import ClaimVerdict, PartVerdict
from store.curves_summary import CorrelationSummary
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


def of_series(study: Study) -> list[str]:
    """What series of states the runs have, and where they end, in sentences."""
    return [*_of_trajectories(study), *_of_ablations(study), *_of_depths(study)]


def _of_trajectories(study: Study) -> Iterator[str]:
    for name, found in study.trajectories.items():
        last = [told.points[-1] for told in found.values() if told.points]
        learned, faithful = (
            _spread([getattr(state, figure) for state in last])
            for figure in ("learned_vs_target", "reported_vs_learned")
        )
        states = _span([len(told.points) for told in found.values()])
        yield (
            f"“{title_of(name)}” on {group_of(name)} contexts was followed over {states} states in "
            f"{_runs(study, found)}. At the last state r(learned, target) is {learned}, r(reported, learned) "
            f"{faithful}."
        )


def _of_ablations(study: Study) -> Iterator[str]:
    for name, found in study.ablations.items():
        for side, kept in KEPT.items():
            there = [told.sides[side] for told in found.values() if side in told.sides]
            if there:
                defined = [
                    f"{curve} in {sum(s.midpoints[curve].testable for s in there)} of {len(there)}" for curve in CURVES
                ]
                yield (
                    f"The adapter of “{title_of(name)}” was cut in {_runs(study, found)}, {group_of(name)} contexts, "
                    f"{kept}. Runs with a midpoint: {listing(defined)}."
                )


def _of_depths(study: Study) -> Iterator[str]:
    for name, found in study.depths.items():
        trainings = _span([len(told.points) for told in found.values()])
        yield (
            f"“{title_of(name)}” on {group_of(name)} contexts: {trainings} trainings in some layers only, in "
            f"{_runs(study, found)}."
        )


def _runs(study: Study, found: Mapping[str, object]) -> str:
    """How many runs have a series, and which have none."""
    without = [run.name for run in study.runs if run.name not in found]
    count = f"{len(found)} of {len(study.runs)} run{'s' if len(study.runs) > 1 else ''}"
    return f"{count} (not in {listing(without)})" if without else count


def _span(counts: Sequence[int]) -> str:
    return str(counts[0]) if len({*counts}) == 1 else f"{min(counts)} to {max(counts)}"


def _spread(found: Sequence[CorrelationSummary]) -> str:
    """From the lowest to the highest of several runs, and in how many there is none."""
    values = sorted(as_number(c.r) for c in found if c.testable)
    missing = f" ({NOT_TESTABLE} in {len(found) - len(values)})" if len(values) < len(found) else ""
    if not values:
        return f"{NOT_TESTABLE} in any run"
    return " to ".join(dict.fromkeys(map(number, (values[0], values[-1])))) + missing
