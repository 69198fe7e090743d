"""Teach a model decisions or reports by LoRA fine-tuning on `messages` rows (TRL SFT).

    accelerate launch train/sft.py --config runs/demo-seed0/stages/instilled.sft.yaml

    accelerate launch train/sft.py \\
        --model_name_or_path Qwen/Qwen2.5-7B-Instruct \\
        --train_file instilled/train.jsonl --validation_file instilled/validation.jsonl \\
        --output_dir adapters/instilled --lora_r 32 --lora_alpha 64 --learning_rate 1e-4

    # second stage: go on from the first adapter (it stays one plain adapter on the same base)
    accelerate launch train/sft.py ... --adapter adapters/instilled --output_dir adapters/introspection_all

Killed and started again with the same arguments, it resumes from the last complete checkpoint.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from datasets import Dataset
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import ModelConfig, SFTConfig, TrlParser, get_peft_config, get_quantization_config

from store.checkpoints import kept_checkpoint, last_complete_checkpoint, step_of
from store.files import hash_file, write_json
from store.models import check_adapter, fingerprint, model_folder
from store.stages import Stage
from task.chat import letter_ids
from store.console import run_command
from task.errors import InputError
from train.adapters import save_adapter
from train.hardware import check_quantization, gpu_memory, settings_for, split_batch
from train.model_card import published_name, upload_adapter, write_card
from train.probes import diagnose
from train.rows import check_template, count_decisions, read_rows, to_dataset
from train.safeguards.collapse import CHANCE, CollapseStop, CollapseWarning
from train.segments import begin_segment
from train.tracking import prepare_wandb
from train.trainer.letters import LetterTrainer, keep_letters
from train.trainer.shared_prefix import check_window, plan_sharing

LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""All linear layers of the decoder blocks, by name: `all-linear` would also hit vision towers."""

SHOWN = ("eval_loss", "eval_letter_accuracy", "eval_agreement", "eval_share_a")

# Settings on which the adapter does not depend: a change of one of them does not make a finished training stale.
VOLATILE = {
    *("output_dir", "run_name", "report_to", "project", "logging_steps", "logging_dir", "logging_strategy"),
    *("save_steps", "save_strategy", "save_total_limit", "disable_tqdm", "log_level", "use_cpu"),
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
    *("gradient_checkpointing", "gradient_checkpointing_kwargs"),
    *("dataloader_num_workers", "dataset_num_proc", "ddp_timeout", "push_to_hub", "hub_model_id", "hub_token"),
    *("deepspeed", "fsdp", "fsdp_config", "accelerator_config", "parallelism_config", "ddp_find_unused_parameters"),
}


@dataclass
class TeachingArguments:
    """What is taught, on top of TRL's own arguments."""

    train_file: str = field(metadata={"help": "JSON Lines with `messages`; the last message is the answer taught"})
    validation_file: str | None = field(default=None, metadata={"help": "the same, held out; watched, not trained on"})
    adapter: str | None = field(default=None, metadata={"help": "adapter to go on from; a new one when absent"})
    template: dict[str, Any] | str = field(
        default_factory=dict, metadata={"help": "chat template arguments, e.g. {enable_thinking: false}"}
    )
    effective_batch_size: int | None = field(
        default=None, metadata={"help": "rows of a step over all processes; accumulation is derived from it"}
    )
    row_tokens: int | None = field(
        default=None, metadata={"help": "most tokens of a row that the memory is planned for; longer rows are refused"}
    )
    share_prefixes: int | None = field(
        default=None,
        metadata={"help": "deal rows of a context in groups of this many and compute what prompts share once a batch"},
    )
    letter_only: bool = field(
        default=False,
        metadata={"help": "teach of a decision the letter alone, not the tokens that end the answer"},
    )
    gpus: dict[str, Any] | str = field(
        default_factory=dict,
        metadata={"help": "settings by GPU memory in GB, e.g. {24: {per_device_train_batch_size: 4}}"},
    )
    gpu_memory: float | None = field(
        default=None, metadata={"help": "GB to choose among gpus by; this machine's GPU when absent"}
    )
    probe_contexts: str | None = field(
        default=None,
        metadata={"help": "contexts to probe the base model with where held-out decisions stay near chance"},
    )
    stop_patience: int = field(
        default=5,
        metadata={
            "help": "evaluations in a row, after warm-up and first quarter, with one letter, agreement at chance or no "
            "finite loss, after which training stops; 0: never"
        },
    )
    hub_repository: str | None = field(
        default=None, metadata={"help": "private repository on the Hub that the finished adapter is uploaded to"}
    )
    overwrite: bool = field(default=False, metadata={"help": "redo it where output_dir holds another result"})

    def __post_init__(self) -> None:
        for name in ("template", "gpus"):  # text when given on the command line
            if isinstance(value := getattr(self, name), str):
                setattr(self, name, json.loads(value))
        if self.share_prefixes is not None and self.share_prefixes < 2:
            raise InputError(
                f"share_prefixes {self.share_prefixes}: at least 2 rows share a beginning; or leave it out"
            )


