"""The economical experiment: the replication with fewer evaluation trials, judged by log-odds weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from analysis.run import summary
from analysis.study.results import analyse
from eval.engines import make_engine
from eval.runner import evaluate
from experiment.file import load_experiment
from experiment.launcher import plan_runs
from experiment.plan import Run
from experiment.prepare import prepare
from store.evaluation import EvalConfig
from store.run import RunFolder, read_run, write_run
from store.settings import read_settings
from store.state_inputs import analysis_inputs
from store.weights import load_weights
from support import ROOT
from task.errors import InputError

FOLDER = ROOT / "configs" / "experiments"

EXPERIMENT = """
name: small
seeds: [0]
engine: {name: simulated}
contexts:
  instilled: {file: task/data/instilled.jsonl, count: 12}
planted:
  off_the_shelf: {}
  instilled: {report_accuracy: 0.6, noise: 1.0}
measurements:
  - {arm: instilled, measure: decisions, contexts: instilled, per_context: 20}
  - {arm: instilled, measure: reports, contexts: instilled, per_context: 5}
gate: {arm: instilled, contexts: instilled}
comparisons:
  - {name: instilled, reports: instilled, weights: instilled, contexts: instilled}
"""


def evaluation_tokens(name: str, tmp_path: Path) -> int:
    values = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({**values, "seeds": [0]}))
    [run] = plan_runs(tmp_path / f"{name}.yaml", tmp_path)
    [found] = [stage.tokens for stage in run.stages if stage.name == "evaluate"]
    return found


def test_it_asks_for_at_most_a_quarter_of_the_replications_tokens(tmp_path: Path):
    assert 0.15 < evaluation_tokens("economical", tmp_path) / evaluation_tokens("replication", tmp_path) <= 0.25


def test_it_is_the_replication_in_all_but_the_evaluation():
    economical, replication = (load_experiment(FOLDER / f"{name}.yaml") for name in ("economical", "replication"))
    fields = ("seeds", "model", "contexts", "trainings", "gate", "comparisons", "differences")
    assert all(getattr(economical, field) == getattr(replication, field) for field in fields)
    assert (economical.estimator, replication.estimator) == ("log_odds", "logistic")


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A simulated run, measured."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "small.yaml").write_text(f"{EXPERIMENT}estimator: log_odds\n")
    [run] = plan_runs(folder / "small.yaml", folder)
    prepare(run, False)
    config = read_settings(run.folder.stage_config("evaluate"), EvalConfig)
    assert list(evaluate(make_engine(config), config, quiet=True))
    return run


def test_every_r_and_the_gate_are_by_the_estimator_that_the_file_names(planned: Run):
    by_odds = summary(analyse(planned.folder.path))
    record = read_run(planned.folder.path)
    write_run(planned.folder.path, record.model_copy(update={"estimator": "logistic"}))
    by_choice = summary(analyse(planned.folder.path))
    write_run(planned.folder.path, record)
    assert (by_odds.estimator, by_choice.estimator) == ("log_odds", "logistic")
    one, other = by_odds.comparisons["instilled"], by_choice.comparisons["instilled"]
    assert one.r == one.r_log_odds == pytest.approx(other.r_log_odds) and one.r != other.r
    assert by_odds.gate.r == pytest.approx(by_choice.learned_vs_target.r_log_odds) and by_odds.gate.r > by_choice.gate.r
    assert one.reliability_weights > 0.9 and one.reliability_weights != other.reliability_weights


def test_weights_that_are_written_are_by_that_estimator(planned: Run):
    from analysis.run import run_weights

    table = run_weights(analyse(planned.folder.path))
    assert (table["weight_1"] == table["log_odds_1"]).all()
    assert {*table["context"]} == {*load_weights(planned.folder.target_weights)}


def test_another_estimator_is_another_analysis_and_the_usual_one_is_none(planned: Run):
    run, record = RunFolder(planned.folder.path), read_run(planned.folder.path)
    usual = analysis_inputs(run, record.model_copy(update={"estimator": "logistic"}))
    assert usual != analysis_inputs(run, record)
    values = record.model_dump(mode="json", exclude={"estimator"})  # as from before there was a choice
    assert analysis_inputs(run, type(record).model_validate(values)) == usual


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"estimator": "lasso"}, "estimator"),
        ({"estimator": "log_odds"}, "trainings.learned_labels: labels learned are by estimator: logistic"),
    ],
)
def test_an_estimator_that_cannot_be_is_refused(tmp_path: Path, more: dict[str, str], says: str):
    values = yaml.safe_load((FOLDER / "controls.yaml").read_text()) | more
    (tmp_path / "controls.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(InputError, match=says):
        load_experiment(tmp_path / "controls.yaml")
