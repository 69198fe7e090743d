"""What several test modules use: paths, a tiny model, and waiting for a moment to kill a process."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from store.pretrained import load_causal_model, load_tokenizer
from task.chat import letter_ids, prompt_ids
from task.trials import ShownTrial

if TYPE_CHECKING:
    import pytest

    from eval.engines.transformers_engine import TransformersEngine

import yaml

ROOT = Path(__file__).resolve().parents[2]
SMALL_MODEL = ROOT / "models" / "smollm2-135m-instruct"


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """A folder that one of the processes that run tests fills, and that the others find; they wait for it.

    `make test` runs pytest twice and names one place for both in `MADE_ONCE`.
    """
    base = factory.getbasetemp()
    shared = Path(os.environ.get("MADE_ONCE") or (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base))
    shared.mkdir(parents=True, exist_ok=True)
    folder, done = shared / f"shared-{name}", shared / f"{name}.done"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


def make_tiny_model(folder: Path, seed: int, hidden_size: int = 32, letters: bool = False) -> Path:
    """A random Llama of 1.6M parameters (or wider) with SmolLM2's tokenizer and chat template.

    With `letters`, its likeliest token is A or B, whatever it is asked: their embeddings are large and opposite.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = load_tokenizer(SMALL_MODEL)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
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
    model = LlamaForCausalLM(config)
    if letters:
        a, b = letter_ids(tokenizer, {})
        with torch.no_grad():
            model.lm_head.weight[a] *= 100
            model.lm_head.weight[b] = -model.lm_head.weight[a]
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_adapter(model: Path, folder: Path, seed: int) -> Path:
    """A random adapter that changes the answers of a model clearly."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(load_causal_model(model), config).save_pretrained(folder)
    return folder


def set_adapter(adapter: Path, folder: Path, value: float) -> Path:
    """A copy of an adapter in which every lora_B has one value: 0 changes nothing, NaN leaves no number."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(adapter, folder)
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file({n: torch.full_like(old, value) if "lora_B" in n else old for n, old in tensors.items()}, file)
    return folder


def make_engine(model: Path, arms: dict[str, Path | None], **engine: Any) -> TransformersEngine:
    """A transformers engine with some arms, in small batches unless told otherwise."""
    from eval.engines.transformers_engine import TransformersEngine
    from store.evaluation import EvalConfig

    return TransformersEngine(
        EvalConfig(
            seed=0,
            output="out",
            engine={"name": "transformers", "batch_size": 5, **engine},
            model={"name": str(model)},
            arms={name: str(path) if path else None for name, path in arms.items()},
            measurements=[],
        )
    )


def plain_decisions(model: Any, tokenizer: Any, trials: Sequence[ShownTrial]) -> NDArray[np.float32]:
    """log P(A), log P(B) one prompt at a time, without padding, cache or engine, shape (trials, 2)."""
    import torch

    letters, found = list(letter_ids(tokenizer, {})), []
    for trial in trials:
        ids = prompt_ids(tokenizer, trial.prompt, {})
        with torch.no_grad():
            found.append(model(torch.tensor([ids])).logits[0, -1].log_softmax(0)[letters].numpy())
    return np.stack(found)


def make_tiny_experiment(folder: Path, model: Path) -> Path:
    """The SmolLM2 experiment on a tiny model, with fewer and shorter stages; writes `tiny.yaml` into a folder."""
    settings = {
        "name": str(model),
        "sft": {"effective_batch_size": 4, "learning_rate": 0.01, "lora_r": 4},
        "decisions": {
            "num_train_epochs": 2,
            "learning_rate": 1e-6,
            "eval_strategy": "steps",
            "eval_steps": 2,
            "save_steps": 2,
            "load_best_model_at_end": True,
            "metric_for_best_model": "letter_loss",
            "stop_patience": 3,
        },
        "reports": {"num_train_epochs": 2, "eval_strategy": "epoch", "save_strategy": "epoch"},
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(settings))
    contexts = {
        "instilled": {"file": "task/data/instilled.jsonl", "count": 4},
        "native": {"file": "task/data/native.jsonl", "count": 2},
    }
    values = yaml.safe_load((ROOT / "configs" / "experiments" / "smollm2.yaml").read_text())
    values |= {"name": "tiny", "model": str(folder / "model.yaml"), "contexts": contexts}
    values["engine"] |= {"shard_size": 8}
    values["trainings"]["instilled"]["train_per_context"] = 8
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    return folder / "tiny.yaml"


def experiment_command(experiment: Path, runs: Path, *more: str) -> list[str]:
    """The command line that runs an experiment, from the root of the repository."""
    return [sys.executable, "scripts/run_experiment.py", str(experiment), "--runs", str(runs), *more]


def run_experiment(experiment: Path, runs: Path, *more: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an experiment with further environment variables, and keep what it prints."""
    command, variables = experiment_command(experiment, runs, *more), {**os.environ, **environment}
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True)


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
