"""Generation with exact scores: orders, closed forms, right moments, independence of the batch, derivatives."""

import math
import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.sampling.flow import Flow
from solvers.sampling.langevin_methods import euler_maruyama, exponential_heun, langevin
from solvers.sampling.noise import ratio_levels

VE = sv.VarianceExploding(0.05, 20.0)
KEY = jax.random.key(0)
MEAN, COVARIANCE = jnp.array([0.5, -1.0]), jnp.array([[1.0, 0.6], [0.6, 0.8]])
MEANS, COVARIANCES = (
    jnp.array([[-3.0, 0.0], [3.0, 1.0]]),
    jnp.array([[[1.0, 0.3], [0.3, 0.5]], [[0.4, 0.0], [0.0, 0.9]]]),
)
WEIGHTS = jnp.array([0.3, 0.7])


def exact_flow(noise, start):
    """End of the probability flow of the Gaussian in closed form: along each axis by the ratio of deviations."""
    high, low = noise.ratio_max(), noise.ratio(noise.sigma_min)
    variances, axes = jnp.linalg.eigh(COVARIANCE)
    along = (start / noise.scales(high)[0] - MEAN) @ axes
    return noise.scales(low)[0] * (MEAN + (along * jnp.sqrt((variances + low**2) / (variances + high**2))) @ axes.T)


def errors(method, noise, counts):
    score = sv.MixtureScore(MEAN, COVARIANCE, noise)
    start = noise.prior_deviation() * jax.random.normal(KEY, (3, 2))
    truth = exact_flow(noise, start)
    found = [sv.generate(score, noise, KEY, shape=(3, 2), method=method(n), start=start, denoise=False) for n in counts]
    return [float(jnp.abs(f - truth).max()) for f in found]


@pytest.mark.parametrize(
    ("method", "noise", "order"),
    [
        (sv.Heun, VE, 2),
        (sv.DpmSolver, sv.VariancePreserving(sigma_min=0.05), 2),
        (lambda n: sv.Ddim(n, rho=math.inf), sv.SubVariancePreserving(sigma_min=0.05), 1),
    ],
    ids=["Heun", "DpmSolver", "Ddim"],
)
def test_order_of_the_probability_flow(method, noise, order):
    counts = (32, 64, 128)
    sv.check_order(errors(method, noise, counts), counts, expected=order, tolerance=0.15).check()


def test_adaptive_flow_meets_the_closed_form():
    assert errors(lambda n: sv.ProbabilityFlow(rtol=1e-9, atol=1e-9), sv.VariancePreserving(), [0])[0] < 1e-7


WIDE = sv.VarianceExploding(1e-3, 1e3)


@pytest.mark.parametrize(
    ("scheme", "noise", "orders"), [(euler_maruyama, VE, (1, 2)), (exponential_heun, WIDE, (None, 3))]
)
def test_weak_orders_of_the_reverse_diffusion(scheme, noise, orders):
    """Mean and variance of a Gaussian obey recursions, so that the order shows without any sampling.

    With equal steps in log k the first error of the variance cancels over all levels, as `ReverseSde` derives; Heun's
    scheme has the exact mean, and a range so wide that none of its small levels is missing.
    """
    flow = Flow(sv.MixtureScore(jnp.array([1.5]), 0.7, noise), noise)
    high, low = noise.ratio_max(), noise.sigma_min

    def moments(steps):
        levels = ratio_levels(noise, steps, math.inf)

        def step(carry, level):
            mean, variance = carry

            def move(y, xi):
                return scheme(flow, xi, y, *level)

            a = jax.jacfwd(move, argnums=(0, 1))(mean, jnp.zeros(1))
            return (move(mean, jnp.zeros(1)), a[0] ** 2 @ variance + a[1][0] ** 2), None

        start = (jnp.array([1.5 + high]), jnp.array([high**2 + 0.49]))
        return jax.lax.scan(step, start, (levels[:-1], levels[1:]))[0]

    # The exact reverse diffusion takes N(m, v + K^2) to N(m, v + k^2), and a shift of the mean by K almost to zero.
    shift = (0.49 + low**2) / (0.49 + high**2) * high
    found = [moments(steps) for steps in (50, 100, 200)]
    errors = [[float(mean[0]) - 1.5 - shift, float(variance[0]) - 0.49 - low**2] for mean, variance in found]
    for of_moment, order in zip(np.abs(errors).T, orders, strict=True):
        if order is None:
            np.testing.assert_allclose(of_moment, 0, atol=1e-14)
        else:
            sv.check_order(of_moment, (50, 100, 200), expected=order).check()


