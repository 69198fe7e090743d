"""What a training measured does not depend on when it was interrupted, nor on the machine."""

import pytest
from transformers import TrainerControl

from train.trainer.measures import LogAtCheckpoints, lasting_measures


@pytest.mark.parametrize(
    ("control", "logs"),
    [
        (TrainerControl(), False),
        (TrainerControl(should_save=True), True),
        (TrainerControl(should_training_stop=True), True),
        (TrainerControl(should_log=True), True),
    ],
)
def test_a_checkpoint_leaves_no_loss_unlogged(control: TrainerControl, logs: bool):
    callback = LogAtCheckpoints()
    assert callback.on_step_end(None, None, control).should_log is logs
    assert callback.on_epoch_end(None, None, control).should_log is logs


def test_the_mean_loss_is_that_of_all_steps_logged():
    log = [
        {"step": 3, "loss": 2.0},
        {"step": 4, "eval_loss": 9.0},
        {"step": 4, "loss": 1.0},
        {"step": 8, "loss": 0.5},
        {"step": 8, "train_loss": 0.25},
    ]
    told = {"train_loss": 0.25, "train_runtime": 3.0, "eval_samples_per_second": 2.0, "eval_loss": 9.0, "epoch": 2.0}
    assert lasting_measures(log, told) == {"train_loss": (3 * 2 + 1 + 4 * 0.5) / 8, "eval_loss": 9.0, "epoch": 2.0}
    assert lasting_measures([], told)["train_loss"] == 0.25, "nothing was logged"
