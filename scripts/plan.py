"""From an experiment file to stages: commands with their configuration, sizes and an estimate of the tokens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from scripts.experiment import BASE_ARM, HELD_OUT, Arm, Experiment, ModelFile, Training, expand_arms
from task.contexts import ChoiceContext
from task.prompts import Measure
from task.trials import sample_trials

Kind = Literal["examples", "sft", "evaluate", "analyse"]
TokenCount = Callable[[Measure, ChoiceContext], tuple[int, int]]
"""Tokens of a trial's prompt and of its answer."""


@dataclass(frozen=True)
class PlannedStage:
    """One command of a run.

    Attributes:
        name: Unique in the run; names the configuration file.
        kind: Which command it is.
        config: What the command reads (empty for the analysis).
        output: Folder that it fills.
        size: Its size in words.
        tokens: Estimate of the tokens that it reads and writes, counting each epoch.
    """

    name: str
    kind: Kind
    config: dict[str, Any]
    output: Path
    size: str
    tokens: int = 0


@dataclass(frozen=True)
class Run:
    """One experiment with one seed: where it lives and what it consists of."""

    experiment: Experiment
    model: ModelFile | None
    groups: Mapping[str, list[ChoiceContext]]
    seed: int
    folder: Path
    tokens: TokenCount

    @property
    def name(self) -> str:
        """Name of the run, and of its W&B group."""
        return self.folder.name

    @property
    def inputs(self) -> Path:
        """Folder with the contexts and weights of the run, as they were when it began."""
        return self.folder / "inputs"

    def arms(self) -> dict[str, list[Arm]]:
        """The arms behind each name of the experiment."""
        return expand_arms(self.experiment, dict(self.groups), self.seed)

    def adapter(self, arm: Arm) -> str | None:
        """Folder of an arm's adapter, None for the base model."""
        return str(self.folder / "adapters" / arm.name) if arm.training else None


def plan(run: Run) -> list[PlannedStage]:
    """All stages of a run in an order in which each finds what it needs."""
    stages: list[PlannedStage] = []
    for name in _training_order(run.experiment.trainings):
        for arm in run.arms()[name]:
            stages += _training_stages(run, arm, run.experiment.trainings[name])
    stages.append(_evaluation_stage(run))
    stages.append(PlannedStage("analyse", "analyse", {}, run.folder / "analysis", "figures, tables and report"))
    return stages


def command(stage: PlannedStage, run: Run, accelerate: Path | None, overwrite: bool) -> list[str]:
    """The command line of a stage; `accelerate` is the launch configuration of trainings."""
    redo = ["--overwrite"] if overwrite else []
    config = ["--config", str(config_path(run, stage))]
    if stage.kind == "examples":
        return [sys.executable, "-m", "train.examples", *config, *redo]
    if stage.kind == "sft":
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(accelerate)]
        return [*launch, "train/sft.py", *config, *(["--overwrite", "true"] if overwrite else [])]
    if stage.kind == "evaluate":
        return [sys.executable, "-m", "eval.run", *config, *redo]
    return [sys.executable, "-m", "analysis.run", "--run", str(run.folder)]


def config_path(run: Run, stage: PlannedStage) -> Path:
    """Where a stage's configuration is written."""
    return run.folder / "stages" / f"{stage.name}.yaml"


def run_record(run: Run) -> dict[str, Any]:
    """What the analysis reads of a run (`run.json`): arms, comparisons with the contexts of each arm, the gate."""
    arms = run.arms()
    names = {group: [c.name for c in contexts] for group, contexts in run.groups.items()}

    def sources(arm_name: str, group: str) -> list[dict[str, Any]]:
        # An arm trained with folds speaks for the contexts held out from it, and for no other of its group.
        taught = {n for arm in arms[arm_name] for n in arm.held_out}
        return [
            {"arm": arm.name, "contexts": [n for n in names[group] if n in arm.held_out or n not in taught]}
            for arm in arms[arm_name]
        ]

    experiment = run.experiment
    return {
        "name": run.name,
        "seed": run.seed,
        "experiment": experiment.model_dump(),
        "model": run.model.model_dump() if run.model else None,
        "groups": {group: str(Path("inputs") / f"{group}.jsonl") for group in run.groups},
        "arms": {arm.name: {"training": arm.training} for group in arms.values() for arm in group},
        "gate": experiment.gate.model_dump(),
        "comparisons": [
            {
                "name": c.name,
                "contexts": c.contexts,
                "reports": sources(c.reports, c.contexts),
                "weights": sources(c.weights, c.contexts),
            }
            for c in experiment.comparisons
        ],
    }


def _training_order(trainings: Mapping[str, Training]) -> list[str]:
    """Names of the trainings, each after the one that it goes on from."""
    order: list[str] = []
    while len(order) < len(trainings):
        ready = [n for n, t in trainings.items() if n not in order and t.start in (BASE_ARM, *order)]
        if not ready:
            stuck = sorted(set(trainings) - set(order))
            raise ValueError(f"trainings go round in a circle: {', '.join(stuck)}")
        order += ready
    return order


