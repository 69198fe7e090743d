"""What prompts share is computed once, and forced text in one pass: answers are those of the plain computation."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xgrammar
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig
from xgrammar.contrib.hf import LogitsProcessor

from eval.engines.batches import Batch
from eval.engines.decoding import Reply, greedy_replies
from eval.engines.prefixes import common_length, split_prompts, typical_prompts
from eval.engines.transformers_engine import TransformersEngine
from eval.runner import evaluate
from eval.work import list_work
from store.contexts import DATA, load_contexts, save_contexts
from store.evaluation import EvalConfig
from store.manifests import DecisionFacts, ReportFacts, read_manifest
from support import SMALL_MODEL, make_adapter, make_engine, plain_decisions
from task.chat import prompt_ids
from task.contexts import Attribute, ChoiceContext, as_ratings
from task.prompts import frame, report_grammar
from task.replies import parse_report
from task.trials import ShownTrial, sample_trials

CONTEXTS = load_contexts(DATA / "instilled.jsonl", 4)
AWKWARD = ChoiceContext(
    "awkward",
    "a tester",
    "Which would you pick?",
    tuple(
        Attribute(name, units, low, high)
        for name, units, low, high in [
            # Negative and positive values: the space before a value is a token with the minus sign or by itself.
            ('the "quoted" one', "°C", -20, 20),
            ("naïve größe 温度", "", 0, 1),
            ("a\\b", "points", 100, 199),
            ("x" * 60, "points", 0, 10),
        ]
    ),
)


def shown(measure: Any, count: int, contexts: Sequence[ChoiceContext]) -> list[ShownTrial]:
    """Trials with the contexts by turns, as no file has them, so that all kinds of rows meet in every batch."""
    drawn = [sample_trials(0, measure, c, count) for c in contexts]
    return [
        ShownTrial(frame(measure, c), i, t.first[i], t.second[i], i % 2 == 0)
        for i in range(count)
        for c, t in zip(contexts, drawn, strict=True)
    ]


def plain_reports(engine: TransformersEngine, model: Any, trials: list[ShownTrial]) -> list[str | None]:
    """Greedy replies one prompt and one token at a time, by the libraries' own generation within the same grammar."""
    found: list[str | None] = []
    for trial, ids in zip(trials, engine.prompts(trials), strict=True):
        within = LogitsProcessor([engine._grammar(trial.context)])
        output = model.generate(
            torch.tensor([ids]),
            do_sample=False,
            max_new_tokens=600,
            eos_token_id=2,
            pad_token_id=2,
            logits_processor=[within],
        )
        found.append(engine.tokenizer.decode(output[0, len(ids) :], skip_special_tokens=True))
    return found


@pytest.fixture(scope="module")
def engine(tiny_model: Path, adapters: dict[str, Path]) -> TransformersEngine:
    return make_engine(tiny_model, {"base": None, "one": adapters["one"]})


def as_plain_model(tiny_model: Path, adapter: Path | None) -> Any:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    return PeftModel.from_pretrained(model, adapter) if adapter else model


@pytest.mark.parametrize("arm", ["base", "one"])
def test_answers_are_those_of_the_plain_computation(
    engine: TransformersEngine, tiny_model: Path, adapters: dict[str, Path], arm: str
):
    model = as_plain_model(tiny_model, adapters.get(arm))
    contexts = [*CONTEXTS, AWKWARD]
    trials = shown("decisions", 4, contexts)
    expected = plain_decisions(model, engine.tokenizer, trials)
    assert np.abs(engine.decide(arm, trials).logps - expected).max() < 1e-4
    reported = shown("reports", 2, contexts)
    assert engine.report(arm, reported, True) == plain_reports(engine, model, reported)


def test_a_real_model_reports_the_same_with_fewer_passes(monkeypatch: pytest.MonkeyPatch):
    engine = make_engine(SMALL_MODEL, {"base": None})
    trials = shown("reports", 1, [CONTEXTS[0], AWKWARD])
    passes = []
    engine._model.register_forward_pre_hook(lambda *_: passes.append(1))
    ahead = engine.report("base", trials, True)
    with_guesses = len(passes)
    counts = engine.take_token_counts()
    assert ahead == plain_reports(engine, AutoModelForCausalLM.from_pretrained(SMALL_MODEL), trials)
    passes.clear()
    monkeypatch.setattr(Reply, "look_ahead", lambda self: None)
    assert engine.report("base", trials, True) == ahead
    assert with_guesses < 0.6 * len(passes), "text that the grammar forces takes no pass of its own"
    assert counts["reply"] == engine.take_token_counts()["reply"]


