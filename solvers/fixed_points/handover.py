"""Two methods in a row: one that finds the neighbourhood, one that finishes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..core.krylov import check_counts
from ..core.packing import norm2
from .anderson import Anderson
from .iteration import Advance, Problem
from .newton_krylov import NewtonKrylov

# The first method has lost its way where the residual exceeds the smallest one so far by this factor, and does not get
# on where it has not found a smaller one in so many steps.
GROWTH = 10.0
PATIENCE = 10


class Handover(eqx.Module):
    """One method first, from its best iterate another one: by default Anderson acceleration, then Newton-Krylov.

    The first method takes cheap steps with a wide basin of attraction, the second one converges fast. The second takes
    over when the residual has fallen by the factor `reduction`, after `steps` steps, or when the first one does not get
    on: ten steps without a smaller residual, a residual ten times the smallest, or one that is not finite.

    Args:
        first: method to begin with.
        then: method to end with; its preconditioner, if it has one, is used for derivatives too.
        reduction: fraction of the first residual at which the second method takes over, in (0, 1).
        steps: most steps of the first method.

    Raises:
        ValueError: for a reduction outside of (0, 1) or a number of steps below 1.

    Example:
        >>> import jax.numpy as jnp, solvers as sv
        >>> slow = lambda x: x + 0.01 * (jnp.cos(x) - x)
        >>> found = sv.fixed_point(slow, jnp.zeros(3), method=sv.Handover())
        >>> found.status.name, round(float(found.value[0]), 6)
        ('CONVERGED', 0.739085)

    Reference:
        D. A. Knoll, D. E. Keyes, J. Comput. Phys. 193 (2004) 357, section 2.4 (globalisation by a cheaper iteration).
    """

    first: Any = Anderson()
    then: Any = NewtonKrylov()
    reduction: float = eqx.field(static=True, default=1e-2)
    steps: int = eqx.field(static=True, default=20)

    def __check_init__(self):
        if not 0 < self.reduction < 1:
            raise ValueError(f"`reduction` must lie between 0 and 1, got {self.reduction!r}.")
        check_counts(steps=self.steps)

    @property
    def preconditioner(self) -> Callable | None:
        """That of the second method."""
        return getattr(self.then, "preconditioner", None)

    def start(self, x: Array, r: Array) -> "_Memory":
        """Both methods at their start."""
        size = norm2(r)
        zero = jnp.zeros((), jnp.int32)
        then = self.then.start(x, r)
        return _Memory(self.first.start(x, r), then, x, r, size, size, zero, zero, jnp.asarray(False))

    def step(self, problem: Problem, x: Array, r: Array, memory: "_Memory", tolerance: Array) -> Advance:
        """A step of the one or the other."""

        def late(x: Array, r: Array, memory: _Memory) -> Advance:
            new = self.then.step(problem, x, r, memory.then, tolerance)
            return new._replace(memory=memory._replace(then=new.memory))

        def early(x: Array, r: Array, memory: _Memory) -> Advance:
            return self._early(problem, x, r, memory, tolerance)

        return lax.cond(memory.handed, late, early, x, r, memory)

    def _early(self, problem: Problem, x: Array, r: Array, memory: "_Memory", tolerance: Array) -> Advance:
        new = self.first.step(problem, x, r, memory.first, tolerance)
        size = norm2(new.r)
        better = size < memory.size
        best_x, best_r = jnp.where(better, new.x, memory.x), jnp.where(better, new.r, memory.r)
        best = jnp.where(better, size, memory.size)
        steps, idle = memory.steps + 1, jnp.where(better, 0, memory.idle + 1)
        lost = ~(size <= GROWTH * best) | (idle >= PATIENCE) | (new.failure > 0)
        handed = (best <= self.reduction * memory.begin) | (steps >= self.steps) | lost
        # A comparison with NaN is false, so a step that is not finite is never the best and counts as lost.
        next_x, next_r = jnp.where(handed, best_x, new.x), jnp.where(handed, best_r, new.r)
        then = self.then.start(best_x, best_r)
        kept = _Memory(new.memory, then, best_x, best_r, best, memory.begin, steps, idle.astype(jnp.int32), handed)
        return new._replace(x=next_x, r=next_r, memory=kept, failure=jnp.zeros_like(new.failure))


class _Memory(NamedTuple):
    first: Any
    then: Any
    x: Array  # best iterate of the first method
    r: Array
    size: Array  # its residual
    begin: Array  # residual at the start
    steps: Array
    idle: Array  # steps since the best
    handed: Array
