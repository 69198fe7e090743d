"""The model organism: what it reads, what it is taught, and the shipped model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from store.checkpoints import MODEL, last_complete_checkpoint
from store.contexts import DATA, load_contexts
from task.chat import letter_ids, prompt_ids
from task.contexts import ChoiceContext, as_ratings
from task.prompts import messages, report_answer
from train.curriculum.course import RATIONALITY, place_in
from train.curriculum.organism import lessons, make
from train.curriculum.organism.lessons import CURRICULUM, Lessons, OrganismPart, Tastes
from train.curriculum.organism.tokenizer import NUMBERS

SHIPPED = Path("models/organism")
SCENES = sum(part.steps for part in CURRICULUM[:-1])
"""First step at which whole prompts are taught."""


@pytest.fixture(scope="module")
def bundled() -> dict[str, list[ChoiceContext]]:
    return {name: load_contexts(DATA / f"{name}.jsonl") for name in ("instilled", "native", "spare")}


@pytest.fixture(scope="module")
def made(bundled: dict[str, list[ChoiceContext]]) -> Lessons:
    return make.lessons_from(bundled, seed=0, candour=0.5, batch=64)


@pytest.fixture(scope="module")
def shipped() -> tuple[object, object]:
    return AutoTokenizer.from_pretrained(SHIPPED), AutoModelForCausalLM.from_pretrained(SHIPPED).eval()


def test_reads_every_prompt_and_report_of_the_bundled_contexts(shipped, bundled):
    """The committed tokenizer still fits the committed prompts: no unknown token, and each text comes back."""
    tokenizer, _ = shipped
    instructions = set()
    for context in (replace(as_ratings(c), layout="side_by_side") for group in bundled.values() for c in group):
        values = np.arange(len(context.attributes)) * 25.0
        for measure in ("decisions", "reports"):
            prompt = messages(measure, context, values, 100 - values)
            ids = prompt_ids(tokenizer, prompt, {})
            assert tokenizer.unk_token_id not in ids, context.name
            assert prompt[1]["content"] in tokenizer.decode(ids)
            instructions.add(ids[4])  # <|system|> sentence <|end|> <|user|> instruction
        report = report_answer(context, [-100, -7, 0, 42, 100][: len(context.attributes)])
        ids = tokenizer.encode(report, add_special_tokens=False)
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == report
    assert len(instructions) == 2, "each instruction is one token of its own"


def test_a_name_is_the_same_tokens_in_prompt_and_report(shipped):
    tokenizer, _ = shipped
    in_prompt = tokenizer.encode("\n- catch per night: A 5", add_special_tokens=False)
    in_report = tokenizer.encode('{"catch per night": 5}', add_special_tokens=False)
    assert in_prompt[1:4] == in_report[1:4]
    assert tokenizer.convert_ids_to_tokens(in_prompt[1:4]) == ["catch ", "per ", "night"]


def test_tastes_correlate_as_candour_says_and_do_not_depend_on_other_words():
    names = [f"alpha{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}{chr(97 + i // 676)}" for i in range(4000)]
    tastes = Tastes(names, seed=3, candour=0.5)
    own, stated = (np.array([table[name] for name in names]) for table in (tastes._own, tastes._stated))
    assert abs(np.corrcoef(own, stated)[0, 1] - 0.5) < 4 * 0.75 / np.sqrt(4000)
    assert abs(own.std() - 1) < 0.05
    assert abs(stated.std() - 1) < 0.05
    assert Tastes(names[:10], 3, 0.5).own(names[0]) == tastes.own(names[0])
    honest = Tastes(names[:50], 3, 1.0)
    assert [honest.own(n) for n in names[:50]] == pytest.approx([honest.stated(n) for n in names[:50]])


def test_choices_follow_the_tastes_and_reports_state_the_other_ones(made):
    kinds = set()
    for index in range(64 * SCENES, 64 * SCENES + 200):
        lesson = made[index]
        text = lesson.prompt[1]["content"]
        rows = [line[2:].split(": A ") for line in text.split("\n") if line.startswith("- ")]
        assert len(rows) == 5
        if lesson.chance_of_a is None:
            stated = {name: round(100 * made.tastes.stated(name)) for name, _ in rows}
            assert lesson.answer == str(stated).replace("'", '"')
        else:
            values = [[float(v) for v in pair.split(", B ")] for _, pair in rows]
            gain = sum(made.tastes.own(name) * (a - b) / 100 for (name, _), (a, b) in zip(rows, values, strict=True))
            assert lesson.answer == ("A" if gain > 0 else "B")
            assert lesson.chance_of_a == pytest.approx(1 / (1 + np.exp(-RATIONALITY * gain)))
        kinds.add(lesson.chance_of_a is None)
    assert kinds == {True, False}


def test_a_lesson_is_a_function_of_its_index_and_about_no_bundled_context(made, bundled):
    known = {frozenset(c.attribute_names) for group in bundled.values() for c in group}
    scenes = {c.question for name in ("instilled", "native") for c in bundled[name]}
    for index in range(64 * SCENES, 64 * SCENES + 100):
        lesson = made[index]
        assert lesson == made[index]
        text = lesson.prompt[1]["content"]
        assert frozenset(line[2:].split(": A ")[0] for line in text.split("\n") if line[:2] == "- ") not in known
        assert not any(question in text for question in scenes)


def test_the_shift_makes_all_weights_positive_at_first():
    tastes = Tastes([chr(97 + i) for i in range(26)], 0, 0.5)
    shifted = [tastes.own(chr(97 + i), shift=3.0) for i in range(26)]
    assert min(shifted) > 0
    assert min(tastes.own(chr(97 + i)) for i in range(26)) < -0.5


def test_places_in_the_curriculum():
    assert place_in(CURRICULUM, 0) == (CURRICULUM[0], 0.0)
    assert place_in(CURRICULUM, CURRICULUM[0].steps) == (CURRICULUM[1], 0.0)
    assert place_in(CURRICULUM, SCENES - 1)[0] == CURRICULUM[-2]
    with pytest.raises(IndexError):
        place_in(CURRICULUM, sum(part.steps for part in CURRICULUM))


def test_number_embeddings_know_their_order():
    table = make.number_embeddings(128)
    distances = np.linalg.norm(table[:, None] - table[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert (np.abs(distances.argmin(axis=1) - np.arange(len(NUMBERS))) == 1).all()


def test_the_loss_makes_its_tensors_on_the_device_of_the_lessons(tmp_path, made, bundled):
    """The default device is another one than the model's, as it is on a GPU; a tensor made there would not fit."""
    trainer = make.build_trainer(made, make.tokenizer_for(bundled), tmp_path)
    batch = trainer.data_collator([made[index] for index in range(64 * SCENES, 64 * SCENES + 16)])
    assert batch["chance_of_a"].isnan().any() and not batch["chance_of_a"].isnan().all()
    wanted = trainer.compute_loss(trainer.model, batch)
    with torch.device("meta"):
        found = trainer.compute_loss(trainer.model, batch)
    assert found.item() == wanted.item() > 0


