"""Log densities, their scores, and differences of log densities that survive float32."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import as_field, check_positive, is_known
from .metric import IdentityMetric
from .vectors import add, dot, subtract


class LeastSquares(eqx.Module):
    """A log density with a sum of squares in it: log pi(x) = -|r(x)|^2 / 2 + rest(x).

    Kernels with a Metropolis correction compare two densities. The difference of two sums of squares near 1e8 has no
    digit left in float32; from the residuals it has all of them:

        (|r'|^2 - |r|^2) / 2 = <r' - r, r' + r> / 2.

    Every target with a method `residual(position)` (and `rest(position)`, if there is more) is treated so.

    Args:
        residual: function of the position: misfits divided by their standard deviation, any pytree of arrays.
        rest: what else the log density contains, a function that returns a scalar; None for nothing.

    Example:
        >>> import jax.numpy as jnp
        >>> density = LeastSquares(lambda x: (x - 3.0) / 0.1)
        >>> round(float(density(jnp.array([3.1]))), 6)
        -0.5
    """

    residual: Callable
    rest: Callable | None = None

    def __call__(self, position: Any) -> Array:
        value, _ = _parts(self, position)
        return value


class Point(eqx.Module):
    """A position and what is known about the density there.

    Attributes:
        position: pytree of floating arrays.
        logdensity: log density up to a constant; None where only a score is given.
        score: its gradient; None where nobody asked.
        residual: residuals of a target that offers them, else None.
        rest: log density without the sum of squares, else None.
    """

    position: Any
    logdensity: Array | None = None
    score: Any = None
    residual: Any = None
    rest: Array | None = None


def evaluate(logdensity: Callable | None, score: Callable | None, position: Any, gradient: bool = True) -> Point:
    """The density and, with `gradient`, its score at a position: in one pass unless the user gives the score."""
    if logdensity is None:
        return Point(position, None, _score(score, position))
    if gradient and score is None:
        (value, parts), slope = jax.value_and_grad(lambda x: _parts(logdensity, x), has_aux=True)(position)
    else:
        value, parts = _parts(logdensity, position)
        slope = _score(score, position) if gradient else None
    return Point(position, value, slope, *parts)


def log_ratio(new: Point, old: Point) -> Array:
    """log pi(new) - log pi(old), from residuals where there are any."""
    assert new.logdensity is not None and old.logdensity is not None
    if new.residual is None:
        return new.logdensity - old.logdensity
    change = -0.5 * dot(subtract(new.residual, old.residual), add(new.residual, old.residual))
    return change if new.rest is None or old.rest is None else change + (new.rest - old.rest)


def _parts(logdensity: Callable, position: Any) -> tuple[Array, tuple]:
    """Log density and, for a sum of squares, (residual, rest)."""
    if not hasattr(logdensity, "residual"):
        return _scalar(logdensity(position), "logdensity"), (None, None)
    residual = logdensity.residual(position)  # type: ignore[attr-defined]
    value = -0.5 * dot(residual, residual)
    rest = getattr(logdensity, "rest", None)
    if rest is None:
        return value, (residual, None)
    more = _scalar(rest(position), "rest")
    return value + more, (residual, more)


def _scalar(value: Any, name: str) -> Array:
    value = jnp.asarray(value)
    if value.shape != () or not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(
            f"`{name}` must return one real number for one position, got shape {value.shape} and dtype {value.dtype}. "
            "Sum over data inside; chains are mapped over outside."
        )
    # Without the weak type of a Python number, which would differ between the first state and the next.
    return value.astype(value.dtype)


def _score(score: Callable | None, position: Any) -> Any:
    assert score is not None
    value = score(position)
    if jax.tree.structure(value) != jax.tree.structure(position) or any(
        jnp.shape(a) != jnp.shape(b) for a, b in zip(jax.tree.leaves(value), jax.tree.leaves(position), strict=True)
    ):
        raise ValueError(
            "`score` must return the structure and shapes of the position, got "
            f"{jax.tree.map(jnp.shape, value)} for {jax.tree.map(jnp.shape, position)}."
        )
    return jax.tree.map(lambda a, b: jnp.asarray(a).astype(b.dtype), value, position)


# ---- The door of every kernel ----


def check_functions(logdensity: Any, score: Any, needs_density: bool) -> None:
    """TypeError unless the kernel has the functions that it needs."""
    for name, function in (("logdensity", logdensity), ("score", score)):
        if function is not None and not callable(function):
            raise TypeError(f"`{name}` must be a function of the position, got {function!r}.")
    if logdensity is None and (needs_density or score is None):
        raise TypeError(
            "This kernel needs `logdensity`, a function of the position: its Metropolis correction compares densities."
            if needs_density
            else "A kernel needs `logdensity` or `score`, functions of the position; got neither."
        )


def as_kernel_fields(logdensity: Any, step: Any, metric: Any, score: Any, needs_density: bool) -> tuple:
    """The checked fields (logdensity, step_size, metric, score) of a kernel."""
    check_functions(logdensity, score, needs_density)
    metric = IdentityMetric() if metric is None else metric
    for method in ("white", "sqrt", "sqrt_transpose"):
        if not hasattr(metric, method):
            raise TypeError(
                "`metric` must be an operator with the methods white, sqrt and sqrt_transpose, such as DiagonalMetric; "
                f"{type(metric).__name__} has no {method}."
            )
    return logdensity, as_step(step), metric, score


def as_step(step: Any, name: str = "step") -> Array:
    """A positive floating array from what the user calls a step size."""
    array = as_field(step, name)
    check_positive(array, name)
    return array


def as_position(position: Any) -> Any:
    """The position as arrays.

    Raises:
        TypeError: if a leaf does not hold real numbers of single or double precision.
        ValueError: if there is no leaf or a known value is not finite.
    """
    position = jax.tree.map(jnp.asarray, position)
    leaves = jax.tree.leaves(position)
    if not leaves:
        raise ValueError("The position holds no array.")
    for leaf in leaves:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"A position must hold real floating numbers, got dtype {leaf.dtype}; convert it with .astype(float)."
            )
        if leaf.dtype.itemsize < 4:
            raise TypeError(
                f"A position must hold float32 or float64, got dtype {leaf.dtype}, in which small steps are lost; "
                "convert it with .astype(jnp.float32). What the density computes inside may have any precision."
            )
    if is_known(leaves[0]) and not all(np.all(np.isfinite(leaf)) for leaf in leaves if is_known(leaf)):
        raise ValueError("The position at the start holds values that are not finite.")
    return position


def check_start(point: Any) -> None:
    """ValueError if density or score at the start are known and not finite."""
    for name in ("logdensity", "score"):
        value = getattr(point, name, None)
        for leaf in jax.tree.leaves(value):
            if is_known(leaf) and not np.all(np.isfinite(leaf)):
                raise ValueError(
                    f"`{name}` is not finite at the start ({np.asarray(leaf)}): start where the density is positive "
                    "and smooth, or look for a mistake in it (a logarithm of zero, a value outside of its support)."
                )


def start_point(logdensity: Callable | None, score: Callable | None, position: Any, gradient: bool = True) -> Point:
    """The checked first point of a chain."""
    point = evaluate(logdensity, score, as_position(position), gradient)
    check_start(point)
    return point
