"""How fast the engines answer, beside the plain ways to do the same, on the same model and prompts in one run.

    python scripts/benchmarks/engines.py --out results/benchmarks/engines.json

Seconds are those of the processor; their ratios are the point. vLLM is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from eval.engines import make_engine
from eval.engines.base import Engine
from eval.engines.batches import Batch, in_columns
from eval.engines.transformers_engine import TransformersEngine
from scripts.benchmarks.timing import machine, save, show, timed
from store.console import run_command
from store.contexts import DATA, load_contexts
from store.evaluation import EvalConfig
from store.pretrained import load_causal_model, load_tokenizer
from task.contexts import Layout
from task.prompts import Measure, frame
from task.trials import ShownTrial, sample_trials

PAIRS, REPORTS = 25, 10
"""Pairs (each in both orders) and reports of a context."""

ARMS, ARM_TRIALS = 5, 20
"""Arms that are asked side by side, and decisions of each."""

BATCH = 32

PLAIN: dict[Measure, tuple[int, int]] = {"decisions": (BATCH, 5), "reports": (10, 256)}
"""The plain `generate` loop: prompts at a time and new tokens."""


def shown(measure: Measure, contexts: int, layout: Layout = "lists") -> list[ShownTrial]:
    """Trials as an evaluation shows them: by context, decisions in both orders."""
    count, orders = (PAIRS, (True, False)) if measure == "decisions" else (REPORTS, (True,))
    laid_out = [replace(c, layout=layout) for c in load_contexts(DATA / "instilled.jsonl", contexts)]
    drawn = [sample_trials(0, measure, c, count) for c in laid_out]
    return [
        ShownTrial(frame(measure, t.context), i, t.first[i], t.second[i], order)
        for t in drawn
        for i in range(count)
        for order in orders
    ]


def make(model: Path, arms: dict[str, str | None], name: str = "transformers") -> Any:
    """An engine of some arms."""
    settings = {
        "seed": 0,
        "output": "",
        "engine": {"name": name, "batch_size": BATCH, "max_prompt_tokens": 384, "max_reply_tokens": 128},
        "model": {"name": str(model)},
        "arms": arms,
        "measurements": [],
    }
    return make_engine(EvalConfig.model_validate(settings))


def answer(engine: Engine, measure: Measure, trials: Sequence[ShownTrial]) -> tuple[float, dict[str, int]]:
    """Seconds that an engine takes, once it has started, and its tokens."""

    def ask(some: Sequence[ShownTrial]) -> object:
        return engine.decide("base", some) if measure == "decisions" else engine.report("base", some, constrained=True)

    ask(trials[:2])
    engine.take_token_counts()
    return timed(partial(ask, trials)).processor, engine.take_token_counts()


@torch.inference_mode()
def generate_plainly(engine: TransformersEngine, measure: Measure, prompts: Sequence[list[int]]) -> None:
    """What is measured against: `generate` in the order of the file, left-padded, every prompt from its beginning."""
    size, new = PLAIN[measure]
    for start in range(0, len(prompts), size):
        rows = in_columns(prompts[start : start + size], left=True)
        ids = torch.tensor([[token or 0 for token in row] for row in rows])
        mask = torch.tensor([[int(token is not None) for token in row] for row in rows])
        engine._model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=0)


@torch.inference_mode()
def compute_plainly(engine: TransformersEngine, prompts: Sequence[list[int]]) -> None:
    """Every prompt once through the model, in batches of like length: the pace at which tokens can be computed."""
    ordered = sorted(prompts, key=len)
    for start in range(0, len(ordered), BATCH):
        rows = ordered[start : start + BATCH]
        Batch(engine._model, [[]] * len(rows)).feed(in_columns(rows, left=True), logits=1)


def row(what: str, seconds: float, engine: float, **more: Any) -> dict[str, Any]:
    """An alternative beside the transformers engine."""
    ratio = round(seconds / engine, 2)
    return {"what": what, "seconds": round(seconds, 3), "engine": round(engine, 3), "ratio": ratio, **more}


def beside_plain(model: Path, contexts: int) -> list[dict[str, Any]]:
    """The transformers engine beside `generate` and, for decisions, beside plain forward passes; then beside vLLM."""
    engine = make(model, {"base": None})
    rows: list[dict[str, Any]] = []
    ours: dict[Measure, float] = {}
    asked: tuple[tuple[Measure, Layout], ...] = (
        ("decisions", "lists"),
        ("decisions", "side_by_side"),
        ("reports", "lists"),
    )
    for measure, layout in asked:
        trials = shown(measure, contexts, layout)
        taken, tokens = answer(engine, measure, trials)
        ours.setdefault(measure, taken)
        prompts, what = engine.prompts(trials), f"{len(trials)} {measure}, {layout}"
        plain = timed(partial(generate_plainly, engine, measure, prompts)).processor
        rows.append(
            row(f"{what}: generate (prompts at a time, new tokens: {PLAIN[measure]})", plain, taken, tokens=tokens)
        )
        if measure == "decisions":
            forward = timed(partial(compute_plainly, engine, prompts)).processor
            rows.append(row(f"{what}: a plain forward pass each", forward, taken))
    if importlib.util.find_spec("vllm"):
        # vLLM needs a process of its own.
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            found = process.submit(time_vllm, model, contexts).result()
        rows += [row(f"{m}: vLLM", taken, ours[m], tokens=tokens) for m, (taken, tokens) in found.items()]
    return rows


def time_vllm(model: Path, contexts: int) -> dict[Measure, tuple[float, dict[str, int]]]:
    """Seconds and tokens of vLLM for the same trials."""
    engine = make(model, {"base": None}, "vllm")
    return {measure: answer(engine, measure, shown(measure, contexts)) for measure in PLAIN}


def beside_merged(model: Path, folder: Path) -> dict[str, Any]:
    """One engine with all arms beside a merged model an arm, each loaded from its files."""
    trials = shown("decisions", 1)[:ARM_TRIALS]
    adapters: dict[str, str | None] = {}
    for number in range(ARMS):
        torch.manual_seed(number)
        settings = LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False)
        arm = get_peft_model(load_causal_model(model), settings)
        adapters[f"arm_{number}"] = str(folder / f"arm_{number}")
        arm.save_pretrained(adapters[f"arm_{number}"], save_embedding_layers=False)
        merged = folder / f"merged_{number}"
        arm.merge_and_unload().save_pretrained(merged)
        load_tokenizer(model).save_pretrained(merged)

    def ask_all(engines: Iterable[tuple[Engine, str]]) -> None:
        for engine, arm in engines:
            engine.decide(arm, trials)

    together = make(model, adapters)
    apart = timed(lambda: ask_all((make(folder / f"merged_{n}", {"base": None}), "base") for n in range(ARMS)))
    one = timed(lambda: ask_all((together, arm) for arm in adapters))
    return row(
        f"{ARMS} arms x {len(trials)} decisions: merged models, loaded and asked", apart.processor, one.processor
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("models/smollm2-135m-instruct"))
    parser.add_argument("--contexts", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    asked = parser.parse_args()
    model = asked.model
    with tempfile.TemporaryDirectory() as folder:
        rows = [*beside_plain(model, asked.contexts), beside_merged(model, Path(folder))]
    table = [{name: value for name, value in entry.items() if name != "tokens"} for entry in rows]
    show(f"processor seconds beside the transformers engine; {model.name}, fp32, {machine()}", table)
    save(asked.out, model=model.name, rows=rows)


if __name__ == "__main__":
    run_command(main)
