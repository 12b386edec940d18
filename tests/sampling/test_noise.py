"""Forward noise: marginals against moments of the equation itself, inverses, float32, wrong input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.sampling.noise import perturb, prior_logdensity, ratio_levels

NOISES = [
    sv.VarianceExploding(0.01, 10.0),
    sv.Edm(0.002, 80.0),
    sv.VariancePreserving(),
    sv.SubVariancePreserving(),
]
named = pytest.mark.parametrize("noise", NOISES, ids=lambda n: type(n).__name__)


@named
def test_marginals_solve_the_forward_equation(noise):
    """d alpha / dt = drift(alpha), d sigma^2 / dt = 2 drift(sigma) sigma + g^2, to round-off of the derivative."""
    first, last = noise.times()
    for t in jnp.linspace(first, last, 7):
        slope = jax.grad(lambda t: noise.alpha(t))(t)
        np.testing.assert_allclose(slope, noise.drift(noise.alpha(t), t), rtol=1e-12, atol=1e-12)
        growth = jax.grad(lambda t: noise.sigma(t) ** 2)(t)
        sigma = noise.sigma(t)
        np.testing.assert_allclose(
            growth, 2 * noise.drift(sigma, t) * sigma + noise.diffusion(t) ** 2, rtol=1e-10, atol=1e-12
        )


@named
def test_times_levels_and_ratios_are_inverses(noise):
    # 1 - sigma of a variance-preserving noise has lost four digits at the end.
    first, last = noise.times()
    t = jnp.linspace(first, last, 9)[:-1]
    sigma, alpha = noise.sigma(t), noise.alpha(t)
    np.testing.assert_allclose(noise.time(sigma), t, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(noise.ratio(sigma), sigma / alpha, rtol=1e-9)
    for found, truth in zip(noise.scales(sigma / alpha), (alpha, sigma), strict=True):
        np.testing.assert_allclose(found, truth, rtol=1e-12)
    np.testing.assert_allclose(noise.log_snr(t), 2 * jnp.log(alpha / sigma), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(noise.sigma(first), noise.sigma_min, rtol=1e-12)
    np.testing.assert_allclose(noise.ratio_max(), noise.sigma(last) / noise.alpha(last), rtol=1e-9)
    mean, deviation = noise.marginal(jnp.array([2.0, -1.0]), t[3])
    np.testing.assert_allclose(mean, alpha[3] * jnp.array([2.0, -1.0]))
    np.testing.assert_allclose(deviation, sigma[3])


@named
def test_single_precision_keeps_its_digits(noise):
    """Against double precision: 20 roundings; the naive sqrt(1 - exp(-B)) is off by 1e-2 at the smallest time."""
    first, last = (float(t) for t in noise.times())
    t = np.geomspace(max(first, 1e-5), last, 50)
    for name in ("alpha", "sigma", "diffusion"):
        single = getattr(noise, name)(jnp.asarray(t, jnp.float32))
        assert single.dtype == jnp.float32
        double = getattr(noise, name)(jnp.asarray(np.asarray(t, np.float32), jnp.float64))
        np.testing.assert_allclose(single, double, rtol=20 * np.finfo(np.float32).eps)
    single, double = noise.log_snr(jnp.asarray(t, jnp.float32)), noise.log_snr(jnp.asarray(np.float32(t), jnp.float64))
    np.testing.assert_allclose(single, double, rtol=1e-5, atol=1e-5)


@named
def test_levels_fall_from_the_last_to_the_first(noise):
    for rho in (1.0, 7.0, np.inf):
        levels = ratio_levels(noise, 10, rho)
        assert levels.shape == (11,) and bool(jnp.all(jnp.diff(levels) < 0))
        np.testing.assert_allclose(levels[0], noise.ratio_max(), rtol=1e-12)
        np.testing.assert_allclose(levels[-1], noise.ratio(noise.sigma_min), rtol=1e-11)
    np.testing.assert_allclose(jnp.diff(jnp.log(levels)), jnp.log(levels[-1] / levels[0]) / 10, rtol=1e-10)


def test_what_is_drawn_and_its_density():
    noise = sv.VariancePreserving()
    x0, eps = jnp.array([1.0, -2.0]), jnp.array([0.3, 0.1])
    x, sigma = perturb(noise, x0, jnp.asarray(0.75), eps)
    np.testing.assert_allclose(sigma, 0.6)
    np.testing.assert_allclose(x, 0.8 * x0 + 0.6 * eps)
    wide = sv.VarianceExploding(0.1, 3.0)
    expected = sum(-0.5 * (v / 3) ** 2 - np.log(3 * np.sqrt(2 * np.pi)) for v in (1.0, -2.0))
    np.testing.assert_allclose(prior_logdensity(wide, x0), expected)


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: sv.VarianceExploding(10.0, 0.01), "smaller than"),
        (lambda: sv.Edm(1.0, 1.0), "smaller than"),
        (lambda: sv.VarianceExploding(-1.0, 2.0), "positive"),
        (lambda: sv.VariancePreserving(20.0, 0.1), "exceed"),
        (lambda: sv.VariancePreserving(sigma_min=1.0), "below"),
        (lambda: sv.SubVariancePreserving(0.1, 0.1, sigma_min=0.5), "below"),
        (lambda: sv.Edm(jnp.nan, 1.0), "finite"),
    ],
)
def test_a_wrong_range_is_refused(build, word):
    with pytest.raises(ValueError, match=word):
        build()
