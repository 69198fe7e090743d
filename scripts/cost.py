"""What a replication costs in tokens, floating-point operations and GPU hours, derived from its plan.

    python -m scripts.cost
    python -m scripts.cost --experiments configs/experiments/economical.yaml --models qwen3-4b
    python -m scripts.cost --check results/gpu/mine.json        # card and use as scripts.check_gpu found them

    hours = (6 P T + 2 P (H + U)) / (F u) / 3600

with P the model's parameters, T the tokens that are trained on, counting each epoch, H those of held-out rows each time
that they are looked at, U those of the evaluation, what the prompts of a context share counted once and replies
included, F the operations a second of the card and u the share of them that is used. Loading and analysis are left out.
6 is the usual count (2 forward, 4 backward); a frozen base needs no gradients of its weights, so about 4 are really
computed. Nothing is downloaded; tokens are those of the dry run.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from experiment.capacity import model_files, shapes
from experiment.file import Experiment, load_experiment, load_groups
from experiment.plan import Run
from experiment.planned import PlannedStage
from experiment.templates import tokenizer_at_hand
from experiment.tokens import token_counter
from scripts.check_gpu.record import read_record
from store.console import run_command
from store.model_file import ModelFile
from store.paths import project_file
from store.run import RunFolder
from store.wordings import read_wordings
from task.errors import InputError

FORWARD, TRAINING = 2, 6
"""Floating-point operations a parameter and token (Kaplan et al. 2020, arXiv:2001.08361, section 2.1)."""

TFLOPS, USED = 312.0, 0.35
"""An A100's product in bfloat16 by its data sheet, and the share of it that is assumed to be used; not measured."""

EXPERIMENTS = ("configs/experiments/replication.yaml", "configs/experiments/economical.yaml")
MODELS = ("qwen2.5-7b-instruct", "qwen3-8b")


@dataclass(frozen=True)
class Card:
    """What a card does: operations a second, and the share of them that a training and an evaluation use."""

    flops: float
    training: float
    evaluation: float
    origin: str


@dataclass(frozen=True)
class Cost:
    """What all seeds of an experiment cost together.

    Attributes:
        parameters: Of the model.
        trained, watched, evaluated, computed: Tokens of trainings, of their held-out rows, of the evaluation, and of
            the latter those that are unique; the first and third are the dry run's `tokens`, the last its `unique`.
    """

    parameters: int
    trained: int
    watched: int
    evaluated: int
    computed: int

    @property
    def training_flops(self) -> float:
        """Operations of the trainings, held-out rows included."""
        return float(self.parameters) * (TRAINING * self.trained + FORWARD * self.watched)

    @property
    def evaluation_flops(self) -> float:
        """Operations of the evaluation."""
        return float(self.parameters) * FORWARD * self.computed

    def hours(self, card: Card) -> tuple[float, float]:
        """GPU hours of trainings and of the evaluation."""
        rates = card.flops * card.training, card.flops * card.evaluation
        return self.training_flops / rates[0] / 3600, self.evaluation_flops / rates[1] / 3600


def cost_of(runs: Sequence[Run], parameters: int) -> Cost:
    """The cost of the runs of an experiment."""
    stages = [(run, stage) for run in runs for stage in run.stages]
    training = [(run, stage) for run, stage in stages if stage.kind == "sft"]
    evaluation = [stage for _, stage in stages if stage.kind == "evaluate"]
    return Cost(
        parameters=parameters,
        trained=sum(stage.tokens for _, stage in training),
        watched=sum(watched_tokens(run, stage) for run, stage in training),
        evaluated=sum(stage.tokens for stage in evaluation),
        computed=sum(stage.unique for stage in evaluation),
    )


def watched_tokens(run: Run, stage: PlannedStage) -> int:
    """Tokens of a training's held-out rows, each time that they are looked at: as planned, and once at its end."""
    values = stage.config
    if "validation_file" not in values:
        return 0
    [made] = [s.config for s in run.stages if s.name == stage.name.replace(".sft", ".examples")]
    contexts = len(made["only"])
    rows, held_out = contexts * made["train_per_context"], contexts * made["validation_per_context"]
    epochs = float(values.get("num_train_epochs", 3))
    looks = epochs
    if values.get("eval_strategy") == "steps":
        looks = math.ceil(rows / values["effective_batch_size"]) * epochs // values["eval_steps"]
    return round(stage.tokens / (epochs * rows) * held_out * (looks + 1))


