"""The two commands on the model organism: files, kills, refusals, reports that cannot be read."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

import inside.attribute
import inside.patch
from inside.answers import number_tokens, reports
from inside.attribution import attribute
from inside.loading import BaseModel
from inside_arms import ORGANISM, loaded, make_adapter
from store.inside import (
    TASKS,
    AttributeConfig,
    AttributionFacts,
    PatchConfig,
    PatchingFacts,
    patching_folder,
    scores_folder,
)
from store.inside_inputs import attribution_folders, attribution_inputs, patching_inputs
from store.inside_tables import PATCHING, SCORES, read_patching, read_scores
from store.manifests import read_manifest
from store.shards import written_shards
from store.stages import read_origin
from support import make_engine
from task.errors import InputError
from task.trials import ShownTrial


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter that leaves reports readable."""
    return make_adapter(tmp_path_factory.mktemp("adapters") / "light", seed=6, std=0.02, target_modules=["down_proj"])


def settings(output: Path, adapter: Path, contexts: Path, **more: object) -> dict:
    return {
        "seed": 0,
        "output": str(output),
        "model": {"name": str(ORGANISM)},
        "arms": {"arm": {"adapter": str(adapter), "contexts": [{"name": "some", "file": str(contexts)}]}},
        "prompts": 3,
        "report_tokens": 64,
        **more,
    }


