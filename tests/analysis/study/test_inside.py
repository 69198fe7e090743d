"""What a summary says of attributions and patchings whose truth is planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from inside_files import plant_patching, plant_scores, truth
from pydantic import JsonValue

from analysis.study.comparisons import MeasuredWeights
from analysis.study.inside import contrasts_of, look_inside
from store.inside_summary import InsideSummary
from store.run import ArmRecord, GateRecord, RunFolder, RunRecord
from store.trials import ReportTrials
from support import made_once
from task.errors import InputError

CONTEXTS = [f"context_{i}" for i in range(12)]
SHUFFLED = {"deciding/deciding": 2.0, "reporting/reporting": 2.0, "deciding/reporting": 4.0, "reporting/deciding": 4.0}
RANDOM = {"deciding/random": 4.0, "reporting/random": 4.0}
TRUE = {**SHUFFLED, "deciding/reporting": 1.5, "reporting/deciding": 2.0}


def reports(start: str = "instilled", **more: str) -> dict[str, str]:
    return {"teach": "reports", "start": start, **more}


def arms() -> dict[str, ArmRecord]:
    found = {
        "off_the_shelf": ArmRecord(),
        "instilled": ArmRecord(training="instilled", teach="decisions", labels="target"),
        "introspection_all": ArmRecord(training="introspection_all", labels="target", **reports()),
        "shuffled": ArmRecord(training="shuffled", labels="shuffled", **reports()),
    }
    for training, backbone in (("fresh", "introspection_all"), ("fresh_shuffled", "shuffled")):
        for i, context in enumerate(CONTEXTS):
            name = f"{training}_{i + 1}"
            small = ArmRecord(
                training=training, teach="decisions", labels="target", on_top_of=backbone, context=context
            )
            # As a run records it: the sum that is asked, then the small adapter without what is frozen below
            terms: dict[str, JsonValue] = {f"{name}_alone": [{"weight": 1.0}], backbone: [{"weight": 1.0}]}
            found |= {name: small.model_copy(update={"derived": terms}), f"{name}_alone": small}
    return found


def record(found: dict[str, ArmRecord]) -> RunRecord:
    return RunRecord(
        name="looked-seed0",
        seed=0,
        groups={},
        arms=found,
        gate=GateRecord(arm="instilled", contexts="instilled"),
        comparisons=[],
        differences=[],
        model=None,
        experiment={},
    )


def plant(folder: Path) -> None:
    inside = RunFolder(folder).inside
    plant_scores(inside, "instilled", CONTEXTS, truth(1, 0.2))
    plant_scores(inside, "introspection_all", CONTEXTS, truth(2, 0.6), unread=CONTEXTS[10:])
    plant_scores(inside, "shuffled", CONTEXTS, truth(3, 0.1))
    for draw in (1, 2):
        plant_scores(inside, "introspection_all", CONTEXTS, truth(draw + 3, 0.0), draw=draw)
    plant_patching(inside, "introspection_all", CONTEXTS, {**TRUE, **RANDOM})
    plant_patching(inside, "shuffled", CONTEXTS, {**SHUFFLED, **RANDOM})
    for i, context in enumerate(CONTEXTS):
        plant_scores(inside, f"fresh_{i + 1}", [context], truth(20 + i, 0.1 + 0.05 * i), noise=0)
        plant_scores(inside, f"fresh_{i + 1}", [context], truth(50 + i, 0.02), noise=0, draw=1)
        if i:
            plant_scores(inside, f"fresh_shuffled_{i + 1}", [context], truth(40 + i, 0.05 * i), noise=0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return RunFolder(made_once(tmp_path_factory, "looked-inside", plant))


@pytest.fixture(scope="module")
def found(run: RunFolder) -> InsideSummary:
    measured, reported = answers()
    summary = look_inside(run, record(arms()), measured, reported)
    assert summary is not None
    return summary


def answers() -> tuple[dict[str, MeasuredWeights], dict[str, ReportTrials]]:
    """Small adapters whose reports are the less like their weights, the higher their context's number."""
    rng = np.random.default_rng(0)
    measured, reported = {}, {}
    for i, context in enumerate(CONTEXTS):
        weights, other = rng.normal(size=(2, 5))
        mixed = (1 - i / 12) * weights + i / 12 * other
        no, none = np.full((1, 5), np.nan), np.full(1, np.nan)
        measured[f"fresh_{i + 1}"] = MeasuredWeights([context], no, no, weights[None], no, none)
        reported[f"fresh_{i + 1} (constrained)"] = ReportTrials(
            contexts=[context],
            values=np.stack([mixed, np.full(5, np.nan)])[None],
            total=np.array([2]),
            reasons=[["no_json"]],
            outside=np.zeros(1, dtype=int),
            constrained=True,
        )
    return measured, reported


