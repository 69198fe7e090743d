"""Arguments of the training script, as a command line and as a YAML file give them."""

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from accelerate.state import PartialState
from peft import get_peft_model
from transformers import AutoModelForCausalLM
from trl import get_peft_config

from store.model_file import read_model_file
from support import ROOT
from task.errors import InputError
from train.arguments import (
    LORA_TARGETS,
    LoraArguments,
    TeachingConfig,
    asked_settings,
    check_training,
    parse_arguments,
)

NEEDED = ["--model_name_or_path", "m", "--train_file", "t", "--output_dir", "o"]
TEMPLATE, GPUS = {"enable_thinking": False}, {24: {"per_device_train_batch_size": 2}}


def parsed(monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["train/sft.py", *NEEDED, *words])
    return parse_arguments()


def test_a_mapping_is_the_same_as_json_and_in_yaml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("GROUP", "y")  # the parser sets it for good
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump({"template": TEMPLATE, "gpus": GPUS, "env": {"GROUP": "x"}}))
    in_yaml = parsed(monkeypatch, "--config", str(tmp_path / "sft.yaml"))[0]
    assert asked_settings() == {"template": TEMPLATE, "gpus": GPUS}
    as_json = parsed(monkeypatch, "--template", json.dumps(TEMPLATE), "--gpus", json.dumps(GPUS))[0]
    assert asked_settings() is None
    for teaching in (in_yaml, as_json):
        assert teaching.template_arguments == TEMPLATE and teaching.gpu_settings == GPUS
    none = parsed(monkeypatch)[0]
    assert none.template_arguments == none.gpu_settings == {}
    both = parsed(monkeypatch, "--config", str(tmp_path / "sft.yaml"), "--template", "{}")[0]
    assert both.template_arguments == {} and both.gpu_settings == GPUS, "the command line prevails"


@pytest.mark.parametrize("given", ["{enable_thinking: false}", "[1]", "enable_thinking"])
def test_what_is_no_mapping_is_named(monkeypatch: pytest.MonkeyPatch, given: str):
    with pytest.raises(InputError, match=r"command line: template .*not (JSON|a mapping)"):
        parsed(monkeypatch, "--template", given)


def test_mappings_of_trl_on_the_command_line(monkeypatch: pytest.MonkeyPatch):
    sft = parsed(monkeypatch, "--lr_scheduler_kwargs", '{"num_decay_steps": 5}')[1]
    assert sft.lr_scheduler_kwargs == {"num_decay_steps": 5}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], LORA_TARGETS),
        (["q_proj"], ["q_proj"]),
        (["layers.0.self_attn.q_proj"], ["layers.0.self_attn.q_proj"]),
        (["q_proj", "v_proj"], ["q_proj", "v_proj"]),
        (["all-linear"], "all-linear"),
        ([r".*\.(q|v)_proj"], r".*\.(q|v)_proj"),
    ],
)
def test_one_layer_name_is_a_list_and_a_regular_expression_is_none(
    monkeypatch: pytest.MonkeyPatch, words: list[str], wanted: Any
):
    lora = parsed(monkeypatch, *(["--lora_target_modules", *words] if words else []))[2]
    assert lora.lora_target_modules == wanted


def test_one_layer_name_adapts_that_layer(tiny_model: Path):
    """As a regular expression for full names it would fit none."""
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_model), get_peft_config(LoraArguments(lora_target_modules=["q_proj"]))
    )
    adapted = {name for name, _ in model.named_parameters() if ".lora_" in name}
    assert adapted and all(".q_proj." in name for name in adapted)


def test_the_expression_of_a_model_file_stays_one():
    [pattern] = read_model_file(ROOT / "configs/models/gemma-3-4b-it.yaml").sft["lora_target_modules"]
    assert LoraArguments(lora_target_modules=[pattern]).lora_target_modules == pattern


def test_transformers_draws_no_bar_beside_ours(tmp_path: Path):
    assert TeachingConfig(output_dir=str(tmp_path)).disable_tqdm is True


