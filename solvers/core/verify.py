"""Certificates for a user's own problem: Taylor test of a gradient, dot-product test of an adjoint, measured order.

Each function returns a small report that prints as a table, says by `.ok` whether the test passed, and raises
`SolverError` from `.check()` if it did not.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .reports import AdjointReport, GradientReport, OrderReport
from .taylor import FEWEST, judge, resolution, round_off

# Roundings in one element of a derivative, all of one sign, that the dot-product test allows for.
ROUNDINGS = 64.0


def check_gradient(
    function: Callable[[Any], Any],
    point: Any,
    direction: Any = None,
    *,
    hessian: bool = False,
    steps: Sequence[float] | np.ndarray | None = None,
    key: Array | None = None,
    gradient: Any = None,
    tolerance: float | int = 0.1,
) -> GradientReport:
    """Taylor test: do the derivatives of a scalar function predict how it changes?

    With g the gradient and H the Hessian at x, the remainders

        R0(h) = |f(x + h d) - f(x)|                              ~ h
        R1(h) = |f(x + h d) - f(x) - h <g, d>|                   ~ h^2
        R2(h) = |f(x + h d) - f(x) - h <g, d> - h^2/2 <d, H d>|  ~ h^3

    fall at these rates as h -> 0 if and only if g and H are right along d; with a wrong gradient R1 falls like h. The
    rates are fitted, together with the next term of the series, R = C h^p exp(q h), over the three to five smallest
    steps at which the remainder stands clear of its round-off (300 times in float64, 30 times in float32). The
    round-off of f is measured from eight neighbouring values, so that a long run is judged by what it can show.

    The test passes if R1 (and R2) fall at a rate within `tolerance` of theory, or at a higher whole power (the next
    term vanishes along d), or are at round-off for all steps (R1 of a linear, R2 of a quadratic function). R0 is shown
    to compare with. Where no window is clean the test has shown nothing, and fails. In float32 that is common for R2,
    which leaves only a few large steps: test the Hessian in float64. Cost: one gradient (or Hessian-vector product)
    and 18 to 24 evaluations.

    A random direction sees every parameter at once, but hardly a small error of a smooth gradient, because <g, d> is
    small beside <d, H d>: the report says what error would have shown. A smooth direction sees more.

    Args:
        function: scalar real function of a pytree, traceable by `jax.jit`.
        point: x. Floating leaves are perturbed; all others stay as they are.
        direction: d, a pytree like `point` (other leaves are ignored). By default normal random numbers, scaled in
            each leaf to the root-mean-square of the point (to 1 where that is zero).
        hessian: also form R2, with H d by forward over reverse mode.
        steps: at least three positive steps h. By default halved from 2^-5 to 2^-19 in float64 and from 2^-2 to 2^-10
            in float32.
        key: random key of the direction, by default `jax.random.key(0)`.
        gradient: the gradient to be tested, as a function of x or as a pytree; by default `jax.grad(function)`. A
            function is also what the Hessian is taken from.
        tolerance: allowed distance of a rate from theory.

    Returns:
        A `GradientReport`; `.check()` raises `SolverError` if the test failed.

    Raises:
        ValueError: if the function is not scalar and real, the point holds no floating leaf, or direction, gradient or
            steps do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> report = check_gradient(lambda x: jnp.sum(jnp.sin(x) ** 2), jnp.array([0.3, 1.1]), hessian=True).check()
        >>> [round(r.rate, 1) for r in report.remainders]
        [1.0, 2.0, 3.0]

    Reference:
        P. E. Farrell, D. A. Ham, S. W. Funke, M. E. Rognes, SIAM J. Sci. Comput. 35 (2013) C369, section 6 (Taylor
        test); J. J. More, S. M. Wild, SIAM J. Sci. Comput. 33 (2011) 1292, section 3 (round-off from differences).
    """
    moving, still = _partition(point, "point")
    d = _random_like(moving, key, 0) if direction is None else _fitting(direction, moving, "direction")

    def f(x: Any) -> Any:
        return function(eqx.combine(x, still))

    _expect_scalar(jax.eval_shape(f, moving))
    eps = max(_eps(moving), _eps(jax.eval_shape(f, moving)))
    hs = _steps(steps, eps)
    g, hd = _derivatives(f, moving, still, d, gradient, hessian)

    along = jax.jit(lambda x, d, h: f(jax.tree.map(lambda a, b: a + h.astype(b.real.dtype) * b, x, d)))

    def evaluate(h: float) -> float:
        # With a dtype: a Python number and NumPy's are two types to the compiler.
        return float(along(moving, d, jnp.asarray(h, jnp.result_type(float))))

    # Steps at which f is not finite are left out by `judge`.
    with np.errstate(all="ignore"):
        noise, value = round_off(evaluate, eps), evaluate(0.0)
        change = np.array([evaluate(h) for h in hs]) - value
        slope, slope_size = _product(g, d)
        # What Taylor's formula takes off, and its round-off: about ten roundings in each element of a derivative.
        terms, lost = [np.zeros_like(hs), hs * slope], [np.zeros_like(hs), hs * slope_size * 10 * eps]
        if hessian:
            curvature, curvature_size = _product(hd, d)
            terms.append(hs**2 / 2 * curvature)
            lost.append(hs**2 / 2 * curvature_size * 10 * eps)
        floors = math.sqrt(2.0) * noise + np.cumsum(lost, axis=0)
        remainders = tuple(
            judge(hs, np.abs(change - term), floor, np.abs(change), expected=power, tolerance=tolerance, eps=eps)
            for power, (term, floor) in enumerate(zip(np.cumsum(terms, axis=0), floors, strict=True), start=1)
        )
    unseen = resolution(hs, remainders[1], slope, tolerance)
    return GradientReport(value, slope, hs, remainders, noise, unseen, float(tolerance))


def check_adjoint(
    function: Callable[[Any], Any],
    point: Any,
    *,
    key: Array | None = None,
    tangent: Any = None,
    cotangent: Any = None,
    tolerance: float | int | None = None,
) -> AdjointReport:
    """Dot-product test: is reverse mode the transpose of forward mode?

    With J the derivative of the function at the point, <J v, w> = <v, J^T w> for every v and w. The left side is taken
    by `jax.jvp`, the right side by `jax.vjp`. Both may be wrong together: `check_gradient` compares with values of the
    function.

    The error is |<J v, w> - <v, J^T w>| / (sum of the squares of the products)^(1/2), which does not grow when the sum
    cancels. It passes below 64 eps n^(1/2), with n the number of elements on both sides: 64 roundings in every
    element, all of one sign. For 1000 elements that is 4.5e-13 in float64 and 2.4e-4 in float32.

    Args:
        function: function of a pytree that returns a pytree; leaves that are not floating are left out on both sides.
        point: where the derivative is taken.
        key: random key of v and w, by default `jax.random.key(0)`.
        tangent: v, a pytree like `point`; by default normal random numbers scaled to the point.
        cotangent: w, a pytree like the output; by default normal random numbers scaled to the output.
        tolerance: bound of the error in place of the one above, for example where a long run amplifies round-off.

    Returns:
        An `AdjointReport`; `.check()` raises `SolverError` if the test failed.

    Raises:
        ValueError: if point or output hold no floating leaf, or tangent or cotangent do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> check_adjoint(lambda x: jnp.cumsum(jnp.exp(x)), jnp.linspace(0.0, 1.0, 50)).check().error < 1e-12
        True

    Reference:
        J. Claerbout, Earth Soundings Analysis (1992), chapter 5, "The dot-product test".
    """
    moving, still = _partition(point, "point")
    v = _random_like(moving, key, 0) if tangent is None else _fitting(tangent, moving, "tangent")

    def f(x: Any) -> Any:
        return eqx.filter(function(eqx.combine(x, still)), eqx.is_inexact_array)

    out, jv = jax.jit(lambda x, v: jax.jvp(f, (x,), (v,)))(moving, v)
    if not jax.tree.leaves(out):
        raise ValueError("`function` returns no floating array.")
    w = _random_like(out, key, 1) if cotangent is None else _fitting(cotangent, out, "cotangent")
    jtw = jax.jit(lambda x, w: jax.vjp(f, x)[1](w)[0])(moving, w)

    forward, scale = _product(jv, w)
    reverse, reverse_scale = _product(v, jtw)
    scale, gap = max(scale, reverse_scale), abs(forward - reverse)
    error = gap / scale if scale > 0 else gap
    if tolerance is None:
        count = sum(x.size for x in jax.tree.leaves((moving, out)))
        tolerance = ROUNDINGS * max(_eps(moving), _eps(out)) * math.sqrt(count)
    return AdjointReport(forward, reverse, error, float(tolerance))


def check_order(
    error: Callable[[Any], Any] | Sequence[Any] | np.ndarray | Array,
    sizes: Sequence[Any] | np.ndarray,
    expected: float | int,
    tolerance: float | int = 0.2,
) -> OrderReport:
    """Measure the order p of a method, error ~ size^-p, over a sequence of grids.

    The slope between two sizes is log(e_1 / e_2) / log(n_2 / n_1). The test passes if the least-squares slope over the
    three finest sizes is within `tolerance` of `expected`; the coarse ones are shown. Grids so fine that round-off
    shows, or so coarse that the next term of the error counts, fail the test: choose sizes between.

    Args:
        error: function of one size that returns the error against the truth, or the errors themselves.
        sizes: at least three numbers of cells, nodes or steps, ascending. Take what the step is inversely
            proportional to: n nodes on a closed interval make n - 1 cells.
        expected: order by theory.
        tolerance: allowed distance from it.

    Returns:
        An `OrderReport`; `.check()` raises `SolverError` if the test failed.

    Raises:
        ValueError: if there are fewer than three sizes, they do not ascend, or an error is not positive and finite.

    Example:
        >>> import jax.numpy as jnp
        >>> def error(n):                          # trapezoidal rule for the integral of exp over [0, 1]
        ...     x = jnp.linspace(0.0, 1.0, n + 1)
        ...     return abs(jnp.trapezoid(jnp.exp(x), x) - (jnp.e - 1))
        >>> print(check_order(error, (8, 16, 32), expected=2).check())
        size      error      order
           8  2.236e-03          -
          16  5.593e-04      1.999
          32  1.398e-04      2.000
        order 2.000 over the three finest, expected 2 +- 0.2: passed

    Reference:
        P. J. Roache, J. Fluids Eng. 124 (2002) 4, "Code verification by the method of manufactured solutions".
    """
    ns = tuple(float(n) for n in sizes)
    if len(ns) < 3 or not np.all(np.isfinite(ns)) or not np.all(np.diff((0.0, *ns)) > 0):
        raise ValueError(
            "`sizes` must be at least three positive numbers of cells or steps, ascending (so not spacings), "
            f"got {tuple(sizes)}."
        )
    given = [error(n) for n in sizes] if callable(error) else list(error)
    if len(given) != len(ns) or any(np.size(e) != 1 for e in given):
        raise ValueError(f"`error` must give one number per size ({len(ns)} sizes), got {given}.")
    errors = tuple(float(np.asarray(e).reshape(())) for e in given)
    if not all(math.isfinite(e) and e > 0 for e in errors):
        raise ValueError(f"Errors must be positive and finite to have an order, got {errors} for sizes {tuple(sizes)}.")
    x, y = np.log(ns), -np.log(errors)
    slopes = tuple(float(s) for s in np.diff(y) / np.diff(x))
    fit = float(np.polyfit(x[-3:], y[-3:], 1)[0])
    return OrderReport(ns, errors, slopes, fit, float(expected), float(tolerance))


def _derivatives(f: Callable, x: Any, still: Any, d: Any, gradient: Any, hessian: bool) -> tuple[Any, Any]:
    """Gradient at x and Hessian-vector product with d (None unless asked for)."""

    def of_user(x: Any) -> Any:
        return _fitting(gradient(eqx.combine(x, still)), x, "gradient")

    grad = of_user if callable(gradient) else jax.grad(f)
    fixed = None if gradient is None or callable(gradient) else _fitting(gradient, x, "gradient")
    if hessian:
        g, hd = jax.jit(lambda x, d: jax.jvp(grad, (x,), (d,)))(x, d)
        return (g if fixed is None else fixed), hd
    return (jax.jit(grad)(x) if fixed is None else fixed), None


def _steps(steps: Sequence[float] | np.ndarray | None, eps: float) -> np.ndarray:
    if steps is None:
        first, last = (5, 19) if eps < 1e-12 else (2, 10)
        return 2.0 ** -np.arange(first, last + 1)
    hs = np.unique(np.asarray(steps, dtype=np.float64))[::-1]
    if len(hs) < FEWEST or not np.all(np.isfinite(hs)) or hs[-1] <= 0:
        raise ValueError(f"`steps` must hold at least {FEWEST} different positive numbers, got {steps!r}.")
    return hs


def _expect_scalar(out: Any) -> None:
    shape, dtype = getattr(out, "shape", None), getattr(out, "dtype", None)
    if shape != () or dtype is None or not jnp.issubdtype(dtype, jnp.floating):
        what = f"shape {shape} and dtype {dtype}" if dtype is not None else f"{out!r}"
        raise ValueError(f"`function` must return one real floating number, got {what}.")


def _partition(tree: Any, name: str) -> tuple[Any, Any]:
    """Floating leaves as arrays, and the rest."""
    moving, still = eqx.partition(tree, eqx.is_inexact_array_like)
    leaves = jax.tree.leaves(moving)
    if not leaves:
        raise ValueError(f"`{name}` holds no floating number, so there is nothing to differentiate.")
    # A Python number takes the precision of the arrays beside it, as it does in arithmetic.
    arrays = [x.dtype for x in leaves if eqx.is_array(x) or isinstance(x, np.ndarray | np.generic)]
    dtype = jnp.result_type(*arrays) if arrays else jnp.result_type(float)
    return jax.tree.map(lambda x: jnp.asarray(x, getattr(x, "dtype", dtype)), moving), still


def _fitting(tree: Any, like: Any, name: str) -> Any:
    """The floating leaves of a pytree, with structure, shapes and dtypes of `like`."""

    def empty(x: Any) -> bool:
        return x is None

    try:
        given = jax.tree.map(lambda b, a: None if b is None else a, like, tree, is_leaf=empty)
    except (ValueError, TypeError) as problem:
        raise ValueError(f"`{name}` has another structure than it must have: {problem}") from None
    if jax.tree.structure(given) != jax.tree.structure(like):
        raise ValueError(
            f"`{name}` must have the structure {jax.tree.structure(like)}, got {jax.tree.structure(given)}."
        )
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(given), jax.tree.leaves(like), strict=True):
        if jnp.shape(a) != b.shape:
            raise ValueError(f"`{name}{jax.tree_util.keystr(path)}` must have shape {b.shape}, got {jnp.shape(a)}.")
    return jax.tree.map(lambda a, b: jnp.asarray(a).astype(b.dtype), given, like)


def _random_like(tree: Any, key: Array | None, stream: int) -> Any:
    """Normal random numbers with the root-mean-square of each leaf (1 where that is zero or not finite)."""
    key = jax.random.fold_in(jax.random.key(0) if key is None else key, stream)
    leaves, structure = jax.tree.flatten(tree)

    def draw(i: int, x: Array) -> Array:
        rms = float(np.sqrt(np.mean(np.abs(np.asarray(x, np.complex128)) ** 2))) if x.size else 1.0
        # Drawn in single precision, so that both precisions get the same direction.
        single = jnp.complex64 if jnp.iscomplexobj(x) else jnp.float32
        rms = rms if rms > 0 and math.isfinite(rms) else 1.0
        return (rms * jax.random.normal(jax.random.fold_in(key, i), x.shape, single)).astype(x.dtype)

    return jax.tree.unflatten(structure, [draw(i, x) for i, x in enumerate(leaves)])


def _product(a: Any, b: Any) -> tuple[float, float]:
    """Sum of the products of all elements and the root of the sum of their squares, in float64.

    Without complex conjugate: JAX's reverse mode is the transpose, so that df = Re(sum(g dx)).
    """
    # Values that are not finite are the caller's to judge.
    with np.errstate(all="ignore"):
        terms = [
            np.real(np.asarray(x, np.complex128) * np.asarray(y, np.complex128)).ravel()
            for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
        ]
        products = np.concatenate(terms)
        return float(np.sum(products)), float(np.sqrt(np.sum(products**2)))


def _eps(tree: Any) -> float:
    """The coarsest machine epsilon of the leaves."""
    return max(float(jnp.finfo(x.dtype).eps) for x in jax.tree.leaves(tree))
