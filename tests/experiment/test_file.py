"""Experiment files: what they may not say is found when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from experiment.file import Training, load_experiment, training_order
from experiment.launcher import plan_runs
from support import ROOT
from task.errors import InputError

SIMULATED = yaml.safe_load((ROOT / "configs" / "experiments" / "simulated.yaml").read_text())
DEMO = yaml.safe_load((ROOT / "configs" / "experiments" / "demo.yaml").read_text())
GROUPS = {"native": {"file": "task/data/native.jsonl"}}


def refused(tmp_path: Path, values: dict[str, Any]) -> str:
    """What is said of an experiment file."""
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(InputError) as caught:
        plan_runs(path, tmp_path / "runs")
    assert not (tmp_path / "runs").exists() and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"enginee": {}}, "unknown key 'enginee'"),
        ({"name": "../escape"}, "name: a name is letters, digits"),
        ({"seeds": []}, "seeds"),
        ({"contexts": {"instilled": {"file": "nowhere.jsonl"}, **GROUPS}}, "nowhere.jsonl: no such contexts file"),
        ({"contexts": {"instilled": {"file": "task/data/spare.jsonl", "count": 500}, **GROUPS}}, "500 contexts asked"),
        ({"contexts": {"instilled": {"file": "task/data/native.jsonl"}, **GROUPS}}, "is in instilled and in native"),
        (
            {"comparisons": [{"name": "x", "reports": "me", "weights": "instilled", "contexts": "native"}]},
            "'me' is none",
        ),
        ({"gate": {"arm": "instilled", "contexts": "mine"}}, "gate: 'mine' is none of"),
        ({"gate": {"arm": "instilled", "contexts": "native"}}, "gate: contexts 'native' have no target weights"),
        ({"gate": {"arm": "shuffled", "contexts": "instilled"}}, "gate: shuffled on instilled needs decisions of shuf"),
        ({"differences": [{"name": "x", "before": "nothing", "after": "instilled"}]}, "'nothing' is none of"),
        ({"differences": [{"name": "x", "before": "native_before", "after": "instilled"}]}, "differ in them"),
        ({"planted": {"instilled": {}}}, "is none of"),
        ({"engine": {"name": "transformers"}}, "model: name a file of configs/models/"),
        ({"measurements": [*SIMULATED["measurements"], SIMULATED["measurements"][0]]}, "are asked for twice"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_simulation_is_one_clear_line(tmp_path: Path, change: dict[str, Any], says: str):
    assert says in refused(tmp_path, {**SIMULATED, **change})


@pytest.mark.parametrize(
    ("training", "change", "says"),
    [
        (
            "introspection_all",
            {"start": "introspection"},
            "trainings.introspection_all: start 'introspection' is 2 arms",
        ),
        ("introspection_all", {"start": "nobody"}, "trainings: 'nobody' is none of"),
        ("instilled", {"start": "introspection_all"}, "trainings go round in a circle: instilled, intro"),
        ("introspection", {"folds": 101}, f"101 folds of {DEMO['contexts']['instilled']['count']} contexts"),
        ("introspection", {"folds": None}, "held_out needs an arm with folds"),
        ("instilled", {"teach": "reporting"}, "trainings.instilled.teach"),
        ("instilled", {"train_per_context": 0}, "trainings.instilled.train_per_context"),
        (
            "instilled",
            {"rehearse": 0.5},
            "trainings.instilled: validation_contexts and rehearse belong to teach: reports",
        ),
        ("introspection", {"rehearse": 1.5}, "rehearse 1.5: give a share below 1, or a whole number of decisions"),
        ("introspection", {"rehearse": -1}, "trainings.introspection.rehearse"),
        ("introspection", {"validation_per_context": 1}, "reports are validated on contexts without training rows"),
        ("introspection", {"validation_contexts": 1}, "reports are validated on contexts without training rows"),
    ],
)
def test_a_bad_training_is_one_clear_line(tmp_path: Path, training: str, change: dict[str, Any], says: str):
    values = yaml.safe_load(yaml.safe_dump(DEMO))
    values["trainings"][training] |= change
    assert says in refused(tmp_path, values)


def test_a_gate_on_an_arm_with_folds_is_found_before_any_training(tmp_path: Path):
    values = {**DEMO, "gate": {"arm": "introspection", "contexts": "instilled"}}
    assert "gate: arm 'introspection' is 2 arms, one a fold, and one is needed" in refused(tmp_path, values)


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path):
    (tmp_path / "x.yaml").write_text("name: [")
    with pytest.raises(InputError, match=r"x.yaml:1: not YAML"):
        load_experiment(tmp_path / "x.yaml")
    with pytest.raises(InputError, match=r"y.yaml: no such configuration file"):
        load_experiment(tmp_path / "y.yaml")


def test_trainings_come_after_what_they_start_from():
    def training(start: str) -> Training:
        return Training(start=start, teach="reports", contexts="c", train_per_context=1, validation_per_context=0)

    trainings = {"c": training("b"), "b": training("a"), "a": training("off_the_shelf"), "d": training("a")}
    assert training_order(trainings) == ["a", "b", "d", "c"]
