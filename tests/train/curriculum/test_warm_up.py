"""The warm-up: what its lessons ask and how they are answered, and a training that goes on where it was stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from store.checkpoints import last_complete_checkpoint
from store.contexts import DATA, load_contexts
from support import SMALL_MODEL
from task.chat import letter_ids
from task.contexts import as_ratings
from task.errors import InputError
from task.weights import LARGEST, sample_weights
from train.curriculum import warm_up
from train.curriculum.course import RATIONALITY, place_in
from train.curriculum.warm_up import DIRECTIONS, GROUPS, ROWS, LessonGroups, WarmUpPart, build_trainer

CURRICULUM = (
    WarmUpPart(2, 1, told=1.0, against=(0.0, 0.0)),
    WarmUpPart(2, 2, told=1.0),
    WarmUpPart(1, 2, told=0.0),
)


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> LessonGroups:
    """Lessons of three short parts: comparing, told directions, weights of attributes' own."""
    monkeypatch.setattr(warm_up, "CURRICULUM", CURRICULUM)
    contexts = [replace(as_ratings(c), layout="side_by_side") for c in load_contexts(DATA / "spare.jsonl", 3)]
    return LessonGroups(contexts, AutoTokenizer.from_pretrained(SMALL_MODEL), seed=0)


def texts(groups: LessonGroups, group: dict[str, torch.Tensor]) -> list[str]:
    """The prompts of a group, read back from its tree."""
    ids, mask = group["input_ids"][0], group["attention_mask"][0, 0]
    return [groups.tokenizer.decode(ids[mask[source]]) for source in group["sources"][:, 0].tolist()]


def test_lessons_are_answered_by_the_weights_of_their_part(groups: LessonGroups):
    """Held against values, names, directions and weights that are read back from the text of each prompt."""
    own = {
        name: weight / LARGEST
        for context in groups.contexts
        for name, weight in zip(context.attribute_names, sample_weights(0, "warm_up", context), strict=True)
    }
    told = {name + text: float(sign) for name in own for sign, text in DIRECTIONS.items()}
    letter = letter_ids(groups.tokenizer, {})[0]
    weights, signs = set(), set()
    for index in range(len(groups)):
        (part, _), group = place_in(CURRICULUM, index // GROUPS), groups[index]
        prompts = texts(groups, group)
        assert len(prompts) == ROWS
        assert group["labels"].tolist() == [[-100, letter]] * ROWS
        for prompt, chance in zip(prompts, group["chance_of_a"].tolist(), strict=True):
            lines = [line[2:].split(": A ") for line in prompt.split("<|im_end|>")[1].split("\n") if line[:2] == "- "]
            assert len(lines) == part.attributes
            found = [(told if part.told else own)[name] for name, _ in lines]
            values = [[float(value) for value in pair.split(", B ")] for _, pair in lines]
            gain = sum(weight * (a - b) / 100 for weight, (a, b) in zip(found, values, strict=True))
            assert chance == pytest.approx(1 / (1 + np.exp(-RATIONALITY * gain)), abs=1e-6)
            weights.add((index // GROUPS, *(found if part.told else ())))
            signs.add((part, chance > 0.5))
    assert len(signs) == 2 * len(CURRICULUM)
    assert {w[1:] for w in weights if w[0] < 2} == {(1.0,)}
    assert {w[1:] for w in weights if w[0] in (2, 3)} == {(x, y) for x in (-1.0, 1.0) for y in (-1.0, 1.0)}


def test_a_group_is_a_function_of_its_index_and_none_comes_twice(groups: LessonGroups):
    seen = {groups[index]["input_ids"].numpy().tobytes() for index in range(len(groups))}
    assert len(seen) == len(groups)
    assert all(torch.equal(value, groups[3][name]) for name, value in groups[3].items())
    assert not torch.equal(replace(groups, seed=1)[3]["input_ids"], groups[3]["input_ids"])


def test_each_step_has_its_place(groups: LessonGroups):
    compared, told, own = CURRICULUM
    expected = [(compared, 0.0), (compared, 0.5), (told, 0.0), (told, 0.5), (own, 0.0)]
    assert [place_in(CURRICULUM, step) for step in range(5)] == expected
    with pytest.raises(IndexError, match="past the end"):
        place_in(CURRICULUM, 5)


def test_contexts_with_too_few_attributes_are_refused(groups: LessonGroups):
    short = [replace(c, attributes=c.attributes[:1]) for c in groups.contexts]
    with pytest.raises(InputError, match="1 attributes; the curriculum needs 2"):
        replace(groups, contexts=short)[len(groups) - 1]


def test_goes_on_to_the_same_model(groups: LessonGroups, tiny_model: Path, tmp_path: Path):
    def trained(folder: Path, stop: int | None) -> dict[str, torch.Tensor]:
        def fresh() -> warm_up.WarmUpTrainer:
            torch.manual_seed(0)
            trainer = build_trainer(tiny_model, groups, folder, learning_rate=1e-3)
            trainer.args.save_steps = trainer.state.save_steps = 2
            return trainer

        trainer = fresh()
        if stop:
            trainer.args.max_steps = stop
            trainer.train()
            trainer = fresh()
        checkpoint = last_complete_checkpoint(folder, weights="model.safetensors")
        assert (checkpoint is not None) == (stop is not None)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        assert trainer.state.global_step == 5
        trainer.model.save_pretrained(folder)
        return load_file(folder / "model.safetensors")

    straight, resumed = trained(tmp_path / "straight", None), trained(tmp_path / "resumed", 2)
    before = load_file(tiny_model / "model.safetensors")
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    assert not torch.equal(straight["model.norm.weight"], before["model.norm.weight"])
