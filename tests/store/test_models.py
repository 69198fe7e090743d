"""What a model is called elsewhere, what its fingerprint sees, and which adapters it takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from store.checkpoints import ADAPTER
from store.files import read_json, write_json
from store.lora import ADAPTER_CONFIG, adapter_hash
from store.manifests import BaseModelRecord, ExampleFacts, ModelFacts, TrainingFacts
from store.models import check_adapter, fingerprint, model_folder, published_name, template_hash
from store.stages import Stage
from store.tensors import SAMPLE, read_table
from support import make_adapter
from task.errors import InputError


def test_a_model_is_never_named_by_its_path(tmp_path: Path):
    assert published_name("Qwen/Qwen3-4B", tmp_path) == "Qwen/Qwen3-4B"
    for name, known in (("fetched", "HuggingFaceTB/SmolLM2-135M-Instruct"), ("made", None)):
        Stage(tmp_path / name, {}).finish(ModelFacts(model=known))
        assert published_name(str(tmp_path / name), tmp_path / name) == (known or "made")
    (tmp_path / "plain").mkdir()
    assert published_name(str(tmp_path / "plain"), tmp_path / "plain") == "plain"


def test_weights_as_a_pickle_are_no_model(tiny_model: Path, tmp_path: Path):
    pickled = shutil.copytree(tiny_model, tmp_path / "model")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no \*\.safetensors in this model folder; only safetensors weights"):
        model_folder(str(pickled))


def test_another_chat_template_is_another_hash(tmp_path: Path):
    config = tmp_path / "tokenizer_config.json"
    assert template_hash(tmp_path) is None
    config.write_text('{"pad_token": "x"}')
    assert template_hash(tmp_path) is None
    config.write_text('{"chat_template": "one"}')
    one = template_hash(tmp_path)
    config.write_text('{"pad_token": "x", "chat_template": "one"}')
    assert one == template_hash(tmp_path) and one is not None
    (tmp_path / "chat_template.jinja").write_text("two")
    assert template_hash(tmp_path) not in (None, one), "a file of its own prevails"


def grow(name: str) -> Callable[[Path], object]:
    """Adds a blank to a file of a model folder."""
    return lambda folder: (folder / name).write_text((folder / name).read_text() + " ")


def zero(name: str, begin: float, end: float) -> Callable[[Path], object]:
    """Zeroes part of a tensor, which is all that can be lost of it without a look at every byte."""

    def spoil(folder: Path) -> None:
        file = folder / "model.safetensors"
        tensor, content = read_table(file)[name], bytearray(file.read_bytes())
        size = tensor.end - tensor.begin
        first, last = tensor.begin + int(begin * size), tensor.begin + int(end * size)
        content[first:last] = bytes(last - first)
        file.write_bytes(content)

    return spoil


BIG, SMALL = "model.embed_tokens.weight", "model.layers.1.mlp.down_proj.weight"

EDITS: dict[str, Callable[[Path], object]] = {
    "configuration": grow("config.json"),
    "generation": grow("generation_config.json"),
    "tokenizer": grow("tokenizer.json"),
    "tokenizer's settings": grow("tokenizer_config.json"),
    "chat template": grow("chat_template.jinja"),
    "a new file of the tokenizer": lambda folder: (folder / "added_tokens.json").write_text("{}"),
    "first half of a tensor": zero(BIG, 0, 0.5),
    "second half": zero(BIG, 0.5, 1),
    "middle": zero(BIG, 0.4, 0.6),
    "all of a small tensor but its ends": zero(SMALL, 0.1, 0.9),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_fingerprint_sees_every_file_and_every_tensor(tiny_model: Path, tmp_path: Path, edit: str):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    before = fingerprint(model)
    (model / "README.md").write_text("says nothing to a model")
    assert fingerprint(model) == before == fingerprint(tiny_model), "neither the place nor other files"
    EDITS[edit](model)
    assert fingerprint(model) != before


def test_the_tensors_of_the_edits_are_sampled_and_read_whole(tiny_model: Path):
    sizes = {name: t.end - t.begin for name, t in read_table(tiny_model / "model.safetensors").items()}
    assert sizes[BIG] > 100 * SAMPLE and sizes[SMALL] <= 3 * SAMPLE


def test_a_model_folder_that_lacks_something_is_one_clear_line(tiny_model: Path, tmp_path: Path):
    model = shutil.copytree(tiny_model, tmp_path / "model")
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(InputError, match=r"model\.safetensors: no whole safetensors file"):
        fingerprint(model)
    write_json(model / "model.safetensors.index.json", {"weight_map": {"a": "model-2.safetensors"}})
    with pytest.raises(InputError, match=r"model-2\.safetensors: no whole safetensors file"):
        fingerprint(model)
    write_json(model / "model.safetensors.index.json", {"weight_map": ["a"]})
    with pytest.raises(InputError, match="no weight_map from tensors to files"):
        fingerprint(model)
    (model / "config.json").unlink()
    with pytest.raises(InputError, match=r"no config\.json in this model folder"):
        fingerprint(model)


@pytest.fixture(scope="module")
def made(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the tiny model that PEFT made, without a manifest."""
    return make_adapter(tiny_model, tmp_path_factory.mktemp("adapters") / "made", seed=0)


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    """A copy of it to spoil."""
    return shutil.copytree(made, tmp_path / "adapter")


