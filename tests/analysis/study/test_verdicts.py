"""Verdicts on claims from planted figures: both ways, open, withheld, and never measured."""

from __future__ import annotations

import math

import pytest

from analysis.pages.study_text import sentence
from analysis.study.claims import CLAIMS, of_share
from analysis.study.several import Estimate, pooled, scale_of
from analysis.study.verdicts import ClaimVerdict, judge_claim, settled_by

Figures = dict[str, Estimate]
BY_NAME = {claim.name: claim for claim in CLAIMS}


def about(estimate: float, half: float = 0.05, contexts: int = 100) -> Estimate:
    return Estimate(estimate, estimate - half, estimate + half, contexts)


def withheld(reason: str) -> Estimate:
    return Estimate(math.nan, math.nan, math.nan, 0, reason)


def judged(claim: str, *runs: Figures) -> ClaimVerdict:
    return judge_claim(BY_NAME[claim], [runs], 0.1)


FIRST = {claim.name: [part.figures[0] for part in claim.parts] for claim in CLAIMS}


@pytest.mark.parametrize("claim", BY_NAME)
def test_every_claim_is_supported_by_effects_that_are_there_and_not_by_those_that_are_not(claim: str):
    there, gone = (0.95, 0.5) if claim == "decisions_stayed" else (0.4, -0.02)
    half = 0.02 if claim == "predicts_fresh_choices" else 0.05
    for trainings in (1, 3):
        held = judged(claim, *[{figure: about(there, half) for figure in FIRST[claim]}] * trainings)
        assert held.outcome == "supported" and "neither" not in sentence(held)
        missed = judged(claim, *[{figure: about(gone, half / 2) for figure in FIRST[claim]}] * trainings)
        assert missed.outcome == "against" and "all below" in sentence(missed)


@pytest.mark.parametrize("claim", BY_NAME)
def test_what_no_run_has_is_not_measured_and_what_has_no_meaning_says_why(claim: str):
    nothing = judged(claim, {})
    assert nothing.outcome == "not measured" and FIRST[claim][0] in sentence(nothing)
    why = judged(claim, {figure: withheld("the gate was not passed") for figure in FIRST[claim]})
    assert why.outcome == "not testable" and "not testable, the gate was not passed" in sentence(why)


def test_a_claim_of_two_figures_needs_both():
    known = {"introspection_trained.r_given_target": about(0.4)}
    assert judged("follows_the_learned_weights", known).outcome == "not measured"
    for over, outcome in ((0.3, "supported"), (0.04, "not settled"), (-0.3, "against")):
        both = known | {"introspection_trained.learned_over_target": about(over, 0.07)}
        assert judged("follows_the_learned_weights", both).outcome == outcome


def test_the_base_model_is_left_out_where_it_was_not_measured_and_counts_where_it_was():
    alone = judged("instilled_weights_are_reported", {"instilled.r": about(0.3)})
    assert alone.outcome == "supported" and "not measured" in sentence(alone)
    known = {"instilled.r": about(0.3), "instilled.over_off_the_shelf": about(0.0, 0.12)}
    assert judged("instilled_weights_are_reported", known).outcome == "not settled"


def test_a_share_of_decisions_has_a_smallest_effect_of_its_own():
    assert of_share(0.1)[1] == pytest.approx(math.asin(0.1) / math.pi)
    small = {figure: about(0.0, 0.03) for figure in FIRST["predicts_fresh_choices"]}
    assert judged("predicts_fresh_choices", small).outcome == "against"


def test_the_figure_that_is_best_known_stands_for_the_others():
    free, forced = about(0.5, 0.4, contexts=2), about(0.3, contexts=60)
    missing = withheld("none of the 600 reports of instilled could be read")
    runs = [{"instilled.r": f, "instilled_constrained.r": forced} for f in (missing, missing, free)]
    found = judged("instilled_weights_are_reported", *runs)
    assert found.parts[0].figures == ["instilled_constrained.r"] and "(“instilled constrained”, 3 runs" in sentence(
        found
    )
    runs = [{"instilled.r": about(0.2), "instilled_constrained.r": forced}] * 2
    assert judged("instilled_weights_are_reported", *runs).parts[0].figures == ["instilled.r"]