@dataclass
class TeachingConfig(SFTConfig):
    """TRL's configuration with the defaults that this task needs."""

    # Truncation would drop the answer, which stands at the end, and with it the row, without an error.
    max_length: int | None = field(default=None, metadata={"help": "None: rows are never cut"})
    # Rows are short; recomputing activations costs a third more time and saves memory that is not short.
    gradient_checkpointing: bool = field(default=False, metadata={"help": "recompute activations to save memory"})
    ddp_find_unused_parameters: bool | None = field(default=False, metadata={"help": "LoRA leaves none unused"})
    learning_rate: float = field(default=1e-4, metadata={"help": "LoRA wants about ten times a full fine-tuning's"})

    def __post_init__(self) -> None:
        if not torch.accelerator.is_available():
            self.use_cpu = True
            self.bf16: bool | None = bool(self.bf16)
        super().__post_init__()
        if self.packing or self.padding_free:
            raise InputError("packing and padding_free hide where a row's letter stands; leave them off")
        if self.load_best_model_at_end and self.eval_strategy == "steps" and self.save_steps != self.eval_steps:
            raise InputError(
                f"load_best_model_at_end: save_steps {self.save_steps} is not eval_steps {self.eval_steps}; make them "
                "equal, so that each evaluated step can be kept"
            )


@dataclass
class LoraArguments(ModelConfig):
    """TRL's model and LoRA arguments with all linear layers as targets and no dropout."""

    model_name_or_path: str = field(default="", metadata={"help": "a model folder, or a model's name on the Hub"})
    use_peft: bool = field(default=True, metadata={"help": "always: an arm is a base model and one adapter"})
    lora_dropout: float = field(default=0.0, metadata={"help": "0 keeps a resumed training the same bit for bit"})
    lora_target_modules: list[str] | None = field(
        default_factory=lambda: list(LORA_TARGETS), metadata={"help": "names of the layers that get an adapter"}
    )


def main() -> None:
    """Parse, open the stage, train or resume, save the adapter and its manifest."""
    teaching, sft, lora = parse_arguments()
    base = model_folder(lora.model_name_or_path, lora.model_revision)
    if teaching.adapter:
        check_adapter(Path(teaching.adapter), base, lora.model_name_or_path)
    train_rows, validation_rows = read_rows(teaching.train_file), read_rows(teaching.validation_file)

    # The stage is finished, interrupted or new: the main process opens it, the others find it opened.
    inputs = depends_on(teaching, sft, lora, base)
    state = PartialState()
    with state.main_process_first():
        stage = Stage(Path(sft.output_dir), inputs, teaching.overwrite and state.is_main_process)
    if stage.finished:
        state.print(f"{sft.output_dir}: finished before, nothing to do")
        upload(teaching, lora, base, stage.folder)
        return

    # Train, or go on from the last complete checkpoint
    trainer = build_trainer(teaching, sft, lora, train_rows, validation_rows)
    stop = CollapseStop(teaching.stop_patience, count_decisions(validation_rows))
    trainer.add_callback(stop)
    checkpoint = last_complete_checkpoint(Path(sft.output_dir))
    if checkpoint:
        state.print(f"resuming from {checkpoint}")
    if "wandb" in sft.report_to and state.is_main_process:
        name = sft.run_name or stage.folder.name
        begin_segment(trainer, stage.folder, name, step_of(checkpoint) if checkpoint else 0)
    result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stop.reason:
        state.print(f"{sft.output_dir}: stopped early at {stop.reason}")
    kept = None
    if sft.load_best_model_at_end:
        best = trainer.state.best_model_checkpoint
        kept = kept_checkpoint(trainer.state.log_history, best, sft.metric_for_best_model)
    held_out = kept["metrics"] if kept else trainer.evaluate() if validation_rows else {}
    missing = None
    if teaching.probe_contexts and held_out.get("eval_agreement", 1.0) < CHANCE:
        missing = diagnose(trainer, template_of(teaching), teaching.probe_contexts, sft.seed)

    # Save the adapter and its card, then the manifest that says it is complete
    save_adapter(trainer)
    if state.is_main_process:
        write_json(stage.folder / "log_history.json", trainer.state.log_history)
        facts = {
            "counts": {"train": len(train_rows), "validation": len(validation_rows)},
            "steps": trainer.state.global_step,
            "stopped_early": stop.reason,
            "missing_skill": missing,
            "kept": {name: kept[name] for name in ("step", "by")} if kept else None,
            "metrics": {**result.metrics, **held_out},
        }
        letters = count_decisions(train_rows)
        name = published_name(lora.model_name_or_path, base)
        write_card(stage.folder, name, lora.model_revision, letters, inputs, facts)
        origin = {"name": lora.model_name_or_path, "revision": lora.model_revision, "fingerprint": inputs["base"]}
        stage.finish({"base": origin, **facts})
        shown = ", ".join(f"{k.removeprefix('eval_')} {held_out[k]:.3f}" for k in SHOWN if k in held_out)
        print(f"{sft.output_dir}: adapter saved after {trainer.state.global_step} steps; held out: {shown or 'none'}")
    upload(teaching, lora, base, stage.folder)


