"""The models that are checked: the organism, and tiny random ones of the families in use, with its tokenizer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from store.contexts import DATA, load_contexts, save_contexts
from store.paths import ROOT
from store.pretrained import load_causal_model, load_tokenizer
from task.contexts import ChoiceContext, as_ratings
from task.prompts import Measure, frame
from task.trials import ShownTrial, sample_trials

ORGANISM = ROOT / "models" / "organism"

KINDS = {"llama": "llama", "qwen3": "qwen3", "gemma3": "gemma3_text"}
"""Families beside the organism, with transformers' names of their types."""

SHAPE = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}


def tiny_config(kind: str, **more: Any) -> Any:
    """The configuration of a tiny model of a family, with the organism's vocabulary unless `more` says another."""
    from transformers import AutoConfig

    tokenizer = load_tokenizer(ORGANISM)
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    own = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 128} if kind == "gemma3" else {}
    words = {"vocab_size": len(tokenizer), "max_position_embeddings": 1024, "tie_word_embeddings": True}
    return AutoConfig.for_model(KINDS[kind], **{**SHAPE, **HEADS, **words, **ends, **own, **more})


def model_of(kind: str, folder: Path) -> Path:
    """The folder of a model: the organism's own, or one in `folder` in which a random model is written."""
    if kind == "organism":
        return ORGANISM
    import torch
    from transformers import AutoModelForCausalLM

    place = folder / kind
    if not place.is_dir():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(tiny_config(kind), dtype=torch.float32, trust_remote_code=False)
        model.save_pretrained(place)
        load_tokenizer(ORGANISM).save_pretrained(place)
    return place


def random_adapter(model: Path, folder: Path, scale: float = 1.0) -> Path:
    """An adapter of a model's linear layers by chance, which changes its answers.

    Args:
        model: Folder of the base model.
        folder: Where it is written.
        scale: Factor on its tensors; the organism's answers are lost under those that PEFT draws.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(1)
    drawn = LoraConfig(r=8, target_modules="all-linear", init_lora_weights=False)
    adapted = get_peft_model(load_causal_model(model), drawn)
    with torch.no_grad():
        for name, values in adapted.named_parameters():
            if "lora_" in name:
                values *= scale
    adapted.save_pretrained(folder, save_embedding_layers=False)
    return folder


def chosen_contexts(count: int) -> list[ChoiceContext]:
    """Contexts as the organism is shown them: ratings, both values of an attribute on one line."""
    return [replace(as_ratings(c), layout="side_by_side") for c in load_contexts(DATA / "instilled.jsonl", count)]


def write_contexts(count: int, folder: Path) -> Path:
    """The same in a file."""
    save_contexts(chosen_contexts(count), folder / "contexts.jsonl")
    return folder / "contexts.jsonl"


def shown(measure: Measure, contexts: int, count: int) -> list[ShownTrial]:
    """Trials as an evaluation shows them: `count` of each context, decisions in both orders."""
    orders = (True, False) if measure == "decisions" else (True,)
    return [
        ShownTrial(frame(measure, t.context), i, t.first[i], t.second[i], order)
        for t in (sample_trials(0, measure, c, count) for c in chosen_contexts(contexts))
        for i in range(count)
        for order in orders
    ]
