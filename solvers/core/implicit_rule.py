"""The implicit-function rule: derivatives of solutions. The only home of custom derivatives of solutions.

Where r(x, p) = 0 defines x(p), the tangent solves A dx = dr with A = -dr/dx and dr = (dr/dp) dp, whatever iterations
led to x. The tangent solve is a `custom_linear_solve`, so that its transpose is a solve with the transposed matrix:
forward mode, reverse mode and every composition of them follow, in memory that does not grow with the iterations.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from .captured import fingerprint
from .krylov import Gmres, LinearStats, check_counts
from .packing import Packing, hoist, norm2
from .ruled import ruled
from .status import Status

MODES = ("implicit", "one_step", "neumann", "unroll")

# Up to this many unknowns the Jacobian is written out: cheaper than a Krylov method and exact.
SMALL = 256


class Adjoint(eqx.Module):
    """How the derivative of a solution is computed.

    Args:
        linear: solver of the tangent and adjoint equations: "dense" (the Jacobian is written out), a Krylov method
            such as `Gmres()`, or "auto": dense up to 256 unknowns, else `Gmres()`.
        tolerance: relative tolerance of a Krylov method; "match" takes the relative residual of the solution, since a
            gradient cannot be better than the point at which it is taken.
        mode: "implicit" solves the tangent equation A dx = dr. "neumann" takes `terms` + 1 terms of the series
            A^-1 = 1 + (1 - A) + (1 - A)^2 + ..., "one_step" only the first: biased, cheap, of use where the iteration
            contracts strongly. "unroll" differentiates the iterations themselves, at memory for each of `max_steps`:
            k steps give the first k terms, so a warm start that is solved already, in no steps, has derivative zero.
        terms: order of the Neumann series.
        preconditioner: function (v, x, *args) -> approximation of A^-1 v, linear in v, with A the Jacobian of
            x - f(x) or of F; transposed by itself for the adjoint. None takes that of the method, if it has one.

    Raises:
        ValueError: for an unknown choice or a tolerance outside of (0, 1).

    Example:
        >>> Adjoint().mode, Adjoint(mode="neumann", terms=5).terms
        ('implicit', 5)

    Reference:
        M. Blondel et al., Efficient and Modular Implicit Differentiation, NeurIPS 2022; S. W. Fung et al., JFB,
        AAAI 2022 (one step).
    """

    linear: Any = "auto"
    tolerance: str | float = "match"
    mode: str = eqx.field(static=True, default="implicit")
    terms: int = eqx.field(static=True, default=10)
    preconditioner: Callable | None = None

    def __check_init__(self):
        if self.mode not in MODES:
            raise ValueError(f"`mode` must be one of {MODES}, got {self.mode!r}.")
        if not hasattr(self.linear, "solve") and self.linear not in ("auto", "dense"):
            raise ValueError(f'`linear` must be "auto", "dense" or a Krylov method like Gmres(), got {self.linear!r}.')
        given = self.tolerance
        known = isinstance(given, int | float)
        if (isinstance(given, str) and given != "match") or (known and not 0 < float(given) < 1):
            raise ValueError(f'`tolerance` must be "match" or a number between 0 and 1, got {self.tolerance!r}.')
        check_counts(terms=self.terms)


def implicit(
    residual: Callable,
    *,
    adjoint: Adjoint = Adjoint(),
    tolerance: Any = None,
    has_aux: bool = False,
    host: bool = False,
) -> Callable[[Callable], Callable]:
    """Give a solver of your own the derivative of the solution that it finds.

    With residual(x, *args) = 0 at the solution, dx = -(d residual/dx)^-1 (d residual/d args) d args: exact at the
    solution, whatever the solver does, in every mode and to any order, inside `jit` and `vmap`.

    Args:
        residual: function (x, *args) with the structure, shapes and dtypes of x, zero at the solution.
        adjoint: how the linear equations are solved; "unroll" has no meaning here.
        tolerance: largest norm2(residual) at which derivatives are given; beyond it, and where the solution is not
            finite, they are NaN. None trusts every finite answer of the solver.
        has_aux: the solver returns (x, aux); aux has no derivative, since it may come from the way to x. Compute from
            the returned x and `args` what is to have one.
        host: the solver is ordinary Python, such as a SciPy routine. It gets NumPy arrays through
            `jax.pure_callback`, one member of a batch at a time.

    Returns:
        A decorator: solver(x0, *args) -> x becomes a function of the same arguments. The derivative with respect to
        `x0` is zero.

    Raises:
        ValueError: for mode "unroll", and for a solution or residual of other shapes than x0.
        TypeError: for a residual or solver that is no function, an adjoint that is no `Adjoint`.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv
        >>> @sv.implicit(lambda x, a: x * x - a)
        ... def heron(x0, a):
        ...     return jax.lax.fori_loop(0, 20, lambda _, x: 0.5 * (x + a / x), x0)
        >>> print(round(float(heron(1.0, 9.0)), 6), round(float(jax.grad(heron, 1)(1.0, 9.0)), 6))
        3.0 0.166667

    Reference:
        M. Blondel et al., Efficient and Modular Implicit Differentiation, NeurIPS 2022.
    """
    _check_function(residual, "residual")
    require_adjoint(adjoint)
    if adjoint.mode == "unroll":
        raise ValueError('mode="unroll" differentiates the steps of a method; the steps of your solver are not seen.')

    def decorate(solver: Callable) -> Callable:
        _check_function(solver, "solver")

        @functools.wraps(solver)
        def solved(x0: Any, *args: Any) -> Any:
            x0, args = as_arrays(x0), as_arrays(args)
            if not jax.tree.leaves(x0) or not all(eqx.is_inexact_array(x) for x in jax.tree.leaves(x0)):
                raise TypeError("`x0` must be a pytree of floating arrays.")
            seen = fingerprint((residual, solver, adjoint, args))
            return _implicit(residual, solver, x0, args, adjoint, tolerance, has_aux, host, seen)

        return solved

    return decorate


def require_adjoint(adjoint: Any) -> None:
    """TypeError unless this is an `Adjoint`."""
    if not isinstance(adjoint, Adjoint):
        raise TypeError(f'`adjoint` must be an Adjoint, such as Adjoint(linear="dense"), got {adjoint!r}.')


def _check_function(function: Any, name: str) -> None:
    if not callable(function):
        raise TypeError(f"The {name} must be a function (x, *args), got {function!r}.")


@eqx.filter_jit
def _implicit(
    residual: Callable,
    solver: Callable,
    x0: Any,
    args: tuple,
    adjoint: Adjoint,
    tolerance: Any,
    has_aux: bool,
    host: bool,
    seen: Any,
) -> Any:
    packing = Packing(x0)

    def equation(x: Array) -> Array:
        tree = packing.unpack(x)
        return -packing.pack(packing.expect(residual(tree, *args), "residual(x, *args)"))

    def answer(x: Array) -> tuple[Array, Any]:
        tree = packing.unpack(x)
        out = _on_host(solver, tree, args, has_aux) if host else solver(tree, *args)
        value, aux = out if has_aux else (out, None)
        return packing.pack(packing.expect(value, "the solution")), aux

    start = lax.stop_gradient(packing.pack(x0))
    pure, captured = hoist(equation, start)
    run, own = hoist(answer, start)
    precondition, held = hoisted_preconditioner(adjoint.preconditioner, packing, args, start)
    limit = jnp.asarray(jnp.inf if tolerance is None else lax.stop_gradient(tolerance), packing.dtype)

    def solve(params: tuple, x: Array) -> tuple[Array, tuple]:
        captured, own, _, limit = params
        x, aux = run(own, x)
        size = norm2(pure(captured, x))
        return x, (jnp.isfinite(size) & (size <= limit), aux)

    def tangent(matvec: Callable, dr: Array, params: tuple, x: Array, info: tuple) -> Array:
        apply = None if precondition is None else (lambda v: precondition(params[2], v, x))
        rtol = jnp.asarray(default_tolerance(packing.precision), packing.dtype)
        dx = tangent_solve(adjoint, matvec, dr, apply, rtol)
        return dx * jnp.where(info[0], 1, jnp.nan).astype(dx.dtype)

    params = (captured, own, held, limit)
    x, (_, aux) = implicit_solution(lambda p, x: pure(p[0], x), params, start, solve, tangent)
    value = packing.unpack(x)
    return (value, jax.tree.map(lax.stop_gradient, aux)) if has_aux else value


def hoisted_preconditioner(function: Any, packing: Packing, args: tuple, start: Array) -> tuple:
    """A preconditioner (v, x, *args) as a pure function of (captured, v, x) in vectors, and what it captures."""
    if function is None:
        return None, []

    def apply(v: Array, x: Array) -> Array:
        out = function(packing.unpack(v), packing.unpack(x), *args)
        return packing.pack(packing.expect(out, "The result of the preconditioner"))

    return hoist(apply, start, start)


def _on_host(solver: Callable, x0: Any, args: tuple, has_aux: bool) -> Any:
    if has_aux:
        raise ValueError("A solver on the host returns x alone: its auxiliary output has no known shape.")
    arrays, static = eqx.partition(args, eqx.is_array)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), x0)

    def call(x0: Any, arrays: Any) -> Any:
        x0, arrays = jax.tree.map(np.asarray, (x0, arrays))
        value = solver(x0, *eqx.combine(arrays, static))
        return jax.tree.map(lambda s, v: np.asarray(v, s.dtype).reshape(s.shape), shapes, value)

    return jax.pure_callback(call, shapes, x0, arrays, vmap_method="sequential")


def default_tolerance(precision: float) -> float:
    """1e-8 in double, 1e-5 in single precision; four units in the last place where that is more."""
    return 1e-8 if precision < 1e-12 else max(1e-5, 4 * precision)


def as_arrays(tree: Any) -> Any:
    """Numbers become arrays, so that new values need no new trace; everything that is no number stays."""

    def convert(x: Any) -> Any:
        number = isinstance(x, int | float | complex) and not isinstance(x, bool)
        return jnp.asarray(x) if number or isinstance(x, np.ndarray | np.generic) else x

    return jax.tree.map(convert, tree)


def implicit_solution(
    residual: Callable[[Any, Array], Array],
    params: Any,
    start: Array,
    solve: Callable[[Any, Array], tuple[Array, Any]],
    tangent: Callable,
) -> tuple[Array, Any]:
    """The solution of residual(params, x) = 0 as a differentiable function of `params`.

    Args:
        residual: r(params, x), a vector; captures no traced values.
        params: pytree of arrays; those that are floating are differentiated.
        start: initial guess; the solution does not depend on it, so its derivative is zero.
        solve: (params, start) -> (x, info); never differentiated.
        tangent: (matvec, dr, params, x, info) -> dx, linear in dr and transposable: the solution of A dx = dr.

    Returns:
        (x, info); the derivative of `info` is zero.
    """

    def rule(primals: tuple, tangents: tuple) -> tuple:
        params, start = primals
        x, info = solution(params, start)
        leaves, tree = jax.tree.flatten(params)
        dots = tree.flatten_up_to(tangents[0])
        moving = [i for i, d in enumerate(dots) if isinstance(d, jax.Array | np.ndarray) and _floats(d)]
        if not moving:
            return (x, info), jax.tree.map(_no_tangent, (x, info))

        def of_moving(values: list) -> Array:
            new = list(leaves)
            for i, value in zip(moving, values, strict=True):
                new[i] = value
            return residual(jax.tree.unflatten(tree, new), x)

        _, dr = jax.jvp(of_moving, ([leaves[i] for i in moving],), ([dots[i] for i in moving],))
        _, product = jax.linearize(lambda x: residual(params, x), x)
        dx = tangent(lambda v: -product(v), dr, params, x, info)
        return (x, info), (dx, jax.tree.map(_no_tangent, info))

    solution = ruled(solve, rule)
    return solution(params, lax.stop_gradient(start))


def tangent_solve(adjoint: Adjoint, matvec: Callable, b: Array, precondition: Callable | None, rtol: Array) -> Array:
    """Solve A x = b by the choices of `adjoint`, linear in b and transposable; NaN where the solve fails."""
    if adjoint.mode in ("one_step", "neumann"):
        terms = adjoint.terms if adjoint.mode == "neumann" else 0

        def series(product: Callable, b: Array) -> Array:
            return lax.fori_loop(0, terms, lambda _, x: b + x - product(x), b)

        return lax.custom_linear_solve(lambda v: matvec(v), b, series, series)

    small = b.shape[0] <= SMALL
    if adjoint.linear == "dense" or (adjoint.linear == "auto" and small and precondition is None):
        return lax.custom_linear_solve(lambda v: matvec(v), b, dense_solve, dense_solve)
    method = Gmres() if adjoint.linear == "auto" else adjoint.linear
    rtol = lax.stop_gradient(rtol if adjoint.tolerance == "match" else jnp.asarray(adjoint.tolerance, b.dtype))
    forward = precondition if precondition is not None else lambda v: v

    def krylov(product: Callable, b: Array, precondition: Callable) -> Array:
        x, stats = method.solve(product, b, None, precondition, rtol * norm2(b))
        return jnp.where(as_good_as_can_be(product, x, stats), x, jnp.nan)

    def transpose(v: Array) -> Array:
        return jax.linear_transpose(lambda u: forward(u), v)(v)[0]

    return lax.custom_linear_solve(
        lambda v: matvec(v), b, lambda p, b: krylov(p, b, forward), lambda p, b: krylov(p, b, transpose)
    )


def dense_solve(product: Callable, b: Array) -> Array:
    """Solve A x = b with the matrix written out; NaN if the matrix is singular to working precision."""
    matrix = jax.vmap(product, in_axes=1, out_axes=1)(jnp.eye(b.shape[0], dtype=b.dtype))
    factors = jax.scipy.linalg.lu_factor(matrix)
    x = jax.scipy.linalg.lu_solve(factors, b)
    rest = b - jnp.dot(matrix, x, precision=lax.Precision.HIGHEST)
    x = x + jax.scipy.linalg.lu_solve(factors, rest)
    rest = norm2(b - jnp.dot(matrix, x, precision=lax.Precision.HIGHEST))
    good = rest <= float(jnp.finfo(b.dtype).eps) ** 0.5 * norm2(b)
    return jnp.where(good, x, jnp.nan)


def as_good_as_can_be(product: Callable, x: Array, stats: LinearStats) -> Array:
    """Whether a linear solve met its tolerance, or stagnated where round-off hides the residual.

    A tolerance that follows from the residual of the nonlinear equation may lie below what the product can resolve:
    eps |A| |x|, large against eps |b| for a fine discretisation. What it resolves at x shows in A x - 3 A(x/3), for the
    division rounds every entry anew.
    """

    def look(_: tuple) -> tuple:
        noise = norm2(product(x) - 3 * product(x / 3))
        return jnp.zeros((), bool), stats.residual <= 10 * noise

    # A loop of at most one step: a branch would be taken by every member of a batch, needed or not.
    open_question = stats.code == int(Status.STAGNATED)
    return lax.while_loop(lambda s: s[0], look, (open_question, stats.code == int(Status.CONVERGED)))[1]


def _floats(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _no_tangent(x: Any) -> Any:
    return jnp.zeros_like(x) if _floats(x) else np.zeros(x.shape, jax.dtypes.float0)
