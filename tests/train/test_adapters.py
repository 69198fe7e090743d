"""What a training leaves: an adapter of the embeddings too is nothing but what was trained, and loads as it is."""

from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from train.adapters import drop_base_weights


def test_an_adapter_of_the_embeddings_holds_no_base_weights_and_answers_the_same(tiny_model: Path, tmp_path: Path):
    ids = torch.arange(20).reshape(2, 10)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    config = LoraConfig(r=4, target_modules=["embed_tokens", "q_proj"])
    model = get_peft_model(base, config)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    expected = model(ids).logits
    model.save_pretrained(tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    assert any("base_layer" in name for name in load_file(file)), "PEFT saves the embeddings themselves, too"
    drop_base_weights(file)
    tensors = load_file(file)
    assert {name.rsplit(".", 1)[-1] for name in tensors} == {"lora_embedding_A", "lora_embedding_B", "weight"}
    assert all(".lora_" in name for name in tensors)
    again = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), tmp_path)
    torch.testing.assert_close(again(ids).logits, expected)
    before = file.read_bytes()
    drop_base_weights(file)
    assert file.read_bytes() == before