def plan_with(experiment: Experiment, model: ModelFile) -> list[Run]:
    """The runs of an experiment with another model; nothing is read or written in their folders."""
    groups, wordings = load_groups(experiment), read_wordings(experiment.wording)
    return [
        Run(
            experiment,
            model,
            groups,
            seed,
            RunFolder(Path("runs") / f"{experiment.name}-seed{seed}"),
            token_counter(model, experiment.engine, seed, wordings),
        )
        for seed in experiment.seeds
    ]


def card_of(check: Path | None, tflops: float, used: float) -> Card:
    """The card: as a check of it found, or as assumed.

    Raises:
        InputError: The check timed no training, or an assumption cannot be.
    """
    if check is None:
        if not (0 < used <= 1 and tflops > 0):
            raise InputError(
                f"--used {used:g}, --tflops {tflops:g}: give a share above 0, at most 1, and a rate above 0"
            )
        return Card(tflops * 1e12, used, used, f"{tflops:g} TFLOP/s, {used:.0%} used (assumed)")
    record = read_record(check)
    speed = record.line("speed")
    if speed is None or speed.state != "passed" or record.device != "cuda":
        raise InputError(f"--check {check}: no line `speed` of a GPU that passed; check again, or leave it out")
    values = [speed.figures[f"{name}"] for name in ("product_flops", "training_utilisation", "evaluation_utilisation")]
    flops, training, evaluation = (float(str(value)) for value in values)
    said = f"{record.name}: {flops / 1e12:.0f} TFLOP/s, {training:.0%} and {evaluation:.0%} used (measured)"
    return Card(flops, training, evaluation, said)


def main() -> None:
    """Command line: `[--experiments FILE ...] [--models NAME ...] [--tokenizer FOLDER] [--check FILE]` and more."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiments", nargs="+", type=Path, default=[Path(name) for name in EXPERIMENTS])
    parser.add_argument("--models", nargs="+", default=list(MODELS), help="names of files in configs/models/")
    parser.add_argument("--tokenizer", help="folder of a tokenizer to count with (default: the model's own, if here)")
    parser.add_argument("--check", type=Path, help="JSON file of scripts.check_gpu, in place of the next two")
    parser.add_argument("--tflops", type=float, default=TFLOPS, help=f"of the card in bfloat16 (default: {TFLOPS:g})")
    parser.add_argument("--used", type=float, default=USED, help=f"share of it that is used (default: {USED:g})")
    asked = parser.parse_args()
    known = shapes()
    if unknown := [name for name in asked.models if name not in known]:
        raise InputError(f"--models {unknown[0]}: no such model; there are: {', '.join(known)}")
    card = card_of(asked.check, asked.tflops, asked.used)
    console, origins = Console(highlight=False, width=160), list[str]()
    table = Table("model", "experiment", "seeds", box=None, padding=(0, 2, 0, 0))
    for head in ("trained", "held out", "evaluated", "computed", "PFLOP", "hours training", "evaluation", "together"):
        table.add_column(head, justify="right")
    for stem in asked.models:
        [own] = model_files([stem]).values()
        model = own.model_copy(update={"name": asked.tokenizer}) if asked.tokenizer else own
        origins.append(f"{stem}: tokens {'counted' if tokenizer_at_hand(model) else 'from characters, 4 a token'}")
        for path in asked.experiments:
            experiment = load_experiment(project_file(str(path)))
            cost = cost_of(plan_with(experiment, model), known[stem].parameters)
            hours = cost.hours(card)
            counts = (f"{n:,}" for n in (cost.trained, cost.watched, cost.evaluated, cost.computed))
            flops = f"{(cost.training_flops + cost.evaluation_flops) / 1e15:,.0f}"
            spent = (f"{value:.2f}" for value in (*hours, sum(hours)))
            table.add_row(stem, experiment.name, str(len(experiment.seeds)), *counts, flops, *spent)
    console.print(table)
    for line in (*origins, f"card: {card.origin}; hours are derived, not measured"):
        console.print(line, markup=False, soft_wrap=True)


if __name__ == "__main__":
    run_command(main)
