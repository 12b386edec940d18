"""Matrix-free solution of linear equations by Krylov methods that count, tell their status and can be transposed."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array

from .checks import is_whole
from .packing import hoist, norm2
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
    """Processes side by side, one per right-hand side, at the same step."""

    k: Array
    basis: Array  # by step, by process; rows are orthonormal
    turn: Array  # product of the Givens rotations so far
    triangle: Array
    g: Array  # rotated right-hand side; its last entry is the residual
    steps: Array
    done: Array


def _cycle(matvec: Map, precondition: Map, r: Array, beta: Array, tolerance: Array, m: int, most: Array) -> tuple:
    """At most m steps of GMRES for A d = r: (d, steps, products).

    Under `vmap` the equations go step by step together, so that a step writes one row for all of them: a batched
    `while_loop` would copy the whole basis, for what is done must not change.
    """
    product, held = hoist(lambda v: matvec(precondition(v)), r)
    last, own = hoist(precondition, r)

    @custom_vmap
    def run(held: list, own: list, r: Array, beta: Array, tolerance: Array, most: Array) -> tuple:
        def one(v: Array) -> Array:
            return product(held, v[0])[None]

        d, steps = _side_by_side(one, r[None], beta[None], tolerance[None], most[None], m)
        return last(own, d[0]), steps[0]

    @run.def_vmap
    def rule(
        size: int, batched: Any, held: list, own: list, r: Array, beta: Array, tolerance: Array, most: Array
    ) -> tuple:
        axes = jax.tree.map(lambda b: 0 if b else None, batched)
        r, beta, tolerance, most = (
            x if b else jnp.broadcast_to(x, (size, *x.shape))
            for x, b in zip((r, beta, tolerance, most), batched[2:], strict=True)
        )

        def many(v: Array) -> Array:
            return jax.vmap(product, (axes[0], 0))(held, v)

        d, steps = _side_by_side(many, r, beta, tolerance, most, m)
        return (jax.vmap(last, (axes[1], 0))(own, d), steps), (True, True)

    d, steps = run(held, own, r, beta, tolerance, jnp.asarray(most, jnp.int32))
    return d, steps, steps


def _side_by_side(product: Map, r: Array, beta: Array, tolerance: Array, most: Array, m: int) -> tuple[Array, Array]:
    """Cycles for the rows of r: the combination of each basis, before the preconditioner, and the steps of each."""
    size, dtype = r.shape[0], r.dtype
    basis = jnp.zeros((m + 1, *r.shape), dtype).at[0].set(r / jnp.where(beta > 0, beta, 1)[:, None])
    turn, triangle = (jnp.broadcast_to(jnp.eye(n, dtype=dtype), (size, n, n)) for n in (m + 1, m))
    g = jnp.zeros((size, m + 1), dtype).at[:, 0].set(beta)
    zero = jnp.zeros((), jnp.int32)
    start = _Arnoldi(zero, basis, turn, triangle, g, jnp.zeros(size, jnp.int32), beta <= tolerance)
    rotate = jax.vmap(_rotate, in_axes=(None, 0, 0, 0, 0, 0, 0))

    def step(s: _Arnoldi) -> _Arnoldi:
        k = s.k
        w = product(s.basis[k])
        full = jax.vmap(norm2)(w)
        w, h = _orthogonal(s.basis, w, k)
        rest = jax.vmap(norm2)(w)
        eps = jnp.finfo(dtype).eps
        lost = ~(rest > 10 * eps * full)
        rest = jnp.where(lost & jnp.isfinite(rest), 0, rest)
        # What is done goes on as zeros.
        scale = jnp.where(rest > 0, 1 / jnp.where(rest > 0, rest, 1), 0)
        basis = s.basis.at[k + 1].set(jnp.where(s.done[:, None], 0, w * scale[:, None]))
        turn, triangle, g, useless = rotate(k, s.turn, s.triangle, s.g, h, rest, full)
        triangle, g = (
            jnp.where(jnp.expand_dims(s.done, tuple(range(1, new.ndim))), old, new)
            for old, new in ((s.triangle, triangle), (s.g, g))
        )
        steps = jnp.where(s.done, s.steps, k + 1)
        # The estimate drifts from the true residual by round-off; a thousandth spares a second cycle.
        near = jnp.abs(g[:, k + 1]) <= 0.999 * tolerance
        # One product is kept for the true residual at the end of the cycle.
        done = s.done | useless | (rest == 0) | ~jnp.isfinite(rest) | near | (k + 2 >= most)
        return _Arnoldi(k + 1, basis, turn, triangle, g, steps, done)

    s = lax.while_loop(lambda s: (s.k < m) & ~jnp.all(s.done), step, start)
    known = jnp.where(jnp.arange(m) < s.steps[:, None], s.g[:, :m], 0)
    y = jax.vmap(jax.scipy.linalg.solve_triangular)(s.triangle, known)
    combined = lax.fori_loop(0, s.k, lambda j, x: x + y[:, j, None] * s.basis[j], jnp.zeros_like(r))
    return combined, s.steps


def _rotate(k: Array, turn: Array, triangle: Array, g: Array, h: Array, rest: Array, full: Array) -> tuple:
    """Take column k of the Hessenberg matrix into the triangle by one more Givens rotation."""
    column = jnp.dot(turn, h.at[k + 1].set(rest), precision=lax.Precision.HIGHEST)
    a, b = column[k], column[k + 1]
    length = jnp.hypot(a, b)
    # A zero column: the matrix is singular on the Krylov space, and this direction is of no use.
    useless = ~(length > jnp.finfo(g.dtype).eps * full)
    cos, sin = (jnp.where(useless, one, v / jnp.where(useless, 1, length)) for one, v in ((1, a), (0, b)))
    upper, lower = turn[k], turn[k + 1]
    turn = turn.at[k].set(cos * upper + sin * lower).at[k + 1].set(cos * lower - sin * upper)
    column = jnp.where(jnp.arange(g.size) < k, column, 0).at[k].set(jnp.where(useless, 1, length))
    g = g.at[k].set(jnp.where(useless, 0, cos * g[k])).at[k + 1].set(-sin * g[k])
    return turn, triangle.at[:, k].set(column[:-1]), g, useless


def _orthogonal(basis: Array, w: Array, k: Array) -> tuple[Array, Array]:
    """Gram-Schmidt, twice: w without its parts along rows 0 to k, and these parts; as orthogonal as round-off allows.

    All rows at once are four products with a matrix, half of it zeros. For one equation and on a GPU they are twice as
    fast as row by row; for many equations a processor has no good batched product, and goes row by row.
    """
    if w.shape[0] == 1:
        return _all_rows(basis, w, k)
    return lax.platform_dependent(basis, w, k, cpu=_row_by_row, default=_all_rows)


def _row_by_row(basis: Array, w: Array, k: Array) -> tuple[Array, Array]:
    def take(i: Array, s: tuple) -> tuple:
        w, h = s
        j = jnp.where(i > k, i - k - 1, i)
        along = jnp.sum(basis[j] * w, axis=-1)
        return w - along[:, None] * basis[j], h.at[:, j].add(along)

    return lax.fori_loop(0, 2 * (k + 1), take, (w, jnp.zeros((w.shape[0], basis.shape[0]), w.dtype)))


def _all_rows(basis: Array, w: Array, k: Array) -> tuple[Array, Array]:
    h = jnp.zeros((w.shape[0], basis.shape[0]), w.dtype)
    for _ in range(2):
        along = jnp.einsum("jbn,bn->bj", basis, w, precision=lax.Precision.HIGHEST)
        w = w - jnp.einsum("bj,jbn->bn", along, basis, precision=lax.Precision.HIGHEST)
        h = h + along
    return w, h
