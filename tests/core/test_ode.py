"""The method of lines: accuracy as asked for, derivatives, honest failure."""

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

GRID = sv.Grid(shape=16, spacing=2 * np.pi / 16)
X = GRID.axes()[0]


class Logistic:
    """u_t = r u (1 - u) + f, with u = 1 / (1 + (1 / u_0 - 1) exp(-r t)) for f = 0."""

    def __init__(self, rate=1.0):
        self.rate = rate

    def tendency(self, state, inputs):
        return self.rate * state * (1 - state) + (0.0 if inputs is None else inputs)


def logistic(start, time, rate=1.0):
    return 1 / (1 + (1 / start - 1) * np.exp(-rate * time))


def test_accuracy_is_what_was_asked_for():
    start = jnp.array([0.1, 0.5, 1.7])
    times = np.array([0.5, 1.0, 3.0])
    run = sv.simulate_ode(Logistic(), start, 3.0, times=times, rtol=1e-9, solver=diffrax.Tsit5()).check()
    # The error per step is 1e-9; about thirty steps, and the flow contracts.
    np.testing.assert_allclose(run.observed, [logistic(start, t) for t in times], rtol=1e-7)
    np.testing.assert_allclose(run.final, logistic(start, 3.0), rtol=1e-7)
    assert run.status is sv.Status.OK and run.steps > 3


# Compiling the reverse sweep of an implicit solver takes a minute.
@pytest.mark.parametrize("solver", [diffrax.Tsit5(), pytest.param(None, marks=pytest.mark.slow)])
def test_diffusion_and_its_gradients(solver):
    """u = cos(2x) exp(-4 D t), and d/dD, d/dt, d/du_0 in closed form."""
    start = jnp.cos(2 * X)

    def last(diffusivity, t1, start):
        return sv.simulate_ode(sv.Diffusion(GRID, diffusivity), start, t1, rtol=1e-8, solver=solver).final[0]

    value, slopes = jax.value_and_grad(last, argnums=(0, 1, 2))(jnp.asarray(0.7), jnp.asarray(0.5), start)
    exact = np.exp(-4 * 0.7 * 0.5)
    np.testing.assert_allclose(value, exact, rtol=1e-6)
    np.testing.assert_allclose(slopes[0], -2.0 * exact, rtol=1e-5)
    np.testing.assert_allclose(slopes[1], -2.8 * exact, rtol=1e-5)
    # u(0, t) is linear in u_0: the sum of its slopes times u_0 is the value.
    np.testing.assert_allclose(jnp.vdot(slopes[2], start), exact, rtol=1e-5)


def test_a_failed_solve_has_a_status_and_no_finite_derivative():
    def last(rate, start):
        return sv.simulate_ode(Logistic(rate), start, 50.0, max_steps=4, solver=diffrax.Tsit5())

    run = last(3.0, jnp.array([0.1]))
    assert run.status is sv.Status.MAX_STEPS
    with pytest.raises(sv.SolverError, match="MAX_STEPS after 4 steps"):
        run.check()
    for gradient in jax.jit(jax.grad(lambda r, u: last(r, u).final[0], argnums=(0, 1)))(3.0, jnp.array([0.1])):
        assert np.all(np.isnan(gradient))
    # u_t = u (1 - u) from u = -1 is minus infinity at t = log 2: one lane fails, the other keeps its derivative.
    solve = jax.vmap(
        lambda u: sv.simulate_ode(Logistic(), u[None], 1.0, max_steps=400, solver=diffrax.Tsit5()).final[0]
    )
    slopes = jax.grad(lambda u: jnp.sum(solve(u)))(jnp.array([-1.0, 0.5]))
    assert np.isnan(slopes[0]) and np.isfinite(slopes[1])


def test_forward_mode_by_its_adjoint():
    def last(rate):
        equation, adjoint = Logistic(rate), diffrax.ForwardMode()
        return sv.simulate_ode(
            equation, jnp.array([0.3]), 2.0, adjoint=adjoint, solver=diffrax.Tsit5(), rtol=1e-9
        ).final[0]

    _, slope = jax.jvp(last, (1.2,), (1.0,))
    h = 1e-4
    np.testing.assert_allclose(slope, (logistic(0.3, 2.0, 1.2 + h) - logistic(0.3, 2.0, 1.2 - h)) / (2 * h), rtol=1e-6)