def test_annealed_langevin_on_a_gaussian_is_as_wide_as_promised():
    """The recursion of the variance: 1 % too wide for the defaults and a range of 1000, and less for more steps."""
    noise = sv.VarianceExploding(0.01, 10.0)
    flow = Flow(sv.MixtureScore(jnp.zeros(1), 1.0, noise), noise)

    def deviation(method):
        def step(variance, k):
            a, b = jax.jacfwd(lambda y, xi: langevin(flow, xi, y, k, method.step), argnums=(0, 1))(
                jnp.zeros(1), jnp.zeros(1)
            )
            return a[0, 0] ** 2 * variance + b[0, 0] ** 2, None

        return float(jnp.sqrt(jax.lax.scan(step, jnp.asarray(100.0), method.levels(noise)["then"])[0]))

    assert abs(deviation(sv.AnnealedLangevin()) - 1.0095) < 1e-3
    assert abs(deviation(sv.AnnealedLangevin(20, 500)) - 1.001) < 1e-3


@pytest.mark.parametrize(
    "method",
    [
        sv.AnnealedLangevin(levels=40, steps=96),
        sv.PredictorCorrector(steps=512),
        pytest.param(sv.ReverseSde(steps=1024), marks=pytest.mark.slow),
        pytest.param(sv.ReverseSde(steps=64, order=2), marks=pytest.mark.slow),
        pytest.param(sv.Ddim(steps=384, eta=1.0), marks=pytest.mark.slow),
    ],
    ids=["AnnealedLangevin", "PredictorCorrector", "EulerMaruyama", "StochasticHeun", "Ancestral"],
)
def test_moments_and_weights_of_a_mixture(method):
    """Weights, means and covariances of the modes within 5 standard errors of 4000 samples."""
    score, count = sv.MixtureScore(MEANS, COVARIANCES, VE, WEIGHTS), 4000
    draws = sv.generate(score, VE, jax.random.key(1), shape=(count, 2), method=method)
    right = draws[:, 0] > 0  # wrong for less than 1e-3 of the draws of either mode
    assert abs(jnp.mean(right) - 0.7) < 5 * math.sqrt(0.3 * 0.7 / count)
    for mode, inside in enumerate((~right, right)):
        mine, n = draws[inside], int(inside.sum())
        assert bool(jnp.all(jnp.abs(mine.mean(axis=0) - MEANS[mode]) < 5 * jnp.sqrt(jnp.diag(COVARIANCES[mode]) / n)))
        c = COVARIANCES[mode]
        spread = jnp.sqrt((c**2 + jnp.outer(jnp.diag(c), jnp.diag(c))) / n)
        assert bool(jnp.all(jnp.abs(jnp.cov(mine.T) - c) < 5 * spread))


METHODS = [
    sv.PredictorCorrector(6, corrections=2),
    sv.Heun(6),
    sv.Ddim(6, eta=0.5),
    sv.DpmSolver(6),
    sv.ReverseSde(6),
    sv.AnnealedLangevin(3, 2),
    sv.ProbabilityFlow(rtol=1e-4),
]


