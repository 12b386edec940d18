"""Periodic flow: what cannot run is told before it runs, in the user's words; dtypes; no second trace."""

import itertools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv
from solvers.core.grid import check_grid

GRID = sv.Grid((12, 12), 2 * np.pi / 12)
FLOW = sv.PeriodicNavierStokes(GRID, 0.05)
FIELD = np.zeros((2, 12, 12))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: sv.PeriodicNavierStokes(sv.Grid(12, 1.0), 0.1), "two or three axes"),
        (lambda: sv.PeriodicNavierStokes(sv.Grid((12, 3), 1.0), 0.1), "at least 4 nodes per axis"),
        (lambda: sv.PeriodicNavierStokes(GRID, 0.0), "`viscosity` must be positive"),
        (lambda: sv.PeriodicNavierStokes(GRID, -1e-3), "`viscosity` must be positive"),
        (lambda: sv.PeriodicNavierStokes(GRID, np.ones(3)), "`viscosity` must be one real number"),
        (lambda: sv.PeriodicNavierStokes(GRID, np.nan), "must be finite"),
        (lambda: sv.PeriodicNavierStokes(GRID, 0.1, drag=-1.0), "`drag` must be at least 0"),
        (lambda: sv.PeriodicNavierStokes(GRID, 0.1, hyperviscosity=0.0), "`hyperviscosity` must be positive"),
        (lambda: sv.PeriodicNavierStokes(GRID, 0.1, hyperviscosity=1.0, hyperviscosity_power=1), "at least 2"),
        (lambda: sv.PeriodicNavierStokes(GRID, 0.1, diffusivity=[0.1, 0.0]), "`diffusivity` must be positive"),
        (lambda: sv.PeriodicNavierStokes(GRID, 0.1, stepper="rk4"), "`stepper` must be one of 'rk3'"),
        (lambda: sv.PeriodicNavierStokes(GRID, 0.1, dealias="1/2"), "`dealias` must be"),
        (lambda: sv.PeriodicNavierStokes(GRID, 0.1, np.zeros((12, 12))), r"must have the shape \(2, 12, 12\)"),
        (lambda: sv.PeriodicNavierStokes(GRID, 0.1, FIELD + 0j), "got complex"),
        (lambda: sv.PeriodicNavierStokes(GRID, 0.1, np.full((2, 12, 12), np.inf)), "must be finite"),
        (lambda: sv.PeriodicNavierStokes(GRID, 0.1, sv.Kolmogorov(4)), "keeps 3 waves"),
        (lambda: sv.Kolmogorov(0), "at least 1"),
        (lambda: sv.PeriodicNavierStokes(GRID, 0.1, diffusivity=0.1j), "`diffusivity` must be a real number"),
        (lambda: sv.Kolmogorov(2, np.ones(2)), "`amplitude`"),
        (lambda: sv.Kolmogorov(1, 1j), "`amplitude` must be one real number"),
        (lambda: sv.Kolmogorov(6).body_force(GRID), "needs more than 12 nodes"),
        (lambda: sv.LinearForcing(1j), "`rate` must be one real number"),
        (lambda: FLOW.taylor_green(1j), "`speed` must be one real number"),
        (lambda: FLOW.taylor_green(dtype=jnp.float16), "`dtype` must be float32 or float64"),
        (lambda: FLOW.shear_layers(0.5, speed=1j), "`speed` must be one real number"),
        (lambda: FLOW.random_start(jax.random.key(0), 2, max_speed=1j), "`max_speed` must be one real number"),
        (lambda: FLOW.from_vorticity(FIELD[0], mean=1j), "`mean` must be real"),
        (lambda: FLOW.from_velocity(FIELD.astype(np.float16)), "`velocity` must be float32 or float64"),
        (lambda: FLOW.from_velocity(jnp.asarray(FIELD, jnp.bfloat16)), "`velocity` must be float32 or float64"),
        (lambda: FLOW.step(FLOW.at_rest(), 2.0, 0.1), "this flow has none"),
        (lambda: FLOW.from_velocity(np.zeros((12, 12))), r"`velocity` must have the shape \(2, 12, 12\)"),
        (lambda: FLOW.from_velocity(FIELD + 0j), "real field on the nodes, got complex"),
        (lambda: FLOW.from_velocity(FIELD.astype(int)), "floating"),
        (lambda: FLOW.from_velocity(np.full((2, 12, 12), np.nan)), "must be finite"),
        (lambda: FLOW.from_vorticity(FIELD), "`vorticity` must have the shape"),
        (lambda: FLOW.with_scalars(FLOW.at_rest(), FIELD[0]), "carries no scalars"),
        (lambda: FLOW.scalars(FLOW.at_rest()), "carries no scalars"),
        (lambda: FLOW.random_start(jax.random.key(0), 4), "at most 3"),
        (lambda: FLOW.random_start(jax.random.key(0), 0), "must be positive"),
        (lambda: FLOW.shear_layers(0.0), "`thickness` must be positive"),
    ],
)
def test_bad_arguments(make, says):
    with pytest.raises(ValueError, match=says):
        make()


