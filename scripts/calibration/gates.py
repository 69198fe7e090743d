"""Where the limits of the answer gate lie: what decisions are worth by their flips, their gaps and their rarer letter.

    python scripts/calibration/gates.py          # into results/gates, about a minute on one thread

Contexts with true weights are decided by a chooser whose log odds of A are

    sharpness x utility difference + position bias + noise,

each pair in both orders, and the paper's estimator learns weights from the first order, as in a run. The table has a
row a situation, in five parts: `noise` and `position bias` (flips, and how well weights are recovered), `gaps`
(decisions that are not made), `rarer letter` (one context by how often its rarer letter was given) and `contexts` (what
an interval from resampling covers with few of them). Writes gates.csv and manifest.json. README.md of the folder, which
says how the limits follow, is written by hand and kept: hold it against new figures.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.stats.agreement import bootstrap_r, pearson
from analysis.stats.estimators import logistic_posterior
from analysis.stats.simulation import (
    ATTRIBUTES,
    POOL_DRAWS,
    Reporter,
    average_reports,
    beliefs,
    draw_contexts,
    make_pool,
    population_r,
    sample_true_weights,
    stable_error,
)
from analysis.study.output import output_folder
from store.console import run_command, say
from store.files import write_text
from task.seeding import stream
from task.thresholds import RARER_LETTER
from task.weights import LARGEST, rescale

Array = NDArray[np.float64]

CONTEXTS, PAIRS = 600, 50
"""Of each situation; r then errs by about .01."""

STUDIES = 400
"""Simulated studies of each number of contexts: the share that covers then errs by about .01."""

SHARPNESS = 5.0
"""Log odds per unit of utility difference divided by 100, as in the simulated engine."""


@dataclass(frozen=True)
class Chooser:
    """True weights (contexts, attributes), differences (contexts, pairs, attributes), log odds (contexts, pairs, 2)."""

    true: Array
    difference: Array
    log_odds: Array

    @property
    def chose_a(self) -> Array:
        """1 where A was chosen, 0 where B; same shape as `log_odds`."""
        return (self.log_odds > 0).astype(float)

    @property
    def chose_first(self) -> Array:
        """1 where the pair's first option was chosen, in both orders."""
        return np.stack([self.chose_a[..., 0], 1 - self.chose_a[..., 1]], axis=-1)

    @property
    def follows(self) -> NDArray[np.bool_]:
        """Whether a decision goes to the option of higher utility."""
        return self.chose_first == (np.einsum("cpa,ca->cp", self.difference, self.true) > 0)[..., None]


def choose(rng: np.random.Generator, noise: float = 0.0, bias: float = 0.0, spread: float = 0.0) -> Chooser:
    """Decisions with noise of sd `noise` on each trial, and a bias to A of mean `bias` and sd `spread` by context."""
    true = sample_true_weights(CONTEXTS, rng)
    difference = rng.random((CONTEXTS, PAIRS, ATTRIBUTES)) - rng.random((CONTEXTS, PAIRS, ATTRIBUTES))
    signal = SHARPNESS * np.einsum("cpa,ca->cp", difference, true) / LARGEST
    biases = bias + spread * rng.normal(size=(CONTEXTS, 1, 1))
    fresh = noise * rng.normal(size=(CONTEXTS, PAIRS, 2))
    return Chooser(true, difference, np.stack([signal, -signal], axis=-1) + biases + fresh)


def learned(chose_a: Array, difference: Array) -> Array:
    """The paper's weights, rescaled; NaN in a context without any decision."""
    return rescale(logistic_posterior(chose_a, difference, draws=POOL_DRAWS, intervals=False).mean)


def rarer(chose_a: Array) -> NDArray[np.int64]:
    """How often the rarer letter was given in each context, both orders together."""
    given = np.nansum(chose_a, axis=(1, 2))
    return np.minimum(given, (~np.isnan(chose_a)).sum(axis=(1, 2)) - given).astype(int)


