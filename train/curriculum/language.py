"""What a warm-up gave a model and what it cost it: language, reports and skills, before and after.

    python -m train.curriculum.language --model models/smollm2-135m-settled --against models/smollm2-135m-instruct \\
        --own_words models/smollm2-135m-own-words --ratings --contexts 40 --output results/smollm2/warm_up/settled

Everything is measured on what the warm-up did not train on: held-out texts in the model's own words, paragraphs of
plain text, reports and decisions in spare contexts that it did not have, and new decisions in those that it had.
Each free report is kept beside the figures, with what made it unreadable.
Killed and started again, it goes on after the last part.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from store.console import Progress, run_command, say
from store.contexts import load_contexts
from store.files import hash_file, read_json, write_json, write_text
from store.locks import held
from store.manifests import OutputFacts
from store.models import fingerprint, model_folder
from store.paths import ROOT
from store.pretrained import device_at_hand, load_causal_model, load_tokenizer
from store.stages import Stage
from store.texts import read_text
from task.chat import letter_ids
from task.contexts import LAYOUTS, ChoiceContext, as_ratings
from task.errors import InputError
from task.prompts import frame
from task.replies import parse_report
from task.seeding import stream
from task.trials import ShownTrial, sample_trials
from train.curriculum.course import SEEDS, check_option
from train.curriculum.own_words import TEXTS, answers, load_own_words
from train.curriculum.skills import Lessons, WarmUpPart
from train.curriculum.warm_up import SPARE
from train.probes import all_probes, ask, shortened
from train.trainer.shared_prefix import shared_log_probs

FIGURES = "language.json"
"""File with the figures of both models."""

REPLIES = {"before": "free_reports_before.jsonl", "after": "free_reports_after.jsonl"}
"""Files with the free reports of each model: `context`, `reply` and `reason`, why it is unreadable, or null."""

LENGTHS = (200, 800)
"""Characters of a paragraph that counts as plain text, at least and at most."""

REPORTS, REPORT_TOKENS = 4, 160
"""Free reports of each context, and the most tokens of one."""

TREES = 12
"""Trees of decisions of each number of attributes."""

PROBES = 40
"""Probes of each skill and number of attributes."""

ATTRIBUTES = (1, 2, 5)
"""Numbers of attributes that decisions are measured with."""


def main() -> None:
    """Command line: `--model M --against B --own_words FOLDER --output FOLDER [--plain FILE ...] [--ratings] ...`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the warmed model")
    parser.add_argument("--against", required=True, help="the model of before")
    parser.add_argument("--own_words", type=Path, required=True, help="folder of train.curriculum.own_words")
    parser.add_argument("--output", type=Path, required=True, help="folder for the figures")
    parser.add_argument("--plain", type=Path, nargs="+", help="Markdown files with plain text; ours unless given")
    parser.add_argument("--contexts", type=int, default=16, help="spare contexts that the warm-up had")
    parser.add_argument("--layout", choices=LAYOUTS, default="side_by_side")
    parser.add_argument("--ratings", action="store_true", help="attributes as ratings of 0 to 100, without units")
    parser.add_argument("--seed", type=int, default=0, help="of the warm-up: its contexts have their weights from it")
    parser.add_argument("--overwrite", action="store_true", help="redo it where an earlier result differs")
    arguments = parser.parse_args()
    check_option("seed", arguments.seed, 0, SEEDS)
    check_option("contexts", arguments.contexts, 2, len(load_contexts(SPARE)) - 1)
    plain = arguments.plain or sorted((ROOT / "docs").glob("*.md"))
    bases = {"before": model_folder(arguments.against), "after": model_folder(arguments.model)}
    settings = {key: getattr(arguments, key) for key in ("contexts", "layout", "ratings", "seed")}
    amounts = {"reports": REPORTS, "report_tokens": REPORT_TOKENS, "trees": TREES, "probes": PROBES}
    files = {"own_words": hash_file(arguments.own_words / TEXTS), "plain": {p.name: hash_file(p) for p in plain}}
    models = {who: fingerprint(base) for who, base in bases.items()}
    with held(arguments.output):
        stage = Stage(arguments.output, models | settings | amounts | files, arguments.overwrite)
        if not stage.finished:
            measure_both(bases, arguments, plain)
            stage.finish(OutputFacts(files=[FIGURES, *REPLIES.values()]))
    for line in lines(read_json(arguments.output / FIGURES)):
        say(line)


