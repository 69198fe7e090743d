from pathlib import Path

import numpy as np
import pytest

from eval.engines.simulated import SimulatedEngine, weight_sd
from store.contexts import DATA, load_contexts
from store.evaluation import EvalConfig, PlantedArm
from store.weights import save_weights
from task.contexts import ChoiceContext
from task.prompts import Framing, frame
from task.replies import parse_report
from task.trials import ShownTrial, prefers_first, sample_trials
from task.weights import sample_weights

CONTEXTS = load_contexts(DATA / "instilled.jsonl")


def engine(tmp_path: Path, arms: int = 1, **planted: object) -> SimulatedEngine:
    names = ["arm", *(f"arm{i}" for i in range(1, arms))]
    save_weights({c.name: weights(c) for c in CONTEXTS}, tmp_path / "weights.csv")
    return SimulatedEngine(
        EvalConfig(
            seed=0,
            output="out",
            engine={"name": "simulated"},
            arms=dict.fromkeys(names),
            planted=dict.fromkeys(names, PlantedArm(**planted)),
            planted_weights=str(tmp_path / "weights.csv"),
            measurements=[],
        )
    )


def weights(context: ChoiceContext) -> np.ndarray:
    return sample_weights(0, "target_weights", context)


def shown(
    context: ChoiceContext, count: int, first_as_a: bool = True, framing: Framing | None = None
) -> list[ShownTrial]:
    trials = sample_trials(0, "decisions", context, count)
    return [
        ShownTrial(framing or frame("decisions", context), i, a, b, first_as_a)
        for i, (a, b) in enumerate(zip(trials.first, trials.second, strict=True))
    ]


def reports(simulated: SimulatedEngine, count: int, arm: str = "arm") -> np.ndarray:
    """Reported values, shape (contexts, reports, attributes)."""
    found = []
    for context in CONTEXTS:
        replies = simulated.report(arm, shown(context, count), False)
        found.append([parse_report(r, context.attribute_names).values for r in replies])
    return np.array(found)


def test_a_noiseless_chooser_takes_the_option_of_higher_utility(tmp_path: Path):
    simulated = engine(tmp_path)
    for context in CONTEXTS[:10]:
        trials = sample_trials(0, "decisions", context, 50)
        for first_as_a in (True, False):
            logp = simulated.decide("arm", shown(context, 50, first_as_a)).logps
            assert np.allclose(np.exp(logp).sum(axis=1), 1)
            says_first = (logp[:, 0] > logp[:, 1]) == first_as_a
            assert (says_first == prefers_first(trials, weights(context))).all()


def test_position_bias_and_noise_are_as_planted(tmp_path: Path):
    simulated = engine(tmp_path, position_bias=0.7, noise=2.0)
    clean = engine(tmp_path)
    errors = []
    for context in CONTEXTS[:20]:
        for order in (True, False):
            with_noise, without = (e.decide("arm", shown(context, 50, order)).logps for e in (simulated, clean))
            errors.append((with_noise[:, 0] - with_noise[:, 1]) - (without[:, 0] - without[:, 1]))
    assert np.mean(errors) == pytest.approx(0.7, abs=0.15)
    assert np.std(errors) == pytest.approx(2.0, rel=0.05)
    both = np.corrcoef(np.concatenate(errors[::2]), np.concatenate(errors[1::2]))[0, 1]
    assert abs(both) < 0.1, "the two orders of a pair have noise of their own"


@pytest.mark.parametrize("accuracy", [0.0, 0.5, 0.9])
def test_reports_correlate_as_planted(tmp_path: Path, accuracy: float):
    simulated = engine(tmp_path, arms=12, report_accuracy=accuracy)
    true = np.stack([weights(c) for c in CONTEXTS]).ravel()
    arms = ["arm", *(f"arm{i}" for i in range(1, 12))]
    found = [np.corrcoef(reports(simulated, 5, arm).mean(axis=1).ravel(), true)[0, 1] for arm in arms]
    # The standard error of a correlation of 500 points is .045 at most, of the mean of twelve .013.
    assert np.mean(found) == pytest.approx(accuracy, abs=0.04)


def test_reports_about_another_context_say_nothing_of_this_one(tmp_path: Path):
    mean = reports(engine(tmp_path, report_accuracy=0.95, report_about="another"), 3).mean(axis=1)
    true = np.stack([weights(c) for c in CONTEXTS])
    assert abs(np.corrcoef(mean.ravel(), true.ravel())[0, 1]) < 0.16


def test_the_scale_of_noise_is_that_of_the_weights():
    draws = np.concatenate([sample_weights(seed, "target_weights", c) for seed in range(30) for c in CONTEXTS])
    assert draws.std() == pytest.approx(weight_sd(5), rel=0.01)


def test_unreadable_replies_come_as_often_as_planted(tmp_path: Path):
    simulated = engine(tmp_path, unreadable=0.25)
    parsed = [
        parse_report(reply, context.attribute_names)
        for context in CONTEXTS
        for reply in simulated.report("arm", shown(context, 20), False)
    ]
    assert np.mean([p.values is None for p in parsed]) == pytest.approx(0.25, abs=0.04)


