"""The whole pipeline on a tiny model, through `accelerate launch`: killed in training and in evaluation, then again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from store.manifests import TrainingFacts, read_manifest
from store.summary import read_summary
from support import ROOT, experiment_command, kill_when, make_tiny_model, run_experiment
from task.probes import SKILLS
from wandb_records import offline_runs

ARMS = {"off_the_shelf", "instilled", "introspection_fold_1", "introspection_fold_2", "introspection_all"}


def summary(run_folder: Path) -> dict[str, Any]:
    return json.loads((run_folder / "analysis" / "summary.json").read_text())


def test_every_arm_is_trained_and_measured(straight: Path):
    assert {p.parent.parent.name for p in straight.glob("trials/*/reports-constrained/trials.parquet")} == ARMS
    assert {p.parent.parent.name for p in straight.glob("trials/*/decisions/trials.parquet")} == ARMS
    assert {p.parent.name for p in straight.glob("adapters/*/adapter_model.safetensors")} == ARMS - {"off_the_shelf"}
    assert (straight / "analysis" / "report.html").stat().st_size > 10_000
    assert list((straight / "analysis" / "figures").iterdir())


def test_folds_are_tested_on_what_they_were_not_trained_on(straight: Path):
    tested: list[str] = []
    for fold in (1, 2):
        lines = (straight / "examples" / f"introspection_fold_{fold}" / "train.jsonl").read_text().splitlines()
        trained = {json.loads(line)["context"] for line in lines}
        reports = pd.read_parquet(
            straight / "trials" / f"introspection_fold_{fold}" / "reports-constrained" / "trials.parquet"
        )
        assert not trained & set(reports["context"])
        held_out = straight / "examples" / f"introspection_fold_{fold}" / "validation.jsonl"
        assert not held_out.exists(), "nothing is chosen, so nothing is held out"
        tested += reports["context"].unique().tolist()
    instilled = (straight / "inputs" / "instilled.jsonl").read_text().splitlines()
    assert sorted(tested) == sorted(json.loads(line)["name"] for line in instilled)
    assert summary(straight)["comparisons"]["introspection_trained"]["total_reports"] == 4 * 3


def test_a_random_model_does_not_pass_the_gate_and_no_correlation_is_given(straight: Path):
    gate, found = summary(straight)["gate"], summary(straight)["comparisons"]
    assert not gate["passed"] and gate["reasons"]
    for name in ("off_the_shelf", "instilled", "introspection_trained", "native_before", "native_after"):
        assert found[name]["testable"] is False and found[name]["r"] is None and found[name]["reason"]
        assert found[name]["total_reports"] > 0
    assert "not testable" in (straight / "analysis" / "report.html").read_text()


def test_a_training_that_stops_early_goes_on_to_a_report_that_says_why(straight: Path):
    facts = read_manifest(straight / "adapters" / "instilled", TrainingFacts).facts
    assert facts.stopped_early and facts.stopped_early.startswith("step 10: ") and facts.steps == 10
    assert facts.kept and facts.kept.step < 10
    found = summary(straight)
    assert found["stopped_early"] == {"instilled": facts.stopped_early}
    cause = f"training stopped at {facts.stopped_early}; the base model lacks {facts.missing_skill}"
    assert found["gate"]["reasons"][-1] == cause
    assert str(facts.missing_skill).split()[0] in SKILLS, "a random model has none of them"
    assert "stopped early, at step 10: " in (straight / "analysis" / "report.html").read_text()
    for fold in (1, 2):
        facts = read_manifest(straight / "adapters" / f"introspection_fold_{fold}", TrainingFacts).facts
        assert facts.kept is None and facts.counts.validation == 0, "the last weights, chosen by nothing"


def test_trainings_and_analysis_are_one_group(straight: Path):
    tracked = offline_runs(straight / "wandb")
    assert {run.group for run in tracked} == {"tiny-seed0"}
    assert {run.name for run in tracked} == {f"tiny-seed0/{arm}" for arm in (ARMS - {"off_the_shelf"}) | {"analysis"}}
    assert len(tracked) == len(ARMS)
    [instilled] = [run for run in tracked if run.name == "tiny-seed0/instilled"]
    assert instilled.steps("eval/share_a") == [2, 4, 6, 8, 10]


def test_killed_in_training_and_in_evaluation_it_ends_the_same(tiny_experiment: Path, straight: Path, tmp_path: Path):
    folder = tmp_path / "tiny-seed0"
    stages = [
        lambda: any((folder / "adapters" / "instilled").glob("checkpoint-*/trainer_state.json")),
        lambda: (folder / "trials" / "instilled" / "decisions" / "shards" / "00001.parquet").exists(),
    ]
    for reached in stages:
        kill_when(experiment_command(tiny_experiment, tmp_path), reached, seconds=500)
    assert not (folder / "analysis").exists()
    result = run_experiment(tiny_experiment, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert len(result.stdout.splitlines()) < 45, "a stage says what it does and its result"
    assert (folder / "logs" / "instilled.sft.log").stat().st_size, "what libraries say is in the log"
    for path in [*straight.rglob("adapter_model.safetensors"), *straight.rglob("trials.parquet")]:
        assert (folder / path.relative_to(straight)).read_bytes() == path.read_bytes(), path.name
    ended, uninterrupted = (read_summary(run / "analysis" / "summary.json") for run in (folder, straight))
    assert ended.key == uninterrupted.key


def test_an_unknown_training_setting_is_found_before_anything_runs(tiny_experiment: Path, tmp_path: Path):
    values = yaml.safe_load(tiny_experiment.read_text())
    values["trainings"]["introspection"]["sft"] = {"learning_rat": 1}
    (tmp_path / "typo.yaml").write_text(yaml.safe_dump(values))
    result = run_experiment(tmp_path / "typo.yaml", tmp_path / "runs")
    assert result.returncode == 2 and "unknown setting 'learning_rat'" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_an_adapter_of_another_base_model_is_refused(tiny_experiment: Path, straight: Path, tmp_path: Path):
    config = yaml.safe_load((straight / "stages" / "evaluate.yaml").read_text())
    config["model"]["name"] = str(make_tiny_model(tmp_path / "other", seed=5))
    config["output"] = str(tmp_path / "trials")
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(config))
    result = subprocess.run(
        [sys.executable, "-m", "eval.run", "--config", str(tmp_path / "evaluate.yaml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2 and "trained on the base model" in result.stderr
    assert not (tmp_path / "trials").exists()
