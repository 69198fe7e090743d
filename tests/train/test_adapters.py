"""What a training leaves: an adapter of the embeddings too is nothing but what was trained, and loads as it is."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from store.checkpoints import ADAPTER
from store.files import read_json, write_json
from train.adapters import drop_base_weights, not_learned, order_names


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


def saved(folder: Path, **tensors: torch.Tensor) -> Path:
    """An adapter of one layer, trained unless said otherwise."""
    trained = {"lora_A": torch.ones(2, 3), "lora_B": torch.ones(3, 2), **tensors}
    folder.mkdir()
    save_file({f"base_model.model.layer.{name}.weight": t for name, t in trained.items()}, folder / ADAPTER)
    return folder / ADAPTER


@pytest.mark.parametrize(
    ("tensors", "rate", "says"),
    [
        (
            {"lora_B": torch.zeros(3, 2)},
            1e-4,
            "1 of 1 factors of the adapter are still zero (base_model.model.layer.lora_B",
        ),
        (
            {"lora_B": torch.zeros(3, 2)},
            1e-4,
            "layers are frozen or take no part in the answer, or learning_rate 0.0001",
        ),
        ({"lora_B": torch.zeros(3, 2)}, 0.0, "learning_rate is 0; give one above 0"),
        ({"lora_embedding_A": torch.zeros(2, 3)}, 1e-4, "1 of 2 factors"),
        ({"lora_A": torch.full((2, 3), torch.nan)}, 0.1, "1 of 2 tensors of the adapter are not finite"),
        ({"lora_A": torch.full((2, 3), 1e30)}, 0.1, "learning_rate 0.1 is too high"),
    ],
)
def test_an_adapter_that_learned_nothing_is_told(
    tmp_path: Path, tensors: dict[str, torch.Tensor], rate: float, says: str
):
    assert says in (not_learned(saved(tmp_path / "a", **tensors), None, rate) or "")


def test_an_adapter_that_is_still_the_one_it_began_with_is_told(tmp_path: Path):
    start = saved(tmp_path / "start")
    assert not_learned(start, None, 1e-4) is None
    for name, tensor in (("same", torch.ones(3, 2)), ("half", torch.ones(3, 2, dtype=torch.bfloat16))):
        assert f"still that of {tmp_path / 'start'}" in (
            not_learned(saved(tmp_path / name, lora_B=tensor), start, 1e-4) or ""
        )
    assert not_learned(saved(tmp_path / "moved", lora_B=torch.full((3, 2), 1.01)), start, 1e-4) is None


def test_the_names_of_a_configuration_are_in_order(tmp_path: Path):
    config = {"r": 4, "target_modules": ["v_proj", "k_proj", "q_proj"], "exclude_modules": None, "base": "a"}
    write_json(tmp_path / "config.json", config)
    order_names(tmp_path / "config.json")
    assert read_json(tmp_path / "config.json") == {**config, "target_modules": ["k_proj", "q_proj", "v_proj"]}
    before = (tmp_path / "config.json").read_bytes()
    order_names(tmp_path / "config.json")
    assert (tmp_path / "config.json").read_bytes() == before
