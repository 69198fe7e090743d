"""What the page of a run lets its reader look into: each context's weights, each trial's prompt, answer and reading.

The browser gets one object, packed: lists by context, and within each by trial file, a column an entry. Prompts are
those of `Framing.messages`, word for word: what a context's trials share is stored once, with the numbers of the
options cut out, and these are stored as they were written.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from analysis.pages.figures import Figure
from analysis.study.comparisons import ComparisonResult, asked_arm, asked_source
from analysis.study.results import RunResults
from store.state_inputs import TrialFolder, finished_trials
from store.trials import TrialColumns, decided_in, read_rows
from store.weights import load_weights
from store.wordings import read_wordings
from task.contexts import ChoiceContext
from task.prompts import PROMPTS, Framing, Letter, Wordings, frame, shown_number
from task.replies import REASONS, UNDECIDED

EMBEDDED = 3_500_000
"""Packed characters that a page holds; more go to a file beside it, so that the page stays below 5 MB."""

MARK = 10**12
"""From here on, numbers stand for the places of an option's values while a prompt is cut up."""

Cut = list[tuple[str, list[str | int]]]
"""A prompt as role and content, the content as text and places: attribute k of option A, then of option B."""


@dataclass(frozen=True)
class Explorer:
    """What the browser gets, packed; `beside` where it is too much for the page itself."""

    packed: str

    @property
    def beside(self) -> bool:
        """Whether it goes to a file of its own."""
        return len(self.packed) > EMBEDDED


def explorer(results: RunResults, figures: list[Figure]) -> Explorer:
    """Contexts, weights, trials and the points of the scatter of a run, of the arms that stand alone."""
    files = [file for file in finished_trials(results.run, results.record) if results.stands_alone(file.arm)]
    found = {
        "files": [_file(file) for file in files],
        "contexts": _contexts(results, files),
        "points": [_points(results, c) for c in results.all_comparisons if results.testable(c)],
        "panels": {name: box for figure in figures for name, box in figure.panels.items()},
        "words": dict([*REASONS.items(), *UNDECIDED.items()]),
    }
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return Explorer(base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode())


def _file(file: TrialFolder) -> dict[str, Any]:
    asked = asked_arm(file.arm, file.measure, file.variant, file.constrained)
    return {"asked": asked, "measure": file.measure, "folder": f"{file.arm}/{file.path.name}"}


def _contexts(results: RunResults, files: list[TrialFolder]) -> list[dict[str, Any]]:
    """Each context: its words, attributes, weights, prompts and trials."""
    run, group_of = results.run, {name: group for group, names in results.groups.items() for name in names}
    wordings = read_wordings(run.wording if run.wording.is_file() else None)
    told = load_weights(run.told_weights) if run.told_weights.is_file() else {}
    trials: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in results.contexts}
    prompts: dict[str, dict[int, Cut]] = {name: {} for name in results.contexts}
    for number, file in enumerate(files):
        columns, table = read_rows(file.path, file.measure)
        rows = _in_order(table, columns)
        for name, start, stop in _stretches(rows["context"]):
            framing = _framing(results.contexts[name], file, told, wordings)
            prompts[name][number] = cut(framing)
            shown = {column: values[start:stop] for column, values in rows.items()}
            trials[name][number] = _trials(shown, columns, framing)
    return [
        {
            "name": name,
            "group": group_of[name],
            "scene": f"Imagine you are {context.agent}. {context.question}",
            "attributes": [{"name": a.name, "units": a.units, "span": a.span} for a in context.attributes],
            "target": _numbers(results.targets[name]) if name in results.targets else None,
            "arms": _arms(results, name),
            "prompts": prompts[name],
            "trials": trials[name],
        }
        for name, context in results.contexts.items()
    ]


def _framing(
    context: ChoiceContext,
    file: TrialFolder,
    told: Mapping[str, NDArray[np.float64]],
    wordings: Wordings | None,
) -> Framing:
    """A context as the trials of a file put it; where these follow a choice, the letter is filled in by the browser."""
    wording = PROMPTS[file.measure][file.variant]
    weights = told[context.name] if wording.told is not None else None
    chose: Letter | None = "A" if wording.follow_up is not None else None
    return frame(file.measure, context, file.variant, weights, chose, wordings)


def cut(framing: Framing) -> Cut:
    """The prompt of a context's trials, cut where the values of the options stand."""
    attributes = framing.context.attributes
    width = len(attributes)
    marks = [float(MARK + place) for place in range(2 * width)]
    places = {
        shown_number(attributes[place % width], mark, framing.wording.numbers): place
        for place, mark in enumerate(marks)
    }
    between = re.compile(f"({'|'.join(map(re.escape, places))})")
    return [
        (message["role"], [places.get(part, part) for part in between.split(message["content"])])
        for message in framing.messages(marks[:width], marks[width:])
    ]


