"""Batches under `vmap`: members that are done stop costing, and each has its own answer, status and derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

from .oracles import deq_cell, deq_weights

SAMPLES, N = 64, 16
GAINS = jnp.linspace(0.3, 0.999, SAMPLES)
# Symmetric and positive, so that the gain is the rate; pushed so little that tanh does not saturate.
SQUARE = deq_weights(jax.random.key(0), N, 1.0)
WEIGHTS = SQUARE @ SQUARE.T
PUSH = 1e-4 * jax.random.normal(jax.random.key(1), (SAMPLES, N))


def solve(gain, push, f=deq_cell):
    choices = {"method": sv.Picard(), "rtol": 1e-5, "atol": 0.0, "max_steps": 5000, "stability": 0}
    return sv.fixed_point(f, jnp.zeros(N), gain * WEIGHTS, push, **choices)


def test_a_batch_costs_little_more_than_its_members():
    """A plain `vmap` of a while loop runs all of them until the slowest is done."""
    work = [0]

    def note(_):
        work[0] += 1

    def counted(y, weights, push):
        jax.debug.callback(note, y[0])
        return deq_cell(y, weights, push)

    found = jax.jit(jax.vmap(lambda g, p: solve(g, p, f=counted)))(GAINS, PUSH)
    jax.effects_barrier()
    found.check()
    own = np.asarray(found.stats.evaluations)
    # What the plain loop would take; the sum over the members is all that is needed.
    assert own.max() * SAMPLES > 150_000
    assert own.sum() <= work[0] <= 2 * own.sum()
    assert work[0] <= 9000


def test_members_are_those_of_a_loop():
    few = slice(None, None, 9)
    batch = jax.jit(jax.vmap(solve))(GAINS[few], PUSH[few])
    alone = jax.jit(solve)
    for i, (gain, push) in enumerate(zip(GAINS[few], PUSH[few], strict=True)):
        one = alone(gain, push)
        assert int(one.stats.iterations) == int(batch.stats.iterations[i])
        # A product of matrices may round in another order than the same one of a matrix and a vector.
        np.testing.assert_allclose(batch.value[i], one.value, rtol=0, atol=1e-14)


def test_derivatives_through_the_batch():
    """Square roots by Heron's iteration, whose plain form converges in a few steps."""

    def root(a):
        choices = {"method": sv.Picard(), "stability": 0, "rtol": 1e-14, "atol": 0.0}
        return sv.fixed_point(lambda x, a: 0.5 * (x + a / x), 1.0, a, **choices).value

    a = jnp.array([2.0, 9.0, 30.0])
    np.testing.assert_allclose(jax.jit(jax.vmap(jax.grad(root)))(a), 0.5 * a**-0.5, rtol=1e-12)
    outside = jax.jit(jax.grad(lambda a: jnp.sum(jax.vmap(root)(a))))
    np.testing.assert_allclose(outside(a), 0.5 * a**-0.5, rtol=1e-12)


def test_steady_states_of_a_batch():
    """x + 0.1 (a - x^3) rests at the cube root of a, and d a^(1/3) / da = a^(-2/3) / 3."""

    def rest(a):
        return sv.steady_state(lambda x, a: x + 0.1 * (a - x**3), 1.0, a, rtol=1e-12, atol=0.0, stability=0).value

    a = jnp.array([0.7, 1.0, 2.0])
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(rest)))(a)
    # The residual is 0.1 * 3 x^2 times the error.
    np.testing.assert_allclose(values, np.cbrt(a), rtol=1e-11)
    np.testing.assert_allclose(slopes, np.cbrt(a) ** -2 / 3, rtol=1e-10)


def test_failures_stay_with_their_member():
    def solved(a):
        found = sv.fixed_point(lambda x, a: a * x + 1.0, 0.0, a, method=sv.Picard(), max_steps=200)
        return found.value, found

    slopes, found = jax.vmap(jax.grad(solved, has_aux=True))(jnp.array([0.5, 2.0, 0.9999]))
    statuses = [sv.Status.CONVERGED, sv.Status.DIVERGED, sv.Status.MAX_STEPS]
    assert [int(c) for c in found.code] == statuses
    np.testing.assert_allclose(slopes[0], 4, rtol=1e-7)
    assert np.isnan(np.asarray(slopes[1:])).all()
    with pytest.raises(sv.SolverError, match="2 of 3 batch entries"):
        found.check()
