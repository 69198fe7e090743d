"""From an experiment file to stages: commands with their configuration, sizes and an estimate of the tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import JsonValue

from experiment.adapters import first_training
from experiment.arms import Arm, alone_name, expand_arms
from experiment.file import ArmMeasurement, Experiment
from experiment.plan_evaluation import evaluation_stage, measure_before_stage
from experiment.plan_inside import attribute_stage, patch_stage
from experiment.plan_training import derive_stage, examples_stage, training_stage, weights_stage
from experiment.planned import PlannedStage, TokenCount
from experiment.training import training_order
from store.files import hash_file
from store.model_file import ModelFile
from store.paths import project_file
from store.run import ArmRecord, ComparisonRecord, RunFolder, RunRecord, Source
from task.contexts import ChoiceContext
from task.names import AT
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
        return expand_arms(self.experiment, self.model, self.groups, self.seed)

    @cached_property
    def by_name(self) -> dict[str, Arm]:
        """Every arm of the run by its own name."""
        return {arm.name: arm for arms in self.arms.values() for arm in arms}

    def kept_steps(self, training: str) -> list[int]:
        """The steps that a training keeps before its last one."""
        return sorted({arm.step for arm in self.by_name.values() if arm.training == training and arm.step is not None})

    def asked(self, wanted: ArmMeasurement) -> list[Arm]:
        """The arms that a measurement asks."""
        if wanted.kept:
            return [a for a in self.by_name.values() if a.training == wanted.arm and a.step is not None]
        if wanted.cuts:
            wholes = {arm.name for arm in self.arms[wanted.arm]}
            return [arm for arm in self.by_name.values() if arm.half and arm.half.arm in wholes]
        return self.arms[wanted.arm]

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
        for arm in run.arms[alone_name(name) if training.alone else name]:
            stages += [examples_stage(run, arm, training), training_stage(run, arm, training)]
    stages += [derive_stage(run, arm) for arm in run.by_name.values() if arm.terms]
    stages.append(evaluation_stage(run))
    if inside := run.experiment.inside:
        stages.append(attribute_stage(run, inside))
        stages += [patch_stage(run, inside, inside.patching)] if inside.patching else []
    stages.append(PlannedStage("analyse", "analyse", {}, run.folder.analysis, "figures, tables and report"))
    stages.append(PlannedStage("track", "track", {}, run.folder.tracked, "figures and tables for W&B"))
    return stages


def run_record(run: Run) -> RunRecord:
    """What the analysis reads of a run: arms, comparisons with the contexts of each arm, the gate."""
    names = {group: [c.name for c in contexts] for group, contexts in run.groups.items()}

    def sources(arm_name: str, group: str, variant: Variant, constrained: bool = False) -> list[Source]:
        # An arm trained with folds speaks for the contexts held out from it, and for no other of its group. One that
        # was trained on a single context speaks for that one.
        taught = {n for arm in run.arms[arm_name] for n in arm.speaks_for}
        found = []
        for arm in run.arms[arm_name]:
            own = [name for name in names[group] if name in arm.speaks_for or name not in taught]
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
    derived: dict[str, JsonValue] = {t: [part.model_dump() for part in parts] for t, parts in arm.terms.items()}
    if arm.training is None:
        part = arm.half
        return ArmRecord(
            derived=derived or None,
            cut_of=part.arm if part else None,
            cut=part.layer if part else None,
            kept_side=part.side if part else None,
            layer_count=arm.layer_count,
        )
    training = run.experiment.trainings[arm.training]
    whole = training.folds is None and not training.apart and training.labels in ("target", "redrawn")
    return ArmRecord(
        training=arm.training,
        teach=training.teach,
        contexts=training.contexts if whole else None,
        start=training.start,
        labels=training.labels,
        flip_under=training.flip_under,
        derived=derived or None,
        step=arm.step,
        layers=first_training(run.experiment.trainings, arm.training).layers,
        on_top_of=training.on_top_of,
        context=arm.context,
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
    arm = arm.partition(AT)[0]
    while arm in experiment.trainings:
        training = experiment.trainings[arm]
        if training.teach == measure:
            found.update({training.variant, training.flip_under or training.variant})
        elif training.rehearse and measure == "decisions":
            found.add(DEFAULT["decisions"])
        arm = training.learns_from.partition(AT)[0]
    return found
