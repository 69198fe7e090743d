"""The joint model: its likelihood by brute force, planted correlations found, and the command."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from released_layout import MODEL, write_release
from scipy.stats import multivariate_normal

from analysis import joint_model
from analysis.joint_model import fit_case, import_sampler
from analysis.stats.agreement import mean_reports, pearson
from analysis.stats.estimators import logistic_posterior
from analysis.study.joint import case_of
from analysis.study.results import RunResults, analyse
from store.console import run_command
from store.run import Source
from store.summary import read_summary
from support import ROOT
from task.errors import InputError
from task.weights import rescale

Array = NDArray[np.float64]

needs_numpyro = pytest.mark.skipif(
    importlib.util.find_spec("numpyro") is None, reason="NumPyro is not installed: pip install -e '.[joint]'"
)

# One shape and one length of chains throughout, so that the sampler is compiled once.
CONTEXTS, TRIALS, ATTRIBUTES = 12, 40, 5
STEPS = {"warmup": 250, "draws": 250}


def simulate(rho: float, seed: int) -> tuple[Array, Array, Array]:
    """Choices, differences and reports, measured badly: 15 soft choices and 2 noisy reports a context, or 1."""
    rng = np.random.default_rng(seed)
    weights, errors = rng.normal(size=(2, CONTEXTS, ATTRIBUTES))
    belief = rho * weights + np.sqrt(1 - rho**2) * errors
    first, second = rng.uniform(size=(2, CONTEXTS, TRIALS, ATTRIBUTES))
    log_odds = 0.5 + 4 * np.einsum("ctk,ck->ct", first - second, weights)
    chose_a = (rng.uniform(size=log_odds.shape) < 1 / (1 + np.exp(-log_odds))).astype(float)
    chose_a[:, 15:] = np.nan
    reports = 20 + 30 * (belief[:, None] + rng.normal(size=(CONTEXTS, 2, ATTRIBUTES)))
    reports[:3, 1] = np.nan
    return chose_a, first - second, reports


def plain_r(chose_a: Array, difference: Array, reports: Array) -> float:
    return pearson(mean_reports(reports)[0], rescale(logistic_posterior(chose_a, difference).mean))


@needs_numpyro
def test_rho_is_found_where_plain_r_is_too_small():
    fit = import_sampler().fit
    rho, sets = 0.8, 12
    data = [simulate(rho, seed) for seed in range(sets)]
    fits = [fit(*d, seed=seed, **STEPS) for seed, d in enumerate(data)]
    plain = np.array([plain_r(*d) for d in data])
    error = np.std([f.rho for f in fits], ddof=1) / np.sqrt(sets)
    # The mean of the posterior lies a little inside the uniform prior, by less than its sd of 0.1.
    assert abs(np.mean([f.rho for f in fits]) - rho) < 3 * error + 0.03
    assert plain.mean() + 3 * plain.std(ddof=1) / np.sqrt(sets) < rho - 0.1
    assert sum(f.hdi_low <= rho <= f.hdi_high for f in fits) >= 10
    assert all(f.rhat < 1.05 and f.ess_bulk > 80 and f.n_contexts == CONTEXTS for f in fits)
    assert sum(f.divergences for f in fits) <= 2


@needs_numpyro
@pytest.mark.parametrize("rho", [-0.7, 0.0])
def test_rho_has_its_sign_and_may_be_nothing(rho: float):
    fit = import_sampler().fit(*simulate(rho, seed=3), seed=0, **STEPS)
    assert fit.hdi_low <= rho <= fit.hdi_high
    assert (fit.hdi_high < 0) == (rho < 0)


@needs_numpyro
def test_missing_reports_and_choices_are_absent():
    fit = import_sampler().fit
    chose_a, difference, reports = simulate(0.6, seed=5)
    chose_a[4], reports[7] = np.nan, np.nan
    found = fit(chose_a, difference, reports, seed=1, **STEPS)
    assert found.n_contexts == CONTEXTS - 2
    # A report with one readable value is missing, padding says nothing, nor do options without a choice.
    padded = np.concatenate([reports, np.full((CONTEXTS, 3, ATTRIBUTES), np.nan)], axis=1)
    padded[:, 2, 0] = 1e6
    other = np.where(np.isnan(chose_a)[..., None], np.nan, difference)
    again = fit(chose_a, other, padded, seed=1, **STEPS)
    # Not to the last digit: the mean is taken over another number of summands.
    assert (again.rho, again.sd) == pytest.approx((found.rho, found.sd), abs=0.02)
    # Whereas a report of zeros is a report: context 7 now has some.
    padded[:, 2:] = 0
    filled = fit(chose_a, other, padded, seed=1, **STEPS)
    assert filled.n_contexts == CONTEXTS - 1 and filled.rho != again.rho


@needs_numpyro
def test_the_likelihood_of_reports_is_that_of_every_single_report():
    import jax.numpy as jnp
    from numpyro import handlers

    sampler = import_sampler()
    rng = np.random.default_rng(0)
    chose_a, difference, reports = simulate(0.5, seed=1)
    reports[2] = np.nan
    latent = rng.normal(size=(CONTEXTS, ATTRIBUTES))
    observed = sampler._observed(chose_a, difference, reports)
    scaled = reports / reports[~np.isnan(reports)].std()

    def ours(mean: float, belief_sd: float, noise_sd: float, shared: float, rho: float) -> float:
        values = {"mean": mean, "belief_sd": belief_sd, "noise_sd": noise_sd, "shared": shared}
        model = handlers.substitute(handlers.seed(sampler._reports, 0), values)
        return float(handlers.trace(model).get_trace(observed, jnp.array(latent), rho)["reports"]["fn"].log_factor)

    def by_definition(mean: float, belief_sd: float, noise_sd: float, shared: float, rho: float) -> float:
        total = 0.0
        errors = belief_sd**2 * (1 - rho**2) * ((1 - shared) * np.eye(ATTRIBUTES) + shared)
        for z, given in zip(latent, scaled, strict=True):
            given = given[~np.isnan(given).any(axis=1)]
            if len(given):
                covariance = np.kron(np.ones((len(given), len(given))), errors) + noise_sd**2 * np.eye(given.size)
                centre = np.tile(mean + belief_sd * rho * z, len(given))
                total += multivariate_normal.logpdf(given.ravel(), centre, covariance)
        return float(total)

    one, two = (0.3, 0.8, 0.5, 0.2, 0.6), (-0.2, 0.5, 0.9, 0.7, -0.4)
    assert ours(*one) - ours(*two) == pytest.approx(by_definition(*one) - by_definition(*two), rel=1e-4)


@needs_numpyro
def test_data_that_say_nothing_are_refused():
    fit = import_sampler().fit
    chose_a, difference, reports = simulate(0.5, seed=0)
    with pytest.raises(InputError, match="no context has both choices and readable reports"):
        fit(chose_a, difference, np.full_like(reports, np.nan), seed=0, **STEPS)
    with pytest.raises(InputError, match="all reports are 7"):
        fit(chose_a, difference, np.full_like(reports, 7), seed=0, **STEPS)


def test_a_case_holds_the_trials_behind_a_comparison(passed: RunResults):
    for name in ("instilled", "introspection_trained", "native_before"):
        case = case_of(passed, name)
        points = case.result.points
        np.testing.assert_allclose(mean_reports(case.reports)[0].ravel(), points["x"])
        weights = rescale(logistic_posterior(case.chose_a, case.difference, seed=0).mean)
        np.testing.assert_allclose(weights.ravel(), points["y"], atol=1e-6)


def test_each_fold_speaks_for_its_own_contexts(passed: RunResults):
    entry = next(e for e in passed.record.comparisons if e.name == "instilled")
    members = entry.reports[0].contexts
    folds = [
        Source(arm="introspection", variant="trial", contexts=members[:5]),
        Source(arm="off_the_shelf", variant="trial", contexts=members[5:]),
    ]
    folded = dataclasses.replace(passed, entries=[entry.model_copy(update={"reports": folds})])
    found = case_of(folded, "instilled").reports
    for name, rows in (("introspection_trained", slice(5)), ("off_the_shelf", slice(5, None))):
        np.testing.assert_array_equal(found[rows], case_of(passed, name).reports[rows])


VARIANTS = """
name: variants
seeds: [0]
engine: {name: simulated, shard_size: 500}
contexts:
  instilled: {file: task/data/instilled.jsonl, count: 6}
  native: {file: task/data/native.jsonl, count: 6}