def test_similarity_of_an_arm_with_its_nulls(found: InsideSummary):
    arm = found.arms["introspection_all"]
    assert arm.similarity.estimate == pytest.approx(0.6, abs=0.05) and arm.similarity.low > 0.5
    assert arm.corrected.estimate == pytest.approx(0.6, abs=0.03)
    assert (arm.n_contexts, arm.left_out) == (10, CONTEXTS[10:])
    assert arm.rows == 4 * 2 * 15 and arm.matrices == 8
    assert len(arm.random) == 2 and max(abs(value) for value in arm.random) < 0.1
    assert arm.p_random == pytest.approx(1 / 3)
    assert arm.p_rows == pytest.approx(1 / 1001) and arm.rows_null_sd < 0.15
    assert arm.without_matrix_low < arm.similarity.estimate < arm.without_matrix_high
    assert arm.decisive_matrix.startswith("layers.")
    assert arm.layers.names == ["0", "1", "2", "3"] and arm.kinds.names == ["mlp.down_proj", "self_attn.q_proj"]
    assert all(sum(shares) == pytest.approx(1) for shares in (*arm.layers.shares.values(), *arm.kinds.shares.values()))
    assert arm.mean_layer["deciding"].low < arm.mean_layer["deciding"].estimate < 3
    assert (arm.unreadable, arm.completeness_error["deciding"], arm.backbone) == (3, 0.01, "off_the_shelf")
    assert found.arms["instilled"].random == [] and found.arms["instilled"].p_random is None


def test_every_small_adapter_is_there_and_the_relation_within_a_backbone_is_found(found: InsideSummary):
    fresh, shuffled = found.fresh["fresh"], found.fresh["fresh_shuffled"]
    assert [arm.similarity for arm in fresh.arms] == pytest.approx([0.1 + 0.05 * i for i in range(12)])
    assert fresh.similarity.estimate == pytest.approx(0.375) and fresh.similarity_sd == pytest.approx(0.05 * 13**0.5)
    assert fresh.random == pytest.approx([0.02])
    assert fresh.relation.estimate < -0.5 and fresh.p_relation < 0.05 and fresh.relation_contexts == 12
    assert fresh.arms[0].faithfulness == pytest.approx(1)
    assert shuffled.missing == ["fresh_shuffled_1"] and len(shuffled.arms) == 11
    assert shuffled.relation.estimate is None and shuffled.faithfulness.estimate is None


def test_differences_are_paired_by_context(found: InsideSummary):
    by_names = {(d.contrast, d.first, d.second): d for d in found.differences}
    assert [*by_names] == [
        ("labels", "introspection_all", "shuffled"),
        ("start", "introspection_all", "instilled"),
        ("start", "shuffled", "instilled"),
        ("backbone", "fresh", "fresh_shuffled"),
    ]
    labels, _, _, backbone = by_names.values()
    assert labels.similarity.estimate == pytest.approx(0.5, abs=0.06) and labels.similarity.low > 0.3
    assert labels.n_contexts == 10 and labels.p < 0.01
    assert labels.times_fewer["deciding"].estimate == pytest.approx(4 / 1.5, rel=0.05)
    assert labels.times_fewer["reporting"].estimate == pytest.approx(2, rel=0.05)
    assert labels.patched_contexts == 12 and {*labels.mean_layer} == {"deciding", "reporting"}
    assert backbone.similarity.estimate == pytest.approx(0.1) and backbone.n_contexts == 11
    assert backbone.faithfulness is None and backbone.times_fewer is None


