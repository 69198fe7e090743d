"""How few decisions measure weights as well as the replication does: simulated studies, and the model organism.

    python scripts/calibration/economical.py --runs runs/organism-seed0 runs/organism-seed1 runs/organism-seed2

Writes power.csv, power.png and power.pdf (the table of `analysis.power`: estimators, pairs and reports, with the truth
planted) and organism.csv (random pairs of real decisions of an instilled arm) into results/economical, in some
minutes of one core. README.md of the folder is written by hand.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd

from analysis.pages.power_figure import save_power_figure
from analysis.power import POOL, power_table
from analysis.stats.agreement import pearson
from analysis.stats.estimators import log_odds_weights
from analysis.stats.power import Design, Settings
from analysis.stats.reliability import weights_of_some
from analysis.study.output import output_folder
from store.console import run_command, say
from store.contexts import load_contexts
from store.files import write_text
from store.run import RunFolder, read_run
from store.trials import read_decisions
from store.weights import load_weights
from task.prompts import DEFAULT
from task.seeding import stream
from task.weights import Estimator, rescale

CONTEXTS, ACCURACY, EFFECT, STUDIES = (25, 50, 100), 0.5, 0.1, 1000
"""Studies up to the replication's size; reports as accurate as the paper's, and the smallest gain of interest."""

PAIRS, REPORTS, FOLLOWS = (15, 20, 50, 100), (5, 10), (0.82, 0.95)
"""Decisions follow the weights as GPT-4o's do, or as the organism's."""

DRAWS = 40
"""Times that pairs are drawn from the organism's decisions."""


def simulated(seed: int, workers: int) -> pd.DataFrame:
    """Precision and power of every design."""
    grid = product(FOLLOWS, get_args(Estimator), REPORTS, PAIRS, CONTEXTS)
    designs = [Design(n, pairs, follows, ACCURACY, by, reports) for follows, by, reports, pairs, n in grid]
    return power_table(designs, [EFFECT], POOL, Settings(STUDIES, seed), workers)


def measured(path: Path, seed: int) -> Iterator[dict[str, float | str]]:
    """r of an instilled arm's learned weights with those that it was taught, from some of its pairs."""
    run, record = RunFolder(path), read_run(path)
    members = {c.name: c for c in load_contexts(run.contexts_file(record.gate.contexts))}
    every = {c.name: c for group in record.groups for c in load_contexts(run.contexts_file(group))}
    trials = read_decisions(run.trials_of(record.gate.arm, "decisions", DEFAULT["decisions"]), every)
    rows = [i for i, name in enumerate(trials.contexts) if name in members and trials.shown[i].all()]
    taught = load_weights(run.target_weights)
    target = np.stack([taught[trials.contexts[i]] for i in rows])
    chose_a, preference, difference = trials.chose_a[rows, :, 0], trials.preference[rows], trials.difference[rows]
    for pairs in (p for p in PAIRS if p <= difference.shape[1]):
        found: dict[str, list[float]] = {"logistic": [], "log_odds": []}
        rng = stream(seed, f"economical/{record.name}/{pairs}")
        for _ in range(DRAWS):
            drawn = rng.permutation(difference.shape[1])[:pairs]
            some = difference[:, drawn]
            found["logistic"].append(pearson(weights_of_some(chose_a[:, drawn], some, seed), target))
            found["log_odds"].append(pearson(rescale(log_odds_weights(preference[:, drawn], some)), target))
        for estimator, rs in found.items():
            yield {
                "run": record.name,
                "estimator": estimator,
                "pairs": pairs,
                "r": float(np.mean(rs)),
                "sd": float(np.std(rs)),
            }


def main() -> None:
    """Command line: `--runs FOLDER ...`, `--out FOLDER`, `--seed N`, `--workers N`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="runs of the model organism")
    parser.add_argument("--out", type=Path, default=Path("results/economical"), help="folder of the results")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    parser.add_argument("--workers", type=int, default=1, help="processes; changes nothing about the results")
    options = parser.parse_args()
    asked = {"seed": options.seed, "runs": [read_run(path).name for path in options.runs]}
    with output_folder(options.out, "scripts.calibration.economical", asked) as draft:
        real = pd.DataFrame(row for path in options.runs for row in measured(path, options.seed))
        write_text(draft / "organism.csv", real.to_csv(index=False, float_format="%.4f"))
        table = simulated(options.seed, options.workers)
        write_text(draft / "power.csv", table.to_csv(index=False, float_format="%.4f"))
        save_power_figure(table, draft / "power.png")
        if (page := options.out / "README.md").is_file():
            shutil.copy(page, draft)
    keys = [*Design.__dataclass_fields__, "asked"]
    say(table[[*keys, "recovery", "mean_r", "sd_r", "power_difference"]].to_string(index=False))
    say(real.to_string(index=False))


if __name__ == "__main__":
    run_command(main)
