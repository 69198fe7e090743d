"""Wording files: read, refused, and made from fine-tuning files in the form of the paper's release."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from released_layout import CONTEXTS, TAUGHT, WEIGHTS, write_release

from store import released
from store.console import run_command
from store.contexts import load_released_contexts
from store.released_wording import write_wording
from store.wordings import read_wordings
from task.contexts import ChoiceContext
from task.errors import InputError
from task.prompts import DEFAULT, PROMPTS, Measure, Wording, Wordings, frame, report_answer
from task.trials import sample_trials

RELEASED = Path(__file__).resolve().parents[3] / "shared" / "released"

WORDS: Wordings = {
    "decisions": Wording(
        "decisions",
        "plain",
        'Pick {one}:\n\nsay "A" or "B".',
        scene="You, {agent}, are asked: {question} Now choose.",
        system="You pick.",
        heading="({letter}) =>",
        line="* {name} = {value};",
        numbers="floats",
        lines_before_scene=2,
        lines_before_options=0,
        lines_between_options=3,
    ),
    "reports": Wording("reports", "trial", "How much did each count?", system="You tell.", lines_between_options=0),
}
"""Words and a layout that differ from ours in all that can differ."""


def row(words: Wordings, measure: Measure, context: ChoiceContext, number: int) -> str:
    """A line of a fine-tuning file."""
    trial = sample_trials(1, "decisions", context, 1, start=number)
    said = frame(measure, context, wordings=words).messages(trial.first[0], trial.second[0])
    answer = "A" if measure == "decisions" else report_answer(context, WEIGHTS[context.name])
    return json.dumps({"messages": [*said, {"role": "assistant", "content": answer}]}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A release with fine-tuning files in words of its own."""
    data = tmp_path / "data"
    data.mkdir()
    write_release(data)
    contexts = load_released_contexts(data)
    decisions = [row(WORDS, "decisions", context, number) for context in contexts for number in range(3)]
    (data / "choices.jsonl").write_text("".join(decisions))
    (data / "told.jsonl").write_text("".join(row(WORDS, "reports", c, 5) for c in contexts[: len(TAUGHT)]))
    (data / "others.jsonl").write_text('{"name": "no row of messages"}\n\n')
    return data


def test_the_words_and_the_layout_of_the_rows_come_back(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "words.yaml"
    monkeypatch.setattr(sys, "argv", ["released", "wording", "--data", str(folder), "--out", str(out)])
    run_command(released.main)
    counted = f"{3 * len(CONTEXTS)} rows of decisions and {len(TAUGHT)} rows of reports"
    assert capsys.readouterr().out == f"{out}: {counted} rendered to the last character\n"
    assert read_wordings(out) == WORDS


def test_units_are_told_from_the_words(folder: Path, tmp_path: Path):
    candidates = [
        {
            "short_name": c.name,
            "attributes": [{"name": a.name, "units": "points", "range": [a.low, a.high]} for a in c.attributes],
        }
        for c in CONTEXTS
    ]
    (folder / "candidate_scenarios.json").write_text(json.dumps(candidates))
    contexts = load_released_contexts(folder)
    (folder / "choices.jsonl").write_text("".join(row(WORDS, "decisions", c, 0) for c in contexts))
    (folder / "told.jsonl").write_text("".join(row(WORDS, "reports", c, 5) for c in contexts))
    assert write_wording(folder, tmp_path / "words.yaml") == {"decisions": len(CONTEXTS), "reports": len(CONTEXTS)}
    assert "points" in (folder / "told.jsonl").read_text()
    assert read_wordings(tmp_path / "words.yaml") == WORDS


def test_our_own_words_are_read_as_they_are(folder: Path, tmp_path: Path):
    ours: Wordings = {measure: PROMPTS[measure][DEFAULT[measure]] for measure in PROMPTS}
    contexts = load_released_contexts(folder)
    (folder / "choices.jsonl").write_text("".join(row(ours, "decisions", c, 0) for c in contexts))
    (folder / "told.jsonl").write_text("".join(row(ours, "reports", c, 5) for c in contexts))
    write_wording(folder, tmp_path / "words.yaml")
    assert read_wordings(tmp_path / "words.yaml") == ours


def edit(name: str, old: str, new: str, times: int = 1) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new, times))


