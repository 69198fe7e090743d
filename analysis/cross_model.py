"""The cross-model matrix: do reports tell more of the model that gives them than of others?

    python -m analysis.cross_model --runs runs/a-seed0 runs/b-seed1 --comparison instilled --out results/cross-model

M_ij = r(reports of i, weights of j), over runs with the same contexts. Privileged access means that a model knows its
own weights better than others know them; what is held against what, and the intervals: `analysis.stats.advantage`. A
third explanation remains: models that were taught the same weights know each other's, so instilled weights must be
drawn with another seed in every run; runs that share them are named.

Writes `matrix.csv` (M: a row for whose reports, a column for whose weights), `weights_matrix.csv`, `heatmap.png`,
`heatmap.pdf` and `summary.json`, in place of what an earlier call left there.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.pages.cross_model_figure import draw_heatmap
from analysis.pages.drawing import house_style, save_picture
from analysis.pages.text import NOT_TESTABLE, interval, number
from analysis.stats.advantage import SEED, Advantage, CrossModel, advantage, cross_model
from analysis.stats.agreement import pearson
from analysis.study.comparisons import table_of
from analysis.study.output import check_replaceable, output_folder
from analysis.study.results import Findings, analyse
from store.console import run_command, say
from store.files import write_json, write_text
from store.provenance import provenance
from task.contexts import ChoiceContext
from task.errors import InputError

COMMAND = "analysis.cross_model"

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """One run's side of a comparison: mean reports (NaN where there are none) and weights, (contexts, attributes).

    `targets` are the target weights of the run by context, `inputs` what all of it was computed from, and `base` the
    model before any training.
    """

    name: str
    contexts: list[ChoiceContext]
    reports: Array
    weights: Array
    targets: dict[str, Array]
    inputs: dict[str, Any]
    base: str = ""


@dataclass(frozen=True)
class Known:
    """How much better a model's own reports agree with its weights than what others say or do; None without others.

    Attributes:
        own: r of its own reports.
        twins: Over the reports of its twins: other trainings of the same model, taught the same weights.
        third_parties: Over the reports of all others.
        others_weights: Over the weights of the others, its twins apart.
    """

    own: float
    twins: Advantage | None
    third_parties: Advantage | None
    others_weights: Advantage | None


def read_model(run: Path, comparison: str) -> Model:
    """One run's reports and weights.

    Raises:
        InputError: No such run or comparison, or it is not testable there.
    """
    return model_of(analyse(run), comparison, str(run))


def model_of(results: Findings, comparison: str, place: str, base: str = "") -> Model:
    """The side of a comparison of one run, or of released trials, which are called `place` in messages.

    Raises:
        InputError: No such comparison, or it is not testable there.
    """
    found = {c.name: c for c in results.comparisons}
    if comparison not in found:
        raise InputError(f"{place}: no comparison {comparison!r}; it has: {', '.join(found)}")
    if reason := results.untestable(found[comparison]):
        raise InputError(f"{place}: {comparison} is {NOT_TESTABLE}, {reason}; leave it out")
    points = found[comparison].points
    contexts = [results.contexts[name] for name in dict.fromkeys(points["context"])]
    sides = table_of(points, "x"), table_of(points, "y")
    return Model(results.name, contexts, *sides, results.targets, results.inputs, base)


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
        by_name = {c.name: c for c in model.contexts}
        if unmatched := {*by_name} ^ {c.name for c in first.contexts}:
            raise InputError(
                f"{model.name} and {first.name} do not share the context {min(unmatched)!r}; "
                "give runs of the same contexts"
            )
        for context in first.contexts:
            if by_name[context.name] != context:
                raise InputError(
                    f"{model.name} and {first.name} differ in the context {context.name!r} (its words, attributes or "
                    "ranges); give runs of the same contexts"
                )
        rows = [model.contexts.index(context) for context in first.contexts]
        reports, weights = model.reports[rows], model.weights[rows]
        aligned.append(replace(model, contexts=first.contexts, reports=reports, weights=weights))
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


def who_knows(models: Sequence[Model]) -> dict[str, Known]:
    """What each of some aligned models knows of its own weights beyond its twins, third parties and others' weights."""
    alike = {frozenset(pair) for pair in taught_alike(models)}
    found = {}
    for model in models:
        others = [m for m in models if m is not model]
        twins = [m for m in others if m.base == model.base and frozenset((m.name, model.name)) in alike]
        third = [m for m in others if m not in twins]

        def over(sources: list[Array], model: Model = model) -> Advantage | None:
            return advantage(model.reports, sources, model.weights) if sources else None

        found[model.name] = Known(
            own=pearson(model.reports, model.weights),
            twins=over([m.reports for m in twins]),
            third_parties=over([m.reports for m in third]),
            others_weights=over([m.weights for m in third]),
        )
    return found


