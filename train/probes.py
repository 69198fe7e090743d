"""Ask a model the probes of `task.probes`: which of reading, comparing and weighing does it lack?

    python -m train.probes --model models/smollm2-135m-instruct
    python -m train.probes --model Qwen/Qwen2.5-0.5B-Instruct --attributes 1 --layout side_by_side

Run it before an instillation that takes hours. A training asks by itself where held-out decisions stay near chance.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer

from store.console import run_command, say
from store.contexts import DATA, load_contexts
from store.models import model_folder
from store.pretrained import device_at_hand, load_causal_model, load_tokenizer
from store.texts import parse_json
from task.chat import letter_ids, prompt_ids
from task.contexts import LAYOUTS, ChoiceContext
from task.errors import InputError, shown
from task.probes import SKILLS, Probe, Skill, make_probes, missing_skill
from task.thresholds import GATE_AGREEMENT
from train.curriculum.course import SEEDS, check_option
from train.trainer.frozen import backbone_alone

LACKING: dict[Skill, str] = {
    "reading": "it does not find a value in the prompt: show both values on one line (layout: side_by_side), warm the "
    "model up (python -m train.curriculum.warm_up; SmolLM2-135M passes the gate after it), or use a larger model",
    "comparing": "it reads values but does not tell which of two is larger: warm the model up (python -m "
    "train.curriculum.warm_up; SmolLM2-135M passes the gate after it), or use a larger model",
    "weighing": "it reads and compares but does not add up what speaks for each option: train longer, on more "
    "examples, or use a larger model",
}


def main() -> None:
    """Command line: `--model M [--revision R] [--contexts FILE] [--attributes N] [--layout L] [--probes K]`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a model folder, or a model's name on the Hub")
    parser.add_argument("--revision")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--template", default="{}", help='e.g. {"enable_thinking": false}')
    parser.add_argument("--contexts", type=Path, default=DATA / "spare.jsonl")
    parser.add_argument("--attributes", type=int, help="only so many attributes of each context")
    parser.add_argument("--layout", choices=LAYOUTS, default="lists")
    parser.add_argument("--probes", type=int, default=40, help="of each skill")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    template = read_template(arguments.template)
    check_option("probes", arguments.probes, 1, 10_000)
    check_option("seed", arguments.seed, 0, SEEDS)
    folder = model_folder(arguments.model, arguments.revision)
    contexts = [shortened(c, arguments.attributes, arguments.layout) for c in load_contexts(arguments.contexts)]
    tokenizer, model = load_tokenizer(folder), load_causal_model(folder, dtype=arguments.dtype).eval()
    probes = all_probes(contexts, arguments.probes, arguments.seed)
    shares = ask(model.to(device_at_hand()), tokenizer, template, probes)
    for line in lines(shares, arguments.probes):
        say(line)


def read_template(text: str) -> dict[str, Any]:
    """Arguments of a chat template, given as JSON.

    Raises:
        InputError: It is none, or no object.
    """
    remedy = 'give an object, e.g. {"enable_thinking": false}'
    if not isinstance(values := parse_json(text, "--template", remedy), dict):
        raise InputError(f"--template {shown(values)}: no object; {remedy}")
    return values


def shortened(context: ChoiceContext, attributes: int | None, layout: Any) -> ChoiceContext:
    """A context with its first attributes only, in a layout."""
    if attributes is not None and not 1 <= attributes <= len(context.attributes):
        raise InputError(f"--attributes {attributes}: {context.name} has {len(context.attributes)}; give 1 to that")
    return replace(context, attributes=context.attributes[:attributes], layout=layout)


def all_probes(contexts: Sequence[ChoiceContext], number: int, seed: int) -> list[Probe]:
    """Probes of every skill, `number` of each."""
    return [probe for skill in SKILLS for probe in make_probes(contexts, skill, number, seed)]


@torch.inference_mode()
def ask(
    model: Any, tokenizer: Any, template: Mapping[str, Any], probes: Sequence[Probe], rows: int = 16
) -> dict[Skill, float]:
    """Share of each skill's probes that are answered rightly.

    An answer is the mean over both orders of the log odds that `first` is the right option, so a liking for one letter
    cancels: a model that says A to everything may still know, and one that does not know comes out near one half.
    """
    letters = list(letter_ids(tokenizer, template))
    prompts = [prompt_ids(tokenizer, prompt, template) for probe in probes for prompt in probe.prompts]
    log_odds = np.empty(len(prompts))
    by_length = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    for start in range(0, len(by_length), rows):
        batch = by_length[start : start + rows]
        ids = pad_sequence([torch.tensor(prompts[i]) for i in batch], batch_first=True)
        ends = torch.tensor([len(prompts[i]) - 1 for i in batch])
        # Padded at the right: a causal model's answer does not see what comes after it, so no mask is needed.
        logits = model(ids.to(model.device), use_cache=False).logits[torch.arange(len(batch)), ends][:, letters]
        log_odds[batch] = (logits[:, 0] - logits[:, 1]).float().cpu().numpy()
    for_first = (log_odds[::2] - log_odds[1::2]) / 2
    right = (for_first > 0) == np.array([probe.first_is_right for probe in probes])
    return {s: float(np.mean([r for r, p in zip(right, probes, strict=True) if p.skill == s])) for s in SKILLS}


def diagnose(trainer: Trainer, template: Mapping[str, Any], contexts: str, seed: int, number: int = 20) -> str | None:
    """Which skill the base model or frozen arm of a training lacks, with what each came to; None if it has all of them.

    The contexts file holds those whose decisions were not learned. The model is asked with the adapter that was
    trained switched off: one that failed says nothing of what was there.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    was_training = model.training
    probes = all_probes(load_contexts(contexts), number, seed)
    with backbone_alone(model):
        shares = ask(model.eval(), trainer.processing_class, template, probes)
    model.train(was_training)
    missing = missing_skill(shares, GATE_AGREEMENT)
    if missing is None:
        return None
    measured = ", ".join(f"{skill} {shares[skill]:.2f}" for skill in SKILLS)
    return f"{missing} ({measured} of {number} probes, chance .50): {LACKING[missing]}"


def lines(shares: dict[Skill, float], number: int) -> list[str]:
    """What came out, and which skill is missing."""
    found = [f"{skill:10} {shares[skill]:.2f} of {number} probes (chance .50)" for skill in SKILLS]
    missing = missing_skill(shares, GATE_AGREEMENT)
    return [*found, f"missing: {missing}; {LACKING[missing]}" if missing else "all three skills are there"]


if __name__ == "__main__":
    run_command(main)
