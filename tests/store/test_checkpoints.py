import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from store.checkpoints import (
    ADAPTER,
    incompleteness,
    kept_checkpoint,
    last_complete_checkpoint,
    remove_checkpoints,
    steps_done,
)
from store.manifests import KeptCheckpoint


def write_checkpoint(folder: Path, step: int) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    save_file({"a": np.arange(1000.0)}, checkpoint / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"state": torch.arange(1000.0)}, checkpoint / name)
    (checkpoint / "adapter_config.json").write_text(json.dumps({"r": 8}))
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step, "max_steps": 40}))
    return checkpoint


def test_the_newest_complete_checkpoint_by_number(tmp_path: Path):
    assert last_complete_checkpoint(tmp_path) is None
    for step in (5, 10, 100):
        write_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-100"


def test_how_far_a_checkpoint_is_and_how_checkpoints_are_removed(tmp_path: Path):
    checkpoint = write_checkpoint(tmp_path, 10)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": 10, "max_steps": 40}))
    (tmp_path / ADAPTER).write_text("what was trained")
    assert steps_done(checkpoint) == (10, 40)
    remove_checkpoints(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [ADAPTER]


FILES = ("trainer_state.json", "adapter_config.json", "adapter_model.safetensors")
FILES += ("optimizer.pt", "scheduler.pt", "rng_state.pth")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [None, 0.0, 0.5, 0.99])
def test_an_incomplete_checkpoint_is_passed_over_and_named(tmp_path: Path, name: str, kept: float | None):
    """A file is missing (None), empty, or cut off after a share of its bytes."""
    write_checkpoint(tmp_path, 5)
    newest = write_checkpoint(tmp_path, 10)
    assert incompleteness(newest) is None
    whole = (newest / name).read_bytes()
    (newest / name).unlink()
    if kept is not None:
        (newest / name).write_bytes(whole[: int(len(whole) * kept)])
    said: list[str] = []
    assert last_complete_checkpoint(tmp_path, tell=said.append) == tmp_path / "checkpoint-5"
    assert len(said) == 1 and "checkpoint-10: passed over" in said[0] and name in said[0]


def test_a_file_with_a_hole_is_not_whole(tmp_path: Path):
    """The right length and a directory at its end, but a page in the middle that never reached the disk."""
    checkpoint = write_checkpoint(tmp_path, 10)
    content = bytearray((checkpoint / "optimizer.pt").read_bytes())
    content[2000:2600] = bytes(600)
    (checkpoint / "optimizer.pt").write_bytes(content)
    assert "optimizer.pt" in (incompleteness(checkpoint) or "")


def test_a_checkpoint_of_another_step_is_none(tmp_path: Path):
    write_checkpoint(tmp_path, 10).rename(tmp_path / "checkpoint-20")
    assert "another step than 20" in (incompleteness(tmp_path / "checkpoint-20") or "")


@pytest.mark.parametrize("values", ['{"global_step": 10}', '{"global_step": 10, "max_steps": "x"}', "[]", "NaN"])
def test_a_checkpoint_that_does_not_say_how_far_it_is_is_none(tmp_path: Path, values: str):
    (write_checkpoint(tmp_path, 10) / "trainer_state.json").write_text(values)
    assert last_complete_checkpoint(tmp_path) is None


@pytest.mark.parametrize("optimizer", ["optimizer.bin", "latest"])
def test_checkpoints_of_several_processes(tmp_path: Path, optimizer: str):
    """FSDP and DeepSpeed keep the optimizer elsewhere, and each process has a random state of its own."""
    checkpoint = write_checkpoint(tmp_path, 10)
    state = (checkpoint / "optimizer.pt").rename(checkpoint / "optimizer.bin")
    (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    last = checkpoint / "rng_state_1.pth"
    last.write_bytes((checkpoint / "rng_state_0.pth").read_bytes())
    if optimizer == "latest":
        (checkpoint / "latest").write_text("global_step10")
        (checkpoint / "global_step10").mkdir()
        state = state.rename(checkpoint / "global_step10" / "zero_pp_rank_0_optim_states.pt")
    assert incompleteness(checkpoint) is None
    last.write_bytes(last.read_bytes()[:100])
    assert "rng_state" in (incompleteness(checkpoint) or "")
    last.unlink()
    state.unlink()
    assert "optimizer" in (incompleteness(checkpoint) or "")


@pytest.mark.parametrize("damage", ["adapter_model.safetensors", "adapter_config.json", None])
def test_a_checkpoint_whose_best_one_is_lost_is_not_gone_on_from(tmp_path: Path, damage: str | None):
    """The weights to end with would be lost; without `damage` the whole folder of the best checkpoint is."""
    best, newest = write_checkpoint(tmp_path, 10), write_checkpoint(tmp_path, 30)
    write_checkpoint(tmp_path, 5)
    for checkpoint in (best, newest):
        state = {
            "global_step": int(checkpoint.name[11:]),
            "max_steps": 40,
            "best_model_checkpoint": f"runs/x/{best.name}",
        }
        (checkpoint / "trainer_state.json").write_text(json.dumps(state))
    assert last_complete_checkpoint(tmp_path) == newest
    for path in [best / damage] if damage else [*best.iterdir()]:
        path.unlink()
    assert "the best checkpoint until then is checkpoint-10" in (incompleteness(newest) or "")
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-5"


def test_the_kept_checkpoint_with_what_was_measured_at_its_step():
    log = [
        {"step": 2, "loss": 1.0},
        {"step": 2, "eval_loss": 0.5, "eval_letter_loss": 0.4, "epoch": 1.0},
        {"step": 4, "eval_loss": 0.6, "eval_letter_loss": 0.3},
    ]
    kept = kept_checkpoint(log, "somewhere/checkpoint-2", "letter_loss")
    assert kept == (KeptCheckpoint(step=2, by="eval_letter_loss"), {"eval_loss": 0.5, "eval_letter_loss": 0.4})
    assert kept_checkpoint(log, None, "loss") is None, "no checkpoint was written"
