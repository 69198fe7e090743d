"""Families and the smallest effect of interest in an experiment file."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from experiment.file import load_experiment
from experiment.launcher import plan_runs
from support import ROOT
from task.errors import InputError


def with_keys(folder: Any, **more: Any) -> Any:
    """The simulated experiment with more keys."""
    values = yaml.safe_load((ROOT / "configs" / "experiments" / "simulated.yaml").read_text())
    path = folder / "simulated.yaml"
    path.write_text(yaml.safe_dump({**values, **more}))
    return path


def test_what_is_tested_together_stands_in_the_record_of_the_run(tmp_path: Any):
    families = {"main": ["instilled", "gain_on_held_out_contexts"]}
    [run] = plan_runs(with_keys(tmp_path, families=families, smallest_effect=0.1), tmp_path / "runs")
    assert (run.record.families, run.record.smallest_effect) == (families, 0.1)
    [plain] = plan_runs(with_keys(tmp_path), tmp_path / "runs")
    assert (plain.record.families, plain.record.smallest_effect) == ({}, None)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"families": {"main": ["instilled", "instiled"]}}, "families: main: 'instiled' is none of beyond_shuffled"),
        ({"families": {"main": ["instilled", "instilled"]}}, "families: main: 'instilled' stands there twice"),
        ({"families": {"main": []}}, "families: 'main' has no members"),
        ({"smallest_effect": 0}, "smallest_effect"),
        ({"smallest_effect": float("nan")}, "smallest_effect"),
        ({"smallest_effect": 1.5}, "smallest_effect"),
    ],
)
def test_a_family_of_what_is_not_there_is_refused(tmp_path: Any, keys: dict[str, Any], said: str):
    with pytest.raises(InputError, match=said) as refused:
        load_experiment(with_keys(tmp_path, **keys))
    assert "\n" not in str(refused.value)
