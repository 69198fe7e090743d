"""Derived adapters: sums of adapters by layer and matrix, against PEFT's own and against summed weight matrices."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from pydantic import ValidationError
from random_adapters import derived, loaded, logits_of, random_adapter
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from store.checkpoints import ADAPTER
from store.derived import Part, layers_named
from store.files import read_json
from store.models import changes_nothing, check_adapter
from task.errors import InputError


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two adapters of different rank, scaling and matrices."""
    folder = tmp_path_factory.mktemp("adapters")
    one = random_adapter(tiny_model, folder / "one", 1, lora_alpha=6)
    modules = ["embed_tokens", "v_proj", "q_proj"]
    return one, random_adapter(tiny_model, folder / "two", 2, r=3, use_rslora=True, target_modules=modules)


def changes(model: Path, adapter: Path) -> dict[str, Tensor]:
    """By how much an adapter changes each weight of the model, as PEFT merges it."""
    before = dict(loaded(model, None).named_parameters())
    merged = loaded(model, adapter).merge_and_unload()
    return {n: (p - before[n]).detach() for n, p in merged.named_parameters()}


def test_a_sum_changes_each_weight_by_the_summed_changes(tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path):
    one, two = adapters
    folder = derived(tiny_model, tmp_path / "sum", (one, [{"weight": 0.5}]), (two, [{"weight": -2}]))
    apart = changes(tiny_model, one), changes(tiny_model, two)
    found = changes(tiny_model, folder)
    assert sum(bool(change.any()) for change in found.values()) == 7  # q, v, down of two layers, and the embeddings
    for name, change in found.items():
        torch.testing.assert_close(change, 0.5 * apart[0][name] - 2 * apart[1][name], atol=1e-5, rtol=0)


def test_a_sum_answers_as_the_one_that_peft_makes(tiny_model: Path, tmp_path: Path):
    modules = ["q_proj", "down_proj"]  # PEFT sums adapters of the embeddings, too, but only of one rank
    one = random_adapter(tiny_model, tmp_path / "one", 1, target_modules=modules)
    two = random_adapter(tiny_model, tmp_path / "two", 2, r=3, target_modules=modules)
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), one, adapter_name="one")
    model.load_adapter(two, "two")
    model.add_weighted_adapter(["one", "two"], [0.7, -0.3], "sum", combination_type="cat")
    model.set_adapter("sum")
    folder = derived(tiny_model, tmp_path / "sum", (one, [{"weight": 0.7}]), (two, [{"weight": -0.3}]))
    torch.testing.assert_close(logits_of(loaded(tiny_model, folder)), logits_of(model), atol=1e-5, rtol=1e-5)


def test_dose_0_is_the_base_and_dose_1_the_arm(tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path):
    none = derived(tiny_model, tmp_path / "none", (adapters[0], [{"weight": 0}]))
    same = derived(tiny_model, tmp_path / "same", (adapters[0], [{"weight": 1}]))
    base, arm = logits_of(loaded(tiny_model, None)), logits_of(loaded(tiny_model, adapters[0]))
    assert not torch.allclose(base, arm, atol=1e-2)
    torch.testing.assert_close(logits_of(loaded(tiny_model, none)), base, atol=0, rtol=0)
    torch.testing.assert_close(logits_of(loaded(tiny_model, same)), arm, atol=1e-5, rtol=1e-5)
    assert {*load_file(none / ADAPTER)} == {*load_file(adapters[0] / ADAPTER)}, "zeros are written, too"


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        ({"layers": "first 1"}, {"layers.0.self_attn.q_proj", "layers.0.mlp.down_proj"}),
        ({"layers": "last 1", "matrices": ["*_proj"]}, {"layers.1.self_attn.q_proj", "layers.1.mlp.down_proj"}),
        ({"layers": "0-1", "matrices": ["q_proj"]}, {"layers.0.self_attn.q_proj", "layers.1.self_attn.q_proj"}),
        ({"matrices": ["layers.1.mlp.down_proj"]}, {"layers.1.mlp.down_proj"}),
        ({"matrices": ["embed_tokens"]}, {"embed_tokens"}),
    ],
)
def test_a_part_takes_the_matrices_that_it_names(
    tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path, part: dict, kept: set[str]
):
    whole = changes(tiny_model, adapters[0])
    found = changes(tiny_model, derived(tiny_model, tmp_path / "part", (adapters[0], [part])))
    assert {n.removeprefix("model.").removesuffix(".weight") for n, c in found.items() if c.any()} == kept
    for name, change in found.items():
        if change.any():
            torch.testing.assert_close(change, whole[name], atol=1e-6, rtol=0)


