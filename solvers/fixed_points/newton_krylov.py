"""Newton's method with a Krylov solver: matrix-free."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..core.krylov import Gmres
from ..core.packing import norm2
from ..core.status import Status
from .iteration import Advance, Problem
from .line_search import backtrack

# Eisenstat and Walker, choice 2: eta = GAMMA (ratio of residuals)^2, at most LOOSEST, FIRST in the first step.
GAMMA, FIRST, LOOSEST = 0.9, 0.5, 0.9


class NewtonKrylov(eqx.Module):
    """Newton's method whose linear equations A d = r are solved by GMRES, as accurately as it pays.

    Exact Jacobian products (forward mode, no differences), preconditioner from the right, backtracking. The inner
    tolerance eta |r| follows the outer convergence, so that no products are wasted far from the solution. Memory: the
    vectors of one GMRES cycle.

    Args:
        linear: Krylov method, such as `Gmres(restart=30)`.
        preconditioner: function (v, x, *args) -> approximation of A^-1 v, linear in v, with A the Jacobian of
            x - f(x) for fixed points and of F for roots; v and the result are pytrees like x. It is used, transposed,
            for derivatives too.

    Example:
        >>> import jax.numpy as jnp, solvers as sv
        >>> root = sv.root(lambda x: jnp.sin(x) + x**3 - 1.0, jnp.ones(1000))
        >>> root.status.name, int(root.stats.iterations) < 7
        ('CONVERGED', True)

    Reference:
        S. C. Eisenstat, H. F. Walker, SIAM J. Sci. Comput. 17 (1996) 16, choice 2 with its safeguard; D. A. Knoll,
        D. E. Keyes, J. Comput. Phys. 193 (2004) 357.
    """

    linear: Any = Gmres(max_steps=300)
    preconditioner: Callable | None = None

    def start(self, x: Array, r: Array) -> "_Memory":
        """The forcing term of the first step."""
        return _Memory(jnp.asarray(FIRST, r.dtype), norm2(r))

    def step(self, problem: Problem, x: Array, r: Array, memory: "_Memory", tolerance: Array) -> Advance:
        """Products of GMRES and evaluations of the backtracking."""
        size = norm2(r)
        # What the whole solve asks for need not be surpassed by the last linear solve.
        eta = jnp.minimum(jnp.maximum(memory.eta, 0.5 * tolerance / size), LOOSEST)
        _, product = jax.linearize(problem.residual, x)
        direction, stats = self.linear.solve(
            lambda v: -product(v), r, None, lambda v: problem.apply_preconditioner(v, x), eta * size
        )
        reached = stats.residual / size
        # A direction that reduces the linear model at all is one of descent.
        useful = reached < 1 - 1e-3
        trial = backtrack(problem, x, r, direction, jnp.clip(1 - reached, 0, 1))
        failure = jnp.where(useful, int(Status.STAGNATED), int(Status.LINEAR_FAILED))
        failure = jnp.where(trial.good & useful, 0, failure).astype(jnp.int32)
        new_x, new_r = jnp.where(trial.good, trial.x, x), jnp.where(trial.good, trial.r, r)
        raw = GAMMA * (norm2(new_r) / size) ** 2
        kept = GAMMA * memory.eta**2
        following = jnp.minimum(jnp.where(kept > 0.1, jnp.maximum(raw, kept), raw), LOOSEST)
        return Advance(
            new_x, new_r, _Memory(following, size), trial.evaluations, stats.products.astype(jnp.int32), failure
        )


class _Memory(NamedTuple):
    eta: Array
    residual: Array
