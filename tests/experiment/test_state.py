"""Where stages stand: by content, by settings, and never by file times or by the place of the folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiment.launcher import check_unchanged, plan_runs
from experiment.plan import Run
from store.files import read_json, write_json
from store.stages import Stage, read_origin
from store.state import StageState, portable, stage_state
from support import ROOT, run_experiment
from task.errors import InputError

SIMULATED = ROOT / "configs" / "experiments" / "simulated.yaml"


def states(run: Run) -> dict[str, str]:
    return {stage.name: str(stage_state(run.folder, run.record, stage)) for stage in run.stages}


def changed(experiment: Path, folder: Path, **change: Any) -> Path:
    """An experiment file with other values."""
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(experiment.read_text()), **change}))
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished simulation of few contexts; its experiment file lies beside the runs."""
    folder = tmp_path_factory.mktemp("small")
    values = yaml.safe_load(SIMULATED.read_text())
    values["contexts"]["instilled"]["count"], values["contexts"]["native"]["count"] = 6, 4
    values["engine"]["shard_size"] = 20
    (folder / "small.yaml").write_text(yaml.safe_dump(values))
    result = run_experiment(folder / "small.yaml", folder / "runs", WANDB_MODE="offline")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.fixture
def copied(small: Path, tmp_path: Path) -> Path:
    """A copy of it elsewhere, younger than the original."""
    shutil.copytree(small, tmp_path / "copy")
    return tmp_path / "copy"


def planned(folder: Path, experiment: str = "small.yaml") -> Run:
    return plan_runs(folder / experiment, folder / "runs")[0]


FINISHED = {"evaluate": "finished", "analyse": "finished", "track": "finished"}


def test_before_anything_has_begun(tmp_path: Path):
    [run] = plan_runs(SIMULATED, tmp_path)
    assert states(run) == dict.fromkeys(FINISHED, "missing")


def test_copied_moved_and_touched_runs_stand_where_the_first_one_does(small: Path, copied: Path):
    assert states(planned(small)) == FINISHED
    for path in copied.rglob("*"):
        os.utime(path, (1, 1) if "trials" in path.parts else None)
    assert states(planned(copied)) == FINISHED
    shutil.move(copied, copied.with_name("moved"))
    moved = copied.with_name("moved")
    assert states(planned(moved)) == FINISHED
    [spelled] = plan_runs(moved / "small.yaml", moved / "runs" / ".." / "runs")
    assert states(spelled) == FINISHED


def test_shards_that_are_left_are_counted(copied: Path):
    folder = planned(copied).folder
    shutil.rmtree(folder.trials / "shuffled")
    found = states(planned(copied))
    assert found["evaluate"] == "interrupted: 63 of 66 shards"
    assert found["analyse"].startswith("stale: trial_files.trials/shuffled/reports: ") and found["track"] == "finished"


def test_other_planted_answers_make_the_measurements_stale(copied: Path):
    planted = yaml.safe_load((copied / "small.yaml").read_text())["planted"]
    planted["introspection"]["report_accuracy"] = 0.1
    changed(copied / "small.yaml", copied, planted=planted)
    found = states(planned(copied, "changed.yaml"))
    assert found["evaluate"] == "stale: introspection/reports: planted.report_accuracy: 0.75 -> 0.1"


def test_another_comparison_makes_only_the_analysis_stale(copied: Path):
    comparisons = yaml.safe_load((copied / "small.yaml").read_text())["comparisons"]
    comparisons[0]["name"] = "renamed"
    changed(copied / "small.yaml", copied, comparisons=comparisons)
    found = states(planned(copied, "changed.yaml"))
    assert found["evaluate"] == "finished" and found["analyse"].startswith("stale: record: ")


def test_an_edited_figure_is_to_be_logged_again(copied: Path):
    figure = planned(copied).folder.analysis / "figures" / "scatter.png"
    figure.write_bytes(figure.read_bytes() + b"x")
    assert states(planned(copied))["track"].startswith("stale: files.scatter.png: ")


def test_the_same_settings_in_other_places_are_the_same():
    there = {"output_dir": "runs/a-seed0/adapters/x", "train_file": "runs/a-seed0/examples/x/train.jsonl", "seed": 1}
    here = {"output_dir": "/b/c/adapters/x", "train_file": "/b/c/examples/x/train.jsonl", "seed": 1, "run_name": "y"}
    output = Path("/b/c/adapters/x")
    assert portable(there, output) == portable(here, output)
    assert portable(there, output)["train_file"] == "RUN/examples/x/train.jsonl"
    assert portable({**there, "train_file": "runs/a-seed01/t"}, output)["train_file"] == "runs/a-seed01/t"


# Trainings


@pytest.fixture
def trained(tiny_experiment: Path, straight: Path, tmp_path: Path) -> Run:
    """A copy of a finished run with trainings."""
    shutil.copytree(straight, tmp_path / straight.name)
    return plan_runs(tiny_experiment, tmp_path)[0]


def test_a_finished_run_has_finished(trained: Run):
    assert {*states(trained).values()} == {"finished"}


