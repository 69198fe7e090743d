"""The claims that a study is asked about, and the figures that each is read from, by the names of configurations.

The names of comparisons and differences are those of configs/experiments/organism.yaml; a study whose runs call them
otherwise is told "not measured".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from task.thresholds import GATE_CORRELATION

Limits = Callable[[float], tuple[float, float]]
"""From the smallest effect of interest: above what a claim is supported, below what it is spoken against."""


def of_effect(smallest: float) -> tuple[float, float]:
    """An effect: there where it is above 0, none of interest where it is below the smallest."""
    return 0.0, smallest


def of_share(smallest: float) -> tuple[float, float]:
    """An effect on the share of decisions predicted right.

    Weights that correlate at r with those behind the decisions predict a share of 1/2 + arcsin(r) / pi of them, if
    utilities are normal (Sheppard 1899); so much above a half is the smallest share of interest.
    """
    return 0.0, math.asin(min(smallest, 1.0)) / math.pi


def of_sameness(smallest: float) -> tuple[float, float]:
    """Two measurements of the same weights: as close as the gate asks of learned and target weights."""
    return GATE_CORRELATION, GATE_CORRELATION


@dataclass(frozen=True)
class Part:
    """One condition of a claim.

    Attributes:
        figures: The figure, and others that may stand in for it: the one that is testable in most runs with
            `FEW_CONTEXTS` contexts or more, then in most runs, then the first.
        what: It, in words.
        limits: See `Limits`.
        optional: Whether the claim stands without it where it was not measured.
    """

    figures: tuple[str, ...]
    what: str
    limits: Limits = of_effect
    optional: bool = False


@dataclass(frozen=True)
class Claim:
    """A claim: it is supported if all of its parts are, and spoken against if any is.

    Attributes:
        name: In `summary.json`.
        words: On the page.
        caution: What its verdict does not say.
    """

    name: str
    words: str
    parts: tuple[Part, ...]
    caution: str = ""


def _free_then_constrained(name: str, figure: str) -> tuple[str, str]:
    return f"{name}.{figure}", f"{name}_constrained.{figure}"


def _trained_then_instilled(figure: str) -> tuple[str, ...]:
    return tuple(
        found for name in ("introspection_trained", "instilled") for found in _free_then_constrained(name, figure)
    )


CLAIMS = (
    Claim(
        "instilled_weights_are_reported",
        "Instilled weights are reported",
        (
            Part(_free_then_constrained("instilled", "r"), "r(report, learned weights)"),
            Part(
                _free_then_constrained("instilled", "over_off_the_shelf"),
                "r beyond that of the base model",
                optional=True,
            ),
        ),
    ),
    Claim(
        "training_helps_on_held_out_contexts",
        "Introspection training helps on contexts held out from it",
        (Part(("gain_on_held_out_contexts.difference",), "gain in r"),),
    ),
    Claim(
        "beyond_shuffled_labels",
        "It helps beyond what shuffled labels teach",
        (Part(_free_then_constrained("beyond_shuffled_labels", "difference"), "r less that after shuffled labels"),),
    ),
    Claim(
        "carries_over_to_native_contexts",
        "It carries over to native preferences",
        (Part(("gain_on_native_contexts.difference",), "gain in r"),),
    ),
    Claim(
        "follows_the_learned_weights",
        "Reports follow the learned weights, not the targets",
        (
            Part(_trained_then_instilled("r_given_target"), "r(report, learned | target)"),
            Part(
                _trained_then_instilled("learned_over_target"),
                "r(report, learned | target) less r(report, target | learned)",
            ),
        ),
        "Decisions measure learned weights with noise, which lowers both figures.",
    ),
    Claim(
        "follows_a_swap",
        "Reports follow a swap of the instilled weights",
        (Part(("follows_swap.difference",), "r with the new weights less r with the old"),),
        "Training may still have caused preference and report in parallel.",
    ),
    Claim(
        "predicts_fresh_choices",
        "Reports predict fresh choices",
        (
            Part(_trained_then_instilled("gain_over_constant"), "share beyond that of a constant report", of_share),
            Part(
                _trained_then_instilled("gain_over_another_context"), "share beyond reports of other contexts", of_share
            ),
        ),
    ),
    Claim(
        "decisions_stayed",
        "Decisions stayed as they were while reports were trained",
        (
            Part(
                ("gain_on_held_out_contexts.r_of_weights", "gain_on_native_contexts.r_of_weights"),
                "r(weights after, weights before)",
                of_sameness,
            ),
        ),
        "Both are measured with noise, so that the same weights reach less than 1.",
    ),
)
"""In the order of the page."""
