"""Write the simulated trials on which our posterior and that of brms are compared.

python scripts/brms_reference/simulate.py tests/analysis/stats/fixtures/brms_reference.csv

A row a trial: context, choice (1 for A), x1 ... x5 (the last ones empty with fewer attributes).
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from analysis.study.released_files import Decisions
from scripts.brms_reference.trials import trials_table
from task.seeding import stream

TRIALS = (10, 25, 50, 100, 200)
ATTRIBUTES = (2, 3, 5)
KINDS = ("noisy", "noiseless", "leaning", "always_a", "all_but_one_a", "correlated")


def differences(rng: np.random.Generator, kind: str, trials: int, attributes: int) -> NDArray[np.float64]:
    """(A - B) / range to 4 decimals, shape (trials, attributes); those of `correlated` correlate at .9."""
    x = rng.random((trials, attributes)) - rng.random((trials, attributes))
    if kind == "correlated":
        common = rng.random((trials, 1)) - rng.random((trials, 1))
        x = 0.75 * common + 0.25 * x
    return x.round(4)


def choices(rng: np.random.Generator, kind: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 for A, 0 for B, shape (trials,), by a chooser of the given kind with weights drawn from N(0, 4)."""
    utility = x @ rng.normal(scale=2.0, size=x.shape[1])
    match kind:
        case "always_a":
            chosen = np.ones(len(x), dtype=bool)
        case "all_but_one_a":
            chosen = np.arange(len(x)) > 0
        case "noiseless":
            chosen = utility > 0
        case _:
            chosen = rng.random(len(x)) < expit(utility + (3.0 if kind == "leaning" else 0.0))
    return chosen.astype(float)


def simulate() -> pd.DataFrame:
    """Every kind of chooser with every number of trials and of attributes, one context each."""
    tables = []
    for kind, trials, attributes in product(KINDS, TRIALS, ATTRIBUTES):
        name = f"{kind}_{trials}x{attributes}"
        rng = stream(0, "brms_reference", name)
        x = differences(rng, kind, trials, attributes)
        tables.append(trials_table(Decisions([name], choices(rng, kind, x)[None], x[None])))
    return pd.concat(tables)


def main() -> None:
    """Write the file that the command line names."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    table = simulate()
    table.to_csv(Path(sys.argv[1]), index=False)
    print(f"{len(table)} trials in {table['context'].nunique()} contexts: {sys.argv[1]}")


if __name__ == "__main__":
    main()