planted:
  off_the_shelf: {report_accuracy: 0.0}
  instilled: {report_accuracy: 0.9, third_person_accuracy: 0.0}
measurements:
  - {arm: instilled, measure: decisions, contexts: [instilled, native], per_context: 30}
  - {arm: instilled, measure: decisions, variant: in_context, contexts: [native], per_context: 30}
  - {arm: instilled, measure: reports, contexts: [native], per_context: 4}
  - {arm: instilled, measure: reports, variant: third_person, contexts: [native], per_context: 4}
  - {arm: instilled, measure: reports, variant: in_context, contexts: [native], per_context: 4}
gate: {arm: instilled, contexts: instilled}
comparisons:
  - {name: own, reports: instilled, weights: instilled, contexts: native}
  - {name: of_another, reports: instilled, reports_variant: third_person, weights: instilled, contexts: native}
  - {name: told, reports: instilled, reports_variant: in_context, weights: instilled, weights_variant: in_context,
     contexts: native}
"""
"""An arm whose decisions and reports depend on how it is asked."""


def test_a_case_holds_the_variant_that_its_comparison_asks_for(tmp_path: Path):
    (tmp_path / "variants.yaml").write_text(VARIANTS)
    command = [sys.executable, "scripts/run_experiment.py", str(tmp_path / "variants.yaml"), "--runs", str(tmp_path)]
    environment = {**os.environ, "WANDB_MODE": "disabled"}
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True, env=environment)
    results = analyse(tmp_path / "variants-seed0")
    own, of_another, told = (case_of(results, name) for name in ("own", "of_another", "told"))
    for case in (own, of_another, told):
        points = case.result.points
        np.testing.assert_allclose(mean_reports(case.reports)[0].ravel(), points["x"])
        weights = rescale(logistic_posterior(case.chose_a, case.difference, seed=0).mean)
        np.testing.assert_allclose(weights.ravel(), points["y"], atol=1e-6)
    np.testing.assert_array_equal(own.chose_a, of_another.chose_a)
    assert (own.reports != of_another.reports).any(axis=(1, 2)).all()
    assert (own.reports != told.reports).any(axis=(1, 2)).all() and (own.chose_a != told.chose_a).any(axis=1).all()


@needs_numpyro
def test_a_comparison_without_reports_has_a_reason(passed: RunResults):
    case = case_of(passed, "instilled")
    silent = dataclasses.replace(case, reports=np.full_like(case.reports, np.nan))
    found = fit_case(silent, None, seed=0, **STEPS)
    assert found["rho"] is None and found["testable"]
    assert found["reason"].startswith("no rho: no context has both choices and readable reports")


def test_without_the_gate_nothing_is_fitted(failed: RunResults, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(joint_model, "import_sampler", lambda: pytest.fail("fitted"))
    found = fit_case(case := case_of(failed, "instilled"), failed.untestable(case.result), seed=0)
    assert (found["testable"], found["rho"], found["total_reports"]) == (False, None, 60)


@needs_numpyro
@pytest.mark.parametrize("option", ["--warmup", "--draws"])
def test_too_few_draws_are_refused(
    option: str,
    simulated_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    out = tmp_path / "joint"
    monkeypatch.setattr(sys, "argv", ["joint_model", "--run", str(simulated_run), "--out", str(out), option, "0"])
    with pytest.raises(SystemExit):
        run_command(joint_model.main)
    assert f"{option} 0: too few to say" in capsys.readouterr().err
    assert not out.exists()


def test_without_numpyro_there_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.delitem(sys.modules, "analysis.study.joint_sampler", raising=False)
    monkeypatch.setitem(sys.modules, "numpyro", None)
    assert command(monkeypatch, "--run", "nowhere") == 2
    assert capsys.readouterr().err == (
        "error: analysis.joint_model needs numpyro, which is not installed: pip install -e '.[joint]'\n"
    )


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Exit status of the command."""
    monkeypatch.setattr(sys, "argv", ["joint_model", *arguments])
    try:
        run_command(joint_model.main)
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def short(*names: str) -> list[str]:
    steps = [text for key, value in STEPS.items() for text in (f"--{key}", str(value))]
    return [*steps, "--comparison", *names]


