"""Targets: densities, draws and answers belong together; references of others agree."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import solvers as sv


def test_gaussian_is_the_normal_law_up_to_a_constant():
    S = np.array([[2.0, 0.6], [0.6, 0.5]])
    target, law = sv.targets.gaussian(jnp.array([1.0, -2.0]), jnp.asarray(S)), stats.multivariate_normal([1.0, -2.0], S)
    x = np.random.default_rng(0).normal(size=(5, 2))
    gap = jax.jit(jax.vmap(target.logdensity))(x) - law.logpdf(x)
    assert np.ptp(gap) < 1e-13
    draws = np.asarray(target.draw(jax.random.key(0), 50_000))
    np.testing.assert_allclose(np.cov(draws.T), S, atol=5 * math.sqrt(2 / 50_000) * 2)


def grid_moments(target, lines):
    """Mean and variance by the trapezoidal rule over a plane."""
    x = np.stack(np.meshgrid(*lines, indexing="ij"), axis=-1).reshape(-1, 2)
    weight = np.exp(np.asarray(jax.jit(jax.vmap(lambda x: target.logdensity(x)))(x)))
    weight /= weight.sum()
    mean = weight @ x
    return mean, weight @ (x - mean) ** 2


@pytest.mark.parametrize(
    ("target", "lines"),
    [
        (
            sv.targets.mixture(jnp.array([[-2.0, 0.0], [1.0, 3.0]]), jnp.array([0.7, 1.1]), jnp.array([1.0, 2.0])),
            (np.linspace(-12, 12, 401), np.linspace(-12, 14, 401)),
        ),
        (sv.targets.banana(0.2, 2.0), (np.linspace(-18, 18, 721), np.linspace(-14, 70, 1681))),
        (sv.targets.funnel(2, 0.4), (np.linspace(-3.2, 3.2, 81), np.linspace(-40, 40, 4001))),
        (sv.targets.logistic_regression(), (np.linspace(-9, 7, 401), np.linspace(-16, 6, 401))),
    ],
    ids=["mixture", "banana", "funnel", "logistic"],
)
def test_answers_are_those_of_the_density(target, lines):
    mean, variance = grid_moments(target, lines)
    np.testing.assert_allclose(mean, target.mean, atol=1e-8)
    np.testing.assert_allclose(variance, target.variance, rtol=1e-7)


def test_draws_have_the_moments_that_are_promised():
    key, count = jax.random.key(1), 100_000
    for target in (
        sv.targets.mixture(jnp.array([[-2.0, 0.0], [1.0, 3.0]]), jnp.array([0.7, 1.1]), jnp.array([1.0, 2.0])),
        sv.targets.banana(0.1, 2.0),
        sv.targets.funnel(3, 0.5),
    ):
        x = np.asarray(jax.jit(lambda k, t=target: t.draw(k, count))(key))
        assert np.all(np.abs(x.mean(0) - target.mean) < 5 * x.std(0) / math.sqrt(count))
        square = (x - np.asarray(target.mean)) ** 2
        assert np.all(np.abs(square.mean(0) - target.variance) < 5 * square.std(0) / math.sqrt(count))


def test_eight_schools_agree_with_the_reference_posterior():
    """posteriordb, eight_schools_noncentered: means with their Monte Carlo errors, 10 000 draws."""
    target = sv.targets.eight_schools()
    mean, variance = target.mean, target.variance
    theta = [6.1505, 4.9396, 3.9059, 4.7960, 3.6144, 4.0511, 6.3172, 4.8840]
    errors = np.sqrt(np.asarray(variance["theta"]) / 10_000)
    assert np.all(np.abs(np.asarray(mean["theta"]) - theta) < 4 * errors)
    assert abs(mean["mu"] - 4.4105) < 4 * 0.033 and abs(mean["tau"] - 3.6021) < 4 * 0.032
    assert abs(mean["mu"] ** 2 + variance["mu"] - 30.403) < 4 * 0.335
    assert abs(mean["tau"] ** 2 + variance["tau"] - 23.204) < 4 * 0.485


def test_eight_schools_density_is_the_model():
    """Against the laws of SciPy, up to a constant."""
    target = sv.targets.eight_schools()
    y, sigma = [28, 8, -3, 7, -1, 1, 18, 12], [15, 10, 16, 11, 9, 11, 10, 18]
    rng, gaps = np.random.default_rng(0), []
    density = jax.jit(target.logdensity)
    for _ in range(5):
        mu, log_tau, eta = rng.normal() * 5, rng.normal(), rng.normal(size=8)
        tau = math.exp(log_tau)
        exact = stats.norm.logpdf(mu, 0, 5) + stats.halfcauchy.logpdf(tau, scale=5) + log_tau
        exact += stats.norm.logpdf(eta).sum() + stats.norm.logpdf(y, mu + tau * eta, sigma).sum()
        gaps.append(
            float(density({"mu": jnp.asarray(mu), "log_tau": jnp.asarray(log_tau), "eta": jnp.asarray(eta)})) - exact
        )
    assert np.ptp(gaps) < 1e-11


def test_the_flights_have_their_published_fit():
    """Maximum likelihood: intercept 15.0429, slope -0.23216 per degree Fahrenheit."""
    from solvers.sampling.targets import _flights

    x, y = _flights()
    beta = np.zeros(2)
    for _ in range(30):
        p = 1 / (1 + np.exp(-x @ beta))
        beta = beta + np.linalg.solve((x * (p * (1 - p))[:, None]).T @ x, x.T @ (y - p))
    t = np.array([66, 70, 69, 68, 67, 72, 73, 70, 57, 63, 70, 78, 67, 53, 67, 75, 70, 81, 76, 79, 75, 76, 58], float)
    slope = beta[1] / t.std()
    np.testing.assert_allclose([beta[0] - slope * t.mean(), slope], [15.0429, -0.23216], rtol=2e-5)


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="positive definite"):
        sv.targets.gaussian(jnp.zeros(2), jnp.array([[1.0, 2.0], [2.0, 1.0]]))
    with pytest.raises(ValueError, match="`weights`"):
        sv.targets.mixture(jnp.zeros((2, 1)), jnp.ones(2), jnp.array([1.0, 0.0]))
    with pytest.raises(ValueError, match="zeros and ones"):
        sv.targets.logistic_regression(np.ones((2, 1)), np.array([0.0, 2.0]))
    with pytest.raises(ValueError, match="`features` were given without `labels`"):
        sv.targets.logistic_regression(np.ones((2, 1)))
    with pytest.raises(ValueError, match="`labels` were given without `features`"):
        sv.targets.logistic_regression(labels=np.ones(2))
    with pytest.raises(ValueError, match="two dimensions"):
        sv.targets.funnel(1)