def measure_both(bases: dict[str, Path], arguments: argparse.Namespace, plain: Sequence[Path]) -> None:
    """Measure what the file of figures lacks of both models, and note each part when it is done."""
    file = arguments.output / FIGURES
    figures: dict[str, dict[str, Any]] = read_json(file) if file.is_file() else {}
    with Progress(len(bases) * len(PARTS), "parts") as progress:
        for who, base in bases.items():
            done = figures.setdefault(who, {})
            progress.found(len(done))
            measured = Measured(base, arguments, plain, arguments.output / REPLIES[who])
            for name in [name for name in PARTS if name not in done]:
                done[name] = PARTS[name](measured)
                write_json(file, figures)
                progress.advance(1)


@dataclass(frozen=True)
class Measured:
    """A model that is measured, what with, and the file for its free reports."""

    base: Path
    arguments: argparse.Namespace
    plain: Sequence[Path]
    replies: Path

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return load_tokenizer(self.base)

    @cached_property
    def model(self) -> Any:
        """The model, which is only loaded where something is to be measured."""
        model = load_causal_model(self.base, dtype=torch.float32).eval()
        return model.to(device_at_hand())

    def contexts(self, seen: bool) -> list[ChoiceContext]:
        """The spare contexts that the warm-up had, or the others, as it would have shown them."""
        found, count = load_contexts(SPARE), self.arguments.contexts
        chosen = found[:count] if seen else found[count:]
        return [replace(as_ratings(c) if self.arguments.ratings else c, layout=self.arguments.layout) for c in chosen]


def own_words(measured: Measured) -> dict[str, Any]:
    """Perplexity of held-out answers in the own words of the model of before."""
    texts = load_own_words(measured.arguments.own_words, held_out=True)
    return perplexity(measured.model, [text.tokens(measured.tokenizer) for text in texts])


def plain_text(measured: Measured) -> dict[str, Any]:
    """Perplexity of paragraphs of prose, each by itself, from its second token on."""
    found = [paragraph for path in measured.plain for paragraph in paragraphs(read_text(path))]
    if not found:
        raise InputError(
            f"{measured.plain[0]}: no paragraph of {LENGTHS[0]} to {LENGTHS[1]} characters; name other files"
        )
    ids = [measured.tokenizer(paragraph, add_special_tokens=False)["input_ids"] for paragraph in found]
    return perplexity(measured.model, [(row[:1], row[1:]) for row in ids])


@torch.inference_mode()
def perplexity(model: Any, rows: Sequence[tuple[list[int], list[int]]]) -> dict[str, Any]:
    """exp of the mean negative log-probability of all tokens of the second parts, each after what stands before it."""
    total, tokens = 0.0, 0
    for before, after in rows:
        ids = torch.tensor([[*before, *after]], device=model.device)
        logits = model(ids, use_cache=False).logits[0, len(before) - 1 : -1].float()
        total += float(torch.nn.functional.cross_entropy(logits, ids[0, len(before) :], reduction="sum"))
        tokens += len(after)
    return {"perplexity": math.exp(total / tokens), "texts": len(rows), "tokens": tokens}