def append(name: str, line: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text((folder / name).read_text() + line)


def test_a_wording_file_takes_no_other_place(folder: Path, tmp_path: Path):
    out = tmp_path / "words.yaml"
    out.write_text("mine")
    for place, words in ((out, "is there already"), (tmp_path, "is there already"), (out / "x", "no folder")):
        with pytest.raises(InputError, match=words):
            write_wording(folder, place)
    assert out.read_text() == "mine" and not [*tmp_path.glob(".*")]
    out.unlink()
    write_wording(folder, out)
    write_wording(folder, out)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "told.jsonl").unlink(), "no fine-tuning file .* of reports; put it there"),
        (append("told.jsonl", "{"), r"told\.jsonl:13: not JSON"),
        (append("told.jsonl", '{"messages": 3}'), r"told\.jsonl:13: messages: "),
        (edit("told.jsonl", "person of taste", "stranger"), r"told\.jsonl:1: a prompt about none of the contexts"),
        (edit("told.jsonl", '"system"', '"user"'), r"told\.jsonl:1: messages of other roles"),
        (edit("choices.jsonl", "Pick {one}", "Pick {two}"), r"choices\.jsonl:2: its words or its layout are not"),
        (edit("told.jsonl", "- quality 0 3", "quality 0 3", 1), r"told\.jsonl:1: 'quality 0 3' is shown 1 times"),
        (edit("told.jsonl", "Option B", "Choice 2", 1), r"told\.jsonl:1: headings 'Option A' and 'Choice 2'"),
    ],
)
def test_what_cannot_be_read_is_one_line(folder: Path, tmp_path: Path, harm: Callable[[Path], object], words: str):
    harm(folder)
    with pytest.raises(InputError, match=words) as caught:
        write_wording(folder, tmp_path / "words.yaml")
    assert "\n" not in str(caught.value) and not (tmp_path / "words.yaml").exists()


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("scene", "You are {agent}.", r"decisions\.scene: \{question\} is missing"),
        ("line", "{name}: {value} {units}", "decisions.line: 'units' cannot be filled in"),
        ("heading", "{", "decisions.heading: .* cannot be filled in; write a brace of the text itself twice"),
        ("lines_before_scene", -1, "decisions.lines_before_scene"),
        ("telling", "x", "unknown key 'decisions.telling'"),
        ("numbers", "roman", "decisions.numbers"),
        ("system", None, "decisions.system"),
    ],
)
def test_a_wording_file_that_cannot_be_used_is_one_line(tmp_path: Path, key: str, value: object, words: str):
    path = tmp_path / "words.yaml"
    texts = {
        measure: {
            k: v
            for k, v in dataclasses.asdict(wording).items()
            if k not in ("measure", "name", "told", "options", "follow_up")
        }
        for measure, wording in WORDS.items()
    }
    path.write_text(yaml.safe_dump(texts))
    assert read_wordings(path) == WORDS
    path.write_text(yaml.safe_dump({**texts, "decisions": {**texts["decisions"], key: value}}))
    with pytest.raises(InputError, match=words) as caught:
        read_wordings(path)
    assert "\n" not in str(caught.value)


def test_no_file_stands_for_our_own_words():
    assert read_wordings(None) is None
    with pytest.raises(InputError, match="no such"):
        read_wordings("nowhere.yaml")


@pytest.mark.skipif(not RELEASED.is_dir(), reason="the paper's released files are not beside the repository")
def test_the_papers_own_rows_are_rendered_to_the_last_character(tmp_path: Path):
    assert write_wording(RELEASED, tmp_path / "paper.yaml") == {"decisions": 5000, "reports": 100}
    wordings = read_wordings(tmp_path / "paper.yaml")
    assert wordings is not None and {w.numbers for w in wordings.values()} == {"floats"}