def disturbed(seed: int) -> list[dict[str, object]]:
    """Flips that come from noise, and flips that come from a position bias."""
    rows: list[dict[str, object]] = []
    for part, values in (("noise", (0, 1, 2, 3, 4, 6, 9, 20)), ("position bias", (0, 1, 2, 3, 4, 6, 8, 10))):
        for value in values:
            rng = stream(seed, "gates", part)
            found = choose(rng, noise=value) if part == "noise" else choose(rng, bias=value, spread=value / 4)
            weights = learned(found.chose_a[..., 0], found.difference)
            kept = rarer(found.chose_a) >= RARER_LETTER
            rows.append(
                {
                    "part": part,
                    "value": value,
                    "flips": float((found.chose_first[..., 0] != found.chose_first[..., 1]).mean()),
                    "follows": float(found.follows.mean()),
                    "determined": float(kept.mean()),
                    "r": pearson(weights[kept], found.true[kept]),
                }
            )
    return rows


def gaps(seed: int) -> list[dict[str, object]]:
    """Decisions that are not made: by chance, and where they would have gone against the weights.

    r is that of weights from the decisions made with those that all decisions would have given: what a reader takes
    the one for the other loses.
    """
    rows: list[dict[str, object]] = []
    for part in ("gaps by chance", "gaps against the weights"):
        for missing in (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5):
            rng = stream(seed, "gates", "gaps")
            found = choose(rng, noise=1.0)
            gap = rng.random(found.log_odds.shape) < missing
            full = found.chose_a
            if part == "gaps against the weights":
                full = np.where(gap & found.follows, 1 - full, full)
            weights = learned(np.where(gap, np.nan, found.chose_a)[..., 0], found.difference)
            r = pearson(weights, learned(full[..., 0], found.difference))
            rows.append({"part": part, "value": missing, "r": r})
    return rows


def rare_letters(seed: int) -> list[dict[str, object]]:
    """r of learned with true weights over the contexts that gave their rarer letter so many times."""
    rng = stream(seed, "gates", "rarer letter")
    found = [choose(rng, noise=1.0, bias=bias, spread=1.0) for bias in (3, 4, 5, 6, 7)]
    counts = np.concatenate([rarer(chooser.chose_a) for chooser in found])
    weights = np.concatenate([learned(chooser.chose_a[..., 0], chooser.difference) for chooser in found])
    true = np.concatenate([chooser.true for chooser in found])
    ends = (0, 1, 2, 3, 4, 5, 7, 10, 20, 30, 51)
    rows: list[dict[str, object]] = []
    for low, high in itertools.pairwise(ends):
        kept = (counts >= low) & (counts < high)
        rows.append(
            {"part": "rarer letter", "value": low, "contexts": int(kept.sum()), "r": pearson(weights[kept], true[kept])}
        )
    return rows


def few_contexts(seed: int) -> list[dict[str, object]]:
    """Share of 95% intervals of r, contexts resampled, that hold the population's r, by the number of contexts."""
    pool, reporter = make_pool(1000, PAIRS, 0.82, seed), Reporter(accuracy=0.5)
    truth, spread = population_r(pool, reporter, seed), float(pool.true.std())
    rows: list[dict[str, object]] = []
    for contexts in (3, 5, 8, 12, 20, 48, 100):
        rng = stream(seed, "gates", f"contexts/{contexts}")
        held = width = 0.0
        for study in range(STUDIES):
            drawn = draw_contexts(pool, contexts, rng)
            error = stable_error(reporter, drawn.true.shape, rng)
            x = average_reports(reporter, beliefs(reporter, drawn.true, spread, error, rng), rng)
            low, high = bootstrap_r(x, drawn.learned, seed=study, resamples=500)
            held, width = held + (low <= truth <= high) / STUDIES, width + (high - low) / STUDIES
        rows.append({"part": "contexts", "value": contexts, "covers": held, "width": width})
    return rows


def main() -> None:
    """Command line: `--out FILE`, `--seed N`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/gates"), help="folder (default: results/gates)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    options = parser.parse_args()
    parts = (disturbed, gaps, rare_letters, few_contexts)
    with output_folder(options.out, "scripts.calibration.gates", {"seed": options.seed}) as draft:
        table = pd.DataFrame([row for part in parts for row in part(options.seed)]).round(4)
        write_text(draft / "gates.csv", table.to_csv(index=False))
        if (page := options.out / "README.md").is_file():
            shutil.copy(page, draft)
    say(table.to_string(index=False, na_rep=""))


if __name__ == "__main__":
    run_command(main)
