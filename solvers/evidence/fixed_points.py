"""Rows on fixed points, roots, steady states and periodic orbits."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..core.status import Status
from ..fixed_points.anderson import Anderson
from ..fixed_points.doors import fixed_point, root
from ..fixed_points.newton import Newton
from ..fixed_points.newton_krylov import NewtonKrylov
from ..fixed_points.orbit import periodic_orbit
from ..fixed_points.picard import Picard
from ..fixed_points.solution import Solution
from ..fixed_points.steady import steady_state
from .record import Evidence, Row


def h_equation() -> Evidence:
    """d mean(H) / dc at c = 0.9999, by Newton; the mean is 2/c (1 - sqrt(1 - c)) at every number of nodes."""
    c = 0.9999

    def mean(c: Array) -> Array:
        return fixed_point(_h_map, jnp.ones(100), c, method=Newton(), rtol=1e-13, atol=1e-13).value.mean()

    ours = float(jax.grad(mean)(c))
    exact = -2 / c**2 * (1 - math.sqrt(1 - c)) + 1 / (c * math.sqrt(1 - c))
    # A residual of 1e-12 enlarged twice by 1 / sqrt(1 - c), with a factor of ten to spare.
    return Evidence(ours, exact, abs(ours / exact - 1), 1e-7)


def branch_jump() -> Evidence:
    """Anderson acceleration may land on the root without physical meaning; then the spectral radius exceeds 1."""
    found = fixed_point(_h_map, jnp.ones(100), 0.9999, method=Anderson(), rtol=1e-12, atol=0.0, max_steps=5000)
    physical = 2 / 0.9999 * (1 - math.sqrt(1 - 0.9999))
    jumped = abs(float(found.value.mean()) - physical) > 1e-3
    flagged = found.status is Status.UNSTABLE
    return Evidence(float(flagged), float(jumped), float(flagged != jumped), 0.0)


def contraction() -> Evidence:
    """Evaluations of Anderson(5) to a residual of 1e-10, spectrum spread over [0, 0.99]."""
    rates = jnp.linspace(0, 0.99, 100)
    found = fixed_point(lambda x: rates * x + 1.0, jnp.zeros(100), method=Anderson(), rtol=0.0, atol=1e-10)
    count = int(found.check().stats.evaluations)
    return Evidence(count, 380, max(count - 380, 0), 0.0)


def kinsol_analytic() -> Evidence:
    """Error of the second unknown after four plain iterations, which KINSOL prints."""

    def step(x: Array) -> Array:
        return jnp.stack(
            [
                jnp.cos((x[1] - 1) * x[2]) / 3 + 1 / 6,
                jnp.sqrt(x[0] ** 2 + jnp.sin(x[2]) + 1.06) / 9 + 0.9,
                -jnp.exp(-x[0] * (x[1] - 1)) / 20 - (10 * math.pi - 3) / 60,
            ]
        )

    found = fixed_point(step, jnp.array([0.1, 0.1, -0.1]), method=Picard(), rtol=0.0, atol=1.49012e-6).check()
    ours = abs(float(found.value[1]) - 1)
    # Half a unit of the last digit that is printed.
    return Evidence(ours, 4.482e-7, abs(ours - 4.482e-7), 5e-11)


def kinlaplace() -> Evidence:
    """|u| in the middle of lap(u) = u^3 - u - 2 at 31 x 31 nodes, to the digits that KINSOL prints."""

    def residual(u: Array) -> Array:
        return _five_point(u) + (2 + u - u**3) / 32**2

    found = root(residual, jnp.zeros((31, 31)), rtol=0.0, atol=1e-11).check()
    ours = float(found.value[15, 15])
    return Evidence(ours, 0.15564, abs(ours - 0.15564), 5e-6)


def bratu_fold() -> Evidence:
    """du(1/2) / d lambda of u'' + lambda e^u = 0 at lambda = 3.5, close to the fold at 3.5138, by extrapolation."""

    def slope(n: int) -> float:
        def middle(parameter: Array) -> Array:
            h = 1 / (n + 1)

            def residual(u: Array, parameter: Array) -> Array:
                padded = jnp.pad(u, 1)
                return padded[:-2] - 2 * u + padded[2:] + h**2 * parameter * jnp.exp(u)

            return root(residual, jnp.zeros(n), parameter, method=Newton(), rtol=0.0, atol=1e-13).value[n // 2]

        return float(jax.grad(middle)(3.5))

    # Second order on 64 and 128 intervals: what is left is of fourth order, enlarged by the fold.
    ours = (4 * slope(127) - slope(63)) / 3
    return Evidence(ours, 3.57485957983, abs(ours / 3.57485957983 - 1), 1e-4)


def bratu_2d() -> Evidence:
    """max u of lap(u) + 6 e^u = 0 at 31 x 31 nodes."""

    def residual(u: Array) -> Array:
        return -_five_point(u) - 6 / 32**2 * jnp.exp(u)

    found = root(residual, jnp.zeros((31, 31)), rtol=0.0, atol=1e-12).check()
    ours, theirs = float(found.value.max()), 0.79694986137
    return Evidence(ours, theirs, abs(ours - theirs), 1e-10)


def brusselator_mean() -> Evidence:
    """mean(u) = B + mean(source) of the steady Brusselator on 64 x 64 nodes."""
    found, mean = _brusselator(jnp.array([3.4, 1.0, 10.0]))
    ours = float(found.value[0].mean())
    return Evidence(ours, mean, abs(ours - mean), 1e-9)


def brusselator_derivative() -> Evidence:
    """d mean(u) / dB = 1, through the transposed preconditioner."""
    slope = jax.grad(lambda p: _brusselator(p)[0].value[0].mean())(jnp.array([3.4, 1.0, 10.0]))
    error = float(jnp.abs(slope - jnp.array([0.0, 1.0, 0.0])).max())
    return Evidence(float(slope[1]), 1.0, error, 1e-7)


def brusselator_products() -> Evidence:
    """Jacobian products of Newton-Krylov with the Fourier preconditioner."""
    count = int(_brusselator(jnp.array([3.4, 1.0, 10.0]))[0].stats.products)
    return Evidence(count, 15, max(count - 15, 0), 0.0)


def steady_heat() -> Evidence:
    """Steady state of an explicit stepper as a black box: u(1/2) of u'' + 2 = 0."""

    def step(u: Array) -> Array:
        padded = jnp.pad(u, 1)
        return u + 0.25 * (padded[:-2] - 2 * u + padded[2:] + 2 / 52**2)

    found = steady_state(step, jnp.zeros(51), rtol=1e-12, atol=0.0).check()
    return Evidence(float(found.value[25]), 0.25, abs(float(found.value[25]) - 0.25), 1e-9)


def period() -> Evidence:
    """Period of van der Pol's oscillator at mu = 1, 1000 Runge-Kutta steps."""
    orbit = periodic_orbit(_van_der_pol, jnp.array([2.0, 0.1]), 6.5, 1.0, rtol=1e-13, atol=1e-13).check()
    exact = 6.6632868593231301896996820305
    # Fourth order: 6.7e-8 with 400 steps, 40 times less here.
    return Evidence(float(orbit.period), exact, abs(float(orbit.period) - exact), 3e-9)


