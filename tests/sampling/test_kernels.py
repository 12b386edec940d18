"""Kernels with Metropolis correction keep their target; all kernels meet their contract."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

import solvers as sv

NEVER = {"log_uniform": jnp.asarray(-jnp.inf)}  # the number that decides, such that nothing is rejected


def half_square(x):
    return -0.5 * jnp.sum(x**2)


# ---- Acceptance ----


@pytest.mark.parametrize(("d", "h"), [(10, 0.63218), (100, 0.29343)])
def test_mala_has_its_acceptance_on_a_gaussian(d, h):
    """log alpha = -(h / 4) (|y|^2 - |x|^2) exactly, so that the mean acceptance is known for every d.

    Reversibility makes it 2 P(|y| < |x|). With y = (1 - h) x + sqrt(2 h) xi, |y|^2 - |x|^2 is a form in (x, xi) with a
    positive and a negative eigenvalue, d times each: the ratio of two chi-squared variables decides, of law F(d, d).
    It tends to 2 Phi(-sqrt(h^3 d / 8)) for large d.
    """
    count = 20000
    kernel = sv.Mala(half_square, step=h)

    @jax.jit
    def run(key):
        def one(key):
            place, noise = jax.random.split(key)
            x = jax.random.normal(place, (d,))
            xi = jax.random.normal(noise, (d,))
            y, info = kernel.move(kernel.init(x), {"normal": xi, **NEVER})
            ratio = -(h / 4) * (jnp.sum(y.position**2) - jnp.sum(x**2))
            return info.acceptance, jnp.minimum(ratio, 0.0)

        return jax.lax.map(one, jax.random.split(key, count), batch_size=2000)

    acceptance, exact = run(jax.random.key(0))
    # Sums of 100 squares near 100 and their products: a few hundred roundings.
    np.testing.assert_allclose(np.log(acceptance), exact, atol=1e-12)
    cross = (1 - h) * math.sqrt(2 * h)
    below, above = np.linalg.eigvalsh([[(1 - h) ** 2 - 1, cross], [cross, 2 * h]])
    theory = 2 * stats.f.cdf(-below / above, d, d)
    assert abs(theory - 2 * special.ndtr(-math.sqrt(h**3 * d / 8))) < 0.2 / d
    assert abs(np.mean(acceptance) - theory) < 5 * np.std(acceptance) / math.sqrt(count)


@pytest.mark.parametrize(("h", "leapfrog", "expected"), [(0.5, 3, 0.979491), (1.0, 2, 0.920833), (1.5, 1, 0.745848)])
def test_hmc_has_its_acceptance_on_a_gaussian(h, leapfrog, expected):
    """E[accept] = 1 - (2 / pi) atan(sqrt(mu / 2)), mu = (||M^L||_F^2 - 2) / 2, over stationary starts."""
    kernel, count = sv.Hmc(half_square, step=h, leapfrog=leapfrog), 200_000
    M = np.linalg.matrix_power(np.array([[1 - h**2 / 2, h], [-h * (1 - h**2 / 4), 1 - h**2 / 2]]), leapfrog)
    mu = (np.linalg.norm(M) ** 2 - 2) / 2
    theory = 1 - 2 / np.pi * np.arctan(np.sqrt(mu / 2))
    assert abs(theory - expected) < 6e-7
    starts = np.random.default_rng(0).normal(size=(2, count))

    @jax.jit
    @jax.vmap
    def run(x, w):
        return kernel.move(kernel.init(x), {"normal": w, **NEVER})[1].acceptance

    acceptance = np.asarray(run(*starts))
    gain = np.sum(starts**2, axis=0) / 2 - np.sum((M @ starts) ** 2, axis=0) / 2
    np.testing.assert_allclose(acceptance, np.exp(np.minimum(gain, 0.0)), atol=1e-12)
    assert abs(acceptance.mean() - theory) < 5 * acceptance.std() / math.sqrt(count)


# ---- The target is kept ----

SHAPE = 2.0  # x = log of a Gamma variable: skewed, with different tails


def log_gamma(x):
    return jnp.sum(SHAPE * x - jnp.exp(x))


def schemes(density):
    metric = sv.DiagonalMetric(jnp.asarray(0.7))
    return {
        "Mala": sv.Mala(density, step=0.8, metric=metric),
        "Mala, a wrong score": sv.Mala(density, step=0.8, score=lambda x: -1.5 * x),
        "Hmc": sv.Hmc(density, step=0.9, leapfrog=3, metric=metric),
        "Obabo": sv.Obabo(density, step=1.2, metropolis=True, metric=metric),
        "Baoab": sv.Baoab(density, step=1.2, metropolis=True),
        "Ubu": sv.Ubu(density, step=1.2, metropolis=True),
        "Nuts": sv.Nuts(density, step=0.9, doublings=4, metric=metric),
        # With respect to the prior N(0, 1) the density has the likelihood that makes up for it.
        "Pcn": sv.Pcn(lambda x: density(x) + 0.5 * jnp.sum(x**2), sv.IdentityMetric(), step=0.8),
        "InfinityMala": sv.InfinityMala(lambda x: density(x) + 0.5 * jnp.sum(x**2), sv.IdentityMetric(), step=0.8),
    }


SLOW = {"Nuts", "Baoab", "Ubu", "Mala, a wrong score"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in schemes(log_gamma)])
def test_a_corrected_kernel_keeps_its_target(name):
    """Independent exact draws, eight steps at a rough step size: four moments within five standard errors.

    Without the correction all of these step sizes miss at least one by more than twenty.
    """
    kernel, count = schemes(log_gamma)[name], 100_000 if name != "Nuts" else 20_000
    starts = np.log(np.random.default_rng(1).gamma(SHAPE, size=count))

    @jax.jit
    def run(key):
        @jax.vmap
        def one(x, key):
            state = kernel.init(x, jax.random.fold_in(key, 99))

            def step(state, n):
                state, info = kernel.step(jax.random.fold_in(key, n), state)
                return state, (info.acceptance, info.accepted)

            state, (acceptance, accepted) = jax.lax.scan(step, state, jnp.arange(8))
            return state.position, jnp.mean(acceptance), jnp.mean(accepted)

        return one(starts, jax.random.split(key, count))

    x, acceptance, accepted = map(np.asarray, run(jax.random.key(2)))
    assert 0.2 < acceptance.mean() < 0.995
    if name != "Nuts":  # which reports a mean over its trajectory, and moves nearly always
        assert abs(acceptance.mean() - accepted.mean()) < 5 * accepted.std() / math.sqrt(count) + 1e-12
    mean, variance = special.digamma(SHAPE), special.polygamma(1, SHAPE)
    third, fourth = special.polygamma(2, SHAPE), special.polygamma(3, SHAPE) + 3 * variance**2
    for power, exact in ((1, 0.0), (2, variance), (3, third), (4, fourth)):
        values = (x - mean) ** power
        assert abs(values.mean() - exact) < 5 * values.std() / math.sqrt(count), (power, values.mean(), exact)


def test_without_correction_the_same_steps_are_seen_to_be_wrong():
    """What the test above can see: the bias of one step size, twenty standard errors and more."""
    count = 100_000
    starts = np.log(np.random.default_rng(1).gamma(SHAPE, size=count))
    noise = np.random.default_rng(2).normal(size=(8, 3, count))
    kernel = sv.Obabo(log_gamma, step=1.2)

    @jax.jit
    @jax.vmap
    def run(x, xi):
        def step(state, xi):
            return kernel.move(state, {"normal": [xi[0], xi[1]]})[0], None

        start = eqx.tree_at(lambda s: s.velocity, kernel.init(x, jax.random.key(0)), xi[0, 2])
        return jax.lax.scan(step, start, xi)[0].position

    values = (np.asarray(run(starts, np.moveaxis(noise, 2, 0))) - special.digamma(SHAPE)) ** 2
    assert abs(values.mean() - special.polygamma(1, SHAPE)) > 20 * values.std() / math.sqrt(count)


# ---- float32 ----


def large_misfits(a, b, mode):
    """(kernel, start, noise) by name, for 200 000 residuals a + x b; at the start x is the mode."""
    dtype = a.dtype
    density = sv.LeastSquares(lambda x: a + x * b)
    logarithm = sv.Unconstrained(density, sv.Positive())
    push = jnp.asarray(3.0, dtype)
    plain = {"normal": push, "log_uniform": jnp.asarray(-jnp.inf, dtype)}
    h, time = 7.5e-6, 4.2e-3  # an overdamped step and a time step for a density of deviation 2.2e-3
    return {
        "Pcn": (sv.Pcn(density, sv.IdentityMetric(), step=h), mode, plain),
        "InfinityMala": (sv.InfinityMala(density, sv.IdentityMetric(), step=h), mode, plain),
        "Mala": (sv.Mala(density, step=h), mode, plain),
        "Hmc": (sv.Hmc(density, step=time, leapfrog=2), mode, plain),
        "Obabo": (sv.Obabo(density, step=time, friction=200.0, metropolis=True), mode, {**plain, "normal": [push] * 2}),
        "Mala, unconstrained": (sv.Mala(logarithm, step=h / 0.3**2), jnp.log(mode), plain),
    }


def test_ratios_of_large_misfits_keep_their_digits_in_float32():
    """200 000 residuals with a misfit near 9e7: the difference of two sums has no digit left, the product form has."""
    rng = np.random.default_rng(0)
    slope = rng.normal(size=200_000)
    offset = 30.0 * rng.normal(size=200_000) - 0.3 * slope
    mode = np.float32(-(slope @ offset) / (slope @ slope))

    @jax.jit
    def run(a, b, mode):
        told = {}
        for name, (kernel, x, noise) in large_misfits(a, b, mode).items():
            state = kernel.init(x, jax.random.key(0))
            if hasattr(state, "velocity"):
                state = eqx.tree_at(lambda s: s.velocity, state, jnp.asarray(1.0, a.dtype))
            end, info = kernel.move(state, noise)
            told[name] = jnp.log(info.acceptance), end.logdensity - state.logdensity, end.position
        return told

    def steps(dtype):
        return run(*(jnp.asarray(x, dtype) for x in (offset, slope, mode)))

    single, double = steps(jnp.float32), steps(jnp.float64)
    for name, (log_alpha, _, position) in single.items():
        assert log_alpha.dtype == position.dtype == jnp.float32 and float(position) != mode, name
        exact = float(double[name][0])
        assert -40 < exact < -2, (name, exact)
        # Residuals, 30 in size, are rounded by 1e-6 before the difference: 30 * 1.4e-6 * sqrt(2e5) = 0.02, five times.
        assert abs(float(log_alpha) - exact) < 0.1, (name, float(log_alpha), exact)
    # One unit in the last place of 9e7 is 8: without residuals none of them would do.
    naive = [abs(float(single[name][1]) - float(double[name][1])) for name in single]
    assert min(naive) > 0.3 and max(naive) > 1.0, naive


# ---- Contract ----


def pytree_density(x):
    return -0.5 * jnp.sum(x["a"] ** 2) - 0.5 * jnp.sum((x["b"] - 1.0) ** 2)


def minibatch(dtype):
    data = jnp.linspace(-1.0, 1.0, 20, dtype=dtype)
    return sv.Minibatch(pytree_density, lambda x, d: -0.5 * (x["b"] - d) ** 2, data, size=4)


def everything(dtype=jnp.float64):
    step, density = 0.1, pytree_density
    return {
        "Ula": sv.Ula(density, step=step),
        "Ula with a score": sv.Ula(score=jax.grad(density), step=step),
        "Tamed": sv.Tamed(density, step=step),
        "LeimkuhlerMatthews": sv.LeimkuhlerMatthews(density, step=step),
        "Mala": sv.Mala(density, step=step),
        "Baoab": sv.Baoab(density, step=step),
        "Ubu": sv.Ubu(density, step=step),
        "Obabo corrected": sv.Obabo(density, step=step, metropolis=True),
        "Ubu corrected": sv.Ubu(density, step=step, metropolis=True),
        "Hmc": sv.Hmc(density, step=step, leapfrog=3),
        "Nuts": sv.Nuts(density, step=step, doublings=3),
        "Pcn": sv.Pcn(density, sv.IdentityMetric(), step=step),
        "InfinityMala": sv.InfinityMala(density, sv.IdentityMetric(), step=step),
        "Sgld": sv.Sgld(minibatch(dtype), step=step),
        "PreconditionedSgld": sv.PreconditionedSgld(minibatch(dtype), step=step),
        "ParallelTempering": sv.ParallelTempering(sv.Mala(density, step=step), jnp.array([1.0, 0.5, 0.2])),
    }


def shapes(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize("name", everything())
def test_a_state_keeps_structure_shape_and_dtype(name, dtype):
    """So that a scan can carry it; Python numbers do not promote, pytrees are positions."""
    kernel = everything(dtype)[name]
    position = {"a": jnp.zeros((2, 3), dtype), "b": jnp.ones((), dtype)}
    key = jax.random.key(0)
    state = jax.eval_shape(kernel.init, position, key)
    new, info = jax.eval_shape(kernel.step, key, state)
    assert shapes(new) == shapes(state)
    there = jax.eval_shape(lambda: kernel.init(position, key).position)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), there) == jax.tree.map(lambda x: (x.shape, x.dtype), position)
    assert info.acceptance.dtype == dtype and info.accepted.dtype == bool and info.nonfinite.dtype == bool
    for field in ("acceptance", "accepted", "nonfinite", "divergent", "gradients"):
        assert getattr(info, field).shape == ()


def test_a_proposal_that_is_not_finite_is_rejected_and_counted():
    """A density that is NaN beyond x = 1, and noise that leads there: the chain stays where it is."""

    def broken(x):
        return jnp.where(x < 1.0, -0.5 * x**2, jnp.nan)

    push, prior = jnp.asarray(40.0), sv.IdentityMetric()
    corrected = {"normal": push, **NEVER}
    cases = [
        (sv.Ula(broken, step=0.1), push),
        (sv.Tamed(broken, step=0.1), push),
        (sv.LeimkuhlerMatthews(broken, step=0.1), push),
        (sv.Mala(broken, step=0.1), corrected),
        (sv.Hmc(broken, step=0.1, leapfrog=2), corrected),
        (sv.Pcn(broken, prior, step=0.1), corrected),
        (sv.InfinityMala(broken, prior, step=0.1), corrected),
        (sv.Baoab(broken, step=0.1), {"normal": [push]}),
        (sv.Obabo(broken, step=0.1, metropolis=True), {"normal": [push, push], **NEVER}),
        (sv.Ubu(broken, step=0.1, metropolis=True), {"normal": [push] * 4, **NEVER}),
    ]

    @jax.jit
    def run(x):
        return [kernel.move(kernel.init(x, jax.random.key(0)), noise) for kernel, noise in cases]

    for (kernel, _), (state, info) in zip(cases, run(jnp.asarray(0.5)), strict=True):
        assert float(state.position) == 0.5, kernel
        assert info.nonfinite and info.divergent and not info.accepted and float(info.acceptance) == 0.0, kernel
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))


def test_an_infinite_density_is_rejected_and_counted():
    """It would otherwise be accepted for certain, and never be left again."""

    def spike(x):
        return jnp.where(x < 1.0, -0.5 * x**2, jnp.inf)

    kernels = sv.Mala(spike, step=0.1), sv.Pcn(spike, sv.IdentityMetric(), step=0.1)
    noise = {"normal": jnp.asarray(40.0), **NEVER}
    for state, info in jax.jit(lambda x: [k.move(k.init(x), noise) for k in kernels])(jnp.asarray(0.5)):
        assert float(state.position) == 0.5 and info.nonfinite and not info.accepted and float(info.acceptance) == 0.0


def test_a_density_of_zero_is_an_ordinary_rejection():
    kernel = sv.Mala(lambda x: jnp.where(x > 0, -x, -jnp.inf), step=1.0)
    noise = {"normal": jnp.asarray(-5.0), **NEVER}
    state, info = jax.jit(lambda x: kernel.move(kernel.init(x), noise))(jnp.asarray(0.1))
    assert float(state.position) == 0.1 and not bool(info.accepted)
    assert not bool(info.nonfinite) and bool(info.divergent) and float(info.acceptance) == 0.0


def test_tamed_survives_where_ula_explodes():
    @jax.jit
    def walk(x):
        def quartic(x):
            return -0.25 * jnp.sum(x**4)

        kernels = sv.Tamed(quartic, step=0.05), sv.Ula(quartic, step=0.05)

        def step(states, xi):
            return [k.move(s, xi)[0] for k, s in zip(kernels, states, strict=True)], None

        noise = jax.random.normal(jax.random.key(1), (1000, 3))
        return [s.position for s in jax.lax.scan(step, [k.init(x) for k in kernels], noise)[0]]

    tamed, held = map(np.asarray, walk(jnp.full(3, 30.0)))
    assert np.all(np.abs(tamed) < 5.0)
    assert np.all(np.isfinite(held)) and np.any(np.abs(held) > 20.0)  # it is stopped where it stands


def test_tamed_is_its_formula_with_a_bias_of_first_order():
    """A step by hand; then the stationary variance on N(0, 1), from the transition density on a line.

    V = 1 + h (E|x|^3 + 1/2) + O(h^2), by the balance -2 E[x b] = 2 + h E[b^2] with b = -x + h x |x|.
    """
    kernel = sv.Tamed(half_square, step=0.3, metric=sv.DiagonalMetric(jnp.array([4.0, 0.25])))
    x, xi = jnp.array([1.0, -3.0]), jnp.array([0.4, -1.1])
    grid = jnp.linspace(-7.0, 7.0, 561)

    @jax.jit
    def run(x, xi, h):
        flat = sv.Tamed(half_square, step=h)
        means = jax.vmap(lambda x: flat.move(flat.init(x), jnp.zeros_like(x))[0].position)(grid)
        return kernel.move(kernel.init(x), xi)[0].position, means

    root, pull = np.array([2.0, 0.5]), np.array([-2.0, 1.5])
    by_hand = x + 0.3 * root * pull / (1 + 0.3 * np.linalg.norm(pull)) + math.sqrt(0.6) * root * xi
    np.testing.assert_allclose(run(x, xi, 0.1)[0], by_hand, rtol=1e-14)
    slopes = []
    for h in (0.02, 0.04):
        to, means = np.asarray(grid)[:, None], np.asarray(run(x, xi, h)[1])
        transition = np.exp(-((to - means) ** 2) / (4 * h))
        values, vectors = np.linalg.eig(transition / transition.sum(axis=0))
        law = np.real(vectors[:, np.argmax(np.real(values))])
        slopes.append((law @ np.asarray(grid) ** 2 / law.sum() - 1) / h)
    # Extrapolated to h = 0; what is left is of second order in h.
    assert abs(2 * slopes[0] - slopes[1] - (2 * math.sqrt(2 / math.pi) + 0.5)) < 0.05, slopes


def test_new_values_of_step_metric_and_density_trace_nothing():
    traces = []

    class Scaled(eqx.Module):
        width: jax.Array

        def __call__(self, x):
            traces.append(1)
            return -0.5 * jnp.sum((x / self.width) ** 2)

    @eqx.filter_jit
    def go(kernel, key, state):
        return kernel.step(key, state)

    def kernel(width, step, variance):
        return sv.Mala(Scaled(jnp.asarray(width)), step=step, metric=sv.DiagonalMetric(variance))

    first = kernel(1.0, 0.1, jnp.ones(2))
    state = first.init(jnp.ones(2))
    go(first, jax.random.key(0), state)
    before = len(traces)
    go(kernel(2.0, 0.3, jnp.array([1.0, 4.0])), jax.random.key(1), state)
    assert len(traces) == before


def test_hmc_with_one_step_is_mala():
    hmc, mala = sv.Hmc(log_gamma, step=0.6, leapfrog=1), sv.Mala(log_gamma, step=0.18)
    x, noise = jnp.array([0.3, -1.0]), {"normal": jnp.array([1.2, 0.4]), **NEVER}
    (a, told), (b, same) = hmc.move(hmc.init(x), noise), mala.move(mala.init(x), noise)
    np.testing.assert_allclose(a.position, b.position, rtol=1e-14)
    np.testing.assert_allclose(told.acceptance, same.acceptance, rtol=1e-13)


# ---- Minibatches ----


def test_a_minibatch_estimate_is_unbiased_and_the_anchor_takes_its_noise():
    data = jnp.asarray(np.random.default_rng(0).normal(size=(40, 2)))
    posterior = sv.Minibatch(half_square, lambda x, d: -jnp.sum(jnp.cosh(x - d)), data, size=5)
    x = jnp.array([0.2, -0.1])

    @eqx.filter_jit
    def estimates(posterior, x):
        return jax.vmap(lambda k: posterior.score(x, posterior.draw(k)))(jax.random.split(jax.random.key(0), 5000))

    plain, anchored = estimates(posterior, x), estimates(posterior.anchored(x + 0.01), x)
    exact = np.asarray(jax.jit(jax.grad(lambda x: posterior(x)))(x))
    for told in map(np.asarray, (plain, anchored)):
        assert np.all(np.abs(told.mean(0) - exact) < 5 * told.std(0) / math.sqrt(5000))
    assert np.all(np.std(anchored, 0) < 0.05 * np.std(plain, 0))
    np.testing.assert_allclose(jax.jit(lambda x: posterior.score(x, jnp.arange(40)))(x), exact, rtol=1e-12)


def test_sgld_widens_by_the_noise_of_its_estimate():
    """On a Gaussian with precision P and estimate variance V: variance (1 + h V / 2) / (P (1 - h P / 2))."""
    data = jnp.asarray(np.random.default_rng(0).normal(size=20))
    posterior = sv.Minibatch(lambda x: -0.5 * x**2, lambda x, d: -0.5 * (x - d) ** 2, data, size=4)
    P, V, h = 21.0, 20**2 / 4 * float(jnp.var(data)), 0.01
    kernel = sv.Sgld(posterior, step=h)

    @jax.jit
    def run(key):
        def one(key):
            step = lambda s, n: (kernel.step(jax.random.fold_in(key, n), s)[0], None)  # noqa: E731
            return jax.lax.scan(step, kernel.init(jnp.asarray(0.0), key), jnp.arange(30))[0].position

        return jax.vmap(one)(jax.random.split(key, 10_000))

    x = run(jax.random.key(3))
    expected = (1 + h * V / 2) / (P * (1 - h * P / 2))
    # Started from a point: 30 steps leave (1 - h P)^60 = 7e-7 of it. Five standard errors of a variance.
    assert abs(float(jnp.var(x)) / expected - 1) < 5 * math.sqrt(2 / 10_000)
    assert abs(float(jnp.mean(x)) - float(jnp.sum(data)) / P) < 5 * math.sqrt(expected / 10_000)


class Known(eqx.Module):
    """The score of a Gaussian of deviations 1/2 and 3, as an estimate without noise."""

    def draw(self, key):
        return jnp.asarray(0)

    def score(self, x, batch):
        return -x / jnp.array([0.25, 9.0])


def test_preconditioned_sgld_is_its_formula():
    """Two steps by hand: V follows the squares of the scores, G = 1 / (floor + V^(1/2))."""
    kernel = sv.PreconditionedSgld(Known(), step=0.03, memory=0.9, floor=0.2)
    x, noise = np.array([1.0, -3.0]), np.array([[0.4, -1.1], [-0.2, 0.7]])

    @jax.jit
    def run(x, noise):
        first = kernel.init(x, jax.random.key(0))
        second, _ = kernel.move(first, {"batch": 0, "normal": noise[0]})
        third, _ = kernel.move(second, {"batch": 0, "normal": noise[1]})
        return first, second, third

    variances = np.array([0.25, 9.0])
    square = (x / variances) ** 2
    for state, xi in zip(run(x, noise), [None, *noise], strict=True):
        if xi is not None:
            g = -x / variances
            square = 0.9 * square + 0.1 * g**2
            G = 1 / (0.2 + np.sqrt(square))
            x = x + 0.03 * G * g + np.sqrt(2 * 0.03 * G) * xi
        np.testing.assert_allclose(state.position, x, rtol=1e-14)
        np.testing.assert_allclose(state.square, square, rtol=1e-14)


def test_preconditioned_sgld_with_a_constant_metric_has_the_variance_of_its_chain():
    """Where `floor` outweighs all scores, G = 1 / floor: s^2 / (1 - h G / (2 s^2)) as for `Ula`."""
    floor, count = 1e6, 10_000
    kernel = sv.PreconditionedSgld(Known(), step=0.1 * floor, floor=floor)

    @jax.jit
    def run(key):
        def one(key):
            step = lambda s, n: (kernel.step(jax.random.fold_in(key, n), s)[0], None)  # noqa: E731
            return jax.lax.scan(step, kernel.init(jnp.zeros(2), key), jnp.arange(25))[0].position[0]

        return jax.vmap(one)(jax.random.split(key, count))

    # Started from a point: 25 steps leave (1 - 0.4)^50 = 8e-12 of it. Five standard errors of a variance.
    expected = 0.25 / (1 - 0.1 / (2 * 0.25))
    assert abs(float(jnp.var(run(jax.random.key(3)))) / expected - 1) < 5 * math.sqrt(2 / count)


# ---- Bad input ----


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match="`step` must be positive"):
        sv.Mala(half_square, step=0.0)
    with pytest.raises(TypeError, match="needs `logdensity`"):
        sv.Baoab(score=lambda x: -x, step=0.1, metropolis=True)
    with pytest.raises(TypeError, match="neither"):
        sv.Ula(step=0.1)
    with pytest.raises(TypeError, match="metric"):
        sv.Mala(half_square, step=0.1, metric=jnp.ones(3))
    with pytest.raises(ValueError, match="same backwards"):
        sv.Kinetic(half_square, scheme="OBA", step=0.1, metropolis=True)
    with pytest.raises(ValueError, match="word"):
        sv.Kinetic(half_square, scheme="BAB", step=0.1)
    with pytest.raises(TypeError, match="floating numbers, got dtype int"):
        sv.Mala(half_square, step=0.1).init(jnp.arange(3))
    with pytest.raises(TypeError, match="float32 or float64, got dtype bfloat16"):
        sv.Mala(half_square, step=0.1, metric=sv.DiagonalMetric(jnp.ones(3))).init(jnp.ones(3, jnp.bfloat16))
    with pytest.raises(ValueError, match=r"one real number.*\(3,\)"):
        sv.Mala(lambda x: -0.5 * x**2, step=0.1).init(jnp.ones(3))
    with pytest.raises(ValueError, match="not finite at the start"):
        sv.Mala(lambda x: jnp.sum(jnp.log(x)), step=0.1).init(-jnp.ones(3))
    with pytest.raises(ValueError, match="structure and shapes"):
        sv.Ula(score=lambda x: -x[:2], step=0.1).init(jnp.ones(3))
    with pytest.raises(ValueError, match="target_acceptance"):
        sv.Mala(half_square, step=0.1, target_acceptance=1.5)
    with pytest.raises(ValueError, match="variance"):
        sv.DiagonalMetric(jnp.array([1.0, -1.0]))
    with pytest.raises(ValueError, match="1 \\+ values"):
        sv.LowRankMetric(jnp.eye(2), jnp.array([0.0, -1.0]))
    with pytest.raises(ValueError, match="fall from 1"):
        sv.ParallelTempering(sv.Mala(half_square, step=0.1), jnp.array([1.0, 1.0]))


def test_without_blackjax_nuts_says_what_to_do(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "blackjax.mcmc", None)
    with pytest.raises(ImportError, match="pip install blackjax"):
        sv.Nuts(half_square, step=0.1)
