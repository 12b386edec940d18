"""Generation with exact scores: orders of the flow's integrators, likelihoods, moments of Langevin dynamics."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ..sampling.exact_score import MixtureScore
from ..sampling.flow_likelihood import log_likelihood
from ..sampling.flow_methods import Ddim, DpmSolver, Heun
from ..sampling.langevin_methods import AnnealedLangevin, PredictorCorrector
from ..sampling.noise import VarianceExploding
from ..sampling.preserving_noise import VariancePreserving
from ..sampling.reverse import generate
from .record import Evidence, Row

MEAN, COVARIANCE = (0.5, -1.0), ((1.0, 0.6), (0.6, 0.8))
MEANS, WEIGHTS = ((-3.0, 0.0), (3.0, 1.0)), (0.3, 0.7)
COVARIANCES = (((1.0, 0.3), (0.3, 0.5)), ((0.4, 0.0), (0.0, 0.9)))
COUNT = 4000  # draws


def order_of(method: Callable[[int], Any], expected: int) -> Evidence:
    """Order between 64 and 128 steps of the flow of a Gaussian, against its closed form; distance from the promise."""
    noise = VariancePreserving(sigma_min=0.05)
    mean, key = jnp.asarray(MEAN), jax.random.key(0)
    score = MixtureScore(mean, jnp.asarray(COVARIANCE), noise)
    start = jax.random.normal(key, (3, 2), mean.dtype)
    # Along each axis the flow scales by the ratio of the deviations.
    high, low = noise.ratio_max(), noise.ratio(noise.sigma_min)
    variances, axes = jnp.linalg.eigh(jnp.asarray(COVARIANCE))
    along = (start / noise.scales(high)[0] - mean) @ axes
    truth = mean + (along * jnp.sqrt((variances + low**2) / (variances + high**2))) @ axes.T
    errors = []
    for steps in (64, 128):
        ends = generate(score, noise, key, shape=(3, 2), method=method(steps), start=start, denoise=False)
        errors.append(float(jnp.abs(ends / noise.scales(low)[0] - truth).max()))
    found = math.log2(errors[0] / errors[1])
    return Evidence(found, expected, abs(found - expected), 0.15)


def likelihood_of_a_mixture() -> Evidence:
    """Log density at the smallest level, with the exact density at the largest as prior; largest difference."""
    noise = VarianceExploding(0.01, 20.0)
    score = _mixture(noise)
    x = jnp.array([[0.0, 0.5], [2.5, 1.0], [-4.0, 1.0], [5.0, -3.0]])

    def prior(end: jax.Array) -> jax.Array:
        return score.logdensity(end, noise.sigma_max)

    ours = log_likelihood(score, noise, x, jax.random.key(0), prior=prior, rtol=1e-8)
    truth = jax.vmap(lambda x: score.logdensity(x, noise.sigma_min))(x)
    return Evidence(float(ours[0]), float(truth[0]), float(jnp.abs(ours - truth).max()), 1e-5)


def estimated_likelihood() -> Evidence:
    """Mean log density of 16 samples in 40 dimensions by random signs; error in the standard errors that it tells."""
    noise, d, key = VarianceExploding(0.1, 30.0), 40, jax.random.key(0)
    factor = 0.1 * jax.random.normal(key, (d, d))
    score = MixtureScore(jnp.zeros(d), jnp.eye(d) + factor @ factor.T, noise)
    x = score.draw(jax.random.key(1), 16)
    ours, errors = log_likelihood(
        score, noise, x, key, prior=lambda end: score.logdensity(end, noise.sigma_max), with_error=True, rtol=1e-5
    )
    truth = jax.vmap(lambda x: score.logdensity(x, noise.sigma_min))(x)
    scatter = float(jnp.sqrt(jnp.sum(errors**2))) / 16
    distance = abs(float(jnp.mean(ours - truth))) / scatter
    return Evidence(float(jnp.mean(ours)), float(jnp.mean(truth)), distance, 4.0)


def width_of_a_mode(method: Callable[[], Any]) -> Evidence:
    """Standard deviation of the right mode along the first axis; error in standard errors."""
    noise = VarianceExploding(0.05, 20.0)
    draws = generate(_mixture(noise), noise, jax.random.key(1), shape=(COUNT, 2), method=method())
    mine = draws[draws[:, 0] > 0, 0]
    ours, truth = float(jnp.std(mine, ddof=1)), math.sqrt(COVARIANCES[1][0][0])
    return Evidence(ours, truth, abs(ours - truth) / (truth / math.sqrt(2 * len(mine))), 4.0)


def weight_of_a_mode(method: Callable[[], Any]) -> Evidence:
    """Share of the draws in the right mode; error in standard errors."""
    noise = VarianceExploding(0.05, 20.0)
    draws = generate(_mixture(noise), noise, jax.random.key(2), shape=(COUNT, 2), method=method())
    ours, truth = float(jnp.mean(draws[:, 0] > 0)), WEIGHTS[1]
    return Evidence(ours, truth, abs(ours - truth) / math.sqrt(truth * (1 - truth) / COUNT), 4.0)


def annealing() -> AnnealedLangevin:
    """Annealed Langevin dynamics whose width is right to a thousandth."""
    return AnnealedLangevin(levels=40, steps=96)


def corrector() -> PredictorCorrector:
    """Predictor and corrector with steps to spare."""
    return PredictorCorrector(steps=512)


def _mixture(noise: Any) -> MixtureScore:
    return MixtureScore(jnp.asarray(MEANS), jnp.asarray(COVARIANCES), noise, jnp.asarray(WEIGHTS))


ROWS = (
    Row("generation.heun", "order of Heun", "closed form", lambda: order_of(Heun, 2)),
    Row("generation.dpm_solver", "order of DPM-Solver 2M", "closed form", lambda: order_of(DpmSolver, 2)),
    Row("generation.ddim", "order of DDIM", "closed form", lambda: order_of(lambda n: Ddim(n, rho=math.inf), 1)),
    Row("generation.likelihood", "log p of a mixture", "closed form", likelihood_of_a_mixture),
    Row("generation.hutchinson", "mean log p in 40-D, standard errors", "closed form", estimated_likelihood),
    Row("generation.langevin", "width by annealing, standard errors", "theory", lambda: width_of_a_mode(annealing)),
    Row("generation.weights", "weight by annealing, standard errors", "theory", lambda: weight_of_a_mode(annealing)),
    Row("generation.corrector", "width by PC, standard errors", "theory", lambda: width_of_a_mode(corrector)),
)
