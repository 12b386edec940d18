"""Distances between samples against closed forms of Gaussians, within 5 standard errors of their scatter."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

RNG = np.random.default_rng(0)
SHIFT = np.array([0.6, -0.3, 0.2])
PAIRS = [(RNG.normal(size=(300, 3)), SHIFT + RNG.normal(size=(200, 3))) for _ in range(20)]


def assert_mean(function, truth, pairs=PAIRS):
    values = np.array([function(x, y) for x, y in pairs])
    assert abs(values.mean() - truth) < 5 * values.std(ddof=1) / math.sqrt(len(values))
    assert values.std() < 0.5 * max(abs(truth), 0.1)


def test_mmd_of_two_gaussians():
    """E k over Gaussian differences of variance 2: (w^2 / (w^2 + 2))^(d/2) exp(-|m|^2 / (2 (w^2 + 2)))."""
    w = 1.5
    same = (w**2 / (w**2 + 2)) ** 1.5
    truth = 2 * same * (1 - math.exp(-SHIFT @ SHIFT / (2 * (w**2 + 2))))
    assert_mean(lambda x, y: sv.mmd_squared(x, y, width=w), truth)
    assert_mean(lambda x, y: sv.mmd_squared(x, y - SHIFT, width=w), 0.0)


def test_energy_distance_of_two_gaussians_on_a_line():
    """E|N(m, 2)| = 2 / sqrt(pi) exp(-m^2 / 4) + m erf(m / 2)."""
    m = 0.6
    far = 2 / math.sqrt(math.pi) * math.exp(-(m**2) / 4) + m * math.erf(m / 2)
    line = [(x[:, :1], y[:, :1]) for x, y in PAIRS]
    assert_mean(sv.energy_distance, 2 * far - 4 / math.sqrt(math.pi), line)


def test_sliced_wasserstein_is_exact_for_affine_copies():
    """A copy that is stretched by a and shifted by b is transported along every line by the affine map itself."""
    x, key = PAIRS[0][0], jax.random.key(0)
    lines = np.asarray(jax.random.normal(key, (3, 50)))
    lines = lines / np.linalg.norm(lines, axis=0)
    a, b = 1.3, SHIFT
    truth = np.sqrt(np.mean(((1 - a) * x @ lines - b @ lines) ** 2))
    np.testing.assert_allclose(sv.sliced_wasserstein(x, a * x + b, key, 50), truth, rtol=1e-12)
    # Every sample twice is the same law.
    np.testing.assert_allclose(sv.sliced_wasserstein(x, np.repeat(a * x + b, 2, axis=0), key, 50), truth, rtol=1e-12)


def test_stein_discrepancy_of_a_shifted_gaussian():
    """Scores differ by the constant m, so the discrepancy is |m|^2 E k; the mean over N(0, 2) by a sum on a grid."""
    line = np.linspace(-12, 12, 4001)
    density = np.exp(-(line**2) / 4) / math.sqrt(4 * math.pi)
    mean = np.sum(density / np.sqrt(1.44 + line**2)) * (line[1] - line[0])
    line_pairs = [(x[:, :1] + 0.6, y) for x, y in PAIRS]
    assert_mean(lambda x, y: sv.kernel_stein(lambda x: -x, x, width=1.2), 0.36 * mean, line_pairs)
    assert_mean(lambda x, y: sv.kernel_stein(lambda x: -x, x), 0.0, PAIRS)


def test_frechet_distance_of_affine_copies():
    """For a x + b the distance is |m - m'|^2 + (1 - a)^2 tr S, and for a rotation that of the rotated covariance."""
    x = PAIRS[0][0] * np.array([1.0, 2.0, 0.5])
    y = 1.3 * x + SHIFT
    truth = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2) + 0.09 * np.trace(np.cov(x.T))
    np.testing.assert_allclose(sv.frechet(x, y), truth, rtol=1e-10)
    np.testing.assert_allclose(sv.frechet(x, y, features=lambda z: z[:1]), sv.frechet(x[:, :1], y[:, :1]), rtol=1e-6)
    assert abs(sv.frechet(x, x)) < 1e-10


def test_neighbours():
    x, y = PAIRS[0][0][:200], PAIRS[1][0][:200]
    # 400 answers that are nearly independent: 5 standard errors of a fair coin are 0.125.
    assert abs(sv.nearest_neighbour_test(x, y) - 0.5) < 0.125
    assert sv.nearest_neighbour_test(x, x + 50.0) == 1.0
    assert sv.nearest_neighbour_test(x, x + 1e-9) == 0.0
    brute = np.array([np.min(np.linalg.norm(y - one, axis=1)) for one in x])
    np.testing.assert_allclose(sv.nearest_distances(x, y), brute, rtol=1e-9)
    images = y.reshape(-1, 3, 1)
    np.testing.assert_allclose(sv.nearest_distances(x.reshape(-1, 3, 1), images), brute, rtol=1e-9)


def test_what_does_not_fit_is_refused():
    x = np.ones((4, 2))
    for call, word in [
        (lambda: sv.mmd_squared(x, np.ones((4, 3))), "same shape"),
        (lambda: sv.mmd_squared(x, x), "positive"),
        (lambda: sv.energy_distance(x, x * np.nan), "not finite"),
        (lambda: sv.frechet(x[0], x[0]), "leading axis"),
        (lambda: sv.kernel_stein(lambda x: x[:1], jnp.ones((4, 2))), "shape of one sample"),
        (lambda: sv.nearest_distances(x, np.ones((4, 3))), "same shape"),
        (lambda: sv.sliced_wasserstein(x, x, jax.random.key(0), 0), "projections"),
    ]:
        with pytest.raises(ValueError, match=word):
            call()
