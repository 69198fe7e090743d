import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from eval.engines import make_engine
from eval.engines.base import Engine
from eval.runner import evaluate
from eval.work import Work, list_work
from store.contexts import DATA, load_contexts, save_contexts
from store.evaluation import EvalConfig, Measurement, measure_folder
from store.manifests import ReportFacts, read_manifest
from store.settings import read_settings
from store.shards import shard_path, written_shards
from store.trials import read_reports
from store.weights import save_weights
from support import ROOT
from task.contexts import ChoiceContext
from task.errors import InputError
from task.trials import sample_trials
from task.weights import sample_weights


@pytest.fixture(scope="module")
def contexts() -> list[ChoiceContext]:
    return load_contexts(DATA / "instilled.jsonl", 5)


@pytest.fixture
def settings(tmp_path: Path, contexts: list[ChoiceContext]) -> dict[str, Any]:
    save_contexts(contexts, tmp_path / "contexts.jsonl")
    save_weights({c.name: sample_weights(0, "target_weights", c) for c in contexts}, tmp_path / "weights.csv")
    group = {"name": "instilled", "file": str(tmp_path / "contexts.jsonl")}
    return {
        "seed": 0,
        "output": str(tmp_path / "trials"),
        "engine": {"name": "simulated", "shard_size": 16},
        "arms": {"instilled": None},
        "planted": {"instilled": {"report_accuracy": 0.5, "unreadable": 0.3, "noise": 1.0}},
        "planted_weights": str(tmp_path / "weights.csv"),
        "measurements": [
            {"arm": "instilled", "measure": "decisions", "contexts": [group], "per_context": 7},
            {"arm": "instilled", "measure": "reports", "contexts": [group], "per_context": 7},
        ],
    }


def run_all(settings: dict[str, Any], engine: Engine | None = None, overwrite: bool = False) -> list[Path]:
    config = EvalConfig.model_validate(settings)
    return evaluate(engine or make_engine(config), config, overwrite)


def work_of(settings: dict[str, Any], measure: str) -> Work:
    [found] = [w for w in list_work(EvalConfig.model_validate(settings)) if w.measurement.measure == measure]
    return found


@pytest.mark.parametrize("kind", ["decisions", "reports"])
def test_rows_of_any_slice_are_those_of_the_whole(settings: dict[str, Any], kind: str):
    work = work_of(settings, kind)
    whole = work.trials(0, work.total)
    assert len(whole) == work.total == 5 * 7 * (2 if kind == "decisions" else 1)
    for start in range(0, work.total, 5):
        piece = work.trials(start, min(start + 5, work.total))
        assert len(piece) == 5
        for (_, a), (_, b) in zip(piece, whole[start:], strict=False):
            assert (a.framing, a.index, a.first_as_a) == (b.framing, b.index, b.first_as_a)
            assert (a.first == b.first).all() and (a.second == b.second).all()


def test_each_pair_is_shown_in_both_orders(settings: dict[str, Any], contexts: list[ChoiceContext]):
    settings["measurements"][0]["per_context"] = 4
    rows = [t for _, t in work_of(settings, "decisions").trials(0, 40)]
    for ab, ba in zip(rows[::2], rows[1::2], strict=True):
        assert ab.first_as_a and not ba.first_as_a
        assert (ab.option_a == ba.option_b).all() and (ab.option_b == ba.option_a).all()
    expected = sample_trials(0, "decisions", contexts[2], 4)
    assert (np.stack([t.first for t in rows[16:24:2]]) == expected.first).all()


def test_trial_files_hold_every_trial_and_what_became_of_it(settings: dict[str, Any], contexts: list[ChoiceContext]):
    decisions, reports = run_all(settings)
    table = pd.read_parquet(decisions / "trials.parquet")
    assert len(table) == 70 and set(table["letter"]) == {"A", "B"}
    assert np.allclose(np.exp(table["logp_a"]) + np.exp(table["logp_b"]), 1)
    assert ((table["letter"] == "A") == (table["logp_a"] > table["logp_b"])).all()
    table = pd.read_parquet(reports / "trials.parquet")
    unread = table["reason"].notna()
    assert 0 < unread.sum() < 35
    assert table.loc[unread, [f"value_{i}" for i in range(1, 6)]].isna().all(axis=None)
    assert (table.loc[unread, "reply"] == "I would rather not say.").all(), "the raw reply is kept"
    for _, row in table[~unread].iterrows():
        said = json.loads(row["reply"])
        assert list(said.values()) == [row[f"value_{i}"] for i in range(1, 6)]
    facts = read_manifest(reports, ReportFacts).facts
    assert facts.model_dump(exclude={"answering", "content"}) == {
        "rows": 35,
        "readable": 35 - int(unread.sum()),
        "unreadable": {"no_json": int(unread.sum())},
        "outside": int(table["outside"].sum()),
        "constrained": False,
        "mean_opening": None,
        "free_total": 0,
        "free_readable": 0,
    }
    assert facts.answering.trials_per_second > 0 and facts.answering.prompt_tokens is None


