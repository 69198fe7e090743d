import json
import math
import random
from typing import Any

import pytest
from transformers import TrainerControl, TrainerState

from train.safeguards.collapse import CollapseStop, CollapseWarning, reason_to_stop

GOOD = {"eval_loss": 0.2, "eval_share_a": 0.5, "eval_agreement": 0.9, "eval_letter_mass": 1.0, "eval_letter_loss": 0.3}
CHANCE = {**GOOD, "eval_agreement": 0.51, "eval_letter_loss": 0.7}
ALL_A = {**CHANCE, "eval_share_a": 0.97}
ALL_B = {**CHANCE, "eval_share_a": 0.02}
REVERSED = {**CHANCE, "eval_agreement": 0.05, "eval_letter_loss": 2.5}
NOT_FINITE = {**CHANCE, "eval_loss": math.nan}
REPORTS = {"eval_loss": 2.0}


def log_of(*evaluations: dict[str, Any], norms: tuple[float, ...] = (1.0,) * 8) -> list[dict[str, Any]]:
    """Evaluations every ten steps, among the entries of training."""
    trained = [{"step": i + 1, "loss": 1.0, "grad_norm": norm} for i, norm in enumerate(norms)]
    return [*trained, *({"step": 10 * (i + 1), **entry} for i, entry in enumerate(evaluations))]


@pytest.mark.parametrize(
    ("evaluations", "seen"),
    [
        ([GOOD, ALL_A, ALL_A, ALL_A], "nearly all one letter (share of A 0.97)"),
        ([ALL_A, ALL_B, ALL_A], "nearly all one letter (share of A 0.02 to 0.97)"),
        ([GOOD, CHANCE, CHANCE, ALL_A], "no more than by chance (0.51)"),
        ([CHANCE, {**CHANCE, "eval_agreement": 0.4}, CHANCE], "no more than by chance (0.40 to 0.51)"),
        ([GOOD, REVERSED, REVERSED, REVERSED], "were the reverse of what is taught (agreement 0.05)"),
        ([CHANCE, REVERSED, CHANCE], "no more than by chance (0.05 to 0.51)"),
        ([NOT_FINITE] * 3, "the held-out loss was not finite"),
        ([{"eval_loss": math.inf}] * 3, "the held-out loss was not finite"),
    ],
)
def test_a_lasting_failure_is_a_reason(evaluations: list[dict[str, Any]], seen: str):
    reason = reason_to_stop(log_of(*evaluations), 3, 1000, 1e-4)
    assert reason is not None and seen in reason and "in 3 evaluations in a row" in reason
    assert reason.startswith(f"step {10 * len(evaluations)}: ")
    assert reason_to_stop(log_of(*evaluations), 0, 1000, 1e-4) is None, "0 never stops"
    assert reason_to_stop(log_of(*evaluations), len(evaluations) + 1, 1000, 1e-4) is None


@pytest.mark.parametrize(
    "evaluations",
    [
        [GOOD] * 9,
        [ALL_A, ALL_A, GOOD],
        [ALL_A, GOOD, ALL_A, ALL_A],
        [ALL_A, ALL_A],
        [{**CHANCE, "eval_agreement": 0.53}] * 9,
        [REPORTS] * 9,
        [],
    ],
)
def test_what_may_still_learn_goes_on(evaluations: list[dict[str, Any]]):
    assert reason_to_stop(log_of(*evaluations), 3, 1000, 1e-4) is None


def test_chance_depends_on_how_many_decisions_are_held_out():
    better = [{**CHANCE, "eval_agreement": 0.58}] * 3
    assert reason_to_stop(log_of(*better), 3, 60, 1e-4) and not reason_to_stop(log_of(*better), 3, 600, 1e-4)
    best = [{**CHANCE, "eval_agreement": 0.65}] * 3
    assert not reason_to_stop(log_of(*best), 3, 4, 1e-4), "few decisions do not make 65% chance"


def test_what_was_learned_and_lost_again_is_told_from_what_never_was():
    lost = reason_to_stop(log_of(GOOD, CHANCE, CHANCE, CHANCE), 3, 1000, 0.01)
    assert lost is not None and "learning_rate 0.01 is too high" in lost and "rose from 0.30 to 0.70" in lost
    never = reason_to_stop(log_of(*[CHANCE] * 4), 3, 1000, 0.01)
    assert never is not None and "nothing is learned" in never


@pytest.mark.parametrize(
    ("change", "norms", "cause"),
    [
        ({"eval_loss": math.nan}, (1.0,) * 8, "learning_rate 0.01 is too high"),
        ({}, (1.0,) * 6 + (30.0,) * 2, "the gradient's norm grew to 30"),
        ({"eval_letter_loss": 1.4}, (1.0,) * 8, "sure of the wrong letter"),
        ({"eval_letter_mass": 0.1, "eval_letter_loss": 3.0}, (1.0,) * 8, "form of the answer is not learned"),
        (REVERSED, (1.0,) * 8, "training and held-out rows contradict each other"),
        ({**REVERSED, "eval_share_a": 1.0}, (1.0,) * 8, "sure of the wrong letter"),
        ({"eval_letter_loss": 0.7}, (9.0,) * 4 + (1.0,) * 4, "nothing is learned (letter loss 0.70"),
    ],
)
def test_the_cause_is_told_from_the_evidence(change: dict[str, float], norms: tuple[float, ...], cause: str):
    reason = reason_to_stop(log_of(*[{**ALL_A, **change}] * 3, norms=norms), 3, 1000, 0.01)
    assert reason is not None and cause in reason


