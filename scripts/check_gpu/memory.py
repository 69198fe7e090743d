"""The memory that experiment/memory.py predicts of a training step, beside the peak that is measured."""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM

from experiment.capacity import USABLE, load_of, model_files
from experiment.memory import Estimate, Load, estimate, shape_of
from scripts.check_gpu.checking import Asked, Found, Skipped
from scripts.check_gpu.models import tiny_config
from scripts.check_gpu.record import Device
from store.files import read_json
from store.paths import ROOT
from train.hardware import fitting_size, gpu_memory

SHAPES = 3
"""How many shapes are measured: the smallest, the largest that fits, and the one between them."""

LOW, HIGH = 0.7, 1.05
"""Least and most of the predicted bytes that may be measured; above, a planned batch may not fit."""

TINY = Load(rank=8, rows=8, row_tokens=256, label_tokens=32, half=False)
"""What is trained of the tiny models."""


@dataclass(frozen=True)
class Case:
    """A model's configuration and what is trained of it at a time."""

    name: str
    config: Any
    load: Load
    parameters: int

    @property
    def estimate(self) -> Estimate:
        """What it should take."""
        return estimate(shape_of(self.config.to_dict(), self.parameters), self.load)


def cases(asked: Asked) -> list[Case]:
    """The shapes that fit: tiny ones on a CPU, those of configs/models/ on a GPU."""
    if asked.device == "cpu":
        return [tiny_case(name.removeprefix("tiny-")) for name in asked.sizes.shapes]
    memory = gpu_memory()
    assert memory is not None  # there is a GPU
    fitting = [case for name in asked.sizes.shapes if (case := published_case(name, memory))]
    if not fitting:
        raise Skipped(f"no published shape is planned for {memory:.0f} GB", "nothing: small models train all the same")
    places = sorted({round(i * (len(fitting) - 1) / (SHAPES - 1)) for i in range(SHAPES)})
    return [fitting[place] for place in places]


def tiny_case(kind: str) -> Case:
    """A tiny model, in float32."""
    config = tiny_config(kind, hidden_size=128, intermediate_size=384)
    with torch.device("meta"):
        parameters = AutoModelForCausalLM.from_config(config, trust_remote_code=False).num_parameters()
    return Case(kind, config, TINY, parameters)


def published_case(stem: str, memory: float) -> Case | None:
    """A published shape as its model file plans it for this GPU; None where it does not fit, or only in four bits."""
    known = read_json(ROOT / "configs" / "models" / "architectures.json")["models"][stem]
    [model] = model_files([stem]).values()
    size = fitting_size(model.gpus, memory)
    if size is None or model.gpus[size].load_in_4bit:
        return None
    values = dict(known["config"])
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    case = Case(stem, config, load_of(model, size, "decisions"), known["parameters"])
    return case if case.estimate.on_gpu <= USABLE * memory * 1e9 else None


def step(case: Case, device: Device) -> Callable[[], None]:
    """Two steps of LoRA, from the loading of the model on."""

    def run() -> None:
        load = case.load
        torch.manual_seed(0)
        with torch.device(device):
            base = AutoModelForCausalLM.from_config(
                case.config,
                dtype=torch.bfloat16 if load.half else torch.float32,
                attn_implementation="sdpa",
                trust_remote_code=False,
            )
        targets = LoraConfig(r=load.rank, lora_dropout=0.05 * load.dropout, target_modules="all-linear")
        model = get_peft_model(base, targets)
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        if load.checkpointing:
            model.gradient_checkpointing_enable()
            model.enable_input_require_grads()
        model.train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])
        ids = torch.randint(3, case.config.vocab_size, (load.rows, load.row_tokens), device=device)
        mask = torch.ones_like(ids)
        mask[0, -9:] = 0
        batch = {"input_ids": ids, "attention_mask": mask, "logits_to_keep": load.label_tokens, "use_cache": False}
        for _ in range(2):
            with torch.autocast(device, dtype=torch.bfloat16, enabled=load.half):
                logits = model(**batch).logits
            logits.float().log_softmax(-1)[..., 5].mean().neg().backward()
            del logits
            optimizer.step()
            optimizer.zero_grad()

    return run


def peak_on_gpu(run: Callable[[], None]) -> dict[str, int]:
    """Most bytes that were allocated and reserved at a time while something ran on a GPU."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return {"peak": torch.cuda.max_memory_allocated() - before, "reserved": torch.cuda.max_memory_reserved()}


def peak_on_cpu(run: Callable[[], None]) -> dict[str, int]:
    """Most bytes of tensors at a time while something ran on a CPU, by each allocation that the profiler saw."""
    gc.collect()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return {"peak": max(accumulate(sizes), default=0)}


def problems_of(case: Case, peak: dict[str, int]) -> list[str]:
    """What of a prediction does not hold."""
    ratio = peak["peak"] / case.estimate.total
    found = []
    if not LOW <= ratio <= HIGH:
        found.append(f"{case.name}: measured {ratio:.2f} of what was predicted, not {LOW:g} to {HIGH:g}")
    if peak.get("reserved", 0) > case.estimate.on_gpu:
        found.append(
            f"{case.name}: {peak['reserved'] / 1e9:.1f} GB reserved, {case.estimate.on_gpu / 1e9:.1f} predicted"
        )
    return found


def check(asked: Asked) -> Found:
    """Three shapes, from the smallest on, as far as there is time."""
    found = Found(remedy="set fewer rows at a time under gpus in the model's file, and report the figures")
    for case in cases(asked):
        if asked.clock.out:
            found.left_out.append(case.name)
            continue
        run = step(case, asked.device)
        peak = peak_on_gpu(run) if asked.device == "cuda" else peak_on_cpu(run)
        ratio = peak["peak"] / case.estimate.total
        found.figures[case.name] = {"predicted": case.estimate.total, **peak, "ratio": round(ratio, 3)}
        found.problems += problems_of(case, peak)
    ratios = ", ".join(f"{name} {figures['ratio']:.2f}" for name, figures in found.figures.items())
    found.said = f"measured over predicted: {ratios}"
    return found
