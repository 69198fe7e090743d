import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from train.checkpoints import incompleteness, last_complete_checkpoint


def write_checkpoint(folder: Path, step: int) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    save_file({"a": np.arange(1000.0)}, checkpoint / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt"):
        torch.save({"state": torch.zeros(1000)}, checkpoint / name)
    (checkpoint / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return checkpoint


def test_the_newest_complete_checkpoint_by_number(tmp_path: Path):
    assert last_complete_checkpoint(tmp_path) is None
    for step in (5, 10, 100):
        write_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-best").mkdir()
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-100"


@pytest.mark.parametrize("name", ["trainer_state.json", "adapter_model.safetensors", "optimizer.pt", "scheduler.pt"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_an_incomplete_checkpoint_is_passed_over_and_named(
    tmp_path: Path, name: str, damage: str, capsys: pytest.CaptureFixture[str]
):
    write_checkpoint(tmp_path, 5)
    newest = write_checkpoint(tmp_path, 10)
    assert incompleteness(newest) is None
    whole = (newest / name).read_bytes()
    if damage == "missing":
        (newest / name).unlink()
    else:
        (newest / name).write_bytes(whole[: len(whole) // 2])
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
    assert "checkpoint-10" in (said := capsys.readouterr().out) and name in said
