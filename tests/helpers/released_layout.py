"""A small folder of the form of the paper's release, with choices and reports made up here."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from task.contexts import Attribute, ChoiceContext
from task.trials import sample_trials
from task.weights import sample_weights, utilities

MODEL = "toy-1b-2025-01-31"
REPORT_FILES = {
    "off_the_shelf": "_weight_reports",
    "instilled": "_instilled_weight_reports",
    "first": "_itrained_first_50_of_100_50ex_weight_reports",
    "last": "_itrained_last_50_of_100_50ex_weight_reports",
    "native_before": "_instilled_latent_weight_reports",
    "native_after": "_itrained_all_100_50ex_latent_weight_reports",
}
RANGES = [(0, 10), (1, 1.5), (-3, 3), (0, 900), (2, 5)]
CONTEXTS = [
    ChoiceContext(
        f"{'taught' if i < 12 else 'own'}-{i}",
        f"a person of taste {i}",
        "Which thing would you prefer?",
        tuple(Attribute(f"quality {i} {k}", "points", low, high) for k, (low, high) in enumerate(RANGES)),
    )
    for i in range(20)
]
TAUGHT, OWN = CONTEXTS[:12], CONTEXTS[12:]
WEIGHTS = {context.name: sample_weights(1, "target_weights", context) for context in CONTEXTS}


def write_csv(path: Path, header: list[str], rows: Iterable[list[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def numbered(*patterns: str) -> list[str]:
    return [pattern.format(k) for pattern in patterns for k in range(1, 6)]


def write_selections(folder: Path, suffix: str, contexts: list[ChoiceContext], noise: float = 0, model: str = MODEL):
    """Choices of 40 trials a context that follow its weights, up to noise in the utility (1: as large as it)."""
    rng = np.random.default_rng(len(contexts))
    rows = []
    for context in contexts:
        trials = sample_trials(2, "decisions", context, 40)
        gain = utilities(trials.first, WEIGHTS[context.name], context)
        gain -= utilities(trials.second, WEIGHTS[context.name], context)
        chosen = (1 - noise) * gain + noise * gain.std() * rng.normal(size=40) > 0
        pairs = zip(chosen, trials.first, trials.second, strict=True)
        rows += [["m", context.name, "A" if a else "B", *first, *second] for a, first, second in pairs]
    header = ["model", "scenario", "selection", *numbered("A_attribute_{}", "B_attribute_{}")]
    write_csv(folder / f"{model}{suffix}", header, rows)


def write_reports(
    folder: Path,
    suffix: str,
    contexts: list[ChoiceContext],
    accuracy: float,
    count: Callable[[int], int] = lambda i: 10,
) -> None:
    """`count(i)` reports on the i-th context; accuracy 1 tells its weights, up to some noise."""
    rng = np.random.default_rng(len(suffix))
    rows = []
    for i, context in enumerate(contexts):
        bias = (1 - accuracy) * rng.uniform(-100, 100, 5)
        for _ in range(count(i)):
            told = np.clip(accuracy * WEIGHTS[context.name] + bias + rng.normal(0, 15, 5), -100, 100).round()
            rows.append(["m", "v", context.name, *told, *[1.0] * 10])
    columns = numbered("report_attr{}", "A_attribute_{}", "B_attribute_{}")
    write_csv(folder / f"{MODEL}{suffix}.csv", ["explaining_model", "version", "scenario", *columns], rows)


def write_release(folder: Path) -> None:
    """A release of one model: 12 taught contexts and 8 of its own, some without reports."""
    write_csv(
        folder / "scenarios.csv",
        ["scenario", "question", *numbered("attr{}", "attr{}_min", "attr{}_max")],
        (
            [c.name, f"Imagine you are {c.agent}. {c.question}", *c.attribute_names, *c.lows, *(c.lows + c.spans)]
            for c in CONTEXTS
        ),
    )
    rows = ([c.name, *WEIGHTS[c.name].astype(int)] for c in TAUGHT)
    write_csv(folder / "instilled_weights.csv", ["scenario", *numbered("attr{}")], rows)
    write_selections(folder, "_instilled_selections.csv", TAUGHT)
    write_selections(folder, "_instilled_latent_selections.csv", OWN, noise=0.2)
    write_reports(folder, REPORT_FILES["off_the_shelf"], TAUGHT, 0.0)
    # None on the first context, one on the second.
    write_reports(folder, REPORT_FILES["instilled"], TAUGHT, 0.5, lambda i: min(i, 10))
    write_reports(folder, REPORT_FILES["first"], TAUGHT[6:], 0.9)
    write_reports(folder, REPORT_FILES["last"], TAUGHT[:6], 0.9, lambda i: 9)
    write_reports(folder, REPORT_FILES["native_before"], OWN, 0.4, lambda i: 10 * (i % 2))
    write_reports(folder, REPORT_FILES["native_after"], OWN, 0.8)