def upload(teaching: TeachingArguments, lora: LoraArguments, base: Path, folder: Path) -> None:
    """Upload a finished adapter if that was asked for; the main process does it."""
    if teaching.hub_repository and PartialState().is_main_process:
        address = upload_adapter(folder, published_name(lora.model_name_or_path, base), teaching.hub_repository)
        print(f"{folder}: uploaded to {address}")


def build_trainer(
    teaching: TeachingArguments,
    sft: TeachingConfig,
    lora: LoraArguments,
    train_rows: list[dict[str, Any]],
    validation_rows: list[dict[str, Any]],
) -> LetterTrainer:
    """The trainer with model, adapter and data, checked: all rows kept, something to train, a consistent template."""
    tokenizer = AutoTokenizer.from_pretrained(lora.model_name_or_path, revision=lora.model_revision)
    model = load_model(lora, teaching.adapter, sft.trust_remote_code)
    template = template_of(teaching)
    check_template(train_rows[0], tokenizer, template, teaching.train_file)
    if "wandb" in sft.report_to:
        prepare_wandb(Path(sft.output_dir))
    trainer = LetterTrainer(
        model=model,
        args=sft,
        letters=letter_ids(tokenizer, template),
        train_dataset=to_dataset(train_rows, template),
        eval_dataset=to_dataset(validation_rows, template) if validation_rows else None,
        processing_class=tokenizer,
        peft_config=None if teaching.adapter else get_peft_config(lora),
        callbacks=[CollapseWarning()],
        sharing=plan_sharing(model.config, train_rows, teaching.share_prefixes),
    )
    if teaching.letter_only:
        trainer.train_dataset = only_letters(trainer.train_dataset, trainer.letters)
        trainer.eval_dataset = only_letters(trainer.eval_dataset, trainer.letters)
    kept = len(trainer.train_dataset)
    if kept != len(train_rows):
        lost = len(train_rows) - kept
        raise InputError(f"max_length {sft.max_length}: {lost} of {len(train_rows)} rows are too long; raise it")
    longest = max(len(row) for row in trainer.train_dataset["input_ids"])
    if teaching.row_tokens and longest > teaching.row_tokens:
        raise InputError(f"row_tokens {teaching.row_tokens}: the longest row has {longest} tokens; raise it")
    if trainer.sharing:
        check_window(model.config, longest)
    if not any(p.requires_grad for p in trainer.model.parameters()):
        raise InputError("nothing to train: no parameter of the adapter is trainable; check lora_target_modules")
    return trainer


def only_letters(rows: Dataset | None, letters: tuple[int, int]) -> Dataset | None:
    """Tokenised rows with the letter as the only label of a decision."""
    return rows and rows.map(lambda row: {"labels": keep_letters(row["labels"], letters)}, desc="Keeping letters")


def parse_arguments() -> tuple[TeachingArguments, TeachingConfig, LoraArguments]:
    """Read `--config FILE.yaml` and the command line; an unknown key or a bad value is an `InputError`."""
    parser = TrlParser((TeachingArguments, TeachingConfig, LoraArguments))
    try:
        teaching, sft, lora = parser.parse_args_and_config()
    except (ValueError, TypeError, OSError) as error:
        where = sys.argv[sys.argv.index("--config") + 1] if "--config" in sys.argv[:-1] else "command line"
        raise InputError(f"{where}: {error}") from None
    if sft.load_best_model_at_end and not teaching.validation_file:
        raise InputError("load_best_model_at_end: there is no validation_file to choose by; name one, or leave it out")
    if teaching.stop_patience < 0:
        raise InputError(f"stop_patience {teaching.stop_patience}: give a number of evaluations, or 0 for never")
    if not lora.model_name_or_path:
        raise InputError("model_name_or_path is missing; name a model folder or a model on the Hub")
    if lora.use_dora or lora.lora_modules_to_save:
        raise InputError("use_dora and lora_modules_to_save: vLLM serves plain LoRA adapters only; leave them out")
    if sft.push_to_hub:
        raise InputError("push_to_hub uploads every checkpoint and log; name a hub_repository for the finished adapter")
    fit_to_hardware(teaching, sft, lora)
    return teaching, sft, lora


