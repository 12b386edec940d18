"""The doors of this package: `fixed_point` and `root`."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..core.captured import fingerprint
from ..core.checks import is_known, warn_of_truncation
from ..core.implicit_rule import Adjoint, as_arrays, require_adjoint
from ..core.krylov import check_counts
from .anderson import Anderson
from .newton_krylov import NewtonKrylov
from .solution import Solution
from .solving import NO_PRODUCTS, Choices, solve_compiled


def fixed_point(
    f: Callable,
    x0: Any,
    *args: Any,
    method: Any = Anderson(),
    rtol: Any = None,
    atol: Any = None,
    max_steps: int = 1000,
    has_aux: bool = False,
    adjoint: Adjoint = Adjoint(),
    history: bool = False,
    stability: int = 10,
) -> Solution:
    """Solve x = f(x, *args), and differentiate the solution by the implicit function theorem.

    Stops when norm2(f(x) - x) <= atol + rtol norm2(x). The derivative with respect to `args`, and to whatever else `f`
    captures, solves (1 - df/dx) dx = df at the solution: it costs one linear solve, needs memory that does not grow
    with the number of steps, and does not depend on the method, on its damping, or on `x0`. Every mode works, to any
    order, inside `jit` and `vmap`. A solve that failed has NaN derivatives, never wrong ones.

    Under `vmap` the members of the batch that are done stop costing. Compiled once per function, shapes and choices;
    new values of `x0`, `args` and tolerances run without a new trace, while a new function object (a fresh lambda)
    is compiled anew: pass what changes through `args`.

    Args:
        f: function (x, *args) -> x, of a pytree; the result has the structure, shapes and dtypes of `x0`.
        x0: start. Real and complex arrays and numbers are unknowns; leaves of other types reach `f` as they are.
        args: parameters, pytrees; numbers count as arrays.
        method: `Anderson()`, `Picard()`, `Broyden()`, `PseudoTransient()`; for maps that do not contract
            `NewtonKrylov()` or, for few unknowns, `Newton()`.
        rtol: relative tolerance, by default 1e-8 in double and 1e-5 in single precision.
        atol: absolute tolerance; the same defaults.
        max_steps: largest number of steps.
        has_aux: `f` returns (x, aux); aux is evaluated at the solution and is differentiable.
        adjoint: how derivatives are computed, see `Adjoint`.
        history: keep the residual of every iterate in `stats.history`.
        stability: Jacobian products spent on the spectral radius at the solution (`stats.spectral_radius`), 0 for
            none. Above one the status is UNSTABLE: the equation is solved and derivatives hold, but the plain
            iteration would leave this solution, often because there is another one.

    Returns:
        `Solution(value, aux, status, stats)`; `.check()` raises unless the equation is solved.

    Raises:
        TypeError: if `x0` holds no floating number.
        ValueError: for a result of another structure, shape or dtype than `x0`, tolerances below machine precision,
            `max_steps` below 1.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv
        >>> def kepler(anomaly, mean, eccentricity):
        ...     return mean + eccentricity * jnp.sin(anomaly)
        >>> solution = sv.fixed_point(kepler, 1.0, 0.8, 0.3).check()
        >>> solution.status.name, round(float(solution.value), 6)
        ('CONVERGED', 1.061999)
        >>> print(round(float(jax.grad(lambda e: sv.fixed_point(kepler, 1.0, 0.8, e).value)(0.3)), 4))
        1.0228

    Reference:
        M. Blondel et al., Efficient and Modular Implicit Differentiation, NeurIPS 2022.
    """
    choices = Choices(max_steps, has_aux, history, stability, True, None)
    return _door(f, x0, args, method, rtol, atol, adjoint, choices)


def root(
    F: Callable,
    x0: Any,
    *args: Any,
    method: Any = NewtonKrylov(),
    rtol: Any = None,
    atol: Any = None,
    max_steps: int = 1000,
    has_aux: bool = False,
    adjoint: Adjoint = Adjoint(),
    history: bool = False,
) -> Solution:
    """Solve F(x, *args) = 0, and differentiate the solution by the implicit function theorem.

    Stops when norm2(F(x)) <= atol + rtol norm2(F(x0)). The derivative solves (dF/dx) dx = -dF. Everything else is as
    in `fixed_point`; methods of fixed points iterate x - F(x), and so need F scaled to make that sensible.

    Args:
        F: function (x, *args) -> residual with the structure, shapes and dtypes of x.
        x0: start, a pytree.
        args: parameters, pytrees; numbers count as arrays.
        method: `NewtonKrylov()`, `Newton()`, `Broyden()`, `PseudoTransient()`, or one of the fixed-point methods.
        rtol: relative to norm2(F(x0)); by default 1e-8 in double and 1e-5 in single precision.
        atol: absolute tolerance; the same defaults. Give it in the units of F.
        max_steps: largest number of steps.
        has_aux: `F` returns (residual, aux); aux is evaluated at the solution and is differentiable.
        adjoint: how derivatives are computed, see `Adjoint`.
        history: keep the residual of every iterate in `stats.history`.

    Returns:
        `Solution(value, aux, status, stats)`; `.check()` raises unless the equation is solved.

    Raises:
        TypeError, ValueError: as in `fixed_point`.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv
        >>> cube_root = lambda a: sv.root(lambda x, a: x**3 - a, 1.0, a).value
        >>> print(round(float(cube_root(8.0)), 6), round(float(jax.grad(cube_root)(8.0)), 6))
        2.0 0.083333

    Reference:
        D. A. Knoll, D. E. Keyes, J. Comput. Phys. 193 (2004) 357.
    """
    choices = Choices(max_steps, has_aux, history, 0, False, None)
    return _door(F, x0, args, method, rtol, atol, adjoint, choices)


def _door(
    function: Callable,
    x0: Any,
    args: tuple,
    method: Any,
    rtol: Any,
    atol: Any,
    adjoint: Any,
    choices: Choices,
) -> Solution:
    if not callable(function):
        raise TypeError(f"The first argument must be a function, got {type(function).__name__}.")
    require_method(method)
    require_adjoint(adjoint)
    _no_choice_among_args(function, x0, args)
    if adjoint.mode == "unroll" and not getattr(method, "unrolls", False):
        raise ValueError(
            f'mode="unroll" differentiates Picard, Anderson and Broyden steps, not {type(method).__name__}.'
        )
    check_counts(max_steps=choices.max_steps)
    if isinstance(choices.stability, bool) or not isinstance(choices.stability, int) or choices.stability < 0:
        raise ValueError(f"`stability` is a number of products, 0 or more, got {choices.stability!r}.")
    for x in jax.tree.leaves((x0, args)):
        warn_of_truncation(x, "x0 or args")
    x0, args = as_arrays(x0), as_arrays(args)
    leaves = [x for x in jax.tree.leaves(x0) if eqx.is_inexact_array(x)]
    if not leaves:
        kinds = sorted({str(getattr(x, "dtype", type(x).__name__)) for x in jax.tree.leaves(x0)})
        raise TypeError(
            f"`x0` holds no floating number to solve for, only {', '.join(kinds) or 'nothing'}: unknowns are real or "
            "complex. Convert it, for example with x0 * 1.0."
        )
    rtol, atol = _tolerances(rtol, atol, leaves, args)
    choices = choices._replace(seen=fingerprint((function, method, adjoint, args)))
    try:
        return solve_compiled(function, x0, args, method, rtol, atol, adjoint, choices)
    except TypeError as error:
        # JAX finds a custom_vjp without forward mode only when all is traced.
        if choices.stability and "custom_vjp" in str(error):
            raise TypeError(NO_PRODUCTS.format(error)) from error
        raise


def _tolerances(rtol: Any, atol: Any, leaves: list, args: Any) -> tuple:
    """Checked where they are known, as arrays; None is the default of the precision."""
    dtypes = [x.dtype for x in leaves if not x.weak_type]
    if not dtypes:
        # Python numbers take the precision of what they meet.
        dtypes = [jnp.result_type(*leaves, *filter(eqx.is_inexact_array, jax.tree.leaves(args)))]
    check_tolerances(rtol, atol, max(float(jnp.finfo(d).eps) for d in dtypes))
    return tuple(None if t is None else jnp.asarray(t) for t in (rtol, atol))


def require_method(method: Any) -> None:
    """TypeError unless this is a method, and no class of methods."""
    if isinstance(method, type):
        raise TypeError(f"`method` must be a method, not its class: write {method.__name__}().")
    if not hasattr(method, "start") or not hasattr(method, "step"):
        raise TypeError(f"`method` must be a method such as Anderson() or NewtonKrylov(), got {method!r}.")


def _no_choice_among_args(function: Callable, x0: Any, args: tuple) -> None:
    """TypeError for a method or an adjoint among the arguments of a function that does not take so many."""
    for x in args:
        method = hasattr(x, "start") and hasattr(x, "step")
        if (method or isinstance(x, Adjoint)) and not _takes(function, x0, args):
            name = "method" if method else "adjoint"
            raise TypeError(f"The function got {x!r} as an argument: give it by keyword, {name}=...")


def _takes(function: Callable, x0: Any, args: tuple) -> bool:
    try:
        inspect.signature(function).bind(x0, *args)
    except TypeError:
        return False
    except ValueError:
        # Functions written in C have no signature.
        return True
    return True


def check_tolerances(rtol: Any, atol: Any, eps: float) -> None:
    """Raise ValueError for tolerances that are known and no residual of this precision can meet; None is none given."""
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is None or not is_known(value):
            continue
        number = isinstance(value, int | float | np.number | np.ndarray | jax.Array) and not isinstance(value, bool)
        if not number or np.ndim(value) or not float(value) >= 0:
            raise ValueError(f"`{name}` must be a number that is not negative, got {value!r}.")
    if is_known(rtol) and rtol is not None:
        if 0 < float(rtol) < eps:
            raise ValueError(
                f"`rtol` = {float(rtol):.3g} is below the machine precision {eps:.3g} of the unknowns; no residual can "
                "be known to be so small. Take a larger one, or 0 and an `atol`."
            )
        if float(rtol) == 0 and atol is not None and is_known(atol) and float(atol) == 0:
            raise ValueError("`rtol` and `atol` are both zero: no residual would ever be small enough.")