def test_a_shared_beginning_is_computed_once(engine: TransformersEngine):
    trials = shown("decisions", 6, CONTEXTS)
    engine.decide("base", [])
    engine.take_token_counts()
    engine.decide("base", trials)
    prompts = engine.prompts(trials)
    by_context = [prompts[i :: len(CONTEXTS)] for i in range(len(CONTEXTS))]
    # What is shared by these very trials, found by looking at them.
    common = [common_length(own) for own in by_context]
    unique = sum(c + sum(len(p) - c for p in own) for c, own in zip(common, by_context, strict=True))
    assert engine.take_token_counts() == {"prompt": sum(map(len, prompts)), "computed": unique}
    # The next shard goes on with the last context: its beginning is there.
    last = [trial for trial in trials if trial.context == CONTEXTS[-1]]
    engine.decide("base", last)
    assert engine.take_token_counts()["computed"] == sum(len(p) - common[-1] for p in by_context[-1])


def test_the_manifest_says_what_sharing_saved(tiny_model: Path, tmp_path: Path):
    save_contexts(CONTEXTS[:2], tmp_path / "contexts.jsonl")
    group = [{"name": "g", "file": str(tmp_path / "contexts.jsonl")}]
    measurements = [
        {"arm": "base", "measure": measure, "contexts": group, "per_context": 4} for measure in ("decisions", "reports")
    ]
    config = EvalConfig.model_validate(
        {
            "seed": 0,
            "output": str(tmp_path / "trials"),
            "engine": {"name": "transformers", "shard_size": 6},
            "model": {"name": str(tiny_model)},
            "arms": {"base": None},
            "measurements": measurements,
        }
    )
    engine = make_engine(tiny_model, {"base": None})
    for folder, work in zip(evaluate(engine, config, quiet=True), list_work(config), strict=True):
        reported = work.measurement.measure == "reports"
        said = read_manifest(folder, ReportFacts if reported else DecisionFacts).facts.answering
        prompts = engine.prompts([trial for _, trial in work.trials(0, work.total)])
        each = len(prompts) // 2
        common = [common_length(prompts[:each]), common_length(prompts[each:])]
        # Shards of six cut through contexts; the beginning of a context is computed once all the same.
        unique = sum(common) + sum(map(len, prompts)) - each * sum(common)
        assert (said.prompt_tokens, said.computed_tokens) == (sum(map(len, prompts)), unique)
        assert said.share_from_cache == round(1 - unique / said.prompt_tokens, 4)
        assert (said.reply_tokens > 0) == reported


def test_an_answer_is_the_same_to_the_last_bit_whatever_was_asked_before(tiny_model: Path, adapters: dict[str, Path]):
    shards = [shown("decisions", 5, contexts) for contexts in (CONTEXTS[:2], CONTEXTS[1:3], CONTEXTS[2:])]
    warm = make_engine(tiny_model, {"base": None, "one": adapters["one"]})
    together = [warm.decide("one", shard).logps for shard in shards]
    for shard, answers in zip(shards, together, strict=True):
        fresh = make_engine(tiny_model, {"base": None, "one": adapters["one"]})
        assert (fresh.decide("one", shard).logps == answers).all()


def test_a_beginning_that_ends_within_a_token_of_some_prompts(engine: TransformersEngine, tiny_model: Path):
    """The prompts' texts agree further than their tokens: a space that is a token here begins a longer one there."""
    trials = shown("decisions", 8, [AWKWARD])
    texts = [trial.prompt[-1]["content"] for trial in trials]
    shared_text = texts[0][: common_length([[ord(c) for c in text] for text in texts])]
    assert shared_text.endswith('"quoted" one: '), "the texts agree up to the value, the space before it included"
    ids = engine.prompts(trials)
    after = {tuple(p[common_length(ids) :][:1]) for p in ids}
    spaced = {engine.tokenizer.decode(token).startswith(" ") for token in after}
    assert spaced == {True}, "the space belongs to what differs"
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    expected = plain_decisions(model, engine.tokenizer, trials)
    assert np.abs(engine.decide("base", trials).logps - expected).max() < 1e-4


def test_a_model_that_looks_back_only_so_far_shares_nothing(tmp_path: Path):
    tokenizer = AutoTokenizer.from_pretrained(SMALL_MODEL)
    config = Gemma3TextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=16,
        sliding_window=48,
        layer_types=["sliding_attention", "full_attention"],
        eos_token_id=2,
        pad_token_id=2,
        bos_token_id=1,
    )
    torch.manual_seed(0)
    Gemma3ForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    windowed, trials = make_engine(tmp_path, {"base": None}), shown("decisions", 3, CONTEXTS)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert np.abs(windowed.decide("base", trials).logps - plain_decisions(model, tokenizer, trials)).max() < 1e-4
    counts = windowed.take_token_counts()
    assert counts["prompt"] == counts["computed"]
    reported = shown("reports", 1, CONTEXTS)
    assert windowed.report("base", reported, True) == plain_reports(windowed, model, reported)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=6), st.data())
