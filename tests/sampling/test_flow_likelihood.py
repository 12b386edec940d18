"""Likelihoods by the probability flow against closed forms, exact and estimated traces, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

KEY = jax.random.key(0)
MEANS = jnp.array([[-2.0, 0.0], [2.0, 1.0]])
COVARIANCES = jnp.array([[[1.0, 0.3], [0.3, 0.5]], [[0.4, 0.0], [0.0, 0.9]]])
WEIGHTS = jnp.array([0.3, 0.7])


def mixture(noise, weights=WEIGHTS):
    return sv.MixtureScore(MEANS, COVARIANCES, noise, weights)


@pytest.mark.parametrize(
    "noise",
    [sv.VarianceExploding(0.01, 20.0), pytest.param(sv.SubVariancePreserving(), marks=pytest.mark.slow)],
    ids=lambda n: type(n).__name__,
)
def test_density_of_a_mixture(noise):
    """With the exact density at the end, within 1e-5 of the exact one at the smallest level."""
    score = mixture(noise)
    x = jnp.array([[0.0, 0.5], [2.5, 1.0], [-4.0, 1.0], [5.0, -3.0]])
    last = noise.sigma(noise.times()[1])
    logp, error = sv.log_likelihood(
        score, noise, x, KEY, prior=lambda end: score.logdensity(end, last), with_error=True, rtol=1e-8
    )
    truth = jax.vmap(lambda x: score.logdensity(x, noise.sigma_min))(x)
    assert float(jnp.abs(logp - truth).max()) < 1e-5
    assert not np.any(error)


def test_estimated_trace_and_its_error():
    """In 33 dimensions by random signs: unbiased within 5 of the errors that it tells, which are not too large."""
    d, noise = 33, sv.VarianceExploding(0.1, 30.0)
    factor = 0.1 * jax.random.normal(KEY, (d, d))
    score = sv.MixtureScore(jnp.zeros(d), jnp.eye(d) + factor @ factor.T, noise)
    x = score.draw(jax.random.key(1), 16)

    def end(x):
        return score.logdensity(x, noise.sigma_max)

    logp, error = sv.log_likelihood(score, noise, x, KEY, end, True, rtol=1e-5)
    away = np.asarray(logp - jax.vmap(lambda x: score.logdensity(x, noise.sigma_min))(x))
    assert np.all(error > 0) and np.all(np.abs(away) < 8 * error)  # eight signs: a t distribution, not a normal one
    # The mean of 16 independent estimates, and their mean square against the errors told.
    assert abs(away.mean()) < 5 * away.std(ddof=1) / np.sqrt(16)
    assert 0.3 < np.mean(away**2) / np.mean(np.asarray(error) ** 2) < 3


@pytest.mark.slow
def test_derivative_is_the_score_and_sees_parameters():
    noise = sv.VarianceExploding(0.1, 10.0)
    x = jnp.array([0.3, 0.8])

    def value(x, weights):
        score = mixture(noise, weights)
        return sv.log_likelihood(
            score, noise, x[None], KEY, prior=lambda e: score.logdensity(e, noise.sigma_max), rtol=1e-9
        )[0]

    slope, by_weight = jax.jit(jax.grad(value, argnums=(0, 1)))(x, WEIGHTS)
    np.testing.assert_allclose(slope, mixture(noise)(x, noise.sigma_min), rtol=1e-5)
    truth = jax.grad(lambda w: mixture(noise, w).logdensity(x, noise.sigma_min))(WEIGHTS)
    np.testing.assert_allclose(by_weight, truth, atol=1e-5)


def test_what_cannot_be_is_refused_or_nan():
    noise = sv.VarianceExploding(0.1, 10.0)

    def score(x, sigma):
        return -x / (1 + sigma**2)

    with pytest.raises(ValueError, match="leading axis"):
        sv.log_likelihood(score, noise, jnp.ones(3), KEY)
    with pytest.raises(ValueError, match="must be finite"):
        sv.log_likelihood(score, noise, jnp.full((2, 3), jnp.nan), KEY)
    with pytest.raises(ValueError, match="at least 2"):
        sv.log_likelihood(score, noise, jnp.ones((2, 3)), KEY, None, True, probes=1)
    with pytest.raises(ValueError, match="vanish"):
        sv.log_likelihood(score, noise, jnp.full((2, 3), 100.0), KEY)
    with pytest.raises(ValueError, match="one number"):
        sv.log_likelihood(score, noise, jnp.ones((2, 3)), KEY, prior=lambda e: e)
    single = sv.log_likelihood(score, noise, jnp.ones((2, 3), jnp.float32), KEY, max_steps=2)
    assert single.dtype == jnp.float32 and bool(jnp.all(jnp.isnan(single)))
