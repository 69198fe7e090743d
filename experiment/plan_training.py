"""The stages of a training: what it learns from, and the training itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiment.adapters import settings_of
from experiment.arms import Arm
from experiment.planned import PlannedStage
from experiment.training import Training
from store.derived import DeriveConfig, Term
from store.examples import ExamplesConfig, rehearsed_decisions
from store.learned import LearnedConfig
from task.contexts import ChoiceContext
from task.names import AT
from task.prompts import DEFAULT, Measure
from task.seeding import stream

if TYPE_CHECKING:
    from experiment.plan import Run

ROWS_AT_A_TIME = 8
"""Rows of a step where nothing says it, TRL's default."""


def _taught(run: Run, arm: Arm, training: Training) -> list[ChoiceContext]:
    return [c for c in run.groups[training.contexts] if c.name in arm.trained_on]


def labels_file(run: Run, training: Training) -> Path:
    """The weights that a training teaches."""
    if training.labels == "learned":
        return _learned(run, training.start).weights
    return run.folder.redrawn_weights if training.labels == "redrawn" else run.folder.target_weights


def decided_by(run: Run, training: Training) -> Path:
    """The weights by which the arm that a training goes on from was taught to decide; the targets if it was not."""
    while (before := training.learns_from.partition(AT)[0]) in run.experiment.trainings:
        training = run.experiment.trainings[before]
        if training.teach == "decisions":
            return labels_file(run, training)
    return run.folder.target_weights


def training_seed(run: Run, training: Training) -> int:
    """The run's seed, or the one of a repetition."""
    if not training.repeat:
        return run.seed
    return int(stream(run.seed, "repeat", str(training.repeat)).integers(1 << 32))


def examples_stage(run: Run, arm: Arm, training: Training) -> PlannedStage:
    """What an arm learns from."""
    labels, rehearsed = labels_file(run, training), decided_by(run, training)
    config = ExamplesConfig(
        contexts=str(run.folder.contexts_file(training.contexts)),
        weights=str(labels),
        teach=training.teach,
        output=str(run.folder.examples(arm.name)),
        seed=training_seed(run, training),
        train_per_context=training.train_per_context,
        validation_per_context=training.validation_per_context,
        only=[c.name for c in run.groups[training.contexts] if c.name in {*arm.trained_on, *arm.validated_on}],
        shuffle_weights=training.labels == "shuffled",
        validation_contexts=arm.validated_on,
        rehearse=training.rehearse,
        variant=training.variant,
        wording=run.wording,
        flip_under=training.flip_under,
        rehearse_weights=str(rehearsed) if training.rehearse and rehearsed != labels else None,
        leave_out_unknown=True if training.labels == "learned" else None,
    )
    held_out = len(arm.validated_on or arm.trained_on) * training.validation_per_context
    size = f"{_rows_in_words(arm, training)}, {held_out} held out"
    needs = (f"{training.start}.weights",) if training.labels == "learned" else ()
    folder = run.folder.examples(arm.name)
    return PlannedStage(f"{arm.name}.examples", "examples", config.model_dump(mode="json"), folder, size, needs=needs)


def _rows_in_words(arm: Arm, training: Training) -> str:
    rows = training.rows(len(arm.trained_on))
    rehearsed = rows - training.taught_rows(len(arm.trained_on))
    more = f" ({rehearsed} of them rehearsed decisions)" if rehearsed else ""
    return f"{rows} examples{more}"


def _training_tokens(run: Run, arm: Arm, training: Training) -> int:
    """Tokens of an epoch."""
    taught = _taught(run, arm, training)
    rehearsed = rehearsed_decisions(training.rehearse, training.train_per_context, len(taught))
    total = 0
    for context, decisions in zip(taught, rehearsed, strict=True):
        rows: dict[Measure, int] = {"decisions": decisions}
        rows[training.teach] = training.train_per_context * (2 if training.flip_under else 1)
        for measure, count in rows.items():
            found = run.tokens(measure, training.variant if measure == training.teach else DEFAULT[measure], context)
            total += count * (found.prompt + found.reply)
    return total


