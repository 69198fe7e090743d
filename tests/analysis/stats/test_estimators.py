"""The estimators against quadrature, long reference runs, closed forms and planted weights."""

from __future__ import annotations

import numpy as np
import pytest
from arviz_stats.base import array_stats
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import multivariate_t
from scipy.stats import t as student_t

import analysis.stats.estimators as estimators
from analysis.stats.estimators import determined_contexts, log_odds_weights, logistic_posterior
from analysis.stats.importance import normalised_weights, pareto_k, standard_draws, weighted_hdi, weighted_moments
from analysis.stats.logistic import laplace, signed_design
from task.errors import InputError
from task.weights import rescale

Array = NDArray[np.float64]


def differences(contexts: int, trials: int, attributes: int, seed: int) -> Array:
    """(A - B) / range for values drawn uniformly in range."""
    rng = np.random.default_rng(seed)
    return rng.random((contexts, trials, attributes)) - rng.random((contexts, trials, attributes))


def dot(x: Array, weights: Array) -> Array:
    return (x @ weights[..., None])[..., 0]


def choices(kind: str, x: Array, seed: int = 0) -> Array:
    """Choices of a chooser of the given kind, shape (contexts, trials)."""
    rng = np.random.default_rng(seed)
    utility = dot(x, rng.normal(size=(len(x), x.shape[2])))
    made = {
        "noisy": rng.random(utility.shape) < expit(utility),
        "noiseless": utility > 0,
        "leaning": utility > -0.7,
        "always A": np.ones(utility.shape),
        "always B": np.zeros(utility.shape),
        "all but one A": np.arange(utility.shape[1])[None] > np.zeros((len(x), 1)),
    }
    return np.asarray(made[kind], dtype=float)


def log_posterior(intercept: Array, slopes: Array, y: Array, x: Array) -> Array:
    """Definition, one context: `intercept` (...), `slopes` (..., attributes), y (trials,), x (trials, attributes)."""
    centred = x - x.mean(axis=0)
    density = student_t.logpdf(intercept, 3, 0, 2.5) - np.square(slopes).sum(axis=-1) / 2
    for chose_a, row in zip(y, centred, strict=True):
        density = density - np.logaddexp(0, -(2 * chose_a - 1) * (intercept + slopes @ row))
    return density


def quadrature(y: Array, x: Array) -> tuple[Array, Array, Array]:
    """One context, one attribute, on a grid: grid of the slope, its probabilities, and (mean, sd) of the intercept."""
    v, b = np.meshgrid(np.linspace(-14, 14, 561), np.linspace(-9, 9, 241), indexing="ij")
    a = 2.5 * np.sinh(v)
    mass = log_posterior(a, b[..., None], y, x) + np.log(np.cosh(v))
    mass = np.exp(mass - mass.max())
    mass /= mass.sum()
    mean_a = (mass * a).sum()
    return b[0], mass.sum(axis=0), np.array([mean_a, np.sqrt((mass * (a - mean_a) ** 2).sum())])


KINDS = ["noisy", "noiseless", "leaning", "always A", "always B", "all but one A"]


@pytest.mark.parametrize("trials", [10, 50, 200])
@pytest.mark.parametrize("kind", KINDS)
def test_one_attribute_equals_quadrature(kind: str, trials: int) -> None:
    x = differences(1, trials, 1, seed=trials)
    y = choices(kind, x)
    got = logistic_posterior(y, x)
    slope, mass, intercept = quadrature(y[0], x[0])
    mean = (mass * slope).sum()
    assert got.mean.item() == pytest.approx(mean, abs=0.01)
    assert got.sd.item() == pytest.approx(np.sqrt((mass * (slope - mean) ** 2).sum()), abs=0.02)
    assert got.intercept_mean.item() == pytest.approx(intercept[0], abs=0.03)
    # The sd of an a^-4 tail rests on its far end; one-sided choices are given 5%.
    assert got.intercept_sd.item() == pytest.approx(intercept[1], rel=0.05)
    inside = np.interp([got.hdi_low.item(), got.hdi_high.item()], slope, np.cumsum(mass) - mass / 2)
    assert inside[1] - inside[0] == pytest.approx(0.95, abs=0.015)
    assert got.pareto_k.item() < 0.7


