"""Waves with a density or of fourth order in time: the same certificates, by automatic differentiation."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

from .oracles import FACES, SHAPE, SIZES, SPACING, Problem, direction, parameters

KINDS = {"density": ("sea", True, 2), "modified": ("mixed", False, 4), "both": ("room", True, 4)}


@pytest.fixture(
    scope="module", params=["density", *(pytest.param(n, marks=pytest.mark.slow) for n in ("modified", "both"))]
)
def case(request):
    faces, density, time_order = KINDS[request.param]
    problem = Problem(FACES[faces], time_order=time_order, steps=20, adjoint=sv.Checkpoint(2))
    return problem, parameters(density, 20), jax.jit(problem.misfit), jax.jit(jax.grad(problem.misfit))


@pytest.mark.parametrize("name", SIZES)
def test_taylor_remainders_fall_at_one_two_three(case, name):
    _, p, misfit, gradient = case
    if name in p:
        # Smaller for the pressure: its third derivative is so small that the fourth hides it in larger steps.
        d = direction(p, name, SIZES[name] / (3 if name == "pressure" else 1))
        sv.check_gradient(misfit, p, d, gradient=gradient, hessian=True, tolerance=0.05).check()


def test_the_adjoint_is_the_transpose(case):
    problem, p, _, _ = case
    tangent = {k: SIZES[k] * jax.random.normal(jax.random.key(5), v.shape) for k, v in p.items()}
    assert sv.check_adjoint(problem.record, p, tangent=tangent).check().error < 1e-12


@pytest.mark.slow
def test_checkpoints_give_the_gradient_of_store_all(case):
    problem, p, _, _ = case
    p = p | {"signals": parameters(steps=47)["signals"]}
    values = [
        jax.jit(jax.value_and_grad(dataclasses.replace(problem, steps=47, every=3, adjoint=a).misfit))(p)
        for a in (sv.StoreAll(), sv.Checkpoint(2), sv.Checkpoint(4))
    ]
    for other in values[1:]:
        for x, y in zip(jax.tree.leaves(other), jax.tree.leaves(values[0]), strict=True):
            np.testing.assert_allclose(x, y, atol=1e-12 * float(jnp.abs(y).max()), rtol=0)


@pytest.mark.parametrize(
    "faces", [f for f in FACES if f not in ("sea", "channel")]
)  # thin layers reflect, each its way
@pytest.mark.parametrize("time_order", [2, 4])
def test_constant_density_is_no_density(faces, time_order):
    """D- D+ has the order of the stencil of u_xx, not its weights: equal to the error of both, fourth order here."""
    x, y = np.meshgrid(*(np.arange(n) * h for n, h in zip((40, 44), SPACING, strict=True)), indexing="ij")
    u = np.exp(-((x - 20) ** 2 + (y - 20) ** 2) / 60)
    out = []
    for density in (None, 3.7):
        wave = sv.Wave(sv.Grid((40, 44), SPACING), 1.2, density=density, order=8, time_order=time_order,
                       boundary=FACES[faces])  # fmt: skip
        run = sv.simulate(wave, wave.state(u), steps=60, dt=0.3).check()
        out.append(np.asarray(wave.pressure(run.final)))
    np.testing.assert_allclose(out[0], out[1], atol=2e-4 * np.abs(out[0]).max())


def test_only_ratios_of_density_matter():
    p = parameters(density=True)
    out = []
    for scale in (1.0, 1024.0):
        wave = sv.Wave(sv.Grid(SHAPE, SPACING), p["speed"], density=scale * p["density"], boundary=FACES["sea"])
        out.append(sv.simulate(wave, wave.state(p["pressure"]), steps=30, dt=0.3).final.pressure)
    # The density enters through its logarithm: round-off, grown over the steps.
    np.testing.assert_allclose(out[0], out[1], rtol=0, atol=30 * 8 * np.finfo(float).eps * np.abs(out[0]).max())


def test_a_layer_of_another_impedance_reflects_as_it_must():
    """R = (Z2 - Z1) / (Z2 + Z1), Z = rho c, of a pulse that meets the interface half-way between nodes."""
    n, h = 800, 1.0
    x = np.arange(n) * h
    right = x > 400
    rho, c = np.where(right, 2.5, 1.0), np.where(right, 1.4, 1.0)
    wave = sv.Wave(sv.Grid(n, h), c, density=rho, order=4, boundary=sv.Rigid())
    pulse = np.exp(-(((x - 250) / 20) ** 2))
    # u(x - t): its velocity is -u'.
    run = sv.simulate(wave, wave.state(pulse, 2 * (x - 250) / 400 * pulse), steps=500, dt=0.5).check()
    u = np.asarray(wave.pressure(run.final))
    z = 2.5 * 1.4
    # The interface is sharp to one cell, a fortieth of the pulse: errors of a few percent of that cell.
    np.testing.assert_allclose(u[~right].max(), (z - 1) / (z + 1), rtol=0.02)
    np.testing.assert_allclose(u[right].max(), 2 * z / (z + 1), rtol=0.02)
