"""Derivatives of samples: pathwise against the same run with other numbers, stationary ones against closed forms."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv


class Bent(eqx.Module):
    """A log-concave density that is not Gaussian, with a parameter."""

    stiffness: jax.Array

    def __call__(self, x):
        return -0.5 * self.stiffness * jnp.sum(x**2) - 0.1 * jnp.sum(jnp.cosh(x))


def average(parameters, adjoint="auto"):
    stiffness, step, start = parameters
    kernel = sv.Baoab(Bent(stiffness), step=step)
    run = sv.pathwise(kernel, jax.random.key(0), start, steps=30, adjoint=adjoint, observe=lambda x: x**2)
    return jnp.mean(run.observed)


PARAMETERS = (jnp.asarray(1.3), jnp.asarray(0.4), jnp.asarray([[0.2, -0.3], [1.0, 0.5]]))


def test_pathwise_derivatives_are_those_of_the_run():
    """Against central differences with the same noise: an error of about h^2 = 1e-8 and a round-off of 1e-11."""
    slope = jax.jit(jax.grad(average))(PARAMETERS)
    along = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape), PARAMETERS)
    value = jax.jit(lambda h: average(jax.tree.map(lambda x, d: x + h * d, PARAMETERS, along)))
    h = 1e-4
    difference = (value(h) - value(-h)) / (2 * h)
    product = sum(float(jnp.sum(a * b)) for a, b in zip(jax.tree.leaves(slope), jax.tree.leaves(along), strict=True))
    assert abs(product) > 0.1 and abs(difference - product) < 1e-6


@pytest.mark.slow
def test_checkpoints_change_no_derivative_and_closures_are_seen():
    whole = jax.tree.leaves(jax.grad(lambda p: average(p, sv.StoreAll()))(PARAMETERS))
    again = jax.tree.leaves(jax.grad(lambda p: average(p, sv.Checkpoint()))(PARAMETERS))
    for a, b in zip(whole, again, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15)

    def closure(stiffness):
        kernel = sv.Baoab(lambda x: Bent(stiffness)(x), step=PARAMETERS[1])
        run = sv.pathwise(kernel, jax.random.key(0), PARAMETERS[2], steps=30, observe=lambda x: x**2)
        return jnp.mean(run.observed)

    for value in (1.3, 0.9):
        slope = jax.grad(closure)(jnp.asarray(value))
        expected = jax.grad(lambda s: average((s, *PARAMETERS[1:])))(jnp.asarray(value))
        np.testing.assert_allclose(slope, expected, rtol=1e-12)


def test_pathwise_chains_are_those_of_sample():
    kernel = sv.LeimkuhlerMatthews(Bent(PARAMETERS[0]), step=0.3)
    run = sv.sample(kernel, jax.random.key(7), PARAMETERS[2], steps=20)
    same = sv.pathwise(kernel, jax.random.key(7), PARAMETERS[2], steps=20)
    np.testing.assert_allclose(same.observed, run.draws, rtol=1e-13, atol=1e-14)
    np.testing.assert_array_equal(same.final, same.observed[:, -1])


def test_the_reverse_sweep_keeps_few_states():
    """A thousand steps of 1000 unknowns: temporary memory of the compiled gradient, bytes."""
    steps, d = 1000, 1000

    def loss(start):
        run = sv.pathwise(
            sv.Ula(lambda x: -0.5 * jnp.sum(x**2), step=0.1), jax.random.key(0), start, steps=steps, every=steps
        )
        return jnp.sum(run.final**2)

    start = jax.ShapeDtypeStruct((1, d), jnp.float64)
    room = jax.jit(jax.grad(loss)).lower(start).compile().memory_analysis().temp_size_in_bytes
    # sqrt(1000) = 32 states of two arrays, position and score, and what the 32 steps between two of them leave, at most
    # eight arrays each; one pass over all steps would keep 2000 arrays and more.
    assert room < 32 * (2 + 8) * 8 * d, room / (8 * d)


def test_sensitivity_of_a_gaussian():
    """x ~ N(m, s^2 I): d E[x^2] / d (m, s) = (2 m, 2 s), d E[x] / d m = 1, all within four standard errors."""
    theta = {"m": 0.7, "s": 1.5}
    draws = 0.7 + 1.5 * jax.random.normal(jax.random.key(0), (4, 20_000))

    def logdensity(x, theta):
        return -0.5 * ((x - theta["m"]) / theta["s"]) ** 2

    told = sv.sensitivity(lambda x: {"first": x, "second": x**2}, logdensity, draws, theta)
    exact = {"first": {"m": 1.0, "s": 0.0}, "second": {"m": 1.4, "s": 3.0}}
    for f, values in exact.items():
        for name, value in values.items():
            gap, error = told.value[f][name] - value, told.error[f][name]
            assert abs(gap) < 4 * error and error < 0.05, (f, name)
    np.testing.assert_allclose(told.mean["first"], np.mean(draws), rtol=1e-12)


def test_the_standard_error_of_a_sensitivity_sees_correlation():
    """Draws of an autoregressive chain: z-scores over many repetitions have deviation one, not five."""
    rho, runs, length = 0.9, 60, 4000
    xi = np.random.default_rng(0).normal(size=(length, runs))
    x = np.zeros((length, runs))
    x[0] = xi[0]
    for n in range(1, length):
        x[n] = rho * x[n - 1] + np.sqrt(1 - rho**2) * xi[n]

    def one(draws):
        told = sv.sensitivity(lambda x: x**2, lambda x, s: -0.5 * (x / s) ** 2, draws[None], jnp.asarray(1.0))
        return (told.value - 2.0) / told.error

    z = np.asarray(jax.vmap(one)(jnp.asarray(x.T)))
    # The deviation of 60 numbers is known to 9 %; 20 batches make their errors 16 % noisy.
    assert 0.7 < z.std() < 1.6


def test_wrong_input_is_named():
    with pytest.raises(TypeError, match="accepts and rejects"):
        sv.pathwise(sv.Mala(Bent(jnp.asarray(1.0)), step=0.1), jax.random.key(0), jnp.ones(2), steps=3)
    import blackjax

    foreign = blackjax.mala(Bent(jnp.asarray(1.0)), 0.1)
    with pytest.raises(TypeError, match="accepts and rejects"):
        sv.pathwise(foreign, jax.random.key(0), jnp.ones((2, 1)), steps=3)
    with pytest.raises(ValueError, match="batches"):
        sv.sensitivity(lambda x: x, lambda x, t: -t * x**2, jnp.ones((2, 30)), 1.0)
    with pytest.raises(ValueError, match="leading axes"):
        sv.sensitivity(lambda x: x, lambda x, t: -t * x**2, jnp.ones(30), 1.0)