def test_patching_curves_have_their_half_and_their_random_band(found: InsideSummary):
    curves = {(c.task, c.ranked_by): c for c in found.patching["introspection_all"].curves}
    assert len(curves) == 6
    crossed, random = curves["deciding", "reporting"], curves["deciding", "random"]
    assert crossed.k == [1, 2, 4, 8] and crossed.recovery[-1] == 1
    assert crossed.half.estimate == pytest.approx(1.5, rel=0.05)
    assert crossed.times_fewer.estimate == pytest.approx(4 / 1.5, rel=0.05)
    assert random.draws == 3 and random.times_fewer is None
    low, middle, high = (np.array(values[:-1]) for values in (random.low, random.recovery, random.high))
    assert (low < middle).all() and (middle < high).all()


def test_adapters_apart_share_nothing(tmp_path: Path):
    inside = RunFolder(tmp_path).inside
    only = {"deciding": [0, 1], "reporting": [2, 3]}
    plant_scores(inside, "instilled", CONTEXTS, truth(1, 0.9, only=only), noise=0)
    summary = look_inside(RunFolder(tmp_path), record(arms()), {}, {})
    arm = summary.arms["instilled"]
    assert arm.similarity.estimate == arm.corrected.estimate == 0
    assert arm.profile_distance.estimate == pytest.approx(1)
    assert arm.mean_layer["deciding"].estimate < 1 < 2 < arm.mean_layer["reporting"].estimate
    assert arm.peak_layer["deciding"] in (0, 1) and arm.peak_layer["reporting"] in (2, 3)


def test_what_is_not_there_is_said(tmp_path: Path):
    run = RunFolder(tmp_path)
    assert look_inside(run, record(arms()), {}, {}) is None
    plant_scores(run.inside, "instilled", CONTEXTS, truth(1, 0.5))
    plant_scores(run.inside, "shuffled", CONTEXTS, truth(1, 0.5), unread=CONTEXTS)
    (run.inside / "introspection_all" / "deciding").mkdir(parents=True)
    (run.inside / "introspection_all" / "deciding" / "started.json").write_text("{}")
    found = look_inside(run, record(arms()), {}, {})
    assert [*found.arms] == ["instilled"] and not found.fresh and not found.patching
    assert len(found.notes) == 2 and found.notes[1].startswith("shuffled: no context")
    (run.inside / "instilled" / "deciding" / "scores.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"scores\.parquet: no whole Parquet file"):
        look_inside(run, record(arms()), {}, {})


def test_arms_are_contrasted_that_differ_in_one_thing():
    found = {
        "off_the_shelf": ArmRecord(),
        "instilled": ArmRecord(training="instilled", teach="decisions", labels="target"),
        "twin": ArmRecord(training="twin", teach="decisions", labels="target"),
        "instilled@100": ArmRecord(training="instilled", teach="decisions", labels="target", step=100),
        "shuffled_fold_1": ArmRecord(training="shuffled", labels="shuffled", **reports()),
        "shuffled_fold_2": ArmRecord(training="shuffled", labels="shuffled", **reports()),
        "introspection_fold_1": ArmRecord(training="introspection", labels="target", **reports()),
        "introspection_fold_2": ArmRecord(training="introspection", labels="target", **reports()),
        "elsewhere": ArmRecord(training="elsewhere", labels="target", **reports("twin")),
        "wide": ArmRecord(training="wide", teach="decisions", labels="target", on_top_of="twin"),
        "wide_b": ArmRecord(training="wide_b", teach="decisions", labels="target", on_top_of="instilled"),
    }
    pairs = [*contrasts_of(record(found), [*found])]
    assert [pair for pair in pairs if pair[0] != "start"] == [
        ("labels", "introspection_fold_1", "shuffled_fold_1"),
        ("labels", "introspection_fold_2", "shuffled_fold_2"),
        ("backbone", "wide", "wide_b"),
    ]
    assert ("start", "elsewhere", "twin") in pairs and len(pairs) == 8
