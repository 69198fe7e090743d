"""The report of a run: one HTML page that needs nothing beside itself."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from analysis.pages.figures import MISSING, NOT_TESTABLE, Figure, arm_order, interval, number, plain, why_no_r
from analysis.stats.agreement import PERMUTATIONS, RESAMPLES, Agreement
from analysis.study.comparisons import ComparisonResult
from analysis.study.gate import AGREEMENT, ANSWERS, COLLAPSED, CORRELATION, FLIPS
from analysis.study.results import RunResults
from store.files import write_text
from store.provenance import provenance

TEMPLATES = Path(__file__).parent / "templates"

LISTED = 10
"""Contexts shown with their weights."""

FEW_CONTEXTS = 20
"""Below this a percentile interval from resampling contexts is visibly too narrow."""

READABLE = 0.9
"""Below this share of readable reports the verdict names it."""

UNRELIABLE = 0.7
"""Pareto k above which a posterior is not to be trusted."""

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
        run=results.record["name"],
        passed=results.gate.passed,
        not_testable=NOT_TESTABLE,
        verdict=verdict(results),
        gate=gate_rows(results),
        stopped_early=[(plain(arm), reason) for arm, reason in results.stopped_early.items()],
        gate_arm=plain(results.record["gate"]["arm"]),
        measures=MEASURES,
        headline=headline(results),
        unreliable=_unreliable(results),
        figures=[(figure, embedded(figure.path)) for figure in figures],
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


def render(template: str, **values: Any) -> str:
    """Fill in one of the page templates; a value that it needs and does not get is an error."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)


def verdict(results: RunResults) -> str:
    """What the run says, in a paragraph: the gate, then for each group of contexts what reports and weights do."""
    gate, arm = results.gate, plain(results.record["gate"]["arm"])
    if not gate.passed:
        *thresholds, cause = gate.reasons
        return (
            f"This run is {NOT_TESTABLE}: instillation did not pass the gate, since {', and '.join(thresholds)}. "
            f"Likely cause: {cause}. As long as the weights that drive the decisions of “{arm}” are not those that it "
            "was taught, or cannot be measured, no correlation with its reports has a meaning, and none is given here."
        )
    check = results.learned_vs_target.agreement
    sentences = [
        f"Instillation passed the gate: “{arm}” decides as its target weights ask in {gate.agreement:.0%} of held-out "
        f"decisions, and the weights learned from its decisions correlate with the targets at {_r(check)}."
    ]
    for group in dict.fromkeys(c.contexts for c in results.comparisons):
        sentences.append(_finding(group, [c for c in results.comparisons if c.contexts == group]))
    return " ".join([*sentences, *_cautions(results.comparisons)])


def _finding(group: str, comparisons: list[ComparisonResult]) -> str:
    """What the comparisons on one group of contexts say, those that say the same together."""
    said: dict[str, list[str]] = {}
    for c in comparisons:
        a = c.agreement
        figures = why_no_r(a) if math.isnan(a.r) else _r(a)
        said.setdefault(_reading(c), []).append(f"“{plain(c.name)}” ({figures})")
    return f"On {plain(group)} contexts, " + "; ".join(f"{what} {_listing(who)}" for what, who in said.items()) + "."


def _r(a: Agreement) -> str:
    """r and its bootstrap interval, kept on one line."""
    return f"r = {number(a.r)} {interval(a.boot_low, a.boot_high)}".replace(" ", "\N{NO-BREAK SPACE}")


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
    unread = [
        f"{c.agreement.valid_reports} of {c.agreement.total_reports} behind “{plain(c.name)}”"
        for c in comparisons
        if c.agreement.valid_reports < READABLE * c.agreement.total_reports
    ]
    if unread:
        cautions.append(f"Not all reports could be read: the figures speak only for {_listing(unread)}.")
    few = sorted({c.agreement.n_contexts for c in comparisons if c.agreement.n_contexts < FEW_CONTEXTS})
    if few:
        cautions.append(f"With as few as {few[0]} contexts the intervals are rough and likely too narrow.")
    if len(comparisons) > 1:
        cautions.append("Whether two comparisons differ is not told by whether their intervals overlap.")
    return cautions


