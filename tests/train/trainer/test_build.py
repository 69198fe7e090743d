"""Where a new adapter goes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from task.errors import InputError
from train.arguments import LORA_TARGETS, LoraArguments
from train.trainer.build import new_adapter, towers_of

TEXT = {
    **{"vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 16},
    **{"num_attention_heads": 2, "num_key_value_heads": 1, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2},
}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}


def config_of(kind: str) -> PreTrainedConfig:
    vision = {**VISION, "image_size": 32, "patch_size": 8}
    if kind == "gemma3":
        return AutoConfig.for_model(kind, text_config=TEXT, vision_config=vision)
    if kind == "gemma4":
        vision = {**VISION, "num_key_value_heads": 2, "head_dim": 8}
        return AutoConfig.for_model(kind, text_config=TEXT, vision_config=vision)
    return AutoConfig.for_model(kind, **TEXT)


def model_of(kind: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config_of(kind), dtype=torch.float32)


def adapted(model: PreTrainedModel, layers: str | None = None, **settings: object) -> set[str]:
    """The matrices that get an adapter."""
    lora = LoraArguments(model_name_or_path="tiny", lora_r=2, **settings)
    found = get_peft_model(model, new_adapter(lora, model, layers))
    return {name.removeprefix("base_model.model.") for name, part in found.named_modules() if hasattr(part, "lora_A")}


@pytest.mark.parametrize("kind", ["gemma3", "gemma4"])
def test_a_vision_tower_gets_no_adapter(kind: str, tmp_path: Path):
    """Its layers are named as the decoder's are, and text never reaches them."""
    model = model_of(kind)
    assert type(model).__name__.endswith("ForConditionalGeneration")
    assert towers_of(model, LORA_TARGETS) == ["model.vision_tower"]
    layers = {f"model.language_model.layers.{n}" for n in range(2)}
    places = {f"self_attn.{name}" for name in LORA_TARGETS[:4]} | {f"mlp.{name}" for name in LORA_TARGETS[4:]}
    assert adapted(model) == {f"{layer}.{place}" for layer in layers for place in places}


def test_the_adapter_of_a_multimodal_model_loads_as_it_was(tmp_path: Path):
    lora = LoraArguments(model_name_or_path="tiny", lora_r=2)
    model = model_of("gemma3")
    trained = get_peft_model(model, new_adapter(lora, model))
    for name, parameter in trained.named_parameters():
        if ".lora_B." in name:
            torch.nn.init.normal_(parameter, std=0.5)
    trained.save_pretrained(tmp_path)
    ids = torch.arange(5, 25).unsqueeze(0)
    again = PeftModel.from_pretrained(model_of("gemma3"), tmp_path)
    torch.testing.assert_close(again(ids).logits, trained(ids).logits)


def test_where_a_regular_expression_says_where_it_goes_there(tmp_path: Path):
    found = adapted(model_of("gemma3"), lora_target_modules=r".*vision_tower.*\.q_proj")
    assert found == {"model.vision_tower.encoder.layers.0.self_attn.q_proj"}


def test_a_text_model_has_no_tower_and_its_head_is_none(tmp_path: Path):
    model = model_of("qwen3")
    assert towers_of(model, [*LORA_TARGETS, "lm_head", "embed_tokens"]) == []
    assert "lm_head" in adapted(model, lora_target_modules=["q_proj", "lm_head"])


@pytest.mark.parametrize(("layers", "number"), [("first 1", 0), ("last 1", 1), ("1-1", 1)])
@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_an_adapter_in_some_layers_has_all_its_matrices_there_and_no_embeddings(kind: str, layers: str, number: int):
    found = adapted(model_of(kind), layers, lora_target_modules=[*LORA_TARGETS, "embed_tokens"])
    assert len(found) == 7 and all(f"layers.{number}." in name for name in found)
    assert not any("vision" in name for name in found)


def test_names_that_say_themselves_where_or_name_nothing_are_refused():
    """PEFT gives a module that is called by its full name a matrix whatever the layers are."""
    for name in ("lm_head", "model.layers.0.self_attn.q_proj"):
        with pytest.raises(InputError, match=f"layers 'last 1': lora_target_modules {name} is one module's full name"):
            adapted(model_of("llama"), "last 1", lora_target_modules=["v_proj", name])
    with pytest.raises(InputError, match=r"lora_target_modules embed_tokens: no such matrix .* in layers 'first 1'"):
        adapted(model_of("llama"), "first 1", lora_target_modules=["embed_tokens"])
    with pytest.raises(InputError, match=r"lora_target_modules qproj: no such matrix"):
        adapted(model_of("llama"), lora_target_modules=["qproj"])
