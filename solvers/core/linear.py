"""The door of linear equations: `linear_solve`."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from .captured import fingerprint
from .checks import is_known
from .implicit_rule import Adjoint, implicit_solution, tangent_solve
from .krylov import Gmres, LinearStats
from .packing import Packing, hoist, norm2
from .status import SolverError, Status, failures, public_status


class LinearSolution(eqx.Module):
    """What `linear_solve` returns.

    Attributes:
        value: x, a pytree like b; after a failure the best iterate.
        code: status as an integer array, one per batch entry under `vmap`.
        stats: iterations, products, residual, tolerance, see `LinearStats`.
    """

    value: Any
    code: Array
    stats: LinearStats

    @property
    def status(self) -> Status | Array:
        """`Status` outside of `jit` and `vmap`; the array of codes inside or for a batch."""
        return public_status(self.code)

    def check(self) -> "LinearSolution":
        """Return the solution itself, or raise `SolverError` if a solve missed its tolerance.

        Raises:
            SolverError: with status, residual and tolerance.
            TypeError: inside `jit`, where no value is known.
        """
        bad = failures(self.code, Status.CONVERGED)
        if bad:
            stats = self.stats
            raise SolverError(
                f"{bad}: residual {bad.first(stats.residual):.3g} against a tolerance of "
                f"{bad.first(stats.tolerance):.3g} after {bad.first(stats.products)} products. Allow more with "
                "`max_steps`, take a preconditioner, or a method that fits the matrix: Cg() needs it "
                "symmetric positive definite, Minres() symmetric."
            )
        return self


def linear_solve(
    A: Any,
    b: Any,
    *args: Any,
    method: Any = Gmres(),
    preconditioner: Callable | None = None,
    x0: Any = None,
    rtol: float | None = None,
    atol: float = 0.0,
) -> LinearSolution:
    """Solve A x = b for a matrix that is only known by its products, in every mode of differentiation.

    Stops when norm2(b - A x) <= max(atol, rtol norm2(b)), the residual computed from x itself. Derivatives with
    respect to `b`, `args` and what `A` captures solve one more equation with A or its transpose, by the same method
    with the same, or transposed, preconditioner; they are NaN where that or the solve itself fails.

    Args:
        A: function (x, *args) -> A x, linear in x, from and to pytrees like b; or a square matrix.
        b: right-hand side, a pytree of floating arrays.
        args: parameters of `A` and of the preconditioner.
        method: `Gmres()`, `BiCgStab()`; `Cg()` for symmetric positive definite, `Minres()` for symmetric matrices.
        preconditioner: function (v, *args) -> approximation of A^-1 v, linear in v.
        x0: start, by default zero.
        rtol: relative tolerance, by default 1e-8 in double and 1e-5 in single precision.
        atol: absolute tolerance.

    Returns:
        `LinearSolution(value, status, stats)`; `.check()` raises unless the equation is solved.

    Raises:
        ValueError: if A b has another structure, shape or dtype than b, or b is not floating.

    Example:
        >>> import jax.numpy as jnp, solvers as sv
        >>> second_difference = lambda u: 2 * u - jnp.roll(u, 1) - jnp.roll(u, -1) + u
        >>> solution = sv.linear_solve(second_difference, jnp.arange(8.0), method=sv.Cg()).check()
        >>> bool(jnp.allclose(second_difference(solution.value), jnp.arange(8.0)))
        True

    Reference:
        Y. Saad, Iterative Methods for Sparse Linear Systems (2003).
    """
    if not hasattr(method, "solve"):
        raise TypeError(f"`method` must be a Krylov method such as Gmres(), got {method!r}.")
    b, x0 = jax.tree.map(jnp.asarray, b), jax.tree.map(jnp.asarray, x0)
    if not jax.tree.leaves(b) or not all(eqx.is_inexact_array(x) for x in jax.tree.leaves(b)):
        raise ValueError("`b` must be a pytree of real or complex floating arrays.")
    eps = max(float(jnp.finfo(x.dtype).eps) for x in jax.tree.leaves(b))
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and is_known(value) and not float(value) >= 0:
            raise ValueError(f"`{name}` must not be negative, got {value!r}.")
    if rtol is not None and is_known(rtol) and 0 < float(rtol) < eps:
        raise ValueError(f"`rtol` = {float(rtol):.3g} is below the machine precision {eps:.3g} of b.")
    rtol = 1e-8 if rtol is None and eps < 1e-12 else max(1e-5, 4 * eps) if rtol is None else rtol
    tolerances = (jnp.asarray(rtol), jnp.asarray(atol))
    return _solve(A, b, args, method, preconditioner, x0, tolerances, fingerprint((A, preconditioner, args)))


@eqx.filter_jit
def _solve(
    A: Any, b: Any, args: tuple, method: Any, preconditioner: Any, x0: Any, tolerances: tuple, seen: Any
) -> LinearSolution:
    packing = Packing(b)
    right = packing.pack(b)
    rtol, atol = (lax.stop_gradient(t).astype(packing.dtype) for t in tolerances)

    def residual(x: Array) -> Array:
        tree = packing.unpack(x)
        product = A(tree, *args) if callable(A) else jnp.matmul(A, tree, precision=lax.Precision.HIGHEST)
        there, here = jax.tree.structure(product), jax.tree.structure(b)
        kinds = [(jnp.shape(p), jnp.asarray(p).dtype) for p in jax.tree.leaves(product)]
        if there != here or kinds != list(packing.leaves):
            raise ValueError(
                f"A x must have structure, shapes and dtypes of b, {packing.leaves}, got {kinds} in {there}."
            )
        return right - packing.pack(product)

    start = jnp.zeros_like(right) if x0 is None else lax.stop_gradient(packing.pack(x0))
    pure, captured = hoist(residual, start)
    identity = (lambda _, v: v, [])
    applied, own = identity
    if preconditioner is not None:
        applied, own = hoist(lambda v: packing.pack(preconditioner(packing.unpack(v), *args)), start)
    params = (captured, own, rtol, atol, right)

    def solve(params: tuple, x: Array) -> tuple[Array, LinearStats]:
        captured, own, rtol, atol, right = params
        tolerance = jnp.maximum(atol, rtol * norm2(right))
        guess = None if x0 is None else x

        # The function itself, not its linearisation: if it is not linear, the residual tells.
        def product(v: Array) -> Array:
            return right - pure(captured, v)

        return method.solve(product, right, guess, lambda v: applied(own, v), tolerance)

    def tangent(matvec: Callable, dr: Array, params: tuple, x: Array, stats: LinearStats) -> Array:
        precondition = None if preconditioner is None else (lambda v: applied(params[1], v))
        adjoint = Adjoint(linear=method)
        dx = tangent_solve(adjoint, matvec, dr, precondition, params[2])
        return dx * jnp.where(stats.code == int(Status.CONVERGED), 1, jnp.nan).astype(dx.dtype)

    x, stats = implicit_solution(lambda p, x: pure(p[0], x), params, start, solve, tangent)
    stats = lax.stop_gradient(stats)
    return LinearSolution(packing.unpack(x), stats.code, stats)
