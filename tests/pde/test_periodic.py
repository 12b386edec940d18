"""Periodic flow in two dimensions: exact solutions, orders in time, invariants, starts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import solvers as sv

STEPPERS = ("rk3", "etdrk2", "etdrk4")
SQUARE = sv.Grid((24, 24), 2 * np.pi / 24)
# Other periods and other numbers of nodes along each axis, one of them odd.
OBLONG = sv.Grid((24, 15), (0.4, 0.25), (1.0, -3.0))


class Drag(eqx.Module):
    """A forcing of a user's own."""

    rate: jax.Array

    def __call__(self, velocity):
        return -self.rate * velocity


def marched(flow, start, time, steps):
    """The state at a time; the number of steps is traced, so that all of them share one compilation."""
    return _march(flow, start, time / steps, steps)


@jax.jit
def _march(flow, start, dt, steps):
    return lax.fori_loop(0, steps, lambda _, state: flow.step(state, None, dt), start)


def largest(tree):
    return max(float(jnp.max(jnp.abs(x))) for x in jax.tree.leaves(tree))


def minus(a, b):
    return jax.tree.map(jnp.subtract, a, b)


@pytest.mark.parametrize(
    ("stepper", "dtype", "bound"),
    [
        ("rk3", jnp.float32, 5e-6),
        ("rk3", jnp.float64, 1e-12),
        pytest.param("etdrk2", jnp.float32, 5e-6, marks=pytest.mark.slow),
        pytest.param("etdrk2", jnp.float64, 1e-12, marks=pytest.mark.slow),
        pytest.param("etdrk4", jnp.float32, 5e-6, marks=pytest.mark.slow),
        pytest.param("etdrk4", jnp.float64, 1e-12, marks=pytest.mark.slow),
    ],
)
def test_taylor_green_vortices_decay_exactly(stepper, dtype, bound):
    flow = sv.PeriodicNavierStokes(OBLONG, 0.02, stepper=stepper)
    start = flow.taylor_green(dtype=dtype)
    run = sv.simulate(flow, start, steps=100, dt=0.01, adjoint=sv.StoreAll()).check()
    k2 = sum((2 * np.pi / p) ** 2 for p in flow.modes.period)
    exact = np.asarray(flow.velocity(start)) * np.exp(-0.02 * k2)
    velocity = flow.velocity(run.final)
    assert velocity.dtype == dtype
    assert np.abs(velocity - exact).max() < bound * np.abs(exact).max()


@pytest.mark.parametrize(
    ("stepper", "order", "counts"),
    [("rk3", 3, (20, 40, 80)), ("etdrk2", 2, (40, 80, 160)), ("etdrk4", 4, (20, 40, 80))],
)
def test_orders_in_time(stepper, order, counts):
    """With force, drag and a mean wind, which all enter the schemes in their own way."""
    more = {"forcing": sv.Kolmogorov(3, 0.5), "drag": 0.1}
    start = sv.PeriodicNavierStokes(SQUARE, 0.02).random_start(jax.random.key(0), 3)
    start = sv.FlowState(start.modes, jnp.array([0.7, -0.4]))
    truth = marched(sv.PeriodicNavierStokes(SQUARE, 0.02, stepper="etdrk4", **more), start, 1.0, 640)
    flow = sv.PeriodicNavierStokes(SQUARE, 0.02, stepper=stepper, **more)
    sv.check_order(lambda n: largest(minus(marched(flow, start, 1.0, int(n)), truth)), counts, order).check()


@jax.jit
def tendency(flow, state):
    return flow.tendency(state)


@pytest.mark.parametrize("dealias", ["2/3", pytest.param("3/2", marks=pytest.mark.slow)])
def test_advection_conserves_energy_and_enstrophy(dealias):
    flow = sv.PeriodicNavierStokes(OBLONG, 1e-30, dealias=dealias)
    start = flow.random_start(jax.random.key(1), 4.0)
    rate = tendency(flow, start)
    modes = flow.modes
    size = jnp.sqrt(modes.inner(start.modes, start.modes) * modes.inner(rate.modes, rate.modes))
    assert size > 1e-3
    assert abs(modes.inner(start.modes, rate.modes)) < 1e-14 * size
    # dE/dt = -mean(psi dw/dt)
    psi = modes.inverse_laplacian(start.modes)
    assert abs(modes.inner(psi, rate.modes)) < 1e-14 * size


