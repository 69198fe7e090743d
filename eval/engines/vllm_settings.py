"""Arguments of `vllm.LLM`, derived from the model, its adapters and the lengths of prompts and replies.

Loads neither vLLM nor torch, so that a dry run can show them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from store.evaluation import EngineSettings, ModelSettings
from store.lora import read_lora
from store.paths import project_file
from store.pretrained import load_config
from task.errors import InputError

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM accepts as `max_lora_rank`; an adapter takes the next larger one."""

LENGTH = 2048
"""Most tokens of prompt and reply where nothing was derived: prompts have a few hundred."""

CPU_ROWS = 64
"""Prompts at a time without a GPU; as many find room in the cache at full length."""

GPU_SHARE = 0.92
"""What vLLM takes of a GPU's memory by default."""

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}


def text_config(model: ModelSettings) -> Any:
    """The configuration of a model's text part."""
    return load_config(model.name, model.revision).get_text_config()


def model_arguments(model: ModelSettings) -> dict[str, Any]:
    """Which model, and how it is loaded."""
    named = model.model_dump(include={"revision", "dtype"})
    more = {"trust_remote_code": False, "seed": 0, "enable_prefix_caching": True}
    return {"model": str(project_file(model.name)), **named, **more}


def length_arguments(engine: EngineSettings, config: Any, dtype: str, cuda: bool) -> dict[str, Any]:
    """Length, and memory for the cache of keys and values.

    On a GPU vLLM fills what the weights leave of it. Elsewhere its default is nearly all memory of the machine.
    """
    length = min(needed_length(engine), config.max_position_embeddings)
    if cuda:
        return {"max_model_len": length}
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    token = cache_bytes(config.num_hidden_layers, config.num_key_value_heads, size, dtype)
    return {
        "max_model_len": length,
        "max_num_seqs": CPU_ROWS,
        "kv_cache_memory_bytes": CPU_ROWS * length * token,
        "enforce_eager": True,
        "block_size": 32,  # short, so that short shared beginnings fill some
        "max_num_batched_tokens": 512,  # small steps, as LoRA gathers its weights by token
    }


def lora_arguments(adapters: Sequence[str]) -> dict[str, Any]:
    """Room for the adapters: one at work, since a call answers one arm, the others at hand."""
    if not adapters:
        return {}
    ranks = [read_lora(Path(path)).r for path in adapters]
    if max(ranks) > RANKS[-1]:
        raise InputError(f"{adapters[ranks.index(max(ranks))]}: rank {max(ranks)}, vLLM takes {RANKS[-1]} at most")
    rank = next(rank for rank in RANKS if rank >= max(ranks))
    return {"enable_lora": True, "max_loras": 1, "max_cpu_loras": len(adapters), "max_lora_rank": rank}


def needed_length(engine: EngineSettings) -> int:
    """Most tokens of a prompt and its reply."""
    if engine.max_prompt_tokens and engine.max_reply_tokens:
        return engine.max_prompt_tokens + engine.max_reply_tokens
    return LENGTH


def cache_bytes(layers: int, kv_heads: int, head_dim: int, dtype: str) -> int:
    """Bytes that the keys and values of one token take in all layers."""
    return 2 * layers * kv_heads * head_dim * BYTES[dtype]
