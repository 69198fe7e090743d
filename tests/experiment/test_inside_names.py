"""Names and records of arms that a training makes beside itself: kept steps, halves of an adapter, small adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from store.run import ArmRecord, RunFolder
from task.names import LONGEST_FULL_NAME, name_problem


def test_a_kept_step_is_named_within_its_training():
    run = RunFolder(Path("runs/x-seed0"))
    assert run.adapter("instilled@100") == run.adapter("instilled") / "kept" / "100"
    assert name_problem("instilled@100", LONGEST_FULL_NAME) is None


@pytest.mark.parametrize("name", ["instilled@0", "instilled@", "@100", "a@b", "a@1@2", "a@01", "a@1/.."])
def test_a_step_is_a_number_behind_a_name(name: str):
    assert name_problem(name, LONGEST_FULL_NAME)


def test_a_person_gives_no_name_of_a_step():
    assert name_problem("instilled@100")


def test_records_from_before_there_were_such_arms_stay_as_they_are():
    plain = ArmRecord(training="instilled", teach="decisions").model_dump(mode="json")
    assert set(plain) == {"training", "teach", "contexts", "start", "labels", "flip_under", "derived"}
    made = ArmRecord(cut_of="instilled", cut=2, kept_side="below")
    assert ArmRecord.model_validate(made.model_dump(mode="json")) == made
