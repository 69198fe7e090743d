"""Which base model is meant: where its files are, and a fingerprint that tells it from others."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from store.checkpoints import ADAPTER
from store.files import read_json
from store.manifests import MANIFEST, AdapterFacts, ModelFacts, read_manifest
from store.paths import project_file
from task.errors import InputError

SAMPLE = 1 << 16
"""Bytes read at the beginning, middle and end of each weights file: enough to tell models apart, quick for any size."""


def model_folder(name: str, revision: str | None = None) -> Path:
    """The folder with the files of a model, given as a folder or as a name on the Hugging Face Hub."""
    folder = project_file(name)
    if folder.is_dir():
        if not list(folder.glob("*.safetensors")):
            raise InputError(f"{folder}: no *.safetensors in this model folder; only safetensors weights are loaded")
        return folder
    if name.startswith(("/", "./", "../", "models/")):
        raise InputError(f"{name}: no such model folder; the small model is fetched by: make model")
    from huggingface_hub import snapshot_download  # only where a model is really fetched: task/ needs numpy alone

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except Exception as error:  # the Hub client raises a dozen kinds, all of which mean: not to be had
        reason = str(error).strip().splitlines()[0][:160]
        raise InputError(
            f"model {name!r} (revision {revision or 'main'}): not a folder here, and the Hub said: {reason} "
            "Check the name, log in for gated models (hf auth login), or give a folder"
        ) from None


def published_name(name: str, folder: Path) -> str:
    """What a model is called elsewhere: its name on the Hub, or the folder's last part; never a local path."""
    if not project_file(name).is_dir():
        return name
    known = read_manifest(folder, ModelFacts).facts.model if (folder / MANIFEST).is_file() else None
    return known or folder.name


def fingerprint(folder: Path) -> str:
    """A hash of the configuration and of samples of each weights file, 16 hex digits.

    Hashing all of a 15 GB model would take longer than loading it; the sizes, the tensor table and three samples of
    every file differ between any two trained models.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for position in (0, size // 2, max(0, size - SAMPLE)):
                file.seek(position)
                digest.update(file.read(SAMPLE))
    return digest.hexdigest()[:16]


BASE_UNCHANGED = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Named beginnings of a LoRA (`init_lora_weights`) that leave the base model as it is."""

NOT_PLAIN = (
    *("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "lora_bias", "target_parameters"),
    *("trainable_token_indices", "layer_replication", "alora_invocation_tokens", "use_qalora", "use_bdlora"),
    *("megatron_config", "arrow_config", "monteclora_config", "kasa_config", "velora_config"),
)
"""Keys of an `adapter_config.json` that are empty for plain LoRA."""


def unusual_kind(config: Mapping[str, Any]) -> str | None:
    """What makes an adapter another kind than plain LoRA, by its `adapter_config.json`; None if nothing does."""
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        return f"peft_type {kind}"
    if (bias := config.get("bias", "none")) != "none":
        return f"bias {bias}"
    if isinstance(start := config.get("init_lora_weights"), str) and start.lower() not in BASE_UNCHANGED:
        return f"init_lora_weights {start}, which changes the base model"
    return next((f"{name} {json.dumps(config[name])}" for name in NOT_PLAIN if config.get(name)), None)


def template_hash(folder: Path) -> str | None:
    """A hash of a model's chat template, 16 hex digits, from whichever of its files says it; None without one."""
    own, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if own.is_file():
        text: Any = own.read_text()
    else:
        text = read_json(config).get("chat_template") if config.is_file() else None
    return None if text is None else hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()[:16]


def check_adapter(adapter: Path, base: Path, base_name: str) -> None:
    """Refuse an adapter that is missing, no plain LoRA, or trained on another base model.

    An adapter of ours carries its base's fingerprint in its manifest; for one made elsewhere the base's name in
    `adapter_config.json` must be the name in use.
    """
    config_file = adapter / "adapter_config.json"
    if not config_file.is_file() or not (adapter / ADAPTER).is_file():
        raise InputError(f"{adapter}: no adapter here (adapter_config.json, adapter_model.safetensors); train it first")
    config = read_json(config_file)
    if kind := unusual_kind(config):
        raise InputError(f"{adapter}: {kind}; only plain LoRA is trained and measured here: train one without it")
    trained_on = config.get("base_model_name_or_path")
    if (adapter / MANIFEST).is_file():
        known = read_manifest(adapter, AdapterFacts).facts.base
        same, trained_on = known.fingerprint == fingerprint(base), known.name
    else:
        same = trained_on == base_name
    if not same:
        raise InputError(
            f"{adapter}: trained on the base model {trained_on!r}, not on {base_name!r}; "
            "name that base model, or train the adapter again on this one"
        )
