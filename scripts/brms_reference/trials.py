"""Trials for fit.R: simulated ones, on which our posterior and that of brms are compared, and those of the authors.

    python scripts/brms_reference/trials.py simulated tests/analysis/stats/fixtures/brms_reference.csv
    python scripts/brms_reference/trials.py ../shared/released /tmp/released_trials.csv

A row a trial: context, choice (1 for A), x1, x2, ... = (A - B) / range, the last ones empty with fewer attributes.
Keep the authors' trials outside of the repository.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from analysis.study.released_files import find_model, load_model
from task.seeding import stream

TRIALS = (10, 25, 50, 100, 200)
ATTRIBUTES = (2, 3, 5)
KINDS = ("noisy", "noiseless", "leaning", "always_a", "all_but_one_a", "correlated")


@dataclass(frozen=True)
class Decisions:
    """Decisions on one group of contexts.

    Attributes:
        contexts: Names, in file order.
        chose_a: 1 for A, 0 for B, NaN for no letter and as padding, shape (contexts, trials).
        difference: (A - B) / range, shape (contexts, trials, attributes); 0 where padded.
    """

    contexts: list[str]
    chose_a: NDArray[np.float64]
    difference: NDArray[np.float64]


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


def released_decisions(folder: Path) -> Decisions:
    """Decisions of the instilled model on the contexts that it was taught.

    Raises:
        InputError: A file of the release is missing or of another form (see `analysis.study.released_files`).
    """
    trials = load_model(folder, find_model(folder, "gpt-4o-mini")).decisions["instilled"]
    return Decisions(trials.contexts, trials.chose_a[..., 0], trials.difference)


def trials_table(decisions: Decisions) -> pd.DataFrame:
    """The rows of trials whose choice is known."""
    row, trial = np.nonzero(~np.isnan(decisions.chose_a))
    x = decisions.difference[row, trial]
    table = pd.DataFrame(x, columns=[f"x{i + 1}" for i in range(x.shape[1])])
    table.insert(0, "choice", decisions.chose_a[row, trial].astype(int))
    table.insert(0, "context", np.array(decisions.contexts)[row])
    return table


def read_trials(path: Path) -> list[Decisions]:
    """Read such a file: one group a number of attributes, since contexts with fewer leave the last columns empty."""
    table = pd.read_csv(path)
    x = table.filter(regex=r"^x\d+$").to_numpy()
    groups = []
    attributes = (~np.isnan(x)).sum(axis=1)
    for size in np.unique(attributes):
        rows = attributes == size
        context, names = pd.factorize(table["context"][rows])
        trial = pd.Series(context).groupby(context).cumcount().to_numpy()
        chose_a = np.full((len(names), trial.max() + 1), np.nan)
        difference = np.zeros((*chose_a.shape, size))
        chose_a[context, trial], difference[context, trial] = table["choice"][rows], x[rows, :size]
        groups.append(Decisions([str(name) for name in names], chose_a, difference))
    return groups


def main() -> None:
    """Write the file that the command line names."""
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    source, out = sys.argv[1:]
    table = simulate() if source == "simulated" else trials_table(released_decisions(Path(source)))
    table.to_csv(out, index=False)
    print(f"{len(table)} trials in {table['context'].nunique()} contexts: {out}")


if __name__ == "__main__":
    main()