@pytest.mark.parametrize(
    "method",
    [METHODS[0], *[pytest.param(m, marks=pytest.mark.slow) for m in METHODS[1:]]],
    ids=lambda m: type(m).__name__,
)
def test_a_sample_does_not_know_its_neighbours(method):
    """Alone, first of three or among eight, to round-off of programs of different shapes."""
    score = sv.MixtureScore(MEANS, COVARIANCES, VE, WEIGHTS)
    whole = sv.generate(score, VE, KEY, shape=(8, 2), method=method)
    part = sv.generate(score, VE, KEY, shape=(3, 2), method=method, first=4)
    np.testing.assert_allclose(part, whole[4:7], rtol=1e-11)
    assert len(np.unique(np.asarray(whole[:, 0]))) == 8


def test_precision_follows_what_is_given_and_no_value_traces_again():
    traces = []

    def score(x, sigma):
        traces.append(1)
        return -x / (1 + sigma**2)

    noise = sv.VarianceExploding(jnp.float32(0.1), jnp.float32(10.0))
    draws = sv.generate(score, noise, KEY, shape=(4, 2), method=sv.PredictorCorrector(5))
    assert draws.dtype == jnp.float32
    before = len(traces)
    other = sv.VarianceExploding(jnp.float32(0.2), jnp.float32(12.0))
    again = sv.generate(score, other, jax.random.key(3), shape=(4, 2), method=sv.PredictorCorrector(5, r=0.2))
    assert len(traces) == before and not np.allclose(draws, again)
    assert sv.generate(score, VE, KEY, shape=(4, 2), method=sv.Heun(2), dtype=jnp.float32).dtype == jnp.float32


DEVICES = """
import jax, jax.numpy as jnp, numpy as np
import solvers as sv
assert jax.device_count() == 2
noise = sv.VarianceExploding(0.05, 20.0)
score = sv.MixtureScore(jnp.array([[-3.0, 0.0], [3.0, 1.0]]), jnp.array([1.0, 0.5]), noise)
def draw(count):
    told = sv.LinearInverse(lambda x: x[:1], jnp.linspace(-3.0, 3.0, 7)[:count, None], 0.5)
    method = sv.PredictorCorrector(6)
    return sv.generate(score, noise, jax.random.key(0), shape=(count, 2), method=method, condition=told)
shared, alone = draw(6), draw(7)          # seven samples cannot be shared out equally, so one device has them all
assert len(shared.sharding.device_set) == 2 and len(alone.sharding.device_set) == 1
np.testing.assert_allclose(shared, alone[:6], rtol=1e-9)
first, start = jax.devices()[0], jnp.ones((6, 2))
plain = sv.generate(score, noise, jax.random.key(0), shape=(6, 2), start=start)
there = jax.device_put((score, start), first)
np.testing.assert_array_equal(plain, sv.generate(there[0], noise, jax.random.key(0), shape=(6, 2), start=there[1]))
"""


@pytest.mark.slow
def test_two_devices_are_one():
    """The same samples to round-off, with measurements of their own, shared out over two devices."""
    several = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    flags = {"XLA_FLAGS": several, "JAX_ENABLE_X64": "1"}
    done = subprocess.run(
        [sys.executable, "-c", DEVICES], capture_output=True, text=True, timeout=300, env={**os.environ, **flags}
    )
    assert done.returncode == 0, done.stderr


def test_the_path_starts_at_the_start_and_ends_at_the_end():
    score = sv.MixtureScore(MEANS, COVARIANCES, sv.VariancePreserving(), WEIGHTS)
    start = jax.random.normal(KEY, (2, 2))
    draws, path = sv.generate(
        score,
        score.noise,
        KEY,
        shape=(2, 2),
        start=start,
        denoise=False,
        with_path=True,
        method=sv.Heun(5),
    )
    assert path.shape == (2, 6, 2)
    np.testing.assert_allclose(path[:, 0], start)
    np.testing.assert_allclose(path[:, -1], draws, rtol=1e-12)


