"""The planner, without a command line: stages, their settings and sizes, and the record of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from experiment.file import load_experiment, load_groups
from experiment.plan import Run
from experiment.planned import TrialTokens
from store.evaluation import EvalConfig
from store.examples import ExamplesConfig
from store.model_file import ModelFile
from store.run import RunFolder
from task.errors import InputError

THREE_EXPERIMENTS = Path(__file__).parent / "fixtures" / "three_experiments.yaml"

TOKENS = {"decisions": TrialTokens(100, 1, 40, 110, 1), "reports": TrialTokens(120, 30, 60, 130, 50)}

MODEL = ModelFile.model_validate(
    {
        "name": "models/none",
        "licence": "mit",
        "sft": {"lora_r": 4, "learning_rate": 1.0},
        "decisions": {"num_train_epochs": 2, "learning_rate": 2.0},
        "reports": {"num_train_epochs": 5},
        "gpus": {24: {"decisions": 8, "reports": 2, "gradient_checkpointing": True}},
    }
)


def run_of(tmp_path: Path, **change: object) -> Run:
    """A plan of the three experiments with six and four contexts, a model of its own, and tokens that are known."""
    values = yaml.safe_load(THREE_EXPERIMENTS.read_text())
    values["contexts"]["instilled"]["count"], values["contexts"]["native"]["count"] = 6, 4
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump({**values, **change}))
    experiment = load_experiment(tmp_path / "demo.yaml")
    groups = load_groups(experiment)
    folder = RunFolder(tmp_path / "runs" / "demo-seed3")
    return Run(experiment, MODEL, groups, 3, folder, lambda measure, variant, context: TOKENS[measure])


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return run_of(tmp_path)


def test_each_stage_comes_after_those_that_it_needs(run: Run):
    names = [stage.name for stage in run.stages]
    assert names[:2] == ["instilled.examples", "instilled.sft"] and names[-3:] == ["evaluate", "analyse", "track"]
    trained = {"introspection_fold_1", "introspection_fold_2", "shuffled_fold_1", "shuffled_fold_2"}
    assert {name.removesuffix(".sft") for name in names if name.endswith(".sft")} == {
        *trained,
        "instilled",
        "introspection_all",
    }
    for stage in run.stages:
        if stage.kind == "sft":
            start = Path(stage.config.get("adapter", "")).name
            assert not start or names.index(f"{start}.sft") < names.index(stage.name)
            assert names.index(stage.name.replace(".sft", ".examples")) < names.index(stage.name)


def test_nothing_is_written_by_planning(run: Run):
    assert run.stages and run.record and not run.folder.path.exists()


def test_a_training_gets_the_models_settings_then_the_measures_then_the_experiments(tmp_path: Path):
    trainings = yaml.safe_load(THREE_EXPERIMENTS.read_text())["trainings"]
    trainings["instilled"]["sft"] = {"num_train_epochs": 7}
    run = run_of(tmp_path, trainings=trainings)
    by_name = {stage.name: stage for stage in run.stages}
    instilled, introspection = by_name["instilled.sft"].config, by_name["introspection_all.sft"].config
    assert (instilled["lora_r"], instilled["learning_rate"], instilled["num_train_epochs"]) == (4, 2.0, 7)
    assert (introspection["learning_rate"], introspection["num_train_epochs"]) == (1.0, 5)
    assert instilled["licence"] == "mit" and instilled["seed"] == 3
    assert instilled["gpus"] == {"24": {"per_device_train_batch_size": 8, "gradient_checkpointing": True}}
    assert introspection["adapter"] == instilled["output_dir"] and "adapter" not in instilled
    assert "probe_contexts" in instilled and "probe_contexts" not in introspection


def test_an_experiment_that_sets_the_rows_at_a_time_knows_its_hardware(tmp_path: Path):
    trainings = yaml.safe_load(THREE_EXPERIMENTS.read_text())["trainings"]
    trainings["instilled"]["sft"] = {"per_device_train_batch_size": 3}
    trainings["introspection_all"].pop("sft", None)
    by_name = {stage.name: stage.config for stage in run_of(tmp_path, trainings=trainings).stages}
    assert "gpus" not in by_name["instilled.sft"] and "gpus" in by_name["introspection_all.sft"]


def test_sizes_are_those_of_the_rows(run: Run):
    by_name = {stage.name: stage for stage in run.stages}
    assert by_name["instilled.examples"].size == "1800 examples, 120 held out"
    assert by_name["instilled.sft"].tokens == 2 * 1800 * 101
    rehearsed = int(run.experiment.trainings["introspection"].rehearse)
    assert by_name["introspection_fold_1.sft"].tokens == 5 * 3 * (8 * 150 + rehearsed * 101)
    decisions = (10 + 10 + 6 + 4) * 100  # off the shelf, instilled, both folds together, after training on all
    reports = (10 + 10 + 6 + 6 + 4) * 10
    evaluation = by_name["evaluate"]
    assert evaluation.size == f"{decisions + reports:,} trials in 12 files from 7 arms"
    assert evaluation.tokens == decisions * 101 + reports * 150
    assert evaluation.unique == decisions * 61 + 30 * 40 + reports * 90 + 36 * 60
    assert evaluation.notes == "no prompt is longer than 130 tokens, no reply than 50"


def test_the_evaluation_knows_adapters_contexts_and_lengths(run: Run):
    config = EvalConfig.model_validate(run.stages[-3].config)
    assert config.arms["off_the_shelf"] is None and config.arms["instilled"] == str(run.folder.adapter("instilled"))
    assert (config.engine.max_prompt_tokens, config.engine.max_reply_tokens) == (130, 50)
    held_out = [m.contexts[0].only for m in config.measurements if m.arm == "introspection_fold_1"]
    assert held_out == [run.arms["introspection"][0].held_out] * 2
    assert {m.contexts[0].name for m in config.measurements if m.arm == "introspection_fold_1"} == {"instilled"}


def test_folds_share_out_the_contexts_and_are_the_same_for_every_training(run: Run):
    names = [c.name for c in run.groups["instilled"]]
    for training in ("introspection", "shuffled"):
        folds = run.arms[training]
        assert sorted(n for arm in folds for n in arm.held_out) == sorted(names)
        assert all(sorted([*arm.trained_on, *arm.held_out]) == sorted(names) for arm in folds)
    assert [a.held_out for a in run.arms["introspection"]] == [a.held_out for a in run.arms["shuffled"]]


def test_rehearsed_decisions_are_rows_of_their_own_length(tmp_path: Path):
    trainings = yaml.safe_load(THREE_EXPERIMENTS.read_text())["trainings"]
    trainings["introspection"]["rehearse"] = 0.5
    run = run_of(tmp_path, trainings=trainings)
    by_name = {stage.name: stage for stage in run.stages}
    assert by_name["introspection_fold_2.examples"].size == "48 examples (24 of them rehearsed decisions), 0 held out"
    sft = by_name["introspection_fold_2.sft"]
    assert sft.size.startswith("48 examples (24 of them rehearsed decisions) x 5 epochs")
    assert sft.tokens == 5 * 24 * (150 + 101)
    assert "validation_file" not in sft.config and "validation_file" in by_name["instilled.sft"].config
    config = ExamplesConfig.model_validate(by_name["introspection_fold_2.examples"].config)
    assert (config.rehearse, config.validation_contexts) == (0.5, [])


def test_contexts_that_reports_are_validated_on_are_not_trained_on(tmp_path: Path):
    trainings = yaml.safe_load(THREE_EXPERIMENTS.read_text())["trainings"]
    for name in ("introspection", "shuffled"):
        trainings[name] |= {"validation_contexts": 1, "validation_per_context": 4, "rehearse": 2}
    run = run_of(tmp_path, trainings=trainings)
    names = {c.name for c in run.groups["instilled"]}
    for true, shuffled in zip(run.arms["introspection"], run.arms["shuffled"], strict=True):
        assert (true.trained_on, true.validated_on) == (shuffled.trained_on, shuffled.validated_on)
        assert len(true.validated_on) == 1 and len(true.trained_on) == 2
        assert {*true.trained_on} | {*true.validated_on} | {*true.held_out} == names
    stage = next(stage for stage in run.stages if stage.name == "introspection_fold_1.examples")
    assert stage.size == "20 examples (4 of them rehearsed decisions), 4 held out"
    config = ExamplesConfig.model_validate(stage.config)
    arm = run.arms["introspection"][0]
    assert config.validation_contexts == arm.validated_on
    assert config.only is not None and {*config.only} == {*arm.trained_on, *arm.validated_on}
    trainings["shuffled"] |= {"validation_contexts": 3}
    with pytest.raises(InputError, match=r"trainings\.shuffled: validation_contexts 3 leave none of 3 to train on"):
        assert run_of(tmp_path, trainings=trainings).arms


def test_in_a_comparison_each_fold_speaks_for_what_it_was_not_trained_on(run: Run):
    by_name = {c.name: c for c in run.record.comparisons}
    trained = by_name["introspection_trained"]
    for source, arm in zip(trained.reports, run.arms["introspection"], strict=True):
        assert source.arm == arm.name and set(source.contexts) == set(arm.held_out) and source.variant == "trial"
    assert [s.arm for s in trained.weights] == ["instilled"] and len(trained.weights[0].contexts) == 6
    assert run.record.gate.arm == "instilled" and run.record.arms["introspection_fold_2"].training == "introspection"
    arms = run.record.arms
    assert (arms["instilled"].teach, arms["instilled"].contexts) == ("decisions", "instilled")
    assert (arms["introspection_fold_2"].teach, arms["introspection_fold_2"].contexts) == ("reports", None)
    assert arms["off_the_shelf"].teach is arms["shuffled_fold_1"].contexts is None
