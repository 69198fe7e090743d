"""Arguments of the training script, as a command line and as a YAML file give them."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from peft import get_peft_model
from transformers import AutoModelForCausalLM
from trl import get_peft_config

from store.model_file import read_model_file
from support import ROOT
from task.errors import InputError
from train.arguments import LORA_TARGETS, LoraArguments, TeachingConfig, asked_settings, parse_arguments

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