@pytest.mark.parametrize(
    "condition",
    [
        None,
        pytest.param(sv.Inpaint(jnp.array([2.0, 0.0]), jnp.array([True, False])), marks=pytest.mark.slow),
    ],
    ids=["free", "inpainting"],
)
def test_the_last_step_takes_all_noise_away(condition):
    """The mean of the data given where the steps ended; in inpainting of the unknown part, too."""
    noise = sv.VarianceExploding(0.4, 20.0)  # so much noise is left that nobody could overlook it
    score, k = sv.MixtureScore(MEANS, COVARIANCES, noise, WEIGHTS), noise.sigma_min
    given = dict(shape=(5, 2), method=sv.Ddim(4), condition=condition)
    noisy = sv.generate(score, noise, KEY, **given, denoise=False)
    clean = sv.generate(score, noise, KEY, **given)
    flow = Flow(score, noise) if condition is None else condition.guide(score, noise, jnp.array([2.0, 0.0]))
    expected = jax.vmap(lambda x: flow.denoise(x, k))(noisy)
    if condition is not None:
        expected = expected.at[:, 0].set(2.0)
    np.testing.assert_allclose(clean, expected, rtol=1e-9)
    assert float(jnp.abs(clean - noisy)[:, 1].min()) > 1e-3


def average(parameters, adjoint="auto"):
    means, sigma_max, step = parameters
    noise = sv.VarianceExploding(0.1, sigma_max)
    score = sv.MixtureScore(means, jnp.array([0.5, 0.8]), noise)
    method = sv.AnnealedLangevin(4, 3, step=step)
    return jnp.mean(sv.generate(score, noise, KEY, shape=(3, 2), method=method, adjoint=adjoint) ** 2)


def test_derivatives_through_generation():
    """Against central differences with the same noise: an error of about h^2 = 1e-8 and a round-off of 1e-11."""
    point = (MEANS, jnp.asarray(8.0), jnp.asarray(0.4))
    slope = jax.jit(jax.grad(average))(point)
    along = jax.tree.map(lambda x: jnp.cos(1.0 + jnp.arange(x.size)).reshape(x.shape), point)
    value = jax.jit(lambda h: average(jax.tree.map(lambda x, d: x + h * d, point, along)))
    h = 1e-4
    difference = (value(h) - value(-h)) / (2 * h)
    product = sum(float(jnp.sum(a * b)) for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(along), strict=True))
    assert abs(product) > 0.1 and abs(difference - product) < 1e-6 * abs(product)


@pytest.mark.slow
def test_checkpoints_change_no_derivative():
    point = (MEANS, jnp.asarray(8.0), jnp.asarray(0.4))
    slopes = [jax.jit(jax.grad(lambda p, how=how: average(p, how)))(point) for how in (sv.StoreAll(), sv.Checkpoint())]
    for a, b in zip(*map(jax.tree.leaves, slopes), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13)


@pytest.mark.slow
def test_checkpoints_keep_the_memory_of_a_gradient():
    """Of 1024 steps about 2 * 32 states instead of all of them."""

    def value(start, adjoint):
        score = sv.MixtureScore(MEANS, COVARIANCES, VE, WEIGHTS)
        draws = sv.generate(score, VE, KEY, shape=(64, 2), start=start, method=sv.ReverseSde(1024), adjoint=adjoint)
        return jnp.sum(draws**2)

    def temporary(adjoint):
        program = jax.jit(jax.grad(lambda start: value(start, adjoint))).lower(jnp.ones((64, 2))).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporary(sv.Checkpoint()) < 0.2 * temporary(sv.StoreAll())


def test_a_failed_sample_is_nan_and_its_derivative_too():
    def score(x, sigma):
        return jnp.where(x[0] > 0, jnp.nan, -x) / (1 + sigma**2)

    start = jnp.array([[1.0, 1.0], [-1.0, 1.0]])

    def total(start):
        return sv.generate(score, VE, KEY, shape=(2, 2), start=start, method=sv.Heun(3))

    draws = total(start)
    assert bool(jnp.all(jnp.isnan(draws[0]))) and bool(jnp.all(jnp.isfinite(draws[1])))
    slope = jax.grad(lambda s: jnp.sum(total(s)))(start)
    assert bool(jnp.all(jnp.isfinite(slope[1]))) and bool(jnp.isnan(slope[0]).any())
    short = sv.ProbabilityFlow(max_steps=2)
    assert bool(jnp.all(jnp.isnan(sv.generate(lambda x, s: -x / s, VE, KEY, shape=(2, 2), method=short))))


