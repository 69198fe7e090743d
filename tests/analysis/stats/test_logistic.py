"""The likelihood of choices, in single precision and by products, against its definition in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_expit

from analysis.stats.logistic import log_likelihood, signed_design


@pytest.mark.parametrize("trials", [7, 64, 65, 300])
@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_log_likelihood_is_the_sum_over_the_trials(trials: int, spread: float) -> None:
    rng = np.random.default_rng(trials)
    choices = (rng.random((3, trials)) < 0.6).astype(float)
    choices[1, trials // 2 :] = np.nan
    x = rng.uniform(-1, 1, (3, trials, 5))
    theta = spread * rng.normal(size=(3, 6, 1000))
    known = ~np.isnan(choices)
    centred = x - np.where(known[..., None], x, 0).sum(axis=1, keepdims=True) / known.sum(axis=1)[:, None, None]
    logit = theta[:, None, 0] + np.einsum("ctk,cks->cts", centred, theta[:, 1:])
    of_trials = log_expit(np.where(choices[..., None] == 1, logit, -logit))
    expected = np.where(known[..., None], of_trials, 0).sum(axis=1)
    got = log_likelihood(signed_design(choices, x), theta)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=5e-5)


def test_log_likelihood_far_out_in_the_tail_of_one_sided_choices() -> None:
    """An intercept of 1e10 explains choices that are all A with a likelihood of exactly 1, and no B at all."""
    choices, x = np.ones((1, 100)), np.random.default_rng(0).uniform(-1, 1, (1, 100, 2))
    theta = np.array([1e10, 0.5, 0.5]).reshape(1, 3, 1)
    assert log_likelihood(signed_design(choices, x), theta).item() == 0
    assert log_likelihood(signed_design(1 - choices, x), theta).item() == pytest.approx(-1e12)