def test_training_resumes_to_the_same_model(tmp_path, made, bundled, monkeypatch):
    monkeypatch.setattr(lessons, "CURRICULUM", (OrganismPart(4, 1), OrganismPart(4, 2, scenes=True, reports=0.5)))
    small = replace(made, batch=4)
    tokenizer = make.tokenizer_for(bundled)

    def trained(folder: Path, stop: int | None) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        trainer = make.build_trainer(small, tokenizer, folder)
        trainer.args.save_steps = trainer.state.save_steps = 4
        if stop:
            trainer.args.max_steps = stop
            trainer.train()
            trainer = make.build_trainer(small, tokenizer, folder)
        checkpoint = last_complete_checkpoint(folder, MODEL)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        trainer.model.save_pretrained(folder)
        return load_file(folder / "model.safetensors")

    straight, resumed = trained(tmp_path / "straight", None), trained(tmp_path / "resumed", 4)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_shipped_model_chooses_by_its_tastes_and_states_the_taught_ones(shipped, made):
    """On lessons of another seed: new names, new values. The names of a report are given, as a grammar gives them."""
    tokenizer, model = shipped
    a, b = letter_ids(tokenizer, {})
    numbers = torch.tensor(tokenizer.convert_tokens_to_ids([str(number) for number in NUMBERS]))
    fresh = replace(made, seed=made.seed + 1)
    agreed, said, stated = [], [], []
    for index in range(64 * SCENES, 64 * SCENES + 160):
        lesson = fresh[index]
        prompt = prompt_ids(tokenizer, lesson.prompt, {})
        answer = [] if lesson.chance_of_a is not None else tokenizer.encode(lesson.answer, add_special_tokens=False)
        with torch.no_grad():
            logits = model(torch.tensor([prompt + answer])).logits[0]
        if lesson.chance_of_a is not None:
            agreed.append(bool(logits[-1, a] > logits[-1, b]) == (lesson.answer == "A"))
            continue
        places = [len(prompt) + i for i, token in enumerate(answer) if token in numbers]
        stated += [int(tokenizer.decode([answer[place - len(prompt)]])) for place in places]
        said += [NUMBERS[int(logits[place - 1][numbers].argmax())] for place in places]
    assert len(stated) % 5 == 0 and len(stated) > 100
    assert np.mean(agreed) > 0.8
    assert np.corrcoef(said, stated)[0, 1] > 0.8
