"""Experiment files: what they may not say is found when they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from experiment.file import ContextSource, load_experiment
from experiment.launcher import plan_runs
from experiment.training import Training, training_order
from support import ROOT
from task.errors import InputError

SIMULATED = yaml.safe_load((ROOT / "configs" / "experiments" / "simulated.yaml").read_text())
DEMO = yaml.safe_load((ROOT / "configs" / "experiments" / "demo.yaml").read_text())
PLANTED, COMPARISONS = SIMULATED["planted"], SIMULATED["comparisons"]
GROUPS = {"native": {"file": "task/data/native.jsonl"}}


def twice_in_one(values: dict[str, Any]) -> list[dict[str, Any]]:
    """The measurements, the second of which names its contexts twice."""
    first, second, *rest = values["measurements"]
    return [first, {**second, "contexts": ["instilled", "native", "instilled"]}, *rest]


def refused(tmp_path: Path, values: dict[str, Any]) -> str:
    """What is said of an experiment file."""
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(values, sort_keys=False))
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
        ({"name": "x" * 300}, "name: a name of 300 characters; at most 64"),
        ({"name": "2024/01"}, "name: a name is letters"),
        ({"seeds": [0, 1, 0]}, "seeds: 0 stands there twice"),
        ({"seeds": [-1]}, "seeds.0: Input should be greater than or equal to 0"),
        ({"seeds": [2**70]}, "seeds.0: Input should be less than or equal to 4294967295"),
        ({"seeds": [1e3]}, "seeds.0: Input should be a valid integer (given: 1000.0)"),
        ({"seeds": [True]}, "seeds.0: Input should be a valid integer (given: True)"),
        ({"seeds": 0}, "seeds: Input should be a valid list"),
        ({"measurements": []}, "measurements: List should have at least 1 item"),
        ({"comparisons": []}, "comparisons: List should have at least 1 item"),
        ({"contexts": {}}, "contexts: Dictionary should have at least 1 item"),
        ({"contexts": {"instilled": {"file": "x" * 300}, **GROUPS}}, "contexts.instilled.file: no path"),
        (
            {"contexts": {**SIMULATED["contexts"], "../../evil": GROUPS["native"]}},
            "contexts.../../evil.[key]: a name is",
        ),
        (
            {"contexts": {**SIMULATED["contexts"], "held_out": GROUPS["native"]}},
            "'held_out' means the contexts outside",
        ),
        (
            {"contexts": {**SIMULATED["contexts"], "Native": GROUPS["native"]}},
            "contexts: 'native' and 'Native' have one n",
        ),
        ({"planted": {**PLANTED, "Shuffled": {}}}, "arms: 'shuffled' and 'Shuffled' have one name"),
        ({"planted": {**PLANTED, "analyse": {}}}, "planted: 'analyse' means something else"),
        ({"planted": {**PLANTED, "../../evil": {}}}, "planted.../../evil.[key]: a name is letters"),
        (
            {"comparisons": [*COMPARISONS, {**COMPARISONS[0], "reports": "instilled"}]},
            "'off_the_shelf' and 'off_the_shelf' h",
        ),
        ({"comparisons": [{**COMPARISONS[0], "name": "gate"}]}, "comparisons: 'gate' is a key of summary.json"),
        ({"comparisons": [{**COMPARISONS[0], "name": "../x"}]}, "comparisons.0.name: a name is letters"),
        (
            {"differences": [*SIMULATED["differences"], SIMULATED["differences"][0]]},
            "differences: 'gain_on_held_out_contex",
        ),
        (
            {"comparisons": [{**COMPARISONS[0], "contexts": "native"}]},
            "needs reports of off_the_shelf (trial) on 'native'",
        ),
        ({"measurements": twice_in_one(SIMULATED)}, "have contexts 'instilled' and 'instilled', the same ones twice"),
        (
            {"trainings": {"instilled": DEMO["trainings"]["instilled"]}},
            "trainings: the simulated engine trains nothing",
        ),
        ({"planted": {**PLANTED, "shuffled": {"report_accuracy": float("nan")}}}, "finite number"),
        ({"engine": {"name": "simulated", "vllm": {"max_model_len": "x"}}}, "max_model_len 'x': give a whole number"),
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
        ("introspection", {"contexts": "native"}, "trainings.introspection: contexts 'native' have no target weights"),
        ("introspection", {"start": "../../evil"}, "trainings.introspection.start: a name is letters"),
        ("introspection", {"folds": 1}, "trainings.introspection.folds"),
        ("introspection", {"train_per_context": [1]}, "trainings.introspection.train_per_context"),
        ("introspection", {"train_per_context": 10**30}, "trainings.introspection.train_per_context"),
        ("introspection", {"rehearse": float("inf")}, "trainings.introspection.rehearse"),
        ("introspection", {"sft": {"output_dir": "/tmp/x"}}, "output_dir cannot be set here: the run says where"),
        ("introspection", {"sft": {"seed": 1}}, "seed cannot be set here: the experiment's seeds"),
        ("introspection", {"sft": {"push_to_hub": True}}, "push_to_hub cannot be set here: a run uploads nothing"),
        ("introspection", {"sft": {"resume_from_checkpoint": "x"}}, "resume_from_checkpoint cannot be set here"),
        ("introspection", {"sft": {"num_train_epochs": {}}}, "num_train_epochs {}: give a number"),
        ("introspection", {"sft": {"learning_rate": float("nan")}}, "trainings.introspection.sft: nan is no text"),
        ("introspection", {"validation_per_context": 1}, "reports are validated on contexts without training rows"),
        ("introspection", {"validation_contexts": 1}, "reports are validated on contexts without training rows"),
    ],
)
def test_a_bad_training_is_one_clear_line(tmp_path: Path, training: str, change: dict[str, Any], says: str):
    values = yaml.safe_load(yaml.safe_dump(DEMO))
    values["trainings"][training] |= change
    assert says in refused(tmp_path, values)


def renamed(values: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """An experiment whose training is called otherwise, wherever it is named."""
    return yaml.safe_load(
        yaml.safe_dump(values, sort_keys=False).replace(f"{old}:", f"{new}:").replace(f": {old}\n", f": {new}\n")
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("introspection_fold_1", "arms: 'fold 1 of introspection' and 'introspection_fold_1' have one name"),
        ("Introspection", "arms: 'introspection' and 'Introspection' have one name"),
        ("off_the_shelf", "trainings: 'off_the_shelf' means something else"),
        ("held_out", "trainings: 'held_out' means something else"),
        ("evaluate", "trainings: 'evaluate' means something else"),
        ("../../evil", "trainings.../../evil.[key]: a name is letters"),
    ],
)
def test_a_training_by_the_name_of_something_else_is_refused(tmp_path: Path, name: str, says: str):
    assert says in refused(tmp_path, renamed(DEMO, "introspection_all", name))


def test_held_out_contexts_and_their_group_are_the_same_ones(tmp_path: Path):
    values = yaml.safe_load(yaml.safe_dump(DEMO))
    next(m for m in values["measurements"] if m["contexts"] == "held_out")["contexts"] = ["held_out", "instilled"]
    assert "contexts 'held_out' and 'instilled', the same ones twice" in refused(tmp_path, values)


def test_folds_do_not_each_speak_for_all_contexts_of_another_group(tmp_path: Path):
    """Each context would count once a fold."""
    values = yaml.safe_load(yaml.safe_dump(DEMO))
    for measurement in values["measurements"]:
        if measurement["arm"] == "introspection":
            measurement["contexts"] = ["held_out", "native"]
    values["comparisons"][-1] |= {"reports": "introspection", "weights": "introspection"}
    says = refused(tmp_path, values)
    assert "'introspection' is 2 arms, none of which was trained on 'native'" in says


def test_groups_measured_together_have_equally_many_attributes(tmp_path: Path):
    lines = (ROOT / "task" / "data" / "native.jsonl").read_text().splitlines()[:2]
    contexts = [json.loads(line) for line in lines]
    for context in contexts:
        context["attributes"] = context["attributes"][:3]
    (tmp_path / "three.jsonl").write_text("".join(json.dumps(c) + "\n" for c in contexts))
    values = {**SIMULATED, "contexts": {**SIMULATED["contexts"], "native": {"file": str(tmp_path / "three.jsonl")}}}
    assert "different numbers of attributes (5 in 'instilled', 3 in 'native')" in refused(tmp_path, values)


def test_a_simulation_of_one_context_is_refused(tmp_path: Path):
    measurements = [{**m, "contexts": "instilled"} for m in SIMULATED["measurements"]]
    comparisons = [c for c in COMPARISONS if c["contexts"] == "instilled"]
    values = {**SIMULATED, "measurements": measurements, "comparisons": comparisons, "differences": []}
    values["contexts"] = {"instilled": {**SIMULATED["contexts"]["instilled"], "count": 1}}
    assert "the simulated engine needs at least 2 contexts" in refused(tmp_path, values)


def test_a_contexts_file_says_its_own_layout_unless_the_experiment_says_one(tmp_path: Path):
    context = json.loads((ROOT / "task" / "data" / "native.jsonl").read_text().splitlines()[0])
    (tmp_path / "own.jsonl").write_text(json.dumps({**context, "layout": "side_by_side"}) + "\n")
    for given, wanted in (({}, "side_by_side"), ({"layout": "lists"}, "lists"), ({"ratings": True}, "side_by_side")):
        assert ContextSource(file=str(tmp_path / "own.jsonl"), **given).load()[0].layout == wanted


def test_a_planted_arm_of_a_real_engine_is_refused(tmp_path: Path):
    assert "would be the model itself under another name" in refused(tmp_path, {**DEMO, "planted": {"me": {}}})


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
