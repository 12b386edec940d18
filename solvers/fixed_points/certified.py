"""Gradients of losses of solutions with an estimate of their error."""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ..core.captured import fingerprint
from ..core.checks import is_known
from ..core.implicit_rule import as_arrays, as_good_as_can_be
from ..core.krylov import Gmres, check_counts
from ..core.packing import Packing, dot, norm2
from ..core.status import SolverError, Status
from .anderson import Anderson
from .doors import fixed_point, root

# The corrections are solved this loosely: what they leave behind is this fraction of the estimate, times at most the
# condition of the equation.
LOOSE = 0.03


class GradientCertificate(eqx.Module):
    """What `implicit_value_and_grad` says of its gradient, all arrays.

    Attributes:
        error: estimated error of `uncorrected`, norm2(gradient - uncorrected); asymptotically exact, no bound.
        relative_error: the same relative to norm2(gradient).
        uncorrected: the gradient before the last correction, a pytree like the gradient.
        products: products with the Jacobian and its transpose, those of the estimate included.
        estimate_products: those of the corrections alone.
        corrections: number of corrections.
        code: status as an integer: CONVERGED if `relative_error` is at most `gradient_rtol`.
        solve: statistics of the solve.
    """

    error: Array
    relative_error: Array
    uncorrected: Any
    products: Array
    estimate_products: Array
    corrections: Array
    code: Array
    solve: Any

    @property
    def status(self) -> Status | Array:
        """`Status` outside of `jit` and `vmap`; the array of codes inside or for a batch."""
        if not is_known(self.code) or self.code.ndim:
            return self.code
        return Status(int(self.code))

    def check(self) -> "GradientCertificate":
        """Return the report itself, or raise `SolverError` if the gradient is not as accurate as was asked for.

        Raises:
            SolverError: with the status and the estimate.
            TypeError: inside `jit`, where no value is known.
        """
        if not is_known(self.code):
            raise TypeError("check() looks at values: call it on the report outside of jit, grad and vmap.")
        codes = np.atleast_1d(self.code)
        failed = np.flatnonzero((codes != Status.CONVERGED) & (codes != Status.UNSTABLE))
        if failed.size:
            error = float(np.ravel(np.broadcast_to(self.relative_error, codes.shape))[failed[0]])
            raise SolverError(
                f"{Status(int(codes.flat[failed[0]])).name}: the relative error of the gradient is estimated at "
                f"{error:.3g}. The solve failed, the Jacobian is nearly singular (a fold) or needs a preconditioner."
            )
        return self


