"""From an experiment file to stages: commands with their configuration, sizes and an estimate of the tokens."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from experiment.file import BASE_ARM, HELD_OUT, Arm, ArmMeasurement, Experiment, Training, expand_arms
from store.model_file import ModelFile
from experiment.track import TRACKED
from store.evaluation import ModelSettings
from task.contexts import ChoiceContext
from task.prompts import DEFAULT, PROMPTS, Measure, Variant

TOLD_WEIGHTS = "told_weights.csv"
"""File of a run's inputs: the weights that prompts tell, where an experiment has such prompts."""

Kind = Literal["examples", "sft", "evaluate", "analyse", "track"]


@dataclass(frozen=True)
class TrialTokens:
    """Tokens of the trials of a context in one wording.

    Attributes:
        prompt, reply: Of a typical trial.
        shared: What the prompts have in common from their beginning on.
        longest_prompt, longest_reply: Bounds on those of any trial.
    """

    prompt: int
    reply: int
    shared: int
    longest_prompt: int
    longest_reply: int


TokenCount = Callable[[Measure, Variant, ChoiceContext], TrialTokens]
"""Tokens of the trials of (measure, variant, context)."""


@dataclass(frozen=True)
class PlannedStage:
    """One command of a run.

    Attributes:
        name: Unique in the run; names the configuration file.
        kind: Which command it is.
        config: What the command reads (empty for what reads a run's folder alone).
        output: Folder that it fills.
        size: Its size in words.
        tokens: Estimate of the tokens that it reads and writes, counting each epoch.
        unique: Of an evaluation: the same with what the prompts of a context share counted once.
        notes: What else is worth knowing before it starts.
    """

    name: str
    kind: Kind
    config: dict[str, Any]
    output: Path
    size: str
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
    stages.append(PlannedStage("track", "track", {}, run.folder / TRACKED, "figures and tables for W&B"))
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
    module = "analysis.run" if stage.kind == "analyse" else "experiment.track"
    return [sys.executable, "-m", module, "--run", str(run.folder)]


def config_path(run: Run, stage: PlannedStage) -> Path:
    """Where a stage's configuration is written."""
    return run.folder / "stages" / f"{stage.name}.yaml"


