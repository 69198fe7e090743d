"""What an adapter's `adapter_config.json` says: what of it counts, and where its tensors belong. Plain LoRA alone."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from store.checkpoints import ADAPTER
from store.files import hash_file, read_json
from store.pretrained import model_without_weights
from store.settings import validated
from store.tensors import read_table
from task.errors import InputError, shown

ADAPTER_CONFIG = "adapter_config.json"
"""File of an adapter with its settings, as PEFT writes it."""

BASE_UNCHANGED = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Named beginnings of a LoRA (`init_lora_weights`) that leave the base model as it is."""

NOT_PLAIN = (
    *("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias", "target_parameters"),
    *("trainable_token_indices", "layer_replication", "alora_invocation_tokens", "use_qalora", "use_bdlora"),
    *("megatron_config", "arrow_config", "monteclora_config", "kasa_config", "velora_config"),
)
"""Keys of an `adapter_config.json` that are empty for plain LoRA."""

FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of an adapter's tensors, by safetensors' names."""

LONGEST_NAME = 120
"""Characters of a tensor's name that a message quotes."""

Names = str | list[str] | None
Rank = Annotated[int, Field(ge=1, le=1 << 16)]


class LoraSettings(BaseModel):
    """What of `adapter_config.json` says what plain LoRA computes; the names are PEFT's."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    r: Rank
    lora_alpha: Annotated[float, Field(allow_inf_nan=False)]
    use_rslora: bool = False
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    fan_in_fan_out: bool = False
    target_modules: Names = None
    exclude_modules: Names = None
    layers_to_transform: int | list[int] | None = None
    layers_pattern: Names = None

    def canonical(self) -> dict[str, Any]:
        """The settings as JSON values; lists, which PEFT keeps as sets, in order."""
        said = self.model_dump()
        return {key: sorted(value) if isinstance(value, list) else value for key, value in said.items()}


def read_lora(adapter: Path) -> LoraSettings:
    """The settings of an adapter.

    Raises:
        InputError: They are missing, of the wrong type, or of another kind than plain LoRA.
    """
    config = read_adapter_config(adapter)
    if kind := unusual_kind(config):
        raise InputError(f"{adapter}: {kind}; only plain LoRA is trained and measured here: train one without it")
    return validated(config, LoraSettings, adapter / ADAPTER_CONFIG)


def read_adapter_config(adapter: Path) -> dict[str, Any]:
    """All that an `adapter_config.json` says, as it says it."""
    config = read_json(adapter / ADAPTER_CONFIG)
    if not isinstance(config, dict):
        raise InputError(f"{adapter / ADAPTER_CONFIG}: no JSON object; save the adapter again with PEFT")
    return config


def config_to_share(adapter: Path, base: str) -> bytes:
    """The text of an `adapter_config.json` with the published name of the base model in place of a local folder."""
    config = {**read_adapter_config(adapter), "base_model_name_or_path": base}
    return json.dumps(config, indent=2, sort_keys=True).encode()


def unusual_kind(config: Mapping[str, Any]) -> str | None:
    """What makes an adapter another kind than plain LoRA, by its `adapter_config.json`; None if nothing does."""
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        return f"peft_type {shown(kind)}"
    if (bias := config.get("bias", "none")) != "none":
        return f"bias {shown(bias)}"
    if isinstance(start := config.get("init_lora_weights"), str) and start.lower() not in BASE_UNCHANGED:
        return f"init_lora_weights {shown(start)}, which changes the base model"
    return next((f"{name} {shown(config[name])}" for name in NOT_PLAIN if config.get(name)), None)


def adapter_hash(adapter: Path) -> str:
    """A hash of an adapter's tensors and of what its configuration says to do with them, 16 hex digits."""
    said = json.dumps([hash_file(adapter / ADAPTER), read_lora(adapter).canonical()], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def check_tensors(adapter: Path, lora: LoraSettings, base: Path, base_name: str) -> None:
    """Refuse an adapter whose tensors are not those that its configuration makes of the base model, each in its place.

    PEFT passes over a tensor whose name fits nothing, so that the base model answers under the arm's name. It puts any
    other tensor of the file where its name says, a LoRA tensor or not, so that the base model itself changes.
    """
    file = adapter / ADAPTER
    wanted, found = tensor_places(adapter, lora, base), read_table(file)
    remedy = f"it is no adapter of {base_name} as {ADAPTER_CONFIG} says; train it again, or save it again with PEFT"
    if strange := sorted(found.keys() - wanted.keys()):
        raise InputError(
            f"{file}: {_named(strange)} in this file and no LoRA tensor of that base model; {remedy} "
            "(save_embedding_layers=False)"
        )
    if missing := sorted(wanted.keys() - found.keys()):
        raise InputError(f"{file}: {_named(missing)} missing of {len(wanted)}; {remedy}")
    for name, shape in wanted.items():
        tensor, what = found[name], f"{file}: {_named([name])}"
        if tensor.shape != shape:
            raise InputError(f"{what} of shape {shown(tensor.shape)}, not {shape}; {remedy}")
        if tensor.dtype not in FLOATS:
            raise InputError(f"{what} of type {tensor.dtype}, not {', '.join(FLOATS)}; {remedy}")


def tensor_places(adapter: Path, lora: LoraSettings, base: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that PEFT saves of an adapter with these settings on a base model."""
    import torch
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    model = model_without_weights(base)
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adapted = get_peft_model(model, LoraConfig(**lora.model_dump()))
        state = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    except Exception as error:  # PEFT raises a dozen kinds, all of which mean: these settings fit no such model
        said = shown(" ".join(str(error).split()), 200)
        raise InputError(
            f"{adapter / ADAPTER_CONFIG}: no adapter of the model in {base} ({said}); train it on this model"
        ) from None
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _named(names: list[str]) -> str:
    """Some tensors in words: the first of them, and how many more."""
    first = shown(names[0], LONGEST_NAME)
    return f"{first} is" if len(names) == 1 else f"{first} and {len(names) - 1} more are"
