"""Arguments of train/sft.py: what is taught, TRL's configuration, model and LoRA."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate.state import AcceleratorState
from transformers import get_scheduler
from transformers.hf_argparser import HfArg
from transformers.trainer_utils import IntervalStrategy
from trl import ModelConfig, SFTConfig, TrlParser, get_peft_config

from store.derived import check_layers
from store.paths import project_file
from store.yaml_files import read_yaml
from task.errors import InputError, shown
from train.hardware import check_quantization, gpu_memory, settings_for, split_batch
from train.values import RANGES, check_values

LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
"""All linear layers of the decoder blocks, by name: `all-linear` would also hit vision towers."""

OF_HARDWARE = {
    *("tf32", "fp16", "bf16", "fp16_full_eval", "bf16_full_eval", "use_cpu", "load_in_4bit", "load_in_8bit"),
    *("deepspeed", "fsdp", "fsdp_config", "accelerator_config", "parallelism_config", "ddp_backend", "torch_compile"),
    *("torch_compile_backend", "torch_compile_mode", "use_liger_kernel"),
}
"""Settings that can only be judged on the machine that trains."""

_LOSS = "the loss here is the mean negative log-likelihood of an answer's tokens, whatever this says"
_PLACES = "it hides where a row's letter stands"
_PLAIN = "only plain LoRA is trained and measured here"

REFUSED: dict[str, tuple[Any, str]] = {
    "loss_type": ("nll", _LOSS),
    "label_smoothing_factor": (0, _LOSS),
    "packing": (False, _PLACES),
    "padding_free": (False, _PLACES),
    "use_dora": (False, _PLAIN),
    "lora_modules_to_save": (None, _PLAIN),
    "lora_target_parameters": (None, _PLAIN),
    "use_peft": (True, "an arm is a base model and one adapter"),
    "chat_template_path": (None, "the template is the model's own, in training and in evaluation"),
    "trust_remote_code": (False, "code that comes with a model is never run"),
    "push_to_hub": (False, "it uploads every checkpoint and log; name a hub_repository for the finished adapter"),
}
"""Settings of TRL that are not honoured here: the only value that each may have, and why."""


def check_honoured(values: Mapping[str, Any]) -> None:
    """Refuse settings that would be ignored, or whose result could not be measured.

    Raises:
        InputError: Names the first one.
    """
    for name, (kept, why) in REFUSED.items():
        if (value := values.get(name)) not in (kept, None):
            raise InputError(f"{name} {value}: {why}; leave it out")


@dataclass
class TeachingArguments:
    """What is taught, on top of TRL's own arguments."""

    train_file: str = HfArg(help="JSON Lines with `messages`; the last message is the answer taught")
    validation_file: str | None = HfArg(default=None, help="the same, held out; watched, not trained on")
    adapter: str | None = HfArg(default=None, help="adapter to go on from; a new one when absent")
    frozen_adapter: str | None = HfArg(
        default=None, help="adapter that stays as it is beside a new one; the new one alone is trained and saved"
    )
    layers: str | None = HfArg(
        default=None, help="layers that a new adapter has matrices in: 'first 2', 'last 2' or '2-5'; all when absent"
    )
    keep_steps: list[int] | None = field(
        default=None,
        metadata={"help": "optimiser steps at which the adapter is kept in output_dir/kept/STEP, too"},
    )
    # Mappings are typed as text: TrlParser passes those of a YAML file on as they are, and takes no other type of them
    # on the command line.
    template: str = HfArg(default="{}", help='chat template arguments, e.g. {"enable_thinking": false}; JSON or YAML')
    effective_batch_size: int | None = HfArg(
        default=None, help="rows of a step over all processes; accumulation is derived from it"
    )
    row_tokens: int | None = HfArg(
        default=None, help="most tokens of a row that the memory is planned for; longer rows are refused"
    )
    share_prefixes: int | None = HfArg(
        default=None, help="deal rows of a context in groups of this many and compute what prompts share once a batch"
    )
    letter_only: bool = HfArg(
        default=False, help="teach of a decision the letter alone, not the tokens that end the answer"
    )
    gpus: str = HfArg(
        default="{}", help='settings by GPU memory in GB, e.g. {"24": {"per_device_train_batch_size": 4}}'
    )
    gpu_memory: float | None = HfArg(default=None, help="GB to choose among gpus by; this machine's GPU when absent")
    probe_contexts: str | None = HfArg(
        default=None, help="contexts to probe the base model with where held-out decisions stay near chance"
    )
    stop_patience: int = HfArg(
        default=5,
        help="evaluations in a row, after warm-up and first quarter, with one letter, agreement at chance or no "
        "finite loss, after which training stops; 0: never",
    )
    licence: str | None = HfArg(
        default=None, help="licence of the base model, in the Hub's spelling; it goes into the card"
    )
    hub_repository: str | None = HfArg(
        default=None, help="private repository on the Hub that the finished adapter is uploaded to"
    )
    overwrite: bool = HfArg(default=False, help="redo it where output_dir holds another result")

    def __post_init__(self) -> None:
        self.template_arguments = _mapping("template", self.template)
        self.gpu_settings = {int(size): settings for size, settings in _mapping("gpus", self.gpus).items()}
        if self.share_prefixes is not None and self.share_prefixes < 2:
            raise InputError(
                f"share_prefixes {self.share_prefixes}: at least 2 rows share a beginning; or leave it out"
            )
        if self.keep_steps is not None:
            self.keep_steps = _steps(self.keep_steps)
        if self.stop_patience < 0:
            raise InputError(f"stop_patience {self.stop_patience}: give a number of evaluations, or 0 for never")


