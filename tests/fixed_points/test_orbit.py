"""Periodic orbits against closed forms."""

import inspect
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

MU, OMEGA, BETA = 0.7, 2.0, 0.5
VAN_DER_POL = 6.6632868593231301896996820305  # period at mu = 1


def hopf(z, time, mu, omega, beta):
    """The flow of z' = (mu + i omega) z - (1 + i beta) |z|^2 z, the normal form of a Hopf bifurcation, exactly."""
    size = jnp.sum(z**2)
    growth = size / mu * jnp.expm1(2 * mu * time)
    radius = jnp.exp(mu * time) / jnp.sqrt(1 + growth)
    turn = omega * time - beta / 2 * jnp.log1p(growth)
    cos, sin = radius * jnp.cos(turn), radius * jnp.sin(turn)
    return jnp.stack([cos * z[0] - sin * z[1], sin * z[0] + cos * z[1]])


def hopf_period(mu, omega, beta):
    """On the orbit |z|^2 = mu the angle turns at the rate omega - beta mu."""
    return 2 * math.pi / (omega - beta * mu)


def runge_kutta(rates, x, time, steps):
    dt = time / steps

    def step(x, _):
        k1 = rates(x)
        k2 = rates(x + dt / 2 * k1)
        k3 = rates(x + dt / 2 * k2)
        k4 = rates(x + dt * k3)
        return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    return jax.lax.scan(step, x, None, length=steps)[0]


def oscillator(x, time, mu, steps=400):
    return runge_kutta(lambda x: jnp.stack([x[1], mu * (1 - x[0] ** 2) * x[1] - x[0]]), x, time, steps)


PARAMETERS = (MU, OMEGA, BETA)
START = jnp.array([1.0, 0.2])


@pytest.fixture(scope="module")
def normal_form():
    return sv.periodic_orbit(hopf, START, 3.3, *PARAMETERS, rtol=1e-13, atol=1e-13).check()


def test_period_radius_and_multipliers_of_the_normal_form(normal_form):
    period = hopf_period(*PARAMETERS)
    assert normal_form.status is sv.Status.CONVERGED
    np.testing.assert_allclose(normal_form.period, period, rtol=1e-12)
    np.testing.assert_allclose(jnp.sum(normal_form.state**2), MU, rtol=1e-12)
    # Perturbations of the radius decay like exp(-2 mu t), since (mu r - r^3)' = -2 mu at r^2 = mu.
    np.testing.assert_allclose(normal_form.multipliers, [1, math.exp(-2 * MU * period)], rtol=1e-11)
    np.testing.assert_allclose(normal_form.stats.spectral_radius, math.exp(-2 * MU * period), rtol=1e-11)


def test_the_point_lies_in_the_plane_of_the_phase_condition(normal_form):
    velocity = jax.jvp(lambda t: hopf(START, t, *PARAMETERS), (3.3,), (1.0,))[1]
    assert abs(jnp.dot(normal_form.state - START, velocity)) < 1e-12


def test_derivatives_of_the_period():
    def period(*p):
        return sv.periodic_orbit(hopf, START, 3.3, *p, rtol=1e-13, atol=1e-13).period

    rate = OMEGA - BETA * MU
    expected = np.array([2 * math.pi * BETA, -2 * math.pi, 2 * math.pi * MU]) / rate**2
    np.testing.assert_allclose(jax.jit(jax.grad(period, argnums=(0, 1, 2)))(*PARAMETERS), expected, rtol=1e-11)
    forward = jax.jvp(lambda mu: period(mu, OMEGA, BETA), (MU,), (1.0,))[1]
    np.testing.assert_allclose(forward, expected[0], rtol=1e-11)


@pytest.mark.slow
def test_derivative_of_the_state_along_a_section():
    """At z_2 = 0 the orbit crosses z_1 = sqrt(mu)."""

    def crossing(mu):
        return sv.periodic_orbit(hopf, START, 3.3, mu, OMEGA, BETA, phase=lambda x, *_: x[1], rtol=1e-13).state

    with_respect_to_mu = jax.jacfwd(crossing)(MU)
    np.testing.assert_allclose(with_respect_to_mu, [0.5 / math.sqrt(MU), 0], atol=1e-11)


