"""Absorbing layers swallow what leaves, for every incidence, and are marched exactly in slabs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.pde.boundary import faces_of
from solvers.pde.layer import (
    close_memory,
    curvature,
    damping,
    first_node,
    next_psi,
    next_zeta,
    open_memory,
    pull_field,
    pull_memory,
    slabs,
    slope,
    spread,
    start_memory,
)

N = 80


def reflection(points, source, receivers, *, width=20, density=None, order=8, n=N):
    """Largest difference from a domain so large that nothing returns, over the largest amplitude that arrives.

    A square of n cells of size 1 with speed 1; the wavelet has `points` nodes per wavelength at its peak. The record
    ends before the edge of the large domain can be seen.
    """
    f = 1 / points
    dt = 0.5
    steps = int((1.5 / f * 2 + 1.6 * n + 4 * points) / dt)
    far = int(steps * dt / 2) + 10
    traces = []
    for extra, faces in ((0, sv.Absorbing(width)), (far, sv.Free())):
        grid = sv.Grid((n + 1 + 2 * extra,) * 2, 1.0, origin=-float(extra))
        rho = None if density is None else density
        wave = sv.Wave(grid, np.float32(1), density=rho, boundary=faces, sources=[source], order=order)
        run = sv.simulate(
            wave,
            wave.at_rest(),
            steps=steps,
            dt=dt,
            inputs=sv.ricker(f, steps=steps, dt=dt),
            observe=wave.receivers(receivers),
        )
        traces.append(np.asarray(run.check().observed, np.float64))
    inside, reference = traces
    return np.abs(inside - reference).max(0) / np.abs(reference).max()


# In the middle; beside a face; in a corner; along a face, where waves graze it.
PLACES = {
    "middle": ((40.0, 40.0), [[60.0, 40.0], [78.0, 78.0], [40.0, 79.0]]),
    "near": ((5.0, 40.0), [[40.0, 40.0], [5.0, 78.0], [75.0, 75.0]]),
    "corner": ((4.0, 4.0), [[40.0, 40.0], [4.0, 76.0], [76.0, 4.0]]),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "points", [8, pytest.param(12, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.slow)]
)
def test_twenty_cells_reflect_less_than_one_part_in_ten_thousand(points, place):
    """Float32, whose round-off over these steps is 1e-5 of the amplitude at most.

    From 8 nodes per wavelength at the peak: the spectrum of the wavelet ends at 2.5 times its peak, and waves of fewer
    than three nodes are not solutions that any layer could absorb.
    """
    assert reflection(points, *PLACES[place]).max() < 1e-4


def test_twenty_cells_absorb_with_density():
    assert reflection(8, *PLACES["middle"], density=np.float32(2.0)).max() < 1e-4


@pytest.mark.slow
def test_wider_layers_absorb_more():
    errors = [reflection(8, *PLACES["middle"], width=w, n=40 * 2).max() for w in (4, 10, 20)]
    assert errors[0] > 3 * errors[1] > 9 * errors[2]


@pytest.mark.parametrize("staggered", [False, True])
@pytest.mark.parametrize(("order", "width"), [(2, 1), (4, 3), pytest.param(8, 7, marks=pytest.mark.slow)])
def test_the_differences_of_the_two_layers_of_an_axis(order, width, staggered):
    """They mirror each other; D- is minus the transpose of D+; D- D+ is the second difference (not if staggered)."""
    lower, upper = slabs(faces_of(sv.Absorbing(width), 1), order, (0.7,), staggered)
    size, halo = lower.size, lower.halo
    assert first_node(lower, 50) == 0 and first_node(upper, 50) == 50 - size == 50 - width - order // 2
    np.testing.assert_array_equal(upper.half_depth, lower.half_depth[::-1])
    assert not lower.half_depth[-halo // 2 :].any() and lower.depth[0] == 1
    strip = jnp.asarray(np.random.default_rng(0).standard_normal(size + 2 * halo))
    for function, x, sign in ((slope, strip, -1), (curvature, strip, 1), (spread, strip[halo:], -1)):
        np.testing.assert_allclose(function(upper, x[::-1])[::-1], sign * function(lower, x), atol=1e-13)
    gradient = np.stack([slope(lower, row) for row in jnp.eye(size + 2 * halo)], 1)
    divergence = np.stack([spread(lower, row) for row in jnp.eye(size + halo)], 1)
    np.testing.assert_array_equal(divergence, -gradient[:, halo:-halo].T)
    if not staggered:
        np.testing.assert_allclose(divergence @ gradient @ strip, curvature(lower, strip), atol=1e-12)
    else:
        # Both are second differences: exact for a parabola.
        nodes = 0.7 * np.arange(size + 2 * halo)
        np.testing.assert_allclose(divergence @ gradient @ nodes**2, 2.0, atol=1e-10)


@pytest.mark.parametrize("upper", [0, 1])
def test_the_reverse_step_of_a_layer_is_the_transpose(upper):
    slab = slabs(faces_of(sv.Absorbing(5), 2), 8, (0.7, 0.7))[2 + upper]
    coefficients = damping(slab, jnp.ones(1), jnp.array(0.2), 0.7)
    rng = np.random.default_rng(1)
    halo = [(0, 0), (slab.halo, slab.halo)]

    def layer(block, memory):
        strip = jnp.pad(block, halo)
        psi = next_psi(slab, coefficients, strip, memory[0])
        zeta = next_zeta(slab, coefficients, curvature(slab, strip), memory[1], spread(slab, psi))
        return spread(slab, psi) + zeta, (psi, zeta)

    primal = jnp.asarray(rng.standard_normal((3, slab.size))), start_memory(slab, (3, 40), np.dtype(float))
    out, pull = jax.vjp(layer, *primal)
    bar, memory_bar = jax.tree.map(lambda x: jnp.asarray(rng.standard_normal(x.shape)), out)
    expected = pull((bar, memory_bar))
    swept = pull_memory(slab, coefficients, jnp.pad(bar, halo), open_memory(slab, coefficients, memory_bar))
    found = pull_field(slab, coefficients, swept), close_memory(slab, coefficients, swept)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-13 * np.abs(b).max())


def test_a_mirrored_problem_has_the_mirrored_solution():
    rng = np.random.default_rng(0)
    speed, u = 1 + 0.3 * rng.random((18, 20)), rng.standard_normal((18, 20))
    faces = ((sv.Free(), sv.Absorbing(5)), (sv.Absorbing(3), sv.Rigid()))
    turned = tuple((b, a) for a, b in faces)
    out = []
    for flip, boundary in ((slice(None), faces), (slice(None, None, -1), turned)):
        wave = sv.Wave(sv.Grid((18, 20), 1.0), speed[flip, flip], boundary=boundary, order=6)
        run = sv.simulate(wave, wave.state(u[flip, flip]), steps=60, dt=0.3)
        out.append(np.asarray(wave.pressure(run.final))[flip, flip])
    np.testing.assert_allclose(out[1], out[0], atol=1e-13)


def test_layers_stay_at_rest_until_a_wave_arrives():
    wave = sv.Wave(sv.Grid((60, 60), 1.0), 1.0, boundary=sv.Absorbing(10), order=8, sources=[[30.0, 30.0]])
    run = sv.simulate(wave, wave.at_rest(), steps=5, dt=0.3, inputs=jnp.ones(5))
    # Source window of 6 nodes and a stencil of 4 per step: 26 cells in five steps, and the layer is 30 away.
    assert all(not leaf.any() for leaf in run.final.memory[0])
