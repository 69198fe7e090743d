"""What the training script refuses, in one line and with nothing left that could be taken for an adapter."""

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from store.console import run_command
from support import make_tiny_model
from teaching import command, run, settings
from train import sft

Refusal = Callable[[dict[str, Any]], str]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refusal:
    """Gives settings to the script, in this process, and returns the one line with which it refuses them."""

    def refused(values: dict[str, Any]) -> str:
        monkeypatch.setattr(sys, "argv", command(values, []))
        with pytest.raises(SystemExit, match="2"):
            run_command(sft.main)
        [error] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        return error

    return refused


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lerning_rate": 1}, "lerning_rate"),
        ({"template": "{enable_thinking: false}"}, "template '{enable_thinking: false}': not JSON"),
        ({"gpus": {"large": {}}}, "'large'"),
        ({"train_file": "nowhere.jsonl"}, "nowhere.jsonl: no such examples file"),
        ({"model_name_or_path": "models/nowhere"}, "models/nowhere: no such model folder"),
        ({"adapter": "nowhere"}, "nowhere: no adapter here"),
        ({"max_length": 20}, "max_length 20: 32 of 32 rows are too long"),
        ({"row_tokens": 100}, "row_tokens 100: the longest row has"),
        ({"share_prefixes": 1}, "share_prefixes 1: give a number from 2 on"),
        ({"load_in_4bit": True}, "need an NVIDIA GPU"),
        ({"push_to_hub": True}, "push_to_hub True: it uploads every checkpoint"),
        ({"packing": True}, "packing"),
        ({"load_best_model_at_end": True, "save_steps": 8}, "save_steps 8 is not eval_steps 4"),
        ({"load_best_model_at_end": True, "eval_steps": 2, "validation_file": None}, "no validation_file to choose by"),
        ({"stop_patience": -1}, "stop_patience -1"),
        ({"use_dora": True}, "use_dora True: only plain LoRA"),
        ({"use_peft": False}, "use_peft False: an arm is"),
        ({"loss_type": "dft"}, "loss_type dft: the loss here is"),
        ({"label_smoothing_factor": 0.1}, "label_smoothing_factor 0.1: the loss here is"),
        ({"neftune_noise_alpha": 5, "share_prefixes": 2}, "neftune_noise_alpha and train_sampling_strategy"),
        ({"lora_dropout": 0.05, "share_prefixes": 2}, "the model or its adapter has a dropout of 0.05"),
        ({"lora_r": 2, "bias": "all"}, "bias"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input_is_one_clear_line(
    tiny_model: Path, examples: Path, tmp_path: Path, refusal: Refusal, change: dict[str, Any], says: str
):
    assert says in refusal(settings(tiny_model, examples, tmp_path / "bad", **change))
    assert not (tmp_path / "bad" / "manifest.json").exists()


@pytest.mark.parametrize("start", [False, True], ids=["new", "continued"])
@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"max_steps": 1, "warmup_steps": 9, "lr_scheduler_type": "constant_with_warmup"}, "or was 0 in every step"),
        (
            {"learning_rate": 1e30, "lr_scheduler_type": "constant"},
            "training diverged, 28 of 28 tensors of the adapter are not finite",
        ),
    ],
)
def test_an_adapter_in_which_nothing_was_learned_is_none(
    instilled: Path,
    tiny_model: Path,
    examples: Path,
    tmp_path: Path,
    refusal: Refusal,
    more: dict[str, Any],
    says: str,
    start: bool,
):
    values = settings(tiny_model, examples, tmp_path / "bad", **more)
    values |= {"adapter": str(instilled)} if start else {}
    assert says in refusal({name: value for name, value in values.items() if name != "validation_file"})
    assert not (tmp_path / "bad" / "manifest.json").exists()
    assert not (tmp_path / "bad" / "adapter_model.safetensors").exists()


def test_a_loss_that_is_not_finite_stops_a_training_without_held_out_rows(
    tiny_model: Path, examples: Path, tmp_path: Path
):
    values = settings(tiny_model, examples, tmp_path / "bad", learning_rate=1e30, num_train_epochs=50)
    del values["validation_file"]
    result = run(values, [sys.executable])
    assert result.returncode == 2 and "Traceback" not in result.stderr
    assert re.search(r"stopped early at step \d: the training loss was not finite, most likely", result.stderr)


def test_an_adapter_of_another_base_is_refused(instilled: Path, examples: Path, tmp_path: Path, refusal: Refusal):
    other = make_tiny_model(tmp_path / "other", seed=1)
    assert "trained on the base model" in refusal(settings(other, examples, tmp_path / "bad", adapter=str(instilled)))
    assert not (tmp_path / "bad").exists()


def test_changed_settings_do_not_overwrite(instilled: Path, tiny_model: Path, examples: Path, refusal: Refusal):
    kept = shutil.copytree(instilled, instilled.parent / "kept")
    values = settings(tiny_model, examples, instilled, learning_rate=0.02)
    assert "sft.learning_rate: 0.01 -> 0.02" in refusal(values)
    for file in kept.glob("*.*"):
        if file.is_file():
            assert (instilled / file.name).read_bytes() == file.read_bytes()
