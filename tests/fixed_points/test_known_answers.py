"""Values and derivatives of equations with known answers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

from . import oracles

C = (0.9, 0.99, 0.9999)
H_START = jnp.ones(100)
TIGHT = {"rtol": 1e-13, "atol": 1e-13}


def solve_h(method):
    """One compilation for all c: (solution, d mean / dc)."""

    def both(c):
        def mean(c):
            found = sv.fixed_point(oracles.h_map, H_START, c, method=method, max_steps=5000, **TIGHT)
            return found.value.mean(), found

        (_, found), slope = jax.value_and_grad(mean, has_aux=True)(c)
        return found, slope

    return jax.jit(both)


# An absolute error e of the solution moves the derivative by about e / (1 - c)^(3/2) times the closeness of the fold.
@pytest.mark.parametrize("method", [sv.Picard(), sv.Newton()], ids=["Picard", "Newton"])
def test_h_equation_physical_root(method):
    solve = solve_h(method)
    for c in C:
        found, slope = solve(c)
        assert int(found.code) == sv.Status.CONVERGED
        # A residual of 1e-12 is an error of 1e-12 / sqrt(1 - c).
        np.testing.assert_allclose(found.value.mean(), oracles.h_mean(c), rtol=4e-12 / (1 - c) ** 0.5)
        np.testing.assert_allclose(slope, oracles.h_mean_slope(c), rtol=4e-12 / (1 - c))
    # Evaluations of Picard are known: 37 to 41, 108 to 121, 876 to 1004 to 1e-12.
    if isinstance(method, sv.Picard):
        assert 876 < int(found.stats.evaluations) < 1200


def test_h_equation_a_jump_to_the_other_root_is_flagged():
    """Anderson acceleration leaves the physical root where the two are near; the status tells, the value shows."""
    solve = solve_h(sv.Anderson())
    for c in C:
        found, slope = solve(c)
        mean = float(found.value.mean())
        jumped = abs(mean - oracles.h_other_mean(c)) < abs(mean - oracles.h_mean(c))
        assert int(found.code) == (sv.Status.UNSTABLE if jumped else sv.Status.CONVERGED)
        assert (float(found.stats.spectral_radius) > 1) == jumped
        # The derivative is that of the root which was found: the other one has the other sign of the square root.
        root = (1 - c) ** 0.5 * (-1 if jumped else 1)
        np.testing.assert_allclose(slope, -2 / c**2 * (1 - root) + 1 / (c * root), rtol=1e-7)
    assert jumped


@pytest.mark.slow
def test_h_equation_the_other_root_by_newton():
    """Started far above, Newton finds the root without physical meaning, and says that the map would leave it."""
    c = 0.9
    found = sv.fixed_point(oracles.h_map, 7.5 * H_START, c, method=sv.Newton(), **TIGHT)
    np.testing.assert_allclose(found.value.mean(), oracles.h_other_mean(c), rtol=1e-9)
    assert found.status is sv.Status.UNSTABLE


@pytest.mark.slow
def test_bratu_1d_value_and_derivative_of_second_order():
    errors = []
    for n in (15, 31, 63):

        def middle(parameter, n=n):
            return sv.root(oracles.bratu_1d, jnp.zeros(n), parameter, method=sv.Newton(), rtol=0.0, atol=1e-12).value[
                n // 2
            ]

        value, slope = jax.jit(jax.value_and_grad(middle))(2.0)
        exact = oracles.bratu_1d_middle(2.0)
        errors.append([abs(float(value) - exact[0]), abs(float(slope) - exact[1])])
    rates = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    np.testing.assert_allclose(rates, 2, atol=0.15)


@pytest.mark.slow
def test_bratu_1d_beyond_the_fold_has_no_solution():
    found = sv.root(oracles.bratu_1d, jnp.zeros(31), oracles.BRATU_FOLD + 0.1, method=sv.Newton(), max_steps=200)
    assert not found.status.ok


@pytest.mark.parametrize("n", [15, pytest.param(31, marks=pytest.mark.slow), pytest.param(63, marks=pytest.mark.slow)])
def test_bratu_2d(n):
    def solve(parameter):
        return sv.root(oracles.bratu_2d, jnp.zeros((n, n)), parameter, rtol=0.0, atol=1e-12)

    solve = jax.jit(solve)
    for parameter in (1.0, 6.0):
        found = solve(parameter)
        assert int(found.code) == sv.Status.CONVERGED
        # To the digits of the table.
        np.testing.assert_allclose(jnp.max(found.value), oracles.BRATU_2D[n, parameter], atol=1e-11)
    assert int(found.stats.iterations) <= 8


@pytest.mark.slow
def test_kinlaplace():
    found = sv.root(oracles.kinlaplace, jnp.zeros((31, 31)), rtol=0.0, atol=1e-11).check()
    np.testing.assert_allclose(found.value[15, 15], oracles.KINLAPLACE_CENTRE, atol=1e-10)
    np.testing.assert_allclose(found.value[0, 0], 0.00405, atol=5e-6)


def test_kinsol_analytic_example():
    """The errors that KINSOL prints belong to the iterate before the last update."""
    tolerance = oracles.KINSOL_TOLERANCE
    # Its norm is the largest element: sqrt(3) times smaller than ours at most; here the same iterate meets both.
    found = sv.fixed_point(
        oracles.kinsol_map, jnp.asarray(oracles.KINSOL_START), method=sv.Picard(), rtol=0.0, atol=tolerance
    ).check()
    printed = [6.911e-12, 4.482e-7, 3.0746e-7]
    # Half a unit of the last digit that is printed; the third is 3.07455e-7 here, 1.6e-5 of it from what is printed.
    half = [5e-16, 5e-11, 5.1e-12]
    assert np.all(np.abs(np.abs(found.value - oracles.KINSOL_SOLUTION) - np.array(printed)) <= half)


def test_layer_of_an_equilibrium_model():
    """Gradient of a loss by all weights against the dense formula."""
    n = 40
    weights = oracles.deq_weights(jax.random.key(0), n, 0.97)
    inputs = jax.random.normal(jax.random.key(1), (n,))

    def loss(weights):
        found = sv.fixed_point(oracles.deq_cell, jnp.zeros(n), weights, inputs, rtol=1e-13, atol=1e-13)
        return jnp.sum(found.value**2) / 2, found.value

    (_, y), slope = jax.jit(jax.value_and_grad(loss, has_aux=True))(weights)
    s = 1 - y**2
    adjoint = np.linalg.solve((np.eye(n) - s[:, None] * weights).T, y)
    np.testing.assert_allclose(slope, (s * adjoint)[:, None] * y, atol=1e-10 * float(jnp.abs(slope).max()))