@pytest.fixture(scope="module")
def attributed(light: Path, contexts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of an attribution that nothing interrupted."""
    output = tmp_path_factory.mktemp("inside")
    config = AttributeConfig.model_validate(settings(output, light, contexts, steps=2, random=1))
    inside.attribute.attribute_arms(config, quiet=True)
    return output


def files(output: Path, name: str = SCORES) -> dict[str, bytes]:
    return {str(path.relative_to(output)): path.read_bytes() for path in sorted(output.rglob(name))}


def test_each_arm_and_random_adapter_gets_scores_of_each_task(attributed: Path, base: BaseModel, light: Path):
    assert {*files(attributed)} == {f"arm/{d}{task}/{SCORES}" for d in ("", "random_1/") for task in TASKS}
    found = {
        (task, draw): read_scores(scores_folder(attributed, "arm", task, draw)) for task in TASKS for draw in (0, 1)
    }
    with loaded(base, light) as model:
        for scores in found.values():
            for name in ("layer", "matrix", "factor", "row"):
                assert np.array_equal(getattr(scores.rows, name), getattr(model.rows, name))
            assert np.isfinite(scores.values).all()
    assert not np.array_equal(found["deciding", 0].values, found["deciding", 1].values)
    for task in TASKS:
        facts = read_manifest(scores_folder(attributed, "arm", task), AttributionFacts).facts
        scores = found[task, 0]
        assert facts.contexts == len(scores.contexts) == 3 - len(facts.left_out)
        assert facts.prompts + facts.unreadable == 9 and facts.steps == 2
        assert facts.change < 0 and facts.relative_error is not None and facts.relative_error < 0.3
        if facts.unreadable == 0:
            assert facts.scored == pytest.approx(scores.values.sum(axis=1).mean())
        random = read_manifest(scores_folder(attributed, "arm", task, 1), AttributionFacts).facts
        assert (random.prompts, random.unreadable) == (facts.prompts, facts.unreadable), "the answers of the arm"


class Killed(Exception):
    """In place of a kill."""


def test_a_kill_costs_at_most_one_context_and_changes_no_file(
    attributed: Path, light: Path, contexts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls: Counter[str] = Counter()

    def dying(*arguments: object) -> object:
        calls["all"] += 1
        if calls["all"] in (4, 9):
            raise Killed
        return attribute(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(inside.attribute, "attribute", dying)
    config = AttributeConfig.model_validate(settings(tmp_path, light, contexts, steps=2, random=1))
    for _ in range(2):
        with pytest.raises(Killed):
            inside.attribute.attribute_arms(config, quiet=True)
    (folder, *_) = attribution_folders(config)
    assert written_shards(folder.path)
    inside.attribute.attribute_arms(config, quiet=True)
    assert calls["all"] == 2 + calls_of(attributed)
    assert files(tmp_path) == files(attributed), "byte for byte"


def calls_of(attributed: Path) -> int:
    """Contexts with answers, over all folders."""
    return sum(len(read_scores(path.parent).contexts) for path in attributed.rglob(SCORES))


def test_what_is_finished_is_not_done_again_and_other_inputs_are_refused(
    attributed: Path, light: Path, contexts: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inside.attribute, "attribute", None)
    monkeypatch.setattr(BaseModel, "__init__", None)
    config = AttributeConfig.model_validate(settings(attributed, light, contexts, steps=2, random=1))
    inside.attribute.attribute_arms(config, quiet=True)
    for folder in attribution_folders(config):
        known, noted = attribution_inputs(config, folder), read_origin(folder.path).depends_on
        assert noted == known, "all of it can be told without loading the model"
    other = AttributeConfig.model_validate(settings(attributed, light, contexts, steps=3, random=1))
    with pytest.raises(InputError, match=r"steps: 2 -> 3.*--overwrite"):
        inside.attribute.attribute_arms(other, quiet=True)


def test_patching_measures_both_tasks_by_every_order(
    attributed: Path, light: Path, contexts: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    values = settings(attributed, light, contexts, random=2)
    path = attributed / "patch.yaml"
    path.write_text(yaml.safe_dump(values))
    monkeypatch.setattr(sys, "argv", ["patch", "--config", str(path)])
    inside.patch.main()
    assert "1 arms patched" in capsys.readouterr().out
    folder, config = patching_folder(attributed, "arm"), PatchConfig.model_validate(values)
    rows, facts = read_patching(folder), read_manifest(folder, PatchingFacts).facts
    assert facts.matrices == 4 and facts.contexts == 3
    orders = [("deciding", 0), ("reporting", 0), ("random", 1), ("random", 2)]
    by_context = 4 * 3  # orders; 1, 2 and 4 matrices
    assert len(rows) == by_context * (6 - len(facts.left_out))
    assert [(row.ranked_by, row.draw) for row in rows[:by_context:3]] == orders
    assert [row.k for row in rows[:3]] == [1, 2, 4]
    assert all(row.kl == 0 for row in rows if row.k == 4) and all(row.kl_backbone > 0 for row in rows)
    assert read_origin(folder).depends_on == patching_inputs(config, "arm")
    before = files(folder, PATCHING)
    inside.patch.patch_arms(config, quiet=True)
    assert files(folder, PATCHING) == before
    with pytest.raises(InputError, match="random: 2 -> 1"):
        inside.patch.patch_arms(PatchConfig.model_validate({**values, "random": 1}), quiet=True)
    (folder / "manifest.json").rename(folder / "started.json")
    (folder / PATCHING).unlink()
    inside.patch.patch_arms(config, quiet=True)
    assert files(folder, PATCHING) == before, "interrupted and gone on with"


def test_patching_needs_scores(light: Path, contexts: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"deciding: no finished scores.*run inside\.attribute first"):
        inside.patch.patch_arms(PatchConfig.model_validate(settings(tmp_path, light, contexts)), quiet=True)


def test_an_arm_that_never_reports_has_scores_for_deciding_alone(
    light: Path, contexts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr(BaseModel, "greedy_replies", lambda self, prompts, *_: [[5, 6] for _ in prompts])
    values = settings(tmp_path, light, contexts, steps=1, prompts=2)
    (tmp_path / "attribute.yaml").write_text(json.dumps(values))
    monkeypatch.setattr(sys, "argv", ["attribute", "--config", str(tmp_path / "attribute.yaml")])
    inside.attribute.main()
    assert "6 reports could not be read" in capsys.readouterr().out
    facts = read_manifest(scores_folder(tmp_path, "arm", "reporting"), AttributionFacts).facts
    assert (facts.contexts, len(facts.left_out), facts.prompts, facts.unreadable) == (0, 3, 0, 6)
    assert facts.relative_error is None
    with pytest.raises(InputError, match="no context has scores"):
        read_scores(scores_folder(tmp_path, "arm", "reporting"))
    config = PatchConfig.model_validate({**settings(tmp_path, light, contexts, prompts=2), "random": 1})
    inside.patch.patch_arms(config, quiet=True)
    rows = read_patching(patching_folder(tmp_path, "arm"))
    assert {(row.task, row.ranked_by) for row in rows} == {("deciding", "deciding"), ("deciding", "random")}
    patched = read_manifest(patching_folder(tmp_path, "arm"), PatchingFacts).facts
    assert len(patched.left_out) == 3 and patched.unreadable == 6


def test_greedy_reports_are_those_of_the_measurement(base: BaseModel, light: Path, contexts: Path):
    """Replies by transformers' `generate` and those of the engine that measures are the same texts."""
    config = AttributeConfig.model_validate(settings(Path("none"), light, contexts))
    engine = make_engine(ORGANISM, {"arm": light}, report_tokens=64)
    trials: list[ShownTrial] = []
    for context in config.arms["arm"].load():
        trials += inside.answers.shown_trials(config, "reporting", context)
    expected = engine.report("arm", trials, constrained=False)
    with loaded(base, light):
        prompts = engine.prompts(trials)
        found = base.greedy_replies(prompts, 64, batch_size=4)
    texts = base.tokenizer.batch_decode(found, skip_special_tokens=True)
    assert texts == expected


def test_the_places_of_a_report_are_its_numbers(base: BaseModel, light: Path, contexts: Path):
    config = AttributeConfig.model_validate(settings(Path("none"), light, contexts))
    [context, *_] = config.arms["arm"].load()
    with loaded(base, light):
        [answer, *_] = reports(base, config, context)
    assert len(answer.places) == len(context.attributes) and answer.places[-1] == len(answer.ids) - 1
    said = [int(base.tokenizer.decode(answer.ids[place + 1 : place + 2])) for place in answer.places[:-1]]
    assert all(-100 <= number <= 100 for number in said)


def test_the_sign_and_the_space_before_a_number_are_part_of_it():
    from store.pretrained import load_tokenizer
    from support import SMALL_MODEL

    tokenizer = load_tokenizer(SMALL_MODEL)
    ids = tokenizer('{"price": -12, "room größe": 7, "x": "3"}', add_special_tokens=False)["input_ids"]
    texts = [tokenizer.decode([ids[token]]) for token in number_tokens(tokenizer, ids, ["price", "room größe", "x"])]
    assert [text.strip() for text in texts if text.strip(' "')] == ["-", "1", "2", "7", "3"]
    assert texts == [" -", "1", "2", " ", "7", ' "', "3"]
    assert number_tokens(tokenizer, ids, ["price"]) == []


def test_a_context_stands_in_an_arm_once(light: Path, contexts: Path):
    values = settings(Path("none"), light, contexts)
    values["arms"]["arm"]["contexts"] *= 2
    with pytest.raises(InputError, match="is there twice; leave one out"):
        AttributeConfig.model_validate(values).arms["arm"].load()
