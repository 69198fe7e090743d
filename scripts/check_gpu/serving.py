"""vLLM beside the transformers engine: adapters, base rows, grammar, letters, replies, and the prefix cache."""

from __future__ import annotations

import multiprocessing
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scripts.check_gpu.agreement import ADAPTER_SCALE, NEAR, EngineOn, compare, decide, problems_of, report, settings
from scripts.check_gpu.checking import Asked, Found
from scripts.check_gpu.models import ORGANISM, chosen_contexts, random_adapter, shown
from scripts.check_gpu.sizes import Sizes
from task.replies import parse_report

Arms = dict[str, str | None]


@dataclass(frozen=True)
class Answers:
    """What an engine said.

    Attributes:
        logps: Log-probabilities of both letters by arm, shape (trials, 2).
        replies: Constrained reports by arm.
        tokens: Of the prompts of the decisions: all, and those that were computed.
    """

    logps: dict[str, NDArray[np.float64]]
    replies: dict[str, list[str | None]]
    tokens: dict[str, int]


def ask(engine: Any, arms: Arms, sizes: Sizes) -> Answers:
    """Ask an engine everything; the base comes last, when adapters have been at work."""
    decisions, reports = (
        shown("decisions", sizes.contexts, sizes.pairs),
        shown("reports", sizes.contexts, sizes.reports),
    )
    order = sorted(arms, key=lambda arm: arms[arm] is None)
    logps = {arm: decide(engine, {arm: arms[arm]}, decisions) for arm in order}
    tokens = engine.take_token_counts()
    return Answers(logps, {arm: report(engine, {arm: arms[arm]}, reports) for arm in order}, tokens)


def vllm_answers(arms: Arms, dtype: str, sizes: Sizes) -> Answers:
    """The same of vLLM; to be called in a process of its own."""
    from eval.engines import make_engine

    return ask(make_engine(settings(ORGANISM, arms, dtype, sizes.batch, "vllm")), arms, sizes)


def in_a_process(arms: Arms, dtype: str, sizes: Sizes) -> Answers:
    """`vllm_answers` in a process of its own, which gives the memory back when it ends."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(vllm_answers, arms, dtype, sizes).result()


def check_type(dtype: str, arms: Arms, asked: Asked) -> tuple[dict[str, Any], list[str]]:
    """One type of weights: figures and problems."""
    served = in_a_process(arms, dtype, asked.sizes)
    alone = in_a_process({"base": None}, dtype, asked.sizes)
    reference = ask(
        EngineOn(settings(ORGANISM, arms, dtype, asked.sizes.batch, "transformers"), asked.device), arms, asked.sizes
    )
    figures = judge(served, alone, reference, NEAR[dtype], asked.sizes)
    return figures, [*problems_of(dtype, figures), *own_problems(figures, many=asked.device == "cuda")]


def judge(served: Answers, alone: Answers, reference: Answers, near: float, sizes: Sizes) -> dict[str, Any]:
    """How far vLLM's answers are those of the transformers engine, and what else has to hold of them.

    Args:
        served: Of vLLM with adapters.
        alone: Of vLLM started without.
        reference: Of the transformers engine.
        near: What a near tie is, see `agreement.NEAR`.
        sizes: How much was asked.
    """
    names = [c.attribute_names for c in chosen_contexts(sizes.contexts) for _ in range(sizes.reports)]
    read = [
        parse_report(r, n).reason is None
        for given in served.replies.values()
        for r, n in zip(given, names, strict=True)
    ]
    same = [a == b for arm in served.replies for a, b in zip(served.replies[arm], reference.replies[arm], strict=True)]
    wanted, given = ([answers.logps[arm] for arm in served.logps] for answers in (reference, served))
    base = served.logps["base"]
    return {
        **compare(np.concatenate(wanted), np.concatenate(given), near),
        "same_reply": float(np.mean(same)),
        "grammar_obeyed": float(np.mean(read)),
        "adapter_moves": float(min(np.abs(moved - base).max() for arm, moved in served.logps.items() if arm != "base")),
        "base_beside_adapters": compare(alone.logps["base"], base, near),
        "share_from_cache": round(1 - served.tokens["computed"] / served.tokens["prompt"], 4),
    }


def own_problems(figures: dict[str, Any], many: bool) -> list[str]:
    """What does not hold of vLLM by itself; a few short prompts, begun together, find nothing in the cache."""
    beside, found = figures["base_beside_adapters"], []
    if figures["adapter_moves"] < 0.01:
        found.append("adapters change nothing: answers are those of the base model")
    if beside["other_letters_beyond_near_ties"]:
        found.append(f"{beside['other_letters_beyond_near_ties']} base decisions are others beside adapters")
    if figures["grammar_obeyed"] < 1:
        found.append(f"only {figures['grammar_obeyed']:.0%} of the constrained reports can be read")
    if many and figures["share_from_cache"] <= 0:
        found.append("no prompt token came from the cache")
    return found


def check(asked: Asked) -> Found:
    """The organism in float32 and bfloat16, as far as there is time; on a CPU in float32."""
    found = Found(remedy="measure with engine: {name: transformers}")
    with tempfile.TemporaryDirectory() as name:
        arms: Arms = {"base": None, "adapted": str(random_adapter(ORGANISM, Path(name) / "adapter", ADAPTER_SCALE))}
        for dtype in NEAR if asked.device == "cuda" else ["float32"]:
            if asked.clock.out:
                found.left_out.append(dtype)
                continue
            figures, problems = check_type(dtype, arms, asked)
            found.figures[dtype] = figures
            found.problems += [f"{dtype}: {problem}" for problem in problems]
    found.said = "; ".join(
        f"{dtype}: {f['same_letter']:.1%} of the letters and {f['same_reply']:.1%} of the replies the same, "
        f"{f['share_from_cache']:.0%} of the prompts' tokens from the cache"
        for dtype, f in found.figures.items()
    )
    return found
