"""Analyse a run: weights, agreement, the gate, figures and a report on one page.

    python -m analysis.run --run runs/simulated-seed0

Writes `analysis/summary.json`, `weights.csv`, `agreement.csv`, `figures/` and `report.html` into the run's folder, in
place of what an earlier analysis left there: they are a function of the trial files alone.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.pages.figures import save_figures
from analysis.pages.report import write_report
from analysis.study.comparisons import ComparisonResult, Difference
from analysis.study.results import RunResults, analyse
from store.files import write_json, write_text
from store.provenance import provenance
from store.console import run_command

COUNTS = ("n_points", "n_contexts", "valid_reports", "total_reports")
"""What is said of a comparison whether or not the gate was passed."""


def summary(results: RunResults) -> dict[str, Any]:
    """The figures of a run as JSON values; those of a run that did not pass the gate are null, with the reason."""
    gate = results.gate
    return {
        "run": results.record["name"],
        "seed": results.record["seed"],
        "gate": {"passed": gate.passed, "agreement": gate.agreement, "share_a": gate.share_a, "reasons": gate.reasons},
        "stopped_early": results.stopped_early,
        "learned_vs_target": results.learned_vs_target.agreement.as_dict(),
        **{c.name: comparison_summary(c, gate.passed) for c in results.comparisons},
        "differences": {d.name: difference_summary(d, gate.passed) for d in results.differences},
        "decisions": {f"{arm}/{group}": d.as_dict() for (arm, group), d in results.decisions.items()},
        "trial_files": {
            folder: manifest["key"] for folder, manifest in results.manifests.items() if folder.startswith("trials")
        },
        **provenance(),
    }


def comparison_summary(result: ComparisonResult, testable: bool) -> dict[str, Any]:
    """One comparison for `summary.json`: without figures where the gate was not passed, the counts always."""
    figures = comparison_figures(result, shown=testable)
    return {"testable": testable, **figures, "outside": result.outside, "unreadable": result.reasons}


def comparison_figures(result: ComparisonResult, *, shown: bool) -> dict[str, Any]:
    """Every measure of a comparison and its counts; only the counts are not None where figures are not `shown`."""
    found = {**result.agreement.as_dict(), "r_log_odds": result.r_log_odds}
    return {name: value if shown or name in COUNTS else None for name, value in found.items()}


def difference_summary(result: Difference, testable: bool) -> dict[str, Any]:
    """One difference for `summary.json`; without figures where the gate was not passed."""
    figures = {name: value if testable else None for name, value in result.found.as_dict().items()}
    return {"before": result.before, "after": result.after, "testable": testable, **figures}


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


def agreement_table(results: RunResults, *, show_untestable: bool = False) -> pd.DataFrame:
    """One row a comparison with every measure; like `summary.json`, counts only where the gate was not passed.

    Args:
        results: Of a run.
        show_untestable: Fill in these figures, too; the column `testable` says which they are.
    """
    rows = []
    for c in (results.learned_vs_target, *results.comparisons):
        testable = results.gate.passed or c is results.learned_vs_target
        names = {"comparison": c.name, "reports": c.reports, "weights": c.weights, "contexts": c.contexts}
        figures = comparison_figures(c, shown=testable or show_untestable)
        rows.append({**names, "testable": testable, **figures, "outside": c.outside})
    return pd.DataFrame(rows)


def write_analysis(run: Path) -> RunResults:
    """Analyse a run and write all of it; the folder appears whole or not at all."""
    results = analyse(run)
    draft, final = run / ".analysis.tmp", run / "analysis"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    write_json(draft / "summary.json", summary(results))
    write_text(draft / "weights.csv", weights_table(results).to_csv(index=False))
    write_text(draft / "agreement.csv", agreement_table(results).to_csv(index=False))
    figures = save_figures(results, draft / "figures")
    write_report(results, figures, draft / "report.html")
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)
    return results


def main() -> None:
    """Command line: `--run FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder, e.g. runs/demo-seed0")
    run = parser.parse_args().run
    results = write_analysis(run)
    gate = results.gate
    passed = "passed" if gate.passed else "not passed"
    print(f"gate: {passed}; agreement {gate.agreement:.2f}, r(learned, target) {gate.r:.2f}")
    for result in results.comparisons:
        a = result.agreement
        figure = f"r = {a.r:+.2f} [{a.boot_low:+.2f}, {a.boot_high:+.2f}]" if gate.passed else "not testable"
        print(f"{result.name}: {figure}, {a.n_contexts} contexts, {a.valid_reports}/{a.total_reports} reports readable")


if __name__ == "__main__":
    run_command(main)
