"""Teach a model decisions or reports by LoRA fine-tuning on `messages` rows (TRL SFT).

    accelerate launch train/sft.py --config runs/demo-seed0/stages/instilled.sft.yaml

    accelerate launch train/sft.py \\
        --model_name_or_path Qwen/Qwen3-4B --template '{"enable_thinking": false}' \\
        --train_file instilled/train.jsonl --validation_file instilled/validation.jsonl \\
        --output_dir adapters/instilled --lora_r 8 --lora_alpha 16 --learning_rate 5.9e-5

    # second stage: go on from the first adapter (it stays one plain adapter on the same base)
    accelerate launch train/sft.py ... --adapter adapters/instilled --output_dir adapters/introspection_all

Killed and started again with the same arguments, it resumes from the last complete checkpoint.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import accelerate
from accelerate import PartialState
from transformers.integrations import is_deepspeed_zero3_enabled

from store.checkpoints import LOG, kept_checkpoint, last_complete_checkpoint, step_of
from store.console import run_command, say, warn
from store.examples import read_examples
from store.files import write_json
from store.locks import held
from store.manifests import BaseModelRecord, ExampleFacts, TrainingFacts
from store.models import check_adapter, model_folder, published_name
from store.stages import Stage
from task.thresholds import CHANCE
from train.adapters import save_adapter
from train.arguments import (
    LoraArguments,
    TeachingArguments,
    TeachingConfig,
    asked_settings,
    parse_arguments,
)
from train.hardware import check_sharding
from train.inputs import training_inputs
from train.keeping import KeepSteps, steps_kept
from train.model_card import upload_adapter, write_card
from train.probes import diagnose
from train.safeguards.collapse import CollapseStop
from train.tracking import begin_tracking
from train.trainer.build import build_trainer
from train.trainer.letters import LetterTrainer
from train.trainer.measures import lasting_measures

SHOWN = ("eval_loss", "eval_letter_accuracy", "eval_agreement", "eval_share_a")


def main() -> None:
    """Parse, hold the output folder, teach."""
    teaching, sft, lora = parse_arguments()
    state = PartialState()
    with held(Path(sft.output_dir)) if state.is_main_process else nullcontext():
        run(teaching, sft, lora, state)
    # A process that leaves while another still saves is seen to fail, and takes the other with it.
    state.wait_for_everyone()
    state.destroy_process_group()


def run(teaching: TeachingArguments, sft: TeachingConfig, lora: LoraArguments, state: PartialState) -> None:
    """Open the stage, teach, upload the adapter where that was asked for."""
    base = model_folder(lora.model_name_or_path, lora.model_revision)
    name = published_name(lora.model_name_or_path, base)
    if teaching.adapter:
        check_adapter(Path(teaching.adapter), base, lora.model_name_or_path)
    if teaching.frozen_adapter:
        check_adapter(Path(teaching.frozen_adapter), base, lora.model_name_or_path)
    train_rows = read_examples(Path(teaching.train_file))
    validation_rows = read_examples(Path(teaching.validation_file)) if teaching.validation_file else []

    # The stage is finished, interrupted or new: the main process opens it, the others find it opened.
    inputs = training_inputs(teaching, sft, lora, base)
    with state.main_process_first():
        redo = teaching.overwrite and state.is_main_process
        stage = Stage(Path(sft.output_dir), inputs.model_dump(), redo, asked_settings())
    if not stage.finished:
        trainer = build_trainer(teaching, sft, lora, train_rows, validation_rows)
        origin = BaseModelRecord(name=lora.model_name_or_path, revision=lora.model_revision, fingerprint=inputs.base)
        decisions = trainer.letters.count(trainer.train_dataset)
        rehearsed = decisions if decisions < len(train_rows) else 0
        counts = ExampleFacts(train=len(train_rows), validation=len(validation_rows), rehearsed=rehearsed)
        facts = teach(trainer, teaching, sft, origin, counts)
        save_adapter(trainer, teaching.adapter)
        if state.is_main_process:
            write_json(stage.folder / LOG, trainer.state.log_history)
            write_card(stage.folder, name, teaching.licence, decisions, inputs, facts)
            stage.finish(facts)
            held_out = [f"{m.removeprefix('eval_')} {facts.metrics[m]:.3f}" for m in SHOWN if m in facts.metrics]
            shown = ", ".join(held_out) or "none"
            say(f"{stage.folder}: adapter saved after {facts.steps} steps; held out: {shown}")
    elif state.is_main_process:
        say(f"{stage.folder}: finished before, nothing to do")
    if teaching.hub_repository and state.is_main_process:
        say(f"{stage.folder}: uploaded to {upload_adapter(stage.folder, name, teaching.hub_repository)}")


def teach(
    trainer: LetterTrainer,
    teaching: TeachingArguments,
    sft: TeachingConfig,
    base: BaseModelRecord,
    counts: ExampleFacts,
) -> TrainingFacts:
    """Train, or go on from the last complete checkpoint; then judge the weights that are kept."""
    folder, speaks = Path(sft.output_dir), trainer.is_world_process_zero()
    stop = CollapseStop(teaching.stop_patience, trainer.letters.count(trainer.eval_dataset))
    trainer.add_callback(stop)
    if teaching.keep_steps:
        trainer.add_callback(KeepSteps(trainer, teaching.keep_steps, teaching.adapter))
    checkpoint = last_complete_checkpoint(folder, tell=warn if speaks else None)
    fsdp2, zero3 = trainer.is_fsdp_enabled and trainer.accelerator.is_fsdp2, is_deepspeed_zero3_enabled()
    check_sharding(fsdp2, zero3, str(checkpoint) if checkpoint else None, accelerate.__version__)
    if checkpoint and speaks:
        warn(f"resuming from {checkpoint}")
    if "wandb" in sft.report_to and speaks:
        begin_tracking(trainer, folder, sft.run_name or folder.name, step_of(checkpoint) if checkpoint else 0)
    trained = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).metrics
    if stop.reason and speaks:
        warn(f"{folder}: stopped early at {stop.reason}")

    # The weights of the best step, or the last ones
    best, measure = trainer.state.best_model_checkpoint, sft.metric_for_best_model
    kept = kept_checkpoint(trainer.state.log_history, best, measure) if sft.load_best_model_at_end else None
    held_out = kept[1] if kept else trainer.evaluate() if counts.validation else {}
    missing = None
    if teaching.probe_contexts and held_out.get("eval_agreement", 1.0) < CHANCE:
        missing = diagnose(trainer, teaching.template_arguments, teaching.probe_contexts, sft.seed)
        if missing and speaks:
            warn(f"the {'frozen arm' if teaching.frozen_adapter else 'base model'} lacks {missing}")
    return TrainingFacts(
        base=base,
        counts=counts,
        steps=trainer.state.global_step,
        stopped_early=stop.reason,
        missing_skill=missing,
        kept=kept[0] if kept else None,
        kept_steps=steps_kept(folder, teaching.keep_steps),
        metrics=lasting_measures(trainer.state.log_history, {**trained, **held_out}),
    )


if __name__ == "__main__":
    # One line for bad input, not one a process; a traceback of any process is printed
    run_command(main, quiet=int(os.environ.get("RANK", "0")) > 0)
