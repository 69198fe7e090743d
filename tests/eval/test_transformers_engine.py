"""The transformers engine on a tiny random model, against the plainest possible computation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from eval.engines.transformers_engine import TransformersEngine
from store.contexts import DATA, load_contexts
from support import make_engine, make_tiny_model, plain_decisions
from task.contexts import Attribute, ChoiceContext
from task.errors import InputError
from task.prompts import Measure, frame
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


def test_an_adapter_of_another_base_is_refused(tmp_path: Path, adapters: dict[str, Path]):
    other = make_tiny_model(tmp_path / "other", seed=1)
    with pytest.raises(InputError, match="trained on the base model"):
        make_engine(other, {"one": adapters["one"]})
    with pytest.raises(InputError, match="no adapter here"):
        make_engine(other, {"one": tmp_path / "nowhere"})


def test_the_identity_names_what_answers_depend_on(engine: TransformersEngine, tiny_model: Path):
    identities = [engine.identity(arm) for arm in ("base", "one", "two")]
    assert identities[0]["adapter"] is None
    assert len({str(i) for i in identities}) == 3
    assert make_engine(tiny_model, {"base": None}, batch_size=2).identity("base") == identities[0]
