"""One model's released files, as trials by context.

They are named by the model and the endings below. `scenarios.csv` (and `candidate_scenarios.json`) with the ranges, and
`instilled_weights.csv` with the targets, lie beside them unless `Elsewhere` says where.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from store.contexts import load_contexts, load_released_contexts
from store.files import hash_file
from store.released import (
    CANDIDATES,
    SCENARIOS,
    Reports,
    Selections,
    Where,
    columns_of,
    holds_rows,
    load_reports,
    load_selections,
)
from store.trials import DecisionTrials, ReportTrials
from store.weights import load_weights
from task.contexts import ChoiceContext
from task.errors import InputError
from task.weights import LARGEST

TARGETS = "instilled_weights.csv"

SELECTIONS = {"instilled": "_instilled_selections.csv", "native": "_instilled_latent_selections.csv"}
"""File of the decisions on each group of contexts, after the model's name."""

REPORTS = {
    "off_the_shelf": ("instilled", ("_weight_reports.csv",)),
    "instilled": ("instilled", ("_instilled_weight_reports.csv",)),
    "introspection_trained": (
        "instilled",
        (
            "_itrained_first_50_of_100_50ex_weight_reports.csv",
            "_itrained_last_50_of_100_50ex_weight_reports.csv",
        ),
    ),
    "native_before": ("native", ("_instilled_latent_weight_reports.csv",)),
    "native_after": ("native", ("_itrained_all_100_50ex_latent_weight_reports.csv",)),
}
"""For each set of reports the group of contexts it is about and its files, whose rows are pooled.

Two models are introspection-trained on half of the instilled contexts each, and asked about the other half; a third on
all of them, and asked about native ones."""

ASKED = 10
"""Reports asked for in each context. The files hold the readable ones alone; that 10 were asked for in each of the 100
contexts, 1000 in a set, is what the paper says (Plunkett et al. 2025)."""


NOT_RELEASED = "not_released"
"""Why a report is missing that was asked for and is in no file."""

ORGANISATION = "northeastern-university"
"""Of the paper's authors, in the names of the models that they fine-tuned (`ft:<model>:<organisation>:...`)."""

CONTEXTS_OF_THE_PAPER = {"instilled": (50, "df4e6ed565528026"), "native": (100, "1ab3e6fea8176bd8")}
"""Of each group: decisions in each of its 100 contexts, and the hash of the contexts (see `contexts_hash`)."""


@dataclass(frozen=True)
class Elsewhere:
    """What is not beside the trials, and which of the trials are used.

    Attributes:
        contexts: Folder with `scenarios.csv`, such a file, or a .jsonl of contexts.
        weights: File of target weights, or the folder of `instilled_weights.csv`.
        where: The value that a column must have, by column, where trials of several conditions lie in one file.
    """

    contexts: Path | None = None
    weights: Path | None = None
    where: Where = field(default_factory=dict)


@dataclass(frozen=True)
class ReleasedData:
    """What is known of one model, by its full name.

    Attributes:
        targets: Target weights by context; None without the file.
        decisions: By group of contexts; a group without decisions is left out. Each pair was shown in one order, and
            only the letter is known: log odds are infinite, and those of the other order missing.
        reports: By name of the set, each on all contexts of its group; a set that cannot be compared is left out.
        folds: Of a set that is pooled from several files, the number of the file that reports on each context (the
            first such file; -1 for none), shape (contexts,).
        of_the_paper: Whether contexts and trials are those that the paper's figures are about.
        notes: What is missing or was left out, and why, one line each.
        hashes: Of every file that was read, by name.
    """

    model: str
    contexts: dict[str, ChoiceContext]
    targets: dict[str, NDArray[np.float64]] | None
    decisions: dict[str, DecisionTrials]
    reports: dict[str, ReportTrials]
    folds: dict[str, NDArray[np.int64]] = field(default_factory=dict)
    of_the_paper: bool = False
    notes: list[str] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)


def find_model(folder: Path, name: str) -> str:
    """The full name of the model whose files are in a folder, from its name or the beginning of just one name.

    Raises:
        InputError: No folder, no decisions in it, or none or several models that the name can mean.
    """
    wanted = " or ".join(f"<model>{suffix}" for suffix in SELECTIONS.values())
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one with the paper's released files ({wanted})")
    found = {path.name.removesuffix(suffix) for suffix in SELECTIONS.values() for path in folder.glob(f"?*{suffix}")}
    if not found:
        raise InputError(f"{folder}: no decisions of any model here, looked for {wanted}; give the released files")
    if name in found:
        return name
    meant = sorted(model for model in found if model.startswith(name))
    if len(meant) != 1:
        what = f"can be {', '.join(meant)}" if meant else f"has no {wanted.replace('<model>', name)}"
        raise InputError(f"{folder}: model {name!r} {what}; give one of: {', '.join(sorted(found))}")
    return meant[0]


