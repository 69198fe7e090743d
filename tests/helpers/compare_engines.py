"""How far vLLM and the transformers engine agree: `python tests/helpers/compare_engines.py FOLDER PAIRS REPORTS`.

The same trials of SmolLM2, of two adapters trained here, of doses and a sum of them, and of a context with awkward
names, through both engines by the command that users type; base rows also through a vLLM engine that was started
without adapters. Stopped and started again, it goes on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from store.contexts import DATA, load_contexts, save_contexts
from store.derived import DeriveConfig
from store.pretrained import load_causal_model, load_tokenizer
from support import ROOT, SMALL_MODEL
from task.contexts import Attribute, ChoiceContext
from task.prompts import messages, report_answer
from task.trials import sample_trials
from task.weights import sample_weights
from train.derived import derive

NAMES = [
    'the "quoted" one',
    "naïve größe 温度",
    "a\\b: {1}, [2]",
    "number of " + "very " * 30 + "long words",
    "  a  b ",
]
AWKWARD = ChoiceContext(
    "awkward", "a tester of names", "Which would you pick?", tuple(Attribute(n, "points", 0, 10) for n in NAMES)
)
CONTEXTS = load_contexts(DATA / "instilled.jsonl", 2)
COMMON = {"max_prompt_tokens": 700, "max_reply_tokens": 500, "batch_size": 16, "shard_size": 64, "report_tokens": 24}
STEPS = 6
REPORTS = "reports-constrained"
"""Folder of the constrained reports, a free reply to the first prompt of each context among them."""

SAME = ("same_letter", "same_decided", "largest_log_probability_difference", "same_reply", "same_free_reply")
"""What tells that two arms answer alike."""


def train_adapter(folder: Path, measure: str) -> None:
    """A LoRA adapter after a few steps on the ends of prompts and their answers; always the same one."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    tokenizer = load_tokenizer(SMALL_MODEL)
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    config = LoraConfig(r=8, lora_alpha=16, target_modules=targets)
    model = get_peft_model(load_causal_model(SMALL_MODEL), config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    for step in range(STEPS):
        context = CONTEXTS[step % len(CONTEXTS)]
        [first], [second] = (
            getattr(sample_trials(1, "train_decisions", context, 1, step), o) for o in ("first", "second")
        )
        question = messages("decisions", context, first, second)[-1]["content"][-120:]
        answer = (
            report_answer(context, sample_weights(1, "target_weights", context))
            if measure == "reports"
            else "AB"[step % 2]
        )
        chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        ids = torch.tensor([tokenizer.apply_chat_template(chat, return_dict=False)])
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder, save_embedding_layers=False)


def make_adapters(folder: Path) -> dict[str, str]:
    """Two adapters by the name of their arm."""
    for measure in ("decisions", "reports"):
        if not (folder / measure / "adapter_model.safetensors").exists():
            train_adapter(folder / measure, measure)
    return {f"trained_on_{measure}": str(folder / measure) for measure in ("decisions", "reports")}


def make_derived(folder: Path, adapters: dict[str, str]) -> dict[str, str]:
    """Derived arms by name: doses 0 and 1 of the first adapter, and a sum of it and half of the second."""
    first, second = adapters.values()
    parts = {"dose_0": {first: 0.0}, "dose_1": {first: 1.0}, "summed": {first: 1.0, second: 0.5}}
    for name, weights in parts.items():
        terms = [{"adapter": adapter, "parts": [{"weight": weight}]} for adapter, weight in weights.items()]
        derive(DeriveConfig(model=str(SMALL_MODEL), terms=terms, output=str(folder / name)))
    return {name: str(folder / name) for name in parts}