def sharing_contexts(models: Sequence[Model]) -> list[list[Model]]:
    """The models by the names of their contexts, those alone with theirs left out."""
    found: dict[frozenset[str], list[Model]] = {}
    for model in models:
        found.setdefault(frozenset(c.name for c in model.contexts), []).append(model)
    return [alike for alike in found.values() if len(alike) > 1]


@dataclass(frozen=True)
class Crossed:
    """One comparison across models: the matrices and tests of `analysis.stats.advantage`, and who knows what."""

    models: list[Model]
    found: CrossModel
    known: dict[str, Known]


def crossed(models: Sequence[Model]) -> Crossed:
    """Cross some models.

    Raises:
        InputError: See `align`.
    """
    aligned = align(models)
    found = cross_model([m.reports for m in aligned], [m.weights for m in aligned])
    return Crossed(aligned, found, who_knows(aligned))


def write_cross_model(runs: Sequence[Path], comparison: str, out: Path) -> list[str]:
    """Compute all of it and write it to `out`; returns what was found, a line a model."""
    check_replaceable(out, COMMAND)
    models = align([read_model(run, comparison) for run in runs])
    names, alike = [m.name for m in models], taught_alike(models)
    found = cross_model([m.reports for m in models], [m.weights for m in models])
    inputs = {"comparison": comparison, "runs": [m.inputs for m in models]}
    with output_folder(out, COMMAND, inputs) as draft:
        for file, values in (("matrix.csv", found.matrix), ("weights_matrix.csv", found.weights_matrix)):
            table = pd.DataFrame(values, index=pd.Index(names, name="of"), columns=names)
            write_text(draft / file, table.to_csv())
        with house_style():
            heatmap = draw_heatmap(names, found.matrix, found.weights_matrix, found.n_contexts)
            save_picture(heatmap, draft / "heatmap.png")
        summary = {
            **inputs,
            "models": names,
            "matrix": _json(found.matrix),
            "weights_matrix": _json(found.weights_matrix),
            "n_contexts": found.n_contexts.tolist(),
            "over_others_reports": {n: a.as_dict() for n, a in zip(names, found.over_reports, strict=True)},
            "over_others_weights": {n: a.as_dict() for n, a in zip(names, found.over_weights, strict=True)},
            "taught_the_same_weights": alike,
            "seed": SEED,
            **provenance(),
        }
        write_json(draft / "summary.json", summary)
    for a, b in alike:
        say(f"note: {a} and {b} were taught the same weights, so each knows the other's; use runs of different seeds")
    return [_line(*line) for line in zip(names, found.over_reports, found.over_weights, strict=True)]


def _json(matrix: Array) -> list[list[float | None]]:
    return [[None if math.isnan(value) else value for value in row] for row in matrix.tolist()]


def _line(name: str, over_reports: Advantage, over_weights: Advantage) -> str:
    own = number(over_reports.own, signed=True)
    reports, weights = (
        f"{number(a.difference, signed=True)} {interval(a.boot_low, a.boot_high, signed=True)}"
        for a in (over_reports, over_weights)
    )
    over = f"over others' reports {reports}, over others' weights {weights}"
    return f"{name}: own reports r = {own}, {over}, {over_reports.n_contexts} contexts"


def main() -> None:
    """Command line: `--runs FOLDER FOLDER ... --comparison NAME --out FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True, help="run folders with the same contexts")
    parser.add_argument("--comparison", required=True, help="which comparison of these runs, e.g. instilled")
    parser.add_argument("--out", type=Path, required=True, help="folder to write; replaced if this command made it")
    options = parser.parse_args()
    for line in write_cross_model(options.runs, options.comparison, options.out):
        say(line)
    say(str(options.out / "heatmap.png"))


if __name__ == "__main__":
    run_command(main)
