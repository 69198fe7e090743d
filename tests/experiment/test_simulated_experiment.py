"""The bundled simulation through the real command: what was planted must be found."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from experiment.launcher import plan_runs
from support import ROOT, experiment_command, kill_when, run_experiment
from task.errors import InputError

SIMULATED = ROOT / "configs" / "experiments" / "simulated.yaml"
GROUPS = {"native": {"file": "task/data/native.jsonl"}}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    result = run_experiment(SIMULATED, folder)
    assert result.returncode == 0, result.stderr
    assert "report.html" in result.stdout, "it ends with the files to open"
    assert len(result.stdout.splitlines()) < 25, "a stage says its result in a few lines"
    return folder


@pytest.fixture(scope="module")
def summary(runs: Path) -> dict[str, Any]:
    return json.loads((runs / "simulated-seed0" / "analysis" / "summary.json").read_text())


def test_planted_weights_are_recovered(summary: dict[str, Any], runs: Path):
    learned = summary["learned_vs_target"]
    assert learned["r"] >= 0.95 and learned["n_contexts"] == 100 and learned["n_points"] == 500
    assert summary["gate"]["passed"] and summary["gate"]["agreement"] == 1.0
    weights = pd.read_csv(runs / "simulated-seed0" / "analysis" / "weights.csv")
    native = weights[(weights["arm"] == "instilled") & (weights["group"] == "native")].set_index("context")
    planted = pd.read_csv(runs / "simulated-seed0" / "inputs" / "planted_weights.csv").set_index("context")
    columns = [f"weight_{i}" for i in range(1, 6)]
    true = planted.loc[native.index, columns].to_numpy().ravel()
    assert np.corrcoef(native[columns].to_numpy().ravel(), true)[0, 1] >= 0.95
    log_odds = native[[f"log_odds_{i}" for i in range(1, 6)]].to_numpy().ravel()
    assert np.corrcoef(log_odds, true)[0, 1] > 0.9999, "log odds of a noiseless chooser leave no error"


@pytest.mark.parametrize(
    ("comparison", "arm"),
    [
        ("off_the_shelf", "off_the_shelf"),
        ("instilled", "instilled"),
        ("introspection_trained", "introspection"),
        ("native_before", "instilled"),
        ("native_after", "introspection_all"),
    ],
)
def test_planted_report_accuracy_lies_in_its_interval(summary: dict[str, Any], comparison: str, arm: str):
    # Reports have the planted correlation with the true weights; measuring these by 50 choices attenuates it.
    accuracy = (
        yaml.safe_load(SIMULATED.read_text())["planted"][arm]["report_accuracy"] * summary["learned_vs_target"]["r"]
    )
    found = summary["comparisons"][comparison]
    assert found["testable"] and found["n_contexts"] == 100
    assert found["boot_low"] <= accuracy <= found["boot_high"]
    assert found["hdi_low"] <= accuracy <= found["hdi_high"]


def test_shuffled_labels_are_at_chance(summary: dict[str, Any]):
    shuffled, true = summary["comparisons"]["shuffled"], summary["comparisons"]["introspection_trained"]
    assert shuffled["boot_low"] < 0 < shuffled["boot_high"] and shuffled["p_permutation"] > 0.05
    assert true["p_permutation"] < 0.001


def test_unreadable_reports_are_counted(summary: dict[str, Any]):
    found = summary["comparisons"]["instilled"]
    assert found["total_reports"] == 1000 and 850 < found["valid_reports"] < 950
    assert sum(found["unreadable"].values()) == 1000 - found["valid_reports"]


def test_run_again_it_changes_nothing(runs: Path):
    folder = runs / "simulated-seed0"
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.parent.name != "logs"}
    assert run_experiment(SIMULATED, runs).returncode == 0
    after = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.parent.name != "logs"}
    assert before == after


def test_killed_in_the_evaluation_it_ends_the_same(runs: Path, tmp_path: Path):
    part = tmp_path / "simulated-seed0" / "trials" / "instilled" / "decisions" / "shards" / "00002.parquet"
    kill_when(experiment_command(SIMULATED, tmp_path), part.exists)
    assert not (tmp_path / "simulated-seed0" / "analysis").exists()
    assert run_experiment(SIMULATED, tmp_path).returncode == 0
    for path in (runs / "simulated-seed0" / "trials").rglob("trials.parquet"):
        assert (tmp_path / path.relative_to(runs)).read_bytes() == path.read_bytes()
    for name in ("summary.json", "weights.csv", "agreement.csv", "report.html"):
        new, old = (root / "simulated-seed0" / "analysis" / name for root in (tmp_path, runs))
        if name != "report.html":  # which shows wall times
            assert new.read_bytes() == old.read_bytes()


def small(tmp_path: Path, **change: Any) -> Path:
    experiment = yaml.safe_load(SIMULATED.read_text())
    experiment["contexts"]["instilled"]["count"] = 6
    experiment["contexts"]["native"]["count"] = 4
    experiment |= change
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(experiment))
    return path


def test_a_changed_stage_refuses_and_says_what_changed(tmp_path: Path):
    runs = tmp_path / "runs"
    assert run_experiment(small(tmp_path), runs).returncode == 0
    before = {p: p.read_bytes() for p in runs.rglob("*") if p.is_file()}
    planted = yaml.safe_load(SIMULATED.read_text())["planted"]
    planted["introspection"]["report_accuracy"] = 0.1
    changed = small(tmp_path, planted=planted)
    result = run_experiment(changed, runs)
    assert result.returncode == 2
    assert "planted.report_accuracy: 0.75 -> 0.1" in result.stderr and "--overwrite evaluate" in result.stderr
    trials = {p: c for p, c in before.items() if "trials" in p.parts or "analysis" in p.parts}
    assert all(p.read_bytes() == content for p, content in trials.items())
    assert run_experiment(changed, runs, "--overwrite", "evaluate").returncode == 0
    summary = json.loads((runs / "simulated-seed0" / "analysis" / "summary.json").read_text())
    assert summary["comparisons"]["introspection_trained"]["r"] < 0.6


def test_other_contexts_are_refused_before_anything_is_written(tmp_path: Path):
    runs = tmp_path / "runs"
    assert run_experiment(small(tmp_path), runs).returncode == 0
    before = {p: p.read_bytes() for p in runs.rglob("*") if p.is_file()}
    contexts = {
        "instilled": {"file": "task/data/spare.jsonl", "count": 6},
        "native": {"file": "task/data/native.jsonl"},
    }
    result = run_experiment(small(tmp_path, contexts=contexts), runs)
    assert result.returncode == 2 and "made from other inputs" in result.stderr
    assert {p: p.read_bytes() for p in runs.rglob("*") if p.is_file()} == before


def test_a_measurement_may_be_added(tmp_path: Path):
    runs = tmp_path / "runs"
    assert run_experiment(small(tmp_path), runs).returncode == 0
    old = next(runs.rglob("trials/instilled/decisions/trials.parquet"))
    before = (old.stat().st_mtime_ns, old.read_bytes())
    measurements = yaml.safe_load(SIMULATED.read_text())["measurements"]
    measurements.append({"arm": "introspection", "measure": "decisions", "contexts": "native", "per_context": 5})
    result = run_experiment(small(tmp_path, measurements=measurements), runs)
    assert result.returncode == 0, result.stderr
    assert (old.stat().st_mtime_ns, old.read_bytes()) == before
    assert list(runs.rglob("trials/introspection/decisions/trials.parquet"))


def test_a_trial_file_cut_in_the_middle_is_named(tmp_path: Path):
    runs = tmp_path / "runs"
    assert run_experiment(small(tmp_path), runs).returncode == 0
    path = next(runs.rglob("trials/instilled/decisions/trials.parquet"))
    path.write_bytes(path.read_bytes()[:-100])
    analysed = (runs / "simulated-seed0" / "analysis" / "summary.json").read_bytes()
    analyse = [sys.executable, "-m", "analysis.run", "--run", str(runs / "simulated-seed0")]
    result = subprocess.run(analyse, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and str(path) in result.stderr
    assert "changed since the evaluation wrote it" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert (runs / "simulated-seed0" / "analysis" / "summary.json").read_bytes() == analysed


def test_bad_input_is_one_line_and_nothing_is_written(tmp_path: Path):
    result = run_experiment(small(tmp_path, gate={"arm": "instilled", "contexts": "mine"}), tmp_path / "runs")
    assert result.returncode == 2 and result.stderr.startswith("error: ") and "gate: 'mine' is none of" in result.stderr
    assert len(result.stderr.splitlines()) == 1 and not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda c: c["attributes"][1].update(low=9, high=9), "has an empty range [9, 9]"),
        (lambda c: c["attributes"][1].update(name=c["attributes"][0]["name"]), "is given 2 times"),
        (lambda c: c.update(agent=" "), "agent is missing"),
        (lambda c: c.pop("agent"), "agent is missing"),
    ],
)
def test_bad_contexts_are_one_clear_line(tmp_path: Path, edit: Any, says: str):
    lines = (ROOT / "task" / "data" / "instilled.jsonl").read_text(encoding="utf-8").splitlines()[:6]
    context = json.loads(lines[3])
    edit(context)
    lines[3] = json.dumps(context)
    (tmp_path / "contexts.jsonl").write_text("\n".join(lines))
    contexts = {"instilled": {"file": str(tmp_path / "contexts.jsonl")}, **GROUPS}
    with pytest.raises(InputError) as caught:
        plan_runs(small(tmp_path, contexts=contexts), tmp_path / "runs")
    assert "contexts.jsonl:4" in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)


def test_dry_run_lists_the_stages_and_writes_nothing(tmp_path: Path):
    for name, stages in (
        ("simulated", ["evaluate", "analyse"]),
        ("demo", ["instilled.examples", "instilled.sft", "introspection_fold_2.sft", "evaluate", "together"]),
        ("replication", ["shuffled_fold_1.sft", "97,000 trials", "replication-seed2"]),
    ):
        result = run_experiment(ROOT / "configs" / "experiments" / f"{name}.yaml", tmp_path / "runs", "--dry-run")
        assert result.returncode == 0, result.stderr
        assert all(stage in result.stdout for stage in stages), result.stdout
    assert not (tmp_path / "runs").exists()


def test_overwrite_takes_only_names_of_stages(tmp_path: Path):
    result = run_experiment(small(tmp_path), tmp_path / "runs", "--overwrite", "evaluation")
    assert result.returncode == 2 and "no such stage; stages: evaluate, analyse" in result.stderr


def test_only_named_stages_are_run(tmp_path: Path):
    result = run_experiment(small(tmp_path), tmp_path / "runs", "--only", "evaluate")
    assert result.returncode == 0 and "[1/1] evaluate" in result.stdout, result.stderr
    folder = tmp_path / "runs" / "simulated-seed0"
    assert (folder / "trials").is_dir() and not (folder / "analysis").exists()
    result = run_experiment(small(tmp_path), tmp_path / "runs", "--only", "evaluation")
    assert result.returncode == 2 and "--only evaluation: no such stage" in result.stderr


def test_the_figures_are_those_of_before(runs: Path):
    """The fixture was written by the version before this structure; layout, provenance and some counts are new."""
    before = dict(leaves(json.loads((Path(__file__).parent / "fixtures" / "simulated_summary.json").read_text())))
    now = json.loads((runs / "simulated-seed0" / "analysis" / "summary.json").read_text())
    kept = {name: now[name] for name in ("gate", "learned_vs_target", "differences", "decisions")}
    found = dict(leaves({**kept, **now["comparisons"]}))
    assert {name: found[name] for name in before} == pytest.approx(before, abs=1e-9)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every number and word of a JSON value, by its path."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}/{key}")
    else:
        yield path, str(value) if isinstance(value, list) else value
