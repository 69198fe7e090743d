"""What arms were taught to decide by: their gates and their partial correlations are held against that."""

from pathlib import Path

import numpy as np
import pytest

from analysis.study.taught import taught_decisions, weights_of
from store.run import ArmRecord, GateRecord, RunFolder, RunRecord, Source
from store.weights import save_weights

TARGETS = {"a": np.array([100.0, -20.0]), "b": np.array([5.0, 100.0])}
REDRAWN = {"a": np.array([-40.0, 100.0]), "b": np.array([100.0, 60.0])}


@pytest.fixture
def run(tmp_path: Path) -> tuple[RunFolder, RunRecord]:
    folder = RunFolder(tmp_path)
    folder.inputs.mkdir()
    save_weights(TARGETS, folder.target_weights)
    save_weights(REDRAWN, folder.redrawn_weights)
    taught = {"teach": "decisions", "contexts": "instilled"}
    arms = {
        "off_the_shelf": ArmRecord(),
        "instilled": ArmRecord(training="instilled", labels="target", **taught),
        "other": ArmRecord(training="other", labels="redrawn", **taught),
        "flipped": ArmRecord(training="flipped", labels="target", flip_under="cued", **taught),
        "half": ArmRecord(training="half", teach="decisions", labels="target"),
        "reports": ArmRecord(training="reports", teach="reports", contexts="instilled", labels="target"),
    }
    record = RunRecord(
        name="run",
        seed=0,
        groups={"instilled": "inputs/instilled.jsonl"},
        arms=arms,
        gate=GateRecord(arm="instilled", contexts="instilled"),
        comparisons=[],
        differences=[],
        model=None,
        experiment={},
    )
    return folder, record


def test_each_arm_is_held_against_what_it_was_taught(run: tuple[RunFolder, RunRecord]):
    found = {entry.asked: entry.weights for entry in taught_decisions(*run)}
    assert [*found] == ["instilled", "other", "flipped", "flipped (cued)"]
    assert all(np.array_equal(found["other"][name], REDRAWN[name]) for name in REDRAWN)
    assert all(np.array_equal(found["flipped (cued)"][name], -TARGETS[name]) for name in TARGETS)


def test_the_target_of_a_comparison_is_what_its_deciding_arms_were_taught(run: tuple[RunFolder, RunRecord]):
    taught = [*taught_decisions(*run)]

    def target(arm: str, variant: str = "plain") -> np.ndarray:
        sources = [Source(arm=arm, variant=variant, contexts=["a"])]
        return weights_of(sources, taught, TARGETS)["a"]

    assert np.array_equal(target("other"), REDRAWN["a"])
    assert np.array_equal(target("flipped", "cued"), -TARGETS["a"])
    assert np.array_equal(target("reports"), TARGETS["a"]), "nothing else was taught"


def test_what_goes_on_from_an_arm_keeps_what_that_arm_was_taught(run: tuple[RunFolder, RunRecord]):
    folder, record = run
    then = {"teach": "reports", "contexts": "instilled", "labels": "target"}
    later = {
        "after_other": ArmRecord(training="after_other", start="other", **then),
        "twice": ArmRecord(training="twice", start="after_other", **then),
        "cut": ArmRecord(cut_of="flipped", cut=2, kept_side="below", derived={}),
        "on_top": ArmRecord(training="on_top", on_top_of="other", **then),
        "again": ArmRecord(training="again", start="other", teach="decisions", contexts="instilled", labels="target"),
    }
    taught = [*taught_decisions(folder, record.model_copy(update={"arms": {**record.arms, **later}}))]
    found = {entry.asked: entry for entry in taught}
    for arm in ("after_other", "twice", "on_top"):
        assert found[arm].inherited and all(np.array_equal(found[arm].weights[n], REDRAWN[n]) for n in REDRAWN), arm
    assert found["cut"].inherited and np.array_equal(found["cut"].weights["a"], TARGETS["a"])
    assert np.array_equal(found["cut (cued)"].weights["a"], -TARGETS["a"]), "the cue reverses half an adapter, too"
    assert not found["again"].inherited and np.array_equal(found["again"].weights["a"], TARGETS["a"])
    assert "again (cued)" not in found and "reports" not in found
    sources = [Source(arm="twice", variant="plain", contexts=["b"])]
    assert np.array_equal(weights_of(sources, taught, TARGETS)["b"], REDRAWN["b"])
