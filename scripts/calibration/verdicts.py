"""How often the verdicts of a study are right: studies with the truth planted both ways, judged by the real rule.

    python scripts/calibration/verdicts.py          # into results/verdicts, some minutes on one thread

Every claim of `analysis.study.claims` is simulated where it holds, with effects as large as those that were published
for GPT-4o-mini and for the public replication with Qwen2.5-7B, and where it does not. A study has 100 contexts and one
or three trainings. Trainings differ in how accurately they report, by a standard deviation of `SPREAD`. Every figure is
computed by the functions that compute it from real trials. Writes verdicts.csv and manifest.json: a row a claim, truth,
size and spread, with the share of studies that end in each verdict. README.md of the folder is written by hand.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import expit

from analysis.stats.agreement import bootstrap_r, paired_difference, pearson
from analysis.stats.estimators import logistic_posterior
from analysis.stats.partial import whose_weights
from analysis.stats.prediction import FreshDecisions, predict
from analysis.stats.simulation import (
    POOL_DRAWS,
    Reporter,
    average_reports,
    beliefs,
    sample_true_weights,
    simulate_decisions,
    stable_error,
)
from analysis.study.claims import CLAIMS, Claim
from analysis.study.meta import difference_of_independent
from analysis.study.output import output_folder
from analysis.study.several import Estimate
from analysis.study.verdicts import judge_claim
from store.console import run_command, say
from store.files import write_text
from task.seeding import stream
from task.thresholds import GATE_CORRELATION, SMALLEST_EFFECT
from task.weights import rescale

Array = NDArray[np.float64]
Figures = dict[str, Estimate]

STUDIES, CONTEXTS, TRAININGS = 200, 100, (1, 3)
"""Of each situation, and what a study of the replication's size has."""

POOL, PAIRS, FOLLOWS = 1000, 50, 0.9
"""Contexts that studies are drawn from, decisions in each, and the share of them that follow the model's weights."""

SPREAD = (0.0, 0.03, 0.09)
"""Standard deviations of the accuracy of reports between trainings: two runs of one replication differed by .03, two of
one model by different people by .13. With 0, a single training is all there is to be told."""

RESAMPLES = 600
"""Fewer than in an analysis: their noise averages out over studies."""

TAUGHT = 0.88
"""How close a model's weights come to the targets, so that r(learned, target) is .85."""

MODELS = {"GPT-4o-mini": (0.51, 0.75, 0.40, 0.70), "Qwen2.5-7B": (0.26, 0.52, 0.18, 0.49)}
"""r of reports: instilled, trained, native before, native after."""

MEASURED_WHOSE = "GPT-4o-mini"
"""The one model for which it is known whose weights reports follow: r(report, learned | target) is .42 and the reverse
.12 in its released trials. The simulation has .45 and .14."""


@dataclass(frozen=True)
class World:
    """Contexts, each array with a row a context: the weights that decide, targets, and weights as decisions show them.

    `again` was measured once more, `moved` after the weights had changed so that r of both measurements is the limit,
    `lost` after they had changed more. `other` are the weights of another instillation.
    """

    true: Array
    target: Array
    learned: Array
    again: Array
    moved: Array
    lost: Array
    other: Array
    chose_a: Array
    difference: Array

    def some(self, rows: NDArray[np.int64]) -> World:
        """Some of the contexts."""
        return World(**{name: values[rows] for name, values in vars(self).items()})


