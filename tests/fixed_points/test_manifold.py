"""Geodesics on the sphere and the half-plane against closed forms; their derivatives; what fails."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from solvers.core.adjoint import Checkpoint, StoreAll
from solvers.core.status import SolverError, Status
from solvers.core.verify import check_order
from solvers.fixed_points.manifold import Metric


class Sphere(eqx.Module):
    """A sphere in its stereographic chart from the north pole."""

    radius: jax.Array

    def __call__(self, x):
        return 4 * self.radius**4 / (self.radius**2 + x @ x) ** 2 * jnp.eye(2, dtype=x.dtype)


SPHERE = Metric(Sphere(jnp.asarray(1.0)))
HALF_PLANE = Metric(lambda x: jnp.eye(2) / x[1] ** 2)
X, V = jnp.array([0.3, -0.2]), jnp.array([0.5, 0.4])
STEPS = 40


def embedded(x):
    """The point of the unit sphere with these coordinates."""
    return jnp.array([2 * x[0], 2 * x[1], x @ x - 1]) / (1 + x @ x)


def length(x, v):
    return jnp.sqrt(v @ SPHERE.g(x) @ v)


def great_circle(x, v):
    """cos|v| x + sin|v| v/|v| on the sphere."""
    point, velocity = jax.jvp(embedded, (x,), (v,))
    angle = jnp.linalg.norm(velocity)
    return jnp.cos(angle) * point + jnp.sin(angle) * velocity / angle


# ---- Values ----


def test_great_circles_to_second_order():
    def error(steps):
        return jnp.linalg.norm(embedded(SPHERE.exp(X, V, steps=steps).check().value) - great_circle(X, V))

    report = check_order(error, (10, 20, 40), expected=2).check()
    assert abs(report.fit - 2) < 0.02


def test_the_half_plane_in_closed_form():
    times = jnp.array([0.5, 1.0, 2.0])
    way = HALF_PLANE.geodesic(jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]), times, steps=200).check()
    exact = np.stack([np.tanh(times), 1 / np.cosh(times)], axis=1)
    # (h^2 / 24) |x'''| t with h = 1 / 200 in the longest leg and |x'''| up to 4.
    np.testing.assert_allclose(way.value, exact, atol=2 * 4 / 24 / 200**2 * 2)
    speeds = np.linalg.norm(way.velocity, axis=1) / np.asarray(way.value)[:, 1]
    np.testing.assert_allclose(speeds, 1, atol=1 / 200**2)
    one = HALF_PLANE.geodesic(jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0]), 0.5, steps=200).check()
    np.testing.assert_allclose(one.value, way.value[0], rtol=1e-14)


@pytest.mark.slow
def test_the_half_plane_to_second_order():
    start, ahead = jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0])
    exact = jnp.stack([jnp.tanh(1.0), 1 / jnp.cosh(1.0)])

    def error(steps):
        return jnp.linalg.norm(HALF_PLANE.exp(start, ahead, steps=steps).value - exact)

    assert abs(check_order(error, (10, 20, 40), expected=2).check().fit - 2) < 0.02


# ---- Derivatives ----


def canonical(z, adjoint="reversible"):
    """The flow in (x, p), with p = g v."""
    x, p = z[:2], z[2:]
    end = SPHERE.exp(x, jnp.linalg.solve(SPHERE.g(x), p), steps=STEPS, adjoint=adjoint)
    return jnp.concatenate([end.value, SPHERE.g(end.value) @ end.velocity])


def start():
    return jnp.concatenate([X, SPHERE.g(X) @ V])


@pytest.fixture(scope="module")
def reverse():
    return np.asarray(jax.jit(jax.jacrev(canonical))(start()))


def test_the_flow_is_symplectic(reverse):
    form = np.block([[np.zeros((2, 2)), np.eye(2)], [-np.eye(2), np.zeros((2, 2))]])
    np.testing.assert_allclose(reverse.T @ form @ reverse, form, atol=1e-12)


@pytest.mark.parametrize("adjoint", [StoreAll(), pytest.param(Checkpoint(2), marks=pytest.mark.slow)])
def test_reconstructing_the_way_gives_the_gradient_of_storing_it(reverse, adjoint):
    stored = jax.jit(jax.jacrev(lambda z: canonical(z, adjoint)))(start())
    np.testing.assert_allclose(reverse, stored, atol=1e-12)


@pytest.mark.slow
def test_jacobi_fields_to_second_order():
    """Across a great circle of the angle |v| a field of length |w| has the length |w| sin|v| / |v|."""
    angle = length(X, V)
    w = jnp.linalg.solve(SPHERE.g(X), jnp.array([-V[1], V[0]]))

    def error(steps):
        end, change = jax.jvp(lambda v: SPHERE.exp(X, v, steps=steps).value, (V,), (w,))
        stretched = jnp.sqrt(change @ SPHERE.g(end) @ change) / jnp.sqrt(w @ SPHERE.g(X) @ w)
        return jnp.abs(stretched - jnp.sin(angle) / angle)

    assert abs(check_order(error, (10, 20, 40), expected=2).check().fit - 2) < 0.05


def test_jacobi_fields(reverse):
    """Gauss: <dexp v, dexp w> = <v, w>; across v a field on the unit sphere has the length |w| sin|v| / |v|."""
    # d x(1) / d v = (d x(1) / d p) g.
    change = reverse[:2, 2:] @ np.asarray(SPHERE.g(X))
    end = SPHERE.exp(X, V, steps=STEPS)
    before, after = np.asarray(SPHERE.g(X)), np.asarray(SPHERE.g(end.value))
    w = np.linalg.solve(before, [-V[1], V[0]])
    angle = float(length(X, V))
    bound = 2 * angle**3 / STEPS**2
    assert abs(V @ before @ w) < 1e-14
    assert abs((change @ V) @ after @ (change @ w)) < bound
    stretched = np.sqrt((change @ w) @ after @ (change @ w)) / np.sqrt(w @ before @ w)
    assert abs(stretched - np.sin(angle) / angle) < bound


@pytest.mark.slow
def test_forward_mode_and_parameters():
    def loss(radius, time):
        return jnp.sum(jnp.sin(Metric(Sphere(radius)).geodesic(X, V, time, steps=10).value))

    point, h = (jnp.asarray(1.2), jnp.asarray(0.8)), 1e-5
    given = jax.grad(loss, (0, 1))(*point)
    for i in range(2):
        unit = [h * (i == j) for j in range(2)]
        ahead = loss(point[0] + unit[0], point[1] + unit[1])
        behind = loss(point[0] - unit[0], point[1] - unit[1])
        np.testing.assert_allclose(given[i], (ahead - behind) / (2 * h), rtol=1e-8)
    forward = jax.jvp(loss, point, (jnp.asarray(1.0), jnp.asarray(0.0)))[1]
    np.testing.assert_allclose(forward, given[0], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("inner", [jax.jacfwd, jax.jacrev])
def test_hessians_in_every_mode(inner, outer):
    def loss(v, adjoint):
        return jnp.sum(jnp.sin(SPHERE.exp(X, v, steps=10, adjoint=adjoint).value))

    given = outer(inner(lambda v: loss(v, "reversible")))(V)
    stored = jax.jacfwd(jax.jacrev(lambda v: loss(v, StoreAll())))(V)
    np.testing.assert_allclose(given, stored, atol=1e-12)


def test_the_reverse_sweep_needs_no_memory_per_step():
    def bytes_of(steps, adjoint):
        run = jax.jit(jax.grad(lambda z: jnp.sum(SPHERE.exp(z, V, steps=steps, adjoint=adjoint).value)))
        return run.lower(X).compile().memory_analysis().temp_size_in_bytes

    assert bytes_of(4000, "reversible") == bytes_of(50, "reversible")
    # A way that is stored keeps at least its midpoints.
    assert bytes_of(4000, StoreAll()) > 4000 * 4 * 8


# ---- Logarithm ----


@pytest.mark.slow
def test_logarithm_undoes_the_exponential_map():
    found = SPHERE.log(X, SPHERE.exp(X, V, steps=STEPS).value, steps=STEPS).check()
    np.testing.assert_allclose(found.value, V, rtol=1e-9)
    assert SPHERE.log(X, X, steps=STEPS).check().value.tolist() == [0.0, 0.0]


@pytest.mark.slow
def test_the_derivative_of_the_logarithm_is_the_inverse():
    y = SPHERE.exp(X, V, steps=STEPS).value
    slopes = jax.jit(jax.jacrev(lambda y: SPHERE.log(X, y, steps=STEPS).value))(y)
    forward = jax.jit(jax.jacfwd(lambda v: SPHERE.exp(X, v, steps=STEPS).value))(V)
    np.testing.assert_allclose(slopes @ forward, np.eye(2), atol=1e-8)


@pytest.mark.slow
def test_distance_in_the_half_plane():
    x, y = jnp.array([0.0, 1.0]), jnp.array([2.0, 1.5])
    found = HALF_PLANE.log(x, y, steps=400).check()
    exact = np.arccosh(1 + ((y - x) @ (y - x)) / (2 * x[1] * y[1]))
    np.testing.assert_allclose(np.linalg.norm(found.value) / x[1], exact, rtol=1e-4)


# ---- Precision, batches, failures ----


@pytest.mark.slow
def test_single_precision_and_batches():
    many = jax.vmap(lambda v: SPHERE.exp(X, v, steps=10))(jnp.stack([V, 0.5 * V])).check()
    np.testing.assert_allclose(many.value[1], SPHERE.exp(X, 0.5 * V, steps=10).value, rtol=1e-14)
    metric = Metric(lambda x: jnp.eye(2, dtype=x.dtype) / x[1] ** 2)
    end = metric.exp(jnp.array([0, 1], jnp.float32), jnp.array([1, 0], jnp.float32), steps=50).check()
    assert end.value.dtype == end.velocity.dtype == jnp.float32
    np.testing.assert_allclose(end.value, [np.tanh(1), 1 / np.cosh(1)], atol=1e-3)


def test_a_step_that_cannot_be_solved_is_told_and_gives_no_gradient():
    x, v = jnp.array([0.0, 1.0]), jnp.array([0.0, 30.0])
    end = HALF_PLANE.exp(x, v, steps=1)
    assert end.status in (Status.STAGNATED, Status.NONFINITE)
    with pytest.raises(SolverError, match="Take more `steps`"):
        end.check()
    assert np.all(np.isnan(jax.grad(lambda v: HALF_PLANE.exp(x, v, steps=1).value[0])(v)))


@pytest.mark.slow
def test_a_point_that_no_geodesic_reaches():
    x, y = jnp.array([0.0, 1.0]), jnp.array([0.0, -1.0])
    found = HALF_PLANE.log(x, y, steps=10)
    assert found.status is not Status.CONVERGED
    assert np.all(np.isnan(jax.grad(lambda y: HALF_PLANE.log(x, y, steps=10).value[0])(y)))


def test_wrong_input():
    with pytest.raises(ValueError, match="vector of coordinates"):
        SPHERE.exp(jnp.zeros((2, 2)), jnp.zeros((2, 2)))
    with pytest.raises(ValueError, match="`v`"):
        SPHERE.exp(X, jnp.zeros(3))
    with pytest.raises(ValueError, match="`steps`"):
        SPHERE.exp(X, V, steps=0)
    with pytest.raises(ValueError, match="`adjoint`"):
        SPHERE.exp(X, V, adjoint="store")
    with pytest.raises(ValueError, match="shape"):
        Metric(lambda x: x).exp(X, V)
    with pytest.raises(ValueError, match="rtol"):
        SPHERE.log(X, X + V, rtol=1e-20)
    with pytest.raises(ValueError, match="one axis"):
        SPHERE.geodesic(X, V, jnp.zeros((2, 2)))
