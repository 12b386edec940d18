"""Broyden's quasi-Newton methods with limited memory."""

from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..core.krylov import check_counts
from ..core.packing import dot, norm2
from .iteration import Advance, Problem, check_damping, counted, no_failure

KINDS = ("good", "bad")


class Broyden(eqx.Module):
    """Broyden's method: a step x <- x + H r, with H corrected by what the last step did to the residual.

    With s the step and y = r_old - r_new, H becomes H + (s - H y) v^T / (v^T y), v = H^T s ("good", the least change
    of the Jacobian) or v = y ("bad", the least change of its inverse). H starts as `damping` times the identity. One
    evaluation per step; on a linear problem of n unknowns at most 2 n steps if the memory holds them. Superlinear
    near a solution, no globalisation: a bad start ends as DIVERGED, STAGNATED or NONFINITE.

    Args:
        kind: "good" or "bad".
        memory: number of corrections kept, two vectors each; the oldest one is dropped.
        damping: the first H, in (0, 1].

    Raises:
        ValueError: for values outside of their range.

    Example:
        >>> import jax.numpy as jnp, solvers as sv
        >>> sv.fixed_point(lambda x: jnp.cos(x), jnp.ones(3), method=sv.Broyden()).status.name
        'CONVERGED'

    Reference:
        C. G. Broyden, Math. Comp. 19 (1965) 577; C. T. Kelley, Iterative Methods for Linear and Nonlinear Equations
        (1995), chapter 7. 2 n steps: D. M. Gay, SIAM J. Numer. Anal. 16 (1979) 623.
    """

    kind: str = eqx.field(static=True, default="good")
    memory: int = eqx.field(static=True, default=20)
    damping: Any = 1.0

    unrolls: ClassVar[bool] = True

    def __check_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"`kind` must be one of {KINDS}, got {self.kind!r}.")
        check_counts(memory=self.memory)
        check_damping(self.damping)

    def start(self, x: Array, r: Array) -> "_Corrections":
        """No correction."""
        rows = jnp.zeros((self.memory, x.shape[0]), x.dtype)
        return _Corrections(rows, rows)

    def step(self, problem: Problem, x: Array, r: Array, memory: "_Corrections", tolerance: Array) -> Advance:
        """One evaluation."""
        step = self.apply(memory, r)
        new = x + step
        r_new = problem.residual(new)
        # Where the iterations are differentiated, H counts as constant: it does not move the limit.
        s, y = lax.stop_gradient((step, r - r_new))
        v = self.apply(_Corrections(memory.v, memory.u), s) if self.kind == "good" else y
        overlap = dot(v, y)
        eps = jnp.finfo(x.dtype).eps
        # A correction whose denominator is round-off would replace H by noise.
        good = jnp.abs(overlap) > eps * norm2(v) * norm2(y)
        u = jnp.where(good, (s - self.apply(memory, y)) / jnp.where(good, overlap, 1), 0)
        kept = _Corrections(*(jnp.concatenate([a[None], b[:-1]]) for a, b in ((u, memory.u), (v, memory.v))))
        return Advance(new, r_new, lax.stop_gradient(kept), counted(1), counted(0), no_failure())

    def apply(self, memory: "_Corrections", w: Array) -> Array:
        """H w."""
        return self.damping * w + dot(dot(memory.v, w), memory.u)


class _Corrections(NamedTuple):
    """H = damping + sum of u v^T, rows, the newest first."""

    u: Array
    v: Array