def make_world(seed: int) -> World:
    """The population of contexts that studies sample."""
    rng = stream(seed, "verdicts/world")
    made = simulate_decisions(POOL, PAIRS, FOLLOWS, seed)
    spread, steep = float(made.true.std()), float(np.nanmedian(made.slopes / np.where(made.true, made.true, np.nan)))

    def near(share: float) -> Array:
        other = spread * rng.normal(size=made.true.shape)
        return rescale(share * made.true + np.sqrt(1 - share**2) * other)

    def decided(weights: Array) -> Array:
        utility = (made.difference @ weights[..., None])[..., 0]
        return np.asarray(rng.random((POOL, PAIRS)) < expit(steep * utility), dtype=float)

    def measured(weights: Array, chose_a: Array | None = None) -> Array:
        chose_a = decided(weights) if chose_a is None else chose_a
        posterior = logistic_posterior(chose_a, made.difference, seed=seed, draws=POOL_DRAWS, intervals=False)
        return rescale(posterior.mean)

    learned, again = measured(made.true, made.chose_a), measured(made.true)
    return World(
        made.true,
        near(TAUGHT),
        learned,
        again,
        measured(near(GATE_CORRELATION / pearson(again, learned))),
        measured(near(0.5)),
        sample_true_weights(POOL, rng),
        made.chose_a,
        made.difference,
    )


@dataclass(frozen=True)
class Training:
    """One training in a study: its contexts, and how its reports come about.

    `shift` moves the accuracy of all of its reports, each by its own draw.
    """

    world: World
    spread: float
    rng: np.random.Generator

    def reports(self, r: float | None, of: Array | None = None) -> Array:
        """Mean reports that correlate at about r with the weights `of`, those that decide by default.

        With None they are those of a model that can know nothing.
        """
        weights = self.world.true if of is None else of
        recovery = pearson(self.world.true, self.world.learned)
        accuracy = 0.0 if r is None else float(np.clip(r / recovery + self.spread * self.rng.normal(), -0.99, 0.99))
        reporter = Reporter(accuracy)
        error = stable_error(reporter, weights.shape, self.rng)
        return average_reports(reporter, beliefs(reporter, weights, float(weights.std()), error, self.rng), self.rng)

    def r(self, x: Array, y: Array) -> Estimate:
        """r as an estimate."""
        return Estimate(pearson(x, y), *bootstrap_r(x, y, seed=0, resamples=RESAMPLES), len(x))

    def gain(self, before: Array, after: Array, y: Array) -> Estimate:
        """r(after, y) - r(before, y) as an estimate."""
        found = paired_difference(before, after, y, seed=0, resamples=RESAMPLES)
        return Estimate(found.difference, found.boot_low, found.boot_high, found.n_contexts)


Situation = Callable[[Training], Figures]


def instilled(r: float) -> Situation:
    """Reports of instilled weights, and those of the base model, which knows nothing of them."""

    def figures(t: Training) -> Figures:
        own, base = (t.r(t.reports(wanted), t.world.learned) for wanted in (r, None))
        over = difference_of_independent((base.estimate, base.low, base.high), (own.estimate, own.low, own.high))
        return {"instilled.r": own, "instilled.over_off_the_shelf": Estimate(*over, CONTEXTS)}

    return figures


def gained(difference: str, before: float | None, after: float) -> Situation:
    """Reports before and after, whose errors have nothing in common: the hardest case."""
    return lambda t: {f"{difference}.difference": t.gain(t.reports(before), t.reports(after), t.world.learned)}


def whose(r: float, learned: float) -> Situation:
    """Reports of the learned weights to a part, and of the targets for the rest."""

    def figures(t: Training) -> Figures:
        mixed = learned * t.world.true + (1 - learned) * t.world.target
        x, sides = t.reports(r, mixed), (t.world.learned, t.world.target)
        found = whose_weights(x, *sides, seed=0, resamples=RESAMPLES).as_dict()
        return {
            f"introspection_trained.{name}": Estimate(
                found[name], found[f"{name}_low"], found[f"{name}_high"], CONTEXTS
            )
            for name in ("r_given_target", "learned_over_target")
        }

    return figures


def swapped(r: float, old: bool = False) -> Situation:
    """Reports of an arm whose weights were swapped: of the new ones, or still of the old, held against both."""

    def figures(t: Training) -> Figures:
        x = t.reports(r, t.world.other if old else t.world.true)
        return {"follows_swap.difference": t.gain(t.world.other, t.world.learned, x)}

    return figures


