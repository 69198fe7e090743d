"""An experiment that looks inside its arms, from its file to its page, on the model organism; then another of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from analysis.study.inside_scores import read_arm_scores
from store.inside import TASKS
from store.inside_summary import InsideSummary
from store.summary import read_summary
from support import made_once, run_experiment

SCALES = {"ratings": True, "layout": "side_by_side"}
SHORT = {"teach": "decisions", "train_per_context": 16, "validation_per_context": 0}
EXPERIMENT: dict[str, Any] = {
    "name": "looked_into",
    "seeds": [0],
    "model": "configs/models/organism.yaml",
    "engine": {"name": "transformers", "batch_size": 32, "shard_size": 64, "report_tokens": 64},
    "estimator": "log_odds",
    "contexts": {
        "instilled": {"file": "task/data/instilled.jsonl", "count": 4, **SCALES},
        "spare": {"file": "task/data/spare.jsonl", "count": 1, **SCALES},
    },
    "target_contexts": ["instilled", "spare"],
    "trainings": {
        "instilled": {**SHORT, "contexts": "instilled", "keep_every": [2], "sft": {"max_steps": 4}},
        "introspection_all": {
            "start": "instilled",
            "teach": "reports",
            "contexts": "instilled",
            "train_per_context": 8,
            "validation_per_context": 0,
            "rehearse": 8,
            "sft": {"max_steps": 4},
        },
        "fresh": {
            **SHORT,
            "on_top_of": "introspection_all",
            "apart": True,
            "contexts": "spare",
            "sft": {"lora_r": 2, "lora_alpha": 4, "max_steps": 2},
        },
    },
    "cuts": {"instilled": [2]},
    "measurements": [
        {"arm": arm, "measure": measure, "contexts": contexts, **more, **size}
        for arm, contexts, more in (
            ("instilled", "instilled", {}),
            ("instilled", "instilled", {"kept": True}),
            ("instilled", "instilled", {"cuts": True}),
            ("introspection_all", "instilled", {}),
            ("fresh", "spare", {}),
        )
        for measure, size in (("decisions", {"per_context": 6}), ("reports", {"per_context": 2, "constrained": True}))
    ],
    "inside": {
        "attribution": {
            "arms": ["instilled", "introspection_all", "fresh"],
            "contexts": "instilled",
            "prompts": 2,
            "steps": 2,
            "random": 1,
        },
        "patching": {"arms": ["introspection_all"], "random": 1},
    },
    "gate": {"arm": "instilled", "contexts": "instilled"},
    "comparisons": [
        {
            "name": "introspection_all",
            "reports": "introspection_all",
            "reports_constrained": True,
            "weights": "introspection_all",
            "contexts": "instilled",
        }
    ],
    "differences": [],
}
ARMS = {"instilled", "introspection_all", "fresh_1"}
CUT = {"instilled_below_2", "instilled_from_2"}


def written(folder: Path, **changed: Any) -> Path:
    (folder / "looked_into.yaml").write_text(yaml.safe_dump(EXPERIMENT | changed))
    return folder / "looked_into.yaml"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run; not to be changed but by the last tests here."""

    def make(folder: Path) -> None:
        result = run_experiment(written(folder), folder)
        assert result.returncode == 0, result.stderr[-3000:]

    return made_once(tmp_path_factory, "looked_into", make) / "looked_into-seed0"


@pytest.fixture(scope="module")
def found(made: Path) -> InsideSummary:
    inside = read_summary(made / "analysis" / "summary.json").inside
    assert inside is not None and not inside.notes
    return inside


def status(experiment: Path, runs: Path) -> dict[str, str]:
    """The state of each stage, as the launcher shows it, but for the tracking, which tests switch off."""
    result = run_experiment(experiment, runs, "--status")
    assert result.returncode == 0, result.stderr
    _, _, *lines = result.stdout.splitlines()
    return {words[0]: words[1].rstrip(":") for line in lines if (words := line.split()) and words[0] != "track"}


def test_every_arm_that_is_named_has_scores_of_both_tasks(made: Path, found: InsideSummary):
    for arm in ARMS:
        scores = read_arm_scores(made / "inside", arm)
        assert scores is not None and {*scores.scores} == {*TASKS}, arm
    assert {*found.arms} == {"instilled", "introspection_all"}
    for arm in found.arms.values():
        assert arm.n_contexts + len(arm.left_out) == 4 and arm.n_contexts > 1, (
            "without a report that can be read, left out"
        )
        assert len(arm.random) == 1 and arm.similarity.estimate is not None
    assert found.arms["introspection_all"].backbone == "off_the_shelf"
    assert found.fresh["fresh"].backbone == "introspection_all"
    assert [arm.arm for arm in found.fresh["fresh"].arms] == ["fresh_1"]


def test_patching_measures_both_tasks_in_each_order_of_the_matrices(found: InsideSummary):
    [patched] = found.patching.values()
    assert patched.n_contexts["deciding"] == 4 == patched.n_contexts["reporting"] + len(patched.left_out)
    assert {(curve.task, curve.ranked_by) for curve in patched.curves} == {
        (task, order) for task in TASKS for order in (*TASKS, "random")
    }


def test_kept_steps_and_halves_are_arms_that_were_measured(made: Path):
    measured = {path.parent.parent.name for path in made.glob("trials/*/decisions/trials.parquet")}
    assert measured == ARMS | CUT | {"instilled@2"}


def test_the_page_shows_it(made: Path):
    page = (made / "analysis" / "report.html").read_text()
    assert "introspection_all" in page and "fresh" in page


def test_other_settings_make_the_stage_stale_and_what_is_built_on_it(made: Path, tmp_path: Path):
    runs = made.parent
    assert {state for _, state in status(written(tmp_path), runs).items()} == {"finished"}
    inside = {**EXPERIMENT["inside"], "attribution": {**EXPERIMENT["inside"]["attribution"], "prompts": 3}}
    other = written(tmp_path, inside=inside)
    states = status(other, runs)
    assert (states["attribute"], states["evaluate"]) == ("stale", "finished")
    result = run_experiment(other, runs)
    assert result.returncode == 2 and "stage attribute" in result.stderr and "--overwrite attribute" in result.stderr
