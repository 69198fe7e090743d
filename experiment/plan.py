"""From an experiment file to stages: commands with their configuration, sizes and an estimate of the tokens."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from experiment.arms import Arm, expand_arms
from experiment.checks import HELD_OUT
from experiment.file import ArmMeasurement, Experiment, Training, training_order
from store.evaluation import ContextGroup, EngineSettings, EvalConfig, Measurement, ModelSettings
from store.examples import ExamplesConfig, rehearsed_decisions
from store.files import hash_file
from store.model_file import ModelFile
from store.paths import project_file
from store.run import ArmRecord, ComparisonRecord, RunFolder, RunRecord, Source
from store.state import StagePlan
from task.contexts import ChoiceContext
from task.prompts import DEFAULT, PROMPTS, Measure, Variant, longest_report


@dataclass(frozen=True)
class TrialTokens:
    """Tokens of the trials of a context in one wording.

    Attributes:
        prompt, reply: Of a typical trial.
        shared: What the prompts have in common from their beginning on.
        longest_prompt, longest_reply: Bounds on those of any trial with a free reply.
    """

    prompt: int
    reply: int
    shared: int
    longest_prompt: int
    longest_reply: int


TokenCount = Callable[[Measure, Variant, ChoiceContext], TrialTokens]
"""Tokens of the trials of (measure, variant, context)."""


@dataclass(frozen=True)
class PlannedStage(StagePlan):
    """A stage with its size.

    Attributes:
        size: In words.
        tokens: Estimate of the tokens that it reads and writes, counting each epoch.
        unique: Of an evaluation: the same with what the prompts of a context share counted once.
        notes: What else is worth knowing before it starts.
    """

    size: str = ""
    tokens: int = 0
    unique: int = 0
    notes: str = ""


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
        return str(self.folder.adapter(arm.name)) if arm.training else None


def plan(run: Run) -> list[PlannedStage]:
    """All stages of a run; see `Run.stages`."""
    stages: list[PlannedStage] = []
    for name in training_order(run.experiment.trainings):
        for arm in run.arms[name]:
            training = run.experiment.trainings[name]
            stages += [_examples_stage(run, arm, training), _training_stage(run, arm, training)]
    stages.append(_evaluation_stage(run))
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
        wording=_wording(experiment),
        model=run.model,
        experiment=experiment.model_dump(mode="json"),
    )


def _arm_record(run: Run, arm: Arm) -> ArmRecord:
    if arm.training is None:
        return ArmRecord()
    training = run.experiment.trainings[arm.training]
    whole = training.folds is None and training.labels == "target"
    return ArmRecord(training=arm.training, teach=training.teach, contexts=training.contexts if whole else None)


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
            found.add(training.variant)
        elif training.rehearse and measure == "decisions":
            found.add(DEFAULT["decisions"])
        arm = training.start
    return found


def _taught(run: Run, arm: Arm, training: Training) -> list[ChoiceContext]:
    return [c for c in run.groups[training.contexts] if c.name in arm.trained_on]


def _examples_stage(run: Run, arm: Arm, training: Training) -> PlannedStage:
    config = ExamplesConfig(
        contexts=str(run.folder.contexts_file(training.contexts)),
        weights=str(run.folder.target_weights),
        teach=training.teach,
        output=str(run.folder.examples(arm.name)),
        seed=run.seed,
        train_per_context=training.train_per_context,
        validation_per_context=training.validation_per_context,
        only=[c.name for c in run.groups[training.contexts] if c.name in {*arm.trained_on, *arm.validated_on}],
        shuffle_weights=training.labels == "shuffled",
        validation_contexts=arm.validated_on,
        rehearse=training.rehearse,
        variant=training.variant,
        wording=run.wording,
    )
    held_out = len(arm.validated_on or arm.trained_on) * training.validation_per_context
    size = f"{_rows_in_words(arm, training)}, {held_out} held out"
    return PlannedStage(
        f"{arm.name}.examples", "examples", config.model_dump(mode="json"), run.folder.examples(arm.name), size
    )


def _rows_in_words(arm: Arm, training: Training) -> str:
    contexts, reports = len(arm.trained_on), training.train_per_context
    rehearsed = sum(rehearsed_decisions(training.rehearse, reports, contexts))
    more = f" ({rehearsed} of them rehearsed decisions)" if rehearsed else ""
    return f"{contexts * reports + rehearsed} examples{more}"


def _training_tokens(run: Run, arm: Arm, training: Training) -> int:
    """Tokens of an epoch."""
    taught = _taught(run, arm, training)
    rehearsed = rehearsed_decisions(training.rehearse, training.train_per_context, len(taught))
    total = 0
    for context, decisions in zip(taught, rehearsed, strict=True):
        rows: dict[Measure, int] = {"decisions": decisions}
        rows[training.teach] = training.train_per_context
        for measure, count in rows.items():
            found = run.tokens(measure, training.variant if measure == training.teach else DEFAULT[measure], context)
            total += count * (found.prompt + found.reply)
    return total


def _training_stage(run: Run, arm: Arm, training: Training) -> PlannedStage:
    assert run.model is not None  # the experiment has checked that trainings have a model
    [start] = run.arms[training.start]  # and that what they start from has no folds
    examples = run.folder.examples(arm.name)
    settings = {**run.model.training(training.teach), **training.sft}
    gpus = {str(size): entry.sft(training.teach) for size, entry in run.model.gpus.items()}
    decisions = training.teach == "decisions"
    config = {
        "env": {"WANDB_RUN_GROUP": run.folder.name, "WANDB_DIR": str(run.folder.path)},
        "model_name_or_path": run.model.name,
        "model_revision": run.model.revision or "main",
        "licence": run.model.licence,
        "dtype": run.model.dtype,
        "attn_implementation": run.model.attn_implementation,
        "template": run.model.template,
        "row_tokens": run.model.row_tokens,
        # An experiment that sets the rows at a time knows its hardware.
        "gpus": gpus if gpus and "per_device_train_batch_size" not in training.sft else None,
        "adapter": run.adapter(start),
        "train_file": str(examples / "train.jsonl"),
        "validation_file": str(examples / "validation.jsonl") if training.validation_per_context else None,
        "probe_contexts": str(run.folder.contexts_file(training.contexts)) if decisions else None,
        "output_dir": run.adapter(arm),
        "run_name": f"{run.folder.name}/{arm.name}",
        "report_to": "wandb",
        "seed": run.seed,
        **settings,
    }
    epochs = float(settings.get("num_train_epochs", 3))
    return PlannedStage(
        f"{arm.name}.sft",
        "sft",
        {k: v for k, v in config.items() if v is not None},
        run.folder.adapter(arm.name),
        f"{_rows_in_words(arm, training)} x {epochs:g} epochs from {start.name}",
        round(epochs * _training_tokens(run, arm, training)),
    )


def _evaluation_stage(run: Run) -> PlannedStage:
    measurements: dict[tuple[str, Measure, Variant, bool], Measurement] = {}
    used: dict[str, str | None] = {}
    size = _Size()
    for wanted in run.experiment.measurements:
        for arm in run.arms[wanted.arm]:
            key = (arm.name, wanted.measure, wanted.variant, wanted.constrained)
            measurements[key] = _measurement(run, wanted, arm)
            used[arm.name] = run.adapter(arm)
            for group in measurements[key].contexts:
                for context in run.groups[group.name]:
                    if group.only is None or context.name in group.only:
                        size.add(run.tokens, wanted, context)
    experiment, simulated = run.experiment, run.experiment.engine.name == "simulated"
    tells = any(m.tells_weights for m in experiment.measurements)
    config = EvalConfig(
        seed=run.seed,
        output=str(run.folder.trials),
        engine=_with_lengths(experiment.engine, size) if run.model else experiment.engine,
        model=ModelSettings(**run.model.model_dump(include={*ModelSettings.model_fields})) if run.model else None,
        arms=used,
        planted={a: p for a, p in experiment.planted.items() if a in used} if simulated else {},
        planted_weights=str(run.folder.planted_weights) if simulated else None,
        told_weights=str(run.folder.told_weights) if tells else None,
        wording=run.wording,
        measurements=list(measurements.values()),
    )
    words = f"{size.trials:,} trials in {len(measurements)} files from {len(used)} arms"
    notes = f"no prompt is longer than {size.longest_prompt} tokens, no reply than {size.longest_reply}"
    return PlannedStage(
        "evaluate",
        "evaluate",
        config.model_dump(mode="json"),
        run.folder.trials,
        words,
        size.tokens,
        size.unique,
        notes if run.model else "",
    )


def _with_lengths(engine: EngineSettings, size: _Size) -> EngineSettings:
    """The engine with the counted lengths, where the experiment does not say any."""
    lengths = {"max_prompt_tokens": size.longest_prompt, "max_reply_tokens": size.longest_reply}
    return engine.model_copy(update={k: v for k, v in lengths.items() if getattr(engine, k) is None})


def _measurement(run: Run, wanted: ArmMeasurement, arm: Arm) -> Measurement:
    """One entry of an evaluation's configuration: an arm, measured as the experiment asks."""
    groups = []
    for group in wanted.contexts:
        name = _taught_group(run, arm) if group == HELD_OUT else group
        only = arm.held_out if group == HELD_OUT else None
        groups.append(ContextGroup(name=name, file=str(run.folder.contexts_file(name)), only=only))
    return Measurement(**wanted.model_dump(exclude={"arm", "contexts"}), arm=arm.name, contexts=groups)


