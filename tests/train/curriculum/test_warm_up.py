"""The warm-up: what it trains on of each kind of item, and a training that goes on where it was stopped."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM

from store.checkpoints import last_complete_checkpoint
from store.contexts import DATA, load_contexts
from store.pretrained import load_tokenizer
from support import SMALL_MODEL
from task.contexts import as_ratings
from task.errors import InputError
from train.curriculum.course import make_model
from train.curriculum.own_words import OwnWords
from train.curriculum.skills import Lessons, WarmUpPart
from train.curriculum.warm_up import KEPT, LEARN, TOLD, WarmUpTrainer, build_trainer
from train.trainer.shared_prefix import IGNORED, shared_log_probs

CURRICULUM = (WarmUpPart(3, 1, told=1.0, compared=0.5, against=(0.0, 0.0)), WarmUpPart(2, 2, told=0.0, compared=0.0))


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    contexts = [replace(as_ratings(c), layout="side_by_side") for c in load_contexts(DATA / "spare.jsonl", 3)]
    said = [{"role": "user", "content": "Is it late?"}, {"role": "assistant", "content": "It is ten to nine."}]
    return Lessons(CURRICULUM, contexts, [OwnWords(said, True)], load_tokenizer(SMALL_MODEL), seed=0)


def trainer_of(
    model: Path, lessons: Lessons, folder: Path, start: Path | None = None, back: float = 0.0
) -> WarmUpTrainer:
    torch.manual_seed(0)
    course = replace(LEARN, learning_rate=1e-3, back=back)
    trainer = build_trainer(model, start or model, lessons, folder, course, bf16=False)
    trainer.args.save_steps = trainer.state.save_steps = 2
    trainer.args.logging_steps = trainer.state.logging_steps = 2
    return trainer


def test_goes_on_to_the_same_model(lessons: Lessons, tiny_model: Path, tmp_path: Path):
    def trained(folder: Path, stop: int | None) -> dict[str, torch.Tensor]:
        trainer = trainer_of(tiny_model, lessons, folder)
        if stop:
            trainer.args.max_steps = stop
            trainer.train()
            trainer = trainer_of(tiny_model, lessons, folder)
        checkpoint = last_complete_checkpoint(folder, weights="model.safetensors")
        assert (checkpoint is not None) == (stop is not None)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        assert trainer.state.global_step == 5
        assert {"deciding", "ending", "agreement", "attributes"} <= {*trainer.state.log_history[0]}
        trainer.model.save_pretrained(folder)
        return load_file(folder / "model.safetensors")

    straight, resumed = trained(tmp_path / "straight", None), trained(tmp_path / "resumed", 2)
    before = load_file(tiny_model / "model.safetensors")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert not torch.equal(straight["model.norm.weight"], before["model.norm.weight"])


def test_the_model_is_saved_in_bfloat16_as_it_was_learned(lessons: Lessons, tiny_model: Path, tmp_path: Path):
    trainer = trainer_of(tiny_model, lessons, tmp_path)
    make_model(tmp_path, {}, False, lambda: (trainer, lessons.tokenizer), 1, dtype=torch.bfloat16)
    saved, learned = load_file(tmp_path / "model.safetensors"), trainer.model.state_dict()
    assert {tensor.dtype for tensor in saved.values()} == {torch.bfloat16}
    assert all(torch.equal(tensor, learned[name]) for name, tensor in saved.items())
    before = load_file(tiny_model / "model.safetensors")["model.embed_tokens.weight"]
    assert not torch.equal(saved["model.embed_tokens.weight"], before.bfloat16())


def test_settling_goes_on_from_one_model_and_stays_near_another(lessons: Lessons, tiny_model: Path, tmp_path: Path):
    tiny = load_file(tiny_model / "model.safetensors")
    warmed = shutil.copytree(tiny_model, tmp_path / "warmed")
    save_file({name: 1.1 * tensor for name, tensor in tiny.items()}, warmed / "model.safetensors", {"format": "pt"})
    name = "model.layers.0.mlp.up_proj.weight"
    for back, scale in ((0.0, 1.1), (0.25, 1.075)):
        trainer = trainer_of(tiny_model, lessons, tmp_path, start=warmed, back=back)
        torch.testing.assert_close(trainer.model.state_dict()[name], scale * tiny[name])
        assert torch.equal(trainer._before.state_dict()[name], tiny[name])


def test_a_model_of_another_shape_cannot_be_settled(lessons: Lessons, tiny_model: Path, tmp_path: Path):
    other = tmp_path / "other"
    LlamaForCausalLM(
        LlamaConfig(vocab_size=8, hidden_size=8, num_attention_heads=2, num_hidden_layers=1)
    ).save_pretrained(other)
    with pytest.raises(
        InputError, match=r"--settle .*other: not of the shape of --model .*; give a model that was warmed up"
    ):
        trainer_of(tiny_model, lessons, tmp_path, start=other)


@pytest.fixture(scope="module")
def trainer(lessons: Lessons, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> WarmUpTrainer:
    """A trainer whose model is no longer the one of before."""
    trainer = trainer_of(tiny_model, lessons, tmp_path_factory.mktemp("warm_up"))
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.mul_(1.1)
    return trainer


def test_a_text_counts_by_how_far_the_model_has_gone(lessons: Lessons, trainer: WarmUpTrainer):
    item = lessons.text(lessons.texts[0])
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, item)
        ids, places = item["input_ids"][0], item["sources"][0]
        now = trainer.model(ids[None]).logits[0, places].log_softmax(-1)
        was = trainer._before(ids[None]).logits[0, places].log_softmax(-1)
        there = trainer.compute_loss(trainer._before, item)
    assert float(loss) == pytest.approx(KEPT * float((was.exp() * (was - now)).sum(-1).mean()), rel=1e-4)
    assert float(loss) > 1e-4
    assert float(there) == pytest.approx(0.0, abs=1e-6)
    assert not any(p.requires_grad for p in trainer._before.parameters())


def test_a_decision_counts_by_its_letter_and_its_end(lessons: Lessons, trainer: WarmUpTrainer):
    item = lessons[0]
    a, b = trainer._letters
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, item)
        found = shared_log_probs(trainer.model, item)
    letters, ends = [], []
    for row, (chance, labels) in enumerate(zip(item["chance_of_a"], item["labels"][:, 1:], strict=True)):
        letters.append(-(chance * found[row, 0, a] + (1 - chance) * found[row, 0, b]))
        ends += [-found[row, place, label] for place, label in enumerate(labels) if place and label != IGNORED]
    expected = torch.stack(letters).mean() + torch.stack(ends).mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-4)


def test_a_report_counts_by_all_its_tokens(lessons: Lessons, trainer: WarmUpTrainer):
    item = lessons.reports(np.random.default_rng(0))
    with torch.no_grad():
        loss = trainer.compute_loss(trainer.model, item)
        found = shared_log_probs(trainer.model, item)
    labels = item["labels"][:, 1:]
    assert float(loss) == pytest.approx(TOLD * float(cross_entropy(found.flatten(0, 1), labels.flatten())), rel=1e-4)