def _steps(given: Any) -> list[int]:
    """Steps in order, each once."""
    steps = given if isinstance(given, list) else [given]
    if not steps or not all(type(step) is int and step >= 1 for step in steps):
        raise InputError(f"keep_steps {shown(given)}: give optimiser steps, whole numbers from 1 on, such as [50, 100]")
    return sorted({*steps})


def _mapping(name: str, given: Any) -> dict[str, Any]:
    """A mapping that was given as JSON or, in YAML, as it is."""
    try:
        value = json.loads(given) if isinstance(given, str) else given or {}
    except json.JSONDecodeError as error:
        raise InputError(f"{name} {given!r}: not JSON ({error}); names and texts need double quotes") from None
    if not isinstance(value, dict):
        raise InputError(f"{name} {given!r}: not a mapping; give one such as {{}}")
    return value


@dataclass
class TeachingConfig(SFTConfig):
    """TRL's configuration with the defaults that this task needs."""

    # Truncation would drop the answer, which stands at the end, and with it the row, without an error.
    max_length: int | None = HfArg(default=None, help="None: rows are never cut")
    # Rows are short; recomputing activations costs a third more time and saves memory that is not short.
    gradient_checkpointing: bool = HfArg(default=False, help="recompute activations to save memory")
    ddp_find_unused_parameters: bool | None = HfArg(default=False, help="LoRA leaves none unused")
    learning_rate: float = HfArg(default=1e-4, help="LoRA wants about ten times a full fine-tuning's")
    # Filtered, a diverged training would log the mean of the losses before.
    logging_nan_inf_filter: bool = HfArg(default=False, help="log losses that are not finite as they are")
    disable_tqdm: bool | None = HfArg(default=True, help="transformers' own bars; ours is shown anyway")

    def __post_init__(self) -> None:
        if not torch.accelerator.is_available():
            self.use_cpu = True
            self.bf16: bool | None = bool(self.bf16)
        super().__post_init__()
        check_honoured(vars(self))
        if self.load_best_model_at_end and self.eval_strategy == "steps" and self.save_steps != self.eval_steps:
            raise InputError(
                f"load_best_model_at_end: save_steps {self.save_steps} is not eval_steps {self.eval_steps}; make them "
                "equal, so that each evaluated step can be kept"
            )


