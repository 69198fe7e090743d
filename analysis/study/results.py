"""What an analysis finds: weights of every arm, agreement of every comparison, the gate."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from analysis.stats.reliability import CorrectedR
from analysis.stats.variants import Treatment
from analysis.study.comparisons import (
    ComparisonResult,
    Difference,
    MeasuredWeights,
    asked_arm,
    asked_source,
    compare,
    differ,
    learned_against_target,
    measure_weights,
    paired_sides,
)
from analysis.study.evidence import Change, Evidence, change, treatments, weigh, without_noise
from analysis.study.families import difference_is_small, holm, r_is_small
from analysis.study.gate import AnswerGate, ArmDecisions, GateResult, judge, judge_answers, summarise_decisions
from analysis.study.taught import Taught, taught_decisions
from store.checkpoints import LOG
from store.contexts import load_contexts
from store.files import read_json
from store.manifests import (
    DecisionFacts,
    ExampleFacts,
    Facts,
    InputFacts,
    Manifest,
    ReportFacts,
    TrainingFacts,
    read_manifest,
)
from store.run import ArmRecord, ComparisonRecord, GateRecord, RunFolder, RunRecord, read_run
from store.stages import begun
from store.state_inputs import finished_trainings, finished_trials
from store.trials import DecisionTrials, ReportTrials, read_decisions, read_reports
from store.weights import load_weights
from task.contexts import ChoiceContext
from task.prompts import DEFAULT
from task.thresholds import TRUSTED_PARETO_K
from task.weights import Estimator


@dataclass(frozen=True)
class Findings:
    """Weights measured, held against targets and reports: what a run and the released files have in common.

    Attributes:
        name: Of the run, or of the model.
        seed: Of the posterior's draws, the bootstrap and the permutations.
        judged: The arm and the contexts of the gate.
        contexts: Choice contexts by name.
        groups: Names of the contexts of each group.
        targets: Target weights by context.
        decided, reported: Trials of each arm; an arm asked in a variant of the prompts by `asked_arm`.
        entries: What is compared, in the order of the experiment file.
        decisions: How each arm decides, by (arm, group); variants by `asked_arm`.
        measured: Weights of each arm with decision trials.
        learned_vs_target: Agreement of the gate arm's learned weights with the targets, with its points.
        gate: Whether instillation passed.
        instillations: Whether it did in other arms that were trained on decisions, by (arm, group).
        comparisons: What came of `entries`.
        inputs: What a further question depends on: name, seed, and keys or hashes of files.
        taught: What arms were taught to decide by; those of whom nothing is said were taught the targets or nothing.
    """

    name: str
    seed: int
    judged: GateRecord
    contexts: dict[str, ChoiceContext]
    groups: dict[str, list[str]]
    targets: dict[str, NDArray[np.float64]]
    decided: dict[str, DecisionTrials]
    reported: dict[str, ReportTrials]
    entries: list[ComparisonRecord]
    decisions: dict[tuple[str, str], ArmDecisions]
    measured: dict[str, MeasuredWeights]
    learned_vs_target: ComparisonResult
    gate: GateResult
    instillations: dict[tuple[str, str], GateResult]
    comparisons: list[ComparisonResult]
    inputs: dict[str, JsonValue]
    taught: list[Taught]

    @property
    def estimator(self) -> Estimator:
        """What weights are estimated by."""
        return "logistic"

    @property
    def all_comparisons(self) -> list[ComparisonResult]:
        """That of learned with target weights, then the others."""
        return [self.learned_vs_target, *self.comparisons]

    @cached_property
    def evidence(self) -> dict[str, Evidence]:
        """What stands beside the r of each of `comparisons`, by name."""
        parts = self.comparisons, self.decided, self.reported, self.measured, self.targets
        return weigh(*parts, self.seed, self.taught)

    @cached_property
    def noise(self) -> list[CorrectedR | None]:
        """r without measurement noise, of each of `all_comparisons`; None without contexts."""
        return without_noise(self.all_comparisons, self.decided, self.reported, self.measured, self.seed)

    @cached_property
    def missing(self) -> list[Treatment]:
        """Treatments of missing reports, those of the comparisons with the same weights together."""
        return treatments(self.comparisons, self.reported, self.measured, self.seed)

    @property
    def doubtful_fits(self) -> str:
        """How many posteriors are not to be trusted, of how many; nothing if all are."""
        k = np.concatenate([measured.pareto_k[measured.determined] for measured in self.measured.values()])
        doubtful = int((~(k <= TRUSTED_PARETO_K)).sum())
        return f"{doubtful} of {len(k)}" if doubtful else ""

    @property
    def answers(self) -> dict[tuple[str, str], AnswerGate]:
        """Whether each arm decides on each group of contexts, by (arm, group)."""
        return {key: judge_answers(decisions) for key, decisions in self.decisions.items()}

    @property
    def withheld(self) -> dict[str, list[str]]:
        """Names of the comparisons that have no meaning, by the reason why."""
        reasons: dict[str, list[str]] = {}
        for comparison in self.all_comparisons:
            if reason := self.untestable(comparison):
                reasons.setdefault(reason, []).append(comparison.name)
        return reasons

    def noise_of(self, comparison: ComparisonResult) -> CorrectedR | None:
        """r without measurement noise of one of `all_comparisons`."""
        return next(noise for c, noise in zip(self.all_comparisons, self.noise, strict=True) if c is comparison)

    def undecided(self, arm: str, group: str) -> str | None:
        """Why an arm, as it was asked, fails its answer gate on a group of contexts; None if it passes."""
        answers = self.answers.get((arm, group))
        if answers is None or answers.passed:
            return None
        return f"{arm} does not decide on {group} contexts: {'; '.join(answers.reasons)}"

    @property
    def shown(self) -> list[ComparisonResult]:
        """The comparisons of reports that have a meaning."""
        return [c for c in self.comparisons if self.testable(c)]

    def testable(self, comparison: ComparisonResult) -> bool:
        """Whether a comparison has a meaning."""
        return self.untestable(comparison) is None

    def untestable(self, comparison: ComparisonResult) -> str | None:
        """Why a comparison has no meaning; None if it has one.

        It has none where the gate was not passed, or where an arm whose decisions it uses fails its answer gate, or its
        instillation gate if it was trained on decisions on these contexts, and where no report could be read. That of
        learned with target weights is what the gate judges, and only needs decisions.
        """
        if comparison is not self.learned_vs_target and not self.gate.passed:
            return f"the gate was not passed: {'; '.join(self.gate.reasons)}"
        for source in comparison.decided_by:
            arm = asked_source(source, "decisions")
            if reason := self.undecided(arm, comparison.contexts):
                return reason
            taught = self.instillations.get((arm, comparison.contexts))
            if taught and not taught.passed:
                return f"{arm} did not learn its decisions: {'; '.join(taught.reasons)}"
        asked = comparison.agreement.total_reports
        if asked and not comparison.agreement.valid_reports:
            return f"none of the {asked} reports of {comparison.reports} could be read"
        return None


@dataclass(frozen=True)
class RunResults(Findings):
    """All that the report of a run shows.

    Attributes:
        run: Its folder.
        record: Its `run.json`.
        differences: Between two comparisons, in the order of the experiment file.
        changes: Of each difference, whether reports changed where weights did, by name.
        curves: Training log of each trained arm, as TRL wrote it.
        stages: Manifest of each finished stage, by its folder within the run.
        trial_files: Key of each trial file, likewise.
        trainings: What is known of each training, by arm.
    """

    run: RunFolder
    record: RunRecord
    differences: list[Difference]
    changes: dict[str, Change]
    curves: dict[str, list[dict[str, Any]]]
    stages: dict[str, Manifest[Any]]
    trial_files: dict[str, str]
    trainings: dict[str, TrainingFacts]

    @property
    def estimator(self) -> Estimator:
        """See `Findings`."""
        return self.record.estimator

    def untestable_difference(self, difference: Difference) -> str | None:
        """Why a difference has no meaning: one of its two comparisons has none; None if both have one."""
        sides = [c for c in self.comparisons if c.name in (difference.before, difference.after)]
        found = dict.fromkeys(reason for c in sides if (reason := self.untestable(c)))
        return "; ".join(found) or None

    def untestable_change(self, difference: Difference) -> str | None:
        """Why nothing can be said of changes between the two comparisons of a difference; None if something can."""
        found = self.changes[difference.name]
        if reason := found.reason or self.untestable_difference(difference):
            return reason
        group = next(c.contexts for c in self.comparisons if c.name == difference.after)
        arms = [asked_source(source, "decisions") for source in found.decided_by]
        return next((reason for arm in arms if (reason := self.undecided(arm, group))), None)

    @property
    def families(self) -> dict[str, dict[str, float]]:
        """p-values of each family by member, adjusted within it; NaN for what is not testable."""
        p: dict[str, float] = {c.name: c.agreement.p_permutation for c in self.shown}
        p |= {d.name: d.found.p_bootstrap for d in self.differences if not self.untestable_difference(d)}
        named = self.record.families
        return {family: holm({name: p.get(name, math.nan) for name in members}) for family, members in named.items()}

    @cached_property
    def smallness(self) -> dict[str, float]:
        """p-value of "the effect is not small" for each comparison and difference; empty without a smallest effect."""
        if (smallest := self.record.smallest_effect) is None:
            return {}
        by_name = {c.name: c for c in self.comparisons}
        found = {c.name: r_is_small(*c.sides, smallest, self.seed) for c in self.comparisons}
        for d in self.differences:
            x1, x2, shared = paired_sides(by_name[d.before], by_name[d.after])
            found[d.name] = difference_is_small(x1, x2, shared, smallest, self.seed)
        return found

    @property
    def stopped_early(self) -> dict[str, str]:
        """Why the training of an arm was stopped before its end, by arm."""
        return {arm: facts.stopped_early for arm, facts in self.trainings.items() if facts.stopped_early}

    @property
    def base_models(self) -> list[str]:
        """Fingerprints of the base models that trainings and trials used."""
        return sorted({str(base) for made in self.stages.values() if (base := made.depends_on.get("base"))})

    @property
    def planned_decisions(self) -> list[tuple[tuple[str, str], ArmDecisions]]:
        """`decisions` of the arms that stand alone, in the order of the run's plan."""
        alone = ((at, found) for at, found in self.decisions.items() if self.stands_alone(at[0]))
        return sorted(alone, key=lambda item: self.place(item[0][0]))

    def stands_alone(self, asked: str) -> bool:
        """Whether an arm, as it was asked, is shown by itself: it is no kept step, no cut, and none of many adapters.

        Those stand in the pictures and tables of their series.
        """
        made = self.record.arms.get(asked.partition(" (")[0], ArmRecord())
        return made.step is None and made.cut_of is None and made.context is None

    def place(self, arm: str) -> int:
        """Where an arm stands in the run's plan; one asked in a variant comes last."""
        arms = list(self.record.arms)
        return arms.index(arm) if arm in arms else len(arms)


