"""Experiments in other words: a wording file in place of ours, and a training that teaches a variant."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer

from eval.engines import make_engine
from eval.runner import evaluate
from experiment.file import Experiment
from experiment.launcher import check_unchanged, plan_runs
from experiment.plan import Run, other_words
from experiment.prepare import prepare
from experiment.tokens import token_counter
from store.contexts import DATA, load_contexts
from store.evaluation import EngineSettings, EvalConfig
from store.examples import ExamplesConfig, read_examples
from store.files import hash_file
from store.model_file import ModelFile
from store.run import read_run
from store.settings import read_settings
from store.stages import read_origin
from store.wordings import WordingFile, WordingText, dump_wordings, read_wordings
from support import ROOT, SMALL_MODEL
from task.chat import prompt_ids
from task.errors import InputError
from task.prompts import frame
from task.trials import sample_trials
from train.examples import make_examples

WORDS = WordingFile(
    decisions=WordingText(
        system="You pick.",
        instruction="Say A or B.",
        scene="You are {agent}. {question}",
        heading="{letter}:",
        line="{name}: {value}",
        numbers="floats",
        lines_before_scene=1,
        lines_before_options=0,
        lines_between_options=1,
    ),
    reports=WordingText(
        system="You tell.",
        instruction="How much did each count?",
        scene="You are {agent}. {question}",
        heading="{letter}:",
        line="{name}: {value}",
        numbers="floats",
        lines_before_scene=1,
        lines_before_options=0,
        lines_between_options=1,
    ),
)


def plan(folder: Path, name: str, wording: WordingFile | None = WORDS, **change: Any) -> Run:
    """A run of a bundled experiment on few contexts, in the words of a file."""
    values = yaml.safe_load((ROOT / "configs" / "experiments" / f"{name}.yaml").read_text()) | change
    for group in values["contexts"].values():
        group["count"] = 6
    if wording is not None:
        (folder / "words.yaml").write_text(dump_wordings(wording))
        values["wording"] = str(folder / "words.yaml")
    (folder / "experiment.yaml").write_text(yaml.safe_dump(values))
    [run] = plan_runs(folder / "experiment.yaml", folder)
    return run


def test_a_run_is_taught_and_asked_in_the_words_of_the_file(tmp_path: Path):
    run = plan(tmp_path, "demo", seeds=[0])
    prepare(run, False)
    assert hash_file(run.folder.wording) == hash_file(tmp_path / "words.yaml")
    assert read_run(run.folder.path).wording == f"words.yaml ({hash_file(tmp_path / 'words.yaml')})"
    for arm, taught in (("instilled", "decisions"), ("introspection_fold_1", "reports")):
        config = read_settings(run.folder.stage_config(f"{arm}.examples"), ExamplesConfig)
        make_examples(config)
        words = getattr(WORDS, taught)
        of_measure = [row for row in read_examples(config.file("train")) if row.measure == taught]
        for row in of_measure:
            system, user, _ = row.messages
            assert system.content == words.system and user.content.startswith(f"{words.instruction}\n\nYou are ")
            assert ".0" in user.content and "\n-" not in user.content
        assert of_measure
    evaluation = read_settings(run.folder.stage_config("evaluate"), EvalConfig)
    by_measure = {m.measure: evaluation.framings_of(m)[0][1].wording for m in evaluation.measurements}
    assert by_measure == dict(WORDS.wordings)


def test_another_wording_is_another_run(tmp_path: Path):
    run = plan(tmp_path, "variants")
    assert [str(state) for state in check_unchanged(run, ()).values()] == ["missing"] * 3
    prepare(run, False)
    config = read_settings(run.folder.stage_config("evaluate"), EvalConfig)
    asked_in_words, others = [], []
    for folder in evaluate(make_engine(config), config, quiet=True):
        named = "wording" in read_origin(folder).depends_on
        (asked_in_words if named else others).append(folder.name)
    assert {*asked_in_words} == {"decisions", "reports", "reports-after_choice"}
    assert {*others} == {
        "decisions-in_context",
        *(f"reports-{n}" for n in ("explained", "in_context", "no_trial", "third_person")),
    }
    assert check_unchanged(run, ())["evaluate"].name == "finished"
    changed = WORDS.model_copy(update={"reports": WORDS.reports.model_copy(update={"instruction": "And?"})})
    other = plan(tmp_path, "variants", changed)
    with pytest.raises(InputError, match=r"made from other inputs: wording: "):
        prepare(other, False)


def test_the_words_of_a_choice_that_is_asked_about_are_those_of_the_file(tmp_path: Path):
    run = plan(tmp_path, "variants")
    prepare(run, False)
    config = read_settings(run.folder.stage_config("evaluate"), EvalConfig)
    [context, *_] = run.groups["instilled"]
    assert config.decision(context).wording == WORDS.wordings["decisions"]
    assert EvalConfig(**{**config.model_dump(), "wording": None}).decision(context) == frame("decisions", context)


def test_a_wording_file_that_is_not_there_ends_the_plan(tmp_path: Path):
    values = yaml.safe_load((ROOT / "configs" / "experiments" / "simulated.yaml").read_text())
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump({**values, "wording": "nowhere.yaml"}))
    with pytest.raises(InputError, match=r"nowhere\.yaml: no such"):
        plan_runs(tmp_path / "experiment.yaml", tmp_path)


def test_without_a_file_a_run_says_the_names_of_our_words(tmp_path: Path):
    run = plan(tmp_path, "simulated", None)
    assert run.record.wording == "plain/trial" and run.wording is None


def test_the_longest_prompt_is_bounded_where_numbers_are_floats(tmp_path: Path):
    (tmp_path / "words.yaml").write_text(dump_wordings(WORDS))
    wordings = read_wordings(tmp_path / "words.yaml")
    tokenizer = AutoTokenizer.from_pretrained(SMALL_MODEL)
    count = token_counter(ModelFile(name=str(SMALL_MODEL)), EngineSettings(), 0, wordings)
    [context] = load_contexts(DATA / "instilled.jsonl", 1)
    narrow = dataclasses.replace(context.attributes[0], low=0.5, high=1.0)
    context = dataclasses.replace(context, attributes=(narrow, *context.attributes[1:]))
    trials = sample_trials(0, "decisions", context, 60)
    framing = frame("decisions", context, wordings=wordings)
    lengths = [
        len(prompt_ids(tokenizer, framing.messages(a, b), {})) for a, b in zip(trials.first, trials.second, strict=True)
    ]
    assert max(lengths) <= count("decisions", "plain", context).longest_prompt <= max(lengths) + 12


def experiment(**trainings: Any) -> Experiment:
    values = yaml.safe_load((ROOT / "configs" / "experiments" / "demo.yaml").read_text())
    for name, change in trainings.items():
        values["trainings"][name] |= change
    return Experiment.model_validate(values)


def test_a_training_teaches_the_variant_that_it_names(tmp_path: Path):
    run = plan(tmp_path, "demo", None, seeds=[0])
    values = yaml.safe_load((tmp_path / "experiment.yaml").read_text())
    values["trainings"]["introspection"]["variant"] = "explained"
    (tmp_path / "experiment.yaml").write_text(yaml.safe_dump(values))
    [explained] = plan_runs(tmp_path / "experiment.yaml", tmp_path)
    stages = [{s.name: s.config for s in r.stages}["introspection_fold_1.examples"] for r in (run, explained)]
    assert [config["variant"] for config in stages] == ["trial", "explained"]
    prepare(explained, False)
    config = ExamplesConfig.model_validate(stages[1])
    make_examples(config)
    reports = [row for row in read_examples(config.file("train")) if row.measure == "reports"]
    assert reports and all(row.messages[1].content.startswith("Two options are shown.") for row in reports)


@pytest.mark.parametrize("variant", ["in_context", "after_choice", "no_trial", "loud"])
def test_a_variant_that_cannot_be_taught_is_refused(variant: str):
    with pytest.raises(ValueError, match=rf"variant '{variant}': reports can be taught as trial or explained or"):
        experiment(introspection={"variant": variant})


def test_words_that_an_arm_was_not_taught_in_are_a_warning():
    assert other_words(experiment()) == []
    found = other_words(experiment(introspection={"variant": "explained"}, shuffled={"variant": "explained"}))
    [line] = found
    assert line.startswith("reports taught as explained are measured as trial (introspection, shuffled")
