"""What a replication costs, against arithmetic by hand."""

import sys
from pathlib import Path

import pytest

from experiment.file import load_experiment
from experiment.launcher import plan_runs
from scripts.check_gpu.record import CheckRecord, Line, write_record
from scripts.cost import Card, Cost, card_of, cost_of, main, plan_with, watched_tokens
from store.model_file import read_model_file
from support import ROOT
from task.errors import InputError

REPLICATION = ROOT / "configs" / "experiments" / "replication.yaml"


def test_hours_by_hand():
    cost = Cost(
        parameters=1_000_000_000, trained=3_000_000, watched=1_000_000, evaluated=20_000_000, computed=9_000_000
    )
    assert cost.training_flops == 1e9 * (6 * 3e6 + 2 * 1e6)
    assert cost.evaluation_flops == 1e9 * 2 * 9e6
    training, evaluation = cost.hours(Card(flops=1e12, training=0.5, evaluation=0.25, origin=""))
    assert training == pytest.approx(2e16 / 5e11 / 3600) and evaluation == pytest.approx(1.8e16 / 2.5e11 / 3600)


def test_tokens_are_those_of_the_dry_run():
    runs = plan_runs(REPLICATION, Path("runs"))
    cost = cost_of(runs, 7)
    assert cost.trained == sum(s.tokens for run in runs for s in run.stages if s.name.endswith(".sft"))
    evaluations = [s for run in runs for s in run.stages if s.name == "evaluate"]
    assert (cost.evaluated, cost.computed) == (sum(s.tokens for s in evaluations), sum(s.unique for s in evaluations))
    [again, *_] = plan_with(
        load_experiment(REPLICATION), read_model_file(ROOT / "configs/models/qwen2.5-7b-instruct.yaml")
    )
    assert [s.tokens for s in again.stages] == [s.tokens for s in runs[0].stages]


def test_held_out_rows_are_counted_each_time_that_they_are_looked_at():
    [run, *_] = plan_runs(REPLICATION, Path("runs"))
    stages = {stage.name: stage for stage in run.stages}
    row = stages["instilled.sft"].tokens / (3 * 5000)
    # 157 steps an epoch, 471 in all: looked at after 50, 100 ... 450, and at the end
    assert watched_tokens(run, stages["instilled.sft"]) == round(row * 1000 * (9 + 1))
    assert watched_tokens(run, stages["introspection_all.sft"]) == 0


def test_a_check_gives_the_card(tmp_path: Path):
    figures = {"product_flops": 8e14, "training_utilisation": 0.4, "evaluation_utilisation": 0.3}
    line = Line(name="speed", about="", state="passed", said="", figures=figures)
    more = {"git": None, "packages": {}, "python": "3", "host": {}, "seconds": 1.0}
    record = CheckRecord(device="cuda", name="Some GPU", memory_gb=80, devices=1, lines=[line], **more)
    write_record(tmp_path / "a.json", record)
    card = card_of(tmp_path / "a.json", 312, 0.35)
    assert (card.flops, card.training, card.evaluation) == (8e14, 0.4, 0.3) and "(measured)" in card.origin
    write_record(tmp_path / "b.json", record.model_copy(update={"device": "cpu"}))
    with pytest.raises(InputError, match="no line `speed` of a GPU that passed"):
        card_of(tmp_path / "b.json", 312, 0.35)


@pytest.mark.parametrize(("tflops", "used"), [(312, 0), (312, 1.1), (0, 0.3)])
def test_what_cannot_be_assumed_is_refused(tflops: float, used: float):
    with pytest.raises(InputError, match="give a share above 0"):
        card_of(None, tflops, used)


def test_the_table_says_that_it_is_derived(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(
        sys, "argv", ["cost", "--models", "qwen3-8b", "--experiments", str(REPLICATION), "--used", "0.5"]
    )
    main()
    said = capsys.readouterr().out
    assert (
        "312 TFLOP/s, 50% used (assumed); hours are derived, not measured" in said and "tokens from characters" in said
    )
    monkeypatch.setattr(sys, "argv", ["cost", "--models", "none"])
    with pytest.raises(InputError, match="--models none: no such model"):
        main()
