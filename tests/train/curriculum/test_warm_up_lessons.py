"""Lessons of the warm-up: what they ask, how they are answered, and what the rows of a tree share."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from store.contexts import DATA, load_contexts
from store.pretrained import load_tokenizer
from support import SMALL_MODEL
from task.chat import prompt_ids
from task.contexts import as_ratings
from task.errors import InputError
from task.replies import parse_report
from task.weights import LARGEST, sample_weights
from train.curriculum.course import RATIONALITY, place_in
from train.curriculum.own_words import OwnWords
from train.curriculum.skills import (
    DIRECTIONS,
    ENDED,
    ROWS,
    Lessons,
    WarmUpPart,
    branching,
)

CURRICULUM = (
    WarmUpPart(4, 1, told=1.0, compared=0.0, against=(0.0, 0.0)),
    WarmUpPart(4, 2, told=1.0, compared=0.0),
    WarmUpPart(2, 2, told=0.0, compared=0.0, tree=(4, 2, 2)),
    WarmUpPart(2, 3, told=0.0, compared=1.0),
)
TEXTS = [
    OwnWords([{"role": "user", "content": f"Say {word}."}, {"role": "assistant", "content": word}], whole)
    for word, whole in (("so", True), ("perhaps", False))
]


@pytest.fixture(scope="module")
def lessons() -> Lessons:
    """Comparing, told directions, weights of attributes' own, questions for the larger number."""
    contexts = [replace(as_ratings(c), layout="side_by_side") for c in load_contexts(DATA / "spare.jsonl", 3)]
    return Lessons(CURRICULUM, contexts, TEXTS, load_tokenizer(SMALL_MODEL), seed=0)


def rows_of(lessons: Lessons, item: dict[str, torch.Tensor]) -> list[tuple[str, list[int]]]:
    """The prompt of each row, read back from its tree, and its trained tokens."""
    ids, mask = item["input_ids"][0], item["attention_mask"][0, 0]
    prompts = [lessons.tokenizer.decode(ids[mask[source]]) for source in item["sources"][:, 0].tolist()]
    return [(p, [t for t in row if t >= 0]) for p, row in zip(prompts, item["labels"].tolist(), strict=True)]