@pytest.mark.parametrize("kind", ["noisy", "noiseless", "always A"])
def test_five_attributes_equal_an_importance_sample_from_the_prior(kind: str) -> None:
    x = differences(2, 8, 5, seed=3)
    y = choices(kind, x)
    got = logistic_posterior(y, x)
    rng = np.random.default_rng(0)
    intercept, slopes = 2.5 * rng.standard_t(3, 1 << 18), rng.normal(size=(1 << 18, 5))
    for context in range(2):
        margin = intercept[:, None] + slopes @ (x[context] - x[context].mean(axis=0)).T
        weights = np.exp(-np.logaddexp(0, -(2 * y[context] - 1) * margin).sum(axis=1))
        weights /= weights.sum()
        mean = weights @ slopes
        np.testing.assert_allclose(got.mean[context], mean, atol=0.03)
        np.testing.assert_allclose(got.sd[context], np.sqrt(weights @ (slopes - mean) ** 2), atol=0.03)


def test_five_attributes_equal_a_long_metropolis_run() -> None:
    kinds, chains, steps, burn_in = ["noisy", "noiseless", "all but one A"], 300, 1600, 400
    x = np.concatenate([differences(1, 50, 5, seed=i) for i in range(3)])
    y = np.concatenate([choices(kind, x[i : i + 1]) for i, kind in enumerate(kinds)])
    got = logistic_posterior(y, x)

    design = np.concatenate([np.ones((3, 50, 1)), x - x.mean(axis=1, keepdims=True)], axis=2)
    design *= (2 * y - 1)[..., None]

    def density(theta: Array) -> Array:
        prior = -2 * np.log1p((theta[:, 0] / 2.5) ** 2 / 3) - np.square(theta[:, 1:]).sum(axis=1) / 2
        return prior - np.logaddexp(0, -(design @ theta)).sum(axis=1)

    rng = np.random.default_rng(1)
    theta = np.concatenate([got.intercept_mean[:, None], got.mean], axis=1)[..., None] + np.zeros((3, 6, chains))
    theta += rng.normal(size=theta.shape)
    here, total, squares = density(theta), np.zeros((3, 5)), np.zeros((3, 5))
    for step in range(steps):
        proposed = theta + 0.55 * rng.normal(size=theta.shape)
        there = density(proposed)
        accepted = np.log(rng.random(there.shape)) < there - here
        theta, here = np.where(accepted[:, None], proposed, theta), np.where(accepted, there, here)
        if step >= burn_in:
            total += theta[:, 1:].mean(axis=2)
            squares += np.square(theta[:, 1:]).mean(axis=2)
    mean = total / (steps - burn_in)
    np.testing.assert_allclose(got.mean, mean, atol=0.03)
    np.testing.assert_allclose(got.sd, np.sqrt(squares / (steps - burn_in) - mean**2), atol=0.03)


def test_laplace_finds_the_mode() -> None:
    x = differences(len(KINDS), 30, 3, seed=5)
    y = np.concatenate([choices(kind, x[i : i + 1]) for i, kind in enumerate(KINDS)])
    mode, _ = laplace(signed_design(y, x))
    for context in range(len(KINDS)):
        found = minimize(
            lambda t, c=context: -log_posterior(np.array(t[0]), t[1:], y[c], x[c]), np.zeros(4), options={"gtol": 1e-8}
        ).x
        np.testing.assert_allclose([2.5 * np.sinh(mode[context, 0]), *mode[context, 1:]], found, atol=1e-4)


def test_missing_trials_count_for_nothing() -> None:
    x = differences(4, 60, 5, seed=1)
    y = choices("noisy", x)
    y[:, 35:] = np.nan
    x[:, 50:] = np.nan
    got, dropped = logistic_posterior(y, x), logistic_posterior(y[:, :35], x[:, :35])
    for field in ("mean", "sd", "hdi_low", "hdi_high", "intercept_mean", "pareto_k"):
        np.testing.assert_allclose(getattr(got, field), getattr(dropped, field), atol=1e-4)


