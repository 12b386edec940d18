"""Derivatives of solutions by the implicit function theorem, for solvers of the user's own."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import solvers as sv


def heron(x0, a):
    return jax.lax.fori_loop(0, 30, lambda _, x: 0.5 * (x + a / x), x0)


square_root = sv.implicit(lambda x, a: x * x - a)(heron)
A = jnp.array([2.0, 9.0])
X0 = jnp.ones(2)


def test_every_mode_and_order():
    first, second, third = 0.5 * A**-0.5, -0.25 * A**-1.5, 0.375 * A**-2.5

    def total(a):
        return jnp.sum(square_root(X0, a))

    np.testing.assert_allclose(square_root(X0, A), A**0.5, rtol=1e-15)
    np.testing.assert_allclose(jax.grad(total)(A), first, rtol=1e-14)
    np.testing.assert_allclose(jax.jvp(total, (A,), (jnp.ones(2),))[1], jnp.sum(first), rtol=1e-14)
    for outer in (jax.jacfwd, jax.jacrev):
        for inner in (jax.jacfwd, jax.jacrev):
            np.testing.assert_allclose(jnp.diag(outer(inner(total))(A)), second, rtol=1e-13)
    np.testing.assert_allclose(jax.grad(jax.grad(jax.grad(lambda a: square_root(1.0, a))))(2.0), third[0], rtol=1e-12)
    gradient = jax.jit(jax.vmap(jax.grad(lambda a: square_root(1.0, a))))(A)
    np.testing.assert_allclose(gradient, first, rtol=1e-14)
    assert not np.any(jax.grad(lambda x0: jnp.sum(square_root(x0, A)))(X0))


def test_a_solver_on_the_host():
    @sv.implicit(lambda x, a: x**3 + x - a, host=True)
    def newton(x0, a):
        assert isinstance(x0, np.ndarray)
        return scipy.optimize.newton(lambda x: x**3 + x - a, x0, tol=1e-14)

    truth = 1 / (3 * 1.0**2 + 1)
    for gradient in (jax.grad(newton, 1), jax.jit(jax.grad(newton, 1)), jax.jacfwd(newton, 1)):
        np.testing.assert_allclose(gradient(0.5, 2.0), truth, rtol=1e-10)
    np.testing.assert_allclose(jax.vmap(jax.grad(newton, 1), (None, 0))(0.5, jnp.array([2.0, 10.0])), [truth, 1 / 13])


def test_captured_traced_values_and_aux():
    def loss(c):
        solver = sv.implicit(lambda x, a: x * x - a * c, has_aux=True)(lambda x0, a: (heron(x0, a * c), 7))
        x, aux = solver(1.0, 3.0)
        return x, aux

    (gradient, aux), hessian = jax.grad(loss, has_aux=True)(2.0), jax.hessian(lambda c: loss(c)[0])(2.0)
    np.testing.assert_allclose([gradient, hessian], [np.sqrt(3 / 8), -0.25 * np.sqrt(3) * 2**-1.5], rtol=1e-13)
    assert aux == 7


def test_a_solver_that_failed_has_no_derivative():
    lazy = sv.implicit(lambda x, a: x * x - a, tolerance=1e-6)(lambda x0, a: x0 + 0 * a)
    assert np.isnan(jax.grad(lazy, 1)(1.0, 2.0)) and np.isnan(jax.jvp(lazy, (1.0, 2.0), (0.0, 1.0))[1])
    assert np.isfinite(jax.grad(lazy, 1)(1.0, 1.0))
    # At the fold x = 0 the Jacobian is singular.
    assert np.isnan(jax.grad(sv.implicit(lambda x, a: x * x - a)(lambda x0, a: x0), 1)(0.0, 0.0))


def test_krylov_series_and_one_step():
    matrix = 0.3 * jnp.array([[1.0, 0.5], [-0.2, 0.7]])

    def gradient(adjoint):
        solver = sv.implicit(lambda x, b: x - matrix @ x - b, adjoint=adjoint)
        return jax.grad(lambda b: solver(lambda x0, b: jnp.linalg.solve(jnp.eye(2) - matrix, b))(X0, b) @ A)(X0)

    exact = jnp.linalg.solve(jnp.eye(2) - matrix.T, A)
    np.testing.assert_allclose(gradient(sv.Adjoint()), exact, rtol=1e-13)
    np.testing.assert_allclose(gradient(sv.Adjoint(linear=sv.BiCgStab(), tolerance=1e-12)), exact, rtol=1e-11)
    np.testing.assert_allclose(gradient(sv.Adjoint(mode="one_step")), A, rtol=1e-15)
    series = A + matrix.T @ (A + matrix.T @ A)
    np.testing.assert_allclose(gradient(sv.Adjoint(mode="neumann", terms=2)), series, rtol=1e-14)


def test_an_adjoint_that_misses_its_tolerance_is_nan():
    matrix = jnp.diag(jnp.linspace(1.0, 1e6, 40))
    solver = sv.implicit(lambda x, b: matrix @ x - b, adjoint=sv.Adjoint(linear=sv.Gmres(max_steps=5)))
    solve = solver(lambda x0, b: b / jnp.diag(matrix))
    assert bool(jnp.all(jnp.isnan(jax.grad(lambda b: jnp.sum(solve(b, b)))(jnp.ones(40)))))


@pytest.mark.parametrize(
    "call",
    [
        lambda: sv.Adjoint(mode="magic"),
        lambda: sv.Adjoint(linear="lu"),
        lambda: sv.Adjoint(tolerance=2.0),
        lambda: sv.implicit(lambda x: x, adjoint=sv.Adjoint(mode="unroll")),
        lambda: sv.implicit(lambda x: x[:1])(lambda x0: x0)(X0),
    ],
)
def test_wrong_input_is_told(call):
    with pytest.raises(ValueError):
        call()


# The door as users have it: without the checks of annotations that the tests switch on.
unchecked = inspect.unwrap(sv.implicit)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: unchecked("x"), "residual must be a function"),
        (lambda: unchecked(lambda x: x, adjoint="dense"), "must be an Adjoint"),
    ],
)
def test_what_is_no_function_is_told(call, words):
    with pytest.raises(TypeError, match=words):
        call()
