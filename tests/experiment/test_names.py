"""Names that become paths or keys, and files that are not there, beyond the experiment file itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from experiment.launcher import plan_runs
from experiment.prepare import check_launch_file, check_settings
from experiment.stage import kind_of
from store.evaluation import EvalConfig
from store.model_file import ModelFile
from store.run import RunFolder, RunRecord, read_run
from store.settings import describe
from support import ROOT
from task.errors import InputError
from task.names import LONGEST_NAME, name_problem


@pytest.mark.parametrize("name", ["a", "A-b_3", "2024", "x" * LONGEST_NAME])
def test_names_that_do(name: str):
    assert name_problem(name) is None


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/a", "-a", "_a", "a b", "a\n", "ä", "a.b", "x" * 65, "\ud800"])
def test_names_that_name_no_file(name: str):
    assert name_problem(name)


@pytest.mark.parametrize("stage", ["../../evil.sft", "/tmp/x.examples", ".sft", f"{'x' * 300}.sft", "a.b.sft"])
def test_a_stage_on_the_command_line_is_a_name(stage: str):
    with pytest.raises(InputError, match="no such stage") as caught:
        kind_of(stage)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 300
    assert kind_of("introspection_fold_1.sft") == "sft"


def evaluation(**change: Any) -> dict[str, Any]:
    group = {"name": "native", "file": "task/data/native.jsonl"}
    return {
        "seed": 0,
        "output": "out",
        "engine": {"name": "transformers"},
        "model": {"name": "some/model"},
        "arms": {"me": None},
        "measurements": [{"arm": "me", "measure": "reports", "per_context": 1, "contexts": [group]}],
        **change,
    }


NATIVE = {"name": "native", "file": "task/data/native.jsonl"}
ASKED = {"arm": "me", "measure": "reports", "per_context": 1}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"arms": {"../../evil": None, "me": None}}, "arms.../../evil.[key]: a name is letters"),
        ({"arms": {"me": None, "Me": None}}, "one folder where case does not count"),
        ({"measurements": [{**ASKED, "contexts": [NATIVE, NATIVE]}]}, "contexts 'native' stand there twice"),
        ({"measurements": [{**ASKED, "contexts": [{**NATIVE, "only": ["a", "a"]}]}]}, "is named twice"),
        ({"measurements": [{**ASKED, "contexts": [NATIVE]}] * 2}, "two are both me/reports; join them"),
        ({"measurements": [{**ASKED, "contexts": [{**NATIVE, "name": "../x"}]}]}, "contexts.0.name: a name is letters"),
        ({"seed": "0"}, "seed: Input should be a valid integer"),
        ({"model": {"name": "m", "attn_implementation": "someone/kernel"}}, "model.attn_implementation"),
        ({"model": {"name": "m", "trust_remote_code": True}}, "model.trust_remote_code"),
    ],
)
def test_an_evaluation_asks_everything_once_and_by_names(change: dict[str, Any], says: str):
    assert EvalConfig.model_validate(evaluation())
    with pytest.raises(ValidationError) as caught:
        EvalConfig.model_validate(evaluation(**change))
    assert says in describe(caught.value)


def test_a_record_whose_arms_are_paths_is_refused(tmp_path: Path):
    [run] = plan_runs(ROOT / "configs" / "experiments" / "simulated.yaml", tmp_path)
    run.folder.path.mkdir()
    text = run.record.model_dump_json()
    for old, new in (('"shuffled":{"training"', '"../../evil":{"training"'), ('"name":"native_after"', '"name":"a/b"')):
        assert old in text
        run.folder.record.write_text(text.replace(old, new))
        with pytest.raises(InputError, match="a name is letters"):
            read_run(run.folder.path)
    assert isinstance(run.record, RunRecord) and RunFolder(run.folder.path).name == "simulated-seed0"


def test_a_model_folder_that_is_not_there_is_found_before_the_first_stage(tmp_path: Path):
    values = yaml.safe_load((ROOT / "configs" / "experiments" / "demo.yaml").read_text())
    (tmp_path / "model.yaml").write_text(f"name: {tmp_path}/nowhere\n")
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump({**values, "model": str(tmp_path / "model.yaml")}))
    [run] = plan_runs(tmp_path / "demo.yaml", tmp_path / "runs")
    with pytest.raises(InputError, match="nowhere: no such model folder"):
        check_settings(run)


def test_bad_training_settings_are_found_before_the_first_stage_and_name_it(tmp_path: Path):
    values = yaml.safe_load((ROOT / "configs" / "experiments" / "demo.yaml").read_text())
    values["trainings"]["shuffled"]["sft"]["learning_rate"] = "fast"
    (tmp_path / "demo.yaml").write_text(yaml.safe_dump(values))
    [run] = plan_runs(tmp_path / "demo.yaml", tmp_path / "runs")
    with pytest.raises(InputError, match=r"settings of shuffled_fold_1\.sft: learning_rate 'fast'"):
        check_settings(run)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "holds no settings"),
        ("num_processes: 0", "num_processes 0: give a whole number"),
        ("num_processes: two", "num_processes 'two'"),
        ("num_processes: 1\nnum_processes: 2", "key 'num_processes' stands in line 1 already"),
        ("nonsense: 1", "accelerate does not take it"),
    ],
)
def test_a_launch_configuration_is_read_before_the_first_stage(tmp_path: Path, text: str, says: str):
    (tmp_path / "launch.yaml").write_text(text)
    with pytest.raises(InputError, match=says):
        check_launch_file(tmp_path / "launch.yaml")
    for path in (ROOT / "configs" / "accelerate").glob("*.yaml"):
        check_launch_file(path)


@pytest.mark.parametrize("setting", ["output_dir", "run_name", "hub_model_id", "push_to_hub", "resume_from_checkpoint"])
def test_a_model_file_does_not_say_where_a_training_writes(setting: str):
    for part in ("sft", "decisions", "reports"):
        with pytest.raises(ValidationError, match=f"{setting} cannot be set here"):
            ModelFile.model_validate({"name": "some/model", part: {setting: "x"}})