def test_replies_within_a_grammar_can_always_be_read(tmp_path: Path):
    simulated = engine(tmp_path, unreadable=1.0, unreadable_reply="B", report_accuracy=0.5)
    sound = engine(tmp_path, report_accuracy=0.5)
    trials = shown(CONTEXTS[0], 20)
    assert simulated.report("arm", trials, False) == ["B"] * 20
    assert (
        simulated.report("arm", trials, True) == sound.report("arm", trials, True) == sound.report("arm", trials, False)
    )
    assert (simulated.opening("arm", trials) == 0).all() and (sound.opening("arm", trials) == 1).all()


def test_decisions_are_missing_as_often_as_planted(tmp_path: Path):
    trials = [trial for context in CONTEXTS[:20] for order in (True, False) for trial in shown(context, 25, order)]
    found = engine(tmp_path, no_letter=0.3, not_finite=0.1, noise=1.0).decide("arm", trials)
    sound = engine(tmp_path, noise=1.0).decide("arm", trials)
    missing = np.array([reason or "" for reason in found.undecided])
    # Of 1000 trials, a share has a standard error of .015 at most.
    assert (missing == "not_finite").mean() == pytest.approx(0.1, abs=0.05)
    assert (missing == "no_letter").mean() == pytest.approx(0.3 * 0.9, abs=0.05)
    made = missing == ""
    assert (found.logps[made] == sound.logps[made]).all() and sound.undecided == [None] * len(trials)
    assert np.allclose(np.exp(found.logps[missing == "no_letter"]).sum(axis=1), 0.02), "also by the rule of old files"
    one_by_one = [engine(tmp_path, no_letter=0.3, not_finite=0.1).decide("arm", [t]).undecided[0] for t in trials[:40]]
    assert one_by_one == found.undecided[:40]


def test_an_arm_that_decides_nothing_and_one_that_answers_one_letter(tmp_path: Path):
    trials = [*shown(CONTEXTS[0], 25), *shown(CONTEXTS[0], 25, first_as_a=False)]
    assert engine(tmp_path, no_letter=1.0).decide("arm", trials).undecided == ["no_letter"] * 50
    assert engine(tmp_path, not_finite=1.0).decide("arm", trials).undecided == ["not_finite"] * 50
    assert {*engine(tmp_path, position_bias=40.0).decide("arm", trials).letters} == {"A"}


def test_a_reversed_arm_takes_the_worse_option(tmp_path: Path):
    simulated = engine(tmp_path, sharpness=-5.0)
    says_first = [letter == "A" for letter in simulated.decide("arm", shown(CONTEXTS[0], 50)).letters]
    assert (
        np.array(says_first) != prefers_first(sample_trials(0, "decisions", CONTEXTS[0], 50), weights(CONTEXTS[0]))
    ).all()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_an_arm_decides_in_as_many_contexts_as_planted(tmp_path: Path, share: float):
    simulated = engine(tmp_path, decided_contexts=share)
    letters = [{*simulated.decide("arm", shown(context, 50)).letters} for context in CONTEXTS]
    assert sum(found == {"A", "B"} for found in letters) == share * len(CONTEXTS)
    assert all(found == {"A"} for found in letters if len(found) == 1)


def test_an_answer_does_not_depend_on_what_else_is_asked(tmp_path: Path):
    simulated = engine(tmp_path, noise=1.0, report_accuracy=0.5, unreadable=0.2)
    trials = shown(CONTEXTS[0], 10) + shown(CONTEXTS[1], 10)
    together, alone = (
        simulated.report("arm", trials, False),
        [simulated.report("arm", [t], False)[0] for t in reversed(trials)],
    )
    assert together == alone[::-1]
    one_by_one = np.concatenate([simulated.decide("arm", [t]).logps for t in trials])
    assert (simulated.decide("arm", trials).logps == one_by_one).all()


def test_told_weights_decide_and_are_reported_without_error(tmp_path: Path):
    simulated = engine(tmp_path, report_accuracy=0.2, report_noise=0.0)
    for context in CONTEXTS[:10]:
        told = sample_weights(9, "told_weights", context)
        logp = simulated.decide(
            "arm", shown(context, 30, framing=frame("decisions", context, "in_context", told))
        ).logps
        assert ((logp[:, 0] > logp[:, 1]) == prefers_first(sample_trials(0, "decisions", context, 30), told)).all()
        [reply] = simulated.report(
            "arm", shown(context, 1, framing=frame("reports", context, "in_context", told)), False
        )
        said = parse_report(reply, context.attribute_names).values
        assert np.corrcoef(said, told)[0, 1] > 0.999


def test_what_is_said_of_another_model_is_another_belief(tmp_path: Path):
    simulated = engine(tmp_path, report_accuracy=1.0, report_noise=0.0, third_person_accuracy=0.0)
    said = {}
    for variant in ("trial", "third_person", "no_trial"):
        replies = [
            simulated.report("arm", shown(c, 1, framing=frame("reports", c, variant)), False)[0] for c in CONTEXTS
        ]
        said[variant] = np.array(
            [parse_report(r, c.attribute_names).values for r, c in zip(replies, CONTEXTS, strict=True)]
        )
    assert (said["trial"] == said["no_trial"]).all()
    assert abs(np.corrcoef(said["trial"].ravel(), said["third_person"].ravel())[0, 1]) < 0.16