@pytest.mark.slow
def test_second_derivative_of_the_period():
    def period(mu):
        return sv.periodic_orbit(hopf, START, 3.3, mu, OMEGA, BETA, rtol=1e-13, atol=1e-13).period

    expected = 4 * math.pi * BETA**2 / (OMEGA - BETA * MU) ** 3
    np.testing.assert_allclose(jax.grad(jax.grad(period))(MU), expected, rtol=1e-10)


@pytest.mark.slow
def test_multipliers_are_constants_that_say_so():
    def first(mu):
        return sv.periodic_orbit(hopf, START, 3.3, mu, OMEGA, BETA).multipliers.real[1]

    assert np.isnan(jax.grad(first)(MU))

    def periods(mus):
        # The loop asks for all results with zero cotangents for the multipliers.
        return jax.lax.map(lambda mu: sv.periodic_orbit(hopf, START, 3.3, mu, OMEGA, BETA), mus).period.sum()

    np.testing.assert_allclose(
        jax.grad(periods)(jnp.array([MU])), [2 * math.pi * BETA / (OMEGA - BETA * MU) ** 2], rtol=1e-7
    )


def test_van_der_pol():
    orbit = sv.periodic_orbit(oscillator, jnp.array([2.0, 0.1]), 6.5, 1.0, rtol=1e-12, atol=1e-12).check()
    # Runge-Kutta: 1.6e-5 with 100 steps to the period, 16 times less at each doubling, as the test below measures.
    np.testing.assert_allclose(orbit.period, VAN_DER_POL, atol=1e-7)


@pytest.mark.slow
def test_the_error_of_the_period_is_that_of_the_flow():
    """Fourth order in the step."""
    start = jnp.array([2.0, 0.1])
    errors = []
    for steps in (100, 200, 400):
        orbit = sv.periodic_orbit(
            lambda x, t, mu, n=steps: oscillator(x, t, mu, n), start, 6.5, 1.0, rtol=1e-13, atol=1e-13
        ).check()
        errors.append(abs(float(orbit.period) - VAN_DER_POL))
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    np.testing.assert_allclose(rates, 4, atol=0.2)


@pytest.mark.slow
def test_derivative_of_the_period_of_van_der_pol():
    def period(mu):
        return sv.periodic_orbit(oscillator, jnp.array([2.0, 0.1]), 6.5, mu, rtol=1e-12, atol=1e-12).period

    h = 1e-4
    # Central difference: h^2 T''' / 6 and 1e-12 / h, below 1e-7 together.
    expected = (period(1 + h) - period(1 - h)) / (2 * h)
    np.testing.assert_allclose(jax.grad(period)(1.0), expected, atol=1e-7)


def test_an_unstable_orbit_is_found_and_flagged():
    """Backwards in time the cycle repels; its multiplier is the inverse."""
    orbit = sv.periodic_orbit(lambda x, t, *p: hopf(x, -t, *p), jnp.array([0.83, 0.05]), 3.7, *PARAMETERS)
    assert orbit.status is sv.Status.UNSTABLE
    np.testing.assert_allclose(orbit.period, hopf_period(*PARAMETERS), rtol=1e-7)
    np.testing.assert_allclose(orbit.multipliers[0], math.exp(2 * MU * hopf_period(*PARAMETERS)), rtol=1e-6)
    with pytest.warns(UserWarning, match="UNSTABLE"):
        orbit.check()


@pytest.mark.slow
def test_an_equilibrium_is_no_orbit():
    def run(mu):
        return sv.periodic_orbit(hopf, jnp.array([1e-3, 0.0]), 3.0, mu, OMEGA, BETA, phase=lambda x, *_: x[0])

    orbit = run(-0.5)
    assert not orbit.status.ok
    assert np.isnan(jax.grad(lambda mu: run(mu).period)(-0.5))


def rings(n):
    """n weakly coupled oscillators on a ring: the complex Ginzburg-Landau equation, by Runge-Kutta."""

    def flow(z, time, mu, omega, beta):
        def rates(z):
            x, y = z
            size = x**2 + y**2
            spread = 0.5 * (jnp.roll(z, 1, 1) + jnp.roll(z, -1, 1) - 2 * z)
            return spread + jnp.stack(
                [mu * x - omega * y - size * (x - beta * y), omega * x + mu * y - size * (y + beta * x)]
            )

        return runge_kutta(rates, z, time, 80)

    return flow


