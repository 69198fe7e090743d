"""What several test modules use: paths, a tiny model, and waiting for a moment to kill a process."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SMALL_MODEL = ROOT / "models" / "smollm2-135m-instruct"


def make_tiny_model(folder: Path, seed: int) -> Path:
    """A random Llama of 1.6M parameters with SmolLM2's tokenizer and chat template."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(SMALL_MODEL)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def kill_when(
    command: list[str], condition: Callable[[], bool], seconds: float = 240, by: signal.Signals = signal.SIGKILL
) -> None:
    """Run a command from the repository's root and kill it with all its children as soon as a condition holds.

    `accelerate launch` starts several processes in sessions of their own and takes them with it on SIGTERM only.
    """
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the command ended before it could be killed"
        assert time.monotonic() < end, "the moment to kill never came"
        time.sleep(0.01)
    os.killpg(process.pid, by)
    process.wait()