def test_parts_that_cover_one_matrix_add_up(tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path):
    parts = [{"weight": 0.25}, {"weight": 0.5, "layers": "first 1"}]
    found = changes(tiny_model, derived(tiny_model, tmp_path / "parts", (adapters[0], parts)))
    whole = changes(tiny_model, adapters[0])
    for layer, weight in enumerate((0.75, 0.25)):
        name = f"model.layers.{layer}.self_attn.q_proj.weight"
        torch.testing.assert_close(found[name], weight * whole[name], atol=1e-6, rtol=0)


def test_a_derived_adapter_can_be_derived_from(tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path):
    half = derived(tiny_model, tmp_path / "half", (adapters[0], [{"weight": 0.5}]))
    again = derived(tiny_model, tmp_path / "again", (half, [{"weight": 2}]))
    torch.testing.assert_close(
        logits_of(loaded(tiny_model, again)), logits_of(loaded(tiny_model, adapters[0])), atol=1e-5, rtol=1e-5
    )


def test_a_cut_below_the_first_layer_leaves_nothing_and_is_dose_0(
    tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path
):
    """Both ends of a sweep, and a cut through layers in which an adapter has no matrix."""
    early = random_adapter(tiny_model, tmp_path / "early", 3, layers_to_transform=[0], target_modules=["q_proj"])
    base = logits_of(loaded(tiny_model, None))
    for name, adapter, layers in (
        ("below", adapters[0], "first 0"),
        ("above", adapters[0], "last 0"),
        ("late", early, "last 1"),
    ):
        folder = derived(tiny_model, tmp_path / name, (adapter, [{"layers": layers}]))
        torch.testing.assert_close(logits_of(loaded(tiny_model, folder)), base, atol=0, rtol=0)
        assert changes_nothing(folder)
    whole = derived(tiny_model, tmp_path / "whole", (early, [{"layers": "first 1"}]))
    torch.testing.assert_close(logits_of(loaded(tiny_model, whole)), logits_of(loaded(tiny_model, early)))


def test_a_sum_with_an_adapter_of_fewer_matrices(tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path):
    early = random_adapter(
        tiny_model, tmp_path / "early", 3, layers_to_transform=[0], target_modules=["q_proj", "o_proj"]
    )
    folder = derived(tiny_model, tmp_path / "sum", (early, [{}]), (adapters[1], [{}]))
    apart = changes(tiny_model, early), changes(tiny_model, adapters[1])
    for name, change in changes(tiny_model, folder).items():
        torch.testing.assert_close(change, apart[0][name] + apart[1][name], atol=1e-5, rtol=0)
    check_adapter(folder, tiny_model, str(tiny_model))


def test_the_rank_is_that_of_the_adapters_that_take_part(tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path):
    one, two = adapters
    ranks = [
        read_json(derived(tiny_model, tmp_path / str(i), (one, a), (two, b)) / "adapter_config.json")["r"]
        for i, (a, b) in enumerate(
            [
                ([{}], [{}]),
                ([{"matrices": ["down_proj"]}], [{}]),
                ([{"layers": "first 1"}], [{"layers": "last 1"}]),
            ]
        )
    ]
    assert ranks == [7, 4, 4]


def test_what_cannot_be_derived_is_refused_by_name(tiny_model: Path, adapters: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(InputError, match=r"layers '1-2'.*has layers 0 to 1"):
        derived(tiny_model, tmp_path / "far", (adapters[0], [{"layers": "1-2"}]))
    with pytest.raises(InputError, match=r"no matrix is called qproj; it has model.embed_tokens and 4 others"):
        derived(tiny_model, tmp_path / "misspelt", (adapters[0], [{"matrices": ["qproj"]}]))
    with pytest.raises(ValidationError, match="stands twice"):
        derived(tiny_model, tmp_path / "twice", (adapters[0], [{}]), (adapters[0], [{}]))
    for layers in ("first", "3", "4-", "-1", "first -1"):
        with pytest.raises(ValidationError, match="give 'first N', 'last N' or 'LOW-HIGH'"):
            Part(layers=layers)
    with pytest.raises(ValueError, match="give 0 to 4"):
        layers_named("last 5", 4)
