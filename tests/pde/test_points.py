"""Points at any position: accurate, smooth, folded at walls, and spreading is the transpose of reading."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.pde.points import HALF_WIDTH, geometry, kernel, receivers_at

EPS = np.finfo(float).eps


def read(positions, field, boundary, spacing=1.0, origin=0.0):
    where = geometry(sv.Grid(field.shape, spacing, origin), boundary)
    return receivers_at(positions, where, field.dtype).prepared().read(field)


def test_nodes_are_read_as_they_are():
    field = jnp.asarray(np.random.default_rng(0).standard_normal((20, 22)))
    at = np.array([[6.0, 7.0], [10.0, 3.0], [0.0, 0.0], [19.0, 21.0], [0.0, 11.0]])
    for boundary in (sv.Rigid(), sv.Periodic()):
        # sinc(pi k) is zero to round-off only.
        np.testing.assert_allclose(read(at, field, boundary), field[tuple(at.astype(int).T)], atol=20 * EPS)


@pytest.mark.parametrize("wavenumber", [0.0, 0.05, 0.2, 0.35, 0.5])
def test_a_wave_is_read_to_one_part_in_ten_thousand(wavenumber):
    """Up to half of the Nyquist wavenumber, anywhere between nodes: the error that is promised, 1.3e-4."""
    k = wavenumber * np.pi
    x = np.arange(60.0)
    at = np.linspace(25, 35, 401)[:, None]
    for phase in (0.0, 0.7, np.pi / 2):
        u = jnp.asarray(np.cos(k * x + phase))
        values = read(at, u, sv.Rigid())
        np.testing.assert_allclose(values, np.cos(k * at[:, 0] + phase), atol=1.3e-4)


def test_what_is_read_has_a_continuous_derivative():
    """One-sided slopes on a node differ by the curvature of the window at its rim times the distance, no more."""
    u = jnp.asarray(np.random.default_rng(0).standard_normal(40))
    slope = jax.grad(lambda x: read(x[None, None], u, sv.Rigid())[0])
    for node in (12.0, 20.0, 25.0):
        d = 1e-7
        left, at, right = (float(slope(jnp.asarray(node + s * d))) for s in (-1, 0, 1))
        curvature = float(jax.grad(slope)(jnp.asarray(node + 0.1)))
        assert abs(right - left) < 2 * d * (10 * abs(curvature) + 100)
        assert min(left, right) - 1e-5 < at < max(left, right) + 1e-5


@pytest.mark.parametrize("distance", [0.0, 1e-16, 1e-13, 1e-10, 1e-7, 1e-4, 1e-2])
def test_derivatives_near_a_node_keep_their_digits(distance):
    """A position that is a node to round-off (0.3 / 0.1) must not divide round-off by its distance.

    Near zero kernel = 1 - a x^2 + O(x^4), so its slope is -2 a x and its curvature -2 a.
    """
    slope, curvature = jax.grad(kernel), jax.grad(jax.grad(kernel))
    curved = float(curvature(jnp.asarray(0.3e-2)))
    assert abs(float(slope(jnp.asarray(distance))) - curved * distance) < 1e-3 * distance + 1e-14
    # The fourth derivative of the kernel is about pi^4 / 5.
    assert abs(float(curvature(jnp.asarray(distance))) - curved) < 20 * (distance**2 + 1e-5) + 1e-12


def test_the_kernel_ends_smoothly():
    x = jnp.asarray(float(HALF_WIDTH))
    assert float(kernel(x)) == 0.0 and abs(float(jax.grad(kernel)(x - 1e-9))) < 1e-8
    assert float(kernel(x + 0.5)) == 0.0


@pytest.mark.parametrize(("face", "sign"), [(sv.Free(), -1.0), (sv.Rigid(), 1.0)])
def test_windows_fold_at_walls_as_fields_do(face, sign):
    """Reading beside a wall equals reading a field that is continued by its image."""
    rng = np.random.default_rng(0)
    u = rng.standard_normal(20)
    if sign < 0:
        u[[0, -1]] = 0.0
    # 30 nodes of continuation on both sides, more than any window reaches.
    wide = np.concatenate([sign * u[:0:-1], u, sign * u[-2::-1]])
    at = np.array([0.0, 0.3, 1.0, 2.7, 5.5, 9.2, 16.01, 18.5, 19.0])[:, None]
    folded = read(at, jnp.asarray(u), face)
    continued = read(at + 19, jnp.asarray(wide), sv.Rigid())
    np.testing.assert_allclose(folded, continued, atol=30 * EPS * np.abs(u).max())


def test_windows_wrap_on_periodic_axes():
    u = jnp.asarray(np.random.default_rng(0).standard_normal(20))
    at = np.array([0.2, 3.3, 10.0, 18.6, 19.0])[:, None]
    values = read(at, u, sv.Periodic())
    wide = jnp.concatenate([u, u, u])
    np.testing.assert_allclose(values, read(at + 20, wide, sv.Rigid()), atol=30 * EPS)


def test_spacing_and_origin_are_those_of_the_grid():
    u = jnp.asarray(np.random.default_rng(0).standard_normal((20, 24)))
    at = np.array([[5.3, 7.9], [11.1, 12.0]])
    scaled = at * [0.5, 3.0] + [100.0, -7.0]
    np.testing.assert_allclose(
        read(scaled, u, sv.Rigid(), (0.5, 3.0), (100.0, -7.0)), read(at, u, sv.Rigid()), atol=1e3 * EPS
    )


BOUNDARIES = {
    "rigid": sv.Rigid(),
    "free": sv.Free(),
    "layers": ((sv.Absorbing(3), sv.Free()), sv.Absorbing(2)),
    "periodic": (sv.Periodic(), sv.Rigid()),
}
PLACES = {
    "scattered": [[3.2, 4.1], [9.9, 0.4], [12.7, 13.0]],
    "row": [[3.2, 4.1], [3.2, 0.4], [3.2, 13.0]],
    "column": [[3.2, 4.1], [9.9, 4.1], [12.7, 4.1]],
    "one": [[3.2, 4.1]],
    "same": [[3.2, 4.1], [3.2, 4.1]],
}


@pytest.mark.parametrize("boundary", BOUNDARIES)
@pytest.mark.parametrize("place", PLACES)
def test_spreading_is_the_transpose_of_reading(boundary, place):
    where = geometry(sv.Grid((14, 15), 1.0), BOUNDARIES[boundary])
    points = receivers_at(PLACES[place], where, jnp.dtype(float)).prepared()
    rng = np.random.default_rng(0)
    field, scale = (jnp.asarray(rng.standard_normal(where.extended)) for _ in range(2))
    values = jnp.asarray(rng.standard_normal((1, len(PLACES[place]))))
    forward = jnp.vdot(points.read(scale * field), values[0])
    spread = points.spread(jnp.zeros(where.extended), scale, points.ahead(values)[0])
    assert abs(float(forward - jnp.vdot(field, spread))) < 1e-13 * float(jnp.abs(spread).max()) * 30


def test_a_source_is_a_delta_of_integral_one():
    """Spread by the same windows as receivers read, divided by the volume of a cell."""
    spacing = (0.5, 2.0)
    wave = sv.Wave(sv.Grid((30, 31), spacing), 1.0, boundary=sv.Rigid(), sources=[[7.3, 25.1], [0.2, 30.0]])
    injection = wave.stepper(jnp.asarray(0.1)).sources
    totals = np.asarray(injection.weights).sum(axis=(1, 2)) * np.prod(spacing)
    # The windows read a constant to 1.3e-4 per axis.
    np.testing.assert_allclose(totals[:1], 1.0, atol=3e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_receivers_keep_the_precision_of_the_field(dtype):
    values = read(np.array([[3.3], [5.0]]), jnp.ones(20, dtype), sv.Rigid())
    assert values.dtype == dtype