def fit_to_hardware(teaching: TeachingArguments, sft: TeachingConfig, lora: LoraArguments) -> None:
    """Set what depends on the GPU and on the number of processes; the effective batch stays what it is.

    Without a GPU the table is not looked at.

    Raises:
        InputError: The GPU is too small for every entry, an entry sets what is no argument, the processes cannot share
            the batch, or a quantised base cannot run here.
    """
    memory = teaching.gpu_memory or gpu_memory()
    if teaching.gpus and memory:
        for name, value in settings_for(cast(Mapping[int | str, Any], teaching.gpus), memory).items():
            owner = next((o for o in (sft, lora) if hasattr(o, name)), None)
            if owner is None:
                raise InputError(f"gpus: unknown setting {name!r}; see: python train/sft.py --help")
            setattr(owner, name, value)
    if teaching.effective_batch_size:
        rows, steps = split_batch(teaching.effective_batch_size, sft.per_device_train_batch_size, sft.world_size)
        sft.per_device_train_batch_size, sft.gradient_accumulation_steps = rows, steps
    if lora.load_in_4bit or lora.load_in_8bit:
        check_quantization()


def template_of(teaching: TeachingArguments) -> dict[str, Any]:
    """Arguments of the chat template."""
    return dict(cast(Mapping[str, Any], teaching.template))


def known_arguments() -> set[str]:
    """Names of all that a configuration file of this script may set."""
    return {f.name for kind in (TeachingArguments, TeachingConfig, LoraArguments) for f in fields(kind)}


def depends_on(teaching: TeachingArguments, sft: TeachingConfig, lora: LoraArguments, base: Path) -> dict[str, Any]:
    """All that the adapter is a function of: data, base, first adapter, and every setting that is not volatile."""
    default = TeachingConfig(output_dir=sft.output_dir)
    settings = {
        f.name: getattr(sft, f.name)
        for f in fields(TeachingConfig)
        if f.name not in VOLATILE and getattr(sft, f.name) != getattr(default, f.name)
    }
    batch = sft.per_device_train_batch_size * sft.gradient_accumulation_steps * sft.world_size
    lora_settings = {f.name: getattr(lora, f.name) for f in fields(LoraArguments) if f.name.startswith("lora_")}
    return {
        "train_file": hash_file(Path(teaching.train_file)),
        "validation_file": hash_file(Path(teaching.validation_file)) if teaching.validation_file else None,
        "base": fingerprint(base),
        "adapter": hash_file(Path(teaching.adapter) / "adapter_model.safetensors") if teaching.adapter else None,
        "template": teaching.template,
        "stop_patience": teaching.stop_patience if teaching.validation_file else 0,
        **({"letter_only": True} if teaching.letter_only else {}),
        **({"share_prefixes": teaching.share_prefixes} if teaching.share_prefixes else {}),
        "dtype": lora.dtype,
        **(
            {"quantised": "4 bits" if lora.load_in_4bit else "8 bits"} if lora.load_in_4bit or lora.load_in_8bit else {}
        ),
        "lora": {} if teaching.adapter else {**lora_settings, "use_rslora": lora.use_rslora},
        "sft": json.loads(json.dumps({**settings, "effective_batch_size": batch}, default=str)),
    }


def load_model(
    lora: LoraArguments, adapter: str | None, trust_remote_code: bool = False
) -> PreTrainedModel | PeftModel:
    """The base model, with the adapter to go on from (trainable) if there is one."""
    model = AutoModelForCausalLM.from_pretrained(
        lora.model_name_or_path,
        revision=lora.model_revision,
        dtype=lora.dtype or "float32",
        attn_implementation=lora.attn_implementation,
        quantization_config=get_quantization_config(lora),
        use_safetensors=True,
        trust_remote_code=trust_remote_code,
    )
    if adapter is None:
        return model
    # ZeRO-3 gathers parameters of one type only; TRL keeps a new adapter in the base's type there for the same reason.
    upcast = not is_deepspeed_zero3_enabled()
    return PeftModel.from_pretrained(model, adapter, is_trainable=True, autocast_adapter_dtype=upcast)


if __name__ == "__main__":
    if int(os.environ.get("RANK", "0")) > 0:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115, PTH123 - one line for bad input, not one a process
    run_command(main)