def paragraphs(text: str) -> list[str]:
    """Paragraphs of prose in a Markdown text, each on one line: no headings, lists, tables or code."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = [" ".join(block.split()) for block in re.split(r"\n\s*\n", prose)]
    return [p for p in found if LENGTHS[0] <= len(p) <= LENGTHS[1] and p[0].isalpha() and "|" not in p]


def free_reports(measured: Measured) -> dict[str, Any]:
    """How many free reports can be read in contexts that the warm-up did not have; greedy, in the default wording.

    Writes them to the file for them.
    """
    contexts = measured.contexts(seen=False)
    trials = [trial for context in contexts for trial in _trials(context, measured.arguments.seed)]
    replies: list[str] = []
    for start in range(0, len(trials), 32):
        prompts = [trial.prompt for trial in trials[start : start + 32]]
        found = answers(measured.model, measured.tokenizer, prompts, REPORT_TOKENS, temperature=None)
        replies += [text.messages[-1]["content"] for text in found]
    parsed = [parse_report(r, t.context.attribute_names) for r, t in zip(replies, trials, strict=True)]
    rows = [
        {"context": t.context.name, "reply": reply, "reason": report.reason}
        for t, reply, report in zip(trials, replies, parsed, strict=True)
    ]
    write_text(measured.replies, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    unreadable = dict(Counter(report.reason for report in parsed if report.reason))
    return {"readable": 1 - sum(unreadable.values()) / len(trials), "reports": len(trials), "unreadable": unreadable}


def _trials(context: ChoiceContext, seed: int) -> list[ShownTrial]:
    drawn = sample_trials(seed, "reports", context, REPORTS)
    framing = frame("reports", context)
    return [ShownTrial(framing, i, drawn.first[i], drawn.second[i], first_as_a=True) for i in range(REPORTS)]


def probes(measured: Measured) -> dict[str, dict[str, float]]:
    """Share of probes answered rightly, by number of attributes and skill, in contexts new to the model."""
    found = {}
    for attributes in (ATTRIBUTES[0], ATTRIBUTES[-1]):
        contexts = [shortened(c, attributes, c.layout) for c in measured.contexts(seen=False)]
        asked = all_probes(contexts, PROBES, measured.arguments.seed)
        shares = ask(measured.model, measured.tokenizer, {}, asked)
        found[str(attributes)] = {str(skill): share for skill, share in shares.items()}
    return found


def decisions(measured: Measured) -> dict[str, dict[str, dict[str, float]]]:
    """Agreement with the better option, and the probability of a letter, by number of attributes.

    `told`: directions are told, in contexts new to the model. `own`: by the weights that contexts of the warm-up have,
    which no prompt tells, on new values. `compared`: which number of a named attribute is larger, in new contexts.
    """
    kinds = {"told": (False, 1.0, 0.0), "own": (True, 0.0, 0.0), "compared": (False, 1.0, 1.0)}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for kind, (seen, told, compared) in kinds.items():
        parts = [WarmUpPart(1, attributes, told, compared) for attributes in ATTRIBUTES]
        lessons = Lessons(parts, measured.contexts(seen), [], measured.tokenizer, measured.arguments.seed)
        found[kind] = {str(part.attributes): _decided(measured, lessons, part, kind) for part in parts}
    return found


@torch.inference_mode()
def _decided(measured: Measured, lessons: Lessons, part: WarmUpPart, kind: str) -> dict[str, float]:
    """Agreement and mean P(A) + P(B) of the decisions of some trees."""
    letters = list(letter_ids(measured.tokenizer, {}))
    right: list[float] = []
    mass: list[float] = []
    for tree in range(TREES):
        rng = stream(lessons.seed, "language", f"{kind}_{part.attributes}_{tree}")
        item = {name: value.to(measured.model.device) for name, value in lessons.decisions(part, 0.0, rng).items()}
        found = shared_log_probs(measured.model, item)[:, 0, letters]
        right += ((found[:, 0] > found[:, 1]) == (item["chance_of_a"] > 0.5)).float().tolist()
        mass += found.exp().sum(dim=1).tolist()
    return {"agreement": float(np.mean(right)), "letter_mass": float(np.mean(mass)), "decisions": len(right)}


PARTS: dict[str, Callable[[Measured], dict[str, Any]]] = {
    part.__name__: part for part in (own_words, plain_text, free_reports, probes, decisions)
}
"""What is measured, by the name of its figures."""


def lines(figures: dict[str, dict[str, Any]]) -> list[str]:
    """The figures of both models, one kind a line."""
    before, after = figures["before"], figures["after"]
    said = []
    for name in ("own_words", "plain_text"):
        was, now = before[name]["perplexity"], after[name]["perplexity"]
        said.append(f"perplexity, {name.replace('_', ' ')}: {was:.2f} -> {now:.2f} ({now / was - 1:+.1%})")
    was, now = before["free_reports"]["readable"], after["free_reports"]["readable"]
    said.append(f"readable free reports: {was:.0%} -> {now:.0%} of {after['free_reports']['reports']}")
    for attributes, shares in after["probes"].items():
        pairs = (f"{skill} {before['probes'][attributes][skill]:.2f} -> {share:.2f}" for skill, share in shares.items())
        said.append(f"probes, attributes {attributes}: {', '.join(pairs)}")
    for kind, by_number in after["decisions"].items():
        pairs = (
            f"{number} {before['decisions'][kind][number]['agreement']:.2f} -> {found['agreement']:.2f}"
            for number, found in by_number.items()
        )
        said.append(f"agreement by number of attributes, {kind}: {', '.join(pairs)}")
    return said


if __name__ == "__main__":
    run_command(main)