def constrained(settings: dict[str, Any], **planted: Any) -> dict[str, Any]:
    """An evaluation of constrained reports alone."""
    [group] = settings["measurements"][0]["contexts"]
    wanted = {"arm": "instilled", "measure": "reports", "contexts": [group], "per_context": 7, "constrained": True}
    return {**settings, "planted": {"instilled": planted}, "measurements": [wanted]}


def test_constrained_reports_are_read_and_a_sample_of_free_ones_is_not(settings: dict[str, Any]):
    wanted = constrained(settings, report_accuracy=0.5, unreadable=0.9, unreadable_reply="A")
    wanted["measurements"][0]["free_samples"] = 3
    [folder] = run_all(wanted)
    assert folder.name == "reports-constrained"
    table = pd.read_parquet(folder / "trials.parquet")
    assert table["reason"].isna().all() and table["free_sampled"].tolist() == [*[True] * 3, *[False] * 4] * 5
    assert np.allclose(table["opening"], 0.1)
    free = table[table["free_sampled"]]
    assert (free["free_reply"] == "A").sum() == (free["free_reason"] == "letter").sum() >= 10
    readable = free[free["free_reason"].isna()]
    assert (readable["free_reply"] == readable["reply"]).all(), "the same belief, asked in two ways"
    assert table.loc[~table["free_sampled"], ["free_reply", "free_reason"]].isna().all(axis=None)
    read, facts = read_reports(folder), read_manifest(folder, ReportFacts).facts
    assert (read.free_total, facts.free_total, facts.mean_opening) == (15, 15, 0.1)
    assert len(read.free_reasons) == 15 - facts.free_readable == len(free) - len(readable)


def test_free_and_constrained_reports_stand_beside_each_other(settings: dict[str, Any]):
    free, wanted = settings["measurements"][1], constrained(settings)["measurements"][0]
    settings["measurements"] = [free, wanted]
    folders = run_all(settings)
    assert [folder.name for folder in folders] == ["reports", "reports-constrained"]
    readable = [read_manifest(folder, ReportFacts).facts.readable for folder in folders]
    assert readable[0] < readable[1] == 35
    wanted["free_samples"] = 2
    with pytest.raises(InputError, match=r"reports-constrained: made from other inputs: free_samples: 1 -> 2"):
        run_all(settings)


@pytest.mark.parametrize("calls", [0, 1, 2, 4, 7])
def test_constrained_reports_interrupted_anywhere_end_the_same(settings: dict[str, Any], tmp_path: Path, calls: int):
    wanted = constrained(settings, report_accuracy=0.5, unreadable=0.5)
    [straight] = run_all({**wanted, "output": str(tmp_path / "other")})
    with pytest.raises(KeyboardInterrupt):
        run_all(wanted, Killed(make_engine(EvalConfig.model_validate(wanted)), calls))
    [folder] = run_all(wanted)
    assert (folder / "trials.parquet").read_bytes() == (straight / "trials.parquet").read_bytes()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"measure": "decisions"}, "constrained: decisions are read from the letters' probabilities"),
        ({"constrained": False, "free_samples": 2}, "all reports are free unless constrained: true"),
        ({"free_samples": 8}, "free_samples 8: a context has only 7 reports"),
        ({"free_samples": 0}, "greater than or equal to 1"),
    ],
)
def test_samples_that_make_no_sense_are_refused(settings: dict[str, Any], change: dict[str, Any], says: str):
    with pytest.raises(ValueError, match=says):
        Measurement.model_validate({**constrained(settings)["measurements"][0], **change})


def test_folders_are_named_after_what_was_asked():
    assert measure_folder("decisions", "plain") == "decisions"
    assert measure_folder("reports", "trial", constrained=True) == "reports-constrained"
    assert measure_folder("reports", "explained") == "reports-explained"
    assert measure_folder("reports", "explained", constrained=True) == "reports-explained-constrained"


class Killed(Engine):
    """Stops in the middle of a measurement, as a kill does, after some shards."""

    def __init__(self, engine: Engine, calls: int) -> None:
        self.engine, self.left = engine, calls
        self.identity, self.take_token_counts = engine.identity, engine.take_token_counts

    def _next(self) -> Engine:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.engine

    def decide(self, *args: Any) -> Any:
        return self._next().decide(*args)

    def report(self, *args: Any) -> Any:
        return self._next().report(*args)

    def opening(self, *args: Any) -> Any:
        return self._next().opening(*args)


@pytest.mark.parametrize("calls", [0, 1, 3, 5, 7])
def test_interrupted_anywhere_it_ends_with_the_same_files(settings: dict[str, Any], tmp_path: Path, calls: int):
    straight = [(f / "trials.parquet").read_bytes() for f in run_all({**settings, "output": str(tmp_path / "other")})]
    engine = make_engine(EvalConfig.model_validate(settings))
    with pytest.raises(KeyboardInterrupt):
        run_all(settings, Killed(engine, calls))
    counting = Killed(engine, 100)
    folders = run_all(settings, counting)
    shards = math.ceil(70 / 16) + math.ceil(35 / 16)
    assert 100 - counting.left == shards - calls, "what was answered before is not asked again"
    assert [(f / "trials.parquet").read_bytes() for f in folders] == straight
    assert not list(folders[0].glob("shards")), "the shards are gone once they are merged"


