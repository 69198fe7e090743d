"""What one model's released files say: the comparisons of the paper, and how far to believe each."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.stats.agreement import PairedDifference, agreement, mean_reports, paired_difference
from analysis.stats.estimators import logistic_posterior
from analysis.stats.missing import Treatment, treat_missing
from analysis.stats.reliability import CorrectedR, corrected_r, halves_of_reports, halves_of_weights
from analysis.stats.variants import Variants, variants
from analysis.study.comparisons import ComparisonResult, MeasuredWeights, compare, learned_against_target
from analysis.study.gate import ArmDecisions, GateResult, judge
from analysis.study.released_files import REPORTS, TARGETS, Decisions, ReleasedData
from analysis.study.results import Findings
from store.run import ComparisonRecord, GateRecord, Source
from task.errors import InputError
from task.prompts import DEFAULT
from task.seeding import stream
from task.weights import rescale

SEED = 0
"""Of the posterior's draws, the bootstrap, the permutations and the splits in halves."""

GATE = GateRecord(arm="instilled", contexts="instilled")

CHANGES = (("introspection_trained", "instilled"), ("native_after", "native_before"))
"""Sets of reports that introspection training should have moved: after, before."""

PRINTED = {
    "gpt-4o": {
        "learned_vs_target": 0.84,
        "off_the_shelf": 0.10,
        "instilled": 0.54,
        "introspection_trained": 0.74,
        "native_before": 0.46,
        "native_after": 0.71,
    },
    "gpt-4o-mini": {
        "learned_vs_target": 0.87,
        "off_the_shelf": -0.01,
        "instilled": 0.50,
        "introspection_trained": 0.75,
        "native_before": 0.40,
        "native_after": 0.70,
    },
}
"""r as printed in the paper, by model without its release day."""


@dataclass(frozen=True)
class ReleasedResults:
    """All that is found in one model's files.

    Attributes:
        data: The files.
        findings: With two groups of contexts, `instilled` and `native`, whose weights are both of the instilled
            model, and one comparison for each set of reports.
        printed: r as printed in the paper, by comparison; empty for other models.
        corrected: r without measurement noise, by comparison.
        variants: By set of reports.
        missing: Treatments of missing reports, those of the sets on the same contexts together.
        changes: By (after, before).
    """

    data: ReleasedData
    findings: Findings
    printed: dict[str, float]
    corrected: dict[str, CorrectedR]
    variants: dict[str, Variants]
    missing: list[Treatment]
    changes: dict[tuple[str, str], PairedDifference]

    @property
    def found(self) -> dict[str, ComparisonResult | None]:
        """Every comparison by name, None where a file is missing."""
        by_name = {c.name: c for c in self.findings.comparisons}
        check = self.findings.learned_vs_target
        known = self.data.targets is not None and "instilled" in self.data.decisions
        return {check.name: check if known else None, **{name: by_name.get(name) for name in REPORTS}}

    def testable(self, name: str) -> bool:
        """Whether a comparison can be believed: the gate's own always, the others when it was passed."""
        return self.findings.gate.passed or name == self.findings.learned_vs_target.name


def analyse_released(data: ReleasedData) -> ReleasedResults:
    """Estimate the weights, and compare them with targets and reports as the paper did.

    Raises:
        InputError: Target weights of another number of attributes than the decisions.
    """
    measured = {group: _measure(decisions) for group, decisions in data.decisions.items()}
    means = {name: mean_reports(trials.values)[0] for name, trials in data.reports.items()}
    weights = {name: measured[REPORTS[name][0]].weights for name in data.reports}
    return ReleasedResults(
        data=data,
        findings=_findings(data, measured),
        printed=PRINTED.get(re.sub(r"-\d{4}-\d{2}-\d{2}$", "", data.model), {}),
        corrected=_corrected(data, measured),
        variants={name: variants(trials.values, weights[name]) for name, trials in data.reports.items()},
        missing=_missing(data, measured),
        changes={
            (after, before): paired_difference(means[before], means[after], weights[after], seed=SEED)
            for after, before in CHANGES
            if after in means and before in means
        },
    )


def _measure(decisions: Decisions) -> MeasuredWeights:
    posterior = logistic_posterior(decisions.chose_a, decisions.difference, seed=SEED, intervals=False)
    unknown = np.full_like(posterior.mean, np.nan)  # the release holds letters, not their probabilities
    weights = rescale(posterior.mean)
    return MeasuredWeights(decisions.contexts, posterior.mean, posterior.sd, weights, unknown, posterior.pareto_k)


