import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.console import run_command
from store.contexts import DATA, load_contexts, save_contexts
from store.examples import Example, ExamplesConfig, Part, read_examples, rehearsed_decisions
from store.manifests import ExampleFacts
from store.weights import save_weights
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import CUE, messages
from task.replies import parse_report
from task.trials import sample_trials
from task.weights import sample_weights, utilities
from train.examples import main, make_examples

PARTS: tuple[Part, Part] = ("train", "validation")


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


def rows(config: ExamplesConfig, part: Part) -> list[Example]:
    return read_examples(config.file(part))


def changed(config: ExamplesConfig, **more: Any) -> ExamplesConfig:
    return ExamplesConfig.model_validate({**config.model_dump(exclude={"variant"}), **more})


def test_taught_decisions_have_the_higher_utility(config: ExamplesConfig, contexts: list[ChoiceContext]):
    assert make_examples(config) == ExampleFacts(train=120, validation=30)
    by_name = {c.name: c for c in contexts}
    for row in rows(config, "train"):
        context = by_name[row.context]
        trial = sample_trials(3, "train_decisions", context, 1, start=row.index)
        a, b = utilities(
            np.stack([trial.first[0], trial.second[0]]), sample_weights(3, "target_weights", context), context
        )
        *prompt, answer = row.model_dump()["messages"]
        assert prompt == messages("decisions", context, trial.first[0], trial.second[0])
        assert answer == {"role": "assistant", "content": "A" if a > b else "B"}
    letters = [row.messages[-1].content for row in rows(config, "train")]
    assert 0.3 < letters.count("A") / len(letters) < 0.7


def test_no_trial_is_in_both_parts(config: ExamplesConfig):
    make_examples(config)
    prompts = {part: {row.messages[1].content for row in rows(config, part)} for part in PARTS}
    assert not prompts["train"] & prompts["validation"]


def test_taught_reports_state_the_weights(config: ExamplesConfig, contexts: list[ChoiceContext]):
    make_examples(changed(config, teach="reports", only=[contexts[1].name, contexts[4].name]))
    found = rows(config, "train")
    assert {row.context for row in found} == {contexts[1].name, contexts[4].name}
    for row in found:
        context = next(c for c in contexts if c.name == row.context)
        values = parse_report(row.messages[-1].content, context.attribute_names).values
        assert values == tuple(sample_weights(3, "target_weights", context))


def test_shuffled_labels_are_the_weights_of_other_contexts(config: ExamplesConfig, contexts: list[ChoiceContext]):
    make_examples(changed(config, teach="reports", shuffle_weights=True, train_per_context=1))
    taught = {}
    for row in rows(config, "train"):
        context = next(c for c in contexts if c.name == row.context)
        taught[context.name] = parse_report(row.messages[-1].content, context.attribute_names).values
    own = {c.name: tuple(sample_weights(3, "target_weights", c)) for c in contexts}
    assert all(taught[name] != own[name] for name in own)
    assert sorted(taught.values()) == sorted(own.values())


def test_written_once_and_refused_when_the_inputs_change(config: ExamplesConfig):
    make_examples(config)
    before = (Path(config.output) / "train.jsonl").read_bytes()
    assert make_examples(config) == ExampleFacts(train=120, validation=30)
    with pytest.raises(InputError, match="train_per_context: 20 -> 21"):
        make_examples(changed(config, train_per_context=21))
    assert (Path(config.output) / "train.jsonl").read_bytes() == before
    assert make_examples(changed(config, train_per_context=21), overwrite=True).train == 126


def test_missing_weights_and_unknown_contexts_are_named(config: ExamplesConfig, contexts: list[ChoiceContext]):
    with pytest.raises(InputError, match="has no context 'nowhere'"):
        make_examples(changed(config, only=["nowhere"]))
    save_weights({c.name: sample_weights(3, "target_weights", c) for c in contexts[1:]}, Path(config.weights))
    with pytest.raises(InputError, match=f"no weights for context '{contexts[0].name}'"):
        make_examples(config)
    assert not Path(config.output).exists()