SETTINGS = {"model_name_or_path": "some/model", "train_file": "x.jsonl", "output_dir": "out", "lora_r": 4}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"learning_rat": 1}, "unknown setting 'learning_rat'"),
        ({"learning_rate": "fast"}, "learning_rate 'fast': give a valid number"),
        ({"learning_rate": [1e-4]}, r"learning_rate \[0.0001\]: give a valid number"),
        ({"learning_rate": -1e-4}, "learning_rate -0.0001: give a number above 0"),
        ({"learning_rate": float("nan")}, "learning_rate nan: give a finite number"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size 0: give a number from 1 on"),
        ({"per_device_train_batch_size": 2.0}, "per_device_train_batch_size 2.0: give a valid integer"),
        ({"per_device_train_batch_size": True}, "per_device_train_batch_size True: give a valid integer"),
        ({"num_train_epochs": 0}, "num_train_epochs 0: give a number above 0"),
        ({"warmup_steps": -1}, "warmup_steps -1: give a number from 0 on"),
        ({"lora_dropout": 1}, "lora_dropout 1: give a number from 0 on below 1"),
        ({"optim": "nonsense"}, "optim 'nonsense': give one of adamw_torch"),
        ({"lr_scheduler_type": "up"}, "lr_scheduler_type 'up': give one of linear"),
        ({"lr_scheduler_kwargs": {"power": "x", "z": 1}}, "unexpected keyword argument"),
        ({"eval_strategy": False}, "eval_strategy False: give one of no, .*put a text in quotes"),
        (
            {"attn_implementation": "kernels-community/x"},
            "attn_implementation .*: give one of eager",
        ),
        ({"report_to": "all"}, "report_to 'all': give one of wandb, none"),
        ({"bf16": "perhaps"}, "bf16 'perhaps': give a valid boolean"),
        ({"debug": "everything"}, "argument --debug: invalid"),
        ({"load_best_model_at_end": True}, "load_best_model_at_end"),
        ({"lora_task_type": "X"}, "Invalid task type"),
        ({"save_strategy": "epoch", "eval_strategy": "no", "load_best_model_at_end": True}, "load_best_model_at_end"),
        ({"push_to_hub": True}, "push_to_hub True: it uploads"),
        ({"keep_steps": [2, 0]}, r"keep_steps \[2, 0\]: give optimiser steps, whole numbers from 1 on"),
        ({"keep_steps": []}, r"keep_steps \[\]: give optimiser steps"),
        ({"keep_steps": [True]}, r"keep_steps \[True\]: give a valid integer"),
        ({"keep_steps": [2, 9], "max_steps": 8}, "keep_steps 9: the training ends at step 8"),
        ({"layers": "some"}, "layers 'some': give 'first N', 'last N' or 'LOW-HIGH'"),
        ({"layers": "first 0"}, "layers 'first 0': an adapter needs at least one layer"),
        ({"layers": "first 2", "adapter": "a"}, "layers 'first 2': .* goes on from a; leave one of the two out"),
        ({"frozen_adapter": "f", "adapter": "a"}, "frozen_adapter 'f': .* goes on from a"),
        ({"layers": "first 1", "lora_target_modules": [r".*\.q_proj"]}, "is a regular expression, which says itself"),
        ({"chat_template_path": "x.jinja"}, "chat_template_path x.jinja: the template is the model's own"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_value_that_no_training_takes_is_found_without_one(change: dict[str, Any], says: str):
    with pytest.raises(InputError, match=says) as caught:
        check_training({**SETTINGS, **change})
    assert "\n" not in str(caught.value)


def test_layers_are_held_against_the_model_that_is_there(tiny_model: Path):
    with pytest.raises(InputError, match=r"layers 'first 3': the model has 2 layers; give 0 to 2"):
        check_training({**SETTINGS, "model_name_or_path": str(tiny_model), "layers": "first 3"})
    check_training({**SETTINGS, "model_name_or_path": str(tiny_model), "layers": "last 2"})
    check_training({**SETTINGS, "layers": "first 3"})  # a model on the Hub is not asked for


def test_steps_to_keep_are_in_order_and_each_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    (tmp_path / "sft.yaml").write_text(yaml.safe_dump({"keep_steps": [50, 25, 50]}))
    assert parsed(monkeypatch, "--config", str(tmp_path / "sft.yaml"))[0].keep_steps == [25, 50]
    assert parsed(monkeypatch, "--keep_steps", "50", "25")[0].keep_steps == [25, 50]
    assert parsed(monkeypatch)[0].keep_steps is None


def test_looking_at_settings_leaves_the_process_as_it_was():
    """A launcher looks at them, whose children inherit its environment."""
    environment = dict(os.environ)
    check_training({**SETTINGS, "bf16": True, "tf32": True, "env": {"WANDB_DIR": "x"}, "warmup_steps": 0.03})
    assert dict(os.environ) == environment and not PartialState._shared_state


def test_the_command_line_is_held_to_the_same_ranges(monkeypatch: pytest.MonkeyPatch):
    for option, value in (("--learning_rate", "-1"), ("--per_device_train_batch_size", "0"), ("--lora_r", "x")):
        with pytest.raises(InputError, match=option.strip("-")) as caught:
            parsed(monkeypatch, option, value)
        assert "\n" not in str(caught.value)
