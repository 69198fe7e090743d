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
from analysis.pages.inside import save_inside_figures
from analysis.pages.report import write_report
from analysis.pages.series import save_series
from analysis.pages.text import NOT_TESTABLE, counts, with_ends, with_interval
from analysis.stats.records import nan_to_none
from analysis.study.ablation import ablations_of
from analysis.study.comparisons import ComparisonResult, Difference, MeasuredWeights
from analysis.study.depth import depths_of
from analysis.study.inside import inside_of
from analysis.study.output import output_folder
from analysis.study.results import Findings, RunResults, analyse
from analysis.study.trajectory import trajectories_of
from store.console import run_command, say
from store.files import write_text
from store.locks import held
from store.provenance import provenance
from store.run import RunFolder, read_run
from store.state_inputs import analysis_inputs
from store.summary import (
    AgreementSummary,
    ComparisonSummary,
    DecisionSummary,
    DifferenceSummary,
    GateSummary,
    RunSummary,
    TreatmentSummary,
    write_summary,
)

COMMAND = "analysis.run"

COUNTS = ("n_points", "n_contexts", "valid_reports", "total_reports")
"""What is said of a comparison whether or not it is testable."""


def summary(results: RunResults) -> RunSummary:
    """The figures of a run; those that are not testable are withheld, with the reason."""
    gates = {f"{arm}/{group}": GateSummary(**gate.as_dict()) for (arm, group), gate in results.instillations.items()}
    return RunSummary(
        run=results.name,
        seed=results.seed,
        wording=results.record.wording,
        estimator=results.record.estimator,
        gate=GateSummary(**results.gate.as_dict()),
        instillations=gates,
        stopped_early=results.stopped_early,
        learned_vs_target=AgreementSummary(**comparison_figures(results, results.learned_vs_target)),
        comparisons={
            c.name: ComparisonSummary(
                unreadable=c.reasons,
                free_unreadable=c.free_reasons,
                **comparison_figures(results, c),
                **report_counts(c),
                **evidence_figures(results, c),
                **evidence_tables(results, c),
                p_equivalence=results.smallness.get(c.name) if results.testable(c) else None,
            )
            for c in results.comparisons
        },
        differences={d.name: _difference(results, d) for d in results.differences},
        families={family: {**members} for family, members in results.families.items()},
        smallest_effect=results.record.smallest_effect,
        missing_reports=[
            TreatmentSummary(**t.as_dict()) for t in results.missing if t.reports in {c.name for c in results.shown}
        ],
        decisions={
            f"{arm}/{group}": DecisionSummary(
                passed=results.answers[arm, group].passed, reasons=results.answers[arm, group].reasons, **d.as_dict()
            )
            for (arm, group), d in results.decisions.items()
        },
        trial_files=results.trial_files,
        trajectories=trajectories_of(results),
        ablations=ablations_of(results),
        depths=depths_of(results),
        inside=inside_of(results),
        **provenance(),
    )


def _difference(results: RunResults, difference: Difference) -> DifferenceSummary:
    reason = results.untestable_difference(difference)
    found: dict[str, Any] = {}
    if not reason:
        found = {**difference.found.as_dict(), "p_equivalence": results.smallness.get(difference.name)}
    change, no_changes = results.changes[difference.name], results.untestable_change(difference)
    if not no_changes:
        found |= {"r_of_changes": change.r, "changes_contexts": change.n_contexts}
        found |= {"r_of_changes_low": change.boot_low, "r_of_changes_high": change.boot_high}
        found |= {"r_of_weights": change.r_of_weights}
        found |= {"r_of_weights_low": change.r_of_weights_low, "r_of_weights_high": change.r_of_weights_high}
    return DifferenceSummary(
        before=difference.before,
        after=difference.after,
        testable=not reason,
        reason=reason,
        no_changes=no_changes,
        **found,
    )


def comparison_figures(
    findings: Findings, result: ComparisonResult, *, show_untestable: bool = False
) -> dict[str, Any]:
    """Every measure of a comparison, and whether it is testable; only counts are not None where it is not."""
    reason, noise = findings.untestable(result), findings.noise_of(result)
    found = {**result.agreement.as_dict(), "r_log_odds": result.r_log_odds}
    found |= {
        "corrected_r": noise and noise.r,
        "corrected_low": noise and noise.boot_low,
        "corrected_high": noise and noise.boot_high,
        "reliability_reports": noise.reliability_x if noise and result.reported_by else None,
        "reliability_weights": noise and noise.reliability_y,
    }
    figures = {n: value if show_untestable or not reason or n in COUNTS else None for n, value in found.items()}
    return {"testable": not reason, "reason": reason, **figures, "undetermined": result.undetermined}


