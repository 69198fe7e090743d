"""Which base model is meant: where its files are, and a fingerprint that tells it from others."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from store.checkpoints import ADAPTER, KEPT
from store.files import hash_file, read_json
from store.lora import ADAPTER_CONFIG, check_tensors, read_adapter_config, read_lora
from store.manifests import MANIFEST, AdapterFacts, ModelFacts, read_manifest
from store.paths import project_file
from store.tensors import hash_samples, weights_files
from task.errors import InputError

SCHEME = "v2-"
"""Begins a fingerprint, so that one of another scheme is told apart. The first scheme, without a beginning, looked at
three places of each weights file and at no tokenizer."""

SAYS = (
    *("config.json", "generation_config.json", "tokenizer*", "*.model", "*.jinja", "additional_chat_templates/*.jinja"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.json", "vocab.*", "merges.txt"),
)
"""Patterns of a model's files, beside its weights, on which answers depend."""


def model_folder(name: str, revision: str | None = None) -> Path:
    """The folder with the files of a model, given as a folder or as a name on the Hugging Face Hub."""
    folder = project_file(name)
    if folder.is_dir():
        if not list(folder.glob("*.safetensors")):
            raise InputError(f"{folder}: no *.safetensors in this model folder; only safetensors weights are loaded")
        return folder
    check_there(name)
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


def check_there(name: str) -> None:
    """Refuse a model folder that is not there; what may be a name on the Hub is not asked for."""
    if name.startswith(("/", "./", "../", "models/")) and not project_file(name).is_dir():
        raise InputError(f"{name}: no such model folder; the small model is fetched by: make model")


def published_name(name: str, folder: Path) -> str:
    """What a model is called elsewhere: its name on the Hub, or the folder's last part; never a local path."""
    if not project_file(name).is_dir():
        return name
    known = read_manifest(folder, ModelFacts).facts.model if (folder / MANIFEST).is_file() else None
    return known or folder.name


def fingerprint(folder: Path) -> str:
    """A hash of a model's configuration, tokenizer, chat template and of samples of its weights.

    Hashing all of a 15 GB model would take longer than loading it. The tensor tables and three samples of every tensor
    differ between any two trained models, and where part of a file is lost.

    Raises:
        InputError: There is no configuration, or a weights file is cut off.
    """
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder}: no config.json in this model folder; fetch the model again")
    digest = hashlib.sha256()
    for path in sorted({path for pattern in SAYS for path in folder.glob(pattern) if path.is_file()}):
        digest.update(json.dumps([path.name, hash_file(path)]).encode())
    for path in weights_files(folder):
        digest.update(json.dumps([path.name, hash_samples(path)]).encode())
    return SCHEME + digest.hexdigest()[:16]


def template_hash(folder: Path) -> str | None:
    """A hash of a model's chat template, 16 hex digits, from whichever of its files says it; None without one."""
    own, config = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    if own.is_file():
        text: Any = own.read_text()
    else:
        text = read_json(config).get("chat_template") if config.is_file() else None
    return None if text is None else hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()[:16]


def changes_nothing(adapter: str | Path) -> bool:
    """Whether an adapter was made to change nothing, as a derived one of dose 0 is."""
    return (Path(adapter) / MANIFEST).is_file() and read_manifest(Path(adapter), AdapterFacts).facts.changed == 0


def check_adapter(adapter: Path, base: Path, base_name: str) -> None:
    """Refuse an adapter that is missing, no plain LoRA, trained on another base model, or not as it says.

    An adapter of ours carries its base's fingerprint in its manifest; for one made elsewhere the base's name in
    `adapter_config.json` must be the name in use.
    """
    if not (adapter / ADAPTER_CONFIG).is_file() or not (adapter / ADAPTER).is_file():
        raise InputError(f"{adapter}: no adapter here ({ADAPTER_CONFIG}, {ADAPTER}); train it first")
    lora = read_lora(adapter)
    trained_on = read_adapter_config(adapter).get("base_model_name_or_path")
    maker = adapter.parent.parent if adapter.parent.name == KEPT else adapter  # a kept step is its training's
    if (maker / MANIFEST).is_file():
        known = read_manifest(maker, AdapterFacts).facts.base
        if not known.fingerprint.startswith(SCHEME):
            raise InputError(
                f"{adapter}: its manifest tells its base model by a fingerprint of an earlier version, which said "
                "less; train it again, or measure it with the version that made it"
            )
        same, trained_on = known.fingerprint == fingerprint(base), known.name
    else:
        same = trained_on == base_name
    if not same:
        raise InputError(
            f"{adapter}: trained on the base model {trained_on!r}, not on {base_name!r}; "
            "name that base model, or train the adapter again on this one"
        )
    check_tensors(adapter, lora, base, base_name)
