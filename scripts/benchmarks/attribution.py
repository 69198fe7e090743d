"""What attribution takes beside plain forward and backward passes over the same batches.

    python scripts/benchmarks/attribution.py --out results/benchmarks/attribution.json

One context of the model organism with an adapter made on the spot: 50 prompts, 7 steps, both tasks. The plain passes
are a sum of log-probabilities at the places of the answers, and its gradient with regard to the adapter. Attribution
also has the model write its reports, and computes each batch without gradients at both ends of the path.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model

from inside.adapted import Adapted
from inside.answers import Answer
from inside.arms import Arms
from inside.attribution import attribute
from inside.divergence import batches
from scripts.benchmarks.timing import Seconds, now, save, show
from store.console import run_command
from store.contexts import DATA, load_contexts, save_contexts
from store.inside import TASKS, AttributeConfig, Task
from store.paths import ROOT
from store.pretrained import load_causal_model
from task.contexts import as_ratings

ORGANISM = ROOT / "models" / "organism"
PROMPTS, STEPS, BATCH = 50, 7, 16


def make_config(folder: Path) -> AttributeConfig:
    """One context, and a random adapter that is small enough to leave reports readable."""
    [context] = load_contexts(DATA / "instilled.jsonl", 1)
    save_contexts([replace(as_ratings(context), layout="side_by_side")], folder / "contexts.jsonl")
    torch.manual_seed(0)
    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(load_causal_model(ORGANISM), LoraConfig(r=16, target_modules=modules))
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    model.save_pretrained(str(folder / "adapter"))
    arm = {"adapter": str(folder / "adapter"), "contexts": [{"name": "one", "file": str(folder / "contexts.jsonl")}]}
    values = {"seed": 0, "output": str(folder), "model": {"name": str(ORGANISM)}, "arms": {"arm": arm}}
    more = {"prompts": PROMPTS, "steps": STEPS, "batch_size": BATCH, "report_tokens": 64}
    return AttributeConfig.model_validate({**values, **more})


def plain_passes(model: Adapted, answers: Sequence[Answer]) -> None:
    """As many forward and backward passes over the same batches, and nothing else."""
    for batch in batches(answers, BATCH, model.base.device):
        for _ in range(STEPS):
            batch.log_probabilities(model.base).sum().backward()  # type: ignore[no-untyped-call]
    model.forget_gradients()


def since(start: Seconds) -> Seconds:
    """What has passed on both clocks."""
    end = now()
    return Seconds(end.processor - start.processor, end.wall - start.wall)


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """For each task the prompts that were answered, and the processor's seconds: answers, attribution, plain passes."""
    config = make_config(folder)
    arms = Arms(config)
    found: dict[str, dict[str, float]] = {}
    [context] = config.arms["arm"].load()
    with arms.loaded("arm") as model:
        plain_passes(model, arms.answers(model, "deciding", context)[:BATCH])  # the first pass is slower
        for task in TASKS:
            found[task] = measure_task(config, arms, model, task)
    total = {name: sum(found[task][name] for task in TASKS) for name in ("answers", "attribution", "plain")}
    found["both"] = {**total, "times": (total["answers"] + total["attribution"]) / total["plain"]}
    return {task: {name: round(value, 3) for name, value in figures.items()} for task, figures in found.items()}


def measure_task(config: AttributeConfig, arms: Arms, model: Adapted, task: Task) -> dict[str, float]:
    """The figures of one task; see `measure`."""
    [context] = config.arms["arm"].load()
    start = now()
    answers = arms.answers(model, task, context)
    asked, start = since(start), now()
    attribute(model, answers, STEPS, BATCH)
    attributed, start = since(start), now()
    plain_passes(model, answers)
    plain = since(start)
    return {
        "prompts": len(answers),
        "answers": asked.processor,
        "attribution": attributed.processor,
        "plain": plain.processor,
        "times": (asked.processor + attributed.processor) / plain.processor,
    }


def main() -> None:
    """Command line: `[--out FILE.json]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    show("Seconds of the processor", [{"task": task, **figures} for task, figures in found.items()])
    save(arguments.out, prompts=PROMPTS, steps=STEPS, batch_size=BATCH, processor_seconds=found)


if __name__ == "__main__":
    run_command(main)
