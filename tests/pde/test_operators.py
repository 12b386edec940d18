"""Finite differences: exact on polynomials, symmetric with walls, of the order that they claim."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.pde.boundary import faces_of
from solvers.pde.operators import add_at, laplacian, pad, second_difference, staggered_difference

EPS = np.finfo(float).eps
ORDERS = (2, 4, 6, 8)


@pytest.mark.parametrize("order", ORDERS)
def test_second_differences_are_exact_up_to_their_order(order):
    c, r = second_difference(order), order // 2
    x = np.arange(-r, r + 1.0)
    weights = np.array([c[abs(int(k))] for k in x])
    for power in range(order + 2):
        assert abs(weights @ x**power - (2 if power == 2 else 0)) < 4 * EPS * (np.abs(weights) @ np.abs(x) ** power + 1)
    assert abs(weights @ x ** (order + 2)) > 1


@pytest.mark.parametrize("order", ORDERS)
def test_staggered_differences_are_exact_up_to_their_order(order):
    s, r = staggered_difference(order), order // 2
    x = np.arange(r) + 0.5
    for power in range(1, order + 1, 2):
        assert abs(2 * np.dot(s, x**power) - (1 if power == 1 else 0)) < 8 * EPS * np.dot(np.abs(s), x**power)
    assert abs(np.dot(s, x ** (order + 1))) > 0.1


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "boundary", [sv.Free(), sv.Rigid(), sv.Periodic(), sv.Absorbing(1), ((sv.Free(), sv.Rigid()), sv.Periodic())]
)
def test_the_laplacian_is_symmetric_in_the_trapezoidal_product(order, boundary):
    shape = (9, 10)
    faces = faces_of(boundary, 2)
    alive, weights = np.ones(shape, bool), np.ones(shape)
    for axis, side in itertools.product(range(2), range(2)):
        node = [slice(None)] * 2
        node[axis] = -1 if side else 0
        if isinstance(faces[axis][side], sv.Free):
            alive[tuple(node)] = False
        if isinstance(faces[axis][side], sv.Rigid):
            weights[tuple(node)] *= 0.5

    def apply(u):
        return laplacian(pad(u.reshape(shape) * alive, order // 2, faces), order, (1.0, 0.7)).ravel()

    matrix = np.asarray(jax.jacfwd(apply)(jnp.zeros(90)))
    inside = alive.ravel()
    matrix = (weights.ravel()[:, None] * matrix)[inside][:, inside]
    np.testing.assert_allclose(matrix, matrix.T, atol=8 * EPS * np.abs(matrix).max())
    # No wave grows: the largest eigenvalue is not positive.
    assert np.linalg.eigvalsh(matrix).max() < 100 * EPS * np.abs(matrix).max()


@pytest.mark.parametrize("order", ORDERS)
def test_walls_continue_sines_and_cosines(order):
    n = 12
    x = np.arange(n + 1) / n
    symbol = (
        2 * sum(c * np.cos(np.pi * k / n) for k, c in enumerate(second_difference(order))) - second_difference(order)[0]
    )
    for boundary, u in ((sv.Free(), np.sin(np.pi * x)), (sv.Rigid(), np.cos(np.pi * x))):
        out = laplacian(pad(jnp.asarray(u), order // 2, faces_of(boundary, 1)), order, (1.0,))
        np.testing.assert_allclose(out, symbol * u, atol=16 * EPS)


def test_add_at():
    out = add_at(jnp.ones((4, 4)), jnp.full((2, 2), 3.0), (1, 2))
    assert float(out.sum()) == 16 + 12 and float(out[2, 3]) == 4.0