def test_a_damaged_shard_is_measured_again(settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture):
    straight = run_all({**settings, "output": str(tmp_path / "other")})[0]
    engine = make_engine(EvalConfig.model_validate(settings))
    with pytest.raises(KeyboardInterrupt):
        run_all(settings, Killed(engine, 3))
    part = shard_path(tmp_path / "trials" / "instilled" / "decisions", 1)
    part.write_bytes(part.read_bytes()[:100])
    folder = run_all(settings)[0]
    assert "00001.parquet: damaged" in capsys.readouterr().err
    assert (folder / "trials.parquet").read_bytes() == (straight / "trials.parquet").read_bytes()


def test_changed_inputs_are_refused_and_nothing_is_written(settings: dict[str, Any], tmp_path: Path):
    folder = run_all(settings)[0]
    before = {p: p.read_bytes() for p in folder.iterdir()}
    settings["planted"]["instilled"]["noise"] = 2.0
    with pytest.raises(InputError, match=r"planted\.noise: 1\.0 -> 2\.0"):
        run_all(settings)
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    run_all(settings, overwrite=True)
    assert (folder / "trials.parquet").read_bytes() != before[folder / "trials.parquet"]


def test_shards_are_independent_of_their_size(settings: dict[str, Any], tmp_path: Path):
    tables = []
    for size in (4, 1000):
        settings |= {"engine": {"name": "simulated", "shard_size": size}, "output": str(tmp_path / str(size))}
        tables.append([pd.read_parquet(f / "trials.parquet") for f in run_all(settings)])
    for small, large in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(small, large)


def test_contexts_that_do_not_go_together_are_refused(tmp_path: Path, contexts: list[ChoiceContext]):
    save_contexts(contexts, tmp_path / "five.jsonl")
    group = {"name": "g", "file": str(tmp_path / "five.jsonl"), "only": ["nowhere"]}
    wanted = Measurement(arm="a", measure="reports", contexts=[group], per_context=1)
    with pytest.raises(InputError, match=r"five\.jsonl: has no context 'nowhere'"):
        wanted.load()
    save_contexts([replace(c, attributes=c.attributes[:4]) for c in contexts], tmp_path / "four.jsonl")
    groups = [{"name": n, "file": str(tmp_path / f"{n}.jsonl")} for n in ("five", "four")]
    wanted = Measurement(arm="a", measure="reports", contexts=groups, per_context=1)
    with pytest.raises(InputError, match=r"measurement of a: contexts with \[4, 5\] attributes; measure apart"):
        wanted.rows()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sed": 1}, "unknown key 'sed'"),
        ({"engine": {"name": "vlm"}}, "engine.name"),
        ({"engine": {"shard_size": 0}}, "engine.shard_size: Input should be greater than or equal to 2 (given: 0)"),
        ({"planted": {}}, "an entry of planted for each arm"),
        ({"arms": {"other": None}}, "arm 'instilled' is not among the arms"),
        ({"engine": {"name": "transformers"}}, "engine 'transformers' needs a model"),
    ],
)
def test_bad_settings_are_one_line(settings: dict[str, Any], tmp_path: Path, change: dict[str, Any], says: str):
    path = tmp_path / "evaluate.yaml"
    path.write_text(yaml.safe_dump({**settings, **change}))
    with pytest.raises(InputError) as caught:
        read_settings(path, EvalConfig)
    assert str(caught.value).startswith(str(path)) and says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_sizes_are_told_without_an_engine(settings: dict[str, Any], contexts: list[ChoiceContext]):
    [group] = settings["measurements"][1]["contexts"]
    settings["measurements"][1]["contexts"] = [{**group, "only": [contexts[3].name, contexts[1].name]}]
    config = EvalConfig.model_validate(settings)
    decisions, reports = config.measurements
    assert (decisions.rows(), reports.rows()) == (5 * 7 * 2, 2 * 7)
    assert [config.engine.shards(m.rows()) for m in (decisions, reports)] == [math.ceil(70 / 16), 1]
    folder = config.folder_of(decisions)
    engine = make_engine(config)
    with pytest.raises(KeyboardInterrupt):
        run_all(settings, Killed(engine, 3))
    assert written_shards(folder) == [0, 1, 2] and not written_shards(config.folder_of(reports))
    assert run_all(settings) == [folder, config.folder_of(reports)]


def test_one_line_says_what_was_made(settings: dict[str, Any], tmp_path: Path):
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(settings))
    command = [sys.executable, "-m", "eval.run", "--config", str(tmp_path / "evaluate.yaml")]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert re.fullmatch(r"105 trials in 2 files, [\d,]+ a second\n", result.stdout), result.stdout
    again = subprocess.run([*command, "--quiet"], cwd=ROOT, capture_output=True, text=True)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