def test_the_tendency_is_advection_and_viscosity():
    """Against -(u . grad) w + nu lap w, with every factor taken from its own series."""
    flow = sv.PeriodicNavierStokes(OBLONG, 0.3)
    start = flow.random_start(jax.random.key(1), 4.0)
    start = sv.FlowState(start.modes, jnp.array([0.3, -0.2]))
    modes, w = flow.modes, start.modes
    (u, v), d = flow.velocity(start), modes.derivative
    advection = modes.to_modes(u * modes.to_field(d(w, 0)) + v * modes.to_field(d(w, 1)))
    exact = 0.3 * (d(w, 0, 2) + d(w, 1, 2)) - advection
    np.testing.assert_allclose(tendency(flow, start).modes, exact, atol=1e-12 * largest(exact))


def test_velocity_vorticity_and_pressure_belong_together():
    flow = sv.PeriodicNavierStokes(OBLONG, 0.01)
    given = flow.random_start(jax.random.key(2), 4.0)
    state = flow.from_velocity(flow.velocity(given) + np.array([1.0, 2.0])[:, None, None])
    np.testing.assert_allclose(state.modes, given.modes, atol=1e-13)
    np.testing.assert_allclose(state.mean, [1.0, 2.0], rtol=1e-13)
    back = flow.from_vorticity(flow.vorticity(state), mean=state.mean)
    assert largest(minus(back, state)) < 1e-13
    assert largest(flow.divergence(state)) < 1e-13 * flow.modes.wavenumbers()[0].max()
    # u = cos x sin y, v = -sin x cos y needs p_x = -u u_x - v u_y = sin(2x) / 2, and likewise along y.
    square = sv.PeriodicNavierStokes(SQUARE, 0.01)
    x, y = np.meshgrid(*SQUARE.axes(), indexing="ij")
    pressure = square.pressure(square.taylor_green())
    np.testing.assert_allclose(pressure, -(np.cos(2 * x) + np.cos(2 * y)) / 4, atol=1e-13)


def test_diagnostics_of_a_known_flow():
    """Taylor-Green of speed U: E = U^2 / 4, Z = k^2 U^2 / 2, all at |k| = 2^(1/2)."""
    flow = sv.PeriodicNavierStokes(SQUARE, 0.1, hyperviscosity=0.01, hyperviscosity_power=2)
    state = flow.taylor_green(speed=2.0)
    np.testing.assert_allclose(flow.energy(state), 1.0, rtol=1e-14)
    np.testing.assert_allclose(flow.enstrophy(state), 2.0, rtol=1e-14)
    np.testing.assert_allclose(flow.dissipation(state), 2 * 0.1 * 2.0 + 2 * 0.01 * 2.0**2, rtol=1e-13)
    k, e = flow.spectrum(state)
    assert int(jnp.argmax(e)) == 1
    np.testing.assert_allclose(jnp.sum(e) * k[1], 1.0, rtol=1e-14)
    # The largest kept wavenumber is 7; |u| + |v| = 2 at most.
    np.testing.assert_allclose(flow.courant(state, 0.1), 0.1 * 7 * 2, rtol=1e-12)
    np.testing.assert_allclose(flow.courant(state, flow.max_dt(state)), 3**0.5, rtol=1e-6)


@pytest.mark.parametrize("stepper", STEPPERS)
def test_kolmogorov_flow_rests_in_its_laminar_state(stepper):
    flow = sv.PeriodicNavierStokes(SQUARE, 0.2, sv.Kolmogorov(3, 1.5), 0.1, stepper=stepper)
    _, y = np.meshgrid(*SQUARE.axes(), indexing="ij")
    laminar = flow.from_velocity(np.stack([1.5 / (0.2 * 9 + 0.1) * np.sin(3 * y), 0 * y]))
    # The largest mode is about one; each step rounds it a few times.
    assert largest(minus(marched(flow, laminar, 5.0, 50), laminar)) < 50 * 4e-16
    assert largest(tendency(flow, laminar)) < 1e-14


@pytest.mark.slow
def test_the_laminar_state_is_found_with_a_whole_state_as_the_unknown():
    """The complex modes of a state are an unknown like any other."""
    flow = sv.PeriodicNavierStokes(sv.Grid((8, 8), 2 * np.pi / 8), 0.5, sv.Kolmogorov(1, 0.5), 0.1)
    found = sv.steady_state(lambda state: flow.step(state, None, 0.5), flow.at_rest(), stability=0).check()
    np.testing.assert_allclose(jnp.max(flow.velocity(found.value)[0]), 0.5 / 0.6, rtol=1e-7)


