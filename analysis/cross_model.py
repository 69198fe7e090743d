"""The cross-model matrix: do reports tell more of the model that gives them than of others?

    python -m analysis.cross_model --runs runs/a-seed0 runs/b-seed1 --comparison instilled --out results/cross-model

M_ij = r(reports of i, weights of j), over runs with the same contexts. Privileged access means that a model knows its
own weights better than others know them, so two differences should be above 0 for model i:

- M_ii minus the mean over others j of M_ji: other models' reports, held against the weights of i;
- M_ii minus the mean over others j of r(W_j, W_i): others' weights, which anyone could read off their decisions.

Each comes with a 95% interval from resampling contexts, the same contexts for all correlations of a resample. A third
explanation remains: models that were taught the same weights know each other's, so instilled weights must be drawn with
another seed in every run; runs that share them are named.

Writes `matrix.csv` (M: a row for whose reports, a column for whose weights), `weights_matrix.csv`, `heatmap.png`,
`heatmap.pdf` and `summary.json`, in place of what an earlier call left there.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.pages.cross_model_figure import save_heatmap
from analysis.stats.agreement import RESAMPLES, pearson, percentile_interval, resampled_counts, resampled_r
from analysis.stats.records import Record
from analysis.study.output import check_replaceable, output_folder, run_inputs
from analysis.study.results import analyse
from store.contexts import load_contexts
from store.files import write_json, write_text
from store.provenance import provenance
from task.contexts import ChoiceContext
from store.console import run_command
from task.errors import InputError

COMMAND = "analysis.cross_model"

SEED = 0
"""Of the bootstrap."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """One run's side of a comparison.

    Attributes:
        name: Of the run.
        contexts: Of the comparison.
        reports: Mean reports, shape (contexts, attributes), NaN where there are none.
        weights: Weights from decisions, same shape.
        targets: Target weights of the run by context.
        inputs: What it was computed from.
    """

    name: str
    contexts: list[ChoiceContext]
    reports: Array
    weights: Array
    targets: dict[str, Array]
    inputs: dict[str, Any]


@dataclass(frozen=True)
class Advantage(Record):
    """How much better one's own reports agree with one's weights than something else does; NaN if not computable.

    Attributes:
        own: r of the own reports, on the contexts complete in everything.
        others: Mean r of the others.
        difference: own - others.
        boot_low, boot_high: 95% interval of the difference from resampling contexts.
        n_contexts: Contexts complete in the weights, the reports and all others.
    """

    own: float
    others: float
    difference: float
    boot_low: float
    boot_high: float
    n_contexts: int


@dataclass(frozen=True)
class CrossModel:
    """The matrices and the tests.

    Attributes:
        names: Of the models.
        matrix: M_ij = r(reports of i, weights of j), shape (models, models).
        weights_matrix: r(weights of i, weights of j), same shape.
        n_contexts: Contexts behind each entry of `matrix`.
        over_reports: For each model, its advantage over the others' reports.
        over_weights: For each model, its advantage over the others' weights.
    """

    names: list[str]
    matrix: Array
    weights_matrix: Array
    n_contexts: NDArray[np.int64]
    over_reports: list[Advantage]
    over_weights: list[Advantage]


def advantage(own: Array, others: Sequence[Array], weights: Array, *, resamples: int = RESAMPLES) -> Advantage:
    """r(own, weights) minus the mean of r(other, weights), all (contexts, attributes)."""
    kept = ~np.isnan([own, weights, *others]).any(axis=(0, 2))
    own, weights, others = own[kept], weights[kept], [other[kept] for other in others]
    counts = resampled_counts(len(weights), SEED, resamples)
    r_own, r_others = pearson(own, weights), float(np.mean([pearson(other, weights) for other in others]))
    of_others = np.mean([resampled_r(other, weights, counts) for other in others], axis=0)
    low, high = percentile_interval(resampled_r(own, weights, counts) - of_others, len(weights))
    return Advantage(r_own, r_others, r_own - r_others, low, high, len(weights))


def cross_model(models: Sequence[Model]) -> CrossModel:
    """Both matrices, and both tests of each model."""
    reports, weights = [m.reports for m in models], [m.weights for m in models]
    tests = []
    for sources in (reports, weights):
        others = [[s for j, s in enumerate(sources) if j != i] for i in range(len(models))]
        tests.append([advantage(reports[i], others[i], weights[i]) for i in range(len(models))])
    complete = [[~np.isnan(r + w).any(axis=1) for w in weights] for r in reports]
    return CrossModel(
        names=[m.name for m in models],
        matrix=np.array([[pearson(r, w) for w in weights] for r in reports]),
        weights_matrix=np.array([[pearson(v, w) for w in weights] for v in weights]),
        n_contexts=np.array(complete).sum(axis=2),
        over_reports=tests[0],
        over_weights=tests[1],
    )


def read_model(run: Path, comparison: str) -> Model:
    """One run's reports and weights.

    Raises:
        InputError: No such run or comparison, or the run did not pass the gate.
    """
    results = analyse(run)
    found = {c.name: c for c in results.comparisons}
    if comparison not in found:
        raise InputError(f"{run}: no comparison {comparison!r}; it has: {', '.join(found)}")
    if not results.gate.passed:
        raise InputError(f"{run}: not testable, it did not pass the gate ({results.gate.reasons[0]}); leave it out")
    group = results.record["groups"][found[comparison].contexts]
    known = {c.name: c for c in load_contexts(run / group)}
    points = found[comparison].points
    contexts = [known[name] for name in dict.fromkeys(points["context"])]
    reports, weights = (points[axis].to_numpy(dtype=float).reshape(len(contexts), -1) for axis in "xy")
    return Model(results.record["name"], contexts, reports, weights, results.targets, run_inputs(results))


def align(models: Sequence[Model]) -> list[Model]:
    """Bring all models into the order of the first one's contexts.

    Raises:
        InputError: Fewer than two models, two of one name, or contexts that are not the same throughout.
    """
    names = [m.name for m in models]
    if len(set(names)) < max(len(names), 2):
        raise InputError(f"--runs: got {', '.join(names)}; give two or more runs with names of their own")
    first = models[0]
    aligned = []
    for model in models:
        by_name = {c.name: row for row, c in enumerate(model.contexts)}
        if unmatched := {*by_name} ^ {c.name for c in first.contexts}:
            raise InputError(
                f"{model.name} and {first.name} do not share the context {min(unmatched)!r}; "
                "give runs of the same contexts"
            )
        rows = [by_name[c.name] for c in first.contexts]
        for context, row in zip(first.contexts, rows, strict=True):
            if model.contexts[row] != context:
                raise InputError(
                    f"{model.name} and {first.name} differ in the context {context.name!r} (its words, attributes or "
                    "ranges); give runs of the same contexts"
                )
        reports, weights = model.reports[rows], model.weights[rows]
        aligned.append(Model(model.name, first.contexts, reports, weights, model.targets, model.inputs))
    return aligned


def taught_alike(models: Sequence[Model]) -> list[tuple[str, str]]:
    """Pairs of models with the same target weights in the contexts that are compared."""
    names = [c.name for c in models[0].contexts]
    return [
        (a.name, b.name)
        for a, b in combinations(models, 2)
        if (both := [n for n in names if n in a.targets and n in b.targets])
        and all(np.array_equal(a.targets[n], b.targets[n]) for n in both)
    ]


def write_cross_model(runs: Sequence[Path], comparison: str, out: Path) -> CrossModel:
    """Compute all of it and write it to `out`."""
    check_replaceable(out, COMMAND)
    models = align([read_model(run, comparison) for run in runs])
    found, alike = cross_model(models), taught_alike(models)
    inputs = {"comparison": comparison, "runs": [m.inputs for m in models]}
    with output_folder(out, COMMAND, inputs) as draft:
        for file, values in (("matrix.csv", found.matrix), ("weights_matrix.csv", found.weights_matrix)):
            table = pd.DataFrame(values, index=pd.Index(found.names, name="of"), columns=found.names)
            write_text(draft / file, table.to_csv())
        save_heatmap(found.names, found.matrix, found.weights_matrix, found.n_contexts, draft / "heatmap.png")
        summary = {
            **inputs,
            "models": found.names,
            "matrix": _json(found.matrix),
            "weights_matrix": _json(found.weights_matrix),
            "n_contexts": found.n_contexts.tolist(),
            "over_others_reports": {n: a.as_dict() for n, a in zip(found.names, found.over_reports, strict=True)},
            "over_others_weights": {n: a.as_dict() for n, a in zip(found.names, found.over_weights, strict=True)},
            "taught_the_same_weights": alike,
            "seed": SEED,
            **provenance(),
        }
        write_json(draft / "summary.json", summary)
    for a, b in alike:
        print(f"note: {a} and {b} were taught the same weights, so each knows the other's; use runs of different seeds")
    return found


def _json(matrix: Array) -> list[list[float | None]]:
    return [[None if math.isnan(value) else value for value in row] for row in matrix.tolist()]


def _line(name: str, over_reports: Advantage, over_weights: Advantage) -> str:
    def told(what: str, a: Advantage) -> str:
        return f"over others' {what} {a.difference:+.2f} [{a.boot_low:+.2f}, {a.boot_high:+.2f}]"

    tests = f"{told('reports', over_reports)}, {told('weights', over_weights)}"
    return f"{name}: own reports r = {over_reports.own:+.2f}, {tests}, {over_reports.n_contexts} contexts"


def main() -> None:
    """Command line: `--runs FOLDER FOLDER ... --comparison NAME --out FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="run folders with the same contexts")
    parser.add_argument("--comparison", required=True, help="which comparison of these runs, e.g. instilled")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; replaced if this command made it")
    options = parser.parse_args()
    found = write_cross_model(options.runs, options.comparison, options.out)
    for line in zip(found.names, found.over_reports, found.over_weights, strict=True):
        print(_line(*line))
    print(options.out / "heatmap.png")


if __name__ == "__main__":
    run_command(main)
