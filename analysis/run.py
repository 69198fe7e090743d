"""Analyse a run: weights, agreement, the gate, figures and a report on one page.

    python -m analysis.run --run runs/simulated-seed0

Writes `analysis/summary.json`, `weights.csv`, `agreement.csv`, `figures/`, `report.html` and `manifest.json` into the
run's folder, in place of what an earlier analysis left there.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.pages.figures import save_figures
from analysis.pages.report import write_report
from analysis.pages.text import NOT_TESTABLE, counts, number, with_interval
from analysis.study.comparisons import ComparisonResult, MeasuredWeights
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
    gate, passed = results.gate, results.gate.passed
    reason = None if passed else f"the gate was not passed: {'; '.join(gate.reasons)}"
    return RunSummary(
        run=results.name,
        seed=results.seed,
        gate=GateSummary(passed=passed, agreement=gate.agreement, share_a=gate.share_a, reasons=gate.reasons),
        stopped_early=results.stopped_early,
        learned_vs_target=AgreementSummary(**results.learned_vs_target.agreement.as_dict()),
        comparisons={
            c.name: ComparisonSummary(
                testable=passed, reason=reason, unreadable=c.reasons, **comparison_figures(c, shown=passed)
            )
            for c in results.comparisons
        },
        differences={
            d.name: DifferenceSummary(
                before=d.before, after=d.after, testable=passed, **(d.found.as_dict() if passed else {})
            )
            for d in results.differences
        },
        decisions={f"{arm}/{group}": DecisionSummary(**d.as_dict()) for (arm, group), d in results.decisions.items()},
        trial_files=results.trial_files,
        **provenance(),
    )


def comparison_figures(result: ComparisonResult, *, shown: bool) -> dict[str, Any]:
    """Every measure of a comparison and its counts; only the counts are not None where figures are not `shown`."""
    found = {**result.agreement.as_dict(), "r_log_odds": result.r_log_odds}
    figures = {name: value if shown or name in COUNTS else None for name, value in found.items()}
    return {**figures, "outside": result.outside}


def weights_table(arm: MeasuredWeights, **more: Mapping[str, NDArray[np.float64]]) -> pd.DataFrame:
    """One row a context: posterior means (raw) and sd, rescaled weights, and `more` values by context."""
    columns = {"raw": arm.posterior_mean, "sd": arm.posterior_sd, "weight": arm.weights}
    width = arm.weights.shape[1]
    for label, values in more.items():
        columns[label] = np.array([values.get(name, np.full(width, np.nan)) for name in arm.contexts])
    table = {f"{label}_{k + 1}": values[:, k] for label, values in columns.items() for k in range(width)}
    return pd.DataFrame({"context": arm.contexts, **table})


def run_weights(results: RunResults) -> pd.DataFrame:
    """The weights of every arm: whose and of which group, as in `weights_table`, log-odds, target, Pareto k."""
    group_of = {name: group for group, members in results.groups.items() for name in members}
    tables = []
    for name, arm in results.measured.items():
        log_odds = dict(zip(arm.contexts, arm.log_odds, strict=True))
        table = weights_table(arm, log_odds=log_odds, target=results.targets).assign(pareto_k=arm.pareto_k)
        table.insert(0, "group", [group_of[context] for context in arm.contexts])
        table.insert(0, "arm", name)
        tables.append(table)
    return pd.concat(tables)


def agreement_table(findings: Findings, *, show_untestable: bool = False) -> pd.DataFrame:
    """One row a comparison with every measure; like `summary.json`, counts only where the gate was not passed.

    With `show_untestable` these figures are filled in, too; the column `testable` says which they are.
    """
    rows = []
    for c in findings.all_comparisons:
        testable = findings.testable(c)
        names = {"comparison": c.name, "reports": c.reports, "weights": c.weights, "contexts": c.contexts}
        rows.append({**names, "testable": testable, **comparison_figures(c, shown=testable or show_untestable)})
    return pd.DataFrame(rows)


def write_analysis(path: Path) -> RunResults:
    """Analyse a run and write all of it; the folder appears whole or not at all."""
    results = analyse(path)
    run = RunFolder(path)
    with output_folder(run.analysis, COMMAND, analysis_inputs(run, results.record)) as draft:
        write_summary(draft / "summary.json", summary(results))
        write_text(draft / "weights.csv", run_weights(results).to_csv(index=False))
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
        figure = f"r = {with_interval(result.agreement, signed=True)}" if gate.passed else NOT_TESTABLE
        say(f"{result.name}: {figure}, {counts(result.agreement)}")


if __name__ == "__main__":
    run_command(main)
