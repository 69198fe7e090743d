"""The diagnostic of importance weights against the reference implementation."""

from __future__ import annotations

import numpy as np
import pytest
from arviz_stats.base import array_stats

from analysis.stats.importance import pareto_k, standard_draws


@pytest.mark.parametrize("draws", [128, 256, 2048])
@pytest.mark.parametrize("tail", ["normal", "exponential", "heavy"])
def test_pareto_k_equals_that_of_arviz(draws: int, tail: str) -> None:
    rng = np.random.default_rng(draws)
    log_weights = {
        "normal": rng.normal(size=(20, draws)),
        "exponential": 0.9 * rng.exponential(size=(20, draws)),
        "heavy": 2 * rng.exponential(size=(20, draws)),
    }[tail]
    np.testing.assert_allclose(pareto_k(log_weights - 700), array_stats.psislw(-log_weights)[1], atol=1e-9)


def test_weights_that_leave_no_tail_to_fit_are_not_trusted() -> None:
    """arviz calls a single draw that outweighs all others trustworthy (k = .03), as its grid is empty then."""
    log_weights = np.zeros((1, 2048))
    log_weights[0, 5] = 2000
    assert pareto_k(log_weights).item() == np.inf


def test_draws_that_are_kept_for_the_next_call_cannot_be_changed() -> None:
    first = standard_draws(3, 128, seed=5)
    assert standard_draws(3, 128, seed=5) is first
    with pytest.raises(ValueError, match="read-only"):
        first.points[0] = 0
