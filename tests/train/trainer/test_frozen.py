"""A new adapter beside a frozen one: against the sum of both, and against a base that holds the frozen one."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import PeftModel, get_peft_model
from random_adapters import derived, loaded, logits_of, random_adapter
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed

from store.checkpoints import ADAPTER, kept_adapter
from store.lora import adapter_hash
from store.models import check_adapter
from task.errors import InputError
from teaching import command, left_by, manifest_of, settings
from train import sft
from train.arguments import LoraArguments
from train.probes import diagnose
from train.trainer.build import new_adapter
from train.trainer.frozen import FROZEN, FrozenStays, backbone_alone, beside_frozen, frozen_hash
from train.trainer.letters import LetterTrainer

FEW = {
    **{"max_steps": 4, "per_device_train_batch_size": 2, "eval_steps": 2, "lr_scheduler_type": "constant"},
    **{"share_prefixes": 2, "letter_only": True, "keep_steps": [3], "lora_target_modules": ["q_proj", "v_proj"]},
    **{"load_best_model_at_end": True, "metric_for_best_model": "letter_loss"},
}


class Trained(NamedTuple):
    folder: Path
    trainer: LetterTrainer


def teach(output: Path, model: Path, examples: Path, **more: Any) -> Trained:
    """Carries out a training in this process."""
    trainers = []

    def build(*arguments: Any) -> LetterTrainer:
        trainers.append(build_trainer(*arguments))
        return trainers[-1]

    build_trainer = sft.build_trainer
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", command(settings(model, examples, output, **{**FEW, **more}), []))
        patch.setattr(sft, "build_trainer", build)
        sft.main()
    return Trained(output, trainers[0])


@pytest.fixture(scope="module")
def frozen(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the embeddings, too, with a scaling and a dropout of its own."""
    folder = tmp_path_factory.mktemp("frozen") / "arm"
    return random_adapter(tiny_model, folder, 1, r=3, lora_alpha=5, use_rslora=True, lora_dropout=0.3)


@pytest.fixture(scope="module")
def fresh(tiny_model: Path, examples: Path, frozen: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    output = tmp_path_factory.mktemp("fresh") / "alone"
    before = adapter_hash(frozen)
    trained = teach(output, tiny_model, examples, frozen_adapter=str(frozen))
    assert adapter_hash(frozen) == before
    return trained


def test_the_sum_of_both_says_what_the_trained_model_says(
    fresh: Trained, frozen: Path, tiny_model: Path, tmp_path: Path
):
    both = derived(tiny_model, tmp_path / "both", (fresh.folder, [{}]), (frozen, [{}]))
    wanted = logits_of(fresh.trainer.model)
    torch.testing.assert_close(logits_of(loaded(tiny_model, both)), wanted, atol=1e-5, rtol=1e-5)
    for part in (frozen, fresh.folder):
        assert (logits_of(loaded(tiny_model, part)) - wanted).abs().max() > 1e-2


def test_what_is_saved_is_the_new_adapter_alone(fresh: Trained, frozen: Path, tiny_model: Path):
    check_adapter(fresh.folder, tiny_model, str(tiny_model))
    for folder in (fresh.folder, kept_adapter(fresh.folder, 3)):
        assert {name.split(".")[-3] for name in load_file(folder / ADAPTER)} == {"q_proj", "v_proj"}
        assert not (folder / FROZEN).exists()
    manifest = manifest_of(fresh.folder)
    assert manifest.depends_on["frozen_adapter"] == adapter_hash(frozen) and manifest.depends_on["adapter"] is None
    assert manifest.facts.kept is not None and manifest.facts.kept_steps == [3]


def test_the_backbone_is_the_frozen_arm(fresh: Trained, frozen: Path, tiny_model: Path, examples: Path):
    model = fresh.trainer.model
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable and all(".default." in name for name in trainable)
    whole, hashed = logits_of(model), frozen_hash(model)
    with backbone_alone(model):
        torch.testing.assert_close(logits_of(model), logits_of(loaded(tiny_model, frozen)), atol=1e-6, rtol=1e-6)
    assert torch.equal(logits_of(model), whole) and frozen_hash(model) == hashed
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trainable


def test_the_probes_ask_the_frozen_arm(
    fresh: Trained, frozen: Path, tiny_model: Path, examples: Path, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    monkeypatch.setattr("train.probes.ask", lambda model, *_: asked.append(logits_of(model)) or dict.fromkeys("x", 1.0))
    monkeypatch.setattr("train.probes.missing_skill", lambda *_: None)
    diagnose(fresh.trainer, {}, str(examples / "contexts.jsonl"), 0, 2)
    torch.testing.assert_close(asked[0], logits_of(loaded(tiny_model, frozen)), atol=1e-6, rtol=1e-6)


class Kill(BaseException):
    """What ends a training at once."""


def test_killed_and_resumed_it_ends_the_same(
    fresh: Trained,
    frozen: Path,
    tiny_model: Path,
    examples: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    save = LetterTrainer._save_checkpoint

    def saved(self: LetterTrainer, *rest: Any) -> None:
        save(self, *rest)
        raise Kill

    with monkeypatch.context() as patch, pytest.raises(Kill):
        patch.setattr(LetterTrainer, "_save_checkpoint", saved)
        teach(tmp_path / "killed", tiny_model, examples, frozen_adapter=str(frozen))
    assert not (tmp_path / "killed" / "checkpoint-2" / FROZEN).exists()
    again = teach(tmp_path / "killed", tiny_model, examples, frozen_adapter=str(frozen))
    assert "checkpoint-2" in capsys.readouterr().err
    assert left_by(again.folder) == left_by(fresh.folder)


def test_it_learns_what_it_would_on_a_base_that_holds_the_frozen_adapter(
    tiny_model: Path, examples: Path, tmp_path: Path
):
    """Folded into float32 weights, without embeddings, the frozen adapter is the same backbone to rounding."""
    frozen = random_adapter(tiny_model, tmp_path / "frozen", 2, target_modules=["q_proj", "down_proj"])
    folded = tmp_path / "folded"
    PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(tiny_model), frozen
    ).merge_and_unload().save_pretrained(folded)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folded)
    one = teach(tmp_path / "one", tiny_model, examples, frozen_adapter=str(frozen))
    two = teach(tmp_path / "two", folded, examples)
    found, wanted = (load_file(trained.folder / ADAPTER) for trained in (one, two))
    assert found.keys() == wanted.keys()
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, wanted[name], atol=1e-4, rtol=0)


