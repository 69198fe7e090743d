"""The input-only baseline: can the weights be guessed from the text of the attributes, without any model?

    python -m analysis.baseline --run runs/simulated-seed0
    python -m analysis.baseline --data released --model gpt-4o-mini-2024-07-18 --out results/gpt-4o-mini-baseline

Where they can, a report that agrees with the weights may have been read off the names. Target weights are drawn at
random, so they must be at chance; native weights need not be. How it is done, and what chance is, says
`analysis.stats.guessing`.

Writes `baseline/summary.json`, `baseline.csv` and `predictions.csv` into the run's folder (or --out), in place of what
an earlier call left there.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.pages.text import NOT_TESTABLE, interval, number
from analysis.stats.guessing import FEWEST, PENALTIES, PERMUTATIONS, Baseline, baseline
from analysis.study.comparisons import points_table
from analysis.study.output import output_folder
from analysis.study.results import Findings
from analysis.study.subject import add_subject, read_subject
from store.console import run_command, say
from store.files import write_json, write_text
from store.provenance import provenance
from task.contexts import ChoiceContext

COMMAND, FOLDER = "analysis.baseline", "baseline"

Array = NDArray[np.float64]
Sources = list[tuple[str, str, list[ChoiceContext], Array]]
"""Sets of weights: whose they are, the group of contexts, its contexts, and the weights (contexts, attributes)."""


def weights_of(findings: Findings) -> Sources:
    """Target weights, and the weights of every arm, by group of contexts on which it passes its answer gate."""
    tables = {"target": findings.targets}
    for arm, measured in findings.measured.items():
        tables[arm] = dict(zip(measured.contexts, measured.weights, strict=True))
    found = []
    for label, table in tables.items():
        for group, members in findings.groups.items():
            known = [findings.contexts[name] for name in members if name in table]
            if known and not findings.undecided(label, group):
                found.append((label, group, known, np.stack([table[c.name] for c in known])))
    return found


def withheld(findings: Findings) -> dict[str, str]:
    """Why there are no weights of an arm on a group of contexts, by `arm/group`."""
    reasons = {f"{arm}/{group}": findings.undecided(arm, group) for arm, group in findings.decisions}
    return {name: f"{NOT_TESTABLE}, {reason}" for name, reason in reasons.items() if reason}


def write_baseline(
    out: Path, sources: Sources, inputs: Mapping[str, Any], seed: int, reasons: Mapping[str, str]
) -> list[Baseline]:
    """Fit every set of weights and write `summary.json`, `baseline.csv` and `predictions.csv`.

    `reasons` tell of weights that are not there why not, see `withheld`.
    """
    settings = {"permutations": PERMUTATIONS, "penalties": PENALTIES.tolist()}
    with output_folder(out, COMMAND, {**inputs, **settings}) as draft:
        fits = [baseline(*source, seed=seed) for source in sources]
        found = [fit for fit, _ in fits]
        tables = [
            points_table(contexts, predicted=predicted, weight=weights)
            .dropna()
            .assign(weights=fit.weights, contexts=fit.contexts)
            for (fit, predicted), (_, _, contexts, weights) in zip(fits, sources, strict=True)
        ]
        write_text(draft / "baseline.csv", pd.DataFrame([f.as_dict() for f in found]).to_csv(index=False))
        write_text(draft / "predictions.csv", pd.concat(tables).to_csv(index=False))
        by_name = {f"{f.weights}/{f.contexts}": f.as_dict() for f in found}
        found_and_not = {"baselines": by_name, "not_testable": {**reasons}}
        write_json(draft / "summary.json", {**inputs, **settings, **found_and_not, **provenance()})
    return found


def _line(found: Baseline) -> str:
    where = f"{found.weights} weights of {found.contexts} contexts"
    if math.isnan(found.r):
        return f"{where}: not fitted, {found.n_contexts} contexts (needed: {FEWEST}), {found.n_features} shared tokens"
    ends = interval(found.null_low, found.null_high, signed=True)
    r, chance = (number(value, signed=True) for value in (found.r, found.null_mean))
    p = number(found.p_permutation, 3)
    return f"{where}: r = {r}, by chance {chance} {ends}, p = {p}, {found.n_contexts} contexts"


def main() -> None:
    """Command line: `--run FOLDER`, or `--data FOLDER --model NAME --out FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_subject(parser, FOLDER)
    results, out = read_subject(parser.parse_args(), FOLDER, COMMAND)
    reasons = withheld(results)
    for found in write_baseline(out, weights_of(results), results.inputs, results.seed, reasons):
        say(_line(found))
    for name, reason in reasons.items():
        say(f"{name}: {reason}")
    say(str(out / "summary.json"))


if __name__ == "__main__":
    run_command(main)