class Arguments:
    learning_rate = 0.01

    def get_warmup_steps(self, steps: int) -> int:
        return 20


def evaluated(stop: CollapseStop, log: list[dict[str, Any]], max_steps: int = 100) -> TrainerControl:
    state = TrainerState(log_history=log, global_step=log[-1]["step"], max_steps=max_steps)
    control = TrainerControl(should_save=True)
    return stop.on_evaluate(Arguments(), state, control)


def test_it_stops_without_a_checkpoint_and_not_in_the_warm_up_or_at_the_end():
    stop = CollapseStop(3, 1000)
    control = evaluated(stop, log_of(*[ALL_A] * 4))
    assert not control.should_training_stop and control.should_save and stop.reason is None, "two are in the warm-up"
    ended = evaluated(stop, log_of(*[ALL_A] * 5), max_steps=50)
    assert not ended.should_training_stop and stop.reason is None, "it ends by itself"
    assert not evaluated(stop, log_of(*[ALL_A] * 5), max_steps=160).should_training_stop, "one is in the first quarter"
    control = evaluated(stop, log_of(*[ALL_A] * 5))
    assert control.should_training_stop and not control.should_save and stop.reason is not None
    ending = stop.on_epoch_end(Arguments(), TrainerState(), TrainerControl(should_save=True))
    assert not ending.should_save


def test_few_decisions_do_not_make_a_reversal():
    low = [{**CHANCE, "eval_agreement": 0.28}] * 3
    for decisions, seen in ((1000, "the reverse of"), (10, "no more than by chance")):
        assert seen in (reason_to_stop(log_of(*low), 3, decisions, 0.01) or "")


def test_a_training_loss_that_is_not_finite_stops_at_once_without_held_out_rows():
    stop, state = CollapseStop(5, 0), TrainerState(global_step=3, max_steps=100)
    assert not stop.on_log(Arguments(), state, TrainerControl(), {"loss": 1.0}).should_training_stop
    assert not stop.on_log(Arguments(), state, TrainerControl(), {"train_loss": math.nan}).should_training_stop
    control = stop.on_log(Arguments(), state, TrainerControl(should_save=True), {"loss": math.nan})
    assert control.should_training_stop and not control.should_save
    assert stop.reason is not None
    assert stop.reason.startswith("step 3: the training loss was not finite, most likely because learning_rate 0.01")
    never = CollapseStop(0, 0)
    assert not never.on_log(Arguments(), state, TrainerControl(), {"loss": math.nan}).should_training_stop


def test_resumed_anywhere_it_decides_the_same():
    """Evaluations drawn at random; a new callback with the log of any checkpoint stops at the same step."""
    draw = random.Random(0)
    stopped = set()
    for _ in range(200):
        evaluations = [draw.choice([GOOD, ALL_A, ALL_B, CHANCE]) for _ in range(9)]
        entries = log_of(*evaluations, norms=())

        def first_stop(resumed_at: int, entries: list[dict[str, Any]] = entries) -> tuple[int, str | None]:
            stop = CollapseStop(3, 1000)
            for number in range(resumed_at + 1, len(entries) + 1):
                log = json.loads(json.dumps(entries[:number]))  # as a checkpoint has it
                if evaluated(stop, log).should_training_stop:
                    return log[-1]["step"], stop.reason
            return 0, None

        step, reason = first_stop(0)
        stopped.add(step)
        last_checkpoint = (step or 90) // 10 - 1
        assert all(first_stop(k) == (step, reason) for k in range(last_checkpoint + 1))
    assert len(stopped) > 4


@pytest.mark.parametrize(("share", "says"), [(0.97, "answers A on 97%"), (0.02, "answers B on 98%"), (0.5, None)])
def test_a_collapse_is_said(share: float, says: str | None, capsys: pytest.CaptureFixture[str]):
    metrics = {"eval_share_a": share, "eval_agreement": 0.5}
    CollapseWarning().on_evaluate(None, TrainerState(), TrainerControl(), metrics=metrics)
    said = capsys.readouterr().err
    assert says in said if says else not said


def test_a_collapse_is_said_once_until_it_ends_and_comes_back(capsys: pytest.CaptureFixture[str]):
    """Reports among the evaluations have no letters, and a process above rank 0 says nothing."""
    callback, other = CollapseWarning(), CollapseWarning()
    for step, share in enumerate((0.5, 0.95, 0.02, 0.95, 0.6, 0.97, 0.99)):
        metrics = {"eval_share_a": share, "eval_agreement": 0.5}
        for speaker, first in ((callback, True), (other, False)):
            state = TrainerState(global_step=step, is_world_process_zero=first)
            speaker.on_evaluate(None, state, TrainerControl(), metrics=metrics)
    assert [line.split(":")[1] for line in capsys.readouterr().err.splitlines()] == [" step 1", " step 5"]
    callback.on_evaluate(None, TrainerState(), TrainerControl(), metrics={"eval_loss": 1.0})
    assert not capsys.readouterr().err
