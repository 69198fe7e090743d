"""The logistic posterior against brms, the authors' own tool, on simulated and on the released trials.

The figures of brms come from scripts/brms_reference: 40,000 draws a context, with their Monte Carlo error (`mcse`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from analysis.stats.estimators import logistic_posterior
from scripts.brms_reference.trials import Decisions, read_trials, released_decisions, simulate
from support import ROOT

FIXTURES = Path(__file__).parent / "fixtures"
RELEASED = ROOT.parent / "shared" / "released"

OURS = 0.03
"""Our own Monte Carlo error of an intercept's mean, allowed on top of that of brms."""


def posterior_table(decisions: Decisions) -> pd.DataFrame:
    """Our posterior, a row a parameter as in the files of brms: mean, and for slopes sd and width of the 95% HDI."""
    posterior = logistic_posterior(decisions.chose_a, decisions.difference)
    known = ~np.isnan(decisions.chose_a)[..., None]
    centre = np.where(known, decisions.difference, 0).sum(axis=1) / known.sum(axis=1)
    at_zero = posterior.intercept_mean - (posterior.mean * centre).sum(axis=1)
    width = posterior.hdi_high - posterior.hdi_low
    columns = [
        {"parameter": f"x{i + 1}", "mean": posterior.mean[:, i], "sd": posterior.sd[:, i], "width": width[:, i]}
        for i in range(width.shape[1])
    ]
    columns += [
        {"parameter": "Intercept", "mean": posterior.intercept_mean},
        {"parameter": "b_Intercept", "mean": at_zero},
    ]
    return pd.concat([pd.DataFrame({"context": decisions.contexts, **values}) for values in columns])


def beside_brms(ours: pd.DataFrame, file: str) -> pd.DataFrame:
    """Rows of both, columns of brms with the suffix _brms; every row of brms's file must have its partner."""
    brms = pd.read_csv(FIXTURES / file)
    both = ours.merge(brms, on=["context", "parameter"], suffixes=("", "_brms"), validate="one_to_one")
    assert len(both) == len(brms)
    return both


@pytest.fixture(scope="module")
def simulated() -> pd.DataFrame:
    ours = pd.concat([posterior_table(group) for group in read_trials(FIXTURES / "brms_reference.csv")])
    both = beside_brms(ours, "brms_posteriors.csv")
    assert len(both) == len(ours)
    return both


@pytest.fixture(scope="module")
def released() -> pd.DataFrame:
    if not RELEASED.is_dir():
        pytest.skip("the paper's released trials are not beside the repository")
    return beside_brms(posterior_table(released_decisions(RELEASED)), "brms_released_posteriors.csv")


def slopes_of(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["parameter"].str.startswith("x")]


def assert_slopes_agree(slopes: pd.DataFrame) -> None:
    worst = slopes.loc[(slopes["mean"] - slopes["mean_brms"]).abs().idxmax()]
    assert abs(worst["mean"] - worst["mean_brms"]) < 0.05, worst
    assert np.corrcoef(slopes["mean"], slopes["mean_brms"])[0, 1] >= 0.9999
    apart = (slopes["sd"] - slopes["sd_brms"]).abs()
    assert (apart < np.maximum(0.05, 0.1 * slopes["sd_brms"])).all(), slopes.loc[apart.idxmax()]


def test_brms_itself_converged(simulated: pd.DataFrame) -> None:
    assert simulated["rhat"].max() < 1.01
    assert simulated["ess_bulk"].min() > 1000
    assert slopes_of(simulated)["mcse"].max() < 0.015


def test_slopes_of_every_simulated_context(simulated: pd.DataFrame) -> None:
    assert simulated["context"].nunique() == 90
    assert_slopes_agree(slopes_of(simulated))


@pytest.mark.parametrize("parameter", ["Intercept", "b_Intercept"])
def test_intercepts_within_the_error_of_brms(simulated: pd.DataFrame, parameter: str) -> None:
    """Choices all on one side leave a tail like a^-4 and an sd of 4 to 6: even 40,000 draws err by 0.04 to 0.16."""
    intercepts = simulated[simulated["parameter"] == parameter]
    apart = (intercepts["mean"] - intercepts["mean_brms"]).abs()
    assert (apart < OURS + 4 * intercepts["mcse"]).all(), intercepts.loc[apart.idxmax()]
    choice = pd.read_csv(FIXTURES / "brms_reference.csv").groupby("context")["choice"]
    two_sided = intercepts["context"].map(choice.nunique()) == 2
    assert 60 < two_sided.sum() < 75
    # Elsewhere the tolerance is a tight one.
    assert intercepts["mcse"][two_sided].max() < 0.01
    assert apart[two_sided].max() < 0.05


def test_intervals_are_as_wide_as_those_of_brms(simulated: pd.DataFrame) -> None:
    """Widths only: a highest-density interval's ends move along a flat minimum, its width hardly does."""
    slopes = slopes_of(simulated)
    np.testing.assert_allclose(slopes["width"], slopes["hdi_high"] - slopes["hdi_low"], rtol=0.08)


def test_the_stored_trials_are_those_of_the_simulation() -> None:
    stored = pd.read_csv(FIXTURES / "brms_reference.csv")
    pd.testing.assert_frame_equal(simulate().reset_index(drop=True), stored, rtol=0, atol=1e-9)


def test_slopes_of_every_released_context(released: pd.DataFrame) -> None:
    assert len(released) == 500
    assert_slopes_agree(released)
