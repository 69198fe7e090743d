"""Models, configurations and tokenizers as transformers loads them, never running code that comes with a model.

A configuration may name code of its own folder (`auto_map`). transformers asks on standard input whether to run it,
unless it is told; here it is always told not to. Weights come from safetensors alone, as a pickle is code, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from store.paths import project_file
from task.errors import InputError, shown

CUSTOM = "contains custom code"
"""In the error with which transformers declines to run a model's own code."""


def load_config(name: str | Path, revision: str | None = None) -> Any:
    """The configuration of a model, given as a folder or as a name on the Hub.

    Raises:
        InputError: It cannot be read, or needs code of its own.
    """
    from transformers import AutoConfig  # slow to load, and not needed by what reads files alone

    with _one_line(name):
        return AutoConfig.from_pretrained(_place(name), revision=revision, trust_remote_code=False)


def load_tokenizer(name: str | Path, revision: str | None = None) -> Any:
    """The tokenizer of a model; see `load_config`."""
    from transformers import AutoTokenizer

    with _one_line(name):
        return AutoTokenizer.from_pretrained(_place(name), revision=revision, trust_remote_code=False)


def load_causal_model(name: str | Path, revision: str | None = None, **how: Any) -> Any:
    """A model that continues texts; `how` are further arguments of transformers' `from_pretrained`.

    Raises:
        InputError: It cannot be read, needs code of its own, or would be wrong on this GPU (`check_attention`).
    """
    from transformers import AutoModelForCausalLM

    with _one_line(name):
        model = AutoModelForCausalLM.from_pretrained(
            _place(name), revision=revision, use_safetensors=True, trust_remote_code=False, **how
        )
    check_attention(name, model.config.get_text_config())
    return model


def check_attention(name: str | Path, config: Any) -> None:
    """Refuse torch's fused attention on CUDA for a model with one key-value head, such as Gemma 3 1B.

    Its memory-efficient kernel then gives wrong numbers, silently, where a padded row has 32 n + 1 tokens
    (https://github.com/pytorch/pytorch/issues/191937). That is most likely why an H200 with torch 2.11 changed a fifth
    of the letters of a tiny Gemma 3 in float32; `scripts/check_gpu/attention.py` tells of any other GPU.
    """
    fused = config._attn_implementation == "sdpa" and getattr(config, "num_attention_heads", 1) > 1
    if fused and getattr(config, "num_key_value_heads", None) == 1 and device_at_hand().type == "cuda":
        raise InputError(
            f"{name}: one key-value head, for which torch's sdpa attention is wrong on CUDA at some lengths (pytorch "
            "issue 191937); set attn_implementation: eager"
        )


def device_at_hand() -> Any:
    """The GPU that a model is put on where there is one that works, else the CPU (a `torch.device`).

    A torch built for CUDA names CUDA as its accelerator on a machine without a driver, too.
    """
    import torch

    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def stop_ids(model: Any, tokenizer: Any) -> list[int]:
    """All token ids that end a reply; models name one, several, or leave it to the tokenizer."""
    named = model.generation_config.eos_token_id
    ids = [*(named if isinstance(named, list) else [named]), tokenizer.eos_token_id]
    return list(dict.fromkeys(i for i in ids if i is not None))


def model_without_weights(folder: Path) -> Any:
    """A model's modules with the names and shapes of their parameters, which take no memory."""
    import torch
    from transformers import AutoModelForCausalLM

    config = load_config(folder)
    with _one_line(folder), torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)


def _place(name: str | Path) -> str:
    return str(project_file(str(name)))


@contextmanager
def _one_line(name: str | Path) -> Iterator[None]:
    """What transformers says of a model that it cannot load, as one line."""
    try:
        yield
    except RuntimeError:  # memory that runs out, which is not the model's fault
        raise
    except Exception as error:  # transformers raises a dozen kinds, all of which mean: these files are no such model
        said = " ".join(str(error).split())
        if CUSTOM in said:
            raise InputError(
                f"model {str(name)!r}: its configuration names code of its own (auto_map), which is never run here; "
                "give a model that the installed transformers knows by itself"
            ) from None
        raise InputError(
            f"model {str(name)!r}: transformers cannot load it ({type(error).__name__}: {shown(said, 200)}); fetch the "
            "model again, or give one that the installed transformers knows"
        ) from None
