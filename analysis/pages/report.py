"""The report of a run: one HTML page that needs nothing beside itself."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.pages.figures import Figure
from analysis.pages.page import embedded, render
from analysis.pages.text import MISSING, NOT_TESTABLE, interval, number, p_value, part_of, percent, plain, small
from analysis.pages.verdict import verdict
from analysis.stats.agreement import PERMUTATIONS, RESAMPLES, Agreement
from analysis.study.results import RunResults
from store.files import write_text
from store.provenance import provenance
from task.thresholds import ANSWERS, COLLAPSED, FLIPS, GATE_AGREEMENT, GATE_CORRELATION, TRUSTED_PARETO_K

LISTED = 10
"""Contexts shown with their weights."""

MEASURES = (
    "r",
    "95%, contexts resampled",
    "95% HDI, the paper's",
    "p, permuted",
    "r, log-odds weights",
    "slope",
    "Spearman",
    "MAE",
    "same sign",
    "same top attribute",
    "r within contexts",
)
"""Columns of the headline table that are withheld when the gate was not passed; in the order of `_measures`."""


@dataclass(frozen=True)
class HeadlineRow:
    """One comparison in the headline table; `measures` is None when it is not testable."""

    name: str
    measures: list[str] | None
    readable: str
    outside: int
    contexts: str


def write_report(results: RunResults, figures: list[Figure], path: Path) -> None:
    """Write the report of a run to `path`, with the pictures inside it."""
    page = render(
        "report.html.j2",
        run=results.name,
        passed=results.gate.passed,
        not_testable=NOT_TESTABLE,
        verdict=verdict(results),
        gate=gate_rows(results),
        stopped_early=[(plain(arm), reason) for arm, reason in results.stopped_early.items()],
        gate_arm=plain(results.judged.arm),
        measures=MEASURES,
        headline=headline(results),
        unreliable=_unreliable(results),
        figures=embedded(figures),
        differences=difference_rows(results),
        decisions=decision_rows(results),
        unreadable=unreadable_rows(results),
        listed=context_rows(results),
        resamples=RESAMPLES,
        permutations=PERMUTATIONS,
        facts=provenance_rows(results),
        stages=stage_rows(results),
    )
    write_text(path, page)


def gate_rows(results: RunResults) -> list[tuple[str, str, str, bool]]:
    """What the gate looks at: measure, figure, what it should be, whether it is."""
    gate = results.gate
    decisions = results.decisions[results.judged.arm, results.judged.contexts]
    bound = f"{percent(1 - COLLAPSED)} to {percent(COLLAPSED)}, else collapsed"
    return [
        (
            "held-out decisions that follow the targets",
            percent(gate.agreement, 1),
            f"at least {percent(GATE_AGREEMENT)}",
            gate.agreement >= GATE_AGREEMENT,
        ),
        ("r(learned, target)", number(gate.r), f"at least {number(GATE_CORRELATION)}", gate.r >= GATE_CORRELATION),
        ("share of A", percent(gate.share_a, 1), bound, 1 - COLLAPSED <= gate.share_a <= COLLAPSED),
        ("P(A) + P(B)", small(decisions.letter_mass), "near 1", decisions.letter_mass >= ANSWERS),
        ("choices that flip with the order", percent(decisions.flips, 1), "near 0%", decisions.flips <= FLIPS),
    ]


def headline(results: RunResults) -> list[HeadlineRow]:
    """The headline table: learned against target weights, then every comparison."""
    return [
        HeadlineRow(
            name=c.name,
            measures=_measures(c.agreement, c.r_log_odds) if results.testable(c) else None,
            readable=part_of(c.agreement.valid_reports, c.agreement.total_reports),
            outside=c.outside,
            contexts=f"{c.agreement.n_contexts} {plain(c.contexts)}",
        )
        for c in results.all_comparisons
    ]


def _measures(a: Agreement, r_log_odds: float) -> list[str]:
    return [
        number(a.r),
        interval(a.boot_low, a.boot_high),
        interval(a.hdi_low, a.hdi_high),
        p_value(a.p_permutation),
        number(r_log_odds),
        number(a.slope),
        number(a.spearman),
        number(a.mae, 1),
        percent(a.sign_agreement),
        percent(a.top_attribute),
        number(a.within_context_r),
    ]


def difference_rows(results: RunResults) -> list[list[str]]:
    """Gains from one comparison to another, with the interval; none where the gate was not passed."""
    return [
        [
            *(plain(d.name), f"r({d.after}) - r({d.before})", number(d.found.difference)),
            *(interval(d.found.boot_low, d.found.boot_high), str(d.found.n_contexts)),
        ]
        for d in results.differences
        if results.gate.passed
    ]


def decision_rows(results: RunResults) -> list[list[str]]:
    """How each arm decides on each group of contexts, in the order of the run's plan."""
    return [
        [
            *(arm, group, str(d.pairs), percent(d.share_a), percent(d.flips), small(d.letter_mass)),
            *(number(d.position_bias, signed=True), percent(d.agreement)),
        ]
        for (arm, group), d in sorted(results.decisions.items(), key=lambda item: results.place(item[0][0]))
    ]