@dataclass
class LoraArguments(ModelConfig):
    """TRL's model and LoRA arguments with all linear layers as targets and no dropout."""

    model_name_or_path: str = HfArg(default="", help="a model folder, or a model's name on the Hub")
    use_peft: bool = HfArg(default=True, help="always: an arm is a base model and one adapter")
    lora_dropout: float = HfArg(default=0.0, help="share of its inputs that an adapter drops out in training")
    lora_target_modules: list[str] | None = field(
        default_factory=lambda: list(LORA_TARGETS),
        metadata={"help": "names of the layers that get an adapter, or one regular expression for their full names"},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        # TRL takes the only entry out of its list, and PEFT reads a text as a regular expression. A name is none.
        if isinstance(self.lora_target_modules, str) and re.fullmatch(r"[\w.]+", self.lora_target_modules):
            self.lora_target_modules = [self.lora_target_modules]
        check_honoured(vars(self))


KINDS = (TeachingArguments, TeachingConfig, LoraArguments)


class _Parser(TrlParser):
    """Says what is wrong with an argument in one line, without the list of all of them."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print with the whole usage."""
        raise InputError(f"{message}; see: python train/sft.py --help")


def parse_arguments() -> tuple[TeachingArguments, TeachingConfig, LoraArguments]:
    """Read `--config FILE.yaml` and the command line; an unknown key or a bad value is an `InputError`."""
    place = _config_file() or "command line"
    check_values(asked_settings() or {}, KINDS)  # also refuses a file that is missing or no YAML
    try:
        teaching, sft, lora = _Parser(KINDS).parse_args_and_config()
    except (ValueError, TypeError) as error:
        raise InputError(f"{place}: {_on_one_line(error)}") from None
    for kind in (teaching, sft, lora):  # also what the command line says
        check_values({name: value for name, value in vars(kind).items() if name in RANGES}, KINDS)
    _check_together(teaching, sft, lora)
    fit_to_hardware(teaching, sft, lora)
    return teaching, sft, lora


def check_training(values: Mapping[str, Any]) -> None:
    """Find out whether a training would take its settings, without the GPU that it will have.

    Raises:
        InputError: A setting is unknown, of another type or out of range, or does not go with the others.
    """
    if unknown := [name for name in values if name not in {"env", *known_arguments()}]:
        raise InputError(f"unknown setting {unknown[0]!r}; see: python train/sft.py --help")
    check_honoured(values)
    check_values(values, KINDS)
    parser = _Parser(KINDS)
    # `use_cpu`: a GPU is for the training alone, and may be on another machine than this.
    kept = {name: value for name, value in values.items() if name not in {"env", *OF_HARDWARE}}
    parser.set_defaults_with_config(**kept, use_cpu=True)
    environment = dict(os.environ)
    try:
        teaching, sft, lora = parser.parse_args_into_dataclasses(args=[], look_for_args_file=False)
        _check_together(teaching, sft, lora)
        get_peft_config(lora)
        optimizer, kwargs = torch.optim.SGD([torch.zeros(1)]), sft.lr_scheduler_kwargs
        get_scheduler(sft.lr_scheduler_type, optimizer, 0, 10, scheduler_specific_kwargs=kwargs)
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        raise InputError(_on_one_line(error)) from None
    finally:
        # What these classes set for a process that trains is not for one that starts it.
        os.environ.clear()
        os.environ.update(environment)
        AcceleratorState._reset_state(reset_partial_state=True)


def _on_one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _check_together(teaching: TeachingArguments, sft: TeachingConfig, lora: LoraArguments) -> None:
    """Settings that do not go together."""
    if sft.load_best_model_at_end and not teaching.validation_file:
        raise InputError("load_best_model_at_end: there is no validation_file to choose by; name one, or leave it out")
    if not teaching.validation_file:
        sft.eval_strategy = IntervalStrategy.NO  # a model's settings say when to evaluate, an experiment whether
    if teaching.share_prefixes and (sft.neftune_noise_alpha or sft.train_sampling_strategy != "random"):
        raise InputError(
            "share_prefixes: rows are dealt by context and share embeddings, so neftune_noise_alpha and "
            "train_sampling_strategy are not honoured; leave one or the other out"
        )
    if not lora.model_name_or_path:
        raise InputError("model_name_or_path is missing; name a model folder or a model on the Hub")
    _check_new_adapter(teaching, lora)
    if teaching.keep_steps and sft.max_steps > 0:
        check_keep_steps(teaching.keep_steps, sft.max_steps)


def _check_new_adapter(teaching: TeachingArguments, lora: LoraArguments) -> None:
    """What is said of a new adapter goes with an adapter that is new, and with the model."""
    if teaching.adapter:
        for name in ("frozen_adapter", "layers"):
            if (value := getattr(teaching, name)) is not None:
                raise InputError(
                    f"{name} {shown(value)}: it is said of a new adapter, and this training goes on from "
                    f"{teaching.adapter}; leave one of the two out"
                )
    if teaching.layers is not None:
        if isinstance(lora.lora_target_modules, str):
            raise InputError(
                f"layers {shown(teaching.layers)}: lora_target_modules {shown(lora.lora_target_modules)} is a regular "
                "expression, which says itself in which layers; name matrices, or leave layers out"
            )
        check_layers(teaching.layers, project_file(lora.model_name_or_path))


def check_keep_steps(steps: Sequence[int], last: int) -> None:
    """Refuse steps to keep that a training does not reach.

    Raises:
        InputError: With the first of them.
    """
    if beyond := [step for step in steps if step > last]:
        raise InputError(f"keep_steps {beyond[0]}: the training ends at step {last}; give steps up to that")


def asked_settings() -> dict[str, Any] | None:
    """What the file after `--config` asks for, without the environment (where curves go); None without a file."""
    path = _config_file()
    values = read_yaml(path) if path else None
    return {key: value for key, value in values.items() if key != "env"} if isinstance(values, dict) else None


def _config_file() -> Path | None:
    return Path(sys.argv[sys.argv.index("--config") + 1]) if "--config" in sys.argv[:-1] else None


def known_arguments() -> set[str]:
    """Names of all that a configuration file of this script may set."""
    return {f.name for kind in KINDS for f in fields(kind)}


def fit_to_hardware(teaching: TeachingArguments, sft: TeachingConfig, lora: LoraArguments) -> None:
    """Set what depends on the GPU, if there is one, and on the number of processes; the effective batch stays.

    Raises:
        InputError: The GPU is too small for every entry, an entry sets what is no argument, the processes cannot share
            the batch, or a quantised base cannot run here.
    """
    memory = teaching.gpu_memory or gpu_memory()
    if teaching.gpu_settings and memory:
        for name, value in settings_for(teaching.gpu_settings, memory).items():
            owner = next((o for o in (sft, lora) if hasattr(o, name)), None)
            if owner is None:
                raise InputError(f"gpus: unknown setting {name!r}; see: python train/sft.py --help")
            setattr(owner, name, value)
    if teaching.effective_batch_size:
        rows, steps = split_batch(teaching.effective_batch_size, sft.per_device_train_batch_size, sft.world_size)
        sft.per_device_train_batch_size, sft.gradient_accumulation_steps = rows, steps
    if lora.load_in_4bit or lora.load_in_8bit:
        check_quantization()
