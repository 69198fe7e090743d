"""How much a check does: on a GPU, and in its twin on a CPU."""

from __future__ import annotations

from dataclasses import dataclass

Models = tuple[tuple[str, tuple[str, ...]], ...]
BOTH = ("float32", "bfloat16")
ALL: Models = (("organism", BOTH), ("llama", BOTH), ("qwen3", BOTH), ("gemma3", BOTH))


@dataclass(frozen=True)
class Sizes:
    """How much a check does.

    Attributes:
        trained, models: Kinds of models (`models.KINDS`) that are trained, and that are asked, each with the types of
            its weights.
        steps: Optimiser steps of a training.
        contexts, pairs, reports: Choice contexts, pairs (each in both orders) and reports of a context that are asked.
        batch: Prompts at a time.
        product: Side of the square matrices whose product is timed.
        shapes: Names in configs/models/architectures.json whose memory is measured, or `tiny` ones.
        speed_model: The kind, or the name in architectures.json, of the model whose speed is measured.
        speed_rows, speed_steps, speed_pairs: Rows of a step, steps, and pairs of a context, by which a training and an
            evaluation are timed.
        seconds: Time of a line on a CPU; on a GPU each line has its own.
    """

    trained: Models
    models: Models
    steps: int
    contexts: int
    pairs: int
    reports: int
    batch: int
    product: int
    shapes: tuple[str, ...]
    speed_model: str
    speed_rows: int
    speed_steps: int
    speed_pairs: int
    seconds: float = 60.0


GPU = Sizes(
    trained=ALL,
    models=ALL,
    steps=50,
    contexts=10,
    pairs=10,
    reports=5,
    batch=64,
    product=8192,
    shapes=(
        "qwen2.5-0.5b-instruct",
        "qwen3-4b",
        "qwen2.5-7b-instruct",
        "qwen3-8b",
        "qwen2.5-14b-instruct",
        "qwen3-32b",
    ),
    speed_model="qwen2.5-1.5b-instruct",
    speed_rows=32,
    speed_steps=40,
    speed_pairs=100,
)

CPU = Sizes(
    trained=(("qwen3", ("bfloat16",)), ("organism", ("float32",))),
    models=(("organism", BOTH), ("llama", ("float32",)), ("qwen3", ("float32",)), ("gemma3", ("float32",))),
    steps=6,
    contexts=2,
    pairs=3,
    reports=1,
    batch=16,
    product=256,
    shapes=("tiny-llama", "tiny-qwen3", "tiny-gemma3"),
    speed_model="organism",
    speed_rows=8,
    speed_steps=5,
    speed_pairs=3,
    seconds=20.0,
)