def predicting(r: float) -> Situation:
    """Fresh decisions predicted by reports, by a constant and by reports of other contexts."""

    def figures(t: Training) -> Figures:
        decisions = FreshDecisions(t.world.difference, np.ones_like(t.world.chose_a), t.world.chose_a)
        found = predict(decisions, t.reports(r), {}, seed=0)
        return {
            f"introspection_trained.gain_over_{kind}": Estimate(
                found[kind].gain, found[kind].gain_low, found[kind].gain_high, CONTEXTS
            )
            for kind in ("constant", "another_context")
        }

    return figures


def stayed(how: str) -> Situation:
    """Weights measured again."""
    return lambda t: {"gain_on_held_out_contexts.r_of_weights": t.r(getattr(t.world, how), t.world.learned)}


def situations(model: str) -> dict[str, dict[str, Situation]]:
    """By claim and by truth; the first truth of each is that it holds."""
    own, trained, before, after = MODELS[model]
    held, shuffled, native = "gain_on_held_out_contexts", "beyond_shuffled_labels", "gain_on_native_contexts"
    found: dict[str, dict[str, Situation]] = {
        "instilled_weights_are_reported": {"reported": instilled(own), "not reported": instilled(0.0)},
        "training_helps_on_held_out_contexts": {
            "helps": gained(held, own, trained),
            "does not": gained(held, own, own),
            "harms": gained(held, trained, own),
        },
        "beyond_shuffled_labels": {
            "beyond": gained(shuffled, None, trained),
            "not beyond": gained(shuffled, trained, trained),
        },
        "carries_over_to_native_contexts": {
            "carries over": gained(native, before, after),
            "does not": gained(native, before, before),
        },
        "follows_the_learned_weights": {
            "the learned": whose(trained, 1.0),
            "both alike": whose(trained, 0.5),
            "the targets": whose(trained, 0.0),
        },
        "follows_a_swap": {
            "the new": swapped(trained),
            "neither": swapped(0.0),
            "the old": swapped(trained, old=True),
        },
        "predicts_fresh_choices": {"predict": predicting(trained), "do not": predicting(0.0)},
        "decisions_stayed": {"stayed": stayed("again"), "at the limit": stayed("moved"), "changed": stayed("lost")},
    }
    if model != MEASURED_WHOSE:
        del found["follows_the_learned_weights"]
    return found


def judged(claim: Claim, situation: Situation, world: World, trainings: int, spread: float, seed: str) -> list[str]:
    """The verdicts of all studies of one situation."""
    rng = stream(0, f"verdicts/{seed}/{trainings}/{spread}")

    def run() -> Figures:
        return situation(Training(world.some(rng.integers(POOL, size=CONTEXTS)), spread, rng))

    return [judge_claim(claim, [[run() for _ in range(trainings)]], SMALLEST_EFFECT).outcome for _ in range(STUDIES)]


def rows(seed: int) -> Iterator[dict[str, object]]:
    """The table."""
    world, claims = make_world(seed), {claim.name: claim for claim in CLAIMS}
    for model in MODELS:
        for name, truths in situations(model).items():
            for (truth, situation), trainings, spread in product(truths.items(), TRAININGS, SPREAD):
                named = f"{seed}/{model}/{name}/{truth}"
                outcomes = judged(claims[name], situation, world, trainings, spread, named)
                known = {"claim": name, "as in": model, "truth": truth, "holds": truth == next(iter(truths))}
                shares = {o: outcomes.count(o) / STUDIES for o in ("supported", "against", "not settled")}
                yield {**known, "trainings": trainings, "spread": spread, **shares}


def main() -> None:
    """Command line: `--out FOLDER`, `--seed N`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/verdicts"), help="folder (default: results/verdicts)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws (default: 0)")
    options = parser.parse_args()
    with output_folder(options.out, "scripts.calibration.verdicts", {"seed": options.seed}) as draft:
        table = pd.DataFrame(rows(options.seed))
        write_text(draft / "verdicts.csv", table.to_csv(index=False))
        if (page := options.out / "README.md").is_file():
            shutil.copy(page, draft)
    say(table.to_string(index=False))


if __name__ == "__main__":
    run_command(main)
