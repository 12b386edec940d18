"""Pseudo-transient continuation."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..core.krylov import Gmres
from ..core.packing import norm2
from ..core.status import Status
from .iteration import Advance, Problem, counted

# Beyond this the step is Newton's to round-off; below it the solve has come to a stand.
LONGEST, SHORTEST = 1e12, 1e-12


class PseudoTransient(eqx.Module):
    """Follow x' = f(x) - x, or x' = -F(x), to its steady state by implicit steps that grow as the residual falls.

    x <- x + (1 / dt + A)^-1 r, with dt <- dt |r_old| / |r_new|: implicit Euler with one Newton iteration far away,
    Newton's method near the solution. It finds steady states that are stable for this flow, from starts where
    Newton's method goes astray; the residual may rise on the way. A step to a point where the residual is not finite
    is taken back and repeated with a tenth of dt.

    Takes no preconditioner, that of another method in a `Handover` neither: an approximation of A^-1 is none of
    (1 / dt + A)^-1. Derivatives get one by `Adjoint(preconditioner=...)`.

    Args:
        step: first dt, in the unit of x / F(x); 1 for fixed points is about one plain iteration.
        linear: Krylov method for the linear equations.
        linear_rtol: their relative tolerance.

    Raises:
        ValueError: for a step or tolerance that is not positive.

    Example:
        >>> import jax.numpy as jnp, solvers as sv
        >>> stiff = lambda x: jnp.stack([1e3 * (x[0] ** 3 - x[1]), x[1] + jnp.tanh(x[0]) - 0.3])
        >>> sv.root(stiff, jnp.array([2.0, -1.0]), method=sv.PseudoTransient(0.1)).status.name
        'CONVERGED'

    Reference:
        C. T. Kelley, D. E. Keyes, SIAM J. Numer. Anal. 35 (1998) 508 (switched evolution relaxation).
    """

    step_size: Any
    linear: Any
    linear_rtol: float = eqx.field(static=True)

    def __init__(self, step: Any = 1.0, linear: Any = Gmres(max_steps=300), linear_rtol: float = 1e-3):
        for name, value in (("step", step), ("linear_rtol", linear_rtol)):
            if isinstance(value, int | float) and not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value!r}.")
        self.step_size, self.linear, self.linear_rtol = step, linear, linear_rtol

    def start(self, x: Array, r: Array) -> "_Memory":
        """The first time step."""
        return _Memory(jnp.asarray(self.step_size, x.dtype))

    def step(self, problem: Problem, x: Array, r: Array, memory: "_Memory", tolerance: Array) -> Advance:
        """Products of the linear solve and one evaluation."""
        dt, size = memory.dt, norm2(r)
        _, product = jax.linearize(problem.residual, x)
        direction, stats = self.linear.solve(
            lambda v: v / dt - product(v), r, None, lambda v: v, self.linear_rtol * size
        )
        new = x + direction
        r_new = problem.residual(new)
        size_new = norm2(r_new)
        # An inner solve that reduces nothing gives no direction; a shorter step makes its matrix nearer to 1 / dt.
        good = jnp.isfinite(size_new) & (stats.residual < 0.9 * size)
        grown = jnp.clip(dt * size / jnp.where(size_new > 0, size_new, 1), 0.1 * dt, LONGEST)
        following = jnp.where(good, grown, 0.1 * dt)
        failure = jnp.where(following < SHORTEST * self.step_size, int(Status.LINEAR_FAILED), 0).astype(jnp.int32)
        new, r_new = jnp.where(good, new, x), jnp.where(good, r_new, r)
        return Advance(new, r_new, _Memory(following), counted(1), stats.products.astype(jnp.int32), failure)


class _Memory(NamedTuple):
    dt: Array
