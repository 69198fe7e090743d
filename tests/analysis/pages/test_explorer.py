"""What the page of a run gives the browser: every prompt word for word, every answer, weights as measured."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from analysis.pages.explorer import cut, explorer
from analysis.pages.report import write_report
from analysis.run import summary
from analysis.study.results import RunResults
from eval.work import list_work
from store.contexts import load_contexts
from store.evaluation import EvalConfig
from store.settings import read_settings
from store.trials import read_rows
from support import ROOT
from task.prompts import PROMPTS, Measure, Message, frame, shown_number
from task.trials import sample_trials

CONTEXTS = load_contexts(ROOT / "task/data/instilled.jsonl", 8)


def unpacked(results: RunResults) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(explorer(results, []).packed)))
    return found


def joined(parts: list[tuple[str, list[str | int]]], values: list[str]) -> list[Message]:
    """A cut prompt with the values in their places, as the browser joins it."""
    return [
        {"role": role, "content": "".join(values[p] if isinstance(p, int) else p for p in content)}
        for role, content in parts
    ]


@pytest.mark.parametrize(("measure", "variant"), [(m, v) for m in get_args(Measure) for v in PROMPTS[m]])
@pytest.mark.parametrize("form", ["decimals", "floats", "side_by_side"])
def test_a_cut_prompt_is_put_together_again_word_for_word(measure: Measure, variant: str, form: str):
    for context in CONTEXTS:
        if form == "side_by_side":
            context = dataclasses.replace(context, layout="side_by_side")
        framing = frame(measure, context, variant, told=[10, -20, 30, -40, 50], chose="A")
        if form == "floats":
            framing = dataclasses.replace(framing, wording=dataclasses.replace(framing.wording, numbers="floats"))
        trials = sample_trials(0, measure, context, 3)
        for first, second in zip(trials.first, trials.second, strict=True):
            numbers = framing.wording.numbers
            pairs = zip(context.attributes * 2, [*first, *second], strict=True)
            values = [shown_number(a, v, numbers) for a, v in pairs]
            assert joined(cut(framing), values) == framing.messages(first, second)


def test_every_trial_is_there_as_its_file_has_it(passed: RunResults):
    found = unpacked(passed)
    assert [c["name"] for c in found["contexts"]] == [*passed.contexts]
    config = read_settings(passed.run.stage_config("evaluate"), EvalConfig)
    assert {f["folder"] for f in found["files"]} == {
        config.folder_of(m).relative_to(config.output).as_posix() for m in config.measurements
    }
    rows = 0
    for number, file in enumerate(found["files"]):
        columns, table = read_rows(passed.run.trials / file["folder"], file["measure"])
        shown = {(r["context"], r["index"], r["first_as_a"]): r for r in table.to_pylist()}
        for context in found["contexts"]:
            trials = context["trials"].get(str(number))
            if trials is None:
                continue
            orders = len(trials["firstAsA"]) // len(trials["index"])
            for place, first_as_a in enumerate(trials["firstAsA"]):
                row = shown[context["name"], trials["index"][place // orders], first_as_a]
                rows += 1
                written = [float(value) for value in trials["values"][place // orders]]
                assert written == [row[c] for c in (*columns.of("first"), *columns.of("second"))]
                if file["measure"] == "decisions":
                    assert trials["logps"][place] == pytest.approx([row["logp_a"], row["logp_b"]], abs=1e-4)
                    assert trials["said"][place] == (row["undecided"] or row["letter"])
                else:
                    assert (trials["reply"][place], trials["reason"][place]) == (row["reply"], row["reason"])
                    values = [row[c] for c in columns.of("value")]
                    assert trials["read"][place] == (None if row["reason"] else values)
    facts = [passed.stages[f"trials/{file['folder']}"].facts for file in found["files"]]
    assert rows == sum(fact.rows for fact in facts)


def test_prompts_are_those_that_the_evaluation_asked(worded: RunResults):
    found, config = unpacked(worded), read_settings(worded.run.stage_config("evaluate"), EvalConfig)
    numbers = {file["folder"]: str(number) for number, file in enumerate(found["files"])}
    contexts = {context["name"]: context for context in found["contexts"]}
    works = list_work(config)
    assert len(works) == len(numbers) == 7
    for work in works:
        number = numbers[work.folder.relative_to(config.output).as_posix()]
        place: Counter[str] = Counter()
        for _, trial in work.trials(0, work.total):
            context = contexts[trial.context.name]
            shown, cut_prompt = context["trials"][number], context["prompts"][number]
            row = place[trial.context.name]
            place[trial.context.name] += 1
            values = shown["values"][row // work.measurement.orders]
            width = len(values) // 2
            values = values if shown["firstAsA"][row] else [*values[width:], *values[:width]]
            asked = dataclasses.replace(trial, framing=dataclasses.replace(trial.framing, chose="A"))
            assert joined(cut_prompt, values) == asked.prompt


def test_weights_are_those_of_the_arms_and_else_those_that_reports_are_held_against(passed: RunResults):
    found = unpacked(passed)
    learned = passed.measured["instilled"]
    for context in found["contexts"]:
        arms = {arm["arm"]: arm for arm in context["arms"]}
        weights = learned.weights[learned.contexts.index(context["name"])]
        for arm in arms.values():
            assert arm["whose"] == "instilled"
            assert arm["learned"] == pytest.approx(weights, abs=0.051)
        reports = passed.reported["instilled"]
        values = reports.values[reports.contexts.index(context["name"])]
        read = values[~np.isnan(values).any(axis=1)]
        assert arms["instilled"]["asked"] == 5 and len(arms["instilled"]["reports"]) == len(read)
        if len(read):
            assert arms["instilled"]["reported"] == pytest.approx(read.mean(axis=0), abs=0.051)
        native = context["group"] == "native"
        assert (context["target"] is None) == native
        assert [*arms] == (["instilled"] if native else ["off_the_shelf", "instilled", "introspection"])
    points = {p["name"]: p for p in found["points"]}
    assert [*points] == [c.name for c in passed.all_comparisons]
    for comparison in passed.all_comparisons:
        x, _ = comparison.sides
        shown = np.array(points[comparison.name]["x"], dtype=float)
        assert np.allclose(shown, x, atol=0.051, equal_nan=True)


def test_no_point_tells_of_a_comparison_without_meaning(failed: RunResults):
    assert [p["name"] for p in unpacked(failed)["points"]] == ["learned_vs_target"]


def test_what_is_too_large_lies_beside_the_page(
    passed: RunResults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(passed, summary(passed), [], tmp_path / "report.html")
    whole, packed = (tmp_path / "report.html").read_text(), explorer(passed, []).packed
    assert packed in whole and not (tmp_path / "trials.js").exists()
    monkeypatch.setattr("analysis.pages.explorer.EMBEDDED", len(packed) - 1)
    write_report(passed, summary(passed), [], tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert packed not in page and '<script src="trials.js"></script>' in page
    assert (tmp_path / "trials.js").read_text() == f'window.packedTrials = "{packed}";\n'
