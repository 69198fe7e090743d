"""How fast the engines answer, beside the plain ways to do the same, on the same model and prompts in one run.

    python scripts/benchmarks/engines.py --machine "2 x86 cores with AVX-512, no GPU"

Writes results/benchmarks/engines.json and README.md. Seconds are processor seconds, which are steadiest with one thread
(OMP_NUM_THREADS=1); their ratios are the point. vLLM is left out where it is not installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from eval.engines import make_engine
from eval.engines.base import Engine
from eval.engines.batches import Batch, in_columns
from eval.engines.transformers_engine import TransformersEngine
from store.console import run_command, say
from store.contexts import DATA, load_contexts
from store.evaluation import EvalConfig
from store.files import write_json, write_text
from task.contexts import Layout
from task.errors import InputError
from task.prompts import Measure, frame
from task.trials import ShownTrial, sample_trials

PAIRS, REPORTS = 25, 10
"""Pairs (each in both orders) and reports of a context."""

MEASURES: tuple[Measure, ...] = ("decisions", "reports")
ARMS, ARM_TRIALS = 5, 20
"""Arms that are asked side by side, and decisions of each."""

PLAIN = {"decisions": {"batch": 32, "new_tokens": 5}, "reports": {"batch": 10, "new_tokens": 256}}
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
    lengths = {"max_prompt_tokens": 384, "max_reply_tokens": 128}
    settings = {
        "seed": 0,
        "output": "",
        "engine": {"name": name, "batch_size": 32, **lengths},
        "model": {"name": str(model)},
        "arms": arms,
        "measurements": [],
    }
    return make_engine(EvalConfig.model_validate(settings))


def seconds(run: Callable[..., object], *arguments: object) -> float:
    """Processor time of one call, all threads together: other work on the machine hardly changes it."""
    start = time.process_time()
    run(*arguments)
    return round(time.process_time() - start, 3)


def ask(engine: Engine, measure: Measure, arm: str, trials: Sequence[ShownTrial]) -> object:
    """Have an arm answer."""
    return engine.decide(arm, trials) if measure == "decisions" else engine.report(arm, trials)


@torch.inference_mode()
def generate_plainly(engine: TransformersEngine, measure: Measure, prompts: Sequence[list[int]]) -> None:
    """What is measured against: `generate` in the order of the file, left-padded, every prompt from its beginning."""
    size, new = PLAIN[measure]["batch"], PLAIN[measure]["new_tokens"]
    for start in range(0, len(prompts), size):
        rows = in_columns(prompts[start : start + size], left=True)
        ids = torch.tensor([[token or 0 for token in row] for row in rows])
        mask = torch.tensor([[int(token is not None) for token in row] for row in rows])
        engine._model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=0)


@torch.inference_mode()
def compute_plainly(engine: TransformersEngine, prompts: Sequence[list[int]]) -> None:
    """Every prompt once through the model, in batches of like length: the pace at which tokens can be computed."""
    ordered, size = sorted(prompts, key=len), engine.engine.batch_size
    for start in range(0, len(ordered), size):
        rows = ordered[start : start + size]
        Batch(engine._model, [[]] * len(rows)).feed(in_columns(rows, left=True), logits=1)


def beside_plain(model: Path, contexts: int) -> dict[str, Any]:
    """The transformers engine against plain loops, in seconds, ratios and tokens, by measure (and layout)."""
    engine = make(model, {"base": None})
    return {
        "decisions": decisions_beside_plain(engine, shown("decisions", contexts)),
        "decisions_side_by_side": decisions_beside_plain(engine, shown("decisions", contexts, "side_by_side")),
        "reports": trials_beside_plain(engine, "reports", shown("reports", contexts)),
    }


def trials_beside_plain(engine: TransformersEngine, measure: Measure, trials: Sequence[ShownTrial]) -> dict[str, Any]:
    """Trials of one measure, answered by the engine and by the plain `generate` loop."""
    ask(engine, measure, "base", trials[:2])  # loads the model
    engine.take_token_counts()
    taken = seconds(ask, engine, measure, "base", trials)
    tokens = engine.take_token_counts()
    plain = seconds(generate_plainly, engine, measure, engine.prompts(trials))
    return {
        "trials": len(trials),
        "seconds": taken,
        "plain_generate_seconds": plain,
        "times_as_fast": round(plain / taken, 2),
        "tokens": tokens,
    }


def decisions_beside_plain(engine: TransformersEngine, trials: Sequence[ShownTrial]) -> dict[str, Any]:
    """The same of decisions, with the time that their unique tokens would take at the pace of plain forward passes."""
    found = trials_beside_plain(engine, "decisions", trials)
    forward = seconds(compute_plainly, engine, engine.prompts(trials))
    computed, asked = found["tokens"]["computed"], found["tokens"]["prompt"]
    return found | {
        "plain_forward_seconds": forward,
        "tokens_over_unique": round(asked / computed, 3),
        "share_of_the_bound": round(forward * computed / asked / found["seconds"], 3),
    }


def one_engine_beside_merged(model: Path, folder: Path) -> dict[str, Any]:
    """One engine with all arms against a merged model an arm, each loaded from its files; seconds and ratio."""
    trials = shown("decisions", 1)[:ARM_TRIALS]
    adapters: dict[str, str | None] = {}
    for number in range(ARMS):
        torch.manual_seed(number)
        settings = LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False)
        arm = get_peft_model(AutoModelForCausalLM.from_pretrained(model), settings)
        adapters[f"arm_{number}"] = str(folder / f"arm_{number}")
        arm.save_pretrained(adapters[f"arm_{number}"], save_embedding_layers=False)
        merged = folder / f"merged_{number}"
        arm.merge_and_unload().save_pretrained(merged)
        AutoTokenizer.from_pretrained(model).save_pretrained(merged)

    def load(engine: TransformersEngine) -> None:
        assert engine._model is not None

    together = make(model, adapters)
    loading = seconds(load, together)
    answering = seconds(lambda: [together.decide(arm, trials) for arm in adapters])
    apart_loading = apart_answering = 0.0
    for number in range(ARMS):
        alone = make(folder / f"merged_{number}", {"base": None})
        apart_loading += seconds(load, alone)
        apart_answering += seconds(alone.decide, "base", trials)
    return {
        "arms": ARMS,
        "trials_an_arm": len(trials),
        "loading_seconds": loading,
        "answering_seconds": answering,
        "merged_loading_seconds": round(apart_loading, 3),
        "merged_answering_seconds": round(apart_answering, 3),
    }


def time_vllm(model: Path, contexts: int) -> dict[str, Any]:
    """Seconds of vLLM for the same trials, after a few that start it."""
    engine = make(model, {"base": None}, "vllm")
    found: dict[str, Any] = {}
    for measure in MEASURES:
        trials = shown(measure, contexts)
        ask(engine, measure, "base", trials[:2])
        engine.take_token_counts()
        found[measure] = {"seconds": seconds(ask, engine, measure, "base", trials)}
        found[measure]["tokens"] = engine.take_token_counts()
    return found


def beside_vllm(arguments: Sequence[str]) -> dict[str, Any] | None:
    """`time_vllm` in a process of its own, which vLLM needs; None where it is not installed."""
    if importlib.util.find_spec("vllm") is None:
        say("vLLM is not installed: left out")
        return None
    command = [sys.executable, __file__, *arguments, "--only-vllm"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise InputError(f"vLLM failed: {result.stderr.strip().splitlines()[-1]}")
    return json.loads(result.stdout.strip().splitlines()[-1])


def page(found: dict[str, Any]) -> str:
    """The figures as a page: one table, a row a comparison."""
    plain, arms = found["beside_plain"], found["arms"]
    decisions, one_line, reports = plain["decisions"], plain["decisions_side_by_side"], plain["reports"]
    together = arms["loading_seconds"] + arms["answering_seconds"]
    apart = arms["merged_loading_seconds"] + arms["merged_answering_seconds"]
    rows = [
        (
            f"{decisions['trials']} decisions: `generate`, 5 new tokens, batches of 32 in file order",
            decisions["plain_generate_seconds"],
            decisions["seconds"],
        ),
        (
            f"{decisions['trials']} decisions: one plain forward pass a prompt, sorted by length",
            decisions["plain_forward_seconds"],
            decisions["seconds"],
        ),
        (
            f"{one_line['trials']} decisions, both values of an attribute on one line: `generate`",
            one_line["plain_generate_seconds"],
            one_line["seconds"],
        ),
        (
            f"{reports['trials']} reports: `generate`, 256 new tokens, batches of 10",
            reports["plain_generate_seconds"],
            reports["seconds"],
        ),
        (
            f"{arms['arms']} arms x {arms['trials_an_arm']} decisions: one merged model an arm, loaded and asked",
            round(apart, 1),
            round(together, 1),
        ),
    ]
    if found["vllm"]:
        rows += [
            (f"{found['beside_plain'][m]['trials']} {m}: vLLM", found["vllm"][m]["seconds"], entry["seconds"])
            for m, entry in (("decisions", decisions), ("reports", reports))
        ]
    lines = [f"| {what} | {theirs} | {ours} | {theirs / ours:.2f} |" for what, theirs, ours in rows]
    return "\n".join(
        [
            "# The engines, timed",
            "",
            f"{found['model']} on {found['machine']}, {found['threads']} thread(s), fp32; processor "
            "seconds of one run of `python scripts/benchmarks/engines.py`. All figures: `engines.json`.",
            "",
            "| beside the transformers engine | its seconds | the engine's | ratio |",
            "|---|---|---|---|",
            *lines,
            "",
            f"The prompts of the decisions hold {decisions['tokens_over_unique']:.2f} times the tokens that are unique "
            f"when what a context's prompts share counts once ({one_line['tokens_over_unique']:.2f} times with both "
            "values on one line, which names each attribute once). The engine computes each of them once, at "
            f"{decisions['share_of_the_bound']:.0%} of the pace of a plain forward pass. Of the reports' replies, "
            f"{reports['tokens']['reply']} tokens, those that the grammar forces take no pass of their own. Loading "
            f"took {arms['loading_seconds']:.1f} s for one engine with {arms['arms']} arms, "
            f"{arms['merged_loading_seconds']:.1f} s for as many merged models.",
            "",
        ]
    )


def main() -> None:
    """Command line: `--machine WORDS`, `--model FOLDER`, `--contexts N`, `--out FOLDER`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--machine", required=True, help="the machine in words; stands beside every figure")
    parser.add_argument("--model", type=Path, default=Path("models/smollm2-135m-instruct"))
    parser.add_argument("--contexts", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("results/benchmarks"))
    parser.add_argument("--only-vllm", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only_vllm:
        print(json.dumps(time_vllm(arguments.model, arguments.contexts)))
        return
    with tempfile.TemporaryDirectory() as folder:
        found = {
            "machine": arguments.machine,
            "threads": torch.get_num_threads(),
            "model": arguments.model.name,
            "plain": PLAIN,
            "beside_plain": beside_plain(arguments.model, arguments.contexts),
            "arms": one_engine_beside_merged(arguments.model, Path(folder)),
            "vllm": beside_vllm(sys.argv[1:]),
        }
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out / "engines.json", found)
    write_text(arguments.out / "README.md", page(found))
    say(page(found))


if __name__ == "__main__":
    run_command(main)