@needs_numpyro
def test_the_command_on_a_run(simulated_run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    assert command(monkeypatch, "--run", str(simulated_run), *short("introspection_trained", "off_the_shelf")) == 0
    printed = capsys.readouterr().out
    found = json.loads((simulated_run / "joint" / "summary.json").read_text())["comparisons"]
    analysis = read_summary(simulated_run / "analysis" / "summary.json").comparisons
    for name in ("introspection_trained", "off_the_shelf"):
        figures: dict[str, Any] = found[name]
        assert f"{name}: rho = {figures['rho']:+.2f}" in printed
        assert figures["plain"]["r"] == pytest.approx(analysis[name].r, abs=1e-6)
        assert figures["valid_reports"] == analysis[name].valid_reports
        assert figures["hdi_low"] < figures["rho"] < figures["hdi_high"] and figures["seconds"] > 0
        assert abs(figures["rho"] - figures["without_noise"]["r"]) < 0.15
    assert found["introspection_trained"]["hdi_low"] > 0.5 and abs(found["off_the_shelf"]["rho"]) < 0.5
    assert json.loads((simulated_run / "joint" / "manifest.json").read_text())["depends_on"]["trial_files"]
    assert command(monkeypatch, "--run", str(simulated_run), *short("nothing")) == 2
    assert "--comparison nothing: no such comparison; there are: off_the_shelf, instilled" in capsys.readouterr().err


@needs_numpyro
def test_the_command_on_released_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_release(tmp_path)
    data = ["--data", str(tmp_path)]
    assert command(monkeypatch, *data) == 2
    assert command(monkeypatch, *data, "--model", "toy", "--out", str(tmp_path / "out"), *short("instilled")) == 0
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert found["model"] == MODEL and "scenarios.csv" in found["files"]
    instilled = found["comparisons"]["instilled"]
    assert instilled["rho"] == pytest.approx(instilled["without_noise"]["r"], abs=0.15)
