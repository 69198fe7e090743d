"""The simulation behind the answer gate: what it counts, and that the page and the limits go by its table."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.study.output import check_replaceable
from scripts.calibration import gates
from support import ROOT
from task.seeding import stream
from task.thresholds import DETERMINED, FLIPS, RARER_LETTER, READABLE_DECISIONS

RESULTS = ROOT / "results" / "gates"


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return pd.read_csv(RESULTS / "gates.csv")


def test_the_page_holds_the_figures_of_the_table(table: pd.DataFrame):
    page = (RESULTS / "README.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in page.splitlines() if re.match(r"\| \d", line)]
    for part, columns, names in (
        ("noise", slice(0, 3), ["flips", "follows", "r"]),
        ("position bias", slice(4, 8), ["flips", "follows", "determined", "r"]),
    ):
        found = table[table["part"] == part]
        assert len(rows) == len(found)
        for row, (_, values) in zip(rows, found.iterrows(), strict=True):
            said = [float(cell.strip().removesuffix("%")) / (100 if "%" in cell else 1) for cell in row[columns]]
            np.testing.assert_allclose(said, values[names].to_numpy(float), atol=0.00501)


def test_the_limits_go_by_the_table(table: pd.DataFrame):
    parts = {part: rows.set_index("value") for part, rows in table.groupby("part")}
    noise = parts["noise"]
    assert noise.loc[noise["flips"] <= FLIPS, "r"].min() > 0.9 > noise.loc[noise["flips"] > FLIPS, "r"].max()
    assert parts["gaps against the weights"].loc[round(1 - READABLE_DECISIONS, 2), "r"] > 0.97
    rarer = parts["rarer letter"]["r"]
    assert rarer[rarer.index < RARER_LETTER].max() < 0.65 < 0.7 < rarer[rarer.index >= RARER_LETTER].min()
    bias = parts["position bias"]
    assert bias.loc[bias["determined"] >= DETERMINED, "r"].min() > 0.9


def test_a_chooser_does_what_is_planted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gates, "CONTEXTS", 40)
    exact = gates.choose(stream(0, "test"))
    assert exact.follows.all() and (exact.chose_first[..., 0] == exact.chose_first[..., 1]).all()
    biased = gates.choose(stream(0, "test"), bias=1000.0)
    assert biased.chose_a.all() and not gates.rarer(biased.chose_a).any()
    np.testing.assert_array_equal(gates.rarer(exact.chose_a), 50)  # both orders: each letter once a pair
    noisy = gates.choose(stream(0, "test"), noise=1000.0)
    assert (noisy.chose_first[..., 0] != noisy.chose_first[..., 1]).mean() == pytest.approx(0.5, abs=0.05)


def test_the_command_replaces_its_table_and_keeps_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    check_replaceable(RESULTS, "scripts.calibration.gates")
    for name in ("disturbed", "gaps", "rare_letters", "few_contexts"):
        monkeypatch.setattr(gates, name, lambda seed: [{"part": "noise", "value": seed, "r": 0.123456}])
    monkeypatch.setattr("sys.argv", ["gates.py", "--out", str(tmp_path / "out"), "--seed", "3"])
    shutil.copytree(RESULTS, tmp_path / "out")
    gates.main()
    assert (tmp_path / "out" / "README.md").read_bytes() == (RESULTS / "README.md").read_bytes()
    assert pd.read_csv(tmp_path / "out" / "gates.csv")["r"].tolist() == [0.1235] * 4