@pytest.mark.slow
def test_many_unknowns_by_newton_krylov():
    """The oscillation in step: period as of one oscillator, and the slowest decay by diffusion of wave number one.

    Perturbations (a, b) of radius and phase of wave number k obey a' = -(2 mu + d) a and b' = -2 beta sqrt(mu) a - d b
    with d = 2 (1/2) (1 - cos k): the multipliers are exp(-d T) and exp(-(2 mu + d) T).
    """
    n = 64
    wobble = 1 + 0.05 * jnp.cos(2 * jnp.pi * jnp.arange(n) / n)
    start = jnp.stack([math.sqrt(MU) * wobble, 0 * wobble])
    orbit = sv.periodic_orbit(rings(n), start, 3.6, *PARAMETERS, multipliers=3).check()
    period = hopf_period(*PARAMETERS)
    # Runge-Kutta with 80 steps is off by about (omega dt)^4 / 120.
    np.testing.assert_allclose(orbit.period, period, rtol=1e-6)
    slowest = math.exp(-(1 - math.cos(2 * math.pi / n)) * period)
    np.testing.assert_allclose(np.abs(orbit.multipliers), [1, slowest, slowest], rtol=1e-5)


def test_bad_input():
    with pytest.raises(ValueError, match="period"):
        sv.periodic_orbit(hopf, START, -1.0, *PARAMETERS)
    with pytest.raises(ValueError, match="structure, shapes and dtypes"):
        sv.periodic_orbit(lambda x, t: x[:1], START, 1.0)
    with pytest.raises(TypeError, match="floating"):
        sv.periodic_orbit(hopf, jnp.array([1, 2]), 1.0, *PARAMETERS)
    for tolerances, words in (((1e-30, 0.0), "precision"), ((-1.0, None), "negative"), ((0.0, 0.0), "both zero")):
        with pytest.raises(ValueError, match=words):
            sv.periodic_orbit(hopf, START, 3.3, *PARAMETERS, rtol=tolerances[0], atol=tolerances[1])
    with pytest.raises(TypeError, match="must be an Adjoint"):
        # Without the checks of annotations that the tests switch on.
        inspect.unwrap(sv.periodic_orbit)(hopf, START, 3.3, *PARAMETERS, adjoint="dense")
    with pytest.raises(TypeError, match=r"Newton\(\)"):
        sv.periodic_orbit(hopf, START, 3.3, *PARAMETERS, method=sv.Newton)


def test_a_start_of_nan_is_told():
    orbit = sv.periodic_orbit(hopf, START.at[0].set(math.nan), 3.3, *PARAMETERS)
    assert orbit.status is sv.Status.NONFINITE
    with pytest.raises(sv.SolverError, match="NONFINITE"):
        orbit.check()


def test_a_new_captured_value_gives_a_new_orbit():
    """On the unit circle the angle turns at the rate that the flow captures."""
    rate = [2.0]

    def rotation(x, time):
        cos, sin = jnp.cos(rate[0] * time), jnp.sin(rate[0] * time)
        shrink = jnp.exp(-time) + (1 - jnp.exp(-time)) / jnp.linalg.norm(x)
        return shrink * jnp.stack([cos * x[0] - sin * x[1], sin * x[0] + cos * x[1]])

    for turns in (2.0, 2.2):
        rate[0] = turns
        orbit = sv.periodic_orbit(rotation, jnp.array([1.1, 0.0]), 3.0, multipliers=1).check()
        np.testing.assert_allclose(orbit.period, 2 * math.pi / turns, rtol=1e-7)


def test_new_values_trace_nothing():
    traces = itertools.count()

    def flow(x, time, *p):
        next(traces)
        return hopf(x, time, *p)

    sv.periodic_orbit(flow, START, 3.3, *PARAMETERS)
    before = next(traces)
    sv.periodic_orbit(flow, START + 0.01, 3.4, 0.6, 2.1, 0.4)
    # The check of shapes at the door evaluates nothing but traces once.
    assert next(traces) <= before + 2


@pytest.mark.slow
def test_float32():
    orbit = sv.periodic_orbit(hopf, START.astype(jnp.float32), 3.3, *map(jnp.float32, PARAMETERS)).check()
    assert orbit.period.dtype == orbit.state.dtype == jnp.float32
    # The tolerance 1e-5 of the residual is a shift along the orbit of 1e-5 T / (2 pi sqrt(mu)).
    np.testing.assert_allclose(orbit.period, hopf_period(*PARAMETERS), rtol=2e-5)
