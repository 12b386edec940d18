"""Linear equations in periodic boxes against their exact solutions, to round-off, for steps of any length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

EPS = np.finfo(float).eps
LINE = sv.Grid(shape=24, spacing=0.3, origin=1.0)
PLANE = sv.Grid(shape=(16, 15), spacing=(0.5, 0.2))
SPACE = sv.Grid(shape=(10, 9, 12), spacing=(0.5, 0.3, 0.2))
TENSOR = np.array([[1.0, 0.3, -0.2], [0.3, 0.8, 0.1], [-0.2, 0.1, 0.5]])
WAVES = np.array([[1, 0, 2], [0, 1, 1], [2, -1, 0], [-1, 1, 1]])

# Equation and its factor i w(k) - s(k) as a function of the wave vector.
CASES = {
    "advection-1d": (sv.Advection(LINE, 0.7), lambda k: -1j * 0.7 * k[0]),
    "advection-2d": (sv.Advection(PLANE, [0.7, -0.4]), lambda k: -1j * (0.7 * k[0] - 0.4 * k[1])),
    "diffusion-3d": (sv.Diffusion(SPACE, TENSOR), lambda k: -k @ TENSOR @ k),
    "diffusion-axes": (sv.Diffusion(PLANE, [0.02, 0.01]), lambda k: -0.02 * k[0] ** 2 - 0.01 * k[1] ** 2),
    "both": (sv.AdvectionDiffusion(PLANE, 0.5, 0.01), lambda k: -0.5j * k.sum() - 0.01 * k @ k),
    "dispersion-1d": (sv.Dispersion(LINE, 0.2), lambda k: -0.2j * k[0] ** 3),
    "dispersion-2d": (sv.Dispersion(PLANE, [0.1, 0.02]), lambda k: -1j * (0.1 * k[0] ** 3 + 0.02 * k[1] ** 3)),
    "hyper-1d": (sv.HyperDiffusion(LINE, 1e-2, power=3), lambda k: -1e-2 * (k @ k) ** 3),
    "hyper-2d": (sv.HyperDiffusion(PLANE, 1e-3), lambda k: -1e-3 * (k @ k) ** 2),
}


def plane_waves(grid, factor, time):
    """sum_j exp(i k_j . x + factor(k_j) t + i j), real part."""
    nodes = np.stack(
        np.meshgrid(*[h * np.arange(n) for n, h in zip(grid.shape, grid.spacing, strict=True)], indexing="ij")
    )
    period = np.array(grid.shape) * grid.spacing
    total = 0
    for j, m in enumerate(WAVES[:, : grid.ndim]):
        k = 2 * np.pi * m / period
        total = total + np.exp(1j * np.tensordot(k, nodes, 1) + factor(k) * time + 1j * j)
    return total.real


@pytest.mark.parametrize("name", CASES)
def test_linear_equations_are_exact(name):
    equation, factor = CASES[name]
    grid, dt, steps = equation.grid, 3.7, 2
    run = sv.simulate(equation, jnp.asarray(plane_waves(grid, factor, 0.0)), steps=steps, dt=dt).check()
    exact = plane_waves(grid, factor, steps * dt)
    # A phase or exponent z carries the error eps |z|; four waves of size one, and the transforms.
    largest = max(abs(factor(2 * np.pi * m / (np.array(grid.shape) * grid.spacing))) for m in WAVES[:, : grid.ndim])
    assert np.max(np.abs(run.final - exact)) < 4 * EPS * (8 + steps * dt * largest)


def test_a_constant_term_is_integrated_exactly():
    """u_t = D u_xx + cos(k x) ends at cos(k x) / (D k^2) (1 - exp(-D k^2 t))."""
    grid = sv.Grid(shape=16, spacing=2 * np.pi / 16)
    wave = np.cos(2 * grid.axes()[0])
    run = sv.simulate(sv.Diffusion(grid, 0.5), jnp.zeros(16), steps=3, dt=0.4, inputs=np.tile(wave, (3, 1)))
    np.testing.assert_allclose(run.final, wave / 2 * (1 - np.exp(-2 * 1.2)), atol=16 * EPS)


def test_periodic_wave_is_exact_and_keeps_its_energy():
    speed, dt, steps = 1.3, 2.9, 4
    wave = sv.PeriodicWave(PLANE, speed)
    period = np.array(PLANE.shape) * PLANE.spacing
    x, y = np.meshgrid(*PLANE.axes(), indexing="ij")
    k = 2 * np.pi * np.array([2, -1]) / period
    frequency = speed * np.linalg.norm(k)

    def exact(t):
        # A travelling wave, and a mean that drifts: sin(w t) / w = t at w = 0.
        angle = k[0] * x + k[1] * y - frequency * t
        return np.stack([np.cos(angle) + 0.25 * t, frequency * np.sin(angle) + 0.25])

    start = wave.state(*exact(0.0))
    run = sv.simulate(wave, start, steps=steps, dt=dt, observe=wave.energy).check()
    bound = 8 * EPS * (1 + frequency) * (8 + steps * dt * frequency)
    assert np.max(np.abs(run.final - exact(steps * dt))) < bound
    np.testing.assert_allclose(run.observed, wave.energy(start), rtol=100 * EPS)
    np.testing.assert_allclose(wave.tendency(start)[0], start[1], atol=50 * EPS)
    np.testing.assert_allclose(wave.tendency(start)[1], -(frequency**2) * np.cos(k[0] * x + k[1] * y), atol=1e-12)

    def last(speed):
        return sv.simulate(sv.PeriodicWave(PLANE, speed), start, steps=steps, dt=dt).final

    sv.check_gradient(lambda c: jnp.sum(last(c)[0] ** 2), jnp.asarray(speed)).check()


def test_gradients_of_a_linear_run_with_respect_to_its_coefficients():
    start = jnp.asarray(plane_waves(PLANE, lambda k: 0, 0.0))

    def value(p):
        equation = sv.AdvectionDiffusion(PLANE, p["velocity"], p["diffusivity"])
        return jnp.sum(sv.simulate(equation, p["start"], steps=2, dt=0.5).final ** 3)

    point = {"velocity": jnp.array([0.3, -0.1]), "diffusivity": jnp.array([[0.02, 0.01], [0.01, 0.03]]), "start": start}
    sv.check_gradient(value, point).check()
    sv.check_adjoint(value, point).check()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: sv.Diffusion(PLANE, -1.0), "`diffusivity` must be positive"),
        (lambda: sv.Diffusion(PLANE, np.array([[1.0, 2.0], [2.0, 1.0]])), "positive definite"),
        (lambda: sv.Diffusion(PLANE, np.array([[1.0, 0.5], [0.0, 1.0]])), "symmetric"),
        (lambda: sv.Diffusion(PLANE, np.ones(3)), "must be a number or have the shape"),
        (lambda: sv.Advection(PLANE, np.nan), "must be finite"),
        (lambda: sv.Advection(PLANE, 1j), "must be real"),
        (lambda: sv.HyperDiffusion(LINE, 1.0, power=0), "whole number"),
        (lambda: sv.PeriodicWave(LINE, 0.0), "must be positive"),
        (lambda: sv.Advection(sv.Grid(3, 1.0), 1.0), "at least 4 nodes"),
    ],
)
def test_bad_coefficients_are_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_wave_takes_no_inputs_and_needs_both_fields():
    wave = sv.PeriodicWave(LINE, 1.0)
    with pytest.raises(ValueError, match="no `inputs`"):
        sv.simulate(wave, wave.state(np.zeros(24)), steps=2, dt=1.0, inputs=np.zeros(2))
    with pytest.raises(ValueError, match=r"of shape \(2, 24\)"):
        sv.simulate(wave, jnp.zeros(24), steps=2, dt=1.0)


def test_single_precision_stays_single():
    start = jnp.asarray(plane_waves(LINE, lambda k: 0, 0.0), jnp.float32)
    run = sv.simulate(sv.AdvectionDiffusion(LINE, 0.5, 0.01), start, steps=2, dt=0.5).check()
    assert run.final.dtype == jnp.float32
    exact = plane_waves(LINE, lambda k: -0.5j * k[0] - 0.01 * k[0] ** 2, 1.0)
    assert np.max(np.abs(run.final - exact)) < 64 * np.finfo(np.float32).eps
    wave = sv.PeriodicWave(LINE, 1.0)
    assert jax.eval_shape(lambda s: wave.step(s, None, 0.1), jnp.zeros((2, 24), jnp.float32)).dtype == jnp.float32