def _h_map(x: Array, c: Array) -> Array:
    mu = (np.arange(x.size) + 0.5) / x.size
    return 1 / (1 - c / (2 * x.size) * (mu[:, None] / (mu[:, None] + mu)) @ x)


def _five_point(u: Array) -> Array:
    p = jnp.pad(u, 1)
    return p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * u


def _van_der_pol(x: Array, time: Array, mu: Array) -> Array:
    dt = time / 1000

    def rates(x: Array) -> Array:
        return jnp.stack([x[1], mu * (1 - x[0] ** 2) * x[1] - x[0]])

    def step(x: Array, _: None) -> tuple[Array, None]:
        first = rates(x)
        second = rates(x + dt / 2 * first)
        third = rates(x + dt / 2 * second)
        fourth = rates(x + dt * third)
        return x + dt / 6 * (first + 2 * second + 2 * third + fourth), None

    return jax.lax.scan(step, x, None, length=1000)[0]


def _brusselator(p: Array) -> tuple[Solution, float]:
    """The steady state for p = (A, B, alpha), and the exact mean of u at B = 1."""
    n = 64
    x = np.linspace(0, 1, n)
    source = 5.0 * ((x[:, None] - 0.3) ** 2 + (x - 0.6) ** 2 <= 0.1**2)
    k = 2 - 2 * np.cos(2 * np.pi * np.arange(n) / n)
    symbol = -(k[:, None] + k) * (n - 1) ** 2

    def rates(state: Array, p: Array) -> Array:
        u, v = state
        around = sum(jnp.roll(state, shift, axis) for shift in (-1, 1) for axis in (1, 2)) - 4 * state
        reaction = jnp.stack([p[1] + u**2 * v - (p[0] + 1) * u + source, p[0] * u - u**2 * v])
        return reaction + p[2] * (n - 1) ** 2 * around

    def inverse(r: Array, state: Array, p: Array) -> Array:
        """That of the Jacobian with the means in place of the fields: 2 x 2 blocks of Fourier coefficients."""
        u, v = jnp.mean(state, axis=(1, 2))
        first, second = jnp.fft.fft2(r)
        a, b, c, d = 2 * u * v - p[0] - 1 + p[2] * symbol, u**2, p[0] - 2 * u * v, p[2] * symbol - u**2
        solved = jnp.stack([d * first - b * second, a * second - c * first]) / (a * d - b * c)
        return jnp.real(jnp.fft.ifft2(solved))

    bump = (x * (1 - x)) ** 1.5
    start = jnp.stack([jnp.broadcast_to(22 * bump, (n, n)), jnp.broadcast_to(27 * bump[:, None], (n, n))])
    found = root(rates, start, p, method=NewtonKrylov(preconditioner=inverse), rtol=1e-10, atol=1e-9)
    return found, 1.0 + float(source.mean())


