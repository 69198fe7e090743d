"""Tokens a second of a training and of an evaluation, and the share of what the card could do."""

from __future__ import annotations

import gc
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, TrainerCallback

from scripts.check_gpu.agreement import EngineOn, settings
from scripts.check_gpu.checking import Asked, Found, Skipped
from scripts.check_gpu.memory import published_case
from scripts.check_gpu.models import ORGANISM, shown
from scripts.check_gpu.product import TYPES, flops, synchronize
from scripts.check_gpu.training import arguments, write_rows
from scripts.cost import FORWARD, TRAINING
from store.examples import read_examples
from store.pretrained import load_config, load_tokenizer, model_without_weights
from train.hardware import gpu_memory
from train.trainer.build import build_trainer
from train.trainer.progress import ProgressBar

LEAST = 0.05
"""Least share of a GPU that a training must use, or something is in its way; a judgement, not a measured bound."""

WARM_UP = 0.4
"""Share of the steps that is not timed. A GPU loads each kernel when it is first used, and many shapes come by before
most are: an H100 did 2,500 tokens a second in its third to twelfth step."""


@dataclass(frozen=True)
class Timed:
    """A model whose speed is measured, in one type of weights, with so many rows at a time."""

    model: Path
    dtype: str
    rows: int
    parameters: int


def chosen_model(asked: Asked, folder: Path) -> Timed:
    """The organism, or a published shape of random weights with the organism's vocabulary."""
    sizes = asked.sizes
    if sizes.speed_model == "organism":
        return Timed(ORGANISM, "float32", sizes.speed_rows, model_without_weights(ORGANISM).num_parameters())
    case = published_case(sizes.speed_model, gpu_memory() or 0.0)
    if case is None:
        raise Skipped(f"{sizes.speed_model} is not planned for this GPU", "nothing: small models train all the same")
    tokenizer = load_tokenizer(ORGANISM)
    ends = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    values = {**case.config.to_dict(), "vocab_size": len(tokenizer), **ends}
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device(asked.device):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
    model.save_pretrained(folder / "timed")
    tokenizer.save_pretrained(folder / "timed")
    return Timed(folder / "timed", "bfloat16", case.load.rows, model.num_parameters())


class Steps(TrainerCallback):
    """When each step of a training ended, and the tokens that had gone through the model by then."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, int]] = []
        self.masks: list[torch.Tensor] = []

    def count(self, module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        """Note the tokens of a batch, without its padding."""
        self.masks.append(kwargs["attention_mask"].sum())

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the time."""
        self.ends.append((time.perf_counter(), int(torch.stack(self.masks).sum())))

    @property
    def tokens_per_second(self) -> float:
        """Of all steps but the first ones."""
        (began, before), (ended, after) = self.ends[int(WARM_UP * len(self.ends)) - 1], self.ends[-1]
        return (after - before) / (ended - began)


def train_speed(timed: Timed, folder: Path, asked: Asked) -> float:
    """Tokens a second of a training by our own trainer."""
    steps, sizes = asked.sizes.speed_steps, asked.sizes
    rows = write_rows(folder, sizes.contexts, -(-steps * timed.rows // 8))
    teaching, sft, lora = arguments(timed.model, rows, folder / "out", timed.dtype, asked, steps)
    sft.per_device_train_batch_size, sft.save_strategy, sft.logging_steps = timed.rows, "no", steps
    trainer = build_trainer(teaching, sft, lora, read_examples(rows.file("train")), [])
    trainer.remove_callback(ProgressBar)
    clock = Steps()
    trainer.add_callback(clock)
    trainer.model.register_forward_pre_hook(clock.count, with_kwargs=True)
    trainer.train()
    del trainer
    gc.collect()
    return clock.tokens_per_second


def evaluation_speed(timed: Timed, asked: Asked) -> dict[str, float]:
    """Tokens a second of the transformers engine: computed ones, and all of the prompts.

    All is asked of another arm first, which is the same model, so that nothing is done for the first time.
    """
    arms: dict[str, str | None] = {"before": None, "timed": None}
    engine = EngineOn(settings(timed.model, arms, timed.dtype, asked.sizes.batch, "transformers"), asked.device)
    trials = shown("decisions", asked.sizes.contexts, asked.sizes.speed_pairs)
    engine.decide("before", trials)
    synchronize(asked.device)
    engine.take_token_counts()
    began = time.perf_counter()
    engine.decide("timed", trials)
    synchronize(asked.device)
    seconds = time.perf_counter() - began
    counts = engine.take_token_counts()
    return {"computed": counts["computed"] / seconds, "prompt": counts["prompt"] / seconds}


def check(asked: Asked) -> Found:
    """Train, answer, multiply matrices."""
    with tempfile.TemporaryDirectory() as name:
        timed = chosen_model(asked, Path(name))
        could = flops(asked.device, asked.sizes.product, TYPES[timed.dtype])
        training = train_speed(timed, Path(name), asked)
        evaluation = evaluation_speed(timed, asked)
        layers = load_config(timed.model).num_hidden_layers
    used = {
        "training": TRAINING * timed.parameters * training / could,
        "evaluation": FORWARD * timed.parameters * evaluation["computed"] / could,
    }
    found = Found(
        f"training {training:,.0f} tokens/s ({used['training']:.1%} of the product), evaluation "
        f"{evaluation['computed']:,.0f} computed tokens/s ({used['evaluation']:.1%})",
        {
            "model": asked.sizes.speed_model,
            "parameters": timed.parameters,
            "layers": layers,
            "dtype": timed.dtype,
            "rows": timed.rows,
            "product_flops": could,
            "training_tokens_per_second": training,
            "evaluation_tokens_per_second": evaluation["computed"],
            "evaluation_prompt_tokens_per_second": evaluation["prompt"],
            "training_utilisation": used["training"],
            "evaluation_utilisation": used["evaluation"],
        },
    )
    if asked.device == "cuda" and used["training"] < LEAST:
        found.problems.append(f"a training uses {used['training']:.1%} of what the GPU can do, less than {LEAST:.0%}")
    return found
