"""The bundled experiment with every variant of the prompts, smaller: each comparison finds what was planted."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from experiment.file import Experiment
from experiment.launcher import check_unchanged, plan_runs
from support import ROOT, run_experiment
from task.errors import InputError

VARIANTS = ROOT / "configs" / "experiments" / "variants.yaml"


def values() -> dict[str, Any]:
    return yaml.safe_load(VARIANTS.read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variants")
    small = values()
    small["contexts"] = {
        "instilled": {"file": "task/data/instilled.jsonl", "count": 60},
        "native": {"file": "task/data/native.jsonl", "count": 40},
    }
    small["engine"]["processes"] = 2
    (folder / "small.yaml").write_text(yaml.safe_dump(small))
    result = run_experiment(folder / "small.yaml", folder)
    assert result.returncode == 0, result.stderr
    return folder / "variants-seed0"


def test_each_comparison_holds_its_own_variants_together(finished: Path):
    summary = json.loads((finished / "analysis" / "summary.json").read_text())
    found, learned = summary["comparisons"], summary["learned_vs_target"]["r"]
    planted = values()["planted"]["instilled"]
    # 300 points: within .15 of the planted accuracy, attenuated by how well the weights were measured.
    for name in ("instilled", "explained", "no_trial", "after_choice"):
        assert abs(found[name]["r"] - planted["report_accuracy"] * learned) < 0.15
    assert abs(found["third_person"]["r"] - planted["third_person_accuracy"] * learned) < 0.15
    assert found["in_context"]["r"] > 0.9 and found["in_context_native"]["r"] > 0.9
    assert found["no_trial"]["total_reports"] == 60 and found["after_choice"]["total_reports"] == 300
    assert "off_the_shelf (in_context)/instilled" in summary["decisions"]
    assert summary["decisions"]["off_the_shelf (in_context)/instilled"]["agreement"] > 0.99, "it follows the targets"


def test_told_are_the_target_weights_and_random_ones_where_nothing_was_taught(finished: Path):
    target, told = (
        pd.read_csv(finished / "inputs" / f"{n}_weights.csv").set_index("context") for n in ("target", "told")
    )
    assert told.loc[target.index].equals(target)
    native = told.drop(target.index)
    assert len(native) == 40
    planted = pd.read_csv(finished / "inputs" / "planted_weights.csv").set_index("context").loc[native.index]
    assert abs(np.corrcoef(native.to_numpy().ravel(), planted.to_numpy().ravel())[0, 1]) < 0.25


def test_another_number_of_processes_is_no_other_experiment(finished: Path, tmp_path: Path):
    changed = yaml.safe_load((finished.parent / "small.yaml").read_text())
    for change in ({"processes": 4, "max_prompt_tokens": 999}, {"shard_size": 999}):
        changed["engine"] |= change
        (tmp_path / "changed.yaml").write_text(yaml.safe_dump(changed))
        [run] = plan_runs(tmp_path / "changed.yaml", finished.parent)
        if "processes" in change:
            assert str(check_unchanged(run, ())["evaluate"]) == "finished"
            continue
        with pytest.raises(InputError, match=r"stage evaluate of .* shard_size: 2000 -> 999"):
            check_unchanged(run, ())


def test_a_comparison_of_what_is_not_measured_is_refused():
    for change, says in (
        ({"reports_variant": "in_context"}, r"needs reports of instilled \(in_context\); add the measurement"),
        ({"weights_variant": "in_context"}, r"needs decisions of instilled \(in_context\)"),
        ({"reports_constrained": True}, r"instilled \(trial, constrained\); .*or set reports_constrained: false"),
        ({"weights_variant": "third_person"}, "decisions have no variant 'third_person'"),
    ):
        changed = values()
        changed["comparisons"][0] |= change
        with pytest.raises(ValueError, match=says):
            Experiment.model_validate(changed)