def _in_order(table: pa.Table, columns: TrialColumns) -> dict[str, list[Any]]:
    """The columns of a trial file, context by context; of a pair of decisions, the first option as A comes first."""
    places = table["context"].combine_chunks().dictionary_encode().indices.to_numpy()
    order = np.lexsort([~np.array(table["first_as_a"]), np.array(table["index"]), places])
    table = table.take(order)
    rows: dict[str, list[Any]] = {name: table[name].to_pylist() for name in table.column_names}
    rows["written"] = table.select([*columns.of("first"), *columns.of("second")]).to_pandas().to_numpy().tolist()
    if columns.decides:
        decided = decided_in(table)
        rows["said"] = [why or letter for why, letter in zip(decided.undecided, decided.letters, strict=True)]
        rows["logps"] = _rows(decided.logps, 4)
    if columns.measure == "reports":
        rows["read"] = _rows(table.select(columns.of("value")).to_pandas().to_numpy(dtype=float), 4)
    return rows


def _stretches(names: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """Each name with its first row, and the first after it."""
    start = 0
    for name, rows in groupby(names):
        stop = start + sum(1 for _ in rows)
        yield name, start, stop
        start = stop


def _trials(rows: Mapping[str, list[Any]], columns: TrialColumns, framing: Framing) -> dict[str, Any]:
    """The trials of one context in one file, a column an entry; of decisions, the pairs in both orders."""
    orders = 2 if columns.measure == "decisions" else 1
    shown = {"index": rows["index"][::orders], "firstAsA": rows["first_as_a"]}
    shown["values"] = _written(rows["written"][::orders], framing)
    if columns.decides:
        shown |= {"logps": rows["logps"], "said": rows["said"]}
    if columns.measure == "reports":
        shown |= {"reply": rows["reply"], "reason": rows["reason"]}
        shown["read"] = [None if why else values for values, why in zip(rows["read"], rows["reason"], strict=True)]
    if columns.constrained:
        shown |= {"opening": _numbers(rows["opening"], 4), "freeSampled": rows["free_sampled"]}
        shown |= {"freeReply": rows["free_reply"], "freeReason": rows["free_reason"]}
    return shown


def _written(rows: Sequence[Sequence[float]], framing: Framing) -> list[list[str]]:
    """The values of both options as the prompt writes them, the pair's first option first."""
    attributes, numbers, columns = framing.context.attributes * 2, framing.wording.numbers, []
    for attribute, values in zip(attributes, zip(*rows, strict=True), strict=True):
        text = {value: shown_number(attribute, value, numbers) for value in set(values)}
        columns.append([text[value] for value in values])
    return [[*row] for row in zip(*columns, strict=True)]


def _arms(results: RunResults, name: str) -> list[dict[str, Any]]:
    """What each arm that was asked about a context learned and reported there, in the order of the plan."""
    asked = dict.fromkeys(arm for arm in (*results.measured, *results.reported) if results.stands_alone(arm))
    found = []
    for arm in sorted(asked, key=lambda arm: results.place(arm.partition(" (")[0])):
        reported = results.reported.get(arm)
        reports = reported.values[reported.contexts.index(name)] if reported and name in reported.contexts else None
        whose = _whose(results, arm, name)
        if reports is None and whose != arm:
            continue
        entry: dict[str, Any] = {"arm": arm, "whose": whose}
        if whose is not None:
            weights = results.measured[whose]
            entry["learned"] = _numbers(weights.weights[weights.contexts.index(name)])
        if reported and reports is not None:
            read = reports[~np.isnan(reports).any(axis=1)]
            entry["reports"] = _rows(read)
            entry["reported"] = _numbers(read.mean(axis=0)) if len(read) else None
            entry["asked"] = int(reported.total[reported.contexts.index(name)])
        found.append(entry)
    return found


def _whose(results: RunResults, arm: str, name: str) -> str | None:
    """Whose learned weights stand beside the reports of an arm on a context.

    Its own: as it was asked, then as it is asked by default; else those that its reports are first compared with.
    """
    for own in (arm, arm.partition(" (")[0]):
        if own in results.measured and name in results.measured[own].contexts:
            return own
    for entry in results.entries:
        if any(asked_source(s, "reports") == arm and name in s.contexts for s in entry.reports):
            for source in entry.weights:
                whose = asked_source(source, "decisions")
                if name in source.contexts and name in results.measured[whose].contexts:
                    return whose
    return None


def _points(results: RunResults, comparison: ComparisonResult) -> dict[str, Any]:
    """The points of a panel of the scatter, a row a context."""
    places = {name: place for place, name in enumerate(results.contexts)}
    x, y = comparison.sides
    return {
        "name": comparison.name,
        "contexts": [places[name] for name in comparison.members],
        "x": _rows(x),
        "y": _rows(y),
        "across": "target" if comparison is results.learned_vs_target else "reported",
    }


def _numbers(values: ArrayLike, digits: int = 1) -> list[float | None]:
    """Numbers as JSON has them: rounded, None for those that are not finite."""
    # + 0.0: no "-0.0"
    return [round(v, digits) + 0.0 if math.isfinite(v) else None for v in np.asarray(values, dtype=float).tolist()]


def _rows(values: NDArray[np.float64], digits: int = 1) -> list[list[float | None]]:
    """`_numbers` of each row of a table."""
    rows: list[list[float | None]] = (np.round(values, digits) + 0.0).tolist()
    for row in np.flatnonzero(~np.isfinite(values).all(axis=1)):
        rows[row] = _numbers(values[row], digits)
    return rows
