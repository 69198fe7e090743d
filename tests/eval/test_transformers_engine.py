"""The transformers engine on a tiny random model, against the plainest possible computation."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from eval.engines.transformers_engine import TransformersEngine
from store.contexts import DATA, load_contexts
from store.files import read_json, write_json
from store.lora import ADAPTER_CONFIG
from support import make_engine, make_tiny_model, plain_decisions, set_adapter
from task.chat import letter_ids
from task.contexts import Attribute, ChoiceContext
from task.errors import InputError
from task.prompts import Measure, frame, report_keys
from task.replies import parse_report
from task.trials import ShownTrial, sample_trials

CONTEXTS = load_contexts(DATA / "instilled.jsonl", 6)


def shown(count: int, contexts: list[ChoiceContext] = CONTEXTS, measure: Measure = "decisions") -> list[ShownTrial]:
    return [
        ShownTrial(frame(measure, c), i, t.first[i], t.second[i], i % 2 == 0)
        for c in contexts
        for t in [sample_trials(0, "decisions", c, count)]
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def letter_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose likeliest token is always a letter."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "letters", seed=0, letters=True)


@pytest.fixture(scope="module")
def engine(tiny_model: Path, adapters: dict[str, Path]) -> TransformersEngine:
    return make_engine(tiny_model, {"base": None, **adapters})


@pytest.mark.parametrize("arm", ["base", "one", "two"])
def test_decisions_equal_the_plain_computation(
    engine: TransformersEngine, tiny_model: Path, adapters: dict[str, Path], arm: str
):
    trials = shown(2)
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    if arm in adapters:
        model = PeftModel.from_pretrained(model, adapters[arm])
    reference = plain_decisions(model, engine.tokenizer, trials)
    assert np.allclose(engine.decide(arm, trials).logps, reference, atol=1e-4)


def test_arms_differ_and_do_not_leak_into_each_other(engine: TransformersEngine):
    trials = shown(2)
    before = {arm: engine.decide(arm, trials).logps for arm in ("base", "one", "two")}
    assert np.abs(before["base"] - before["one"]).max() > 0.01 < np.abs(before["one"] - before["two"]).max()
    for arm in ("two", "base", "one", "base"):
        assert (engine.decide(arm, trials).logps == before[arm]).all()


def test_an_answer_hardly_depends_on_its_batch(engine: TransformersEngine):
    trials = shown(3)
    together = engine.decide("one", trials).logps
    alone = np.concatenate([engine.decide("one", [t]).logps for t in trials])
    assert np.allclose(together, alone, atol=1e-4)


def test_constrained_reports_are_always_readable_and_in_range(engine: TransformersEngine):
    trials = shown(1, measure="reports")
    for trial, reply in zip(trials, engine.report("two", trials, True), strict=True):
        parsed = parse_report(reply, trial.context.attribute_names)
        assert parsed.reason is None and not parsed.outside, reply
        assert reply == reply.strip() and reply.startswith('{"') and '": ' in reply


def test_awkward_attribute_names_work(engine: TransformersEngine):
    names = ['the "quoted" one', "naïve größe 温度", "a\\b", "x" * 80]
    attributes = tuple(Attribute(name, "points", 0, 10) for name in names)
    context = ChoiceContext("awkward", "a tester", "Which would you pick?", attributes)
    trials = shown(1, [context], "reports")
    [reply] = engine.report("base", trials, True)
    assert parse_report(reply, names).reason is None, reply


def test_free_reports_end_at_their_limit(tiny_model: Path):
    free = make_engine(tiny_model, {"base": None}, report_tokens=12)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    for reply in free.report("base", shown(1, measure="reports")[:3], False):
        assert 0 < len(tokenizer(reply)["input_ids"]) <= 20, "12 tokens, give or take how the text splits again"


def test_it_says_whether_a_letter_is_the_likeliest_token(engine: TransformersEngine, letter_model: Path):
    trials = shown(2)
    for answers, model in ((engine, engine.model.name), (make_engine(letter_model, {"base": None}), letter_model)):
        decided, plain = answers.decide("base", trials), AutoModelForCausalLM.from_pretrained(model)
        tops = [int(plain(torch.tensor([ids])).logits[0, -1].argmax()) for ids in answers.prompts(trials)]
        assert decided.top_is_letter.tolist() == [top in answers.letters for top in tops]
        assert [letter is not None for letter in decided.letters] == decided.top_is_letter.tolist()
    assert decided.top_is_letter.all() and (np.exp(decided.logps).sum(axis=1) < 0.5).any(), "likeliest, not likely"


@pytest.mark.parametrize("place", [-1, 1])
def test_a_letter_as_likely_as_another_token_is_the_likeliest(letter_model: Path, tmp_path: Path, place: int):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(letter_model), AutoTokenizer.from_pretrained(letter_model)
    with torch.no_grad():
        for letter in letter_ids(tokenizer, {}):
            model.lm_head.weight[letter + 2 * place] = model.lm_head.weight[letter]
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    decided = make_engine(tmp_path, {"base": None}).decide("base", shown(2))
    assert decided.top_is_letter.all() and (np.exp(decided.logps).sum(axis=1) < 0.51).all()


def test_scores_that_are_no_numbers_answer_nothing(tiny_model: Path, adapters: dict[str, Path], tmp_path: Path):
    broken = make_engine(tiny_model, {"broken": set_adapter(adapters["one"], tmp_path / "broken", math.nan)})
    decisions, asked = shown(1)[:3], shown(1, measure="reports")[:3]
    assert broken.decide("broken", decisions).undecided == ["not_finite"] * 3
    assert broken.report("broken", asked, True) == broken.report("broken", asked, False) == [None] * 3
    assert broken.opening("broken", asked).tolist() == [0, 0, 0]
    assert broken.decide("", decisions).undecided == ["no_letter"] * 3, "the base model is sound"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_score_that_is_no_number_is_enough_also_where_a_grammar_forbids_its_token(
    tiny_model: Path, tmp_path: Path, value: float
):
    """The row of a word that no report begins with; the input embeddings, which are tied to it, are another copy."""
    shutil.copytree(tiny_model, tmp_path / "model")
    broken = make_engine(tmp_path / "model", {"base": None})
    token = broken.tokenizer.encode("hello", add_special_tokens=False)[0]
    head = broken._model.lm_head
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    with torch.no_grad():
        head.weight[token] = value
    asked = shown(1, measure="reports")[:3]
    assert broken.decide("base", shown(1)[:3]).undecided == ["not_finite"] * 3
    assert broken.report("base", asked, True) == broken.report("base", asked, False) == [None] * 3
    assert parse_report(None, asked[0].context.attribute_names).reason == "not_finite"


@pytest.mark.parametrize("ask", ["decide", "opening", "report"])
def test_an_adapter_that_changes_nothing_is_refused_on_first_use(
    tiny_model: Path, adapters: dict[str, Path], tmp_path: Path, ask: str
):
    idle = make_engine(tiny_model, {"idle": set_adapter(adapters["one"], tmp_path / "idle", 0.0), **adapters})
    more = [True] if ask == "report" else []
    with pytest.raises(InputError, match=r"idle: arm 'idle' answers as its base model does.*changes nothing") as caught:
        getattr(idle, ask)("idle", shown(1, measure="reports"), *more)
    assert "\n" not in str(caught.value)
    getattr(idle, ask)("one", shown(1, measure="reports")[:2], *more)


def test_an_arm_is_compared_with_its_base_once_and_uncounted(tiny_model: Path, adapters: dict[str, Path]):
    fresh, trials = make_engine(tiny_model, {"one": adapters["one"], "base": None}), shown(2)
    answers = [fresh.decide("one", trials) for _ in range(2)]
    counts = fresh.take_token_counts()
    assert counts["prompt"] == 2 * sum(map(len, fresh.prompts(trials)))
    assert (answers[0].logps == answers[1].logps).all()


def test_the_opening_is_what_the_model_would_say_by_itself(engine: TransformersEngine, tiny_model: Path):
    trials, model = shown(1, measure="reports"), AutoModelForCausalLM.from_pretrained(tiny_model)
    texts = [engine.tokenizer.decode([token]) for token in range(len(engine.tokenizer))]
    expected = []
    for trial, ids in zip(trials, engine.prompts(trials), strict=True):
        forced = "{" + report_keys(trial.context)[0]
        opens = [token for token, text in enumerate(texts) if text and forced.startswith(text)]
        assert len(opens) >= 2, "at least a bracket, and one with a quote"
        expected.append(model(torch.tensor([ids])).logits[0, -1].softmax(0)[opens].sum().item())
    assert np.allclose(engine.opening("base", trials), expected, rtol=1e-3)
    assert np.allclose([engine.opening("base", [t])[0] for t in trials], expected, rtol=1e-3)


def test_free_and_constrained_replies_are_asked_of_one_engine(engine: TransformersEngine):
    asked = shown(1, measure="reports")
    free, constrained = engine.report("one", asked, False), engine.report("one", asked, True)
    assert engine.report("one", asked, False) == free
    readable = [parse_report(r, t.context.attribute_names).reason is None for r, t in zip(free, asked, strict=True)]
    assert not any(readable) and all(str(reply).endswith("}") for reply in constrained)


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, adapters: dict[str, Path]):
    other = make_tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="trained on the base model"):
        make_engine(other, {"one": adapters["one"]})
    with pytest.raises(InputError, match="no adapter here"):
        make_engine(other, {"one": tmp_path / "nowhere"})


def test_the_identity_names_what_answers_depend_on(engine: TransformersEngine, tiny_model: Path, tmp_path: Path):
    identities = [engine.identity(arm) for arm in ("base", "one", "two")]
    assert identities[0]["adapter"] is None
    assert len({str(i) for i in identities}) == 3
    config = read_json(Path(engine.adapters["two"]) / ADAPTER_CONFIG)
    louder = shutil.copytree(engine.adapters["two"], tmp_path / "louder")
    write_json(louder / ADAPTER_CONFIG, {**config, "lora_alpha": 10 * config["lora_alpha"]})
    assert make_engine(tiny_model, {"two": louder}).identity("two") != identities[2], "the same tensors, ten times"
    assert make_engine(tiny_model, {"base": None}, batch_size=2).identity("base") == identities[0]