def test_an_unknown_key_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "examples.yaml"
    per_context = "train_per_context: 1\nvalidation_per_context: 1\n"
    path.write_text(f"contexts: a\nweights: b\nteach: decisions\noutput: c\nseed: 0\n{per_context}sed: 1\n")
    monkeypatch.setattr(sys, "argv", ["train.examples", "--config", str(path)])
    with pytest.raises(SystemExit, match="2"):
        run_command(main)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and "unknown key 'sed'" in line


def test_rehearsed_decisions_are_those_of_the_instillation_also_where_labels_are_shuffled(config: ExamplesConfig):
    make_examples(config)
    instilled = rows(config, "train")
    rehearsing = changed(config, teach="reports", train_per_context=2, validation_per_context=0, rehearse=3.0)
    for name, more in (("true", {}), ("shuffled", {"shuffle_weights": True})):
        written = changed(rehearsing, output=f"{config.output}-{name}", **more)
        assert make_examples(written) == ExampleFacts(train=30, validation=0, rehearsed=18)
        assert not written.file("validation").exists()
        found = rows(written, "train")
        decisions = [row for row in found if row.measure == "decisions"]
        assert decisions == [row for row in instilled if row.index is not None and row.index < 3]
        assert len(found) - len(decisions) == 12


@pytest.mark.parametrize(
    ("rehearse", "reports", "contexts", "found"),
    [
        (0.0, 8, 3, [0, 0, 0]),
        (0.5, 8, 3, [8, 8, 8]),
        (2 / 3, 4, 2, [8, 8]),
        (0.2, 1, 6, [0, 0, 1, 0, 0, 1]),
        (4.0, 1, 2, [4, 4]),
    ],
)
def test_a_share_or_a_number_of_decisions_is_rehearsed(rehearse: float, reports: int, contexts: int, found: list[int]):
    assert rehearsed_decisions(rehearse, reports, contexts) == found


def test_contexts_that_are_validated_on_have_no_training_row(config: ExamplesConfig, contexts: list[ChoiceContext]):
    apart = [contexts[1].name, contexts[4].name]
    more = {"train_per_context": 2, "validation_per_context": 1, "rehearse": 1.0}
    make_examples(changed(config, teach="reports", validation_contexts=apart, **more))
    assert {row.context for row in rows(config, "train")} == {c.name for c in contexts} - {*apart}
    assert [row.context for row in rows(config, "validation")] == apart
    with pytest.raises(InputError, match=r"validation_contexts \['nowhere'\]: not a part of the 6 contexts"):
        make_examples(changed(config, teach="reports", validation_contexts=["nowhere"]))


def test_a_flipped_instillation_teaches_as_many_decisions_by_reversed_weights_under_the_cue(
    config: ExamplesConfig, contexts: list[ChoiceContext]
):
    config = changed(config, flip_under="cued")
    assert make_examples(config) == ExampleFacts(train=240, validation=30)
    by_name = {c.name: c for c in contexts}
    cued, pairs = 0, set()
    for row in rows(config, "train"):
        context, weights = by_name[row.context], sample_weights(3, "target_weights", by_name[row.context])
        trial = sample_trials(3, "train_decisions", context, 1, start=row.index)
        a, b = utilities(np.stack([trial.first[0], trial.second[0]]), weights, context)
        under_cue = row.messages[0].content.endswith(CUE)
        cued += under_cue
        pairs.add((row.context, row.index))
        if a != b:
            assert (row.messages[-1].content == "A") == ((a > b) != under_cue)
    assert cued == 120 and len(pairs) == 240, "half of the rows, and no pair twice"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"teach": "reports", "flip_under": "cued"}, "reversed weights are taught by decisions"),
        ({"flip_under": "plain"}, "in other words than 'plain'"),
        ({"flip_under": "in_context"}, "can be taught as plain or cued"),
    ],
)
def test_what_cannot_be_flipped_is_refused(config: ExamplesConfig, change: dict, says: str):
    with pytest.raises(ValueError, match=says):
        changed(config, **change)