def implicit_value_and_grad(
    loss: Callable,
    function: Callable,
    x0: Any,
    theta: Any,
    *,
    gradient_rtol: float = 1e-4,
    equation: str = "fixed_point",
    method: Any = Anderson(),
    preconditioner: Callable | None = None,
    max_steps: int = 1000,
    max_corrections: int = 4,
) -> tuple[Array, Any, GradientCertificate]:
    """Value and gradient of loss(x(theta), theta) with x = function(x, theta), as accurate as asked for, and how much.

    You state what the gradient may be off by; the tolerances of the solve and of the adjoint equation follow from it.
    Then the error is estimated: one loose Newton correction of x, one loose correction of the adjoint for the residual
    at the corrected x, and the gradient from both. The difference to the gradient before is the estimate; the
    corrected gradient is returned. While the estimate exceeds `gradient_rtol`, the correction is repeated.

    With the Lagrangian L(x, adjoint, theta) = loss + <adjoint, r>, the gradient is dL/dtheta where dL/dx = 0 and
    r = 0. Its error is linear in the errors of x and adjoint, so one Newton step sees all of it but second order
    terms. The estimate is asymptotically exact where the errors are small against the distance to a fold (a singular
    Jacobian). Near a fold it degrades in two ways: the second order terms grow like the square of the inverse of the
    smallest singular value, and the loose linear solves leave a larger part of the error. Look at `relative_error`:
    an estimate near one is not an estimate.

    Args:
        loss: function (x, theta) -> real number.
        function: (x, theta) -> x of a fixed point, or the residual of a root.
        x0: start, a pytree of floating arrays.
        theta: parameters, a pytree; its floating leaves get a gradient, the others None.
        gradient_rtol: largest relative error of the gradient that is wanted.
        equation: "fixed_point" or "root".
        method: as in `fixed_point` or `root`.
        preconditioner: function (v, x, theta) -> approximation of A^-1 v, as in `NewtonKrylov`, for the adjoint and the
            corrections; without one their products are many where the Jacobian is badly conditioned. None takes that
            of the method, if it has one.
        max_steps: largest number of steps of the solve.
        max_corrections: largest number of corrections.

    Returns:
        (value, gradient, report). NaN gradient if the solve or a linear solve failed; `report.check()` raises unless
        the estimate meets `gradient_rtol`.

    Raises:
        ValueError: for values outside of their range.

    Example:
        >>> import jax.numpy as jnp, solvers as sv
        >>> value, gradient, report = sv.implicit_value_and_grad(
        ...     lambda x, e: x, lambda x, e: 0.8 + e * jnp.sin(x), 1.0, 0.3, gradient_rtol=1e-6)
        >>> print(round(float(gradient), 6), report.status.name)
        1.022801 CONVERGED

    Reference:
        R. Becker, R. Rannacher, Acta Numerica 10 (2001) 1 (dual-weighted residuals); M. Blondel et al., NeurIPS
        2022, theorem 1 (error of the gradient at an approximate solution).
    """
    if equation not in ("fixed_point", "root"):
        raise ValueError(f'`equation` must be "fixed_point" or "root", got {equation!r}.')
    if is_known(gradient_rtol) and not 0 < float(gradient_rtol) < 1:
        raise ValueError(f"`gradient_rtol` must lie between 0 and 1, got {gradient_rtol!r}.")
    check_counts(max_steps=max_steps, max_corrections=max_corrections)
    x0, theta = as_arrays(x0), as_arrays(theta)
    if not all(eqx.is_inexact_array(x) for x in jax.tree.leaves(x0)):
        raise TypeError("`x0` must be a pytree of real or complex floating arrays.")
    if preconditioner is None:
        preconditioner = getattr(method, "preconditioner", None)
    seen = fingerprint((loss, function, method, preconditioner, theta))
    choices = (equation == "fixed_point", max_steps, max_corrections, seen)
    return _certified(loss, function, x0, theta, jnp.asarray(gradient_rtol), method, preconditioner, choices)


class _Functions(NamedTuple):
    """r(x, theta), loss(x, theta), and the preconditioner (v, x), of vectors."""

    residual: Callable
    objective: Callable
    precondition: Callable

    def back(self, v: Array, x: Array) -> Array:
        """The transposed preconditioner."""
        return jax.linear_transpose(lambda u: self.precondition(u, x), v)(v)[0]

    def gradient(self, x: Array, p: Array, adjoint: Array) -> Array:
        """dL/dtheta at fixed x and adjoint."""

        def lagrangian(p: Array) -> Array:
            return self.objective(x, p) + dot(adjoint, self.residual(x, p))

        return jax.grad(lagrangian)(p)


class _Point(NamedTuple):
    """Solution, adjoint, gradient there and before, and what it took."""

    x: Array
    adjoint: Array
    gradient: Array
    before: Array
    error: Array
    products: Array
    corrections: Array
    failed: Array