def evaluate(
    folder: Path,
    engine: str,
    arms: dict[str, str | None],
    pairs: int,
    reports: int,
    contexts: Sequence[ChoiceContext] = (*CONTEXTS, AWKWARD),
    model: Path = SMALL_MODEL,
) -> dict[str, pd.DataFrame]:
    """Trial files by `arm/folder` of an evaluation, run as a process of its own: decisions and constrained reports."""
    folder.mkdir(parents=True, exist_ok=True)
    save_contexts(contexts, folder / "contexts.jsonl")
    group = [{"name": "instilled", "file": str(folder / "contexts.jsonl")}]
    asked: list[dict[str, Any]] = [
        {"measure": "decisions", "per_context": pairs},
        {"measure": "reports", "per_context": reports, "constrained": True},
    ]
    config: dict[str, Any] = {
        "seed": 0,
        "output": str(folder / "trials"),
        "engine": {**COMMON, "name": engine},
        "model": {"name": str(model)},
        "arms": arms,
        "measurements": [{"arm": arm, "contexts": group, **wanted} for arm in arms for wanted in asked],
    }
    (folder / "evaluate.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "eval.run", "--config", str(folder / "evaluate.yaml"), "--quiet"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    return {
        f"{arm}/{name}": pd.read_parquet(folder / "trials" / arm / name / "trials.parquet")
        for arm in arms
        for name in ("decisions", REPORTS)
    }


def compare(mine: dict[str, pd.DataFrame], theirs: dict[str, pd.DataFrame]) -> dict[str, Any]:
    """How far two engines agree on the same trials."""
    decisions = [(mine[name], theirs[name]) for name in mine if name.endswith("decisions")]
    reports = [(mine[name], theirs[name]) for name in mine if name.endswith(REPORTS)]
    letters = np.concatenate([(a["logp_a"] > a["logp_b"]) == (b["logp_a"] > b["logp_b"]) for a, b in decisions])
    tops = np.concatenate([a["top_is_letter"] == b["top_is_letter"] for a, b in decisions])
    made = np.concatenate([b["top_is_letter"] for _, b in decisions])
    replies = np.concatenate([a["reply"] == b["reply"] for a, b in reports])
    free = np.concatenate([(a["free_reply"] == b["free_reply"])[a["free_sampled"]] for a, b in reports])
    logps = [np.abs(a[["logp_a", "logp_b"]].to_numpy() - b[["logp_a", "logp_b"]].to_numpy()) for a, b in decisions]
    openings = np.concatenate([np.abs(a["opening"] - b["opening"]) for a, b in reports])
    return {
        "decisions": len(letters),
        "same_letter": float(letters.mean()),
        "same_decided": float(tops.mean()),
        "decided": int(made.sum()),
        "largest_log_probability_difference": float(np.concatenate(logps).max()),
        "reports": len(replies),
        "same_reply": float(replies.mean()),
        "largest_opening_difference": float(openings.max()),
        "free_replies": len(free),
        "same_free_reply": float(free.mean()),
        "readable_replies": float(np.mean([b["reason"].isna().mean() for _, b in reports])),
        "replies_outside_the_range": int(sum(b["outside"].sum() for _, b in reports)),
    }


def main() -> None:
    folder, pairs, reports = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    adapters = make_adapters(folder / "adapters")
    arms: dict[str, str | None] = {"base": None, **adapters, **make_derived(folder / "adapters", adapters)}
    found = {name: evaluate(folder / name, name, arms, pairs, reports) for name in ("transformers", "vllm")}
    alone = evaluate(folder / "alone", "vllm", {"base": None}, pairs, reports)
    same_base = all(found["vllm"][name].equals(table) for name, table in alone.items())
    result = {**compare(found["transformers"], found["vllm"]), "base_rows_as_without_adapters": same_base}
    for engine, files in found.items():
        for dose, arm in (("dose_0", "base"), ("dose_1", "trained_on_decisions")):
            same = compare(*({f"arm/{n}": files[f"{one}/{n}"] for n in ("decisions", REPORTS)} for one in (dose, arm)))
            result[f"{dose}_beside_{arm}_in_{engine}"] = {name: same[name] for name in SAME}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