def change(adapter: Path, **values: Any) -> None:
    """Set keys of an adapter's configuration."""
    write_json(adapter / ADAPTER_CONFIG, {**read_json(adapter / ADAPTER_CONFIG), **values})


def refusal(adapter: Path, base: Path, name: str | None = None) -> str:
    """The one line with which an adapter is refused."""
    with pytest.raises(InputError) as caught:
        check_adapter(adapter, base, name or str(base))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3'"),
        ({"peft_type": "PROMPT_TUNING"}, "peft_type 'PROMPT_TUNING'"),
        ({"use_dora": True}, "use_dora True"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern {'q_proj': 4}"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern {'q_proj': 4}"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save ['lm_head']"),
        ({"bias": "all"}, "bias 'all'"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights 'pissa_niter_4', which changes the base model"),
    ],
)
def test_another_kind_of_adapter_than_plain_lora_is_one_clear_line(
    adapter: Path, tiny_model: Path, values: dict[str, Any], says: str
):
    check_adapter(adapter, tiny_model, str(tiny_model))
    change(adapter, **values)
    found = refusal(adapter, tiny_model)
    assert found == f"{adapter}: {says}; only plain LoRA is trained and measured here: train one without it"


FIRST = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"

Tensors = dict[str, Any]


def lost(tensors: Tensors) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name != FIRST}


def without_prefix(tensors: Tensors) -> Tensors:
    return {name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}


def of_another_model(tensors: Tensors) -> Tensors:
    return {name.replace("model.layers", "transformer.h"): tensor for name, tensor in tensors.items()}


SPOILT: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "names of another model": (of_another_model, "down_proj.lora_A.weight' and 11 more are in this file and no LoRA"),
    "PEFT's prefix lost": (without_prefix, "'model.layers.0.mlp.down_proj.lora_A.weight' and 11 more are in this file"),
    "a tensor of the base": (
        lambda t: {**t, "base_model.model.model.norm.weight": t[FIRST][0].clone()},
        "'base_model.model.model.norm.weight' is in this file and no LoRA tensor of that base model",
    ),
    "the embeddings, as PEFT saves them": (
        lambda t: {**t, "base_model.model.model.embed_tokens.weight": t[FIRST][0].clone()},
        "save it again with PEFT (save_embedding_layers=False)",
    ),
    "a tensor lost": (lost, f"{FIRST!r} is missing of 12"),
    "none left": (lambda t: {}, f"{FIRST!r} and 11 more are missing of 12"),
    "another rank": (lambda t: {**t, FIRST: t[FIRST][:2]}, "lora_A.weight' is of shape (2, 64), not (4, 64)"),
    "the other way round": (
        lambda t: {**t, FIRST: t[FIRST].T.contiguous()},
        "lora_A.weight' is of shape (64, 4), not (4, 64)",
    ),
    "whole numbers": (lambda t: {**t, FIRST: t[FIRST].long()}, "lora_A.weight' is of type I64, not F64, F32"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_only_lora_tensors_all_of_them_each_in_its_place(adapter: Path, tiny_model: Path, kind: str):
    spoil, says = SPOILT[kind]
    save_file(spoil(load_file(adapter / ADAPTER)), adapter / ADAPTER)
    assert says in refusal(adapter, tiny_model)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"r": 8}, "is of shape (4, 32), not (8, 32)"),
        ({"r": "4"}, "r: Input should be a valid integer"),
        ({"r": 0}, "r: Input should be greater than or equal to 1"),
        ({"lora_alpha": None}, "lora_alpha: Input should be a valid number"),
        ({"target_modules": ["q_proj"]}, "and 7 more are in this file and no LoRA tensor"),
        ({"target_modules": ["q_proj", "v_proj", "down_proj", "up_proj"]}, "and 3 more are missing of 16"),
        ({"target_modules": ["c_attn"]}, "no adapter of the model in"),
        ({"target_modules": "("}, "no adapter of the model in"),
        ({"layers_to_transform": [0]}, "and 5 more are in this file"),
    ],
    ids=str,
)
def test_a_configuration_that_is_not_of_its_tensors(adapter: Path, tiny_model: Path, values: dict[str, Any], says: str):
    change(adapter, **values)
    assert says in refusal(adapter, tiny_model)