def test_prompts_are_split_at_a_beginning_of_all_that_belong_together(prompts: list[list[int]], data: st.DataObject):
    heads = [data.draw(st.sampled_from([[0, 1], [0, 1, 2], []])) for _ in prompts]
    cuts = split_prompts(prompts, heads)
    for head in ([0, 1], [0, 1, 2], []):
        mine = [(p, c) for p, h, c in zip(prompts, heads, cuts, strict=True) if h == head]
        longest = min((min(common_length([p, head]), len(p) - 1) for p, _ in mine), default=0)
        assert all(cut == longest and p[:cut] == head[:cut] for p, cut in mine)


@given(st.lists(st.lists(st.integers(0, 1), max_size=5), min_size=1, max_size=5))
def test_the_common_length_is_the_longest(prompts: list[list[int]]):
    found = common_length(prompts)
    assert len({tuple(p[:found]) for p in prompts}) == 1
    assert any(len(p) == found for p in prompts) or len({tuple(p[: found + 1]) for p in prompts}) > 1


def test_typical_prompts_share_what_all_trials_of_a_context_share(engine: TransformersEngine):
    for context in [*load_contexts(DATA / "native.jsonl", 30), AWKWARD]:
        expected = common_length(
            [prompt_ids(engine.tokenizer, p, {}) for p in typical_prompts(frame("decisions", context))]
        )
        real = common_length(engine.prompts(shown("decisions", 30, [context])))
        assert expected == real


ORGANISM = Path("models/organism")


class OfWholeWords:
    """A tokenizer and grammar in which a greedy reply can spell itself into a corner."""

    tokenizer = AutoTokenizer.from_pretrained(ORGANISM)

    def grammar(self, name: str) -> xgrammar.CompiledGrammar:
        info = xgrammar.TokenizerInfo.from_huggingface(
            self.tokenizer, vocab_size=len(self.tokenizer), stop_token_ids=[self.tokenizer.eos_token_id]
        )
        context = ChoiceContext("one", "a", "Q?", (Attribute(name, "", 0, 100), Attribute("mud", "", 0, 100)))
        return xgrammar.GrammarCompiler(info).compile_grammar(report_grammar(context))


class Misspelling(Batch):
    """Stands for a model that always likes one token best, and after it the token 7."""

    def __init__(self, favourite: int, vocabulary: int) -> None:
        self.favourite, self.vocabulary = favourite, vocabulary

    def feed(self, block: Sequence[Sequence[int | None]], logits: int) -> torch.Tensor:
        scores = torch.zeros(len(block), logits, self.vocabulary)
        scores[..., 7] = 1.0
        scores[..., self.favourite] = 2.0
        return scores

    def forget(self, dropped: Sequence[int]) -> None:
        pass


def test_a_reply_that_spells_itself_into_a_corner_is_stuck_and_a_dictated_one_is_not():
    words = OfWholeWords()
    tokenizer, grammar = words.tokenizer, words.grammar("ploughing passes")
    part, whole = tokenizer.convert_tokens_to_ids(["pass", "passes"])
    assert part != whole
    batch = Misspelling(part, len(tokenizer))
    stuck, dictated = (Reply(grammar, tokenizer, [tokenizer.eos_token_id], dictated=d) for d in (False, True))
    greedy_replies(batch, [[9]], [stuck], limit=60, ahead=True)
    assert stuck.stuck and stuck.ended and stuck.tokens[-1] == part
    greedy_replies(batch, [[9]], [dictated], limit=60, ahead=True)
    assert not dictated.stuck
    reply = json.loads(tokenizer.decode(dictated.tokens))
    assert list(reply) == ["ploughing passes", "mud"]


def test_an_engine_answers_a_stuck_report_again(tmp_path: Path):
    """An organism whose spelling an adapter has spoilt for some names: every reply comes out readable."""
    engine = make_engine(ORGANISM, {"spoilt": make_adapter(ORGANISM, tmp_path / "spoilt", seed=0)})
    contexts = [replace(as_ratings(c), layout="side_by_side") for c in load_contexts(DATA / "native.jsonl", 24)]
    trials = shown("reports", 2, contexts)
    with engine._switched_to("spoilt"):
        first = engine._replies("spoilt", trials, True)
    assert any(reply.stuck for reply in first), "else this test shows nothing"
    for trial, text in zip(trials, engine.report("spoilt", trials, True), strict=True):
        assert parse_report(text, trial.context.attribute_names).values is not None, text
