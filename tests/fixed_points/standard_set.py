"""The 23 standard systems of nonlinear equations, F(x) = 0.

Functions and starts of J. J. More, B. S. Garbow, K. E. Hillstrom, ACM Trans. Math. Softw. 7 (1981) 17 (numbers 1 to
14), of S. Hammarling, J. E. Dennis and R. B. Schnabel, P. T. Boggs, F. Freudenstein and B. Roth, and C. T. Kelley (the
rest), as J. Burkardt's collection `test_nonlin` gathers them; sizes as in the collection of NonlinearSolve.jl. Watson's
function is the gradient of half the sum of squares of the 1981 paper: later copies carry a slip in its last two terms.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax


class Problem(NamedTuple):
    """F, a start and, where one is known in closed form, a solution."""

    number: int
    name: str
    residual: Callable[[Array], Array]
    start: np.ndarray
    solution: np.ndarray | None = None


def rosenbrock(x):
    return jnp.concatenate([1 - x[:1], 10 * (x[1:] - x[:-1] ** 2)])


def powell_singular(x):
    return jnp.stack([x[0] + 10 * x[1], 5**0.5 * (x[2] - x[3]), (x[1] - 2 * x[2]) ** 2, 10**0.5 * (x[0] - x[3]) ** 2])


def powell_badly_scaled(x):
    return jnp.stack([1e4 * x[0] * x[1] - 1, jnp.exp(-x[0]) + jnp.exp(-x[1]) - 1.0001])


def wood(x):
    first, second = x[1] - x[0] ** 2, x[3] - x[2] ** 2
    return jnp.stack(
        [
            -200 * x[0] * first - (1 - x[0]),
            200 * first + 20.2 * (x[1] - 1) + 19.8 * (x[3] - 1),
            -180 * x[2] * second - (1 - x[2]),
            180 * second + 20.2 * (x[3] - 1) + 19.8 * (x[1] - 1),
        ]
    )


def helical_valley(x):
    # The angle runs over (-1/4, 3/4) turns: the jump lies on the negative second axis, as in the paper.
    safe = jnp.where(x[0] == 0, 1.0, x[0])
    turns = jnp.arctan(x[1] / safe) / (2 * jnp.pi) + jnp.where(x[0] < 0, 0.5, 0.0)
    turns = jnp.where(x[0] == 0, 0.25 * jnp.sign(x[1]), turns)
    return jnp.stack([10 * (x[2] - 10 * turns), 10 * (jnp.sqrt(x[0] ** 2 + x[1] ** 2) - 1), x[2]])


def watson(x):
    powers = np.arange(x.size)
    t = np.arange(1, 30) / 29
    rows = t[:, None] ** powers
    slopes = powers * t[:, None] ** np.maximum(powers - 1, 0)
    series = rows @ x
    misfit = slopes @ x - series**2 - 1
    gradient = (slopes - 2 * series[:, None] * rows).T @ misfit
    last = x[1] - x[0] ** 2 - 1
    return gradient.at[0].add(x[0] - 2 * x[0] * last).at[1].add(last)


def chebyquad(x):
    previous, current, rows = jnp.ones_like(x), x, []
    for degree in range(1, x.size + 1):
        integral = 0.0 if degree % 2 else 1 / (degree**2 - 1)
        rows.append(jnp.mean(current) + integral)
        previous, current = current, 2 * x * current - previous
    return jnp.stack(rows)


def brown_almost_linear(x):
    return (x + jnp.sum(x) - (x.size + 1)).at[-1].set(jnp.prod(x) - 1)


def discrete_boundary_value(x):
    h = 1 / (x.size + 1)
    t = h * np.arange(1, x.size + 1)
    padded = jnp.pad(x, 1)
    return 2 * x - padded[:-2] - padded[2:] + h**2 / 2 * (x + t + 1) ** 3


def discrete_integral_equation(x):
    h = 1 / (x.size + 1)
    t = h * np.arange(1, x.size + 1)
    green = np.minimum(t[:, None], t) * (1 - np.maximum(t[:, None], t))
    return x + h / 2 * green @ (x + t + 1) ** 3


def trigonometric(x):
    k = np.arange(1, x.size + 1)
    return x.size - jnp.sum(jnp.cos(x)) + k * (1 - jnp.cos(x)) - jnp.sin(x)


def variably_dimensioned(x):
    k = np.arange(1, x.size + 1)
    total = k @ (x - 1)
    return x - 1 + k * total * (1 + 2 * total**2)


def broyden_tridiagonal(x):
    padded = jnp.pad(x, 1)
    return (3 - 2 * x) * x + 1 - padded[:-2] - 2 * padded[2:]


def broyden_banded(x):
    i, j = np.indices((x.size, x.size))
    band = ((j >= i - 5) & (j <= i + 1) & (j != i)).astype(float)
    return x * (2 + 5 * x**2) + 1 - band @ (x * (1 + x))


def hammarling(x):
    """The square root of a matrix with 1e-4 on its diagonal and one 1 above it."""
    n = round(x.size**0.5)
    square = x.reshape(n, n) @ x.reshape(n, n)
    return (square - 1e-4 * np.eye(n)).at[0, 1].add(-1.0).ravel()


def dennis_schnabel(x):
    return jnp.stack([x[0] + x[1] - 3, x[0] ** 2 + x[1] ** 2 - 9])


def sample_18(x):
    def ratio(t):
        safe = jnp.where(t == 0, 1.0, t)
        return jnp.where(t == 0, t, -jnp.expm1(-(safe**2)) / safe)

    return jnp.stack([x[1] ** 2 * ratio(x[0]), x[0] * ratio(x[1])])


def sample_19(x):
    return x * jnp.sum(x**2)


def double_root(x):
    return x * (x - 5) ** 2


def freudenstein_roth(x):
    return jnp.stack([x[0] - x[1] ** 3 + 5 * x[1] ** 2 - 2 * x[1] - 13, x[0] + x[1] ** 3 + x[1] ** 2 - 14 * x[1] - 29])


def boggs(x):
    return jnp.stack([x[0] ** 2 - x[1] + 1, x[0] - jnp.cos(jnp.pi / 2 * x[1])])


def chandrasekhar(x, c=0.9):
    mu = (np.arange(x.size) + 0.5) / x.size
    return x - 1 / (1 - c / (2 * x.size) * (mu[:, None] / (mu[:, None] + mu)) @ x)


def _parabola(n):
    i = np.arange(1, n + 1)
    return i * (i - n - 1) / (n + 1) ** 2


PROBLEMS = (
    Problem(1, "generalized Rosenbrock", rosenbrock, np.array([-1.2] + 9 * [1.0]), np.ones(10)),
    Problem(2, "Powell singular", powell_singular, np.array([3.0, -1.0, 0.0, 1.0]), np.zeros(4)),
    Problem(3, "Powell badly scaled", powell_badly_scaled, np.array([0.0, 1.0])),
    Problem(4, "Wood", wood, np.array([-3.0, -1.0, -3.0, -1.0]), np.ones(4)),
    Problem(5, "helical valley", helical_valley, np.array([-1.0, 0.0, 0.0]), np.array([1.0, 0.0, 0.0])),
    Problem(6, "Watson", watson, np.zeros(2)),
    Problem(7, "Chebyquad", chebyquad, np.array([-1.0, 1.0]) / 3, np.array([-1.0, 1.0]) / 3**0.5),
    Problem(8, "Brown almost linear", brown_almost_linear, np.full(10, 0.5), np.ones(10)),
    Problem(9, "discrete boundary value", discrete_boundary_value, _parabola(10)),
    Problem(10, "discrete integral equation", discrete_integral_equation, _parabola(10)),
    Problem(11, "trigonometric", trigonometric, np.full(10, 0.1)),
    Problem(12, "variably dimensioned", variably_dimensioned, 1 - np.arange(1, 11) / 10, np.ones(10)),
    Problem(13, "Broyden tridiagonal", broyden_tridiagonal, -np.ones(10)),
    Problem(14, "Broyden banded", broyden_banded, -np.ones(10)),
    Problem(15, "Hammarling 2 by 2", hammarling, np.eye(2).ravel(), np.array([0.01, 50.0, 0.0, 0.01])),
    Problem(
        16,
        "Hammarling 3 by 3",
        hammarling,
        np.eye(3).ravel(),
        np.array([0.01, 50.0, 0.0, 0.0, 0.01, 0.0, 0.0, 0.0, 0.01]),
    ),
    Problem(17, "Dennis and Schnabel", dennis_schnabel, np.array([1.0, 5.0]), np.array([0.0, 3.0])),
    Problem(18, "sample problem 18", sample_18, np.array([2.0, 2.0]), np.zeros(2)),
    Problem(19, "sample problem 19", sample_19, np.array([3.0, 3.0]), np.zeros(2)),
    Problem(20, "x (x - 5)^2", double_root, np.array([1.0]), np.array([5.0])),
    Problem(21, "Freudenstein and Roth", freudenstein_roth, np.array([0.5, -2.0]), np.array([5.0, 4.0])),
    Problem(22, "Boggs", boggs, np.array([1.0, 0.0]), np.array([0.0, 1.0])),
    Problem(23, "Chandrasekhar", chandrasekhar, np.ones(10)),
)

LARGEST = max(p.start.size for p in PROBLEMS)


def padded_start(problem):
    """The start of a problem, with zeros up to ten unknowns."""
    return jnp.pad(jnp.asarray(problem.start), (0, LARGEST - problem.start.size))


def any_residual(x, number):
    """F of the problem of this number, in its first unknowns; the others are their own residual.

    One function for the whole set, so that a method is compiled once and not 23 times. Newton and Krylov steps are
    those of the problem alone: what is added is solved at the start.
    """

    def of(problem):
        n = problem.start.size
        return lambda x: jnp.concatenate([problem.residual(x[:n]), x[n:]])

    return lax.switch(number - 1, [of(p) for p in PROBLEMS], x)
