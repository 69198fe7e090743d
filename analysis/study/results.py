"""What an analysis finds: weights of every arm, agreement of every comparison, the gate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.study.comparisons import (
    ComparisonResult,
    Difference,
    MeasuredWeights,
    asked_arm,
    compare,
    differ,
    learned_against_target,
    measure_weights,
)
from analysis.study.gate import ArmDecisions, GateResult, judge, summarise_decisions
from store.contexts import load_contexts
from store.files import read_json
from store.manifests import (
    DecisionFacts,
    ExampleFacts,
    F,
    InputFacts,
    Manifest,
    ReportFacts,
    TrainingFacts,
    read_manifest,
)
from store.run import GateRecord, RunFolder, RunRecord, read_run
from store.stages import begun
from store.state_inputs import finished_trainings, finished_trials
from store.trials import DecisionTrials, ReportTrials, read_decisions, read_reports
from store.weights import load_weights
from task.contexts import ChoiceContext
from task.prompts import Measure

LOG = "log_history.json"
"""File of an adapter with what its training logged."""


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
        measured: Weights of each arm with decision trials; an arm asked in a variant of the prompts by `asked_arm`.
        learned_vs_target: Agreement of the gate arm's learned weights with the targets, with its points.
        gate: Whether instillation passed.
        comparisons: In the order of the experiment file.
    """

    name: str
    seed: int
    judged: GateRecord
    contexts: dict[str, ChoiceContext]
    groups: dict[str, list[str]]
    targets: dict[str, NDArray[np.float64]]
    measured: dict[str, MeasuredWeights]
    learned_vs_target: ComparisonResult
    gate: GateResult
    comparisons: list[ComparisonResult]

    @property
    def all_comparisons(self) -> list[ComparisonResult]:
        """That of learned with target weights, then the others."""
        return [self.learned_vs_target, *self.comparisons]

    def testable(self, comparison: ComparisonResult) -> bool:
        """Whether a comparison has a meaning: the gate's own always, the others where the gate was passed."""
        return self.gate.passed or comparison is self.learned_vs_target


@dataclass(frozen=True)
class StageMade:
    """How a stage of a run was made; see `store.manifests.Manifest`. `base`: fingerprint of its base model, if any."""

    key: str
    git: str | None
    packages: dict[str, str]
    python: str
    wall_seconds: float
    base: str | None


@dataclass(frozen=True)
class RunResults(Findings):
    """All that the report of a run shows.

    Attributes:
        run: Its folder.
        record: Its `run.json`.
        decisions: How each arm decides, by (arm, group); variants by `asked_arm`.
        differences: Between two comparisons, in the order of the experiment file.
        curves: Training log of each trained arm, as TRL wrote it.
        stages: Where each finished stage comes from, by its folder within the run.
        trial_files: Key of each trial file, likewise.
        trainings: What is known of each training, by arm.
    """

    run: RunFolder
    record: RunRecord
    decisions: dict[tuple[str, str], ArmDecisions]
    differences: list[Difference]
    curves: dict[str, list[dict[str, Any]]]
    stages: dict[str, StageMade]
    trial_files: dict[str, str]
    trainings: dict[str, TrainingFacts]

    @property
    def stopped_early(self) -> dict[str, str]:
        """Why the training of an arm was stopped before its end, by arm."""
        return {arm: facts.stopped_early for arm, facts in self.trainings.items() if facts.stopped_early}

    @property
    def base_models(self) -> list[str]:
        """Fingerprints of the base models that trainings and trials used."""
        return sorted({made.base for made in self.stages.values() if made.base})

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
    decided, reported = _read_arms(run, record, contexts)
    measured = {arm: measure_weights(trials, record.seed) for arm, trials in decided.items()}
    decisions = {
        (arm, group): summary
        for arm, trials in decided.items()
        for group, members in names.items()
        if (summary := _decisions_on(trials, members, targets)) is not None
    }
    learned = learned_against_target(record.gate, names, contexts, targets, measured, record.seed)
    comparisons = [compare(entry, contexts, measured, reported, record.seed) for entry in record.comparisons]
    trained = {arm: read_manifest(run.adapter(arm), TrainingFacts) for arm in finished_trainings(run, record)}
    trainings = {arm: manifest.facts for arm, manifest in trained.items()}
    taught = trainings.get(record.gate.arm)
    trial_files = _trial_files(run, record)
    return RunResults(
        name=record.name,
        seed=record.seed,
        judged=record.gate,
        contexts=contexts,
        groups=names,
        targets=targets,
        measured=measured,
        learned_vs_target=learned,
        gate=judge(
            decisions[record.gate.arm, record.gate.contexts],
            learned.agreement.r,
            taught.stopped_early if taught else None,
            taught.missing_skill if taught else None,
        ),
        comparisons=comparisons,
        run=run,
        record=record,
        decisions=decisions,
        differences=[differ(entry, comparisons, record.seed) for entry in record.differences],
        curves={arm: read_json(path) for arm in trained if (path := run.adapter(arm) / LOG).is_file()},
        stages={**_prepared(run, record), **{f"adapters/{arm}": _made(m) for arm, m in trained.items()}, **trial_files},
        trial_files={folder: made.key for folder, made in trial_files.items()},
        trainings=trainings,
    )


def _made(manifest: Manifest[F]) -> StageMade:
    base = manifest.depends_on.get("base")
    made = (manifest.key, manifest.git, manifest.packages, manifest.python, manifest.wall_seconds)
    return StageMade(*made, str(base) if base else None)


def _prepared(run: RunFolder, record: RunRecord) -> dict[str, StageMade]:
    """The inputs and the examples of a run, by folder."""
    found = {"inputs": _made(read_manifest(run.inputs, InputFacts))} if begun(run.inputs) == "finished" else {}
    for arm in sorted(record.arms):
        if begun(run.examples(arm)) == "finished":
            found[f"examples/{arm}"] = _made(read_manifest(run.examples(arm), ExampleFacts))
    return found


def _trial_files(run: RunFolder, record: RunRecord) -> dict[str, StageMade]:
    """The finished trial files of a run, by folder."""
    kinds: dict[Measure, type[DecisionFacts | ReportFacts]] = {"decisions": DecisionFacts, "reports": ReportFacts}
    found = {
        trials.path.relative_to(run.path).as_posix(): _made(read_manifest(trials.path, kinds[trials.measure]))
        for trials in finished_trials(run, record)
    }
    return dict(sorted(found.items()))


def _read_arms(
    run: RunFolder, record: RunRecord, contexts: dict[str, ChoiceContext]
) -> tuple[dict[str, DecisionTrials], dict[str, ReportTrials]]:
    """All finished trial files of a run; those of an unfinished evaluation are named when a comparison needs them."""
    decided, reported = {}, {}
    for arm, measure, variant, path in finished_trials(run, record):
        asked = asked_arm(arm, measure, variant)
        if measure == "decisions":
            decided[asked] = read_decisions(path, contexts)
        else:
            reported[asked] = read_reports(path)
    return decided, reported


def _decisions_on(
    trials: DecisionTrials, members: list[str], targets: dict[str, NDArray[np.float64]]
) -> ArmDecisions | None:
    rows = np.isin(trials.contexts, members)
    if not rows.any():
        return None
    known = all(name in targets for name, row in zip(trials.contexts, rows, strict=True) if row)
    stacked = np.stack([targets.get(n, np.full(trials.difference.shape[2], np.nan)) for n in trials.contexts])
    return summarise_decisions(trials, rows, stacked if known else None)
