"""The paper's figures from the files that its authors released, and how far to believe each.

    python -m analysis.released --data released --model gpt-4o-mini-2024-07-18 --out results/gpt-4o-mini
    python -m analysis.released --data trials --contexts released --weights released --model m --where flipped=0 --out m

Writes into a folder of its own: `report.html` (all of it on one page), `summary.json` (figures), `agreement.csv` (all
measures), `learned_weights.csv` and `native_weights.csv` (`context, raw_1.. sd_1.. weight_1..`: posterior means and
standard deviations, and the means rescaled to a largest of 100), `figures/` and `manifest.json`. An earlier result of
this command in that folder is replaced; anything else is left alone.

`r` is the paper's: mean of each context's readable reports, values as given, contexts without any left out. The
release holds readable reports only; `total_reports` is the paper's 10 reports a context, times the contexts of the
selections file: 1000 where there are 100 of them.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.pages.figures import save_figures
from analysis.pages.page import write_page
from analysis.pages.text import NOT_TESTABLE, counts, number, with_interval
from analysis.run import agreement_table, evidence_figures, evidence_tables, weights_table
from analysis.stats.records import nan_to_none
from analysis.study.comparisons import ComparisonResult
from analysis.study.output import check_replaceable, output_folder
from analysis.study.released_files import Elsewhere
from analysis.study.released_results import SEED, ReleasedResults, read_released
from analysis.study.subject import add_elsewhere, read_elsewhere
from store.console import run_command, say
from store.files import write_json, write_text

COMMAND = "analysis.released"

KEYS = ("r", "hdi_low", "hdi_high", "boot_low", "boot_high", "n_points", "n_contexts", "valid_reports", "total_reports")
"""What `summary.json` says of each comparison, beside what `run.evidence_figures` and `run.evidence_tables` give.

The other measures are in `agreement.csv`."""


def summary(results: ReleasedResults) -> dict[str, Any]:
    """The figures as JSON values: null for a comparison whose files are missing, and for what cannot be computed.

    Figures are given whether or not the gates were passed; `not_testable` says which are not to be believed, and why.
    """
    found = {name: c and _comparison(results, c) for name, c in results.found.items()}
    variants = {name: v.as_dict() for name, v in results.variants.items()}
    return {
        "model": results.name,
        **found,
        "instilled_standardised_first": variants.get("instilled", {}).get("standardised_first"),
        "printed_in_the_paper": results.printed or None,
        "not_testable": {name: reason for name, c in results.found.items() if c and (reason := results.untestable(c))},
        "gate": results.gate.as_dict(),
        "undetermined_contexts": {group: int((~arm.determined).sum()) for group, arm in results.measured.items()},
        "without_noise": {name: c.as_dict() for name, c in results.corrected.items()},
        "variants": variants,
        "missing_reports": [t.as_dict() for t in results.missing],
        "differences": {f"{after}-{before}": d.as_dict() for (after, before), d in results.changes.items()},
        "notes": results.notes,
        "seed": SEED,
    }


def _comparison(results: ReleasedResults, c: ComparisonResult) -> dict[str, Any]:
    """The figures of one comparison; that of learned with target weights has nothing that speaks of reports."""
    found = {key: c.agreement.as_dict()[key] for key in KEYS}
    if c is results.learned_vs_target:
        return {**found, "r_given_target": None}
    ccc = nan_to_none(c.agreement.ccc)
    figures = evidence_figures(results, c, show_untestable=True)
    return {**found, **figures, "ccc": ccc, **evidence_tables(results, c, show_untestable=True)}


def measures_table(results: ReleasedResults) -> pd.DataFrame:
    """One row a comparison that could be made, with figures whether or not it is `testable`; like `summary.json`."""
    table = agreement_table(results, show_untestable=True).drop(columns="r_log_odds")
    table["printed"] = [results.printed.get(name) for name in table["comparison"]]
    return table[table["comparison"].isin([*results.corrected])]


def write_released(folder: Path, name: str, out: Path, elsewhere: Elsewhere | None = None) -> ReleasedResults:
    """Analyse one model's files and write all of it to `out`; the folder appears whole or not at all.

    Raises:
        InputError: No such model, files of another form, trials of several conditions, or an `out` that this command
            did not make.
    """
    out = out.resolve()
    check_replaceable(out, COMMAND)
    results = read_released(folder, name, elsewhere)
    chosen = {"where": dict(elsewhere.where)} if elsewhere and elsewhere.where else {}
    inputs = {"model": results.name, "seed": SEED, **chosen, "inputs": results.hashes}
    with output_folder(out, COMMAND, inputs) as draft:
        figures = save_figures(results, draft / "figures")
        write_page("released.html.j2", results, figures, draft / "report.html")
        write_json(draft / "summary.json", summary(results))
        write_text(draft / "agreement.csv", measures_table(results).to_csv(index=False))
        for group, file in (("instilled", "learned_weights.csv"), ("native", "native_weights.csv")):
            if group in results.measured:
                write_text(draft / file, weights_table(results.measured[group]).to_csv(index=False))
    return results


def _by_fold(results: ReleasedResults, name: str) -> str:
    """Of reports pooled from several models: r with each fold standardised by itself."""
    if name not in results.variants or math.isnan(r := results.variants[name].standardised_by_fold):
        return ""
    return f", {number(r)} standardised by fold"


def main() -> None:
    """Command line: `--data FOLDER --model NAME --out FOLDER`, and `--contexts`, `--weights` and `--where`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the released files")
    parser.add_argument("--model", required=True, help="name of the model, or the beginning of just one name")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; replaced if this command made it")
    add_elsewhere(parser)
    arguments = parser.parse_args()
    results = write_released(arguments.data, arguments.model, arguments.out, read_elsewhere(arguments))
    for note in results.notes:
        say(f"note: {note}")
    for name, found in results.found.items():
        if found:
            printed = f", in the paper {number(results.printed[name])}" if results.printed else ""
            reason = results.untestable(found)
            if reason is None:
                r = f"r = {with_interval(found.agreement)}{printed}{_by_fold(results, name)}"
                say(f"{name}: {r}; {counts(found.agreement)}")
            else:
                why = reason if results.gate.passed else "the gate was not passed"
                say(f"{name}: {NOT_TESTABLE} ({why}); {counts(found.agreement)}")
    say(f"page: {arguments.out / 'report.html'}")


if __name__ == "__main__":
    run_command(main)
