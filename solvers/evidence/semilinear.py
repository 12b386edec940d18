"""Semilinear equations in periodic boxes against exact solutions and published numbers."""

import jax
import jax.numpy as jnp
import numpy as np

from ..core.grid import Grid
from ..core.loop import simulate
from ..core.verify import check_order
from ..pde.linear_equations import AdvectionDiffusion
from ..pde.pattern_equations import FisherKPP
from ..pde.transport_equations import Burgers, KortewegDeVries, KuramotoSivashinsky
from .record import Evidence, Row


def advection_diffusion() -> Evidence:
    """A wave after one long step, u = exp(-D k^2 t) cos(k (x - c t)); value at the first node, largest error."""
    grid = Grid(32, 2 * np.pi / 32)
    x, time = grid.axes()[0], 7.3
    run = simulate(AdvectionDiffusion(grid, 1.3, 0.02), jnp.cos(3 * jnp.asarray(x)), steps=1, dt=time).check()
    exact = np.exp(-0.02 * 9 * time) * np.cos(3 * (x - 1.3 * time))
    ours = np.asarray(run.final)
    # A phase of 3 * 1.3 * 7.3 = 28 radians carries 28 roundings; the transforms a few.
    return Evidence(float(ours[0]), float(exact[0]), float(np.abs(ours - exact).max()), 40 * np.finfo(ours.dtype).eps)


def burgers() -> Evidence:
    """u_0 = sin x, nu = 0.1, t = 1.5: peak and largest error."""
    from scipy.special import ive

    viscosity, time = 0.1, 1.5
    grid = Grid(192, 2 * np.pi / 192)
    x, n = grid.axes()[0], np.arange(1, 60)
    weights = 2 * ive(n, 0.5 / viscosity) * np.exp(-(n**2) * viscosity * time)
    angle = np.multiply.outer(x, n)
    exact = 2 * viscosity * (np.sin(angle) @ (n * weights)) / (ive(0, 0.5 / viscosity) + np.cos(angle) @ weights)
    run = simulate(Burgers(grid, viscosity), jnp.sin(jnp.asarray(x)), steps=600, dt=time / 600).check()
    error = float(np.abs(np.asarray(run.final) - exact).max())
    return Evidence(float(run.final.max()), float(exact.max()), error, 1e-9)


def soliton_speed() -> Evidence:
    """Speed of a soliton from the phase of its first mode after t = 20."""
    speed, time, length = 1.5, 20.0, 60.0
    grid = Grid(256, length / 256)
    x = grid.axes()[0]
    start = 0.5 * speed / np.cosh(0.5 * np.sqrt(speed) * (x - length / 2)) ** 2
    run = simulate(KortewegDeVries(grid), jnp.asarray(start), steps=4000, dt=time / 4000).check()
    wave = np.exp(-2j * np.pi * x / length)
    turned = -np.angle((np.asarray(run.final) @ wave) / (start @ wave)) % (2 * np.pi)
    ours = float(turned * length / (2 * np.pi) / time)
    # The images one period away move it by their tail, exp(-sqrt(c) 60) and less; 5e-9 is the error of the time steps.
    return Evidence(ours, speed, abs(ours - speed), 1e-7)


def order_in_time() -> Evidence:
    """Measured order of ETDRK4 on Burgers' equation."""
    grid = Grid(96, 2 * np.pi / 96)
    start = jnp.sin(jnp.asarray(grid.axes()[0]))

    def last(steps: int) -> np.ndarray:
        return np.asarray(simulate(Burgers(grid, 0.2), start, steps=steps, dt=1 / steps).check().final)

    exact = last(1280)
    report = check_order([float(np.abs(last(n) - exact).max()) for n in (20, 40, 80)], (20, 40, 80), expected=4)
    return Evidence(report.fit, 4.0, abs(report.fit - 4.0), 0.2)


def front_speed() -> Evidence:
    """Speed of the front of Ablowitz and Zeppetella, 5 / sqrt(6), from where u = 1/2."""
    grid = Grid(512, 240 / 512, origin=-120.0)
    x = grid.axes()[0]
    start = (1 + np.exp((np.abs(x) - 30) / np.sqrt(6))) ** -2.0
    run = simulate(
        FisherKPP(grid, 1.0), jnp.asarray(start), steps=1000, dt=0.02, observe=lambda u: u, every=500
    ).check()

    def front(u: np.ndarray) -> float:
        right = x > 0
        return float(np.interp(0.0, (0.5 - u)[right], x[right]))

    places = [front(np.asarray(u)) for u in run.observed]
    ours = (places[1] - places[0]) / 10.0
    # Linear interpolation between nodes: h^2 u'' / 8 / u' = 1e-2 at most in the place, over 10 units of time.
    return Evidence(ours, 5 / np.sqrt(6), abs(ours - 5 / np.sqrt(6)), 2e-3)


def lyapunov_exponent() -> Evidence:
    """Largest Lyapunov exponent of the Kuramoto-Sivashinsky equation at L = 22, over 20 000 units of time."""
    grid = Grid(48, 22 / 48)
    stepper = KuramotoSivashinsky(grid).stepper(jnp.asarray(0.1))
    u = stepper.enter(
        jnp.asarray(np.cos(2 * np.pi * grid.axes()[0] / 22) + 0.3 * np.sin(6 * np.pi * grid.axes()[0] / 22))
    )

    @jax.jit
    def advance(u: jax.Array, du: jax.Array) -> tuple:
        def stretch(carry: tuple, _: None) -> tuple:
            def step(carry: tuple, _: None) -> tuple:
                return jax.jvp(lambda u: stepper.step(u, None), carry[:1], carry[1:]), None

            (u, du), _ = jax.lax.scan(step, carry, None, length=100)
            growth = jnp.linalg.norm(du)
            return (u, du / growth), jnp.log(growth)

        return jax.lax.scan(stretch, (u, du), None, length=2000)

    key = jax.random.normal(jax.random.key(0), (grid.shape[0],))
    (u, du), _ = advance(u, stepper.enter(key - jnp.mean(key)))
    _, logs = advance(u, du)
    ours = float(jnp.mean(logs)) / 10.0
    # The published value has two digits; the mean over 20 000 units of time scatters by about 0.001.
    return Evidence(ours, 0.048, abs(ours - 0.048), 4e-3)


ROWS = (
    Row("periodic-linear", "advection-diffusion, one step; largest error", "exact solution", advection_diffusion),
    Row("periodic-burgers", "Burgers, peak; largest error", "Cole-Hopf", burgers),
    Row("periodic-soliton", "speed of a KdV soliton", "Korteweg, de Vries 1895", soliton_speed),
    Row("periodic-etdrk4", "order in time of ETDRK4", "Cox, Matthews 2002", order_in_time),
    Row("periodic-front", "speed of a Fisher front", "Ablowitz, Zeppetella 1979", front_speed),
    Row("periodic-chaos", "Lyapunov exponent, KS, L = 22", "Cvitanovic et al. 2010", lyapunov_exponent),
)