def test_a_context_does_not_depend_on_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    x = differences(12, 30, 5, seed=2)
    y = np.concatenate([choices(KINDS[i % 6], x[i : i + 1], seed=i) for i in range(12)])
    together = logistic_posterior(y, x)
    order = np.random.default_rng(0).permutation(12)
    monkeypatch.setattr(estimators, "CONTEXTS_AT_ONCE", 5)
    shuffled, alone = logistic_posterior(y[order], x[order]), logistic_posterior(y[3:4], x[3:4])
    for field in ("mean", "sd", "hdi_low", "intercept_mean", "pareto_k"):
        np.testing.assert_allclose(getattr(shuffled, field), getattr(together, field)[order], atol=1e-6)
        np.testing.assert_allclose(getattr(alone, field), getattr(together, field)[3:4], atol=1e-6)


def test_means_hardly_depend_on_the_seed() -> None:
    x = differences(60, 50, 5, seed=8)
    y = np.concatenate([choices(KINDS[i % 6], x[i : i + 1], seed=i) for i in range(60)])
    first, second = logistic_posterior(y, x, seed=1), logistic_posterior(y, x, seed=2)
    np.testing.assert_allclose(first.mean, second.mean, atol=0.015)
    assert not np.array_equal(first.mean, second.mean)
    assert np.array_equal(first.mean, logistic_posterior(y, x, seed=1).mean)
    assert max(first.pareto_k.max(), second.pareto_k.max()) < 0.7


def test_without_intervals_all_else_is_the_same() -> None:
    x = differences(5, 20, 3, seed=4)
    y = choices("noisy", x)
    full, quick = logistic_posterior(y, x), logistic_posterior(y, x, intervals=False)
    for field in ("mean", "sd", "intercept_mean", "intercept_sd", "pareto_k"):
        assert np.array_equal(getattr(quick, field), getattr(full, field))
    assert np.isnan(quick.hdi_low).all() and np.isnan(quick.hdi_high).all()


def test_intervals_cover_weights_drawn_from_the_prior() -> None:
    rng = np.random.default_rng(4)
    x, weights = differences(400, 50, 5, seed=4), rng.normal(size=(400, 5))
    logit = 2.5 * rng.standard_t(3, size=(400, 1)) + dot(x - x.mean(axis=1, keepdims=True), weights)
    got = logistic_posterior((rng.random(logit.shape) < expit(logit)).astype(float), x)
    covered = (got.hdi_low <= weights) & (weights <= got.hdi_high)
    assert 0.93 < covered.mean() < 0.97


def test_contexts_that_fail_the_diagnostic_get_more_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    x = differences(3, 20, 5, seed=6)
    y = choices("noisy", x)
    once = logistic_posterior(y, x)
    # With a threshold between the contexts' own values, only those above it may change.
    middle = float(np.sort(once.pareto_k)[1])
    monkeypatch.setattr(estimators, "TRUSTED_PARETO_K", middle)
    monkeypatch.setattr(estimators, "EXTRA_ROUNDS", 1)
    asked, standard_draws = [], estimators.standard_draws
    monkeypatch.setattr(estimators, "standard_draws", lambda *call: asked.append(call) or standard_draws(*call))
    more = logistic_posterior(y, x)
    failed = once.pareto_k > middle
    assert failed.sum() == 1
    drawn = [draws for _, draws, _ in asked]
    assert drawn[-1] == 4 * estimators.DRAWS == 4 * drawn[-2]
    assert np.array_equal(more.mean[~failed], once.mean[~failed])
    np.testing.assert_allclose(more.mean, once.mean, atol=0.01)