def evidence_figures(findings: Findings, result: ComparisonResult, *, show_untestable: bool = False) -> dict[str, Any]:
    """What stands beside r, see `Evidence`; only counts and reasons are not None where it is not testable."""
    found, shown = findings.evidence[result.name], show_untestable or findings.testable(result)
    figures = {**found.whose.as_dict(), **found.beyond.as_dict(), "r_within_folds": nan_to_none(found.r_within_folds)}
    kept = {name: value if shown or name == "given_target_contexts" else None for name, value in figures.items()}
    return {**kept, "no_target": found.no_target}


def evidence_tables(findings: Findings, result: ComparisonResult, *, show_untestable: bool = False) -> dict[str, Any]:
    """The figures of folds and predictions, see `Evidence`; none where it is not testable."""
    found, shown = findings.evidence[result.name], show_untestable or findings.testable(result)
    return {
        "folds": {name: fold.as_dict() for name, fold in found.folds.items() if shown},
        "predictions": {name: prediction.as_dict() for name, prediction in found.predictions.items() if shown},
    }


def report_counts(result: ComparisonResult) -> dict[str, Any]:
    """What is behind the reports of a comparison besides those that could be read."""
    return {
        "outside": result.outside,
        "constrained": result.constrained,
        "opening": result.opening,
        "free_readable": result.free_readable,
        "free_total": result.free_total,
    }


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
    """One row a comparison with every measure; like `summary.json`, counts and a reason where it is not testable.

    With `show_untestable` these figures are filled in, too; the column `testable` says which they are. `r_log_odds` is
    there only where weights are not estimated by log odds anyway.
    """
    rows = []
    for c in findings.all_comparisons:
        names = {"comparison": c.name, "reports": c.reports, "weights": c.weights, "contexts": c.contexts}
        figures = comparison_figures(findings, c, show_untestable=show_untestable)
        if c is not findings.learned_vs_target:
            figures |= evidence_figures(findings, c, show_untestable=show_untestable)
        rows.append({**names, **figures, **report_counts(c)})
    table = pd.DataFrame(rows)
    return table.drop(columns="r_log_odds") if findings.estimator == "log_odds" else table


def write_analysis(path: Path) -> RunResults:
    """Analyse a run and write all of it; the folder appears whole or not at all."""
    run = RunFolder(path)
    read_run(path)  # where there is no run, nothing is written
    with held(run.analysis):
        results = analyse(path)
        with output_folder(run.analysis, COMMAND, analysis_inputs(run, results.record)) as draft:
            told = summary(results)
            write_summary(draft / "summary.json", told)
            write_text(draft / "weights.csv", run_weights(results).to_csv(index=False))
            write_text(draft / "agreement.csv", agreement_table(results).to_csv(index=False))
            figures = save_figures(results, draft / "figures") + save_series(told, draft / "figures")
            if told.inside:
                figures += save_inside_figures(told.inside, draft / "figures")
            write_report(results, told, figures, draft / "report.html")
    return results


def main() -> None:
    """Command line: `--run FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, help="run folder, e.g. runs/demo-seed0")
    results = write_analysis(parser.parse_args().run)
    gate = results.gate
    passed = "passed" if gate.passed else f"not passed, {'; '.join(gate.reasons)}"
    agreement, r = (
        with_ends(gate.agreement, gate.agreement_low, gate.agreement_high),
        with_ends(gate.r, gate.r_low, gate.r_high),
    )
    say(f"gate: {passed}; agreement {agreement}, r(learned, target) {r}")
    for result in results.comparisons:
        reason = results.untestable(result) if gate.passed else "the gate was not passed"
        figure = f"{NOT_TESTABLE} ({reason})" if reason else f"r = {with_interval(result.agreement, signed=True)}"
        say(f"{result.name}: {figure}, {counts(result.agreement)}")


if __name__ == "__main__":
    run_command(main)
