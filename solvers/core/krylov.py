"""Matrix-free solution of linear equations by Krylov methods that count, tell their status and can be transposed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from .checks import is_whole
from .packing import norm2
from .status import Status

RUNNING = -1
Map = Callable[[Array], Array]


class LinearStats(NamedTuple):
    """How a linear solve went.

    Attributes:
        iterations: steps of the method.
        products: products with the matrix, those that check the residual included.
        residual: norm2(b - A x), computed from x itself.
        tolerance: what the residual had to come below, max(atol, rtol * norm2(b)).
        code: status as an integer.
    """

    iterations: Array
    products: Array
    residual: Array
    tolerance: Array
    code: Array


class Gmres(eqx.Module):
    """Generalised minimal residuals for any invertible matrix, preconditioned from the right, restarted.

    Minimises norm2(b - A x) over x in x_0 + P K_k(A P, r_0). One product per iteration, and one per cycle to compute
    the true residual, on which alone success is judged. Memory: `restart` + 1 vectors.

    Args:
        restart: iterations per cycle.
        max_steps: largest number of products.

    Raises:
        ValueError: for numbers below 1.

    Example:
        >>> Gmres(restart=20)
        Gmres(restart=20)

    Reference:
        Y. Saad, M. H. Schultz, SIAM J. Sci. Stat. Comput. 7 (1986) 856; Saad, Iterative Methods for Sparse Linear
        Systems (2003), algorithm 9.5 (right preconditioning).
    """

    restart: int = eqx.field(static=True, default=30)
    max_steps: int = eqx.field(static=True, default=1000)

    def __check_init__(self):
        check_counts(restart=self.restart, max_steps=self.max_steps)

    def solve(self, matvec: Map, b: Array, x: Array | None, precondition: Map, tolerance: Array) -> tuple:
        """Solve A x = b from vectors; returns (x, LinearStats)."""
        m = max(min(self.restart, b.shape[0]), 1)

        def cycle(r: Array, beta: Array, most: Array) -> tuple:
            return _cycle(matvec, precondition, r, beta, tolerance, m, most)

        return in_cycles(cycle, matvec, b, x, tolerance, self.max_steps)


def in_cycles(
    cycle: Callable[[Array, Array, Array], tuple],
    matvec: Map,
    b: Array,
    x: Array | None,
    tolerance: Array,
    max_products: int,
) -> tuple[Array, LinearStats]:
    """Solve A x = b by `x <- x + cycle(r, norm2(r), products left)` until the true residual is small enough.

    `cycle` solves A d = r by its own estimate of the residual and returns (d, iterations, products). What it claims
    is checked with one product more; where the check fails, another cycle starts from there. A cycle that gains less
    than a percent is the last one.
    """
    start, r, products = _begin(matvec, b, x)
    beta = norm2(r)

    def outer(s: tuple) -> tuple:
        x, r, beta, iterations, products, _ = s
        step, steps, spent = cycle(r, beta, max_products - products)
        new = x + step
        r_new = b - matvec(new)
        beta_new = norm2(r_new)
        products = products + spent + 1
        better = beta_new < beta
        code = _judge(beta_new, tolerance, products, max_products)
        stuck = (code == RUNNING) & ~(beta_new < 0.99 * beta)
        code = jnp.where(stuck, int(Status.STAGNATED), code)
        x, r = jnp.where(better, new, x), jnp.where(better, r_new, r)
        return x, r, jnp.where(better, beta_new, beta), iterations + steps, products, code

    zero = jnp.zeros((), jnp.int32)
    state = (start, r, beta, zero, products, _judge(beta, tolerance, products, max_products))
    x, r, beta, iterations, products, code = lax.while_loop(lambda s: s[-1] == RUNNING, outer, state)
    return x, LinearStats(iterations, products, beta, tolerance, code)


def check_counts(**counts: Any) -> None:
    """ValueError unless all are whole numbers of at least 1."""
    for name, value in counts.items():
        if not is_whole(value) or value < 1:
            raise ValueError(f"`{name}` must be a whole number of at least 1, got {value!r}.")


def _begin(matvec: Map, b: Array, x: Array | None) -> tuple[Array, Array, Array]:
    """Start, residual, products so far: none if the start is zero."""
    if x is None:
        return jnp.zeros_like(b), b, jnp.zeros((), jnp.int32)
    return x, b - matvec(x), jnp.ones((), jnp.int32)


def _judge(residual: Array, tolerance: Array, products: Array, most: int) -> Array:
    code = jnp.where(products >= most, int(Status.MAX_STEPS), RUNNING)
    code = jnp.where(jnp.isfinite(residual), code, int(Status.NONFINITE))
    return jnp.where(residual <= tolerance, int(Status.CONVERGED), code).astype(jnp.int32)


class _Arnoldi(NamedTuple):
    k: Array
    basis: Array  # rows are orthonormal
    turn: Array  # product of the Givens rotations so far
    triangle: Array
    g: Array  # rotated right-hand side; its last entry is the residual
    done: Array


def _cycle(matvec: Map, precondition: Map, r: Array, beta: Array, tolerance: Array, m: int, most: Array) -> tuple:
    """At most m steps of GMRES for A d = r: (d, steps, products)."""
    eps = jnp.finfo(r.dtype).eps
    unit = r / jnp.where(beta > 0, beta, 1)
    basis = jnp.zeros((m + 1, r.shape[0]), r.dtype).at[0].set(unit)
    g = jnp.zeros(m + 1, r.dtype).at[0].set(beta)
    start = _Arnoldi(
        jnp.zeros((), jnp.int32), basis, jnp.eye(m + 1, dtype=r.dtype), jnp.eye(m, dtype=r.dtype), g, beta <= tolerance
    )

    def go(s: _Arnoldi) -> Array:
        # One product is kept for the true residual at the end of the cycle.
        return (s.k < m) & ((s.k == 0) | (s.k + 1 < most)) & ~s.done

    def step(s: _Arnoldi) -> _Arnoldi:
        k = s.k
        w = matvec(precondition(s.basis[k]))
        size = norm2(w)
        h = jnp.zeros(m + 1, r.dtype)
        # Classical Gram-Schmidt, twice: as orthogonal as round-off allows, in matrix products.
        for _ in range(2):
            c = jnp.dot(s.basis, w, precision=lax.Precision.HIGHEST)
            w = w - jnp.dot(c, s.basis, precision=lax.Precision.HIGHEST)
            h = h + c
        rest = norm2(w)
        lost = ~(rest > 10 * eps * size)
        rest = jnp.where(lost & jnp.isfinite(rest), 0, rest)
        basis = s.basis.at[k + 1].set(jnp.where(rest > 0, w / jnp.where(rest > 0, rest, 1), 0))
        column = jnp.dot(s.turn, h.at[k + 1].set(rest), precision=lax.Precision.HIGHEST)
        a, b = column[k], column[k + 1]
        length = jnp.hypot(a, b)
        # A zero column: the matrix is singular on the Krylov space, and this direction is of no use.
        useless = ~(length > eps * size)
        cos, sin = (jnp.where(useless, one, v / jnp.where(useless, 1, length)) for one, v in ((1, a), (0, b)))
        upper, lower = s.turn[k], s.turn[k + 1]
        turn = s.turn.at[k].set(cos * upper + sin * lower).at[k + 1].set(cos * lower - sin * upper)
        column = jnp.where(jnp.arange(m + 1) < k, column, 0).at[k].set(jnp.where(useless, 1, length))
        triangle = s.triangle.at[:, k].set(column[:m])
        g = s.g.at[k].set(jnp.where(useless, 0, cos * s.g[k])).at[k + 1].set(-sin * s.g[k])
        # The estimate drifts from the true residual by round-off; a thousandth spares a second cycle.
        done = useless | (rest == 0) | ~jnp.isfinite(rest) | (jnp.abs(g[k + 1]) <= 0.999 * tolerance)
        return _Arnoldi(k + 1, basis, turn, triangle, g, done)

    s = lax.while_loop(go, step, start)
    y = jax.scipy.linalg.solve_triangular(s.triangle, jnp.where(jnp.arange(m) < s.k, s.g[:m], 0))
    return precondition(jnp.dot(y, s.basis[:m], precision=lax.Precision.HIGHEST)), s.k, s.k
