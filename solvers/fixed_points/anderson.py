"""Anderson acceleration, type II."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..core.krylov import check_counts
from ..core.packing import dot, norm2
from .iteration import Advance, Problem, check_damping, counted, no_failure


class Anderson(eqx.Module):
    """Anderson acceleration: the plain iteration from the best combination of the last iterates.

    With differences dX, dR of the last `depth` iterates and residuals,

        gamma = argmin norm2(r - dR gamma),    x <- x + damping r - (dX + damping dR) gamma.

    One evaluation per step and 2 `depth` vectors of memory. On linear problems it is equivalent to GMRES as long as
    nothing is dropped. The least-squares problem is solved by orthogonalisation of the columns of dR, scaled to unit
    length, the newest first; columns from the first one on that lies too nearly in the span of newer ones are left
    out. So the weights do not depend on the scale of the residual, however small it gets.

    On nonlinear problems with several solutions it may jump to another one than the plain iteration would reach: look
    at the status, which is UNSTABLE where the map itself would leave the answer. `depth=1` jumps least.

    Args:
        depth: number of differences kept.
        damping: fraction of the residual that is added, in (0, 1]; not part of the stop test.
        regularisation: Tikhonov parameter relative to the unit columns; larger makes smaller, safer weights.
        condition_limit: a column is left out if its distance from the span of newer ones is below one over this
            fraction of its length.
        delay: number of plain steps before mixing begins.
        safeguard: a mixed step whose residual exceeds this factor times the one before, or is not finite, is taken
            back: a plain step from the iterate before, and the memory is emptied. None never does.

    Raises:
        ValueError: for values outside of their range.

    Example:
        >>> import jax.numpy as jnp, solvers as sv
        >>> slow = sv.fixed_point(lambda x: 0.99 * jnp.cos(x) + 2.0, 0.0, method=sv.Anderson(depth=2))
        >>> int(slow.stats.evaluations) < 15
        True

    Reference:
        H. F. Walker, P. Ni, SIAM J. Numer. Anal. 49 (2011) 1715, algorithm AA and section 4 (conditioning).
    """

    depth: int = eqx.field(static=True, default=5)
    damping: Any = 1.0
    regularisation: float = eqx.field(static=True, default=0.0)
    condition_limit: float = eqx.field(static=True, default=1e8)
    delay: int = eqx.field(static=True, default=0)
    safeguard: float | None = eqx.field(static=True, default=None)

    unrolls: ClassVar[bool] = True

    def __check_init__(self):
        check_counts(depth=self.depth, **({"delay": self.delay} if self.delay != 0 else {}))
        check_damping(self.damping)
        if not self.regularisation >= 0:
            raise ValueError(f"`regularisation` must not be negative, got {self.regularisation!r}.")
        if not self.condition_limit > 1:
            raise ValueError(f"`condition_limit` must exceed 1, got {self.condition_limit!r}.")
        if self.safeguard is not None and not self.safeguard >= 1:
            raise ValueError(f"`safeguard` must be at least 1 or None, got {self.safeguard!r}.")

    def start(self, x: Array, r: Array) -> "_Memory":
        """An empty memory."""
        rows = jnp.zeros((self.depth, x.shape[0]), x.dtype)
        zero = jnp.zeros((), jnp.int32)
        return _Memory(rows, rows, x, r, zero, zero)

    def step(self, problem: Problem, x: Array, r: Array, memory: "_Memory", tolerance: Array) -> Advance:
        """One evaluation."""
        older = memory.count > 0
        dx = jnp.where(older, jnp.concatenate([(x - memory.x)[None], memory.dx[:-1]]), memory.dx)
        dr = jnp.where(older, jnp.concatenate([(r - memory.r)[None], memory.dr[:-1]]), memory.dr)
        # Where the iterations are differentiated, the weights count as constants: they do not move the limit.
        fixed_dr, fixed_r = lax.stop_gradient((dr, r))
        gamma = mixing_weights(fixed_dr, fixed_r, self.regularisation, self.condition_limit)
        gamma = jnp.where(memory.steps >= self.delay, gamma, 0)
        mixed = x + self.damping * r - dot(gamma, dx) - self.damping * dot(gamma, dr)
        new, count = mixed, memory.count + 1
        if self.safeguard is not None:
            worse = (memory.count > 1) & ~(norm2(r) <= self.safeguard * norm2(memory.r))
            plain = memory.x + self.damping * memory.r
            new = jnp.where(worse, plain, mixed)
            dx, dr = jnp.where(worse, 0, dx), jnp.where(worse, 0, dr)
            # The next difference would span the step taken back, so the memory starts with the plain step.
            count = jnp.where(worse, 0, count)
        kept = _Memory(dx, dr, x, r, count, memory.steps + 1)
        return Advance(new, problem.residual(new), kept, counted(1), counted(0), no_failure())


class _Memory(NamedTuple):
    dx: Array  # rows are differences, the newest first
    dr: Array
    x: Array
    r: Array
    count: Array
    steps: Array


def mixing_weights(dr: Array, r: Array, regularisation: float, condition_limit: float) -> Array:
    """gamma = argmin norm2(r - dR gamma) over the rows of `dr` (newest first) that are independent enough.

    Gram-Schmidt, twice for each row, on rows of unit length extended by the regularisation.
    """
    m = dr.shape[0]
    norms = jax.vmap(norm2)(dr)
    good = (norms > 0) & jnp.isfinite(norms)
    scale = jnp.where(good, norms, 1)
    rows = jnp.where(good[:, None], dr / scale[:, None], 0)
    if regularisation > 0:
        rows = jnp.concatenate([rows, regularisation * jnp.eye(m, dtype=dr.dtype)], axis=1)
        r = jnp.concatenate([r, jnp.zeros(m, r.dtype)])

    def orthogonalise(j: Array, carry: tuple) -> tuple:
        basis, triangle, keep = carry
        w = rows[j]
        h = jnp.zeros(m, dr.dtype)
        for _ in range(2):
            c = dot(basis, w)
            w = w - dot(c, basis)
            h = h + c
        rest = norm2(w)
        # Once a row is left out, so are all older ones.
        keep = keep & good[j] & (rest * condition_limit > 1)
        basis = basis.at[j].set(jnp.where(keep, w / jnp.where(keep, rest, 1), 0))
        column = jnp.where(keep, h.at[j].set(rest), jnp.zeros(m, dr.dtype).at[j].set(1))
        return basis, triangle.at[:, j].set(column), keep

    start = (jnp.zeros_like(rows), jnp.zeros((m, m), dr.dtype), jnp.asarray(True))
    basis, triangle, _ = lax.fori_loop(0, m, orthogonalise, start)
    # Rows left out have a zero in the basis, hence weight zero.
    return jax.scipy.linalg.solve_triangular(triangle, dot(basis, r)) / scale
