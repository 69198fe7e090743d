"""Analyse a run: weights, agreement, the gate, figures and a report on one page.

    python -m analysis.run --run runs/simulated-seed0

Writes `analysis/summary.json`, `weights.csv`, `agreement.csv`, `figures/`, `report.html` and `manifest.json` into the
run's folder, in place of what an earlier analysis left there.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.pages.figures import save_figures
from analysis.pages.report import write_report
from analysis.pages.text import NOT_TESTABLE, number, part_of, with_interval
from analysis.study.comparisons import ComparisonResult, Difference
from analysis.study.output import output_folder
from analysis.study.results import Findings, RunResults, analyse
from store.console import run_command, say
from store.files import write_text
from store.provenance import provenance
from store.run import RunFolder
from store.state_inputs import analysis_inputs
from store.summary import (
    AgreementSummary,
    ComparisonSummary,
    DecisionSummary,
    DifferenceSummary,
    GateSummary,
    RunSummary,
    write_summary,
)

COMMAND = "analysis.run"

COUNTS = ("n_points", "n_contexts", "valid_reports", "total_reports")
"""What is said of a comparison whether or not the gate was passed."""


def summary(results: RunResults) -> RunSummary:
    """The figures of a run; those of a run that did not pass the gate are withheld, with the reason."""
    gate = results.gate
    reason = None if gate.passed else f"the gate was not passed: {'; '.join(gate.reasons)}"
    return RunSummary(
        run=results.name,
        seed=results.seed,
        gate=GateSummary(passed=gate.passed, agreement=gate.agreement, share_a=gate.share_a, reasons=gate.reasons),
        stopped_early=results.stopped_early,
        learned_vs_target=AgreementSummary(**results.learned_vs_target.agreement.as_dict()),
        comparisons={c.name: comparison_summary(c, reason) for c in results.comparisons},
        differences={d.name: difference_summary(d, gate.passed) for d in results.differences},
        decisions={f"{arm}/{group}": DecisionSummary(**d.as_dict()) for (arm, group), d in results.decisions.items()},
        trial_files=results.trial_files,
        **provenance(),
    )


def comparison_summary(result: ComparisonResult, reason: str | None) -> ComparisonSummary:
    """One comparison; without figures where there is a reason not to test it, the counts always."""
    figures = comparison_figures(result, shown=reason is None)
    return ComparisonSummary(
        testable=reason is None, reason=reason, **figures, outside=result.outside, unreadable=result.reasons
    )


def comparison_figures(result: ComparisonResult, *, shown: bool) -> dict[str, Any]:
    """Every measure of a comparison and its counts; only the counts are not None where figures are not `shown`."""
    found = {**result.agreement.as_dict(), "r_log_odds": result.r_log_odds}
    return {name: value if shown or name in COUNTS else None for name, value in found.items()}


def difference_summary(result: Difference, testable: bool) -> DifferenceSummary:
    """One difference; without figures where the gate was not passed."""
    figures = {name: value if testable else None for name, value in result.found.as_dict().items()}
    return DifferenceSummary(before=result.before, after=result.after, testable=testable, **figures)


def weights_table(results: RunResults) -> pd.DataFrame:
    """One row an arm and context: posterior (raw, sd), rescaled, log-odds and target weights, Pareto k."""
    rows = []
    group_of = {name: group for group, members in results.groups.items() for name in members}
    for arm, measured in results.measured.items():
        for i, context in enumerate(measured.contexts):
            row: dict[str, Any] = {"arm": arm, "group": group_of[context], "context": context}
            for label, values in (
                ("raw", measured.posterior_mean[i]),
                ("sd", measured.posterior_sd[i]),
                ("weight", measured.weights[i]),
                ("log_odds", measured.log_odds[i]),
                ("target", results.targets.get(context, [None] * measured.weights.shape[1])),
            ):
                row |= {f"{label}_{k + 1}": value for k, value in enumerate(values)}
            rows.append({**row, "pareto_k": measured.pareto_k[i]})
    return pd.DataFrame(rows)


def agreement_table(findings: Findings, *, show_untestable: bool = False) -> pd.DataFrame:
    """One row a comparison with every measure; like `summary.json`, counts only where the gate was not passed.

    Args:
        findings: Of a run, or of released files.
        show_untestable: Fill in these figures, too; the column `testable` says which they are.
    """
    rows = []
    for c in findings.all_comparisons:
        testable = findings.testable(c)
        names = {"comparison": c.name, "reports": c.reports, "weights": c.weights, "contexts": c.contexts}
        figures = comparison_figures(c, shown=testable or show_untestable)
        rows.append({**names, "testable": testable, **figures, "outside": c.outside})
    return pd.DataFrame(rows)


def write_analysis(path: Path) -> RunResults:
    """Analyse a run and write all of it; the folder appears whole or not at all."""
    results = analyse(path)
    run = RunFolder(path)
    with output_folder(run.analysis, COMMAND, analysis_inputs(run, results.record)) as draft:
        write_summary(draft / "summary.json", summary(results))
        write_text(draft / "weights.csv", weights_table(results).to_csv(index=False))
        write_text(draft / "agreement.csv", agreement_table(results).to_csv(index=False))
        write_report(results, save_figures(results, draft / "figures"), draft / "report.html")
    return results


def main() -> None:
    """Command line: `--run FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder, e.g. runs/demo-seed0")
    results = write_analysis(parser.parse_args().run)
    gate = results.gate
    passed = "passed" if gate.passed else "not passed"
    say(f"gate: {passed}; agreement {number(gate.agreement)}, r(learned, target) {number(gate.r)}")
    for result in results.comparisons:
        a = result.agreement
        figure = f"r = {with_interval(a, signed=True)}" if gate.passed else NOT_TESTABLE
        readable = f"{part_of(a.valid_reports, a.total_reports)} reports readable"
        say(f"{result.name}: {figure}, {a.n_contexts} contexts, {readable}")


if __name__ == "__main__":
    run_command(main)
