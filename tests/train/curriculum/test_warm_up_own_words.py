"""A model's own words: different questions, answers that can be sampled again, and what is held out."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from store.pretrained import load_causal_model, load_tokenizer
from task.chat import prompt_ids
from task.errors import InputError
from train.curriculum import own_words
from train.curriculum.own_words import (
    HELD_OUT,
    TEXTS,
    OwnWords,
    answers,
    check,
    end_id,
    load_own_words,
    sample,
)
from train.curriculum.questions import INSTRUCTIONS, SUBJECTS, UNDER_OURS, questions

SETTINGS = {"tokens": 5, "temperature": 1.0, "batch": 2, "seed": 3}


def test_questions_differ_and_a_longer_list_begins_with_a_shorter_one():
    every = questions(len(INSTRUCTIONS) * len(SUBJECTS), seed=0)
    assert len({prompt[-1]["content"] for prompt in every}) == len(every)
    assert every[:50] == questions(50, seed=0) != questions(50, seed=1)
    assert [place for place, prompt in enumerate(every[:9]) if len(prompt) == 2] == [*range(0, 9, UNDER_OURS)]
    with pytest.raises(ValueError, match="there are"):
        questions(len(every) + 1, seed=0)


def test_goes_on_after_the_last_batch_to_the_same_texts(tiny_model: Path, tmp_path: Path):
    straight, resumed = tmp_path / "straight.jsonl", tmp_path / "resumed.jsonl"
    sample(tiny_model, straight, texts=5, **SETTINGS)
    resumed.write_text("".join(straight.read_text().splitlines(keepends=True)[:2]))
    sample(tiny_model, resumed, texts=5, **SETTINGS)
    assert resumed.read_bytes() == straight.read_bytes()
    assert len(straight.read_text().splitlines()) == 5


def test_greedy_answers_are_those_of_one_prompt_after_another(tiny_model: Path):
    """Padding on the left and a batch's other rows change nothing."""
    model, tokenizer = load_causal_model(tiny_model, dtype=torch.float32).eval(), load_tokenizer(tiny_model)
    prompts = questions(3, seed=0)
    for prompt, found in zip(prompts, answers(model, tokenizer, prompts, 6, temperature=None), strict=True):
        ids = prompt_ids(tokenizer, prompt, {})
        for _ in range(6):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        said = ids[-6:]
        assert found.messages[:-1] == prompt
        assert found.whole == (end_id(tokenizer) in said)
        assert found.messages[-1]["content"] == tokenizer.decode(said, skip_special_tokens=True).strip()


def test_every_text_is_held_out_or_trained_on(tmp_path: Path):
    texts = [f'{{"messages": [{{"role": "user", "content": "{n}"}}], "whole": true}}' for n in range(2 * HELD_OUT + 1)]
    (tmp_path / TEXTS).write_text("\n".join(texts))
    held_out, trained = (load_own_words(tmp_path, held_out=held_out) for held_out in (True, False))
    assert [text.messages[0]["content"] for text in held_out] == ["0", str(HELD_OUT), str(2 * HELD_OUT)]
    assert len(held_out) + len(trained) == len(texts)
    assert not [text for text in held_out if text in trained]
    assert isinstance(held_out[0], OwnWords)


@pytest.mark.parametrize("line", ["{}", "[1]", '{"messages": []}'])
def test_other_files_are_refused(tmp_path: Path, line: str):
    with pytest.raises(InputError, match="no such file; make it with"):
        load_own_words(tmp_path, held_out=True)
    (tmp_path / TEXTS).write_text(line)
    with pytest.raises(InputError, match=r"own_words\.jsonl:1: no messages and whole; make it with"):
        load_own_words(tmp_path, held_out=True)


@pytest.mark.parametrize(
    ("name", "value"), [("texts", 1), ("texts", 10**6), ("tokens", 0), ("temperature", 1.5), ("batch", 0), ("seed", -1)]
)
def test_options_that_nothing_can_be_sampled_with(name: str, value: float):
    with pytest.raises(InputError, match=rf"^--{name} .*; give .* to .*$"):
        check(argparse.Namespace(**{"texts": 10, **SETTINGS, name: value}))
    check(argparse.Namespace(texts=10, **SETTINGS))


def test_the_end_is_what_the_template_writes(tiny_model: Path):
    tokenizer = load_tokenizer(tiny_model)
    assert tokenizer.decode([end_id(tokenizer)]) == "<|im_end|>"
    assert own_words.ending(tokenizer) == 2