def test_each_group_has_the_figure_that_is_best_known_in_it():
    forced, free = {"instilled_constrained.r": about(0.3)}, {"instilled.r": about(0.3)}
    found = judge_claim(BY_NAME["instilled_weights_are_reported"], [[forced, forced], [free]], 0.1)
    assert found.parts[0].figures == ["instilled_constrained.r", "instilled.r"] and found.parts[0].pooled.runs == 3
    assert "(“instilled constrained” and “instilled”, 3 runs" in sentence(found)


def test_runs_without_a_meaning_are_named_and_take_no_part():
    runs = [{"gain_on_native_contexts.difference": e} for e in (about(0.4), about(0.4), withheld("it broke"))]
    found = judged("carries_over_to_native_contexts", *runs)
    assert found.outcome == "supported" and found.parts[0].pooled.runs == 2
    assert "not testable in others: it broke" in sentence(found)


def test_what_every_run_shows_is_settled_although_three_runs_pooled_do_not_show_it():
    estimates = [about(value, 0.08) for value in (0.1, 0.3, 0.6)]
    [figure] = FIRST["training_helps_on_held_out_contexts"]
    found = judged("training_helps_on_held_out_contexts", *({figure: e} for e in estimates))
    assert found.parts[0].pooled.low < 0 and found.outcome == "supported"
    assert "not all above 0, but each run by itself is" in sentence(found)
    assert judged("training_helps_on_held_out_contexts", *({figure: e} for e in estimates[:2])).outcome == "not settled"
    harms = [{figure: about(-value, 0.08)} for value in (0.1, 0.3, 0.9)]
    assert "each run by itself" in sentence(judged("training_helps_on_held_out_contexts", *harms))


def test_a_small_effect_that_is_there_is_said_to_be_small():
    found = judged("carries_over_to_native_contexts", {"gain_on_native_contexts.difference": about(0.05, 0.02)})
    assert found.outcome == "supported" and "yet all below 0.1, the smallest of interest" in sentence(found)


def measured(estimate: float, contexts: int) -> Estimate:
    """A correlation with the interval of so many contexts, even on the scale that it is pooled on."""
    z, half = math.atanh(estimate), 0.14 * math.sqrt(100 / contexts)
    return Estimate(estimate, math.tanh(z - half), math.tanh(z + half), contexts)


@pytest.mark.parametrize("estimates", [[0.04], [0.08], [-0.02], [0.05, 0.12, 0.09]])
def test_the_size_that_would_settle_it_does_and_one_less_does_not(estimates: list[float]):
    kept = [measured(value, 100) for value in estimates]
    contexts, trainings = settled_by("instilled.r", kept, 0.0, 0.1)
    assert contexts is not None and contexts > 100 and (trainings is None) == (len(kept) == 1)
    for size, settled in ((contexts + 1, True), (contexts - 2, False)):
        together = pooled("instilled.r", [measured(value, size) for value in estimates])
        if not together.between or math.isnan(together.between):  # else the spread would be estimated anew
            assert (together.low > 0 or together.high < 0.1) == settled


def test_more_trainings_settle_what_differs_between_trainings():
    figure = "gain_on_held_out_contexts.difference"
    kept = [about(value) for value in (-0.05, 0.2, 0.45)]
    contexts, trainings = settled_by(figure, kept, 0.0, 0.1)
    assert contexts is None and trainings is not None and trainings > 3
    [found] = [judged("training_helps_on_held_out_contexts", *({figure: e} for e in kept))]
    assert found.outcome == "not settled" and f"{trainings} runs would settle it" in sentence(found)


def test_one_run_says_that_it_is_one():
    found = judged("decisions_stayed", {"gain_on_held_out_contexts.r_of_weights": about(0.82)})
    assert found.single and found.outcome == "not settled"
    assert "one run, 100 contexts; other trainings may differ" in sentence(found)
    assert "would settle it for this training" in sentence(found)


def test_figures_are_pooled_on_their_scale():
    assert [
        scale_of(f"instilled.{kind}") for kind in ("r", "r_given_target", "over_constant", "gain_over_constant")
    ] == [
        "correlation",
        "correlation",
        "difference",
        "difference",
    ]