@eqx.filter_jit
def _certified(
    loss: Callable,
    function: Callable,
    x0: Any,
    theta: Any,
    rtol: Array,
    method: Any,
    preconditioner: Any,
    choices: tuple,
) -> tuple[Array, Any, GradientCertificate]:
    of_map, max_steps, max_corrections, _ = choices
    moving, still = eqx.partition(theta, eqx.is_inexact_array)
    door = fixed_point if of_map else root
    # A tenth each for the solve and the adjoint; below round-off nothing can be asked for.
    eps = max(float(jnp.finfo(x.dtype).eps) for x in jax.tree.leaves((x0, moving)))
    share = jnp.clip(0.1 * rtol, 8 * eps, 0.1)
    solved = door(function, x0, theta, method=method, rtol=share, atol=0.0, max_steps=max_steps)
    packing, parameters = Packing(solved.value), Packing(moving)

    def residual(x: Array, p: Array) -> Array:
        tree = packing.unpack(x)
        value = packing.pack(function(tree, eqx.combine(parameters.unpack(p), still)))
        return value - packing.pack(tree) if of_map else -value

    def objective(x: Array, p: Array) -> Array:
        return loss(packing.unpack(x), eqx.combine(parameters.unpack(p), still))

    def precondition(v: Array, x: Array) -> Array:
        if preconditioner is None:
            return v
        return packing.pack(preconditioner(packing.unpack(v), packing.unpack(x), theta))

    functions = _Functions(residual, objective, precondition)
    x, p = lax.stop_gradient((packing.pack(solved.value), parameters.pack(moving)))
    first = _first_point(functions, x, p, share)

    def going(s: _Point) -> Array:
        enough = (s.corrections > 0) & (s.error <= rtol * norm2(s.gradient))
        return ~s.failed & ~enough & (s.corrections < max_corrections)

    point = lax.while_loop(going, lambda s: _corrected(functions, s, p), first)
    good = (solved.code == int(Status.CONVERGED)) | (solved.code == int(Status.UNSTABLE))
    relative = point.error / norm2(point.gradient)
    code = jnp.where(point.error <= rtol * norm2(point.gradient), solved.code, int(Status.STAGNATED))
    code = jnp.where(point.failed, int(Status.LINEAR_FAILED), code)
    code = jnp.where(good, code, solved.code)
    gradient = jnp.where(good & ~point.failed, point.gradient, jnp.nan)
    report = GradientCertificate(
        point.error,
        relative,
        parameters.unpack(point.before),
        point.products + solved.stats.products,
        point.products - first.products,
        point.corrections,
        code,
        solved.stats,
    )
    return objective(point.x, p), parameters.unpack(gradient), report


def _first_point(functions: _Functions, x: Array, p: Array, share: Array) -> _Point:
    """The adjoint to the tolerance of the solve, and the gradient."""
    _, back = jax.vjp(lambda x: functions.residual(x, p), x)
    slope = jax.grad(functions.objective)(x, p)

    def product(v: Array) -> Array:
        return -back(v)[0]

    adjoint, stats = Gmres().solve(product, slope, None, lambda v: functions.back(v, x), share * norm2(slope))
    gradient = functions.gradient(x, p, adjoint)
    failed = ~as_good_as_can_be(product, adjoint, stats)
    infinite = jnp.full((), jnp.inf, x.dtype)
    zero = jnp.zeros((), jnp.int32)
    return _Point(x, adjoint, gradient, gradient, infinite.astype(gradient.dtype), stats.products, zero, failed)


def _corrected(functions: _Functions, s: _Point, p: Array) -> _Point:
    """One loose Newton step for x, one for the adjoint at the new x."""
    r, slopes = jax.linearize(lambda x: functions.residual(x, p), s.x)

    def product(v: Array) -> Array:
        return -slopes(v)

    step, ahead = Gmres().solve(product, r, None, lambda v: functions.precondition(v, s.x), LOOSE * norm2(r))
    x = s.x + step
    _, back = jax.vjp(lambda x: functions.residual(x, p), x)
    # dL/dx = loss_x - A^T adjoint, with back(v) = -A^T v.
    rest = jax.grad(functions.objective)(x, p) + back(s.adjoint)[0]

    def transposed(v: Array) -> Array:
        return -back(v)[0]

    more, behind = Gmres().solve(transposed, rest, None, lambda v: functions.back(v, x), LOOSE * norm2(rest))
    gradient = functions.gradient(x, p, s.adjoint + more)
    spent = s.products + ahead.products + behind.products
    failed = ~as_good_as_can_be(product, step, ahead) | ~as_good_as_can_be(transposed, more, behind)
    return _Point(
        x, s.adjoint + more, gradient, s.gradient, norm2(gradient - s.gradient), spent, s.corrections + 1, failed
    )