def test_forces_add_up_and_inputs_act_on_them():
    force = np.stack(np.meshgrid(*SQUARE.axes(), indexing="ij")) % 1.0
    kolmogorov = sv.Kolmogorov(3, 0.5)
    start = sv.PeriodicNavierStokes(SQUARE, 0.1).taylor_green()
    both = sv.PeriodicNavierStokes(SQUARE, 0.1, (jnp.asarray(force), kolmogorov))
    doubled = sv.PeriodicNavierStokes(SQUARE, 0.1, jnp.asarray(2 * force) + 2 * kolmogorov.body_force(SQUARE))

    @jax.jit
    def after(flow, inputs=None):
        return flow.step(start, inputs, 0.02)

    body = force + np.asarray(kolmogorov.body_force(SQUARE))
    assert largest(minus(after(doubled), start)) > 1e-3
    assert largest(minus(after(both, jnp.array(2.0)), after(doubled))) < 1e-14
    assert largest(minus(after(both, jnp.asarray(body)), after(doubled))) < 1e-14


@pytest.mark.slow
def test_a_function_of_the_velocity_acts_as_a_force():
    """A drag by the function is integrated to third order, the one of the equation exactly."""
    flow = sv.PeriodicNavierStokes(SQUARE, 0.1, Drag(jnp.array(0.3)))
    exact = sv.PeriodicNavierStokes(SQUARE, 0.1, drag=0.3)
    start = flow.random_start(jax.random.key(1), 3)
    assert largest(minus(tendency(flow, start), tendency(exact, start))) < 1e-14
    # Vortices that do not move themselves: the drag alone makes the error, z^4 / 24 of the third order.
    vortices = flow.taylor_green()
    ours, truth = (jax.jit(lambda f: f.step(vortices, None, 0.02))(f) for f in (flow, exact))
    assert 0 < largest(minus(ours, truth)) < 1.1 * (0.3 * 0.02) ** 4 / 24 * largest(vortices)


def test_linear_forcing_drives_fluctuations_but_not_the_mean():
    flow = sv.PeriodicNavierStokes(SQUARE, 0.1, sv.LinearForcing(0.5), 0.2)
    start = sv.FlowState(flow.taylor_green().modes, jnp.array([1.0, 0.0]))
    end = marched(flow, start, 1.0, 100)
    # Vortices in a wind decay at 2 nu k^2 = 0.2 and 0.2, and grow at 0.5; drag alone takes the wind.
    np.testing.assert_allclose(jnp.abs(end.modes).max(), jnp.abs(start.modes).max() * np.exp(0.1), rtol=1e-7)
    np.testing.assert_allclose(end.mean, start.mean * np.exp(-0.2), rtol=1e-13)


def test_a_wind_only_carries_the_flow_along():
    """Galilei: with the mean velocity (U, V) the same flow, shifted by (U, V) t: here 6 and -3 nodes."""
    flow = sv.PeriodicNavierStokes(SQUARE, 0.02, stepper="etdrk4")
    still = flow.random_start(jax.random.key(3), 3)
    h, time, steps = SQUARE.spacing[0], 1.0, 400
    windy = sv.FlowState(still.modes, jnp.array([6 * h, -3 * h]))
    moved = flow.vorticity(marched(flow, windy, time, steps))
    expected = jnp.roll(flow.vorticity(marched(flow, still, time, steps)), (6, -3), (0, 1))
    # Phase error of the fourth order at the largest wavenumber 7 (U + V = 2.4): (dt k U)^5 / 120 per step.
    bound = steps * (7 * 2.4 * time / steps) ** 5 / 120 * largest(expected)
    assert largest(moved - expected) < bound < 1e-5


def test_a_passive_scalar_drifts_and_diffuses():
    """theta = cos(k . (x - U t)) exp(-kappa k^2 t) in a uniform wind, beside a second scalar that is another wave."""
    flow = sv.PeriodicNavierStokes(OBLONG, 0.02, diffusivity=(0.05, 0.01))
    x, y = np.meshgrid(*(a - o for a, o in zip(OBLONG.axes(), OBLONG.origin, strict=True)), indexing="ij")
    k, m = (2 * np.pi / p for p in flow.modes.period)
    waves, wind, time, steps = ((2 * k, m), (k, -2 * m)), (0.5, 0.3), 0.8, 400

    def exact(t):
        turn = [a * (x - wind[0] * t) + b * (y - wind[1] * t) for a, b in waves]
        fade = [np.exp(-c * (a**2 + b**2) * t) for c, (a, b) in zip((0.05, 0.01), waves, strict=True)]
        return np.stack([0.7 + f * np.cos(p) for f, p in zip(fade, turn, strict=True)])

    start = flow.with_scalars(flow.from_vorticity(np.zeros(OBLONG.shape), mean=np.array(wind)), exact(0.0))
    ours = flow.scalars(marched(flow, start, time, steps))
    frequency = max(abs(a * wind[0] + b * wind[1]) for a, b in waves)
    bound = steps * (frequency * time / steps) ** 4 / 24
    assert largest(ours - exact(time)) < bound < 1e-7


