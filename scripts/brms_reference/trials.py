"""The file of trials that fit.R reads: a row a trial, with context, choice (1 for A), x1, x2, ... = (A - B) / range."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from analysis.study.released_files import Decisions


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