def test_decisions_are_answered_by_the_weights_of_their_part(lessons: Lessons):
    """Held against values, names, directions and weights that are read back from the text of each prompt."""
    own = {
        name: weight / LARGEST
        for context in lessons.contexts
        for name, weight in zip(context.attribute_names, sample_weights(0, "warm_up", context), strict=True)
    }
    told = {name + text: float(sign) for name in own for sign, text in DIRECTIONS.items()}
    seen = set()
    for index in [i for i in range(len(lessons)) if i % lessons.items < lessons.trees]:
        (part, _), item = place_in(CURRICULUM, index // lessons.items), lessons[index]
        for prompt, chance in zip(rows_of(lessons, item), item["chance_of_a"].tolist(), strict=True):
            pairs = re.findall(r"^- (.+): A (\d+), B (\d+)", prompt[0], flags=re.MULTILINE)
            assert len(pairs) == part.attributes
            named = re.search(r"larger number for (.+)\?", prompt[0])
            assert bool(named) == bool(part.compared)
            weights = [named[1] == n for n, *_ in pairs] if named else [{**own, **told}[n] for n, *_ in pairs]
            assert all((" is better)" in name) == bool(part.told) for name, *_ in pairs)
            gain = sum(w * (int(a) - int(b)) / 100 for w, (_, a, b) in zip(weights, pairs, strict=True))
            assert chance == pytest.approx(1 / (1 + np.exp(-RATIONALITY * gain)), abs=1e-6)
            seen.add((part, tuple(weights) if part.told else (), chance > 0.5))
    assert {weights for part, weights, _ in seen if part == CURRICULUM[0]} == {(1.0,)}
    assert {w for part, w, _ in seen if part == CURRICULUM[1]} == {(x, y) for x in (-1.0, 1.0) for y in (-1.0, 1.0)}
    assert {(part, right) for part, _, right in seen} == {(part, x) for part in CURRICULUM for x in (True, False)}


def test_several_times_the_lessons_make_a_step(lessons: Lessons):
    wide = replace(lessons, times=3, wide=2)
    assert (len(wide), wide.steps) == (3 * len(lessons), lessons.steps)
    for step in range(wide.steps):
        part, _ = place_in(CURRICULUM, step)
        items = [wide[index] for index in range(3 * wide.items * step, 3 * wide.items * (step + 1))]
        trees = [item for item in items if "chance_of_a" in item]
        assert len(trees) == 3 * wide.trees
        for item in trees:
            assert len(item["chance_of_a"]) == 2 * ROWS
            assert rows_of(wide, item)[-1][0].count("\n- ") == part.attributes


def test_more_language_than_decisions_takes_one_text_after_another(lessons: Lessons):
    settling = replace(lessons, trees=1, language=3, texts=[replace(TEXTS[0], whole=bool(i % 2)) for i in range(7)])
    assert len(settling) == 4 * settling.steps
    taken = []
    for step in range(settling.steps):
        items = [settling[4 * step + place] for place in range(4)]
        assert ["chance_of_a" in item for item in items] == [True, False, False, False]
        taken += [None if "kept" not in item else item["labels"].shape[1] for item in items[1:]]
    lengths = [settling.text(text)["labels"].shape[1] for text in settling.texts]
    assert all(length in (None, lengths[place % 7]) for place, length in enumerate(taken))
    assert 0 < taken.count(None) < len(taken) / 2  # reports


def test_every_fourth_decision_is_taught_to_its_end_and_names_the_better_option(lessons: Lessons):
    item = lessons[0]
    a, b = (lessons.tokenizer.convert_tokens_to_ids(letter) for letter in "AB")
    end = lessons.tokenizer.convert_tokens_to_ids("<|im_end|>")
    for place, (_, trained) in enumerate(rows_of(lessons, item)):
        assert trained[0] == (a if item["chance_of_a"][place] >= 0.5 else b)
        assert trained[1:2] == ([end] if place % ENDED == ENDED - 1 else [])


@pytest.mark.parametrize("tree", [(2, 2, 4), (8, 1, 2), (ROWS, 1, 1)])
@pytest.mark.parametrize("numbers", [2, 4, 10])
def test_rows_share_what_is_read_first(numbers: int, tree: tuple[int, int, int]):
    boughs, twigs, leaves = tree
    draws = branching(np.random.default_rng(0), numbers, tree)
    assert draws.shape == (ROWS, numbers)
    different = [len(np.unique(draws[:, column])) for column in range(numbers)]
    assert different == sorted(different)
    assert {*different} <= {boughs, boughs * twigs, ROWS}
    assert different[-1] == ROWS
    assert len(np.unique(draws, axis=0)) == ROWS
    by_twig = draws.reshape(boughs * twigs, leaves, numbers)
    assert np.array_equal(by_twig[:, 0, : -max(1, numbers // 5)], by_twig[:, -1, : -max(1, numbers // 5)])


def test_a_tree_shows_values_in_the_order_in_which_they_are_read(lessons: Lessons):
    """Whatever the layout, rows of a twig differ at the end alone, so that the tree has few tokens."""
    part = WarmUpPart(1, 5, told=0.0, compared=0.0, tree=(2, 2, 4))
    for layout in ("side_by_side", "lists"):
        other = replace(lessons, contexts=[replace(c, layout=layout) for c in lessons.contexts])
        prompts = [prompt for prompt, _ in rows_of(other, other.decisions(part, 0.0, np.random.default_rng(0)))]
        first, second = prompts[:2]
        common = next(i for i, (x, y) in enumerate(zip(first, second, strict=False)) if x != y)
        assert first[:common].count("\n- ") >= (5 if layout == "side_by_side" else 9)


def test_an_item_is_a_function_of_its_index_and_no_tree_of_decisions_comes_twice(lessons: Lessons):
    trees = [index for index in range(len(lessons)) if index % lessons.items < lessons.trees]
    assert len({lessons[index]["input_ids"].numpy().tobytes() for index in trees}) == len(trees)
    for index in range(2 * lessons.items):
        assert all(torch.equal(value, lessons[index][name]) for name, value in lessons[index].items())
    assert not torch.equal(replace(lessons, seed=1)[3]["input_ids"], lessons[3]["input_ids"])


def test_reports_state_the_own_weights_of_the_attributes_that_are_shown(lessons: Lessons):
    said = set()
    for seed in range(20):
        for prompt, trained in rows_of(lessons, lessons.reports(np.random.default_rng(seed))):
            [context] = [c for c in lessons.contexts[:1] if c.question in prompt]
            own = dict(zip(context.attribute_names, sample_weights(0, "warm_up", context), strict=True))
            names = [name for name, *_ in re.findall(r"^- (.+): A (\d+), B (\d+)", prompt, flags=re.MULTILINE)]
            reply = lessons.tokenizer.decode(trained)
            assert reply.endswith("}<|im_end|>\n")
            answer = reply.removesuffix("<|im_end|>\n")
            assert parse_report(answer, names).values == tuple(own[name] for name in names)
            assert list(json.loads(answer)) == names
            said.add(len(names))
    assert said == {2, 3, 4, 5}


def test_lists_of_values_name_every_attribute_as_it_is_shown(lessons: Lessons):
    said = "so perhaps there were once more than three dozen words here from which names could come"
    told = [OwnWords([{"role": "user", "content": "?"}, {"role": "assistant", "content": said}], whole=True)]
    names, letters = set(), set()
    for seed in range(20):
        item = replace(lessons, texts=told).listings(np.random.default_rng(seed))
        for prompt, trained in rows_of(lessons, item):
            [letter] = re.findall(r"does option ([AB]) have", prompt)
            shown = re.findall(r"^- (.+): A (\d+), B (\d+)", prompt, flags=re.MULTILINE)
            answer = lessons.tokenizer.decode(trained).removesuffix("<|im_end|>\n")
            assert list(json.loads(answer).items()) == [(n, int(a if letter == "A" else b)) for n, a, b in shown]
            assert len(shown) == 5
            names |= {name for name, *_ in shown}
            letters.add(letter)
    assert letters == {"A", "B"} and len(names) > 50, "hardly a name comes twice"
    assert {word for name in names for word in name.split()} <= {word for word in said.split() if len(word) >= 4}
    asked = [replace(lessons, texts=told, trees=0, reported=0.3, listed=0.5)[i] for i in range(3 * lessons.steps)]
    kinds = ["kept" if "kept" in item else item["labels"].shape[0] for item in asked]
    assert len({*kinds}) == 2 and kinds.count("kept") < len(kinds) / 2


def test_texts_of_too_few_words_are_refused(lessons: Lessons):
    with pytest.raises(InputError, match="own words: 1 different words in the texts, 15 are needed; sample more texts"):
        lessons.listings(np.random.default_rng(0))


def test_a_text_ends_only_where_the_model_ended_it(lessons: Lessons):
    for text, ends in zip(TEXTS, ("<|im_end|>\n", ""), strict=True):
        item = lessons.text(text)
        [(prompt, trained)] = rows_of(lessons, item)
        assert bool(item["kept"])
        assert lessons.tokenizer.decode(trained) == text.messages[-1]["content"] + ends
        assert prompt == lessons.tokenizer.decode(prompt_ids(lessons.tokenizer, text.messages[:-1], {}))


def test_contexts_with_too_few_attributes_are_refused(lessons: Lessons):
    short = [replace(c, attributes=c.attributes[:1]) for c in lessons.contexts]
    with pytest.raises(InputError, match="1 attributes; the curriculum needs 2"):
        replace(lessons, contexts=short)[lessons.items * 5]


def test_each_step_has_its_place():
    compared, told, own, asked = CURRICULUM
    places = [place_in(CURRICULUM, step) for step in (0, 3, 4, 9, 11)]
    assert places == [(compared, 0.0), (compared, 0.75), (told, 0.0), (own, 0.5), (asked, 0.5)]
    with pytest.raises(IndexError, match="past the end"):
        place_in(CURRICULUM, 12)