def unreadable_rows(results: RunResults) -> list[list[str]]:
    """Reports of each comparison that could not be read, with the reasons and their counts."""
    rows = []
    for c in results.comparisons:
        unread = c.agreement.total_reports - c.agreement.valid_reports
        reasons = ", ".join(f"{plain(reason)}: {count}" for reason, count in c.reasons.items())
        rows.append([c.name, part_of(unread, c.agreement.total_reports), reasons or MISSING])
    return rows


def context_rows(results: RunResults) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Target and learned weight of each attribute, for the first contexts of the gate's group."""
    arm, group = results.judged.arm, results.judged.contexts
    learned = dict(zip(results.measured[arm].contexts, results.measured[arm].weights, strict=True))
    rows = []
    for name in results.groups[group][:LISTED]:
        attributes = results.contexts[name].attribute_names
        unknown = np.full(len(attributes), math.nan)
        pairs = zip(results.targets.get(name, unknown), learned.get(name, unknown), strict=True)
        weights = [(number(target, 0), number(found, 0)) for target, found in pairs]
        rows.append((name, [(a, *w) for a, w in zip(attributes, weights, strict=True)]))
    return rows


def provenance_rows(results: RunResults) -> list[tuple[str, str]]:
    """Where the figures come from: model, seed, revisions and versions of all stages and of this analysis."""
    made, now = results.stages.values(), provenance()
    versions: dict[str, set[str]] = {}
    for packages in (*(stage.packages for stage in made), now["packages"]):
        for package, version in packages.items():
            versions.setdefault(package, set()).add(version)
    return [
        ("run", f"{results.name}, seed {results.seed}"),
        ("model", _model(results)),
        ("git", _distinct(git or "not a git checkout" for git in (*(stage.git for stage in made), now["git"]))),
        ("packages", ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in sorted(versions.items()))),
        ("python", _distinct((*(stage.python for stage in made), now["python"]))),
    ]


def _model(results: RunResults) -> str:
    model = results.record.model
    if model is None:
        return "none: a simulated chooser and reporter with planted weights"
    revision = [f"revision {model.revision}"] if model.revision else []
    fingerprints = [f"fingerprint {base}" for base in results.base_models]
    return ", ".join([model.name, *revision, f"dtype {model.dtype}", *fingerprints])


def stage_rows(results: RunResults) -> list[list[str]]:
    """Each finished stage: folder, key, git revision, seconds."""
    return [
        [folder, stage.key, (stage.git or MISSING)[:8], number(stage.wall_seconds, 0)]
        for folder, stage in results.stages.items()
    ]


def _unreliable(results: RunResults) -> str:
    """How many posteriors are not to be trusted, or nothing if all are."""
    k = np.concatenate([measured.pareto_k for measured in results.measured.values()])
    bad = int((~(k <= TRUSTED_PARETO_K)).sum())
    return f"{bad} of {len(k)}" if bad else ""


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))