def test_a_scalar_in_a_vortex_keeps_its_mean_and_loses_variance_as_it_must():
    """d/dt mean(theta^2) / 2 = -kappa mean|grad theta|^2, with any flow."""
    flow = sv.PeriodicNavierStokes(SQUARE, 0.02, diffusivity=0.03)
    x, _ = np.meshgrid(*SQUARE.axes(), indexing="ij")
    state = flow.with_scalars(flow.random_start(jax.random.key(1), 3), 1.0 + np.sin(x))
    rate, modes = tendency(flow, state), flow.modes
    theta = state.scalars[0]
    gradient = jnp.stack([modes.derivative(theta, 0), modes.derivative(theta, 1)])
    np.testing.assert_allclose(modes.inner(theta, rate.scalars[0]), -0.03 * modes.inner(gradient, gradient), rtol=1e-12)
    assert abs(rate.scalars[0, 0, 0]) < 1e-15


@pytest.mark.parametrize("dtype", [jnp.float64, pytest.param(jnp.float32, marks=pytest.mark.slow)])
def test_a_random_start_is_the_same_field_at_any_resolution(dtype):
    grids = [sv.Grid((n, m), (2 * np.pi / n, 4 * np.pi / m)) for n, m in ((40, 76), (64, 81))]
    flows = [sv.PeriodicNavierStokes(grid, 0.01) for grid in grids]
    first, second = (f.random_start(jax.random.key(5), 4, max_speed=1.5, dtype=dtype) for f in flows)
    common = flows[1].modes.convert(second.modes, flows[0].modes)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(common, first.modes, atol=20 * eps * largest(first.modes))
    # Both are the same field on the nodes that both grids have, up to the tail of the spectrum, and real.
    speed = jnp.sqrt(jnp.max(jnp.sum(flows[1].velocity(second) ** 2, axis=0)))
    assert abs(float(speed) - 1.5) < 0.03 * 1.5
    back = flows[0].modes.to_modes(flows[0].modes.to_field(first.modes))
    np.testing.assert_allclose(back, first.modes, atol=20 * eps * largest(first.modes))
    k, e = flows[1].spectrum(second)
    assert abs(float(k[jnp.argmax(e)]) - 4) <= 0.5


def test_random_starts_follow_the_spectrum_that_is_asked_for():
    """Many draws: the mean energy in each shell is E(k), to five standard errors of its number of modes."""
    flow = sv.PeriodicNavierStokes(sv.Grid((36, 36), 2 * np.pi / 36), 0.01)

    def spectrum(k):
        return k**-1.0

    def drawn(key):
        return flow.spectrum(flow.random_start(key, 4, spectrum=spectrum))[1][1:11]

    e = np.asarray(jax.jit(jax.vmap(drawn))(jax.random.split(jax.random.key(0), 64)))
    e = e / e.sum(axis=1, keepdims=True)
    m = np.fft.fftfreq(36, 1 / 36)
    radius = np.sqrt(m[:, None] ** 2 + m[None] ** 2)
    # A shell of whole-number radius holds so many modes of size E(k) / k.
    size = np.where(radius > 0, 1 / np.maximum(radius, 1) ** 2, 0)
    expected = np.array([size[np.round(radius) == s].sum() for s in range(1, 11)])
    expected /= expected.sum()
    errors = np.std(e, axis=0) / 8
    assert np.all(np.abs(e.mean(axis=0) - expected) < 5 * errors)


def test_shear_layers_roll_up_without_gaining_energy():
    flow = sv.PeriodicNavierStokes(SQUARE, 0.01, stepper="etdrk4")
    start = flow.shear_layers(thickness=0.5)
    assert 0.9 < largest(flow.velocity(start)[0]) < 1.1
    np.testing.assert_allclose(largest(flow.velocity(start)[1]), 0.05, rtol=1e-12)
    end = marched(flow, start, 8.0, 200)
    assert flow.energy(end) < flow.energy(start) and flow.enstrophy(end) < flow.enstrophy(start)
    # The disturbance grows: the layers roll up.
    assert largest(flow.velocity(end)[1]) > 4 * 0.05