def training_stage(run: Run, arm: Arm, training: Training) -> PlannedStage:
    """The training of an arm."""
    assert run.model is not None  # the experiment has checked that trainings have a model
    [start] = run.arms[training.start]  # and that what they start from has no folds
    examples = run.folder.examples(arm.name)
    settings = settings_of(run.model, training)
    rows = training.rows(len(arm.trained_on))
    steps = run.kept_steps(str(arm.training))
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
        "frozen_adapter": str(run.folder.adapter(training.on_top_of)) if training.on_top_of else None,
        "layers": training.layers,
        "keep_steps": steps or None,
        "train_file": str(examples / "train.jsonl"),
        "validation_file": str(examples / "validation.jsonl") if training.validation_per_context else None,
        "probe_contexts": str(run.folder.contexts_file(training.contexts)) if decisions else None,
        "output_dir": run.adapter(arm),
        "run_name": f"{run.folder.name}/{arm.name}",
        "report_to": "wandb",
        "seed": training_seed(run, training),
        **settings,
    }
    epochs, length = _epochs(settings, rows)
    how = "on top of" if training.on_top_of else "from"
    kept = f", {len(steps)} earlier steps kept" if steps else ""
    [before] = run.arms[training.learns_from]
    return PlannedStage(
        f"{arm.name}.sft",
        "sft",
        {k: v for k, v in config.items() if v is not None},
        run.folder.adapter(arm.name),
        f"{_rows_in_words(arm, training)} x {length} {how} {before.name}{kept}",
        round(epochs * _training_tokens(run, arm, training)),
        needs=(before.made_by,) if before.made_by else (),
    )


def _epochs(settings: Mapping[str, Any], rows: int) -> tuple[float, str]:
    """How often a training sees its rows, as a number and in words."""
    steps, batch = settings.get("max_steps", -1), settings.get("effective_batch_size")
    if steps > 0:
        batch = batch or settings.get("per_device_train_batch_size", ROWS_AT_A_TIME)
        return steps * batch / rows, f"{steps} steps"
    epochs = float(settings.get("num_train_epochs", 3))
    return epochs, f"{epochs:g} epochs"


def derive_stage(run: Run, arm: Arm) -> PlannedStage:
    """The sum of adapters that a derived arm is."""
    assert run.model is not None  # the experiment has checked that trainings have a model
    config = DeriveConfig(
        model=run.model.name,
        revision=run.model.revision or "main",
        terms=[Term(adapter=str(run.folder.adapter(name)), parts=parts) for name, parts in arm.terms.items()],
        output=str(run.folder.adapter(arm.name)),
    )
    made = [run.by_name[name].made_by for name in arm.terms]
    needs = tuple(dict.fromkeys(stage for stage in made if stage))
    size = f"a sum of {len(arm.terms)} adapter{'s' if len(arm.terms) > 1 else ''}"
    if arm.half:
        size = f"{arm.half.arm}, layers {'below' if arm.half.side == 'below' else 'from'} {arm.half.layer}"
    folder = run.folder.adapter(arm.name)
    return PlannedStage(f"{arm.name}.derive", "derive", config.model_dump(mode="json"), folder, size, needs=needs)


def weights_stage(run: Run, arm: str) -> PlannedStage:
    """The weights that an arm's decisions show, before other trainings are taught them."""
    config = _learned(run, arm)
    size = f"weights of {len(config.only)} contexts"
    return PlannedStage(
        f"{arm}.weights",
        "learn",
        config.model_dump(mode="json"),
        run.folder.learned(arm),
        size,
        needs=(f"{arm}.decisions",),
    )


def _learned(run: Run, arm: str) -> LearnedConfig:
    """What is measured of an arm: weights in all contexts that some training is taught them of."""
    groups = {t.contexts for t in run.experiment.trainings.values() if (t.labels, t.start) == ("learned", arm)}
    measure: Measure = "decisions"
    return LearnedConfig(
        trials=str(run.folder.trials_of(arm, measure, DEFAULT[measure])),
        context_files=[str(run.folder.contexts_file(group)) for group in run.groups],
        only=[c.name for group, contexts in run.groups.items() if group in groups for c in contexts],
        seed=run.seed,
        output=str(run.folder.learned(arm)),
    )