def test_a_context_without_choices_has_no_weights() -> None:
    x = differences(3, 20, 2, seed=7)
    y = choices("noisy", x)
    y[1] = np.nan
    got = logistic_posterior(y, x)
    assert np.isnan(got.mean[1]).all()
    assert np.isnan(rescale(got.mean)[1]).all()
    assert np.isfinite(got.mean[[0, 2]]).all()
    assert np.isnan(logistic_posterior(np.full((2, 3), np.nan), np.zeros((2, 3, 4))).sd).all()


@pytest.mark.parametrize(
    ("chose_a", "difference", "says"),
    [
        (np.ones((2, 3)), np.ones((2, 4, 5)), r"choice of shape \(2, 3\)"),
        (np.ones(3), np.ones((3, 5)), "give \\(contexts, trials\\)"),
        (np.array([[0, 1, 2]]), np.ones((1, 3, 5)), "choices hold 2"),
        (np.ones((1, 2)), np.array([[[1.0], [np.nan]]]), "context 0, trial 1"),
        (np.ones((1, 2)), np.array([[[1.0], [-30.0]]]), "differences reach 30"),
    ],
)
def test_bad_input_is_named(chose_a: Array, difference: Array, says: str) -> None:
    with pytest.raises(InputError, match=says):
        logistic_posterior(chose_a, difference)


@pytest.mark.parametrize("draws", [0, 64, 1000])
def test_draws_must_be_a_power_of_two(draws: int) -> None:
    with pytest.raises(InputError, match=f"draws = {draws}"):
        logistic_posterior(np.ones((1, 4)), np.ones((1, 4, 1)), draws=draws)


def test_standard_draws_have_the_density_they_say() -> None:
    got = standard_draws(4, 1024, seed=0)
    density = student_t.logpdf(got.points[0], 2) + multivariate_t.logpdf(got.points[1:].T, shape=np.eye(3), df=20)
    np.testing.assert_allclose(got.log_density - density, (got.log_density - density)[0], atol=1e-9)
    levels = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(np.quantile(got.points[0], levels), student_t.ppf(levels, 2), rtol=0.03, atol=0.02)
    for row in got.points[1:]:
        np.testing.assert_allclose(np.quantile(row, levels), student_t.ppf(levels, 20), rtol=0.03, atol=0.02)


@pytest.mark.parametrize("draws", [200, 777, 2000])
def test_hdi_of_equal_weights_is_arviz_hdi(draws: int) -> None:
    values = np.random.default_rng(0).gamma(2.0, size=(3, 2, draws))
    low, high = weighted_hdi(values, np.full((3, draws), 1 / draws))
    np.testing.assert_allclose(np.stack([low, high], axis=-1), array_stats.hdi(values, 0.95))


def test_hdi_of_weighted_draws_is_that_of_the_target() -> None:
    values = np.random.default_rng(1).exponential(2.0, size=(1, 1, 200_000))
    weights = normalised_weights(-values[:, 0] / 2)  # from mean 2 to mean 1
    low, high = weighted_hdi(values, weights)
    assert low.item() == pytest.approx(0, abs=0.01)
    assert high.item() == pytest.approx(-np.log(0.05), abs=0.05)


def test_hdi_of_whole_number_weights_is_that_of_repeated_draws() -> None:
    rng = np.random.default_rng(2)
    values, counts = rng.normal(size=(1, 1, 400)), rng.integers(1, 4, size=400)
    low, high = weighted_hdi(values, (counts / counts.sum())[None])
    repeated = array_stats.hdi(np.repeat(values[0, 0], counts), 0.95)
    np.testing.assert_allclose([low.item(), high.item()], repeated, atol=0.1)


def test_weighted_moments_equal_numpy() -> None:
    rng = np.random.default_rng(3)
    values, weights = rng.normal(size=(2, 3, 50)), rng.dirichlet(np.ones(50), size=2)
    mean, covariance = weighted_moments(values, weights)
    for context in range(2):
        np.testing.assert_allclose(mean[context], np.average(values[context], axis=1, weights=weights[context]))
        expected = np.cov(values[context], aweights=weights[context], ddof=0)
        np.testing.assert_allclose(covariance[context], expected)