def _target_table(data: ReleasedData) -> NDArray[np.float64]:
    """Target weights of the instilled contexts, NaN for those without, shape (contexts, attributes)."""
    decisions = data.decisions["instilled"]
    width = decisions.difference.shape[2]
    rows = [(data.targets or {}).get(name, np.full(width, np.nan)) for name in decisions.contexts]
    if wrong := [name for name, row in zip(decisions.contexts, rows, strict=True) if len(row) != width]:
        raise InputError(f"{TARGETS}: {wrong[0]!r} has not {width} weights as its decisions; use files of one release")
    return np.stack(rows)


def _findings(data: ReleasedData, measured: dict[str, MeasuredWeights]) -> Findings:
    names = {group: decisions.contexts for group, decisions in data.decisions.items()}
    contexts = {name: data.contexts[name] for members in names.values() for name in members}
    targets: dict[str, NDArray[np.float64]] = {}
    if "instilled" in names:
        targets = dict(zip(names["instilled"], _target_table(data), strict=True))
        learned = learned_against_target(GATE, names, contexts, targets, measured, SEED)
    else:
        nothing = agreement(np.empty((0, 1)), np.empty((0, 1)), valid_reports=0, total_reports=0, seed=SEED)
        points = pd.DataFrame(columns=["context", "attribute", "x", "y"])
        learned = ComparisonResult("learned_vs_target", "", "target", "instilled", nothing, math.nan, points, {}, 0)
    return Findings(
        name=data.model,
        seed=SEED,
        judged=GATE,
        contexts=contexts,
        groups={group: names.get(group, []) for group in ("instilled", "native")},
        targets=targets,
        measured=measured,
        learned_vs_target=learned,
        gate=_gate(data, learned.agreement.r),
        comparisons=[compare(_entry(name, names), contexts, measured, data.reports, SEED) for name in data.reports],
    )


def _entry(name: str, names: dict[str, list[str]]) -> ComparisonRecord:
    """One set of reports, held against the weights of its contexts."""
    group = REPORTS[name][0]
    return ComparisonRecord(
        name=name,
        contexts=group,
        reports=[Source(arm=name, variant=DEFAULT["reports"], contexts=names[group])],
        weights=[Source(arm=group, variant=DEFAULT["decisions"], contexts=names[group])],
    )


def _gate(data: ReleasedData, r: float) -> GateResult:
    """The gate, from decisions shown in one order; it cannot be passed where decisions or targets are missing."""
    if "instilled" not in data.decisions or data.targets is None:
        missing = TARGETS if data.targets is None else "the file of decisions on instilled contexts"
        return GateResult(
            False, math.nan, math.nan, math.nan, ["it cannot be judged", f"{missing} is missing or empty"]
        )
    decisions = data.decisions["instilled"]
    gain: NDArray[np.float64] = np.einsum("cta,ca->ct", decisions.difference, _target_table(data))
    shown = ~np.isnan(decisions.chose_a)
    decided = shown & (np.abs(gain) > 1e-9)
    follows = decisions.chose_a[decided] == (gain[decided] > 0)
    summary = ArmDecisions(
        pairs=int(shown.sum()),
        share_a=float(decisions.chose_a[shown].mean()) if shown.any() else math.nan,
        letter_mass=math.nan,
        position_bias=math.nan,
        flips=math.nan,
        agreement=float(follows.mean()) if follows.size else math.nan,
    )
    return judge(summary, r)


def _corrected(data: ReleasedData, measured: dict[str, MeasuredWeights]) -> dict[str, CorrectedR]:
    halves = {
        group: halves_of_weights(d.chose_a, d.difference, rng=stream(SEED, "halves_of_weights", group), seed=SEED)
        for group, d in data.decisions.items()
    }
    found = {}
    if data.targets is not None and "instilled" in halves:
        learned = measured["instilled"].weights
        found["learned_vs_target"] = corrected_r(_target_table(data), learned, None, halves["instilled"], seed=SEED)
    for name, trials in data.reports.items():
        group = REPORTS[name][0]
        reported = halves_of_reports(trials.values, rng=stream(SEED, "halves_of_reports", name))
        mean, _ = mean_reports(trials.values)
        found[name] = corrected_r(mean, measured[group].weights, reported, halves[group], seed=SEED)
    return found


def _missing(data: ReleasedData, measured: dict[str, MeasuredWeights]) -> list[Treatment]:
    found = []
    for group, of_group in measured.items():
        sets = {name: trials for name, trials in data.reports.items() if REPORTS[name][0] == group}
        if sets:
            values = {name: trials.values for name, trials in sets.items()}
            asked = {name: trials.total for name, trials in sets.items()}
            found += treat_missing(values, asked, of_group.weights, seed=SEED)
    return found
