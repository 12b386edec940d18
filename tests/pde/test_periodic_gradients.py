"""Derivatives of periodic flows in every mode, with respect to everything, and what they cost in memory."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

PLANE = sv.Grid((12, 10), (0.5, 0.4))
SPACE = sv.Grid((6, 7, 8), (0.5, 0.4, 0.6))
STORE = sv.StoreAll()


class Push(eqx.Module):
    """A forcing of a user's own: a function of the velocity with a parameter."""

    strength: jax.Array

    def __call__(self, velocity):
        return self.strength * velocity**2


def problem(grid, stepper, adjoint=STORE):
    """A short run as a function of everything that may be differentiated, complex modes included, and a point."""
    x = np.meshgrid(*grid.axes(), indexing="ij")
    force = np.stack([np.sin(a + 2 * b) for a, b in zip(x, np.roll(x, 1, axis=0), strict=True)])

    def make(p):
        forcing = (
            p["force"],
            sv.Kolmogorov(1, p["amplitude"]),
            sv.LinearForcing(p["rate"]),
            lambda u: p["push"] * u**2,
        )
        more = {"hyperviscosity": p["hyperviscosity"], "diffusivity": p["diffusivity"]}
        return sv.PeriodicNavierStokes(grid, p["viscosity"], forcing, p["drag"], stepper=stepper, **more)

    def final(p):
        run = sv.simulate(make(p), p["state"], steps=5, dt=p["dt"], inputs=p["inputs"], adjoint=adjoint)
        return run.final

    numbers = {"viscosity": 0.05, "drag": 0.1, "amplitude": 0.4, "rate": 0.2, "push": 0.1, "hyperviscosity": 1e-4}
    point = {name: jnp.asarray(value) for name, value in {**numbers, "dt": 0.05}.items()}
    point |= {"force": jnp.asarray(force), "diffusivity": jnp.array([0.02]), "inputs": jnp.linspace(0.5, 1.5, 5)}
    flow = make(point)
    start = flow.random_start(jax.random.key(4), 2.0)
    scalar = np.cos(2 * np.pi * np.arange(grid.shape[0]) / grid.shape[0])
    scalar = np.broadcast_to(scalar.reshape(-1, *[1] * (grid.ndim - 1)), grid.shape)
    point["state"] = flow.with_scalars(start, scalar)
    return final, point


@pytest.mark.slow
@pytest.mark.parametrize(("grid", "stepper"), [(PLANE, "etdrk2"), (PLANE, "etdrk4"), (SPACE, "rk3")])
def test_reverse_mode_is_the_transpose_of_forward_mode(grid, stepper):
    final, point = problem(grid, stepper, sv.Checkpoint(2))
    report = sv.check_adjoint(final, point).check()
    assert report.error < 1e-12


def test_the_gradient_predicts_how_the_flow_changes():
    """Taylor test over all parameters at once; the dot product for the default stepper rides along."""
    final, point = problem(PLANE, "rk3")

    def loss(p):
        return sum(jnp.sum(jnp.abs(x) ** 2) for x in jax.tree.leaves(final(p)))

    sv.check_gradient(loss, point).check()
    assert sv.check_adjoint(final, point).check().error < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("grid", [PLANE, SPACE])
def test_second_derivatives(grid):
    final, point = problem(grid, "rk3")
    # Not by `abs`, which has no second derivative at a mode that is zero.
    loss = lambda p: sum(jnp.vdot(x, x).real for x in jax.tree.leaves(final(p)))  # noqa: E731
    sv.check_gradient(loss, point, hessian=True).check()


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("stepper", "kept", "dealias"),
    [
        ("rk3", 4, "2/3"),
        pytest.param("etdrk2", 3, "2/3", marks=SLOW),
        pytest.param("etdrk4", 4, "2/3", marks=SLOW),
        pytest.param("rk3", 4, "3/2", marks=SLOW),
    ],
)
def test_reverse_mode_keeps_the_state_and_the_rates_of_its_stages(stepper, kept, dealias):
    """Temporary memory from the compiler, with everything stored and the viscosity differentiated, too."""
    grid = sv.Grid((64, 64), 2 * np.pi / 64)

    def energy(viscosity, vorticity, steps):
        flow = sv.PeriodicNavierStokes(grid, viscosity, stepper=stepper, dealias=dealias)
        start = flow.from_vorticity(vorticity)
        return flow.energy(sv.simulate(flow, start, steps=steps, dt=1e-3, adjoint=sv.StoreAll()).final)

    args = jnp.float32(1e-3), jnp.zeros((64, 64), jnp.float32)
    sizes = []
    for steps in (128, 256):
        program = jax.jit(jax.grad(lambda v, w, steps=steps: energy(v, w, steps), argnums=(0, 1)))
        sizes.append(program.lower(*args).compile().memory_analysis().temp_size_in_bytes)
    fields = (sizes[1] - sizes[0]) / 128 / (4 * 64 * 64)
    # Complex numbers, 43 x 22 or 63 x 32, of 64 x 64 real ones; mean velocities and stamps of the loop come on top.
    own = 2 * np.prod(sv.Modes(grid, dealias).shape) / 64**2
    assert fields < 1.01 * kept * own
    assert fields < 2 or dealias != "2/3"


@pytest.mark.parametrize("dealias", ["3/2", "none"])
def test_advection_has_its_derivative_however_products_are_formed(dealias):
    """The tendency is quadratic in the state, so that central differences are exact."""
    flow = sv.PeriodicNavierStokes(PLANE, 0.1, diffusivity=0.02, dealias=dealias)
    scalar = np.cos(2 * np.pi * np.arange(12) / 12)[:, None] * np.ones(10)
    start, d = (flow.with_scalars(flow.random_start(jax.random.key(seed), 4.0), scalar + seed) for seed in (1, 2))
    start = eqx.tree_at(lambda s: s.mean, start, jnp.array([0.3, -0.2]))

    def rate(state):
        return flow.tendency(state)

    after, before = (jax.jit(rate)(jax.tree.map(lambda x, y, s=s: x + s * y, start, d)) for s in (0.5, -0.5))
    slope = jax.jit(lambda s, d: jax.jvp(rate, (s,), (d,))[1])(start, d)
    for a, b, c in zip(*map(jax.tree.leaves, (after, before, slope)), strict=True):
        assert jnp.max(jnp.abs(c)) > 0.01 or c.shape == (2,)
        np.testing.assert_allclose(a - b, c, atol=1e-12)
    assert sv.check_adjoint(rate, start).check().error < 1e-12