def test_the_same_run_and_the_same_model_in_other_places_are_the_same(
    trained: Run, tiny_experiment: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path)
    for root in (".", "./link", f"../{tmp_path.name}", "link/link", str(tmp_path / "link")):
        assert {*states(plan_runs(tiny_experiment, Path(root))[0]).values()} == {"finished"}, root
    shutil.copytree(tiny_model, tmp_path / "moved")
    values = yaml.safe_load(tiny_experiment.read_text())
    model = yaml.safe_load(Path(values["model"]).read_text())
    for name in ("moved", str(tmp_path / "moved")):
        (tmp_path / "model.yaml").write_text(yaml.safe_dump({**model, "name": name}))
        run = plan_runs(changed(tiny_experiment, tmp_path, model=str(tmp_path / "model.yaml")), tmp_path)[0]
        assert {*states(run).values()} == {"finished"}, name
    weights = tmp_path / "moved" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4000] + bytes(4000))
    assert states(run)["instilled.sft"].startswith("stale: model_name_or_path: ")


def with_rate(run: Run, experiment: Path, tmp_path: Path, rate: float) -> Run:
    """The same run planned with another learning rate of the first training."""
    values = yaml.safe_load(experiment.read_text())
    values["trainings"]["instilled"]["sft"] = {"learning_rate": rate}
    path = tmp_path / "rate.yaml"
    path.write_text(yaml.safe_dump(values))
    return plan_runs(path, run.folder.path.parent)[0]


def test_another_learning_rate_is_said_alike_by_status_and_by_the_launcher(
    trained: Run, tiny_experiment: Path, tmp_path: Path
):
    run = with_rate(trained, tiny_experiment, tmp_path, 0.5)
    said = "learning_rate: 1e-06 -> 0.5"
    assert states(run)["instilled.sft"] == f"stale: {said}" and states(run)["introspection_all.sft"] == "finished"
    with pytest.raises(InputError, match=rf"instilled.sft .* {said}. Redo it with --overwrite instilled.sft"):
        check_unchanged(run, ())
    status = run_experiment(tmp_path / "rate.yaml", run.folder.path.parent, "--status")
    assert f"stale: {said}" in status.stdout
    launched = run_experiment(tmp_path / "rate.yaml", run.folder.path.parent)
    assert launched.returncode == 2 and said in launched.stderr and len(launched.stderr.splitlines()) == 1


def test_a_plan_that_was_written_but_not_carried_out_is_still_stale(
    trained: Run, tiny_experiment: Path, tmp_path: Path
):
    """As after a kill between the writing of a stage's settings and its start."""
    from experiment.prepare import prepare

    run = with_rate(trained, tiny_experiment, tmp_path, 0.5)
    prepare(run, overwrite=False)
    assert states(run)["instilled.sft"] == "stale: learning_rate: 1e-06 -> 0.5"


def test_other_files_than_those_it_was_made_from(trained: Run):
    folder = trained.folder
    weights = folder.adapter("instilled") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes() + b"x")
    found = states(trained)
    assert (
        found["instilled.sft"] == "finished"
        and found["introspection_all.sft"] == f"stale: made from another adapter in {weights.parent}"
    )
    assert found["evaluate"].startswith("stale: instilled/decisions: adapter: ")
    rows = folder.examples("instilled") / "train.jsonl"
    rows.write_text(rows.read_text() + "\n")
    assert states(trained)["instilled.sft"] == f"stale: made from another {rows}"
    folder.target_weights.write_text(folder.target_weights.read_text().replace("100", "99"))
    assert states(trained)["instilled.examples"] == f"stale: made from another {folder.target_weights}"


def test_another_scaling_of_an_adapter(trained: Run):
    """The same tensors, multiplied by ten times as much, are another adapter."""
    config = trained.folder.adapter("instilled") / "adapter_config.json"
    said = read_json(config)
    write_json(config, {**said, "lora_alpha": 10 * said["lora_alpha"]})
    found = states(trained)
    assert found["evaluate"].startswith("stale: instilled/decisions: adapter: ")
    assert found["introspection_all.sft"] == f"stale: made from another adapter in {config.parent}"


def test_a_training_stands_at_its_last_complete_checkpoint(trained: Run):
    [stage] = [stage for stage in trained.stages if stage.name == "instilled.sft"]
    made_from = read_origin(stage.output).depends_on
    shutil.rmtree(stage.output)
    assert stage_state(trained.folder, trained.record, stage) == StageState("missing")
    Stage(stage.output, made_from)
    (stage.output / "checkpoint-2").mkdir()
    found = stage_state(trained.folder, trained.record, stage)
    assert found == StageState("interrupted", "before its first checkpoint")


def test_files_of_another_version_are_refused_in_one_line(trained: Run):
    (trained.folder.adapter("instilled") / "manifest.json").write_text('{"depends_on": {}}')
    with pytest.raises(InputError, match=r"adapters/instilled/manifest.json: format") as caught:
        states(trained)
    assert "\n" not in str(caught.value)
