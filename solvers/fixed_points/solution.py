"""What a solve returns: the solution, its status and its numbers."""

import warnings
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array

from ..core.status import Failures, SolverError, Status, failures, public_status

ADVICE = {
    Status.NONFINITE: "The function gave a value that is not finite at the start or on the way; look at f(x0).",
    Status.MAX_STEPS: "Allow more with `max_steps`, loosen `rtol`, or take another method.",
    Status.STAGNATED: "The residual no longer falls: the tolerance may lie below round-off, the start too far away, "
    "or there may be no solution near.",
    Status.DIVERGED: "The residual grew without bound: start nearer to the solution, damp, or take a Newton method.",
    Status.LINEAR_FAILED: "The Newton equations were not solved: the Jacobian is singular or needs a preconditioner.",
    Status.UNSTABLE: "The equation is solved, but iterating the map would leave this solution: it may be another one "
    "than you want.",
}


class Stats(eqx.Module):
    """The numbers of a solve, all arrays (with a batch axis under `vmap`).

    Attributes:
        iterations: steps of the method.
        evaluations: evaluations of the function, the one at the start included.
        products: Jacobian-vector products of the method and of the stability estimate.
        residual: norm2(f(x) - x) or norm2(F(x)) of the returned x.
        tolerance: what the residual had to come below.
        spectral_radius: estimate of the spectral radius of the Jacobian of f at the returned x, NaN where it was not
            asked for and for roots.
        history: residual of each iterate, NaN after the last, shape (max_steps + 1,); None unless asked for.
    """

    iterations: Array
    evaluations: Array
    products: Array
    residual: Array
    tolerance: Array
    spectral_radius: Array
    history: Array | None


class Solution(eqx.Module):
    """What `fixed_point` and `root` return.

    Attributes:
        value: the solution, a pytree like the start. After a failure, the iterate with the smallest residual.
        aux: second output of the function at the solution if `has_aux`, else None; differentiable.
        code: status as an integer array, one per batch entry under `vmap`.
        stats: the numbers, see `Stats`.
    """

    value: Any
    aux: Any
    code: Array
    stats: Stats

    @property
    def status(self) -> Status | Array:
        """`Status` outside of `jit` and `vmap`; the array of codes inside or for a batch."""
        return public_status(self.code)

    def check(self) -> "Solution":
        """Return the solution itself, or raise `SolverError` if the solve failed (any member of a batch).

        The status UNSTABLE solves the equation and gives a warning.

        Raises:
            SolverError: with status, residual and tolerance.
            TypeError: inside `jit`, where no value is known.
        """
        failed = failures(self.code, Status.CONVERGED, Status.UNSTABLE)
        if failed:
            raise SolverError(self._sentence(failed))
        doubtful = failures(self.code, Status.CONVERGED)
        if doubtful:
            warnings.warn(self._sentence(doubtful), UserWarning, stacklevel=2)
        return self

    def _sentence(self, bad: Failures) -> str:
        stats = self.stats
        radius = bad.first(stats.spectral_radius)
        return (
            f"{bad}: residual {bad.first(stats.residual):.3g} against a tolerance of {bad.first(stats.tolerance):.3g} "
            f"after {bad.first(stats.iterations)} steps and {bad.first(stats.evaluations)} evaluations"
            + (f", spectral radius {radius:.4g}" if np.isfinite(radius) else "")
            + f". {ADVICE[bad.status]}"
        )
