"""Hold files of configs/models/ against what training and vLLM ask of them, and print what each GPU would train.

    python scripts/check_models.py                      # all published models
    python scripts/check_models.py qwen2.5-7b-instruct  # one alone, with the parts of its memory

Nothing is downloaded: shapes come from configs/models/architectures.json, memory from the arithmetic of
experiment/memory.py. On a GPU neither was ever measured here.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from eval.engines.vllm_settings import BYTES, GPU_SHARE, RANKS, cache_bytes, needed_length
from experiment.memory import Load, Shape, estimate, shape_of
from store.console import say
from store.evaluation import EngineSettings
from store.files import read_json
from store.model_file import ModelFile, read_model_file
from store.paths import ROOT
from task.errors import InputError
from task.prompts import Measure
from train.hardware import split_batch

MODELS = ROOT / "configs" / "models"
GPUS = (24, 40, 48, 80)
"""Sizes of GPU memory in GB that model files say something of, from the smallest that holds the model on."""
STAGES: tuple[Measure, ...] = ("decisions", "reports")

LABEL_TOKENS = 128
"""Positions with logits: a report (55 tokens in SmolLM2's vocabulary) and the differences in length within a batch."""

USABLE = 0.95
"""Share of a GPU's memory that an estimate may fill."""

MADE_HERE = ("organism", "smollm2-135m-settled")
"""Models that commands of this project make: for a CPU, without a publisher's entry in architectures.json."""


def model_files(stems: Sequence[str] = ()) -> dict[str, ModelFile]:
    """Model files by the stem of their name; those of all published models when none is named."""
    published = (path.stem for path in sorted(MODELS.glob("*.yaml")) if path.stem not in MADE_HERE)
    return {stem: read_model_file(MODELS / f"{stem}.yaml") for stem in stems or published}


def shapes() -> dict[str, Shape]:
    """The shape of each model by the stem of its file."""
    known = read_json(MODELS / "architectures.json")["models"]
    return {stem: shape_of(entry["config"], entry["parameters"]) for stem, entry in known.items()}


def load_of(model: ModelFile, gpu: int, stage: Measure) -> Load:
    """What one GPU trains at a time in one stage."""
    assert model.row_tokens is not None  # `problems` has asked for it
    entry = model.gpus[gpu]
    settings = model.training(stage)
    rows, _ = split_batch(settings["effective_batch_size"], entry.sft(stage)["per_device_train_batch_size"], 1)
    return Load(
        rank=settings["lora_r"],
        rows=rows,
        row_tokens=model.row_tokens,
        label_tokens=LABEL_TOKENS,
        half=model.dtype != "float32",
        checkpointing=entry.gradient_checkpointing,
        dropout=settings.get("lora_dropout", 0) > 0,
        four_bit=entry.load_in_4bit,
        joined="share_prefixes" in settings,
    )


def problems(model: ModelFile, shape: Shape | None) -> Iterator[str]:
    """What is wrong with a model file, one line each; nothing if all is well."""
    rank = model.sft.get("lora_r")
    if rank not in RANKS:
        yield f"sft.lora_r is {rank}; vLLM takes {', '.join(map(str, RANKS))}"
    if missing := [stage for stage in STAGES if "effective_batch_size" not in model.training(stage)]:
        yield f"{missing[0]}.effective_batch_size is not set, so that the batch would depend on the GPU"
    if not model.gpus or tuple(model.gpus) != GPUS[-len(model.gpus) :]:
        yield f"gpus has {list(model.gpus)}; needed: all of {list(GPUS)} from the smallest that holds the model on"
    if model.row_tokens is None:
        yield "row_tokens is not set, so that the memory cannot be planned"
    if shape is None:
        yield "architectures.json has no shape of this model"
    elif not (missing or model.row_tokens is None):
        for gpu in model.gpus:
            for stage in STAGES:
                needed = estimate(shape, load_of(model, gpu, stage)).on_gpu
                if needed > USABLE * gpu * 1e9:
                    yield f"gpus.{gpu}: {stage} need {needed / 1e9:.1f} GB; use fewer rows or gradient_checkpointing"


def batch_and_memory(model: ModelFile, shape: Shape, gpu: int) -> str:
    """Rows at a time x accumulation and estimated memory of instillation on one GPU, in words."""
    load = load_of(model, gpu, "decisions")
    steps = split_batch(model.training("decisions")["effective_batch_size"], load.rows, 1)[1]
    how = " 4-bit" * load.four_bit + " recomputing" * load.checkpointing
    return f"{load.rows} x {steps}{how}: {estimate(shape, load).on_gpu / 1e9:.1f} GB"


def memory_lines(stem: str, model: ModelFile) -> list[str]:
    """For the dry run: what a GPU of each size would train at a time; nothing for a model of unknown shape."""
    shape = shapes().get(stem)
    if shape is None or list(problems(model, shape)):
        return []
    return [f"on a GPU of {gpu} GB: {batch_and_memory(model, shape, gpu)} (estimated)" for gpu in model.gpus]


def serving_lines(stem: str, model: ModelFile, engine: EngineSettings) -> list[str]:
    """For the dry run: what vLLM is started with, and how many prompts a GPU of each size holds at that length.

    On a GPU of its own, or as one of those that share a model by `tensor_parallel_size`.
    """
    shape = shapes().get(stem)
    if shape is None or engine.name not in ("auto", "vllm"):
        return []
    split = int(engine.vllm.get("tensor_parallel_size", 1))
    length = int(engine.vllm.get("max_model_len", needed_length(engine)))
    kinds = [(kind, count) for kind, count in shape.attention if kind.keys]
    token = sum(cache_bytes(n, kind.kv_heads, kind.head_dim, model.dtype) for kind, n in kinds) / split
    weights = shape.parameters * BYTES[model.dtype] / split
    share = float(engine.vllm.get("gpu_memory_utilization", GPU_SHARE))
    held = {gpu: int((share * gpu * 1e9 - weights) / (token * length)) for gpu in GPUS}
    fits = ", ".join(f"{rows} on {gpu} GB" if rows > 0 else f"none on {gpu} GB" for gpu, rows in held.items())
    return [
        f"vLLM: max_model_len {length}; the cache takes {token / 1e3:.0f} kB a token beside {weights / 1e9:.1f} GB of "
        f"weights, at full length at most {fits} at a time (estimated)"
    ]


def main() -> None:
    """Command line: names of model files; all when none is given. What is wrong with one does not stop the others."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="names of files in configs/models/, without .yaml")
    wanted = parser.parse_args().models
    if unknown := [name for name in wanted if not (MODELS / f"{name}.yaml").is_file()]:
        there = ", ".join(sorted(path.stem for path in MODELS.glob("*.yaml")))
        raise InputError(f"{unknown[0]}: no such model file; there are: {there}")
    files, known = model_files(wanted), shapes()
    table = Table("model", *(f"{gpu} GB" for gpu in GPUS), box=None, padding=(0, 2, 0, 0))
    parts, wrong = list[str](), list[str]()
    for stem, model in files.items():
        if found := list(problems(model, known.get(stem))):
            wrong += [f"configs/models/{stem}.yaml: {line}" for line in found]
            continue
        table.add_row(stem, *(batch_and_memory(model, known[stem], g) if g in model.gpus else "-" for g in GPUS))
        for gpu in model.gpus if wanted else ():
            needed = asdict(estimate(known[stem], load_of(model, gpu, "decisions")))
            shown = ", ".join(f"{part} {value / 1e9:.2f}" for part, value in needed.items())
            parts.append(f"{stem}, {gpu} GB: {shown} GB")
    if table.rows:
        Console(highlight=False, width=200).print(table)
        parts.append("rows at a time x accumulation: estimated memory (arithmetic, not measured on a GPU)")
    for line in parts:
        say(line)
    if wrong:
        raise InputError("\n       ".join(wrong))
