"""Equations with known answers, for the tests of fixed points, roots and steady states."""

import math

import jax
import jax.numpy as jnp
import numpy as np

# ---- Chandrasekhar's H-function: x = 1 / (1 - c/2 mean_j mu_i x_j / (mu_i + mu_j)) by the midpoint rule ----


def h_map(x, c):
    """H -> 1 / (1 - c/2 int mu H(nu) / (mu + nu) dnu) at n midpoints."""
    mu = (np.arange(x.size) + 0.5) / x.size
    kernel = jnp.asarray(mu[:, None] / (mu[:, None] + mu), x.dtype)
    return 1 / (1 - c / (2 * x.size) * (kernel @ x))


def h_mean(c):
    """Mean of the physical solution, at every n: 1 - c m / 2 = sqrt(1 - c) for m the mean."""
    return 2 / c * (1 - math.sqrt(1 - c))


def h_other_mean(c):
    """Mean of the solution that has no physical meaning, with the other sign of the root."""
    return 2 / c * (1 + math.sqrt(1 - c))


def h_mean_slope(c):
    """d mean / dc of the physical solution."""
    return -2 / c**2 * (1 - math.sqrt(1 - c)) + 1 / (c * math.sqrt(1 - c))


# ---- Bratu: laplacian(u) + lambda exp(u) = 0, u = 0 on the boundary ----


def bratu_1d(u, parameter):
    """Residual h^2 (u'' + lambda e^u) at n inner nodes of (0, 1)."""
    h = 1 / (u.size + 1)
    padded = jnp.pad(u, 1)
    return padded[:-2] - 2 * u + padded[2:] + h**2 * parameter * jnp.exp(u)


def bratu_1d_middle(parameter):
    """u(1/2) = 2 ln cosh(theta / 4) of the lower branch, theta = sqrt(2 lambda) cosh(theta / 4); and its slope."""
    theta = 0.0
    for _ in range(200):
        # Newton from below, where the equation is convex: it climbs to the lower root.
        value = theta - math.sqrt(2 * parameter) * math.cosh(theta / 4)
        theta -= value / (1 - math.sqrt(2 * parameter) / 4 * math.sinh(theta / 4))
    root = math.sqrt(2 * parameter)
    rate = math.cosh(theta / 4) / root / (1 - root / 4 * math.sinh(theta / 4))
    return 2 * math.log(math.cosh(theta / 4)), math.tanh(theta / 4) / 2 * rate


BRATU_FOLD = 3.513830719125161


def five_point(u):
    """h^2 times the Laplacian on a square with zero boundary values."""
    p = jnp.pad(u, 1)
    return p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * u


def bratu_2d(u, parameter):
    """Residual -h^2 (laplacian(u) + lambda e^u) at n x n inner nodes of the unit square."""
    h = 1 / (u.shape[0] + 1)
    return -five_point(u) - h**2 * parameter * jnp.exp(u)


# max u of the 5-point scheme, by (n, lambda).
BRATU_2D = {
    (15, 6.0): 0.79648903006,
    (31, 6.0): 0.79694986137,
    (63, 6.0): 0.79706900063,
    (15, 1.0): 0.07787404708,
    (31, 1.0): 0.07804406296,
    (63, 1.0): 0.07808676917,
}

# ---- Examples of KINSOL ----

KINSOL_SOLUTION = np.array([0.5, 1.0, -math.pi / 6])
KINSOL_START = np.array([0.1, 0.1, -0.1])
KINSOL_TOLERANCE = 1.49012e-6


def kinsol_map(x):
    """The fixed-point function of `kinAnalytic_fp`."""
    return jnp.stack(
        [
            jnp.cos((x[1] - 1) * x[2]) / 3 + 1 / 6,
            jnp.sqrt(x[0] ** 2 + jnp.sin(x[2]) + 1.06) / 9 + 0.9,
            -jnp.exp(-x[0] * (x[1] - 1)) / 20 - (10 * math.pi - 3) / 60,
        ]
    )


def kinlaplace(u):
    """`kinLaplace_bnd`: h^2 (laplacian(u) - u^3 + u + 2) = 0 at 31 x 31 inner nodes.

    KINSOL prints the equation lap(u) = u^3 - u + 2 and the answer u = 0.15564 at the centre, which belongs to
    lap(u) = u^3 - u - 2; the printed equation has its negative.
    """
    h = 1 / (u.shape[0] + 1)
    return five_point(u) + h**2 * (2 + u - u**3)


KINLAPLACE_CENTRE = 0.15564499701


# ---- Brusselator, periodic, with a source in a disc: the steady state of the benchmarks of NonlinearSolve.jl ----


def disc(n):
    """Source 5 in the disc of radius 0.1 about (0.3, 0.6); n nodes from 0 to 1 with both ends, as in the literature."""
    x = np.linspace(0, 1, n)
    return 5.0 * ((x[:, None] - 0.3) ** 2 + (x - 0.6) ** 2 <= 0.1**2)


def periodic_laplacian(u):
    """Five points on a periodic square with spacing 1 / (n - 1), over the last two axes."""
    around = sum(jnp.roll(u, shift, axis) for shift in (-1, 1) for axis in (-2, -1))
    return (around - 4 * u) * (u.shape[-1] - 1) ** 2


def brusselator(state, a, b, alpha, source):
    """Rates of (u, v): B + u^2 v - (A + 1) u + alpha lap(u) + source, A u - u^2 v + alpha lap(v)."""
    u, v = state
    return jnp.stack(
        [
            b + u**2 * v - (a + 1) * u + alpha * periodic_laplacian(u) + source,
            a * u - u**2 * v + alpha * periodic_laplacian(v),
        ]
    )


# ---- A layer of a deep equilibrium model ----


def deq_cell(y, weights, inputs):
    """tanh(W y + p)."""
    return jnp.tanh(weights @ y + inputs)


def deq_weights(key, n, gain):
    """A random matrix scaled to the spectral norm `gain`."""
    w = jax.random.normal(key, (n, n)) / math.sqrt(n)
    return gain * w / jnp.linalg.norm(w, 2)
