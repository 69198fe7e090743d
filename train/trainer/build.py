"""The trainer of train/sft.py: model, adapter and tokenised rows, checked before the first step."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from peft import LoraConfig, PeftModel
from peft.tuners.tuners_utils import check_target_module_exists
from transformers import PreTrainedModel
from transformers.integrations import is_deepspeed_zero3_enabled
from trl import get_peft_config, get_quantization_config

from store.derived import layers_named
from store.examples import Example
from store.pretrained import load_causal_model, load_tokenizer
from task.chat import check_template
from task.errors import InputError
from train.arguments import LoraArguments, TeachingArguments, TeachingConfig
from train.safeguards.collapse import CollapseWarning
from train.tracking import prepare_wandb
from train.trainer.frozen import FrozenStays, beside_frozen
from train.trainer.letters import LetterTrainer, letters_of
from train.trainer.measures import LogAtCheckpoints
from train.trainer.progress import show_progress
from train.trainer.shared_prefix import check_dropout, check_window, plan_sharing


def build_trainer(
    teaching: TeachingArguments,
    sft: TeachingConfig,
    lora: LoraArguments,
    train_rows: Sequence[Example],
    validation_rows: Sequence[Example],
) -> LetterTrainer:
    """The trainer with model, adapter and data, checked: all rows kept, something to train, a consistent template."""
    tokenizer = load_tokenizer(lora.model_name_or_path, lora.model_revision)
    model = load_model(lora, teaching.adapter)
    fresh = None if isinstance(model, PeftModel) else new_adapter(lora, model, teaching.layers)
    if fresh is not None and teaching.frozen_adapter:
        model = beside_frozen(model, fresh, Path(teaching.frozen_adapter), sft.seed, _upcast())
    template = teaching.template_arguments
    check_template(tokenizer, (row.model_dump()["messages"] for row in [*train_rows, *validation_rows]), template)
    if "wandb" in sft.report_to:
        prepare_wandb(Path(sft.output_dir))
    trainer = LetterTrainer(
        model=model,
        args=sft,
        letters=letters_of(tokenizer, template),
        train_dataset=to_dataset(train_rows, template),
        eval_dataset=to_dataset(validation_rows, template) if validation_rows else None,
        processing_class=tokenizer,
        peft_config=None if isinstance(model, PeftModel) else fresh,
        callbacks=[LogAtCheckpoints(), CollapseWarning()],
        sharing=plan_sharing(model.config, [(r.context, r.measure) for r in train_rows], teaching.share_prefixes),
    )
    if teaching.frozen_adapter:
        trainer.add_callback(FrozenStays())
    show_progress(trainer)
    if teaching.letter_only:
        trainer.train_dataset = _only_letters(trainer.train_dataset, trainer)
        trainer.eval_dataset = _only_letters(trainer.eval_dataset, trainer)
    _check_rows(trainer, teaching, len(train_rows))
    if not any(p.requires_grad for p in trainer.model.parameters()):
        raise InputError("nothing to train: no parameter of the adapter is trainable; check lora_target_modules")
    return trainer


def new_adapter(lora: LoraArguments, model: PreTrainedModel, layers: str | None = None) -> LoraConfig:
    """The configuration of a new adapter, on the text decoder alone where layers are named by their last part.

    Vision and audio towers have layers of the same names, which no prompt of ours reaches. A regular expression says
    itself where an adapter goes. With `layers` there are matrices in these layers only; embeddings are in none.
    """
    config = get_peft_config(lora)
    if layers is not None:
        config.layers_to_transform = [*layers_named(layers, model.config.get_text_config().num_hidden_layers)]
        if full := sorted({name for name, _ in model.named_modules()}.intersection(config.target_modules)):
            raise InputError(
                f"layers {layers!r}: lora_target_modules {full[0]} is one module's full name, which says itself in "
                "which layer it is, if in any; name matrices by their last part, or leave layers out"
            )
    if not isinstance(config.target_modules, str) and (towers := towers_of(model, config.target_modules)):
        config.exclude_modules = rf"({'|'.join(map(re.escape, towers))})\..*"
    _check_targets(config, model, layers)
    return config


def _check_targets(config: LoraConfig, model: PreTrainedModel, layers: str | None) -> None:
    """Refuse names that fit no matrix of the model."""
    names = config.target_modules
    if isinstance(names, str) or any(check_target_module_exists(config, name) for name, _ in model.named_modules()):
        return
    where = f" in layers {layers!r}; embeddings are in none" if layers else ""
    raise InputError(
        f"lora_target_modules {', '.join(sorted(names))}: no such matrix in the model{where}; name some that it has"
    )


def towers_of(model: PreTrainedModel, names: Collection[str]) -> list[str]:
    """The parts of a model beside its text decoder that have layers of some names, such as `model.vision_tower`."""
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    [path] = [name.split(".") for name, module in model.named_modules() if module is decoder]
    towers = set()
    for name, module in model.named_modules():
        parts = name.split(".")
        if parts[-1] in names and path != [""] and parts[: len(path)] != path and module is not head:
            same = next(i for i, (part, own) in enumerate(zip(parts, path, strict=False)) if part != own)
            towers.add(".".join(parts[: same + 1]))
    return sorted(towers)


def load_model(lora: LoraArguments, adapter: str | None) -> PreTrainedModel | PeftModel:
    """The base model, with the adapter to go on from (trainable) if there is one."""
    model = load_causal_model(
        lora.model_name_or_path,
        lora.model_revision,
        dtype=lora.dtype or "float32",
        attn_implementation=lora.attn_implementation,
        quantization_config=get_quantization_config(lora),
    )
    if adapter is None:
        return model
    return PeftModel.from_pretrained(model, adapter, is_trainable=True, autocast_adapter_dtype=_upcast())


def _upcast() -> bool:
    """Whether adapters are held in float32 beside a base in 16 bits.

    ZeRO-3 gathers parameters of one type only; TRL keeps a new adapter in the base's type there for the same reason.
    """
    return not is_deepspeed_zero3_enabled()


def to_dataset(rows: Sequence[Example], template: Mapping[str, Any]) -> Dataset:
    """Rows in TRL's prompt/completion form, for which the loss covers the completion only."""
    more = {"chat_template_kwargs": dict(template)} if template else {}
    dialogues = [row.model_dump()["messages"] for row in rows]
    return Dataset.from_list([{"prompt": said[:-1], "completion": said[-1:], **more} for said in dialogues])


def _only_letters(rows: Dataset | None, trainer: LetterTrainer) -> Dataset | None:
    """Tokenised rows with the letter as the only label of a decision."""
    alone = trainer.letters.alone
    return rows and rows.map(lambda row: {"labels": alone(row["labels"])}, desc="Keeping letters")


def _check_rows(trainer: LetterTrainer, teaching: TeachingArguments, count: int) -> None:
    """Refuse rows that were lost, that the memory is not planned for, or that cannot share what they begin with."""
    if lost := count - len(trainer.train_dataset):
        length = trainer.args.max_length
        raise InputError(f"max_length {length}: {lost} of {count} rows are too long; raise it")
    longest = max(len(row) for row in trainer.train_dataset["input_ids"])
    if teaching.row_tokens and longest > teaching.row_tokens:
        raise InputError(f"row_tokens {teaching.row_tokens}: the longest row has {longest} tokens; raise it")
    if trainer.sharing:
        check_window(trainer.model.config, longest)
        check_dropout(trainer.model)