class Growth(eqx.Module):
    """The logistic equation as a pytree."""

    rate: jax.Array

    def tendency(self, state, inputs):
        return self.rate * state * (1 - state)


def through(adjoint, t1=2.0, times=None):
    """Slopes of the last state (and of the squares of those at `times`) with respect to rate and start."""

    def value(rate, start):
        run = sv.simulate_ode(
            Growth(rate), start, t1, times=times, adjoint=adjoint, observe=None if times is None else jnp.square,
            solver=diffrax.Tsit5(), rtol=1e-9,
        )  # fmt: skip
        return run.final[0] + (0.0 if times is None else jnp.sum(run.observed))

    return jax.grad(value, (0, 1))(jnp.asarray(1.2), jnp.array([0.3]))


def slopes_of_logistic(time, rate=1.2, start=0.3):
    """u, du/dr = t u (1 - u) and du/du_0 = u (1 - u) / (u_0 (1 - u_0))."""
    u = logistic(start, time, rate)
    return u, time * u * (1 - u), u * (1 - u) / (start * (1 - start))


@pytest.mark.parametrize("adjoint", [pytest.param("DirectAdjoint", marks=pytest.mark.slow), "BacksolveAdjoint"])
def test_gradients_by_the_adjoints_of_diffrax(adjoint):
    _, rate, start = slopes_of_logistic(2.0)
    found = through(getattr(diffrax, adjoint)())
    np.testing.assert_allclose(found[0], rate, rtol=1e-7)
    np.testing.assert_allclose(found[1], [start], rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("adjoint", ["RecursiveCheckpointAdjoint", "BacksolveAdjoint"])
def test_gradients_of_what_is_observed(adjoint):
    """Also where the last of the times is the end."""
    (u, a, b), (v, c, d) = slopes_of_logistic(0.5), slopes_of_logistic(2.0)
    found = through(getattr(diffrax, adjoint)(), times=jnp.array([0.5, 2.0]))
    np.testing.assert_allclose(found[0], c + 2 * u * a + 2 * v * c, rtol=1e-7)
    np.testing.assert_allclose(found[1], [d + 2 * u * b + 2 * v * d], rtol=1e-7)


class Relaxation(eqx.Module):
    """u_t = f - a u, which comes to rest at f / a."""

    rate: jax.Array

    def tendency(self, state, inputs):
        return inputs - self.rate * state


def test_a_steady_state_by_the_implicit_function_theorem_and_not_before_it_is_reached():
    def last(rate, force, t1):
        adjoint = diffrax.ImplicitAdjoint()
        run = sv.simulate_ode(Relaxation(rate), jnp.array([0.3]), t1, inputs=force, adjoint=adjoint,
                              solver=diffrax.Tsit5(), rtol=1e-7)  # fmt: skip
        return run.final[0]

    slopes = jax.jit(jax.grad(last, (0, 1)))
    np.testing.assert_allclose(slopes(0.5, 2.0, 60.0), (-2 / 0.5**2, 1 / 0.5), rtol=1e-6)
    assert np.all(np.isnan(slopes(0.5, 2.0, 1.0)))


def test_inputs_of_time_and_an_observer():
    def push(t):
        return jnp.cos(t)

    class Integral:
        def tendency(self, state, inputs):
            return jnp.full_like(state, inputs)

    run = sv.simulate_ode(
        Integral(), jnp.zeros(2), 2.0, inputs=push, times=[1.0, 2.0], observe=jnp.sum, solver=diffrax.Tsit5(), rtol=1e-9
    ).check()
    np.testing.assert_allclose(run.observed, 2 * np.sin([1.0, 2.0]), rtol=1e-7)
    held = sv.simulate_ode(Integral(), jnp.zeros(2), 2.0, inputs=3.0, solver=diffrax.Tsit5()).check()
    np.testing.assert_allclose(held.final, 6.0, rtol=1e-12)


def test_complex_states_and_the_precision_of_the_state():
    """A free wave of Schroedinger turns its phase by k^2 t / 2."""
    start = jnp.exp(2j * X).astype(jnp.complex64)
    free = sv.NonlinearSchroedinger(GRID, 0.0)
    run = sv.simulate_ode(free, start, 1.0, solver=diffrax.Tsit5(), rtol=1e-5).check()
    assert run.final.dtype == jnp.complex64
    np.testing.assert_allclose(run.final, np.exp(2j * X - 2j), atol=3e-4)


def test_a_flow_decays_as_taylor_and_green_say():
    flow = sv.PeriodicNavierStokes(sv.Grid((8, 8), 2 * np.pi / 8), viscosity=0.1)
    start = flow.taylor_green()
    run = sv.simulate_ode(flow, start, 1.0, rtol=1e-8, solver=diffrax.Tsit5()).check()
    np.testing.assert_allclose(flow.velocity(run.final), np.exp(-0.2) * flow.velocity(start), atol=1e-6)


def test_modes_that_the_equation_drops_do_not_stay_behind():
    """cos(7x) lies above the cut of 16 nodes, 5: fixed steps drop it, and so does the method of lines."""
    start = jnp.sin(X) + jnp.cos(7 * X)
    equation = sv.Burgers(GRID, 0.3)
    run = sv.simulate_ode(equation, start, 0.5, rtol=1e-8, solver=diffrax.Tsit5()).check()
    fixed = sv.simulate(equation, start, steps=50, dt=0.01).check()
    np.testing.assert_allclose(run.final, fixed.final, atol=1e-6)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sv.simulate_ode(object(), jnp.zeros(2), 1.0), TypeError, "needs a method tendency"),
        (lambda: sv.simulate_ode(Logistic(), jnp.zeros(2), -1.0), ValueError, "must lie after"),
        (lambda: sv.simulate_ode(Logistic(), jnp.zeros(2), np.inf), ValueError, "one finite number"),
        (lambda: sv.simulate_ode(Logistic(), jnp.array([np.nan]), 1.0), ValueError, "must be finite"),
        (lambda: sv.simulate_ode(Logistic(), jnp.zeros(2, int), 1.0), ValueError, "floating arrays"),
        (lambda: sv.simulate_ode(Logistic(), jnp.zeros(2), 1.0, times=[0.5, 0.2]), ValueError, "must increase"),
        (lambda: sv.simulate_ode(Logistic(), jnp.zeros(2), 1.0, times=[2.0]), ValueError, "within"),
        (lambda: sv.simulate_ode(Logistic(), jnp.zeros(2), 1.0, observe=jnp.sum), ValueError, "needs the `times`"),
        (lambda: sv.simulate_ode(Logistic(), jnp.zeros(2), 1.0, max_steps=0), ValueError, "`max_steps`"),
        (lambda: sv.simulate_ode(Logistic(), jnp.zeros(2), 1.0, rtol=-1.0), ValueError, "must not be negative"),
        (lambda: sv.simulate_ode(Logistic(), jnp.zeros(5000), 1.0), ValueError, "dense Jacobian, 5000 x 5000"),
        (lambda: sv.simulate_ode(Logistic(), jnp.zeros(2), 1.0, solver=diffrax.Tsit5), TypeError, "the class Tsit5"),
        (lambda: sv.simulate_ode(Logistic(), jnp.zeros(2), 1.0, adjoint="direct"), TypeError, "must be a diffrax adj"),
        (
            lambda: sv.simulate_ode(Logistic(), jnp.zeros(2), 1.0, times=[1.0], adjoint=diffrax.ImplicitAdjoint()),
            ValueError,
            "leave out `times`",
        ),
        (
            lambda: sv.simulate_ode(Logistic(), jnp.zeros(2), 1.0, adjoint=diffrax.BacksolveAdjoint()),
            TypeError,
            "Logistic is none",
        ),
    ],
)
def test_bad_input_is_told(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_tendency_must_look_like_the_state():
    class Wrong:
        def tendency(self, state, inputs):
            return state[:1]

    with pytest.raises(TypeError, match="must look like the state"):
        sv.simulate_ode(Wrong(), jnp.zeros(2), 1.0)


def test_a_changed_attribute_changes_the_answer():
    class Decay:
        rate = 1.0

        def tendency(self, state, inputs):
            return -self.rate * state

    equation, found = Decay(), []
    for equation.rate in (1.0, 2.0):
        found.append(float(sv.simulate_ode(equation, jnp.ones(()), 1.0, solver=diffrax.Tsit5(), rtol=1e-6).final))
    np.testing.assert_allclose(found, np.exp([-1.0, -2.0]), rtol=1e-5)
