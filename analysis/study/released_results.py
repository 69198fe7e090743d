"""What one model's released files say: the comparisons of the paper, and how far to believe each."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from analysis.stats.agreement import Agreement, PairedDifference, agreement, mean_reports, paired_difference
from analysis.stats.reliability import CorrectedR
from analysis.stats.variants import Variants, variants
from analysis.study.comparisons import (
    ComparisonResult,
    MeasuredWeights,
    compare,
    learned_against_target,
    measure_weights,
    points_table,
)
from analysis.study.gate import ArmDecisions, GateResult, judge, summarise_decisions
from analysis.study.released_files import REPORTS, SELECTIONS, TARGETS, Elsewhere, ReleasedData, find_model, load_model
from analysis.study.results import Findings
from store.run import ComparisonRecord, GateRecord, Source
from task.contexts import ChoiceContext
from task.prompts import DEFAULT
from task.thresholds import RARER_LETTER
from task.weights import LARGEST

Weights = dict[str, NDArray[np.float64]]
"""By name of contexts, or of sets of reports."""

SEED = 0
"""Of the posterior's draws, the bootstrap, the permutations and the splits in halves."""

GATE = GateRecord(arm="instilled", contexts="instilled")

CHANGES = (("introspection_trained", "instilled"), ("native_after", "native_before"))
"""Sets of reports that introspection training should have moved: after, before."""

PRINTED = {
    "gpt-4o": (0.84, 0.10, 0.54, 0.74, 0.46, 0.71),
    "gpt-4o-mini": (0.87, -0.01, 0.50, 0.75, 0.40, 0.70),
}
"""r as printed in the paper, by model without release day: of learned_vs_target, then in the order of `REPORTS`.

Only held beside trials that are the paper's (see `released_files.ReleasedData`)."""


@dataclass(frozen=True)
class ReleasedResults(Findings):
    """All that is found in one model's files.

    There are two groups of contexts, `instilled` and `native`; the arms whose decisions were measured have the same
    names, and the weights of both are those of the instilled model. A set of reports is an arm and a comparison.

    Attributes:
        notes: What is missing or was left out, and why, one line each.
        hashes: Of every file that was read, by name.
        printed: r as printed in the paper, by comparison; empty where contexts or trials are not the paper's.
        variants: By set of reports.
        changes: By (after, before).
    """

    notes: list[str]
    hashes: dict[str, str]
    printed: dict[str, float]
    variants: dict[str, Variants]
    changes: dict[tuple[str, str], PairedDifference]

    @property
    def corrected(self) -> dict[str, CorrectedR]:
        """r without measurement noise, by comparison; only of comparisons that could be made."""
        taught = any(not np.isnan(weights).any() for weights in self.targets.values())
        found = zip(self.all_comparisons, self.noise, strict=True)
        return {c.name: noise for c, noise in found if noise and (taught or c is not self.learned_vs_target)}

    @property
    def pooled_by_fold(self) -> bool:
        """Whether introspection-trained reports are there, and come from the models of several folds."""
        trained = self.variants.get("introspection_trained")
        return trained is not None and not math.isnan(trained.standardised_by_fold)

    @property
    def found(self) -> dict[str, ComparisonResult | None]:
        """Every comparison by name, None where a file is missing."""
        by_name = {c.name: c for c in self.all_comparisons if c.name in self.corrected}
        return {name: by_name.get(name) for name in (self.learned_vs_target.name, *REPORTS)}


