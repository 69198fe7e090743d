"""What an adapter is made of: all that it is a function of, with hashes in place of files."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

from pydantic import JsonValue

from store.files import hash_file
from store.lora import adapter_hash
from store.models import fingerprint, template_hash
from store.settings import Settings
from train.arguments import LoraArguments, TeachingArguments, TeachingConfig

# Settings on which the adapter does not depend: a change of one of them does not make a finished training stale.
VOLATILE = {
    *("output_dir", "run_name", "report_to", "project", "logging_steps", "logging_dir", "logging_strategy"),
    *("save_steps", "save_strategy", "save_total_limit", "disable_tqdm", "log_level", "use_cpu"),
    *("per_device_train_batch_size", "per_device_eval_batch_size", "gradient_accumulation_steps"),
    *("gradient_checkpointing", "gradient_checkpointing_kwargs"),
    *("dataloader_num_workers", "dataset_num_proc", "ddp_timeout", "push_to_hub", "hub_model_id", "hub_token"),
    *("deepspeed", "fsdp", "fsdp_config", "accelerator_config", "parallelism_config", "ddp_find_unused_parameters"),
}


class TrainingInputs(Settings):
    """All that an adapter is a function of: arguments, and hashes in place of files.

    Attributes:
        chat_template: Hash of the base's chat template; its arguments are `template`.
        adapter: The one that training goes on from.
        frozen_adapter: The one beside which a new one is trained.
        layers: Where a new adapter has matrices; everywhere when None.
        keep_steps: Steps at which the adapter is kept, too.
        stop_patience: 0 where nothing is held out.
        quantised: In how many bits the base is held, where it is quantised.
        lora: Settings of a new adapter; none of one that goes on.
        sft: Settings of TRL that differ from our defaults and are not volatile, and the effective batch size.
    """

    train_file: str
    validation_file: str | None
    base: str
    chat_template: str | None = None
    adapter: str | None
    frozen_adapter: str | None = None
    layers: str | None = None
    keep_steps: list[int] | None = None
    template: dict[str, JsonValue]
    stop_patience: int
    letter_only: bool
    share_prefixes: int | None
    dtype: str | None
    quantised: str | None
    lora: dict[str, JsonValue]
    sft: dict[str, JsonValue]


def training_inputs(
    teaching: TeachingArguments, sft: TeachingConfig, lora: LoraArguments, base: Path
) -> TrainingInputs:
    """What the adapter of a training depends on; `base` is the base model's folder."""
    default = TeachingConfig(output_dir=sft.output_dir)
    settings = {
        f.name: getattr(sft, f.name)
        for f in fields(TeachingConfig)
        if f.name not in VOLATILE and getattr(sft, f.name) != getattr(default, f.name)
    }
    batch = sft.per_device_train_batch_size * sft.gradient_accumulation_steps * sft.world_size
    lora_settings = {f.name: getattr(lora, f.name) for f in fields(LoraArguments) if f.name.startswith("lora_")}
    return TrainingInputs(
        train_file=hash_file(Path(teaching.train_file)),
        validation_file=hash_file(Path(teaching.validation_file)) if teaching.validation_file else None,
        base=fingerprint(base),
        chat_template=template_hash(base),
        adapter=adapter_hash(Path(teaching.adapter)) if teaching.adapter else None,
        frozen_adapter=adapter_hash(Path(teaching.frozen_adapter)) if teaching.frozen_adapter else None,
        layers=teaching.layers,
        keep_steps=teaching.keep_steps,
        template=teaching.template_arguments,
        stop_patience=teaching.stop_patience if teaching.validation_file else 0,
        letter_only=teaching.letter_only,
        share_prefixes=teaching.share_prefixes,
        dtype=lora.dtype,
        quantised="4 bits" if lora.load_in_4bit else "8 bits" if lora.load_in_8bit else None,
        lora={} if teaching.adapter else {**lora_settings, "use_rslora": lora.use_rslora},
        sft=json.loads(json.dumps({**settings, "effective_batch_size": batch}, default=str)),
    )