def load_model(folder: Path, model: str, elsewhere: Elsewhere | None = None) -> ReleasedData:
    """Read all files of a model; those that are missing or empty are noted.

    Raises:
        InputError: A file of another form, no `scenarios.csv`, decisions on contexts that it does not hold, or trials
            of several conditions.
    """
    elsewhere = elsewhere or Elsewhere()
    notes: list[str] = []
    contexts, read = _contexts(folder, elsewhere.contexts, notes.append)
    weights = _weights_file(folder, elsewhere.weights)
    targets = load_weights(weights, notes.append) if elsewhere.weights or holds_rows(weights) else None
    data = ReleasedData(model, contexts, targets, {}, {}, notes=notes)
    of_model = [*SELECTIONS.values(), *(suffix for _, suffixes in REPORTS.values() for suffix in suffixes)]
    files = [path for suffix in of_model if (path := folder / f"{model}{suffix}").is_file()]
    _check_columns(data, folder, [path for path in files if holds_rows(path)], elsewhere.where)
    models: set[str] = set()
    for group, suffix in SELECTIONS.items():
        path = folder / f"{model}{suffix}"
        if holds_rows(path):
            selections = load_selections(path, elsewhere.where)
            models |= selections.models
            data.decisions[group] = _decisions(path, selections, contexts)
            data.notes.extend([*selections.notes, *_oddities(path, selections, contexts)])
        else:
            data.notes.append(f"{path.name} {_absent(path)}: no weights of {group} contexts")
    _check_targets(weights, data)
    if targets is None:
        data.notes.append(f"{weights.name} {_absent(weights)}: learned weights are not held against targets")
    for name, (group, suffixes) in REPORTS.items():
        paths = [folder / f"{model}{suffix}" for suffix in suffixes]
        if missing := [f"{path.name} {_absent(path)}" for path in paths if not holds_rows(path)]:
            data.notes.append(f"{' and '.join(missing)}: no {name}")
        elif group not in data.decisions:
            data.notes.append(f"without weights of {group} contexts: no {name}")
        else:
            reports = {path: load_reports(path, elsewhere.where) for path in paths}
            models.update(*(found.models for found in reports.values()))
            data.notes.extend(note for found in reports.values() for note in found.notes)
            _add_reports(data, name, data.decisions[group].contexts, reports)
    read += [path for path in (weights, *files) if path.is_file()]
    data.hashes.update({path.name: hash_file(path) for path in read})
    return replace(data, of_the_paper=not elsewhere.where and _of_the_paper(data, models))


def _contexts(
    folder: Path, place: Path | None, tell: Callable[[str], None]
) -> tuple[dict[str, ChoiceContext], list[Path]]:
    """The contexts by name, and the files that they were read from."""
    if place is None and not (folder / SCENARIOS).is_file():
        raise InputError(f"{folder}: no {SCENARIOS} beside the trials; name its folder, or the file, with --contexts")
    place = place or folder
    if place.suffix == ".jsonl":
        return {context.name: context for context in load_contexts(place)}, [place]
    scenarios = place if place.is_file() else place / SCENARIOS
    read = [path for path in (scenarios, scenarios.with_name(CANDIDATES)) if path.is_file()]
    return {context.name: context for context in load_released_contexts(scenarios, tell)}, read


def _weights_file(folder: Path, place: Path | None) -> Path:
    return folder / TARGETS if place is None else place / TARGETS if place.is_dir() else place


def _absent(path: Path) -> str:
    return "is empty" if path.is_file() else "is missing"


def _check_columns(data: ReleasedData, folder: Path, paths: Sequence[Path], where: Where) -> None:
    """Refuse to choose by a column that no file has, and note the files that lack it."""
    for column in where:
        without = [path.name for path in paths if column not in columns_of(path)]
        if paths and len(without) == len(paths):
            raise InputError(f"{folder}: no file of {data.model} has a column {column!r}; correct --where")
        data.notes.extend(f"{name} has no column {column!r}: all of its trials are used" for name in without)


def contexts_hash(contexts: Iterable[ChoiceContext]) -> str:
    """Hash of the contexts' names, and of the names and ranges of their attributes, in any order; 16 hex digits."""
    said = sorted([c.name, *([a.name, a.low, a.high] for a in c.attributes)] for c in contexts)
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def _of_the_paper(data: ReleasedData, models: Collection[str]) -> bool:
    """Whether the contexts are the paper's, with as many decisions, and every model is one of its authors'.

    Another run of the paper's scripts has the same contexts and file names: the fine-tuned models' names tell it apart.
    """
    for group, trials in data.decisions.items():
        decisions, key = CONTEXTS_OF_THE_PAPER[group]
        shown = trials.shown.any(axis=2).sum(axis=1)
        if (shown != decisions).any() or contexts_hash(data.contexts[name] for name in trials.contexts) != key:
            return False
    return bool(models) and all(m == data.model or m.startswith(f"ft:{data.model}:{ORGANISATION}:") for m in models)