def _training_stages(run: Run, arm: Arm, training: Training) -> list[PlannedStage]:
    examples = run.folder / "examples" / arm.name
    [start] = run.arms()[training.start]
    chosen = [c for c in run.groups[training.contexts] if c.name in arm.trained_on]
    rows = len(chosen) * training.train_per_context
    examples_config = {
        "contexts": str(run.inputs / f"{training.contexts}.jsonl"),
        "weights": str(run.inputs / "target_weights.csv"),
        "teach": training.teach,
        "output": str(examples),
        "seed": run.seed,
        "train_per_context": training.train_per_context,
        "validation_per_context": training.validation_per_context,
        "only": arm.trained_on,
        "shuffle_weights": training.labels == "shuffled",
    }
    assert run.model is not None  # the experiment has checked that trainings have a model
    settings = {**run.model.sft, **getattr(run.model, training.teach), **training.sft}
    epochs = float(settings.get("num_train_epochs", 3))
    per_row = [sum(run.tokens(training.teach, c)) for c in chosen]
    gpus = {str(size): entry.sft(training.teach) for size, entry in run.model.gpus.items()}
    sft_config = {
        "env": {"WANDB_RUN_GROUP": run.name, "WANDB_DIR": str(run.folder / "wandb")},
        "model_name_or_path": run.model.name,
        "model_revision": run.model.revision or "main",
        "dtype": run.model.dtype,
        "attn_implementation": run.model.attn_implementation,
        "template": run.model.template,
        "row_tokens": run.model.row_tokens,
        # An experiment that sets the rows at a time knows its hardware.
        "gpus": gpus if gpus and "per_device_train_batch_size" not in training.sft else None,
        "adapter": run.adapter(start),
        "train_file": str(examples / "train.jsonl"),
        "validation_file": str(examples / "validation.jsonl"),
        "output_dir": run.adapter(arm),
        "run_name": f"{run.name}/{arm.name}",
        "report_to": "wandb",
        "seed": run.seed,
        **settings,
    }
    held_out = len(chosen) * training.validation_per_context
    return [
        PlannedStage(
            f"{arm.name}.examples", "examples", examples_config, examples, f"{rows} examples, {held_out} held out"
        ),
        PlannedStage(
            f"{arm.name}.sft",
            "sft",
            {k: v for k, v in sft_config.items() if v is not None},
            run.folder / "adapters" / arm.name,
            f"{rows} examples x {epochs:g} epochs from {start.name}",
            round(epochs * training.train_per_context * sum(per_row)),
        ),
    ]


def _evaluation_stage(run: Run) -> PlannedStage:
    arms = run.arms()
    by_file: dict[tuple[str, Measure], dict[str, Any]] = {}
    used: dict[str, str | None] = {}
    trials = tokens = 0
    for wanted in run.experiment.measurements:
        for arm in arms[wanted.arm]:
            used[arm.name] = run.adapter(arm)
            entry: dict[str, Any] = {
                "arm": arm.name,
                "measure": wanted.measure,
                "contexts": [],
                "per_context": wanted.per_context,
            }
            if (arm.name, wanted.measure) in by_file:
                raise ValueError(f"measurements: {wanted.measure} of {arm.name} are asked for twice; join the entries")
            by_file[arm.name, wanted.measure] = entry
            for group in wanted.contexts:
                source, only = (group, None) if group != HELD_OUT else (_taught_group(run, arm), arm.held_out)
                entry["contexts"].append({"name": source, "file": str(run.inputs / f"{source}.jsonl"), "only": only})
                shown = [c for c in run.groups[source] if only is None or c.name in only]
                rows = wanted.per_context * (2 if wanted.measure == "decisions" else 1)
                trials += rows * len(shown)
                tokens += rows * sum(sum(run.tokens(wanted.measure, c)) for c in shown)
    config: dict[str, Any] = {
        "seed": run.seed,
        "output": str(run.folder / "trials"),
        "engine": run.experiment.engine.model_dump(),
        "model": run.model.model_dump(exclude={"sft", "decisions", "reports", "row_tokens", "gpus"})
        if run.model
        else None,
        "arms": used,
        "measurements": list(by_file.values()),
    }
    if run.experiment.engine.name == "simulated":
        config["planted"] = {a: p.model_dump() for a, p in run.experiment.planted.items() if a in used}
        config["planted_weights"] = str(run.inputs / "planted_weights.csv")
    size = f"{trials:,} trials in {len(by_file)} files from {len(used)} arms"
    return PlannedStage("evaluate", "evaluate", config, run.folder / "trials", size, tokens)


def _taught_group(run: Run, arm: Arm) -> str:
    assert arm.training is not None  # only a trained arm has contexts held out
    return run.experiment.trainings[arm.training].contexts


def sample_prompt(measure: Measure, context: ChoiceContext, seed: int) -> tuple[Any, Any]:
    """Option values of a context's first trial, for counting the tokens of a typical prompt."""
    trials = sample_trials(seed, measure, context, 1)
    return trials.first[0], trials.second[0]