def analyse(path: Path) -> RunResults:
    """Estimate and compare all that a run has measured.

    Raises:
        InputError: The run folder or a trial file that a comparison needs is missing, cut or unfinished.
    """
    run, record = RunFolder(path), read_run(path)
    groups = {name: load_contexts(path / file) for name, file in record.groups.items()}
    contexts = {c.name: c for members in groups.values() for c in members}
    names = {name: [c.name for c in members] for name, members in groups.items()}
    targets = load_weights(run.target_weights)
    asked = [(asked_arm(t.arm, t.measure, t.variant, t.constrained), t) for t in finished_trials(run, record)]
    decided = {arm: read_decisions(t.path, contexts) for arm, t in asked if t.measure == "decisions"}
    reported = {arm: read_reports(t.path) for arm, t in asked if t.measure == "reports"}
    measured = {arm: measure_weights(trials, record.seed, record.estimator) for arm, trials in decided.items()}
    taught = [*taught_decisions(run, record)]
    own = {(entry.asked, entry.group): entry.weights for entry in taught}
    decisions = {
        (arm, group): summarise_decisions(trials, members, own.get((arm, group), targets), record.seed)
        for arm, trials in decided.items()
        for group, members in names.items()
        if {*members} & {*trials.contexts}
    }
    comparisons = [compare(entry, contexts, measured, reported, record.seed) for entry in record.comparisons]
    by_name = {c.name: c for c in comparisons}
    stages = _stages(run, record)
    trial_files = {folder: made.key for folder, made in stages.items() if folder.startswith(run.trials.name)}
    trainings = {arm: stages[f"adapters/{arm}"].facts for arm in finished_trainings(run, record)}

    def instilled(entry: Taught) -> tuple[ComparisonResult, GateResult]:
        judged = GateRecord(arm=entry.arm, contexts=entry.group)
        about = judged, names[entry.group], contexts, entry.weights
        learned = learned_against_target(*about, measured, record.seed, entry.variant)
        facts = trainings.get(entry.arm)
        causes = (facts.stopped_early, facts.missing_skill) if facts else ()
        return learned, judge(decisions[entry.asked, entry.group], learned.agreement, *causes)

    place = (record.gate.arm, record.gate.contexts)
    learned, gate = instilled(Taught(record.gate.arm, DEFAULT["decisions"], place[1], own.get(place, targets)))
    others = {(entry.asked, entry.group): entry for entry in taught if not entry.inherited}
    instillations = {at: instilled(entry)[1] for at, entry in others.items() if at in decisions and at != place}
    return RunResults(
        name=record.name,
        seed=record.seed,
        judged=record.gate,
        contexts=contexts,
        groups=names,
        targets=targets,
        decided=decided,
        reported=reported,
        entries=record.comparisons,
        decisions=decisions,
        measured=measured,
        learned_vs_target=learned,
        gate=gate,
        instillations=instillations,
        comparisons=comparisons,
        inputs={"run": record.name, "seed": record.seed, "trial_files": {**trial_files}},
        taught=taught,
        run=run,
        record=record,
        differences=[differ(entry, comparisons, record.seed) for entry in record.differences],
        changes={
            d.name: change(by_name[d.before], by_name[d.after], measured, record.seed) for d in record.differences
        },
        curves={arm: read_json(path) for arm in trainings if (path := run.adapter(arm) / LOG).is_file()},
        stages=stages,
        trial_files=trial_files,
        trainings=trainings,
    )


def _stages(run: RunFolder, record: RunRecord) -> dict[str, Manifest[Any]]:
    """The manifests of a run's finished stages, by folder: inputs, examples, trainings, trials."""
    prepared: dict[Path, type[Facts]] = {run.inputs: InputFacts}
    prepared |= {run.examples(arm): ExampleFacts for arm in sorted(record.arms)}
    folders = {folder: kind for folder, kind in prepared.items() if begun(folder) == "finished"}
    folders |= {run.adapter(arm): TrainingFacts for arm in finished_trainings(run, record)}
    for trials in sorted(finished_trials(run, record), key=lambda trials: trials.path.as_posix()):
        folders[trials.path] = DecisionFacts if trials.measure == "decisions" else ReportFacts
    return {folder.relative_to(run.path).as_posix(): read_manifest(folder, kind) for folder, kind in folders.items()}