def _decisions(path: Path, selections: Selections, contexts: dict[str, ChoiceContext]) -> DecisionTrials:
    """Decisions by context."""
    names = list(dict.fromkeys(selections.scenario.tolist()))
    width = selections.option_a.shape[1]
    for name in names:
        if name not in contexts or len(contexts[name].attributes) != width:
            raise InputError(
                f"{path}: no context {name[:60]!r} of {width} attributes in {SCENARIOS}; use files of one release"
            )
    row, trial = _places(selections.scenario, names)
    spans = np.stack([contexts[name].spans for name in names])
    difference = np.zeros((len(names), trial.max() + 1, width))
    difference[row, trial] = (selections.option_a - selections.option_b) / spans[row]
    log_odds, shown = (np.full((*difference.shape[:2], 2), value) for value in (np.nan, False))
    log_odds[row, trial, 0] = np.inf * (selections.chose_a - 0.5)
    shown[row, trial, 0] = True
    unmade = np.bincount(row, weights=np.isnan(selections.chose_a), minlength=len(names)).astype(int)
    reasons = [["no_letter"] * count for count in unmade]
    return DecisionTrials(names, difference, log_odds, np.full_like(log_odds, np.nan), shown, reasons)


def _check_targets(path: Path, data: ReleasedData) -> None:
    """Refuse targets that are not as many as the attributes of the decisions."""
    if data.targets is None or "instilled" not in data.decisions:
        return
    decisions = data.decisions["instilled"]
    width = decisions.difference.shape[2]
    if wrong := [name for name in decisions.contexts if len(data.targets.get(name, range(width))) != width]:
        raise InputError(f"{path}: {wrong[0]!r} has not {width} weights as its decisions; use files of one release")


def _oddities(path: Path, selections: Selections, contexts: dict[str, ChoiceContext]) -> Iterator[str]:
    """Notes on what decisions of a release have not: values outside their ranges, more in one context than another.

    A value may lie a step of its rounding beyond its range, as values of the paper do.
    """
    names, row, counts = np.unique(selections.scenario, return_inverse=True, return_counts=True)
    shown = [contexts[name] for name in names.tolist()]
    low, span = np.stack([c.lows for c in shown])[row], np.stack([c.spans for c in shown])[row]
    step = np.array([[10.0**-a.decimals for a in c.attributes] for c in shown])[row] * (1 + 1e-9)
    outside = [
        (option < low - step) | (option > low + span + step) for option in (selections.option_a, selections.option_b)
    ]
    if count := int(sum(found.sum() for found in outside)):
        yield f"{path.name}: values outside their range: {count}, read as they are"
    if counts.min() < counts.max():
        few = int((counts < counts.max()).sum())
        yield f"{path.name}: contexts with fewer decisions than the {counts.max()} of others: {few}; is the file whole?"


def _add_reports(data: ReleasedData, name: str, contexts: list[str], files: Mapping[Path, Reports]) -> None:
    """Pool the reports of some files, by context, into `data`; none at all, and those left out, are noted."""
    width = len(data.contexts[contexts[0]].attributes)
    for path, reports in files.items():
        if reports.values.shape[1] != width:
            raise InputError(
                f"{path}: reports of {reports.values.shape[1]} attributes, not {width}; use files of one release"
            )
    scenario = np.concatenate([reports.scenario for reports in files.values()])
    known = np.isin(scenario, contexts)
    if not known.all():
        data.notes.append(f"{name}: {(~known).sum()} reports on contexts without decisions are left out")
    values = np.concatenate([reports.values for reports in files.values()])[known]
    if np.isnan(values).all():
        data.notes.append(f"{' and '.join(path.name for path in files)} without a readable report: no {name}")
        return
    row, trial = _places(scenario[known], contexts)
    given = np.bincount(row, minlength=len(contexts))
    table = np.full((len(contexts), given.max(), width), np.nan)
    table[row, trial] = values
    beyond = (np.abs(table) > LARGEST).any(axis=2).sum(axis=1)
    total = np.maximum(given, ASKED)
    no_number = np.bincount(row, weights=np.isnan(values[:, 0]), minlength=len(contexts)).astype(int)
    reasons = [[NOT_RELEASED] * (t - g) + ["not_a_number"] * n for t, g, n in zip(total, given, no_number, strict=True)]
    data.reports[name] = ReportTrials(contexts, table, total, beyond, reasons)
    if len(files) > 1:
        data.folds[name] = np.full(len(contexts), -1)
        file = np.repeat(np.arange(len(files)), [len(reports.scenario) for reports in files.values()])[known]
        data.folds[name][row[::-1]] = file[::-1]  # of several files the first is written last


def _places(scenario: NDArray[np.str_], contexts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each row belongs: the row of its context, and its trial within it, both (rows,)."""
    row = pd.Series(pd.Index(contexts).get_indexer(pd.Index(scenario)))
    return row.to_numpy().astype(np.int64), row.groupby(row).cumcount().to_numpy().astype(np.int64)