@pytest.mark.parametrize(
    ("state", "more", "says"),
    [
        (lambda: FIELD[0], {}, "comes from flow.from_velocity"),
        (lambda: sv.FlowState(jnp.zeros((12, 12)), jnp.zeros(2)), {}, "flow needs complex numbers"),
        (lambda: sv.FlowState(jnp.zeros((12, 7), complex), jnp.zeros(2)), {}, "does not belong to this flow"),
        (lambda: sv.FlowState(FLOW.at_rest().modes), {}, "`mean` is None"),
        (lambda: sv.FlowState(FLOW.at_rest().modes, jnp.array([0.0, jnp.nan])), {}, "state.mean"),
        (FLOW.at_rest, {"dt": -0.1}, "`dt` must be positive"),
        (FLOW.at_rest, {"inputs": np.zeros((3, 2))}, "`inputs` must be real with shape"),
        (FLOW.at_rest, {"inputs": np.zeros(3)}, "this flow has none"),
        (FLOW.at_rest, {"inputs": np.full((3, 2, 12, 12), np.nan)}, "must be finite"),
        (FLOW.at_rest, {"inputs": {"force": np.zeros((3, 2, 12, 12))}}, "must be one array .* got dict"),
    ],
)
def test_bad_runs(state, more, says):
    with pytest.raises(ValueError, match=says):
        sv.simulate(FLOW, state(), **{"steps": 3, "dt": 0.1, **more})


def test_what_is_no_value_is_told():
    with pytest.raises(TypeError, match="got the class Kolmogorov: call it"):
        sv.PeriodicNavierStokes(GRID, 0.1, sv.Kolmogorov)
    with pytest.raises(TypeError, match=r"`grid` must be a Grid, .* got tuple: \(8, 8\)"):
        check_grid((8, 8))


@pytest.mark.parametrize(("dealias", "waves"), [("3/2", 4), ("none", 5)])
def test_a_wave_that_the_flow_keeps_may_be_forced(dealias, waves):
    flow = sv.PeriodicNavierStokes(GRID, 0.2, sv.Kolmogorov(waves, 1.5), dealias=dealias)
    laminar = 1.5 / (0.2 * waves**2) * np.sin(waves * GRID.axes()[1])
    state = flow.from_velocity(np.stack([np.broadcast_to(laminar, (12, 12)), FIELD[0]]))
    rate = jax.jit(lambda f, s: f.tendency(s))(flow, state)
    assert np.max(np.abs(state.modes)) > 0.1 and np.max(np.abs(rate.modes)) < 1e-13


@pytest.mark.parametrize(("stepper", "limit"), [("rk3", 3**0.5), ("etdrk2", 0.5), ("etdrk4", 8**0.5)])
def test_each_stepper_has_its_limit(stepper, limit):
    flow = sv.PeriodicNavierStokes(GRID, 0.05, stepper=stepper)
    start = flow.taylor_green()
    # The largest kept wavenumber is 3, the largest |u| + |v| of these vortices 1, at the nodes too.
    np.testing.assert_allclose(flow.max_dt(start), limit / 3, rtol=1e-6)
    with pytest.warns(UserWarning, match=f"Courant number {1.01 * limit:.3g} > {limit:.3g}, the limit of {stepper}"):
        flow.check(start, steps=1, dt=1.01 * limit / 3, inputs=None)
    flow.check(start, steps=1, dt=0.99 * limit / 3, inputs=None)


def test_a_function_of_the_velocity_must_return_a_force():
    flow = sv.PeriodicNavierStokes(GRID, 0.1, lambda velocity: velocity[0])
    with pytest.raises(ValueError, match="must return the force on the nodes"):
        sv.simulate(flow, flow.at_rest(), steps=1, dt=0.1)


def test_too_large_a_step_warns_with_the_number_and_a_blow_up_is_told():
    start = FLOW.random_start(jax.random.key(0), 3, max_speed=100.0)
    dt = 40 * FLOW.max_dt(start)
    with pytest.warns(UserWarning, match=rf"Courant number {40 * 3**0.5:.3g} > 1.73, the limit of rk3.*dt <="):
        run = sv.simulate(FLOW, start, steps=100, dt=dt, adjoint=sv.StoreAll())
    assert run.status == sv.Status.NONFINITE and run.failed_step > 0
    with pytest.raises(sv.SolverError, match="NONFINITE"):
        run.check()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sv.simulate(FLOW, start, steps=100, dt=dt / 41, adjoint=sv.StoreAll()).check()


def test_new_values_are_not_traced_again_and_single_precision_stays():
    # A list would be seen to change.
    traces = itertools.count()

    def push(velocity):
        next(traces)
        return 0.1 * velocity

    def run(value, seed, dtype):
        forcing = (sv.Kolmogorov(1, value), push, sv.LinearForcing(value / 10))
        flow = sv.PeriodicNavierStokes(GRID, value, forcing, value, hyperviscosity=value / 1000, diffusivity=value)
        start = flow.random_start(jax.random.key(seed), 2, dtype=dtype)
        return sv.simulate(flow, start, steps=4, dt=value / 10, inputs=np.ones(4), observe=flow.energy).check()

    first = run(0.1, 0, jnp.float32)
    assert first.observed.dtype == first.final.modes.real.dtype == first.final.mean.dtype == jnp.float32
    count = next(traces)
    second = run(0.2, 1, jnp.float32)
    assert count > 0 and next(traces) == count + 1
    assert second.observed[-1] != first.observed[-1]


def test_a_batch_is_a_loop():
    starts = [FLOW.random_start(jax.random.key(seed), 3) for seed in (0, 1)]

    def final(start):
        return sv.simulate(FLOW, start, steps=3, dt=0.05, adjoint=sv.StoreAll()).final.modes

    batch = jax.jit(jax.vmap(final))(jax.tree.map(lambda *x: jnp.stack(x), *starts))
    np.testing.assert_allclose(batch, jnp.stack([final(start) for start in starts]), atol=1e-14)
