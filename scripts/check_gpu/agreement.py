"""The same trials one by one on the CPU in float32, and in batches on the device in each type of weights."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from eval.engines.transformers_engine import TransformersEngine
from scripts.check_gpu.checking import Asked, Found, missing
from scripts.check_gpu.models import model_of, random_adapter, shown
from store.evaluation import EvalConfig
from task.trials import ShownTrial

SAME = 1e-3
"""Most that log-probabilities in float32 may differ."""

NEAR = {"float32": 2 * SAME, "bfloat16": 0.25}
"""A decision is a near tie where the two letters are no further apart than this, in nats. In bfloat16 logits between 8
and 16 come in steps of 1/16; a few such steps decide a near tie."""

LEAST = 0.9
"""Least share of bfloat16 decisions that must be those of float32, and of float32 reports that must be the CPU's (one
near tie in a number makes another reply); a judgement, not a measured bound."""

ADAPTER_SCALE = 0.3
"""Of the random adapter: larger ones leave nothing of the organism's answers."""


class EngineOn(TransformersEngine):
    """The transformers engine on a device that is named, where the engine itself takes the GPU if there is one."""

    def __init__(self, config: EvalConfig, device: str) -> None:
        super().__init__(config)
        self._device = torch.device(device)


def settings(model: Path, arms: dict[str, str | None], dtype: str, batch: int, engine: str) -> EvalConfig:
    """What an engine is told."""
    return EvalConfig.model_validate(
        {
            "seed": 0,
            "output": "unused",
            "engine": {"name": engine, "batch_size": batch, "max_prompt_tokens": 512, "max_reply_tokens": 256},
            "model": {"name": str(model), "dtype": dtype},
            "arms": arms,
            "measurements": [],
        }
    )


def compare(reference: NDArray[np.float64], found: NDArray[np.float64], near: float) -> dict[str, Any]:
    """How far log-probabilities of two letters, shape (trials, 2), are those of a reference."""
    margin = reference[:, 0] - reference[:, 1]
    same = (margin > 0) == (found[:, 0] > found[:, 1])
    tied = np.abs(margin) <= near
    return {
        "decisions": len(margin),
        "largest_difference": float(np.abs(found - reference).max()),
        "same_letter": float(same.mean()),
        "near_ties": float(tied.mean()),
        "other_letters_beyond_near_ties": int((~same & ~tied).sum()),
    }


def problems_of(dtype: str, figures: dict[str, Any]) -> list[str]:
    """What of a comparison does not hold."""
    found = []
    if not np.isfinite(figures["largest_difference"]):
        return ["log-probabilities are not finite"]
    if dtype == "float32" and figures["largest_difference"] > SAME:
        found.append(f"log-probabilities differ by {figures['largest_difference']:.2g}, more than {SAME:g}")
    if dtype == "float32" and figures["other_letters_beyond_near_ties"]:
        found.append(f"{figures['other_letters_beyond_near_ties']} letters differ that are no near ties")
    if dtype == "bfloat16" and figures["same_letter"] < LEAST:
        found.append(f"{figures['same_letter']:.0%} of the letters are those of float32, less than {LEAST:.0%}")
    if dtype == "float32" and figures.get("same_reply", 1.0) < LEAST:
        found.append(f"{figures['same_reply']:.0%} of the reports are the same, less than {LEAST:.0%}")
    return found


def check_one(kind: str, dtypes: Sequence[str], folder: Path, asked: Asked) -> dict[str, dict[str, Any]]:
    """A model with and without an adapter; figures by type of weights."""
    model, sizes = model_of(kind, folder), asked.sizes
    arms = {"base": None, "adapted": str(random_adapter(model, folder / f"{kind}-adapter", ADAPTER_SCALE))}
    trials = shown("decisions", sizes.contexts, sizes.pairs)
    reports = shown("reports", 1, sizes.reports) if kind == "organism" and not missing(["xgrammar"]) else []
    slow = EngineOn(settings(model, arms, "float32", 1, "transformers"), "cpu")
    reference = decide(slow, arms, trials)
    replies = report(slow, arms, reports)
    found = {}
    for dtype in dtypes:
        engine = EngineOn(settings(model, arms, dtype, sizes.batch, "transformers"), asked.device)
        found[dtype] = compare(reference, decide(engine, arms, trials), NEAR[dtype])
        if reports:
            given = report(engine, arms, reports)
            found[dtype]["same_reply"] = float(np.mean([a == b for a, b in zip(replies, given, strict=True)]))
    return found


def decide(engine: Any, arms: dict[str, str | None], trials: Sequence[ShownTrial]) -> NDArray[np.float64]:
    """Log-probabilities of both letters for all arms, one after the other, shape (arms x trials, 2)."""
    return np.concatenate([engine.decide(arm, trials).logps for arm in arms])


def report(engine: Any, arms: dict[str, str | None], trials: Sequence[ShownTrial]) -> list[str | None]:
    """Constrained reports of all arms, one after the other."""
    return [reply for arm in arms if trials for reply in engine.report(arm, trials, constrained=True)]


def check(asked: Asked) -> Found:
    """All models, as far as there is time."""
    found = Found(
        remedy="measure in float32; look for a newer driver or torch; on a GPU set attn_implementation: eager"
    )
    with tempfile.TemporaryDirectory() as name:
        for kind, dtypes in asked.sizes.models:
            if asked.clock.out:
                found.left_out.append(kind)
                continue
            for dtype, figures in check_one(kind, dtypes, Path(name), asked).items():
                found.figures[f"{kind} {dtype}"] = figures
                found.problems += [f"{kind} {dtype}: {problem}" for problem in problems_of(dtype, figures)]
    found.said = "; ".join(in_words(found.figures, dtype) for dtype in NEAR if of_type(found.figures, dtype))
    return found


def of_type(figures: dict[str, Any], dtype: str) -> list[dict[str, Any]]:
    """The figures of one type of weights."""
    return [found for name, found in figures.items() if name.endswith(dtype)]


def in_words(figures: dict[str, Any], dtype: str) -> str:
    """A type of weights in a phrase: the worst model, and the near ties of all."""
    mine = of_type(figures, dtype)
    furthest, least = max(f["largest_difference"] for f in mine), min(f["same_letter"] for f in mine)
    ties = np.mean([f["near_ties"] for f in mine])
    return f"{dtype}: within {furthest:.1g}, at least {least:.1%} of the letters the same, {ties:.1%} near ties"
