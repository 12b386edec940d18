"""Parallel tempering keeps the law of every level, finds the weights of modes, and compares densities by residuals."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

import solvers as sv
from solvers.sampling.tempering import TemperingState

SHAPE = 2.0
LADDER = np.array([1.0, 0.5, 0.2])

# The logarithm of a Gamma variable, SHAPE x - exp(x), as a sum of squares and a rest; to the power beta it is the
# logarithm of a Gamma variable of shape beta SHAPE and rate beta.
LOG_GAMMA = sv.LeastSquares(lambda x: math.sqrt(2) * jnp.exp(x / 2), lambda x: jnp.sum(SHAPE * x))


def state_of(kernel, positions, key):
    """State with a position of its own at each level, a leading axis."""
    keys = jax.random.split(key, len(positions))
    levels = jax.vmap(lambda b, x, k: kernel._level(b).init(x, k))(kernel.inverse_temperatures, positions, keys)
    return TemperingState(levels, jnp.asarray(0, jnp.int32))


def kernels():
    metric = sv.DiagonalMetric(jnp.asarray(0.7))
    return {
        "Mala": sv.Mala(LOG_GAMMA, step=0.8, metric=metric),
        "Hmc": sv.Hmc(LOG_GAMMA, step=0.9, leapfrog=2),
        "Obabo": sv.Obabo(lambda x: LOG_GAMMA(x), step=1.2, metropolis=True),
    }


@pytest.mark.parametrize("name", ["Mala", *(pytest.param(n, marks=pytest.mark.slow) for n in ("Hmc", "Obabo"))])
def test_every_level_keeps_its_law(name):
    """Independent exact draws at all levels, six rounds: four moments of each level within five standard errors."""
    kernel, count = sv.ParallelTempering(kernels()[name], LADDER), 10_000
    rng = np.random.default_rng(1)
    starts = np.stack([np.log(rng.gamma(b * SHAPE, size=count) / b) for b in LADDER], axis=1)

    @jax.jit
    @jax.vmap
    def run(x, key):
        def step(state, n):
            state, info = kernel.step(jax.random.fold_in(key, n), state)
            return state, info.exchange

        state, exchange = jax.lax.scan(step, state_of(kernel, x, jax.random.fold_in(key, 99)), jnp.arange(6))
        return state.levels.position, exchange, state.position

    x, exchange, cold = map(np.asarray, run(starts, jax.random.split(jax.random.key(2), count)))
    np.testing.assert_array_equal(cold, x[:, 0])
    # Even rounds try the first pair alone, odd rounds the second.
    tried = np.isfinite(exchange).all(axis=0)
    np.testing.assert_array_equal(tried, [[n % 2 == 0, n % 2 == 1] for n in range(6)])
    assert np.all(np.isfinite(exchange).any(axis=0) == tried) and 0.3 < np.nanmean(exchange) < 0.95
    for beta, values in zip(LADDER, x.T, strict=True):
        k = beta * SHAPE
        mean, variance = special.digamma(k) - math.log(beta), special.polygamma(1, k)
        third, fourth = special.polygamma(2, k), special.polygamma(3, k) + 3 * variance**2
        for power, exact in ((1, 0.0), (2, variance), (3, third), (4, fourth)):
            moment = (values - mean) ** power
            assert abs(moment.mean() - exact) < 5 * moment.std() / math.sqrt(count), (beta, power)


def test_modes_get_their_weights():
    """Modes of weight 1/5 and 4/5, six deviations apart, all chains started in the light one: last draws."""
    weights, count = np.array([0.2, 0.8]), 800
    target = sv.targets.mixture(jnp.array([[3.0], [-3.0]]), jnp.ones(2), jnp.asarray(weights))
    plain = sv.Mala(target.logdensity, step=0.8)

    def last(kernel, count):

        @jax.jit
        @jax.vmap
        def run(key):
            step = lambda s, n: (kernel.step(jax.random.fold_in(key, n), s)[0], None)  # noqa: E731
            start = kernel.init(jnp.array([3.0]), jax.random.fold_in(key, 999))
            return jax.lax.scan(step, start, jnp.arange(80))[0].position[0]

        return np.asarray(run(jax.random.split(jax.random.key(4), count)))

    x = last(sv.ParallelTempering(plain, jnp.array([1.0, 0.4, 0.15])), count)
    light = weights @ special.ndtr([3.0, -3.0])
    assert abs((x > 0).mean() - light) < 5 * math.sqrt(light * (1 - light) / count)
    assert abs(x.mean() - float(target.mean[0])) < 5 * math.sqrt(float(target.variance[0]) / count)
    # The cold kernel alone stays where it began: the test above sees what tempering does.
    assert (last(plain, 100) > 0).mean() > 0.5


def test_steps_of_time_scale_like_lengths():
    """h / beta for an overdamped step, h / beta^(1/2) for a time."""

    def density(x):
        return -0.5 * jnp.sum(x**2)

    times = (
        sv.Hmc(density, step=0.2),
        sv.Nuts(density, step=0.2),
        sv.Obabo(density, step=0.2, metropolis=True),
    )
    for kernel, expected in ((sv.Mala(density, step=0.2), 0.8), *((kernel, 0.4) for kernel in times)):
        ladder = sv.ParallelTempering(kernel, jnp.array([1.0, 0.25]))
        np.testing.assert_allclose(ladder._level(jnp.asarray(0.25)).step_size, expected, rtol=1e-15)


def test_an_exchange_of_large_misfits_keeps_its_digits_in_float32():
    """200 000 residuals with a misfit near 9e7, of which float32 knows no unit."""
    n, rng = 200_000, np.random.default_rng(0)
    slope = rng.normal(size=n)
    offset = 30.0 * rng.normal(size=n)
    a, b = jnp.asarray(offset, jnp.float32), jnp.asarray(slope, jnp.float32)
    density = sv.LeastSquares(lambda x: a + x * b, lambda x: -0.5 * x**2)
    # Steps that move nothing: what is left is the exchange.
    kernel = sv.ParallelTempering(sv.Mala(density, step=jnp.float32(1e-20)), jnp.asarray([1.0, 0.4], jnp.float32))
    mode = -float(slope @ offset) / float(slope @ slope)
    places = np.asarray([mode, mode + 0.015], np.float32)

    @jax.jit
    def run(places):
        return kernel.step(jax.random.key(1), state_of(kernel, places, jax.random.key(0)))[1].exchange

    exchange = run(jnp.asarray(places))
    assert exchange.dtype == jnp.float32
    x, y = map(float, places)
    gain = -0.5 * np.sum((y - x) * slope * (2 * offset + (x + y) * slope)) - 0.5 * (y**2 - x**2)
    assert -30 < 0.6 * gain < -5
    # Each residual, 30 in size, is rounded by 1e-6 before the difference: 30 * 1.4e-6 * sqrt(2e5) = 0.02, five times.
    # One unit in the last place of 9e7 is 8.
    assert abs(math.log(exchange[0]) - 0.6 * gain) < 0.1


def test_what_cannot_be_tempered_is_named():
    def density(x):
        return -0.5 * jnp.sum(x**2)

    ladder = jnp.array([1.0, 0.3])
    for kernel, words in (
        (sv.Ubu(density, step=0.1), "Kinetic has no Metropolis correction.*metropolis=True"),
        (sv.Ula(density, step=0.1), "Ula has no Metropolis correction"),
        (sv.Ula(score=lambda x: -x, step=0.1), "Ula has no `logdensity`"),
        (sv.Pcn(density, sv.IdentityMetric(), step=0.1), "Pcn has no `logdensity`"),
        (sv.Mala(density, step=0.1, score=lambda x: -x), "`score` of its own"),
        (eqx.nn.Identity(), "Identity has no `logdensity`"),
    ):
        with pytest.raises(TypeError, match=words):
            sv.ParallelTempering(kernel, ladder)
