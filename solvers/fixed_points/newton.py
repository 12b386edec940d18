"""Newton's method with the Jacobian written out."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..core.packing import dot, norm2
from ..core.status import Status
from .iteration import Advance, Problem
from .line_search import backtrack

# A Jacobian of this many unknowns takes 800 MB in double precision.
LARGEST = 10_000


class Newton(eqx.Module):
    """Newton's method: solve A d = r with A = -dr/dx written out, then go along d as far as the residual falls.

    Quadratic convergence near a solution with an invertible Jacobian, from further away by backtracking. Each step
    costs n Jacobian products, n^2 numbers and n^3 operations: for small problems, or as a reference. A singular
    Jacobian on the way is replaced by its regularised pseudo-inverse.

    Example:
        >>> import jax.numpy as jnp, solvers as sv
        >>> root = sv.root(lambda x: x**3 - 2.0, 1.0, method=sv.Newton())
        >>> round(float(root.value), 6), root.status.name
        (1.259921, 'CONVERGED')

    Reference:
        C. T. Kelley, Solving Nonlinear Equations with Newton's Method (2003), chapters 1 and 2.
    """

    def start(self, x: Array, r: Array) -> tuple:
        """Nothing is kept.

        Raises:
            ValueError: for so many unknowns that the Jacobian cannot be meant to be written out.
        """
        if x.shape[0] > LARGEST:
            raise ValueError(
                f"Newton() writes out the Jacobian: {x.shape[0]} unknowns exceed {LARGEST}. Take NewtonKrylov()."
            )
        return ()

    def step(self, problem: Problem, x: Array, r: Array, memory: tuple, tolerance: Array) -> Advance:
        """n products and the evaluations of the backtracking."""
        size = x.shape[0]
        _, product = jax.linearize(problem.residual, x)
        matrix = -jax.vmap(product, in_axes=1, out_axes=1)(jnp.eye(size, dtype=x.dtype))
        direction = newton_direction(matrix, r)
        rate = jnp.clip(dot(r, dot_rows(matrix, direction)) / dot(r, r), 0, 1)
        trial = backtrack(problem, x, r, direction, rate)
        failed = jnp.where(jnp.all(jnp.isfinite(direction)), int(Status.STAGNATED), int(Status.LINEAR_FAILED))
        failure = jnp.where(trial.good, 0, failed).astype(jnp.int32)
        new_x, new_r = jnp.where(trial.good, trial.x, x), jnp.where(trial.good, trial.r, r)
        return Advance(new_x, new_r, memory, trial.evaluations, jnp.asarray(size, jnp.int32), failure)


def dot_rows(matrix: Array, vector: Array) -> Array:
    """Matrix times vector in full precision."""
    return jnp.matmul(matrix, vector, precision=jax.lax.Precision.HIGHEST)


def newton_direction(matrix: Array, r: Array) -> Array:
    """Solve A d = r; where A is singular to working precision, minimise norm2(A d - r)^2 + mu norm2(d)^2."""
    size = r.shape[0]
    eps = float(jnp.finfo(r.dtype).eps)
    exact = jnp.linalg.solve(matrix, r)
    good = norm2(r - dot_rows(matrix, exact)) <= 0.1 * norm2(r)
    # Relative to the largest column, so that units of r do not matter; small enough for a nearly exact step.
    scale = jnp.max(jnp.sum(matrix**2, axis=0), initial=0.0)
    scale = jnp.where(scale > 0, scale, 1)
    root = jnp.sqrt(eps * scale)
    tall = jnp.concatenate([matrix, root * jnp.eye(size, dtype=r.dtype)])
    q, triangle = jnp.linalg.qr(tall)
    damped: Any = jax.scipy.linalg.solve_triangular(triangle, dot_rows(q.T, jnp.concatenate([r, jnp.zeros_like(r)])))
    return jnp.where(good, exact, damped)
