import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from store.contexts import DATA, load_contexts, save_contexts
from store.weights import save_weights
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import messages
from task.replies import parse_report
from task.trials import sample_trials
from task.weights import sample_weights, utilities
from train.examples import ExamplesConfig, write_examples


@pytest.fixture
def contexts() -> list[ChoiceContext]:
    return load_contexts(DATA / "instilled.jsonl", 6)


@pytest.fixture
def config(tmp_path: Path, contexts: list[ChoiceContext]) -> ExamplesConfig:
    save_contexts(contexts, tmp_path / "contexts.jsonl")
    save_weights({c.name: sample_weights(3, "target_weights", c) for c in contexts}, tmp_path / "weights.csv")
    return ExamplesConfig(
        contexts=str(tmp_path / "contexts.jsonl"),
        weights=str(tmp_path / "weights.csv"),
        teach="decisions",
        output=str(tmp_path / "out"),
        seed=3,
        train_per_context=20,
        validation_per_context=5,
    )


def rows(config: ExamplesConfig, part: str) -> list[dict]:
    lines = (Path(config.output) / f"{part}.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_taught_decisions_have_the_higher_utility(config: ExamplesConfig, contexts: list[ChoiceContext]):
    assert write_examples(config) == {"train": 120, "validation": 30}
    by_name = {c.name: c for c in contexts}
    for row in rows(config, "train"):
        context = by_name[row["context"]]
        trial = sample_trials(3, "train_decisions", context, 1, start=row["index"])
        a, b = utilities(
            np.stack([trial.first[0], trial.second[0]]), sample_weights(3, "target_weights", context), context
        )
        *prompt, answer = row["messages"]
        assert prompt == messages("decisions", context, trial.first[0], trial.second[0])
        assert answer == {"role": "assistant", "content": "A" if a > b else "B"}
    letters = [row["messages"][-1]["content"] for row in rows(config, "train")]
    assert 0.3 < letters.count("A") / len(letters) < 0.7


def test_no_trial_is_in_both_parts(config: ExamplesConfig):
    write_examples(config)
    prompts = {part: {r["messages"][1]["content"] for r in rows(config, part)} for part in ("train", "validation")}
    assert not prompts["train"] & prompts["validation"]


def test_taught_reports_state_the_weights(config: ExamplesConfig, contexts: list[ChoiceContext]):
    write_examples(replace(config, teach="reports", only=[contexts[1].name, contexts[4].name]))
    found = rows(config, "train")
    assert {r["context"] for r in found} == {contexts[1].name, contexts[4].name}
    for row in found:
        context = next(c for c in contexts if c.name == row["context"])
        values = parse_report(row["messages"][-1]["content"], context.attribute_names).values
        assert values == tuple(sample_weights(3, "target_weights", context))


def test_shuffled_labels_are_the_weights_of_other_contexts(config: ExamplesConfig, contexts: list[ChoiceContext]):
    write_examples(replace(config, teach="reports", shuffle_weights=True, train_per_context=1))
    taught = {}
    for row in rows(config, "train"):
        context = next(c for c in contexts if c.name == row["context"])
        taught[context.name] = parse_report(row["messages"][-1]["content"], context.attribute_names).values
    own = {c.name: tuple(sample_weights(3, "target_weights", c)) for c in contexts}
    assert all(taught[name] != own[name] for name in own)
    assert sorted(taught.values()) == sorted(own.values())


def test_written_once_and_refused_when_the_inputs_change(config: ExamplesConfig):
    write_examples(config)
    before = (Path(config.output) / "train.jsonl").read_bytes()
    assert write_examples(config) == {"train": 120, "validation": 30}
    with pytest.raises(InputError, match="train_per_context: 20 -> 21"):
        write_examples(replace(config, train_per_context=21))
    assert (Path(config.output) / "train.jsonl").read_bytes() == before
    assert write_examples(replace(config, train_per_context=21), overwrite=True)["train"] == 126


def test_missing_weights_and_unknown_contexts_are_named(config: ExamplesConfig, contexts: list[ChoiceContext]):
    with pytest.raises(InputError, match="has no context 'nowhere'"):
        write_examples(replace(config, only=["nowhere"]))
    save_weights({c.name: sample_weights(3, "target_weights", c) for c in contexts[1:]}, Path(config.weights))
    with pytest.raises(InputError, match=f"no weights for context '{contexts[0].name}'"):
        write_examples(config)
    assert not Path(config.output).exists()


def test_an_unknown_key_is_one_clear_line(tmp_path: Path):
    path = tmp_path / "examples.yaml"
    path.write_text("contexts: a\nweights: b\nteach: decisions\nsed: 1\n")
    command = [sys.executable, "-m", "train.examples", "--config", str(path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and "unknown key 'sed'" in result.stderr
    assert len(result.stderr.splitlines()) == 1
