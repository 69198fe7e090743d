"""The joint model of choices and reports, sampled with NumPyro. Needs the optional dependencies `joint`.

For context c, attribute k, choice t and report i:

    latent weight          z_ck ~ N(0, 1),  w_ck = weight_sd z_ck
    choice                 y_ct ~ Bernoulli(logit^-1(a_c + w_c . x_ct)),  a_c ~ N(lean, lean_sd), lean = mean a_c
    belief                 b_ck = rho z_ck + sqrt(1 - rho^2) e_ck,  e_ck ~ N(0, 1), corr(e_ck, e_cl) = shared
    report                 r_cki ~ N(mean + belief_sd b_ck, noise_sd)

so that rho = corr(belief, latent weight), whatever the noise of either measurement; a priori uniform(-1, 1). Reports
are in units of their overall standard deviation. `shared`, a priori uniform(0, 1), is how far the errors of a context's
attributes go together, e.g. where its weights are all reported too high; without it attributes would count as
independent.

The errors e are integrated out: given z, the mean reports of a context are normal with covariance
belief_sd^2 (1 - rho^2) ((1 - shared) I + shared 11') + noise_sd^2 / n I, and the squares about the mean reports carry
all else that single reports say, namely of noise_sd. This is the likelihood of the single reports, without a parameter
for each e.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from arviz_stats.base import array_stats
from numpy.typing import NDArray
from numpyro.infer import MCMC, NUTS

from analysis.stats.agreement import mean_reports
from analysis.study.joint import JointFit
from task.errors import InputError

CHAINS = 2

# One device a chain, so that the chains run side by side; both must be said before jax starts.
jax.config.update("jax_platforms", "cpu")
numpyro.set_host_device_count(CHAINS)


class _Observed(NamedTuple):
    """What the model sees: arrays over contexts, with zeros for what is missing.

    Attributes:
        signed, sign: +(A - B)/range where A was chosen, - where B, by trial and attribute; +1, -1 or 0, by trial.
        mean: Mean reports in units of the reports' standard deviation, by attribute.
        squares, number: Sum of squares about them, over trials and attributes; number of valid reports.
    """

    signed: NDArray[np.float32]
    sign: NDArray[np.float32]
    mean: NDArray[np.float32]
    squares: NDArray[np.float32]
    number: NDArray[np.float32]


def fit(
    chose_a: NDArray[np.float64],
    difference: NDArray[np.float64],
    reports: NDArray[np.float64],
    *,
    seed: int,
    warmup: int,
    draws: int,
) -> JointFit:
    """Fit the joint model. A context without choices or without reports counts for what it has.

    The arrays are those of `analysis.study.joint.Case`; a report with any NaN is missing. `warmup` and `draws` are of
    each chain.

    Raises:
        InputError: No context has both choices and reports, or the reports do not vary.
    """
    started = time.monotonic()
    observed = _observed(chose_a, difference, reports)
    found, divergent = _chains(warmup, draws)(jax.random.split(jax.random.key(seed), CHAINS), observed)
    parameters = {name: np.asarray(values, dtype=float) for name, values in found.items()}
    rho = parameters["rho"]
    low, high = array_stats.hdi(rho.ravel(), 0.95)
    return JointFit(
        rho=float(rho.mean()),
        sd=float(rho.std(ddof=1)),
        hdi_low=float(low),
        hdi_high=float(high),
        rhat=float(array_stats.rhat(rho)),
        ess_bulk=float(array_stats.ess(rho)),
        rhat_worst=max(float(array_stats.rhat(v)) for v in parameters.values()),
        divergences=int(divergent.sum()),
        shared=float(parameters["shared"].mean()),
        n_contexts=int(((observed.number > 0) & observed.sign.any(axis=1)).sum()),
        seconds=round(time.monotonic() - started, 1),
    )


def _observed(chose_a: NDArray[np.float64], difference: NDArray[np.float64], reports: NDArray[np.float64]) -> _Observed:
    valid = np.asarray(~np.isnan(reports).any(axis=2))
    sign: NDArray[np.float64] = np.nan_to_num(2 * chose_a - 1)
    if not (valid.any(axis=1) & sign.any(axis=1)).any():
        raise InputError("no context has both choices and readable reports; measure both on the same contexts")
    scale = reports[valid].std()
    if scale == 0:
        raise InputError(f"all reports are {reports[valid].flat[0]:g}; a correlation needs reports that vary")
    means, count = mean_reports(reports / scale)
    means = np.nan_to_num(means)
    residual = np.where(valid[..., None], reports / scale - means[:, None], 0)
    signed = sign[..., None] * np.where(sign[..., None] == 0, 0, difference)
    arrays = (signed, sign, means, np.square(residual).sum(axis=(1, 2)), count)
    return _Observed(*(a.astype(np.float32) for a in arrays))


@cache
def _chains(warmup: int, draws: int) -> Callable[[jax.Array, _Observed], tuple[dict[str, jax.Array], jax.Array]]:
    """The sampler, compiled once for each length of chains and each shape of data: a function of a key a chain.

    It gives the draws of the parameters that all contexts share, and whether each diverged, all (chains, draws).
    """

    def chain(key: jax.Array, observed: _Observed) -> tuple[dict[str, jax.Array], jax.Array]:
        mcmc = MCMC(NUTS(_model), num_warmup=warmup, num_samples=draws, progress_bar=False)
        mcmc.run(key, observed)
        shared = {name: values for name, values in mcmc.get_samples().items() if values.ndim == 1}
        return shared, mcmc.get_extra_fields()["diverging"]

    return jax.pmap(chain, in_axes=(0, None))


def _model(observed: _Observed) -> None:
    """The densities of the module's docstring; every latent is standard normal a priori (non-centred)."""
    contexts, attributes = observed.mean.shape
    rho = numpyro.sample("rho", dist.Uniform(-1, 1))
    latent = numpyro.sample("latent", dist.Normal().expand([contexts, attributes]).to_event(2))
    _choices(observed, latent)
    _reports(observed, latent, rho)


