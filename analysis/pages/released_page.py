"""The page about one model's released files: each figure beside the paper's, and how far to believe it."""

from __future__ import annotations

import math
from pathlib import Path

from analysis.pages.figures import Figure
from analysis.pages.page import embedded, render
from analysis.pages.text import MISSING, NOT_TESTABLE, interval, number, p_value, part_of, percent, plain
from analysis.pages.verdict import verdict
from analysis.stats.agreement import PERMUTATIONS, RESAMPLES
from analysis.stats.missing import AS_ZERO, COMPLETE, SHARED
from analysis.stats.reliability import REPORT_SPLITS, WEIGHT_SPLITS
from analysis.study.comparisons import ComparisonResult
from analysis.study.released_files import ASKED
from analysis.study.released_results import ReleasedResults
from store.files import write_text
from store.provenance import provenance
from task.thresholds import GATE_AGREEMENT, GATE_CORRELATION

TREATMENTS = (COMPLETE, SHARED, AS_ZERO)


def write_page(results: ReleasedResults, figures: list[Figure], path: Path) -> None:
    """Write the page to `path`, with the pictures inside it."""
    made = provenance()
    gate = results.findings.gate
    page = render(
        "released.html.j2",
        model=results.data.model,
        passed=gate.passed,
        not_testable=NOT_TESTABLE,
        notes=results.data.notes,
        verdict=verdict(results.findings),
        gate=[
            ("decisions that follow the targets", percent(gate.agreement, 1), f"at least {percent(GATE_AGREEMENT)}"),
            ("r(learned, target)", number(gate.r), f"at least {number(GATE_CORRELATION)}"),
            ("share of A", percent(gate.share_a, 1), "near 50%"),
        ],
        beside=[(plain(name), beside_the_paper(name, results), results.testable(name)) for name in results.found],
        printed=results.printed,
        instilled=results.variants.get("instilled"),
        figures=embedded(figures),
        noise=noise_rows(results),
        more=more_rows(results),
        changes=change_rows(results),
        treatments=TREATMENTS,
        missing=missing_rows(results),
        variants=variant_rows(results),
        asked=ASKED,
        weight_splits=WEIGHT_SPLITS,
        report_splits=REPORT_SPLITS,
        resamples=RESAMPLES,
        permutations=PERMUTATIONS,
        number=number,
        facts=[
            ("git", made["git"] or "not a git checkout"),
            ("packages", ", ".join(f"{name} {version}" for name, version in sorted(made["packages"].items()))),
            ("python", made["python"]),
        ],
        hashes=[[name, key] for name, key in results.data.hashes.items()],
    )
    write_text(path, page)


def beside_the_paper(name: str, results: ReleasedResults) -> tuple[list[str], list[str]]:
    """Cells of the first table: figures of r, withheld when not testable, and counts."""
    found = results.found[name]
    printed = number(results.printed.get(name, math.nan))
    if found is None:
        return [MISSING, printed, *[MISSING] * 3], [MISSING] * 4
    a = found.agreement
    figures = [
        number(a.r),
        printed,
        interval(a.boot_low, a.boot_high),
        interval(a.hdi_low, a.hdi_high),
        p_value(a.p_permutation),
    ]
    readable = part_of(a.valid_reports, a.total_reports)
    return figures, [readable, str(found.outside), str(a.n_contexts), str(a.n_points)]


def _shown(results: ReleasedResults) -> list[ComparisonResult]:
    """Comparisons whose figures may be shown."""
    return [c for name, c in results.found.items() if c is not None and results.testable(name)]


def noise_rows(results: ReleasedResults) -> list[list[str]]:
    """r, the two reliabilities, and r without the noise."""
    rows = []
    for c in _shown(results):
        corrected = results.corrected[c.name]
        reports = MISSING if c.name == "learned_vs_target" else number(corrected.reliability_x)
        sides = [reports, number(corrected.reliability_y)]
        ends = interval(corrected.boot_low, corrected.boot_high)
        rows.append([plain(c.name), number(c.agreement.r), *sides, number(corrected.r), ends])
    return rows


def more_rows(results: ReleasedResults) -> list[list[str]]:
    """The measures of agreement that are not r."""
    return [
        [
            plain(c.name),
            number(c.agreement.slope),
            number(c.agreement.spearman),
            number(c.agreement.mae, 1),
            percent(c.agreement.sign_agreement),
            percent(c.agreement.top_attribute),
            number(c.agreement.within_context_r),
        ]
        for c in _shown(results)
    ]


def change_rows(results: ReleasedResults) -> list[list[str]]:
    """What introspection training changed, on the contexts with reports before and after."""
    if not results.findings.gate.passed:
        return []
    return [
        [
            f"{plain(after)} \N{MINUS SIGN} {plain(before)}",
            number(d.difference, signed=True),
            interval(d.boot_low, d.boot_high),
            str(d.n_contexts),
        ]
        for (after, before), d in results.changes.items()
    ]


def missing_rows(results: ReleasedResults) -> list[list[str]]:
    """r, its interval and the contexts behind it under each treatment of missing reports."""
    if not results.findings.gate.passed:
        return []
    cells: dict[str, list[str]] = {}
    for t in results.missing:
        text = f"{number(t.r)} {interval(t.boot_low, t.boot_high)}, {t.n_contexts} contexts"
        cells.setdefault(t.reports, []).append(text)
    return [[plain(name), *texts] for name, texts in cells.items()]


def variant_rows(results: ReleasedResults) -> list[list[str]]:
    """r in the ways that the paper could have computed it."""
    if not results.findings.gate.passed:
        return []
    return [
        [
            plain(name),
            number(results.printed.get(name, math.nan)),
            *(number(r, 3) for r in (v.as_given, v.clipped, v.dropped, v.standardised_first)),
            str(v.outside),
            number(v.largest, 0),
        ]
        for name, v in results.variants.items()
    ]
