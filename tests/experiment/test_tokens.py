"""Sizes of an evaluation before it runs, against every prompt of it counted one by one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from experiment.file import ArmMeasurement, Experiment
from experiment.plan import Run
from experiment.planned import TrialTokens
from experiment.tokens import token_counter
from store.contexts import DATA, load_contexts
from store.evaluation import EngineSettings
from store.model_file import ModelFile
from store.run import RunFolder
from support import SMALL_MODEL
from task.chat import prompt_ids
from task.contexts import Attribute, ChoiceContext
from task.prompts import PROMPTS, Measure, Variant, frame, longest_report, report_answer
from task.trials import sample_trials
from task.weights import sample_weights

MODEL = ModelFile(name=str(SMALL_MODEL))
TOKENIZER = AutoTokenizer.from_pretrained(SMALL_MODEL)
WIDE = ChoiceContext(
    "wide",
    "a tester",
    "Which would you take?",
    (Attribute("debt", "euros", -250_000, 9), Attribute("share", "", 0.001, 0.2), Attribute("age", "years", 0, 99)),
)
CONTEXTS = [*load_contexts(DATA / "instilled.jsonl", 6), *load_contexts(DATA / "native.jsonl", 4), WIDE]
ALL = [(measure, variant) for measure, variants in PROMPTS.items() for variant in variants]


def prompts(measure: Measure, variant: Variant, context: ChoiceContext, count: int) -> list[list[int]]:
    """Token ids of the first prompts of a context, in both orders."""
    trials = sample_trials(0, measure, context, count)
    found = []
    for i in range(count):
        told = sample_weights(i, "told_weights", context)
        framing = frame(measure, context, variant, told=told, chose="AB"[i % 2])  # type: ignore[arg-type]
        for a, b in ((trials.first[i], trials.second[i]), (trials.second[i], trials.first[i])):
            found.append(prompt_ids(TOKENIZER, framing.messages(a, b), {}))
    return found


@pytest.mark.parametrize(("measure", "variant"), ALL)
def test_no_prompt_and_no_reply_is_longer_than_the_bound(measure: Measure, variant: Variant):
    count = token_counter(MODEL, EngineSettings(), 0)
    slack = []
    for context in CONTEXTS:
        found = count(measure, variant, context)
        longest = max(map(len, prompts(measure, variant, context, 25)))
        assert longest <= found.longest_prompt
        slack.append(found.longest_prompt - longest)
        if measure == "reports":
            for seed in range(20):
                answer = report_answer(context, sample_weights(seed, "target_weights", context))
                assert len(TOKENIZER(answer)["input_ids"]) < found.longest_reply
            assert found.longest_reply == EngineSettings().report_tokens, "free replies"
    assert np.mean(slack) < 16, "the bound is near enough to be of use"


def test_a_bound_without_the_tokenizer_holds_too():
    count = token_counter(ModelFile(name="nobody/nothing"), EngineSettings(report_tokens=99), 0)
    for measure, variant in ALL:
        found = count(measure, variant, WIDE)
        assert found.longest_prompt >= max(map(len, prompts(measure, variant, WIDE, 20)))
        assert found.longest_reply == (1 if measure == "decisions" else 99)


def experiment(measurements: list[dict[str, Any]]) -> Experiment:
    """An experiment with these measurements alone, though its gate and comparison ask for others."""
    base = {"arm": "off_the_shelf", "contexts": "instilled"}
    found = Experiment.model_validate(
        {
            "name": "sizes",
            "seeds": [0],
            "model": "unused.yaml",
            "contexts": {"instilled": {"file": "task/data/instilled.jsonl", "count": 4}},
            "measurements": [{**base, "measure": m, "per_context": 1} for m in ("decisions", "reports")],
            "comparisons": [{"name": "c", "reports": base["arm"], "weights": base["arm"], "contexts": "instilled"}],
            "gate": base,
        }
    )
    return found.model_copy(update={"measurements": [ArmMeasurement(**{**base, **m}) for m in measurements]})


def evaluation(measurements: list[dict[str, Any]], **engine: Any) -> Any:
    wanted = experiment(measurements).model_copy(update={"engine": EngineSettings(**engine)})
    groups = {"instilled": CONTEXTS[:4]}
    counter = token_counter(MODEL, wanted.engine, 0)
    run = Run(wanted, MODEL, groups, 0, RunFolder(Path("runs/sizes-seed0")), counter)
    return next(stage for stage in run.stages if stage.kind == "evaluate")


def test_unique_tokens_are_those_of_a_cache_that_holds_each_context_once():
    stage = evaluation([{"measure": "decisions", "per_context": 10}])
    unique = total = 0
    for context in CONTEXTS[:4]:
        ids = prompts("decisions", "plain", context, 10)
        total += sum(map(len, ids)) + len(ids)
        shared = next(i for i, column in enumerate(zip(*ids, strict=False)) if len({*column}) > 1)
        unique += shared + sum(len(p) - shared for p in ids) + len(ids)
    assert stage.size == "80 trials in 1 files from 1 arms"
    assert abs(stage.tokens - total) < 0.03 * total, "estimated from the first trial of each context"
    assert abs(stage.unique - unique) < 0.05 * unique and stage.unique < 0.75 * stage.tokens


def test_a_report_after_the_own_choice_costs_the_choice_too():
    after = evaluation([{"measure": "reports", "variant": "after_choice", "per_context": 5}])
    counter = token_counter(MODEL, EngineSettings(), 0)
    kinds = (("reports", "after_choice"), ("decisions", "plain"))
    each: list[TrialTokens] = [counter(m, v, c) for m, v in kinds for c in CONTEXTS[:4]]  # type: ignore[arg-type]
    assert after.size.startswith("20 trials")
    assert after.tokens == sum(5 * (t.prompt + t.reply) for t in each)


def test_lengths_reach_the_evaluation_unless_they_are_given():
    wanted = [{"measure": "decisions", "per_context": 1}, {"measure": "reports", "per_context": 1}]
    engine = evaluation(wanted).config["engine"]
    counter = token_counter(MODEL, EngineSettings(), 0)
    found = [counter(m, v, c) for m, v in (("decisions", "plain"), ("reports", "trial")) for c in CONTEXTS[:4]]
    assert engine["max_prompt_tokens"] == max(t.longest_prompt for t in found)
    assert engine["max_reply_tokens"] == max(t.longest_reply for t in found)
    within = evaluation([{**wanted[1], "constrained": True}], report_tokens=20).config["engine"]
    assert within["max_reply_tokens"] == max(longest_report(c) for c in CONTEXTS[:4]) > 20
    assert f"no prompt is longer than {engine['max_prompt_tokens']} tokens" in evaluation(wanted).notes
    assert evaluation(wanted, max_prompt_tokens=4000).config["engine"]["max_prompt_tokens"] == 4000


def test_constrained_reports_are_measured_beside_free_ones_with_a_free_sample():
    free, within = (
        {"measure": "reports", "per_context": 5},
        {"measure": "reports", "per_context": 5, "constrained": True},
    )
    alone, both, more = (evaluation(m) for m in ([free], [free, within], [free, {**within, "free_samples": 3}]))
    assert both.size.startswith("40 trials in 2 files") and alone.size.startswith("20 trials in 1 files")
    assert [m["constrained"] for m in both.config["measurements"]] == [False, True]
    assert both.tokens == alone.tokens * (5 + 5 + 1) / 5 and more.tokens == alone.tokens * (5 + 5 + 3) / 5
    assert [m["free_samples"] for m in more.config["measurements"]] == [1, 3]


def test_variants_of_one_arm_are_files_of_their_own():
    wanted = [
        {"measure": "reports", "per_context": 2},
        {"measure": "reports", "variant": "third_person", "per_context": 2},
    ]
    config = evaluation(wanted).config
    assert [m["variant"] for m in config["measurements"]] == ["trial", "third_person"]
    assert config["told_weights"] is None
    told = evaluation([{"measure": "decisions", "variant": "in_context", "per_context": 2}]).config
    assert told["told_weights"] == "runs/sizes-seed0/inputs/told_weights.csv"
