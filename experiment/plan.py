"""From an experiment file to stages: commands with their configuration, sizes and an estimate of the tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from experiment.arms import Arm, expand_arms
from experiment.file import Experiment, training_order
from experiment.plan_evaluation import evaluation_stage, measure_before_stage
from experiment.plan_training import derive_stage, examples_stage, training_stage, weights_stage
from experiment.planned import PlannedStage, TokenCount
from store.files import hash_file
from store.model_file import ModelFile
from store.paths import project_file
from store.run import ArmRecord, ComparisonRecord, RunFolder, RunRecord, Source
from task.contexts import ChoiceContext
from task.prompts import DEFAULT, Measure, Variant


@dataclass(frozen=True)
class Run:
    """One experiment with one seed: where it lives and what it consists of."""

    experiment: Experiment
    model: ModelFile | None
    groups: Mapping[str, list[ChoiceContext]]
    seed: int
    folder: RunFolder
    tokens: TokenCount

    @cached_property
    def arms(self) -> dict[str, list[Arm]]:
        """The arms behind each name of the experiment."""
        return expand_arms(self.experiment, self.groups, self.seed)

    @cached_property
    def stages(self) -> list[PlannedStage]:
        """All stages of the run in an order in which each finds what it needs."""
        return plan(self)

    @cached_property
    def record(self) -> RunRecord:
        """What `run.json` says of the run."""
        return run_record(self)

    @property
    def wording(self) -> str | None:
        """The run's own copy of the wording file that the experiment names."""
        return str(self.folder.wording) if self.experiment.wording else None

    @property
    def warnings(self) -> list[str]:
        """What casts doubt on the results to come, a line each."""
        return other_words(self.experiment)

    def adapter(self, arm: Arm) -> str | None:
        """Folder of an arm's adapter, None for the base model."""
        return str(self.folder.adapter(arm.name)) if arm.training or arm.terms else None


def plan(run: Run) -> list[PlannedStage]:
    """All stages of a run; see `Run.stages`."""
    stages: list[PlannedStage] = []
    measured_before: list[str] = []
    for name in training_order(run.experiment.trainings):
        training = run.experiment.trainings[name]
        if training.labels == "learned" and training.start not in measured_before:
            measured_before.append(training.start)
            stages += [measure_before_stage(run, training.start), weights_stage(run, training.start)]
        for arm in run.arms[name]:
            stages += [examples_stage(run, arm, training), training_stage(run, arm, training)]
    stages += [derive_stage(run, arm) for name in run.experiment.derived for arm in run.arms[name]]
    stages.append(evaluation_stage(run))
    stages.append(PlannedStage("analyse", "analyse", {}, run.folder.analysis, "figures, tables and report"))
    stages.append(PlannedStage("track", "track", {}, run.folder.tracked, "figures and tables for W&B"))
    return stages


def run_record(run: Run) -> RunRecord:
    """What the analysis reads of a run: arms, comparisons with the contexts of each arm, the gate."""
    names = {group: [c.name for c in contexts] for group, contexts in run.groups.items()}

    def sources(arm_name: str, group: str, variant: Variant, constrained: bool = False) -> list[Source]:
        # An arm trained with folds speaks for the contexts held out from it, and for no other of its group.
        taught = {n for arm in run.arms[arm_name] for n in arm.held_out}
        found = []
        for arm in run.arms[arm_name]:
            own = [name for name in names[group] if name in arm.held_out or name not in taught]
            found.append(Source(arm=arm.name, variant=variant, constrained=constrained, contexts=own))
        return found

    experiment = run.experiment
    return RunRecord(
        name=run.folder.name,
        seed=run.seed,
        groups={g: run.folder.contexts_file(g).relative_to(run.folder.path).as_posix() for g in run.groups},
        arms={arm.name: _arm_record(run, arm) for group in run.arms.values() for arm in group},
        gate=experiment.gate,
        comparisons=[
            ComparisonRecord(
                name=c.name,
                contexts=c.contexts,
                reports=sources(c.reports, c.contexts, c.reports_variant, c.reports_constrained),
                weights=sources(c.weights, c.contexts, c.weights_variant),
            )
            for c in experiment.comparisons
        ],
        differences=experiment.differences,
        families=experiment.families,
        smallest_effect=experiment.smallest_effect,
        estimator=experiment.estimator,
        wording=_wording(experiment),
        model=run.model,
        experiment=experiment.model_dump(mode="json"),
    )


def _arm_record(run: Run, arm: Arm) -> ArmRecord:
    if arm.terms:
        return ArmRecord(derived={term: [part.model_dump() for part in parts] for term, parts in arm.terms.items()})
    if arm.training is None:
        return ArmRecord()
    training = run.experiment.trainings[arm.training]
    whole = training.folds is None and training.labels in ("target", "redrawn")
    return ArmRecord(
        training=arm.training,
        teach=training.teach,
        contexts=training.contexts if whole else None,
        start=training.start,
        labels=training.labels,
        flip_under=training.flip_under,
    )


def _wording(experiment: Experiment) -> str:
    """What a run says of its words: the names of our own, or the file's name and hash."""
    if experiment.wording is None:
        return "/".join(DEFAULT.values())
    return f"{Path(experiment.wording).name} ({hash_file(project_file(experiment.wording))})"


def other_words(experiment: Experiment) -> list[str]:
    """Measurements of arms in words that they were not taught in, one line a measure and what it was taught in."""
    found: dict[tuple[Measure, str], tuple[dict[Variant, None], dict[str, None]]] = {}
    for asked in experiment.measurements:
        taught = _taught_variants(experiment, asked.arm, asked.measure)
        if taught and asked.variant not in taught:
            variants, arms = found.setdefault((asked.measure, " and ".join(sorted(taught))), ({}, {}))
            variants[asked.variant] = arms[asked.arm] = None
    return [
        f"{measure} taught as {taught} are measured as {', '.join(variants)} ({', '.join(arms)}): these answers may "
        "differ for the words alone"
        for (measure, taught), (variants, arms) in found.items()
    ]


def _taught_variants(experiment: Experiment, arm: str, measure: Measure) -> set[Variant]:
    """The variants in which a measure was taught to an arm, by its training and those that it went on from."""
    found = set()
    while arm in experiment.trainings:
        training = experiment.trainings[arm]
        if training.teach == measure:
            found.update({training.variant, training.flip_under or training.variant})
        elif training.rehearse and measure == "decisions":
            found.add(DEFAULT["decisions"])
        arm = training.start
    return found