@dataclass
class _Size:
    """Trials and tokens of an evaluation, added up context by context."""

    trials: int = 0
    tokens: int = 0
    unique: int = 0
    longest_prompt: int = 0
    longest_reply: int = 0

    def add(self, count: TokenCount, wanted: ArmMeasurement, context: ChoiceContext) -> None:
        """Add a context's trials; a report after the arm's own choice asks for that choice first.

        Beside constrained reports a few free ones are asked for.
        """
        rows = wanted.rows_per_context + (wanted.free_samples if wanted.constrained else 0)
        asked: list[tuple[Measure, Variant]] = [(wanted.measure, wanted.variant)]
        if PROMPTS[wanted.measure][wanted.variant].follow_up is not None:
            asked.append(("decisions", DEFAULT["decisions"]))
        self.trials += wanted.rows_per_context
        for measure, variant in asked:
            found = count(measure, variant, context)
            self.tokens += rows * (found.prompt + found.reply)
            self.unique += found.shared + rows * (found.prompt - found.shared + found.reply)
            self.longest_prompt = max(self.longest_prompt, found.longest_prompt)
            self.longest_reply = max(self.longest_reply, found.longest_reply)
        if wanted.constrained:
            # Within a grammar a reply may be spelled in any tokens that make up the text, single bytes even.
            self.longest_reply = max(self.longest_reply, longest_report(context))


def _taught_group(run: Run, arm: Arm) -> str:
    assert arm.training is not None  # only a trained arm has contexts held out
    return run.experiment.trainings[arm.training].contexts
