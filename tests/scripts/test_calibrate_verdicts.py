"""The simulation of verdicts: what is planted is there, and the table that is committed holds what is claimed."""

from __future__ import annotations

import pandas as pd
import pytest

from analysis.stats.agreement import pearson
from analysis.study.claims import CLAIMS
from scripts.calibration import verdicts as module
from support import ROOT
from task.seeding import stream
from task.thresholds import GATE_CORRELATION


@pytest.fixture(scope="module")
def world():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "POOL", 300)
        yield module.make_world(0)


def test_what_is_planted_is_there(world: module.World):
    assert pearson(world.learned, world.target) == pytest.approx(0.85, abs=0.03)
    assert pearson(world.moved, world.learned) == pytest.approx(GATE_CORRELATION, abs=0.03)
    assert pearson(world.again, world.learned) > 0.93 and abs(pearson(world.other, world.learned)) < 0.1
    reports = module.Training(world, 0.0, stream(0, "test")).reports(0.5)
    assert pearson(reports, world.learned) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.name)
def test_a_few_studies_end_as_planted(claim: module.Claim, world: module.World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "STUDIES", 4)
    monkeypatch.setattr(module, "POOL", 300)
    holds, *others = module.situations("GPT-4o-mini")[claim.name].values()
    assert module.judged(claim, holds, world, 1, 0.0, "test").count("supported") >= 3
    assert module.judged(claim, others[-1], world, 1, 0.0, "test").count("supported") <= 1


def test_the_committed_table_holds_what_is_claimed():
    table = pd.read_csv(ROOT / "results" / "verdicts" / "verdicts.csv")
    assert {*table["claim"]} == {claim.name for claim in CLAIMS}
    sized = table[
        ((table["trainings"] == 1) & (table["spread"] == 0)) | ((table["trainings"] == 3) & (table["spread"] == 0.03))
    ]
    assert (sized.loc[sized["holds"], "supported"] >= 0.9).all()
    assert (sized.loc[~sized["holds"], "supported"] <= 0.05).all()