def read_released(folder: Path, name: str, elsewhere: Elsewhere | None = None) -> ReleasedResults:
    """Estimate the weights of one model, and compare them with targets and reports as the paper did.

    Args:
        folder: The released files.
        name: Of the model, or the beginning of just one name.
        elsewhere: What is not beside the trials, and which trials are used where they are of several conditions.

    Raises:
        InputError: No such model, files of another form, or trials of several conditions.
    """
    elsewhere = elsewhere or Elsewhere()
    data = load_model(folder, find_model(folder, name), elsewhere)
    names = {group: trials.contexts for group, trials in data.decisions.items()}
    contexts = {name: data.contexts[name] for members in names.values() for name in members}
    measured = {group: measure_weights(trials, SEED) for group, trials in data.decisions.items()}
    data.notes.extend(_undetermined(data, measured))
    targets = _targets(data)
    if beyond := sum(bool((np.abs(row) > LARGEST).any()) for row in targets.values()):
        data.notes.append(f"contexts with target weights beyond +-{LARGEST:g}: {beyond}, read as they are")
    decisions = {(g, g): summarise_decisions(trials, names[g], targets, SEED) for g, trials in data.decisions.items()}
    learned = _learned(names, contexts, targets, measured)
    entries = [_entry(name, names) for name in data.reports]
    means = {name: mean_reports(trials.values)[0] for name, trials in data.reports.items()}
    weights = {name: measured[REPORTS[name][0]].weights for name in data.reports}
    printed = PRINTED.get(re.sub(r"-\d{4}-\d{2}-\d{2}$", "", data.model), ()) if data.of_the_paper else ()
    chosen: dict[str, JsonValue] = {"where": {**elsewhere.where}} if elsewhere.where else {}
    return ReleasedResults(
        name=data.model,
        seed=SEED,
        judged=GATE,
        contexts=contexts,
        groups={group: names.get(group, []) for group in SELECTIONS},
        targets=targets,
        decided=data.decisions,
        reported=data.reports,
        entries=entries,
        measured=measured,
        learned_vs_target=learned,
        decisions=decisions,
        gate=_gate(data, decisions, learned.agreement),
        instillations={},
        taught=[],
        comparisons=[
            compare(entry, contexts, measured, data.reports, SEED, data.folds.get(entry.name)) for entry in entries
        ],
        inputs={"model": data.model, "seed": SEED, **chosen, "files": {**data.hashes}},
        notes=data.notes,
        hashes=data.hashes,
        printed=dict(zip((learned.name, *REPORTS), printed, strict=False)),
        variants={
            name: variants(trials.values, weights[name], data.folds.get(name)) for name, trials in data.reports.items()
        },
        changes={
            (after, before): paired_difference(means[before], means[after], weights[after], seed=SEED)
            for after, before in CHANGES
            if after in means and before in means
        },
    )


def _undetermined(data: ReleasedData, measured: dict[str, MeasuredWeights]) -> Iterator[str]:
    """Notes on decisions that were not made, and on contexts whose decisions determine no weights."""
    for group, trials in data.decisions.items():
        if unmade := sum(map(len, trials.reasons)):
            yield f"{unmade} of {trials.shown.sum()} selections on {group} contexts are no letter, and count as missing"
        if without := int((~measured[group].determined).sum()):
            yield (
                f"{without} of {len(trials.contexts)} {group} contexts have no weights, and take no part: the rarer "
                f"letter was chosen fewer than {RARER_LETTER} times there, which determines none"
            )


def _targets(data: ReleasedData) -> Weights:
    """Target weights of the instilled contexts, NaN for those without."""
    if "instilled" not in data.decisions:
        return {}
    decisions = data.decisions["instilled"]
    width = decisions.difference.shape[2]
    return {name: (data.targets or {}).get(name, np.full(width, np.nan)) for name in decisions.contexts}


def _learned(
    names: dict[str, list[str]],
    contexts: dict[str, ChoiceContext],
    targets: Weights,
    measured: dict[str, MeasuredWeights],
) -> ComparisonResult:
    """Learned against target weights; of no contexts where there are no decisions on instilled ones."""
    if "instilled" in names:
        return learned_against_target(GATE, names["instilled"], contexts, targets, measured, SEED)
    nothing = np.empty((0, 1))
    found = agreement(nothing, nothing, valid_reports=0, total_reports=0, seed=SEED)
    points = points_table([], x=nothing, y=nothing)
    return ComparisonResult("learned_vs_target", "", "target", "instilled", found, math.nan, points, {}, 0)


def _entry(name: str, names: dict[str, list[str]]) -> ComparisonRecord:
    """One set of reports, held against the weights of its contexts."""
    group = REPORTS[name][0]
    return ComparisonRecord(
        name=name,
        contexts=group,
        reports=[Source(arm=name, variant=DEFAULT["reports"], contexts=names[group])],
        weights=[Source(arm=group, variant=DEFAULT["decisions"], contexts=names[group])],
    )


def _gate(data: ReleasedData, decisions: dict[tuple[str, str], ArmDecisions], learned: Agreement) -> GateResult:
    """The gate, from decisions shown in one order; it cannot be passed where decisions or targets are missing."""
    if "instilled" in data.decisions and data.targets is not None:
        return judge(decisions["instilled", "instilled"], learned)
    missing = TARGETS if data.targets is None else "the file of decisions on instilled contexts"
    reasons = ["it cannot be judged", f"{missing} is missing or empty"]
    return GateResult(False, math.nan, math.nan, math.nan, reasons)
