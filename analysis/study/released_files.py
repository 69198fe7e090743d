"""One model's released files, as trials by context.

They are named by the model and the endings below, and lie beside `scenarios.csv` (and `candidate_scenarios.json`) with
the ranges, and `instilled_weights.csv` with the targets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from store.contexts import load_released_contexts
from store.files import hash_file
from store.released import CANDIDATES, SCENARIOS, load_reports, load_selections
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


@dataclass(frozen=True)
class ReleasedData:
    """What is known of one model, by its full name.

    Attributes:
        targets: Target weights by context; None without the file.
        decisions: By group of contexts; a group without decisions is left out. Each pair was shown in one order, and
            only the letter is known: log odds are infinite, and those of the other order missing.
        reports: By name of the set, each on all contexts of its group; a set that cannot be compared is left out.
        notes: What is missing or was left out, and why, one line each.
        hashes: Of every file that was read, by name.
    """

    model: str
    contexts: dict[str, ChoiceContext]
    targets: dict[str, NDArray[np.float64]] | None
    decisions: dict[str, DecisionTrials]
    reports: dict[str, ReportTrials]
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


def load_model(folder: Path, model: str) -> ReleasedData:
    """Read all files of a model; those that are missing or empty are noted.

    Raises:
        InputError: A file of another form, no `scenarios.csv`, or decisions on contexts that it does not hold.
    """
    contexts = {context.name: context for context in load_released_contexts(folder)}
    targets = load_weights(folder / TARGETS) if (folder / TARGETS).is_file() else None
    data = ReleasedData(model, contexts, targets, {}, {})
    for group, suffix in SELECTIONS.items():
        path = folder / f"{model}{suffix}"
        if path.is_file() and (decisions := _decisions(path, contexts)) is not None:
            data.decisions[group] = decisions
        else:
            state = "holds no trials" if path.is_file() else "is missing"
            data.notes.append(f"{path.name} {state}: no weights of {group} contexts")
    if targets is None:
        data.notes.append(f"{TARGETS} is missing: learned weights are not held against targets")
    for name, (group, suffixes) in REPORTS.items():
        paths = [folder / f"{model}{suffix}" for suffix in suffixes]
        if missing := [path.name for path in paths if not path.is_file()]:
            data.notes.append(f"{' and '.join(missing)} missing: no {name}")
        elif group not in data.decisions:
            data.notes.append(f"without weights of {group} contexts: no {name}")
        else:
            _add_reports(data, name, data.decisions[group].contexts, paths)
    of_model = [*SELECTIONS.values(), *(suffix for _, suffixes in REPORTS.values() for suffix in suffixes)]
    files = [SCENARIOS, CANDIDATES, TARGETS, *(f"{model}{suffix}" for suffix in of_model)]
    data.hashes.update({name: hash_file(folder / name) for name in files if (folder / name).is_file()})
    return data


def _decisions(path: Path, contexts: dict[str, ChoiceContext]) -> DecisionTrials | None:
    """Decisions by context, None if there are none."""
    selections = load_selections(path)
    names = list(dict.fromkeys(selections.scenario.tolist()))
    if not names:
        return None
    width = selections.option_a.shape[1]
    for name in names:
        if name not in contexts or len(contexts[name].attributes) != width:
            raise InputError(
                f"{path}: no context {name!r} of {width} attributes in {SCENARIOS}; use files of one release"
            )
    row, trial = _places(selections.scenario, names)
    spans = np.stack([contexts[name].spans for name in names])
    difference = np.zeros((len(names), trial.max() + 1, width))
    difference[row, trial] = (selections.option_a - selections.option_b) / spans[row]
    log_odds = np.full((*difference.shape[:2], 2), np.nan)
    log_odds[row, trial, 0] = np.inf * (selections.chose_a - 0.5)
    shown = ~np.isnan(log_odds)
    return DecisionTrials(names, difference, log_odds, np.full_like(log_odds, np.nan), shown, [[] for _ in names])


def _add_reports(data: ReleasedData, name: str, contexts: list[str], paths: list[Path]) -> None:
    """Pool the reports of some files, by context, into `data`; none at all, and those left out, are noted."""
    width = len(data.contexts[contexts[0]].attributes)
    files = {path: load_reports(path) for path in paths}
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
        data.notes.append(f"{' and '.join(path.name for path in paths)} without a readable report: no {name}")
        return
    row, trial = _places(scenario[known], contexts)
    given = np.bincount(row, minlength=len(contexts))
    table = np.full((len(contexts), given.max(), width), np.nan)
    table[row, trial] = values
    beyond = (np.abs(table) > LARGEST).any(axis=2).sum(axis=1)
    data.reports[name] = ReportTrials(contexts, table, np.maximum(given, ASKED), beyond, [[] for _ in contexts])


def _places(scenario: NDArray[np.str_], contexts: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where each row belongs: the row of its context, and its trial within it, both (rows,)."""
    row = pd.Series(pd.Index(contexts).get_indexer(pd.Index(scenario)))
    return row.to_numpy().astype(np.int64), row.groupby(row).cumcount().to_numpy().astype(np.int64)