def test_the_hash_is_of_the_tensors_and_of_what_counts_in_the_configuration(adapter: Path):
    before = adapter_hash(adapter)
    change(adapter, peft_version="1", inference_mode=False, base_model_name_or_path="elsewhere", revision="x")
    change(adapter, target_modules=["v_proj", "down_proj", "q_proj"])
    assert adapter_hash(adapter) == before, "neither the order of a set nor what changes no number"
    seen = {before}
    alpha = read_json(adapter / ADAPTER_CONFIG)["lora_alpha"]
    for values in ({"lora_alpha": 10 * alpha}, {"use_rslora": True}, {"fan_in_fan_out": True}, {"lora_dropout": 0.1}):
        change(adapter, **values)
        seen.add(adapter_hash(adapter))
    assert len(seen) == 5
    save_file({name: 2 * tensor for name, tensor in load_file(adapter / ADAPTER).items()}, adapter / ADAPTER)
    assert adapter_hash(adapter) not in seen


def test_the_base_of_an_adapter_is_told_by_its_manifest_or_its_name(adapter: Path, tiny_model: Path):
    assert "trained on the base model" in refusal(adapter, tiny_model, "another/name")

    def finish(found: str) -> None:
        record = BaseModelRecord(name="a/name", revision=None, fingerprint=found)
        (adapter / "manifest.json").unlink(missing_ok=True)
        files = {p: p.read_bytes() for p in adapter.iterdir()}
        shutil.rmtree(adapter)
        counts = ExampleFacts(train=1, validation=0)
        Stage(adapter, {}).finish(TrainingFacts(base=record, counts=counts, steps=1, metrics={}))
        for path, content in files.items():
            path.write_bytes(content)

    finish(fingerprint(tiny_model))
    check_adapter(adapter, tiny_model, "another/name")
    finish("v2-0123456789abcdef")
    assert "trained on the base model 'a/name', not on" in refusal(adapter, tiny_model)
    finish("e7c1a4b37ac8fedf")
    assert "by a fingerprint of an earlier version, which said less; train it again" in refusal(adapter, tiny_model)


def test_files_that_are_no_adapter_are_one_clear_line(adapter: Path, tiny_model: Path):
    whole = (adapter / ADAPTER).read_bytes()
    for content in (b"", whole[:-1], whole[:20], (1 << 62).to_bytes(8, "little") + whole[8:]):
        (adapter / ADAPTER).write_bytes(content)
        assert f"{adapter / ADAPTER}: no whole safetensors file" in refusal(adapter, tiny_model)
    (adapter / ADAPTER_CONFIG).write_text(json.dumps(["r", 4]))
    assert "no JSON object" in refusal(adapter, tiny_model)
    (adapter / ADAPTER).unlink()
    assert "no adapter here" in refusal(adapter, tiny_model)
