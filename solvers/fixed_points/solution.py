"""What a solve returns: the solution, its status and its numbers."""

import warnings
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array

from ..core.checks import is_known
from ..core.status import SolverError, Status

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
        if not is_known(self.code) or self.code.ndim:
            return self.code
        return Status(int(self.code))

    def check(self) -> "Solution":
        """Return the solution itself, or raise `SolverError` if the solve failed (any member of a batch).

        The status UNSTABLE solves the equation and gives a warning.

        Raises:
            SolverError: with status, residual and tolerance.
            TypeError: inside `jit`, where no value is known.
        """
        if not is_known(self.code):
            raise TypeError("check() looks at values: call it on the result outside of jit, grad and vmap.")
        codes = np.atleast_1d(self.code)
        failed = np.flatnonzero((codes != Status.CONVERGED) & (codes != Status.UNSTABLE))
        if failed.size:
            raise SolverError(self._sentence(codes, failed))
        doubtful = np.flatnonzero(codes == Status.UNSTABLE)
        if doubtful.size:
            warnings.warn(self._sentence(codes, doubtful), UserWarning, stacklevel=2)
        return self

    def _sentence(self, codes: np.ndarray, which: np.ndarray) -> str:
        def of_first(x: Array) -> Any:
            return np.ravel(np.broadcast_to(x, codes.shape))[which[0]]

        status = Status(int(codes.flat[which[0]]))
        batch = f" in {which.size} of {codes.size} batch entries" if codes.size > 1 else ""
        radius = float(of_first(self.stats.spectral_radius))
        return (
            f"{status.name}{batch}: residual {of_first(self.stats.residual):.3g} against a tolerance of "
            f"{of_first(self.stats.tolerance):.3g} after {of_first(self.stats.iterations)} steps and "
            f"{of_first(self.stats.evaluations)} evaluations"
            + (f", spectral radius {radius:.4g}" if np.isfinite(radius) else "")
            + f". {ADVICE[status]}"
        )