def run_record(run: Run) -> dict[str, Any]:
    """What the analysis reads of a run (`run.json`): arms, comparisons with the contexts of each arm, the gate."""
    arms = run.arms()
    names = {group: [c.name for c in contexts] for group, contexts in run.groups.items()}

    def sources(arm_name: str, group: str, variant: Variant) -> list[dict[str, Any]]:
        # An arm trained with folds speaks for the contexts held out from it, and for no other of its group.
        taught = {n for arm in arms[arm_name] for n in arm.held_out}
        return [
            {
                "arm": arm.name,
                "variant": variant,
                "contexts": [n for n in names[group] if n in arm.held_out or n not in taught],
            }
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
        "differences": [d.model_dump() for d in experiment.differences],
        "comparisons": [
            {
                "name": c.name,
                "contexts": c.contexts,
                "reports": sources(c.reports, c.contexts, c.reports_variant),
                "weights": sources(c.weights, c.contexts, c.weights_variant),
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
    counted = [run.tokens(training.teach, DEFAULT[training.teach], c) for c in chosen]
    per_row = [tokens.prompt + tokens.reply for tokens in counted]
    gpus = {str(size): entry.sft(training.teach) for size, entry in run.model.gpus.items()}
    sft_config = {
        "env": {"WANDB_RUN_GROUP": run.name, "WANDB_DIR": str(run.folder)},
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
        "probe_contexts": str(run.inputs / f"{training.contexts}.jsonl") if training.teach == "decisions" else None,
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
    engine = run.experiment.engine
    entries: list[dict[str, Any]] = []
    used: dict[str, str | None] = {}
    size = _Size()
    for wanted in run.experiment.measurements:
        for arm in run.arms()[wanted.arm]:
            used[arm.name] = run.adapter(arm)
            entries.append(_measurement(run, wanted, arm))
            if _file_of(entries[-1]) in map(_file_of, entries[:-1]):
                raise ValueError(f"measurements: {wanted.measure} of {arm.name} are asked for twice; join the entries")
            for group in entries[-1]["contexts"]:
                for context in run.groups[group["name"]]:
                    if group["only"] is None or context.name in group["only"]:
                        size.add(run.tokens, wanted, context)
    lengths = {"max_prompt_tokens": size.longest_prompt, "max_reply_tokens": size.longest_reply} if run.model else {}
    config: dict[str, Any] = {
        "seed": run.seed,
        "output": str(run.folder / "trials"),
        # What the experiment says of the lengths goes before what was counted here.
        "engine": {**engine.model_dump(), **{k: getattr(engine, k) or v for k, v in lengths.items()}},
        "model": run.model.model_dump(include={*ModelSettings.model_fields}) if run.model else None,
        "arms": used,
        "measurements": entries,
    }
    if any(m.tells_weights for m in run.experiment.measurements):
        config["told_weights"] = str(run.inputs / TOLD_WEIGHTS)
    if engine.name == "simulated":
        config["planted"] = {a: p.model_dump() for a, p in run.experiment.planted.items() if a in used}
        config["planted_weights"] = str(run.inputs / "planted_weights.csv")
    words = f"{size.trials:,} trials in {len(entries)} files from {len(used)} arms"
    notes = f"no prompt is longer than {size.longest_prompt} tokens, no reply than {size.longest_reply}"
    folder = run.folder / "trials"
    return PlannedStage(
        "evaluate", "evaluate", config, folder, words, size.tokens, size.unique, notes if run.model else ""
    )


def _measurement(run: Run, wanted: ArmMeasurement, arm: Arm) -> dict[str, Any]:
    """One entry of an evaluation's configuration: an arm, measured as the experiment asks."""
    groups = []
    for group in wanted.contexts:
        source, only = (group, None) if group != HELD_OUT else (_taught_group(run, arm), arm.held_out)
        groups.append({"name": source, "file": str(run.inputs / f"{source}.jsonl"), "only": only})
    entry = {"arm": arm.name, "measure": wanted.measure, "contexts": groups, "per_context": wanted.per_context}
    return entry if wanted.variant == DEFAULT[wanted.measure] else {**entry, "variant": wanted.variant}


def _file_of(entry: Mapping[str, Any]) -> tuple[str, str, str | None]:
    return entry["arm"], entry["measure"], entry.get("variant")


@dataclass
class _Size:
    """Trials and tokens of an evaluation, added up context by context."""

    trials: int = 0
    tokens: int = 0
    unique: int = 0
    longest_prompt: int = 0
    longest_reply: int = 0

    def add(self, count: TokenCount, wanted: ArmMeasurement, context: ChoiceContext) -> None:
        """Add a context's trials; a report after the arm's own choice asks for that choice first."""
        rows = wanted.per_context * wanted.orders
        asked: list[tuple[Measure, Variant]] = [(wanted.measure, wanted.variant)]
        if PROMPTS[wanted.measure][wanted.variant].follow_up is not None:
            asked.append(("decisions", DEFAULT["decisions"]))
        self.trials += rows
        for measure, variant in asked:
            found = count(measure, variant, context)
            self.tokens += rows * (found.prompt + found.reply)
            self.unique += found.shared + rows * (found.prompt - found.shared + found.reply)
            self.longest_prompt = max(self.longest_prompt, found.longest_prompt)
            self.longest_reply = max(self.longest_reply, found.longest_reply)


def _taught_group(run: Run, arm: Arm) -> str:
    assert arm.training is not None  # only a trained arm has contexts held out
    return run.experiment.trainings[arm.training].contexts
