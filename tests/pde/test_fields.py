"""Fields to start from: statistics as asked for, the same at any resolution and in both precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.pde.fields import _shells

KEY = jax.random.key(3)


def test_a_random_field_is_the_same_at_any_resolution():
    coarse = sv.Grid(shape=(32, 48), spacing=(0.4, 0.2))
    fine = sv.Grid(shape=(64, 96), spacing=(0.2, 0.1))
    u, v = (sv.random_field(grid, KEY, 2.0) for grid in (coarse, fine))
    # The coarse grid holds |k| < 7.8, where the spectrum k^4 exp(-k^2 / 2) has fallen to 1e-10 of its peak.
    assert np.max(np.abs(u - v[::2, ::2])) < 1e-4 * np.max(np.abs(u))
    single = sv.random_field(coarse, KEY, 2.0, dtype=jnp.float32)
    assert single.dtype == jnp.float32 and np.max(np.abs(single - u)) < 1e-5


@pytest.mark.parametrize("shape", [pytest.param((256,), marks=pytest.mark.slow), (64, 48)])
def test_a_random_field_has_the_variance_and_spectrum_asked_for(shape):
    grid = sv.Grid(shape=shape, spacing=0.25)
    fields = jax.vmap(lambda key: sv.random_field(grid, key, 4.0, rms=3.0))(jax.random.split(KEY, 200))
    assert np.max(np.abs(fields.mean(axis=tuple(range(1, fields.ndim))))) < 1e-12
    square = np.mean(np.asarray(fields) ** 2, axis=tuple(range(1, fields.ndim)))
    # Five standard errors, and half a percent for the sum over shells in place of the integral.
    assert abs(square.mean() - 9.0) < 5 * square.std() / np.sqrt(200) + 0.05
    modes = sv.Modes(grid, "none")
    power = jnp.mean(jnp.abs(jax.vmap(modes.to_modes)(fields)) ** 2, axis=0)
    k, energy = modes.spectrum(power)
    assert abs(k[int(jnp.argmax(energy))] - 4.0) < 0.8


@pytest.mark.parametrize("power", [-5 / 3, -3.0])
def test_a_spectrum_of_ones_own_has_the_variance_asked_for_at_any_resolution(power):
    """Of the modes up to eight times the peak; the power at the smallest wavenumber counts most."""
    grid, peak = sv.Grid(shape=(32, 24), spacing=0.25), 1.4

    def fields(grid, keys):
        draw = lambda key: sv.random_field(grid, key, peak, rms=1.0, spectrum=lambda k: k**power)  # noqa: E731
        modes = sv.Modes(grid, "none")
        return modes, jax.vmap(lambda key: modes.to_modes(draw(key)))(keys)

    modes, drawn = fields(grid, jax.random.split(KEY, 1000))
    near = modes.squared("float64") <= (8 * peak) ** 2
    # The grid holds all of them along its axes: 2 pi 11 / 6 = 11.5.
    square = jnp.sum(jnp.where(near, jnp.abs(drawn) ** 2, 0) * modes.weights("float64"), axis=(1, 2))
    assert abs(jnp.mean(square) - 1) < 5 * jnp.std(square) / 1000**0.5
    finer, again = fields(sv.Grid(shape=(48, 40), spacing=(8 / 48, 6 / 40)), jax.random.split(KEY, 1000)[:2])
    np.testing.assert_allclose(finer.convert(again, modes), drawn[:2], atol=1e-12)


def test_shells_of_a_large_box_go_over_into_an_integral():
    """sum(w E) of E = k exp(-k^2) is 1/2, with a hundred modes per unit of wavenumber and axis."""
    k, w = _shells((200 * np.pi, 200 * np.pi), 8.0)
    assert len(k) < 40_000
    np.testing.assert_allclose(np.sum(w * k * np.exp(-(k**2))), 0.5, rtol=1e-3)


def test_sums_of_sines():
    grid = sv.Grid(shape=(12, 10), spacing=(0.5, 1.0))
    x, y = np.meshgrid(*grid.axes(), indexing="ij")
    ours = sv.sine_sum(grid, [[1, 2], [3, -1]], [0.5, 2.0], [0.1, 0.2])
    turn = 2 * np.pi * np.stack([x / 6, y / 10])
    exact = 0.5 * np.sin(turn[0] + 2 * turn[1] + 0.1) + 2 * np.sin(3 * turn[0] - turn[1] + 0.2)
    np.testing.assert_allclose(ours, exact, atol=1e-14)
    with pytest.raises(ValueError, match="whole numbers"):
        sv.sine_sum(grid, [[0.5, 1.0]], [1.0])


def test_blobs_are_periodic_and_have_their_integral():
    grid = sv.Grid(shape=(24, 20), spacing=(0.5, 0.4), origin=(-1.0, 2.0))
    blob = sv.gaussian_blobs(grid, [[-0.5, 2.3]], 0.8, 1.5)
    # The sum over nodes of a smooth periodic field is its integral.
    np.testing.assert_allclose(float(blob.sum()) * 0.2, 1.5 * 2 * np.pi * 0.8**2, rtol=1e-6)
    moved = sv.gaussian_blobs(grid, [[-0.5 + 12.0, 2.3 - 8.0]], 0.8, 1.5)
    np.testing.assert_allclose(blob, moved, atol=1e-12)
    with pytest.raises(ValueError, match="`centres` must have the shape"):
        sv.gaussian_blobs(grid, [0.0], 1.0)


def test_a_peak_must_fit_the_grid():
    with pytest.raises(ValueError, match="at most"):
        sv.random_field(sv.Grid(16, 1.0), KEY, 10.0)
    with pytest.raises(ValueError, match="`rms` must be one real number"):
        sv.random_field(sv.Grid(16, 1.0), KEY, 1.0, rms=1j)