ROWS = (
    Row("fixed-h-equation", "d mean(H) / dc at c = 0.9999; relative error", "Chandrasekhar 1960", h_equation),
    Row("fixed-branch-jump", "jump to the other root flagged (1) or not (0)", "closed form", branch_jump),
    Row("fixed-contraction", "evaluations to 1e-10, radius 0.99, at most", "JAXopt 0.8.5: > 5000", contraction),
    Row(
        "fixed-kinsol",
        "error after four plain iterations, all printed digits",
        "KINSOL, kinAnalytic_fp",
        kinsol_analytic,
    ),
    Row("fixed-kinlaplace", "|u| in the middle", "KINSOL, kinLaplace", kinlaplace),
    Row("fixed-bratu-1d", "du(1/2) / d lambda near the fold; relative", "Bratu 1914", bratu_fold),
    Row("fixed-bratu-2d", "max u at lambda = 6, 31 x 31", "five-point scheme", bratu_2d),
    Row("fixed-brusselator", "mean(u) at rest, 64 x 64", "B + mean(source)", brusselator_mean),
    Row(
        "fixed-brusselator-slope", "d mean(u) / dB; error of all three", "1, and 0 by A, alpha", brusselator_derivative
    ),
    Row("fixed-brusselator-products", "Jacobian products, at most", "cap", brusselator_products),
    Row("fixed-steady", "u(1/2) of a black-box stepper", "parabola", steady_heat),
    Row("fixed-orbit", "period of van der Pol's oscillator", "high-precision series", period),
)