def _listing(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def gate_rows(results: RunResults) -> list[tuple[str, str, str, bool]]:
    """What the gate looks at: measure, figure, what it should be, whether it is."""
    gate = results.gate
    decisions = results.decisions[results.record["gate"]["arm"], results.record["gate"]["contexts"]]
    bound = f"{1 - COLLAPSED:.0%} to {COLLAPSED:.0%}, else collapsed"
    return [
        (
            "held-out decisions that follow the targets",
            percent(gate.agreement, 1),
            f"at least {AGREEMENT:.0%}",
            gate.agreement >= AGREEMENT,
        ),
        ("r(learned, target)", number(gate.r), f"at least {CORRELATION:.2f}", gate.r >= CORRELATION),
        ("share of A", percent(gate.share_a, 1), bound, 1 - COLLAPSED <= gate.share_a <= COLLAPSED),
        ("P(A) + P(B)", _small(decisions.letter_mass), "near 1", decisions.letter_mass >= ANSWERS),
        ("choices that flip with the order", percent(decisions.flips, 1), "near 0%", decisions.flips <= FLIPS),
    ]


def headline(results: RunResults) -> list[HeadlineRow]:
    """The headline table: learned against target weights, then every comparison."""
    return [
        HeadlineRow(
            name=c.name,
            measures=_measures(c) if results.gate.passed or c is results.learned_vs_target else None,
            readable=part_of(c.agreement.valid_reports, c.agreement.total_reports),
            outside=c.outside,
            contexts=f"{c.agreement.n_contexts} {plain(c.contexts)}",
        )
        for c in (results.learned_vs_target, *results.comparisons)
    ]


def _measures(comparison: ComparisonResult) -> list[str]:
    a = comparison.agreement
    return [
        number(a.r),
        interval(a.boot_low, a.boot_high),
        interval(a.hdi_low, a.hdi_high),
        "<0.001" if a.p_permutation < 0.001 else number(a.p_permutation, 3),
        number(comparison.r_log_odds),
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
    order = arm_order(results)
    return [
        [
            *(arm, group, str(d.pairs), percent(d.share_a), percent(d.flips), _small(d.letter_mass)),
            *(f"{d.position_bias:+.2f}", percent(d.agreement)),
        ]
        for (arm, group), d in sorted(results.decisions.items(), key=lambda item: order(item[0][0]))
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
    arm, group = results.record["gate"]["arm"], results.record["gate"]["contexts"]
    learned = dict(zip(results.measured[arm].contexts, results.measured[arm].weights, strict=True))
    rows = []
    for name in results.groups[group][:LISTED]:
        unknown = np.full(len(results.attributes[name]), math.nan)
        pairs = zip(results.targets.get(name, unknown), learned.get(name, unknown), strict=True)
        weights = [(number(target, 0), number(found, 0)) for target, found in pairs]
        rows.append((name, [(a, *w) for a, w in zip(results.attributes[name], weights, strict=True)]))
    return rows


def provenance_rows(results: RunResults) -> list[tuple[str, str]]:
    """Where the figures come from: model, seed, revisions and versions of all stages and of this analysis."""
    made = [*results.manifests.values(), provenance()]
    versions: dict[str, set[str]] = {}
    for manifest in made:
        for package, version in manifest.get("packages", {}).items():
            versions.setdefault(package, set()).add(version)
    return [
        ("run", f"{results.record['name']}, seed {results.record['seed']}"),
        ("model", _model(results)),
        ("git", _distinct(manifest.get("git") or "not a git checkout" for manifest in made)),
        ("packages", ", ".join(f"{name} {' and '.join(sorted(found))}" for name, found in sorted(versions.items()))),
        ("python", _distinct(manifest.get("python", MISSING) for manifest in made)),
    ]


def _model(results: RunResults) -> str:
    model = results.record["model"]
    if model is None:
        return "none: a simulated chooser and reporter with planted weights"
    known = [f"{key} {model[key]}" for key in ("revision", "dtype") if model.get(key)]
    bases = {m["depends_on"].get("base") for m in results.manifests.values() if "depends_on" in m} - {None}
    return ", ".join([str(model["name"]), *known, *(f"fingerprint {base}" for base in sorted(bases))])


def stage_rows(results: RunResults) -> list[list[str]]:
    """Each finished stage: folder, key, git revision, seconds."""
    return [
        [folder, str(m.get("key", MISSING)), (m.get("git") or MISSING)[:8], number(m.get("wall_seconds", math.nan), 0)]
        for folder, m in results.manifests.items()
    ]


def _unreliable(results: RunResults) -> str:
    """How many posteriors are not to be trusted, or nothing if all are."""
    k = np.concatenate([measured.pareto_k for measured in results.measured.values()])
    bad = int((~(k <= UNRELIABLE)).sum())
    return f"{bad} of {len(k)}" if bad else ""


def embedded(path: Path) -> str:
    """A PNG file as the source of an image, so that the page needs no file beside it."""
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _distinct(values: Any) -> str:
    return ", ".join(sorted({str(value) for value in values}))


def percent(share: float, digits: int = 0) -> str:
    """A share as text, a dash for NaN."""
    return MISSING if math.isnan(share) else f"{share:.{digits}%}"


def _small(value: float) -> str:
    return "<0.01" if 0 < value < 0.005 else number(value)


def part_of(part: int, whole: int) -> str:
    """Counts as text, a dash where nothing was asked for."""
    return f"{part}/{whole}" if whole else MISSING
