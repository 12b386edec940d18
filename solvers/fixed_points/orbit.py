"""Periodic orbits: the state, the period and the Floquet multipliers, with derivatives."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..core.captured import fingerprint
from ..core.checks import as_field, check_positive
from ..core.guard import guarded
from ..core.implicit_rule import Adjoint, require_adjoint
from ..core.krylov import check_counts
from ..core.packing import Packing, norm2
from ..core.status import Status
from .doors import check_tolerances, require_method, root
from .floquet import largest_besides_one, leading_multipliers, without_derivative
from .newton import Newton
from .newton_krylov import NewtonKrylov
from .solution import Solution, Stats

# Up to this many unknowns the bordered matrix is written out.
SMALL = 100

# A speed (in states per period) below this many tolerances is that of an equilibrium.
RESTING = 1e3


class Orbit(eqx.Module):
    """What `periodic_orbit` returns.

    Attributes:
        state: a point of the orbit, a pytree like the start; the one where the phase condition holds.
        period: time after which the flow returns to it.
        multipliers: leading Floquet multipliers, complex, the largest modulus first; the eigenvalues of the derivative
            of flow(x, period) by x. One of them is 1, along the orbit. Their own derivative is NaN.
        code: status as an integer array.
        stats: the numbers of the solve; `spectral_radius` is the modulus of the largest multiplier besides that 1.
    """

    state: Any
    period: Array
    multipliers: Array
    code: Array
    stats: Stats

    @property
    def status(self) -> Status | Array:
        """`Status` outside of `jit` and `vmap`; the array of codes inside or for a batch."""
        return self._solution().status

    def check(self) -> "Orbit":
        """Return the orbit itself, or raise `SolverError` if the solve failed; an unstable orbit gives a warning.

        Raises:
            SolverError: with status, residual and tolerance.
            TypeError: inside `jit`, where no value is known.
        """
        self._solution().check()
        return self

    def _solution(self) -> Solution:
        return Solution(self.state, None, self.code, self.stats)


def periodic_orbit(
    flow: Callable,
    x0: Any,
    period: Any,
    *args: Any,
    phase: Callable | None = None,
    method: Any = None,
    multipliers: int = 6,
    rtol: Any = None,
    atol: Any = None,
    max_steps: int = 100,
    adjoint: Adjoint = Adjoint(),
) -> Orbit:
    """Find a periodic orbit and its period, and differentiate both by the parameters of the flow.

    Unknown are a state x and the period T, determined by

        flow(x, T) = x,    <x - x0, d flow/dT (x0, T0)> = 0,

    where the second equation, the phase condition, picks one of the points of the orbit. Newton's method for the
    bordered system, with the matrix written out for up to 100 unknowns, by GMRES beyond; the unknown is log T, so that
    a period stays positive. Stable and unstable orbits are found alike (single shooting: orbits with multipliers
    above some 1e6 need a flow of more digits than there are).

    Each step costs about one flow with its derivatives for every unknown, or every product of GMRES. The flow must
    allow forward mode; with Diffrax choose `adjoint=diffrax.DirectAdjoint()`, with `simulate` nothing.

    The derivative of the period does not depend on the phase condition. That of the state does: with the default the
    point moves within the plane through x0, which counts as fixed, as does the start.

    A start near an equilibrium may end there, where flow(x, T) = x for every T: the bordered matrix is singular and
    the status LINEAR_FAILED. A `period` near a multiple of the shortest one finds the orbit run through several times.

    Args:
        flow: function (x, T, *args) -> state after the time T from x, for every T near the period.
        x0: guess of a point on the orbit, a pytree of floating arrays.
        period: guess of the period, in the unit of time of the flow.
        *args: parameters of the flow; differentiable.
        phase: function (x, *args) -> number that is zero at the wanted point, in place of the plane above; for
            example `lambda x: x[1]`.
        method: method for the bordered system, by default `Newton()` or `NewtonKrylov()` by size.
        multipliers: how many leading Floquet multipliers are computed; beyond 100 unknowns as Ritz values of an
            Arnoldi process. Where their derivative is needed, take it of the matrix `jax.jacfwd(flow)` at the orbit.
        rtol: relative tolerance, norm2 of the residual <= atol + rtol * norm2(x0); default 1e-8 in float64, 1e-5 in
            float32.
        atol: absolute tolerance, with the same default.
        max_steps: most steps of the method.
        adjoint: how the derivative is computed.

    Returns:
        `Orbit(state, period, multipliers, status, stats)`. UNSTABLE: a multiplier besides the 1 lies outside of the
        unit circle; the orbit and its derivatives hold.

    Raises:
        ValueError: for a guess of the period that is not positive, a flow of another structure, shape or dtype, or
            tolerances below machine precision.
        TypeError: for a state without floating numbers, a method or an adjoint that is none.

    Example:
        >>> import jax.numpy as jnp
        >>> def rotation(x, time, rate):                 # x' = rate x + (1 - |x|^2) x in the plane, exactly solved
        ...     shrink = 1 / jnp.sqrt(1 + (1 / jnp.sum(x**2) - 1) * jnp.exp(-2 * time))
        ...     turn = jnp.array([[jnp.cos(rate * time), -jnp.sin(rate * time)],
        ...                       [jnp.sin(rate * time), jnp.cos(rate * time)]])
        ...     return shrink * turn @ x / jnp.linalg.norm(x)
        >>> orbit = periodic_orbit(rotation, jnp.array([1.2, 0.1]), 3.0, 2.0)
        >>> round(float(orbit.period), 6), orbit.status.name        # pi
        (3.141593, 'CONVERGED')

    Reference:
        R. Seydel, Practical Bifurcation and Stability Analysis (2010), section 7.1 (shooting with a phase condition);
        J. Sanchez, M. Net, B. Garcia-Archilla, C. Simo, J. Comput. Phys. 201 (2004) 13 (Newton-Krylov).
    """
    for name, function in (("flow", flow), ("phase", phase)):
        if function is not None and not callable(function):
            raise TypeError(f"`{name}` must be a function, got {type(function).__name__}.")
    check_counts(max_steps=max_steps, multipliers=multipliers)
    require_adjoint(adjoint)
    if method is not None:
        require_method(method)
    x0 = jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)) if isinstance(x, float) else jnp.asarray(x), x0)
    leaves = jax.tree.leaves(x0)
    if not leaves or not all(eqx.is_inexact_array(x) for x in leaves):
        raise TypeError("`x0` must be a pytree of floating arrays; pass whatever else the flow needs in `args`.")
    check_tolerances(rtol, atol, Packing(x0).precision)
    check_positive(period, "period")
    period = as_field(period, "period", (), Packing(x0).dtype)
    args = jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, int | float | complex) else x, args)
    _same_struct(flow, x0, period, args)
    seen = fingerprint((flow, phase, method, adjoint, args))
    return _orbit(flow, phase, x0, period, args, method, multipliers, rtol, atol, max_steps, adjoint, seen)


@eqx.filter_jit
def _orbit(
    flow: Callable,
    phase: Callable | None,
    x0: Any,
    period: Array,
    args: tuple,
    method: Any,
    count: int,
    rtol: Any,
    atol: Any,
    max_steps: int,
    adjoint: Adjoint,
    seen: Any,
) -> Orbit:
    x0, period = lax.stop_gradient((x0, period))
    packing = Packing(x0)
    start, dtype = packing.pack(x0), packing.dtype

    def after(x: Array, log_period: Array, args: tuple) -> Array:
        return packing.pack(flow(packing.unpack(x), jnp.exp(log_period), *args))

    def moved(x: Array, log_period: Array) -> Array:
        """d flow / d log T: the way of one period at the speed that the flow has there."""
        return jax.jvp(lambda t: after(x, t, args), (log_period,), (jnp.ones((), dtype),))[1]

    guess = jnp.log(period)
    normal = lax.stop_gradient(moved(start, guess))
    normal = normal / jnp.where(norm2(normal) > 0, norm2(normal), 1)

    def condition(x: Array, section: tuple, args: tuple) -> Array:
        if phase is None:
            return jnp.dot(x - section[0], section[1], precision=lax.Precision.HIGHEST)
        return jnp.asarray(phase(packing.unpack(x), *args), dtype)

    def bordered(unknown: tuple, section: tuple, args: tuple) -> tuple:
        x, log_period = unknown
        return after(x, log_period, args) - x, condition(x, section, args)

    small = packing.size <= SMALL
    chosen = (Newton() if small else NewtonKrylov()) if method is None else method
    default = 1e-8 if packing.precision < 1e-12 else 1e-5
    relative, absolute = (jnp.asarray(default if t is None else t, dtype) for t in (rtol, atol))
    found = root(
        bordered,
        (start, guess),
        (start, normal),
        args,
        method=chosen,
        rtol=0.0,
        atol=absolute + relative * norm2(start),
        max_steps=max_steps,
        adjoint=adjoint,
    )
    x, log_period = found.value
    speed = norm2(lax.stop_gradient(moved(x, log_period)))
    resting = (found.code == int(Status.CONVERGED)) & (speed <= RESTING * found.stats.tolerance)
    x, log_period = guarded(x, ~resting), guarded(log_period, ~resting)
    point, log_time, fixed = lax.stop_gradient((x, log_period, args))
    values = leading_multipliers(lambda x: after(x, log_time, fixed), point, count, dense=small)
    radius = largest_besides_one(values)
    floating = [jnp.ravel(p).astype(dtype) for p in jax.tree.leaves(args) if _is_real(p)]
    values = without_derivative(values, jnp.concatenate([x, log_period[None], *floating]))
    code = jnp.where(resting, int(Status.LINEAR_FAILED), found.code)
    # The flow has errors of its own; a multiplier of 1 to that accuracy is not called unstable.
    loose = packing.precision ** (1 / 3)
    code = jnp.where((code == int(Status.CONVERGED)) & (radius > 1 + loose), int(Status.UNSTABLE), code)
    stats = eqx.tree_at(lambda s: s.spectral_radius, found.stats, radius)
    return Orbit(packing.unpack(x), jnp.exp(log_period), values, code, stats)


def _is_real(x: Any) -> bool:
    return eqx.is_inexact_array(x) and not jnp.iscomplexobj(x)


def _same_struct(flow: Callable, x0: Any, period: Array, args: tuple) -> None:
    after = eqx.filter_eval_shape(flow, x0, period, *args)
    shapes = [(jax.tree.structure(t), [(x.shape, str(x.dtype)) for x in jax.tree.leaves(t)]) for t in (x0, after)]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"`flow(x, T, *args)` must return the structure, shapes and dtypes of x0, {shapes[0][0]} with "
            f"{shapes[0][1]}; got {shapes[1][0]} with {shapes[1][1]}."
        )
