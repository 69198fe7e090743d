"""The calibration counts what it says, on small pools, and the page in results/ holds the figures of its tables."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.stats.simulation import Pool, Reporter, sample_true_weights
from analysis.study.output import check_replaceable
from scripts.calibration import intervals
from scripts.calibration.studies import (
    NULLS,
    SITUATIONS,
    Row,
    Situation,
    alternative_rows,
    guide_row,
    instillation_rows,
    study_rows,
)
from support import ROOT

RESULTS = ROOT / "results" / "calibration"


@pytest.fixture(scope="module")
def pool() -> Pool:
    """Weights learned with plain noise: quick, and with a known correlation."""
    rng = np.random.default_rng(0)
    true = sample_true_weights(600, rng)
    return Pool(true, true + 20 * rng.normal(size=true.shape))


def shares(rows: list[Row]) -> dict[str, float]:
    return {row.what: row.share for row in rows}


def test_resampling_contexts_covers_where_the_paper_s_interval_does_not(pool: Pool):
    uneven = Situation("uneven", Reporter(0.5, uneven=True))
    found = shares(study_rows(uneven, 50, 40, pool, studies=150, seed=1))
    assert found["r, contexts resampled"] > 0.88 and found["paired difference"] > 0.88
    assert found["r, the paper's interval"] < 0.9
    instilled = shares(instillation_rows(50, 40, pool, studies=100, seed=1))
    assert instilled["r, contexts resampled"] > 0.87 and instilled["r, the paper's interval"] == 1


@pytest.mark.parametrize("situation", NULLS, ids=lambda s: s.name)
def test_unrelated_reports_are_seldom_found_related(pool: Pool, situation: Situation):
    for share in shares(study_rows(situation, 50, 30, pool, studies=150, seed=2)).values():
        assert share < 0.12


def test_alternatives_share_their_studies_and_differ_as_they_must(pool: Pool):
    rows = alternative_rows("independent errors, accuracy .3", 10, pool, studies=150, seed=3)
    found = {row["interval"]: row["coverage"] for row in rows}
    assert found["plain percentiles"] < found["ours"]
    assert all(0.8 < share < 1 for share in found.values())


def test_the_guide_is_about_measured_correlations(pool: Pool):
    row = guide_row(0.82, 20, 0.7, pool, studies=30, seed=4)
    assert row["population_r"] == pytest.approx(0.3, abs=0.01)
    assert row["population_difference"] == pytest.approx(0.1, abs=0.01)


@pytest.fixture(scope="module")
def tables() -> dict[str, pd.DataFrame]:
    return {name: pd.read_csv(RESULTS / f"{name}.csv") for name in ("calibration", "alternatives", "guide")}


def shown(share: float, right: bool = True) -> str:
    return f"{share:.1%}" if right else f"**{share:.1%}**"


def test_the_page_holds_the_figures_of_the_tables(tables: dict[str, pd.DataFrame]):
    lines = [line for line in (RESULTS / "README.md").read_text().splitlines() if line.startswith("| ")]
    page = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if "---" not in line]
    expected = []
    for names, part in tables["calibration"].groupby(["what", "situation"], sort=False):
        cells = [shown(s, right) for s, right in part[["share", "as_it_should"]].to_numpy()]
        # A fit of weights is the same for every number of contexts.
        expected.append([*names, *(cells if len(cells) == 4 else np.repeat(cells, 2))])
    for (situation, contexts), part in tables["alternatives"].groupby(["situation", "contexts"], sort=False):
        expected.append([situation, str(contexts), *map(shown, part["coverage"])])
    for keys, part in tables["guide"].groupby(["follows", "recovery", "contexts"]):
        follows, recovery, contexts = keys
        powers = [f"{power:.2f}" for power in part["power_difference"]]
        expected.append([f"{follows:.0%}", f"{recovery:.3f}", str(contexts), *powers])
    headings = {"50 / 50", "plain percentiles", "recovered at"}
    assert [row for row in page if not headings & {*row}] == [list(map(str, row)) for row in expected]


def test_the_picture_is_drawn_and_what_was_measured_can_be_measured_again(
    tables: dict[str, pd.DataFrame], tmp_path: Path
):
    check_replaceable(RESULTS, "scripts.calibration.intervals")
    intervals.save_coverage_figure(tables["calibration"], tmp_path / "coverage.png")
    assert (tmp_path / "coverage.pdf").read_bytes()[:4] == b"%PDF"


def test_the_command_replaces_its_tables_and_keeps_the_page(
    tables: dict[str, pd.DataFrame], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    for name, function in (("calibration", "coverage"), ("alternatives", "alternatives"), ("guide", "guide")):
        monkeypatch.setattr(intervals, f"{function}_table", lambda studies, seed, name=name: tables[name])
    monkeypatch.setattr("sys.argv", ["intervals.py", "--out", str(tmp_path / "out")])
    shutil.copytree(RESULTS, tmp_path / "out")
    (tmp_path / "out" / "guide.csv").unlink()
    intervals.main()
    assert "101 of 130 shares" in capsys.readouterr().out
    for name in ("README.md", "calibration.csv", "alternatives.csv", "guide.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (RESULTS / name).read_bytes()


def test_what_was_measured_is_precise_and_what_docstrings_say(tables: dict[str, pd.DataFrame]):
    found = tables["calibration"]
    assert found["standard_error"].max() < 0.01
    independent = found[found["what"] != "weights' 95% HDI"]
    binomial = np.sqrt(independent["share"] * (1 - independent["share"]) / independent["studies"])
    np.testing.assert_allclose(independent["standard_error"], binomial, atol=1.01e-4)
    assert set(found["situation"]) >= {s.name for s in (*SITUATIONS, *NULLS)}
    ours = found[found["what"].isin(["r, contexts resampled", "paired difference", "corrected r"])]
    assert (ours["standard_error"] < 0.007).all()
    assert (ours["share"] > 0.92).all() and ours["as_it_should"].mean() > 0.95
    assert found[found["kind"] == "rejection"]["as_it_should"].all()
    paper = found[found["what"] == "r, the paper's interval"].set_index("situation")["share"]
    assert (paper["learned against target"] > 0.995).all()
    assert (paper["contexts known or not at all"] < 0.85).all()
    hdi = found[found["what"] == "weights' 95% HDI"].set_index("situation")["share"]
    assert (abs(hdi["slopes as the prior has them"] - 0.95) < 0.01).all() and (hdi["slopes of the task"] < 0.5).all()