def begun_on(model: Path, frozen: Path | None, seed: int = 0) -> dict[str, torch.Tensor]:
    """The tensors of a new adapter before its first step, without the names of what it is beside."""
    base = AutoModelForCausalLM.from_pretrained(model)
    lora = LoraArguments(model_name_or_path=str(model), lora_r=2)
    torch.manual_seed(99)
    if frozen is None:
        set_seed(seed)  # as TRL does
        adapted = get_peft_model(base, new_adapter(lora, base, "first 1"))
    else:
        adapted = beside_frozen(base, new_adapter(lora, base, "first 1"), frozen, seed, True)
    return {name: parameter for name, parameter in adapted.named_parameters() if ".default." in name}


def test_a_new_adapter_begins_the_same_on_every_backbone(tiny_model: Path, frozen: Path, tmp_path: Path):
    """Whatever matrices, rank and scaling the frozen one has; without one, as TRL makes it."""
    other = random_adapter(tiny_model, tmp_path / "other", 5, target_modules=["v_proj", "gate_proj"], r=8)
    alone, one, two = (begun_on(tiny_model, backbone) for backbone in (None, frozen, other))
    assert alone.keys() == one.keys() == two.keys() and len(alone) == 14
    assert all(torch.equal(alone[n], one[n]) and torch.equal(one[n], two[n]) for n in alone)
    assert any(not torch.equal(tensor, one[name]) for name, tensor in begun_on(tiny_model, frozen, 1).items())


def test_beside_a_base_in_16_bits_adapters_are_in_32(tiny_model: Path, frozen: Path):
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16)
    lora = LoraArguments(model_name_or_path=str(tiny_model), lora_r=2)
    adapted = beside_frozen(base, new_adapter(lora, base), frozen, 0, True)
    kinds = {parameter.dtype for name, parameter in adapted.named_parameters() if ".lora_" in name}
    assert kinds == {torch.float32} and logits_of(adapted).isfinite().all()
    alone = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.bfloat16), frozen)
    assert torch.equal(logits_of(adapted), logits_of(alone)), "a new adapter changes nothing yet"


def test_a_frozen_adapter_that_changes_is_told(tiny_model: Path, frozen: Path):
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    lora = LoraArguments(model_name_or_path=str(tiny_model), lora_r=2)
    adapted = beside_frozen(base, new_adapter(lora, base), frozen, 0, True)
    watch = FrozenStays()
    watch.on_train_begin(None, None, None, model=adapted)
    watch.on_train_end(None, None, None, model=adapted)
    held = next(p for name, p in adapted.named_parameters() if name.endswith("lora_embedding_B.frozen"))
    with torch.no_grad():
        held[0, 0] += 1e-6
    with pytest.raises(InputError, match="its tensors changed in training"):
        watch.on_train_end(None, None, None, model=adapted)
    held.requires_grad_(True)
    with pytest.raises(InputError, match="1 of its tensors would be trained"):
        watch.on_train_begin(None, None, None, model=adapted)