@pytest.mark.parametrize("k", [0.3, 0.9])
def test_pareto_k_is_the_tail_index(k: float) -> None:
    log_weights = k * np.random.default_rng(0).exponential(size=(20, 1 << 14))
    assert pareto_k(log_weights).mean() == pytest.approx(k, abs=0.05)


def planted(seed: int) -> Array:
    return np.random.default_rng(seed).uniform(-100, 100, size=(100, 5))


def test_both_estimators_recover_a_noiseless_chooser() -> None:
    weights, x = planted(0), differences(100, 50, 5, seed=9)
    utility = dot(x, weights)
    target = rescale(weights)
    from_choices = rescale(logistic_posterior((utility > 0).astype(float), x).mean)
    from_log_odds = rescale(log_odds_weights(utility / 20, x))
    assert np.corrcoef(target.ravel(), from_choices.ravel())[0, 1] >= 0.95
    np.testing.assert_allclose(from_log_odds, target, atol=1e-6)


def test_log_odds_recover_noisy_weights() -> None:
    weights, x = planted(1), differences(100, 50, 5, seed=10)
    noise = np.random.default_rng(2).normal(scale=30.0, size=(100, 50))
    got = log_odds_weights(dot(x, weights) + noise, x)
    assert np.corrcoef(rescale(weights).ravel(), rescale(got).ravel())[0, 1] >= 0.95


def test_log_odds_weights_equal_numpy_lstsq() -> None:
    rng = np.random.default_rng(0)
    x, y = differences(5, 30, 4, seed=11), rng.normal(size=(5, 30))
    y[rng.random((5, 30)) < 0.3] = np.nan
    got = log_odds_weights(y, x)
    for context in range(5):
        known = ~np.isnan(y[context])
        design, outcome = x[context][known], y[context][known]
        np.testing.assert_allclose(got[context], np.linalg.lstsq(design, outcome)[0])


def test_undetermined_log_odds_weights_are_nan_not_zero() -> None:
    x = differences(5, 10, 3, seed=12)
    y = dot(x, np.ones((5, 3)))
    y[0, 2:] = np.nan  # fewer trials than attributes
    y[1] = 0  # never leans to either option
    x[2, :, 2] = x[2, :, 0]  # two attributes that always move together
    y[3, 3:] = np.nan  # as many trials as attributes, which is enough
    got = log_odds_weights(y, x)
    assert np.isnan(got[:3]).all()
    np.testing.assert_allclose(got[3:], 1)
    assert np.isnan(log_odds_weights(np.ones((2, 2)), np.ones((2, 2, 3)))).all()


def test_contexts_are_determined_by_their_rarer_letter() -> None:
    nan = np.nan
    both_orders = [
        ([[1, 0], [1, 0], [1, 0], [0, 1]], True),  # 4 times each, both in the first order
        ([[1, 0], [1, 0], [1, 1], [0, 1]], True),  # B 3 times
        ([[1, 0], [1, 1], [1, 1], [0, 1]], False),  # B twice
        ([[1, 0], [1, 0], [1, 0], [1, 0]], False),  # never B in the first order
        ([[1, 0], [1, 0], [1, 0], [nan, 0]], False),
        ([[0, 1], [1, nan], [1, 0], [nan, 0]], True),  # what is missing counts for neither
        ([[1, 1], [1, 1], [1, 1], [1, 1]], False),
        ([[nan, nan]] * 4, False),
    ]
    chose_a = np.array([rows for rows, _ in both_orders], dtype=float)
    assert determined_contexts(chose_a).tolist() == [determined for _, determined in both_orders]
    one_order = np.full((2, 8, 2), nan)
    one_order[0, :, 0] = [1, 1, 0, 1, 0, 1, 0, 1]
    one_order[1, :, 0] = [1, 1, 0, 1, 0, 1, 1, 1]
    assert determined_contexts(one_order).tolist() == [True, False]


def test_infinite_log_odds_are_refused() -> None:
    with pytest.raises(InputError, match="context 0, trial 1 are infinite"):
        log_odds_weights([[0.0, np.inf]], np.ones((1, 2, 1)))
