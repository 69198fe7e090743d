"""Power against what must hold: the level without an effect, more power with more contexts, coverage, the guide."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.power import check, console_table
from analysis.stats.agreement import pearson
from analysis.stats.power import Design, Settings, power_row, run_design, run_studies
from analysis.stats.simulation import Pool, Reporter, make_pool
from support import ROOT
from task.errors import InputError


@pytest.fixture(scope="module")
def pool() -> Pool:
    return make_pool(500, 50, 1.0, seed=0)


def test_without_an_effect_the_power_is_the_level(pool: Pool):
    (row,) = run_design(Design(30, 50, 1.0, 0.0), [0.0], pool, Settings(studies=400, seed=1))
    for test in ("power_permutation", "power_bootstrap", "power_difference"):
        assert 0.02 < row[test] < 0.085, test
    assert row["population_r"] == pytest.approx(0, abs=0.01) and row["mean_r"] == pytest.approx(0, abs=0.015)


def test_power_grows_with_contexts_and_effect_and_intervals_cover(pool: Pool):
    settings = Settings(studies=150, seed=2)
    few, many = (run_design(Design(n, 50, 1.0, 0.4), [0.1, 0.3], pool, settings) for n in (15, 60))
    for small, large in zip(few, many, strict=True):
        assert small["power_difference"] < large["power_difference"]
    assert few[0]["power_difference"] < few[1]["power_difference"]
    assert few[0]["power_permutation"] < many[0]["power_permutation"] == 1
    for row in (*few, *many):
        assert row["mean_r"] == pytest.approx(row["population_r"], abs=0.03)
        assert row["population_difference"] == pytest.approx(row["effect"] * row["recovery"], abs=0.01)
        assert 0.87 < row["coverage_bootstrap"] < 1 and 0.87 < row["coverage_difference"] < 1


def test_the_guide_holds_where_errors_before_and_after_correlate_at_seven_tenths(pool: Pool):
    recovery = pearson(pool.true, pool.learned)
    before, after = Reporter(0.3 / recovery), Reporter(0.4 / recovery)
    (close,) = run_studies(before, [after], pool, 50, Settings(studies=300, seed=3, error_correlation=0.7))
    (apart,) = run_studies(before, [after], pool, 50, Settings(studies=300, seed=3))
    assert close["power_difference"] == pytest.approx(0.69, abs=0.08)
    assert apart["power_difference"] < 0.4


def test_the_same_seed_gives_the_same_rows(pool: Pool):
    design = Design(10, 50, 1.0, 0.5)
    first, again, other = (run_design(design, [0.2], pool, Settings(20, seed)) for seed in (4, 4, 5))
    assert first == again != other


def test_a_row_counts_by_hand():
    rs = np.array(
        [
            [0.5, 0.9, 0.01, 0.2, 0.7, 0.3, 0.6],
            [0.3, 0.7, 0.05, -0.1, 0.5, 0.2, 0.38],
            [0.1, 0.9, 0.20, -0.2, 0.3, 0.0, 0.2],
            [0.3, 0.7, 0.06, 0.1, 0.41, 0.2, 0.4],
        ]
    )
    differences = np.array([[0.1, -0.1, 0.2], [0.2, 0.1, 0.3], [-0.2, -0.3, -0.1], [0.0, -0.1, 0.05]])
    assert power_row(rs, differences, truth=0.4, gained=0.1) == pytest.approx(
        {
            "population_r": 0.4,
            "mean_r": 0.3,
            "sd_r": math.sqrt(0.02),
            "sd_recovery": 0.1,
            "power_permutation": 0.5,
            "power_bootstrap": 0.5,
            "coverage_bootstrap": 0.75,
            "coverage_regression": 0.5,
            "population_difference": 0.1,
            "mean_difference": 0.025,
            "sd_difference": np.std([0.1, 0.2, -0.2, 0.0]),
            "power_difference": 0.5,
            "coverage_difference": 0.5,
        }
    )


def test_the_command_writes_table_picture_and_manifest(tmp_path: Path):
    out = tmp_path / "power"
    design = {"contexts": "5 10", "pairs": "10", "accuracy": "0.3", "effect": "0.1 0.2", "noise": "0.8 1"}
    size = {"studies": "3", "pool": "40", "workers": "1"}
    options = [word for name, values in (design | size).items() for word in (f"--{name}", *values.split())]
    command = [sys.executable, "-m", "analysis.power", *options, "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "r not 0" in done.stdout
    table = pd.read_csv(out / "power.csv")
    assert len(table) == 2 * 2 * 2 and set(table["noise"]) == {0.8, 1.0} and set(table["studies"]) == {3}
    assert (out / "power.png").read_bytes()[:4] == b"\x89PNG" and (out / "power.pdf").read_bytes()[:4] == b"%PDF"
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["depends_on"]["effect"] == [0.1, 0.2] and manifest["depends_on"]["pool"] == 40
    assert console_table(table).count("\n") == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"contexts": [50, 2]}, "--contexts 2; give 3 to 100000"),
        ({"accuracy": [0.8]}, "--accuracy 0.8 with --effect 0.3 is no correlation"),
        ({"noise": [0.5]}, "--noise 0.5; give the share"),
        ({"pairs": [10, 20, 30, 40, 50]}, "--pairs with 5 values; the figure tells 4 apart"),
        ({"contexts": [10**30]}, "--contexts 1e\\+30; give 3 to"),
        ({"effect": [float("nan")]}, "--effect nan; give"),
        ({"accuracy": [float("nan")]}, "--accuracy nan; give"),
        ({"seed": -1}, "--seed -1; give 0 to"),
        ({"workers": 0}, "--workers 0; give 1 to"),
        ({"error_correlation": 1.5}, "--error-correlation 1.5; give -1 to 1"),
    ],
)
def test_what_cannot_be_simulated_is_refused(changed: dict, message: str):
    asked = {"contexts": [50], "pairs": [50], "reports": [10], "accuracy": [0.3], "effect": [0.1, 0.3], "noise": [1.0]}
    arguments = argparse.Namespace(
        **{**asked, "studies": 10, "pool": 100, "workers": 2, "seed": 0, "error_correlation": 0.0, **changed}
    )
    with pytest.raises(InputError, match=message):
        check(arguments)


def by_hand(design: Design, studies: int) -> np.ndarray:
    """r and recovery of studies of fresh contexts, made and analysed without the functions that are tested."""
    rng = np.random.default_rng(5)
    found, scale = [], 0.0
    for _ in range(studies):
        true = rng.uniform(-100, 100, (design.contexts, 5))
        true *= 100 / np.abs(true).max(axis=1, keepdims=True)
        x = rng.random((design.contexts, design.pairs, 5)) - rng.random((design.contexts, design.pairs, 5))
        utility = np.einsum("cpa,ca->cp", x, true)
        if not found:  # the noise with which this share follows
            scales = np.linspace(1, 60, 600)
            shares = [(1 / (1 + np.exp(-np.abs(utility) / scale))).mean() for scale in scales]
            scale = scales[np.argmin(np.abs(np.array(shares) - design.noise))]
        log_odds = utility / scale + rng.logistic(size=utility.shape)
        learned = np.array([np.linalg.lstsq(a, b, rcond=None)[0] for a, b in zip(x, log_odds, strict=True)])
        learned *= 100 / np.abs(learned).max(axis=1, keepdims=True)
        error = np.sqrt(1 - design.accuracy**2) * true.std() * rng.normal(size=true.shape)
        single = (design.accuracy * true + error)[:, None] + rng.normal(0, 10, (design.contexts, design.reports, 5))
        single[rng.random(single.shape[:2]) < 0.1] = np.nan
        kept = ~np.isnan(single).all(axis=(1, 2))
        told = np.nanmean(single[kept], axis=1)
        found.append(
            (np.corrcoef(told.ravel(), learned[kept].ravel())[0, 1], np.corrcoef(true.ravel(), learned.ravel())[0, 1])
        )
    return np.array(found)


def test_the_row_of_a_design_by_log_odds_is_that_of_studies_made_by_hand():
    design = Design(40, 15, 0.85, 0.5, "log_odds", reports=3)
    (row,) = run_design(design, [0.2], make_pool(2000, 15, 0.85, 0, estimator="log_odds"), Settings(300, seed=1))
    r, recovery = by_hand(design, 300).T
    assert row["mean_r"] == pytest.approx(r.mean(), abs=0.015) and row["sd_r"] == pytest.approx(r.std(), rel=0.2)
    assert row["recovery"] == pytest.approx(recovery.mean(), abs=0.01)
    assert row["sd_recovery"] == pytest.approx(recovery.std(), rel=0.25)
    assert row["asked"] == 40 * (2 * 15 + 2 * 3) and row["estimator"] == "log_odds"


def test_log_odds_measure_weights_with_fewer_pairs():
    few = make_pool(300, 15, 0.95, 0, estimator="log_odds")
    many = make_pool(300, 100, 0.95, 0)
    assert pearson(few.true, few.learned) > pearson(many.true, many.learned) > 0.97
    assert pearson(*(lambda p: (p.true, p.learned))(make_pool(300, 15, 0.95, 0))) < 0.9
    exact = make_pool(50, 10, 1.0, 0, estimator="log_odds")
    np.testing.assert_allclose(exact.learned, exact.true, atol=1e-8)