def test_what_is_wrong_is_said_at_the_door():
    def score(x, sigma):
        return -x

    for wrong, word in [
        (dict(shape=(4,)), "shape"),
        (dict(shape=(0, 2)), "at least 1"),
        (dict(start=jnp.ones((2, 2))), "shape of the samples"),
        (dict(start=jnp.full((3, 2), jnp.nan)), "must be finite"),
        (dict(first=-1), "first"),
        (dict(method=sv.ProbabilityFlow(), with_path=True), "path"),
        (dict(dtype=jnp.int32), "floating"),
    ]:
        with pytest.raises(ValueError, match=word):
            sv.generate(score, VE, KEY, **{"shape": (3, 2), **wrong})
    for wrong, word in [(dict(method=3), "method"), (dict(key=jnp.zeros(2)), "key"), (dict(noise=0.1), "noise")]:
        given = {"noise": VE, "key": KEY, **wrong}
        with pytest.raises(TypeError, match=word):
            sv.generate(score, given.pop("noise"), given.pop("key"), shape=(3, 2), **given)
    with pytest.raises(ValueError, match="no batch axis"):
        sv.generate(lambda x, sigma: x[None], VE, KEY, shape=(3, 2))
    for build, word in [
        (lambda: sv.Heun(0), "steps"),
        (lambda: sv.DpmSolver(5, rho=-1.0), "rho"),
        (lambda: sv.Ddim(5, eta=2.0), "eta"),
        (lambda: sv.ReverseSde(5, order=3), "order"),
        (lambda: sv.AnnealedLangevin(0, 5), "levels"),
        (lambda: sv.AnnealedLangevin(5, 5, step=2.5), "unstable"),
        (lambda: sv.PredictorCorrector(5, r=0.0), "positive"),
        (lambda: sv.ProbabilityFlow(rtol=-1.0), "rtol"),
        (lambda: sv.MixtureScore(MEANS, COVARIANCES[0], VE), "shape"),
        (lambda: sv.MixtureScore(MEAN, -COVARIANCE, VE), "positive"),
        (lambda: sv.generate(sv.MixtureScore(jnp.zeros(2), 1.0, VE), VE, KEY, shape=(4, 3)), "2 numbers"),
    ]:
        with pytest.raises(ValueError, match=word):
            build()


def test_exact_scores_are_gradients_of_normalised_densities():
    noise = sv.VariancePreserving()
    score = sv.MixtureScore(MEANS, COVARIANCES, noise, WEIGHTS)
    for t in (0.02, 0.3, 0.9):
        sigma, x = noise.sigma(t), jnp.array([0.4, 1.1])
        np.testing.assert_allclose(score(x, sigma), jax.jit(jax.grad(score.logdensity))(x, sigma), rtol=1e-9)
        line = jnp.linspace(-8, 8, 161)
        grid = jnp.stack(jnp.meshgrid(line, line), axis=-1).reshape(-1, 2)
        total = jnp.sum(jnp.exp(jax.jit(jax.vmap(score.logdensity, in_axes=(0, None)))(grid, sigma))) * 0.1**2
        assert abs(total - 1) < 1e-6
    draws = score.draw(KEY, 20000)
    mean = WEIGHTS @ MEANS
    assert bool(jnp.all(jnp.abs(draws.mean(axis=0) - mean) < 5 * draws.std(axis=0) / math.sqrt(20000)))
    assert eqx.tree_equal(score, sv.MixtureScore(MEANS, COVARIANCES, noise, WEIGHTS * 2), rtol=1e-12)
