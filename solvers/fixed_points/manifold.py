"""Geodesics of a Riemannian metric in one chart: exponential map, logarithm, and the way between."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..core.adjoint import Checkpoint, StoreAll
from ..core.captured import fingerprint
from ..core.checks import as_field, is_known
from ..core.krylov import check_counts
from ..core.packing import hoist, norm2
from ..core.status import SolverError, Status, failures, public_status
from .doors import root
from .implicit_midpoint import march, solved
from .newton import Newton
from .solution import Solution


class Geodesic(eqx.Module):
    """What `Metric.exp` and `Metric.geodesic` return.

    Attributes:
        value: the point, (d,), or the points at all times, (times, d).
        velocity: dx/dt there, of the same shape.
        residual: how well the worst implicit step was solved, relative to the state.
        code: status as an integer array, one per batch entry under `vmap`: CONVERGED, STAGNATED (a step that was too
            long to be solved) or NONFINITE.
    """

    value: Float[Array, "*batch d"]
    velocity: Float[Array, "*batch d"]
    residual: Array
    code: Array

    @property
    def status(self) -> Status | Array:
        """`Status` outside of `jit` and `vmap`; the array of codes inside or for a batch."""
        return public_status(self.code)

    def check(self) -> "Geodesic":
        """Return the geodesic itself, or raise `SolverError` if a step could not be solved.

        Raises:
            SolverError: with status and residual.
            TypeError: inside `jit`, where no value is known.
        """
        bad = failures(self.code, Status.CONVERGED)
        if bad:
            raise SolverError(
                f"{bad}: an implicit step was solved to {bad.first(self.residual):.1e} only. Take more `steps`, "
                "or a chart in which the geodesic stays away from where the metric is singular."
            )
        return self


class Metric(eqx.Module):
    """A metric g(x) on a chart; geodesics are the motions of H(x, p) = p . g(x)^-1 p / 2.

        dx/dt = g^-1 p,    dp/dt = grad_x (q . g(x) q) / 2 with q = g^-1 p held fixed,    p = g v.

    Marched by the implicit midpoint rule: second order, symmetric and symplectic, so that the Jacobian of the
    geodesic flow is symplectic to round-off and the speed |v|_g stays bounded near its value however long the way.
    Derivatives with respect to points, velocities, times and whatever g holds or captures are those of the computed
    numbers, exact to round-off, in every mode. Any smooth symmetric invertible g will do, those of relativity
    included. A step is solved by simple iteration, so that `steps` must make it short against the scale on which g
    changes; one that cannot be solved is told by the status, and derivatives are then NaN.

    Args:
        g: function x -> matrix, (d,) -> (d, d); its parameters may be captured, or be arrays of an `equinox.Module`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> half_plane = Metric(lambda x: jnp.eye(2) / x[1] ** 2)
        >>> up, right = jnp.array([0.0, 1.0]), jnp.array([1.0, 0.0])
        >>> half_plane.exp(up, right, steps=200).check().value         # (tanh 1, 1 / cosh 1)
        Array([0.76, 0.65], dtype=float64)
        >>> half_plane.log(up, jnp.array([0.0, jnp.e])).check().value.round(3)  # distance log(e / 1)
        Array([0., 1.], dtype=float64)

    Reference:
        E. Hairer, C. Lubich, G. Wanner, Geometric Numerical Integration (2006), theorem VI.3.5 (symplectic) and
        chapter V (symmetric methods).
    """

    g: Callable

    def exp(self, x: Any, v: Any, *, steps: int = 100, adjoint: Any = "reversible") -> Geodesic:
        """The point at time 1 of the geodesic from x with velocity v, and the velocity there.

        Args:
            x: point, (d,).
            v: velocity, (d,).
            steps: of the midpoint rule; the error falls like steps^-2.
            adjoint: "reversible" reconstructs the way in the reverse sweep: memory does not grow with `steps`, and
                the gradient becomes NaN should the reconstruction miss the start. `StoreAll()` and `Checkpoint()`
                store it, all or in part; they cost less time where the geodesic is very unstable or short.

        Returns:
            `Geodesic(value, velocity, residual)` with `.status` and `.check()`.

        Raises:
            ValueError: for shapes that do not fit or a wrong number of steps.
        """
        x, v = self._check(x, v, steps, adjoint)
        end = _geodesic(self, x, v, jnp.ones((1,), x.dtype), steps, adjoint, fingerprint(self))
        return Geodesic(end.value[0], end.velocity[0], end.residual, end.code)

    def geodesic(self, x: Any, v: Any, t: Any, *, steps: int = 100, adjoint: Any = "reversible") -> Geodesic:
        """Points and velocities of the geodesic from x with velocity v at the given times.

        Args:
            x: point at time 0, (d,).
            v: velocity, (d,).
            t: times in any order, (times,); the way goes from each to the next. One number is allowed.
            steps: of the midpoint rule, from each time to the next.
            adjoint: as for `exp`; what the reverse sweep keeps with "reversible" is one state per time.

        Returns:
            `Geodesic(value, velocity, residual)`, points of shape (times, d).

        Raises:
            ValueError: for shapes that do not fit or a wrong number of steps.
        """
        x, v = self._check(x, v, steps, adjoint)
        times = as_field(t, "t", dtype=x.dtype)
        if times.ndim > 1:
            raise ValueError(f"`t` must be a number or an array of one axis, got shape {times.shape}.")
        way = _geodesic(self, x, v, jnp.atleast_1d(times), steps, adjoint, fingerprint(self))
        if times.ndim:
            return way
        return Geodesic(way.value[0], way.velocity[0], way.residual, way.code)

    def log(self, x: Any, y: Any, *, steps: int = 100, start: Any = None, rtol: float | None = None) -> Solution:
        """The velocity v that leads from x to y in time 1: exp(x, v) = y.

        Newton's method with backtracking on v, from `start`, with the exact Jacobian of the computed exponential map
        (shooting). Where several geodesics lead to y, that of the start's basin is found: the shortest, if y is not
        far. Beyond the cut locus, or for a chart that bends much, give a start. Differentiated by the implicit rule.

        Args:
            x: point, (d,).
            y: point, (d,).
            steps: of the midpoint rule.
            start: first guess of v, (d,); by default y - x.
            rtol: norm2(exp(x, v) - y) must come below rtol norm2(y - x); by default 1e-10 in double and 1e-4 in single
                precision.

        Returns:
            `Solution` with `.value` = v, `.status` and `.check()`.

        Raises:
            ValueError: for shapes that do not fit, a wrong number of steps or tolerance.
        """
        x, y = self._check(x, y, steps, "reversible", "y")
        eps = float(jnp.finfo(x.dtype).eps)
        if rtol is None:
            rtol = 1e-10 if eps < 1e-12 else 1e-4
        if not is_known(rtol) or not eps <= float(rtol) < 1:
            raise ValueError(f"`rtol` must be a number between {eps:.1e} and 1, got {rtol}.")
        first = y - x if start is None else as_field(start, "start", x.shape, x.dtype)
        return _log(self, x, y, lax.stop_gradient(first), steps, float(rtol), fingerprint(self))

    def _check(self, x: Any, v: Any, steps: Any, adjoint: Any, name: str = "v") -> tuple[Array, Array]:
        """Points as arrays of one shape and dtype."""
        x = as_field(x, "x")
        if x.ndim != 1:
            raise ValueError(f"`x` must be a vector of coordinates, got shape {x.shape}; use vmap for many points.")
        v = as_field(v, name, x.shape, x.dtype)
        check_counts(steps=steps)
        if adjoint != "reversible" and not isinstance(adjoint, StoreAll | Checkpoint):
            raise ValueError(f'`adjoint` must be "reversible", StoreAll() or Checkpoint(...), got {adjoint!r}.')
        shape = jax.eval_shape(self.g, x).shape
        if shape != (x.size, x.size):
            raise ValueError(
                f"`g` must return a matrix of shape {(x.size, x.size)} at a point of {x.size}, got {shape}."
            )
        return x, v


@eqx.filter_jit
def _geodesic(metric: Metric, x: Array, v: Array, times: Array, steps: int, adjoint: Any, seen: Any) -> Geodesic:
    return _way(metric.g, x, v, times, steps, adjoint)


@eqx.filter_jit
def _log(metric: Metric, x: Array, y: Array, start: Array, steps: int, rtol: float, seen: Any) -> Solution:
    def miss(v: Array, x: Array, y: Array) -> Array:
        end = _way(metric.g, x, v, jnp.ones((1,), x.dtype), steps, "reversible")
        # A way that could not be gone has no end; the search then tries a shorter one.
        return jnp.where(end.code == int(Status.CONVERGED), end.value[0], jnp.nan) - y

    eps = float(jnp.finfo(x.dtype).eps)
    tolerance = lax.stop_gradient(rtol * norm2(y - x) + 100 * eps * norm2(y))
    return root(miss, start, x, y, method=Newton(), rtol=0.0, atol=tolerance, max_steps=50)


def _way(g: Callable, x: Array, v: Array, times: Array, steps: int, adjoint: Any) -> Geodesic:
    size = x.size
    pure, captured = hoist(lambda x: jnp.asarray(g(x), x.dtype), x)

    def field(captured: list, z: Array) -> Array:
        """Hamilton's equations; z holds x and p."""
        x, p = z[:size], z[size:]
        q = jnp.linalg.solve(pure(captured, x), p)

        def energy(x: Array) -> Array:
            return q @ pure(captured, x) @ q / 2

        return jnp.concatenate([q, jax.grad(energy)(x)])

    def leg(carry: tuple, time: Array) -> tuple:
        z, before, worst = carry
        end = march(field, captured, z, (time - before) / steps, steps, adjoint)
        worst = jnp.where(end.residual > worst, end.residual, worst)
        return (end.state, time, worst), end.state

    first = (jnp.concatenate([x, pure(captured, x) @ v]), jnp.zeros((), x.dtype), jnp.zeros((), x.dtype))
    (_, _, worst), states = lax.scan(leg, first, times)
    points = states[:, :size]
    velocities = jax.vmap(lambda z: jnp.linalg.solve(pure(captured, z[:size]), z[size:]))(states)
    finite = jnp.all(jnp.isfinite(states))
    code = jnp.where(solved(worst), int(Status.CONVERGED), int(Status.STAGNATED))
    code = jnp.where(finite, code, int(Status.NONFINITE)).astype(jnp.int32)
    return Geodesic(points, velocities, lax.stop_gradient(worst), code)
