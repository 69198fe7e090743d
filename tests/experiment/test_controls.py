"""Controls as entries of an experiment file: derived arms, sources of labels, the cue, and jobs that wait for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from experiment.file import load_experiment, load_groups
from experiment.plan import Run
from experiment.planned import PlannedStage, TrialTokens
from experiment.prepare import write_inputs
from experiment.slurm.chain import chain
from experiment.slurm.site import Site
from store.evaluation import EvalConfig
from store.model_file import ModelFile
from store.run import RunFolder
from store.settings import read_settings
from store.weights import load_weights
from support import ROOT
from task.errors import InputError

CONTROLS = ROOT / "configs" / "experiments" / "controls.yaml"

MODEL = ModelFile.model_validate({"name": "models/none", "licence": "mit"})


def controls(tmp_path: Path, **change: Any) -> Run:
    """The plan of the controls on a few contexts, with changes to the file."""
    values = yaml.safe_load(CONTROLS.read_text())
    for group, count in {"instilled": 6, "native": 3, "spare": 4}.items():
        values["contexts"][group]["count"] = count
    for key, more in change.items():
        values[key] = {**values[key], **more} if isinstance(more, dict) else more
    (tmp_path / "controls.yaml").write_text(yaml.safe_dump(values))
    experiment = load_experiment(tmp_path / "controls.yaml")
    folder = RunFolder(tmp_path / "runs" / "controls-seed3")
    tokens = TrialTokens(100, 1, 40, 110, 1)
    return Run(experiment, MODEL, load_groups(experiment), 3, folder, lambda *_: tokens)


def by_name(run: Run) -> dict[str, PlannedStage]:
    return {stage.name: stage for stage in run.stages}


def test_each_stage_comes_after_what_it_needs(tmp_path: Path):
    stages = by_name(controls(tmp_path))
    names = [*stages]
    assert all(names.index(need) < names.index(name) for name, stage in stages.items() for need in stage.needs)
    assert stages["learned_labels_fold_1.examples"].needs == ("instilled.weights",)
    assert {*stages["swapped_fold_2.derive"].needs} == {"instilled_b.sft", "introspection_fold_2.sft", "instilled.sft"}
    assert {"swapped_fold_1.derive", "dose_0.derive", "reinstilled.sft"} <= {*stages["evaluate"].needs}


def test_a_sum_of_arms_with_folds_has_their_folds(tmp_path: Path):
    run = controls(tmp_path)
    stages, arms = by_name(run), run.arms
    assert [arm.name for arm in arms["swapped"]] == ["swapped_fold_1", "swapped_fold_2"]
    for swapped, trained in zip(arms["swapped"], arms["introspection"], strict=True):
        assert swapped.held_out == trained.held_out
        terms = stages[f"{swapped.name}.derive"].config["terms"]
        found = {Path(term["adapter"]).name: [part["weight"] for part in term["parts"]] for term in terms}
        assert found == {"instilled_b": [1], trained.name: [1], "instilled": [-1]}
    evaluation = EvalConfig.model_validate(stages["evaluate"].config)
    held_out = {m.arm: m.contexts[0].only for m in evaluation.measurements if m.arm.startswith("swapped")}
    assert held_out == {arm.name: arm.held_out for arm in arms["swapped"]}
    assert evaluation.arms["dose_0"] == str(run.folder.adapter("dose_0"))
    assert run.record.arms["swapped_fold_1"].derived and not run.record.arms["swapped_fold_1"].training


def test_labels_come_from_where_the_file_says(tmp_path: Path):
    stages = by_name(controls(tmp_path))
    weights = {name.removesuffix(".examples"): s.config for name, s in stages.items() if s.kind == "examples"}
    assert Path(weights["introspection_fold_1"]["weights"]).name == "target_weights.csv"
    assert Path(weights["redrawn_labels_fold_1"]["weights"]).name == "redrawn_weights.csv"
    assert Path(weights["instilled_b"]["weights"]).name == "redrawn_weights.csv"
    learned = weights["learned_labels_fold_1"]
    assert learned["weights"] == stages["instilled.weights"].config["output"] + "/weights.csv"
    for arm in ("learned_labels_fold_1", "redrawn_labels_fold_2"):
        assert Path(weights[arm]["rehearse_weights"]).name == "target_weights.csv", "what the arm decides by stays"
    assert weights["introspection_fold_1"]["rehearse_weights"] is None
    assert weights["flipped"]["flip_under"] == "cued"
    measured = EvalConfig.model_validate(stages["instilled.decisions"].config)
    whole = EvalConfig.model_validate(stages["evaluate"].config)
    [before] = measured.measurements
    assert before in whole.measurements, "the evaluation finds them done"


def test_rehearsal_follows_the_weights_that_the_start_was_taught(tmp_path: Path):
    values = yaml.safe_load(CONTROLS.read_text())["trainings"]
    other = {**values["introspection"], "start": "instilled_b"}
    stages = by_name(controls(tmp_path, trainings={"introspection_b": other}))
    assert Path(stages["introspection_b_fold_1.examples"].config["rehearse_weights"]).name == "redrawn_weights.csv"


def test_a_repetition_draws_other_examples_of_the_same_weights(tmp_path: Path):
    stages = by_name(controls(tmp_path))
    one, two = (stages[f"{arm}.examples"].config for arm in ("instilled", "twin"))
    assert one["seed"] == 3 != two["seed"] and one["weights"] == two["weights"]
    assert stages["twin.sft"].config["seed"] == two["seed"]


def test_redrawn_weights_are_written_once_and_are_others(tmp_path: Path):
    run = controls(tmp_path)
    run.folder.path.mkdir(parents=True)
    write_inputs(run, overwrite=False)
    targets, redrawn = load_weights(run.folder.target_weights), load_weights(run.folder.redrawn_weights)
    assert {*targets} == {*redrawn} and len(targets) == 10, "of both groups that have targets"
    assert all(not np.array_equal(targets[name], redrawn[name]) for name in targets)


def test_jobs_wait_for_what_their_stages_need(tmp_path: Path):
    site = read_settings(ROOT / "configs" / "slurm" / "site.yaml", Site)
    jobs = {job.name: job for job in chain(controls(tmp_path), site, Path("configs/accelerate/cpu.yaml"), ())}
    assert jobs["instilled.weights"].stages == ("instilled.decisions", "instilled.weights")
    assert jobs["instilled.weights"].after == ("instilled.sft",) and jobs["instilled.weights"].kind == "evaluate"
    assert {*jobs["learned_labels_fold_1.sft"].after} == {"instilled.weights", "instilled.sft"}
    assert {*jobs["swapped_fold_1.derive"].after} == {"instilled_b.sft", "introspection_fold_1.sft", "instilled.sft"}
    # Sums that wait for the same training are made by one job.
    [doses] = [job for job in jobs.values() if "dose_125.derive" in job.stages]
    assert len(doses.stages) == 5 and doses.after == ("instilled.sft",)
    assert {"swapped_fold_1.derive", doses.name, "flipped.sft"} <= {*jobs["evaluate"].after}
    names = [*jobs]
    assert all(names.index(need) < names.index(name) for name, job in jobs.items() for need in job.after)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"derived": {"dose_0": {"instiled": 0}}}, "derived: 'instiled' is none of"),
        ({"derived": {"dose_0": {"off_the_shelf": 0}}}, "derived: 'off_the_shelf' is none of"),
        ({"derived": {"dose_0": {}}}, "derived.dose_0: sums nothing"),
        ({"derived": {"dose_0": {"instilled": float("nan")}}}, "derived.dose_0.instilled.0.weight"),
        ({"derived": {"dose_0": {"instilled": {"layers": "first"}}}}, "give 'first N', 'last N' or 'LOW-HIGH'"),
        ({"derived": {"instilled": {"instilled": 0}}}, "'instilled' and 'instilled' have one name"),
        ({"derived": {"introspection_fold_1": {"instilled": 0}}}, "'introspection_fold_1' have one name"),
        ({"derived": {"evaluate": {"instilled": 0}}}, "'evaluate' means something else in a run"),
        ({"trainings": {"more": {"start": "dose_50", "teach": "reports"}}}, "trainings"),
        ({"target_contexts": ["instilled"]}, "trainings.reinstilled: contexts 'spare' have no target weights"),
        ({"target_contexts": ["instilled", "elsewhere"]}, "target_contexts: 'elsewhere' is none of"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path: Path, change: dict, says: str):
    with pytest.raises(InputError, match=says):
        controls(tmp_path, **change)


def test_learned_labels_need_the_decisions_that_they_are_learned_from(tmp_path: Path):
    values = yaml.safe_load(CONTROLS.read_text())
    more = {**values["trainings"]["learned_labels"], "start": "flipped", "contexts": "spare"}
    says = r"labels learned needs decisions of flipped \(plain\) on 'spare'"
    with pytest.raises(InputError, match=says):
        controls(tmp_path, trainings={"more": more})