def _choices(observed: _Observed, latent: Any) -> None:
    weight_sd = numpyro.sample("weight_sd", dist.HalfNormal(5))
    lean = numpyro.sample("lean", dist.Normal(0, 2.5))
    lean_sd = numpyro.sample("lean_sd", dist.HalfNormal(1))
    apart = numpyro.sample("apart", dist.Normal().expand([len(latent)]).to_event(1))
    # About their own mean, so that no common shift of them can stand in for the lean: chains mix ten times faster.
    leans = lean + lean_sd * (apart - apart.mean())
    # A missing choice has sign 0 and so the constant likelihood 1/2.
    logits = observed.sign * leans[:, None] + jnp.einsum("ctk,ck->ct", observed.signed, weight_sd * latent)
    numpyro.factor("choices", jax.nn.log_sigmoid(logits).sum())


def _reports(observed: _Observed, latent: Any, rho: Any) -> None:
    attributes = latent.shape[1]
    mean = numpyro.sample("mean", dist.Normal(0, 1))
    belief_sd = numpyro.sample("belief_sd", dist.HalfNormal(1))
    noise_sd = numpyro.sample("noise_sd", dist.HalfNormal(1))
    shared = numpyro.sample("shared", dist.Uniform(0, 1))
    present, count = observed.number > 0, jnp.maximum(observed.number, 1)
    about_mean = -attributes * (count - 1) * jnp.log(noise_sd) - observed.squares / (2 * noise_sd**2)
    # A covariance p I + q 11' has eigenvalue p + attributes q along the mean over attributes, and p across it.
    error = belief_sd**2 * (1 - rho**2)
    across = error * (1 - shared) + noise_sd**2 / count
    along = across + attributes * error * shared
    residual = observed.mean - mean - belief_sd * rho * latent
    level = residual.mean(axis=1)
    squares = jnp.square(residual - level[:, None]).sum(axis=1) / across + attributes * level**2 / along
    of_mean = -0.5 * ((attributes - 1) * jnp.log(across) + jnp.log(along) + squares)
    numpyro.factor("reports", jnp.where(present, about_mean + of_mean, 0).sum())
