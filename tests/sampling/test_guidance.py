"""Conditions against Gaussian posteriors in closed form, and guidance against its formula."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

KEY = jax.random.key(0)
NOISE = sv.VarianceExploding(0.01, 20.0)
MEAN = jnp.array([0.5, -1.0, 0.2])
COVARIANCE = jnp.array([[1.0, 0.6, 0.3], [0.6, 0.8, 0.0], [0.3, 0.0, 0.5]])
A = jnp.array([[1.0, 1.0, 0.0], [0.0, 1.0, -1.0]])
DATA = jnp.array([1.2, -0.3])


def posterior(mean, covariance, matrix, data, deviation):
    """Mean and covariance of a Gaussian given linear measurements."""
    gain = covariance @ matrix.T @ jnp.linalg.inv(matrix @ covariance @ matrix.T + deviation**2 * jnp.eye(len(data)))
    return mean + gain @ (data - matrix @ mean), covariance - gain @ matrix @ covariance


@pytest.mark.parametrize("noise", [NOISE, sv.VariancePreserving()], ids=lambda n: type(n).__name__)
def test_mean_given_measurements_is_exact_for_gaussians(noise):
    score = sv.MixtureScore(MEAN, COVARIANCE, noise)
    told = sv.LinearInverse(lambda x: A @ x, DATA, 0.3)
    flow = told.guide(score, noise, DATA)
    denoise, pull = jax.jit(lambda y, k: flow.denoise(y, k)), jax.jit(lambda y, k: flow.pull(y, k))
    y = jnp.array([0.3, 2.0, -1.0])
    for k in (0.05, 1.0, 15.0):
        given = posterior(MEAN, COVARIANCE, jnp.eye(3), y, k)
        mean, _ = posterior(*given, A, DATA, 0.3)
        np.testing.assert_allclose(denoise(y, jnp.asarray(k)), mean, rtol=1e-8)
        np.testing.assert_allclose(y + k**2 * pull(y, jnp.asarray(k)), mean, rtol=1e-7)


def test_isotropic_covariance_is_exact_for_isotropic_gaussians():
    score = sv.MixtureScore(MEAN, 0.7, NOISE)
    flow = sv.LinearInverse(lambda x: A @ x, DATA, 0.3, prior_deviation=0.7).guide(score, NOISE, DATA)
    y, k = jnp.array([0.3, 2.0, -1.0]), 0.8
    given = posterior(MEAN, 0.49 * jnp.eye(3), jnp.eye(3), y, k)
    np.testing.assert_allclose(flow.denoise(y, jnp.asarray(k)), posterior(*given, A, DATA, 0.3)[0], rtol=1e-10)


def test_a_wide_spectrum_is_solved_and_too_few_iterations_are_told():
    """Variances over six decades, seen directly: the residual, that is the error of A D, below its bound."""
    variances, deviation, k = jnp.logspace(-4, 2, 40), 0.01, jnp.asarray(30.0)
    turn, _ = jnp.linalg.qr(jax.random.normal(KEY, (40, 40)))
    covariance = (turn * variances) @ turn.T
    data = turn @ (jnp.sqrt(variances) * jax.random.normal(jax.random.key(1), (40,)))
    y = data + k * jax.random.normal(jax.random.key(2), (40,))

    def score(x, sigma):
        return -jnp.linalg.solve(covariance + sigma**2 * jnp.eye(40), x)

    given = posterior(jnp.zeros(40), covariance, jnp.eye(40), y, k)
    exact, _ = posterior(*given, jnp.eye(40), data, deviation)

    def mean(iterations):
        told = sv.LinearInverse(lambda x: x, data, deviation, iterations=iterations)
        return told.guide(score, NOISE, data).denoise(y, k)

    bound = math.sqrt(40 * float(jnp.finfo(float).eps)) * deviation
    assert float(jnp.linalg.norm(mean(300) - exact)) < bound
    assert bool(jnp.all(jnp.isnan(mean(3))))


def test_inpainting_draws_from_the_conditional_law():
    """Mean and covariance of the unknown parts within 5 standard errors of 2000 samples; the known ones exactly."""
    count, score = 2000, sv.MixtureScore(MEAN, COVARIANCE, NOISE)
    told = sv.Inpaint(jnp.array([2.0, jnp.nan, jnp.nan]), jnp.array([True, False, False]))
    method = sv.DpmSolver(32)
    draws = sv.generate(score, NOISE, KEY, shape=(count, 3), method=method, condition=told)
    mean, covariance = posterior(MEAN, COVARIANCE, jnp.array([[1.0, 0.0, 0.0]]), jnp.array([2.0]), 0.0)
    c = covariance[1:, 1:]
    assert bool(jnp.all(draws[:, 0] == 2.0))
    assert bool(jnp.all(jnp.abs(draws[:, 1:].mean(axis=0) - mean[1:]) < 5 * jnp.sqrt(jnp.diag(c) / count)))
    error = jnp.sqrt((c**2 + jnp.outer(jnp.diag(c), jnp.diag(c))) / count)
    assert bool(jnp.all(jnp.abs(jnp.cov(draws[:, 1:].T) - c) < 5 * error))


def by_class(x, sigma, label):
    """Two classes at -2 and 2; without a label N(0, 5)."""
    centre, variance = jnp.array([-2.0, 2.0, 0.0])[label], jnp.array([1.0, 1.0, 5.0])[label]
    return (centre - x) / (variance + sigma**2)


def test_labels_and_guidance():
    """The classes have their means and deviations; the guided score is the formula."""
    labels = jnp.arange(400) % 2
    draws = sv.generate(by_class, NOISE, KEY, shape=(400, 1), condition=sv.Labels(labels))[:, 0]
    for label, centre in ((0, -2.0), (1, 2.0)):
        mine = draws[labels == label]
        assert abs(mine.mean() - centre) < 5 / math.sqrt(200) and abs(mine.std() - 1) < 5 / math.sqrt(400)
    x, sigma = jnp.array([0.4]), jnp.asarray(0.6)
    one = jnp.asarray(1)
    guided = sv.Labels(1, guidance=3.0).guide(by_class, NOISE, one).score(x, sigma)
    np.testing.assert_allclose(guided, 3 * by_class(x, sigma, 1) - 2 * by_class(x, sigma, -1), rtol=1e-12)
    np.testing.assert_allclose(sv.Labels(1, 1.0).guide(by_class, NOISE, one).score(x, sigma), by_class(x, sigma, 1))


def test_what_does_not_fit_is_refused():
    def score(x, sigma, label=-1):
        return -x

    for condition, word in [
        (sv.Labels(jnp.array([0, 1, 2])), "3 labels for 2"),
        (sv.LinearInverse(lambda x: x[:1], jnp.ones(2), 0.1), "shape of what the operator"),
        (sv.Inpaint(jnp.ones(4), jnp.ones(4, bool)), "shape of a sample"),
        (sv.LinearInverse(lambda x: x[:1] + 1, jnp.ones(1), 0.1), "takes 0 to"),
        (sv.LinearInverse(lambda x: jnp.sin(x), jnp.ones(3), 0.1), "must be linear"),
        (sv.LinearInverse(lambda x: x**2, jnp.ones(3), 0.1), "must be linear"),
    ]:
        with pytest.raises(ValueError, match=word):
            sv.generate(score, NOISE, KEY, shape=(2, 3), condition=condition)
    for build, word in [
        (lambda: sv.Labels(jnp.array([0.5])), "whole"),
        (lambda: sv.Labels(-1), "from 0"),
        (lambda: sv.LinearInverse(lambda x: x, jnp.ones(2), 0.0), "positive"),
        (lambda: sv.LinearInverse(lambda x: x, jnp.array([jnp.nan]), 0.1), "finite"),
        (lambda: sv.Inpaint(jnp.ones(3), jnp.ones(3)), "boolean"),
        (lambda: sv.Inpaint(jnp.array([jnp.nan, 1.0]), jnp.array([True, False])), "finite"),
    ]:
        with pytest.raises(ValueError, match=word):
            build()
