"""The method of lines: any equation with a `tendency`, in adaptive or implicit steps by diffrax."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from .captured import fingerprint_of_run
from .checks import check_finite, is_known, whole
from .equation import hashable
from .status import SolverError, Status, failures, public_status

# The default solver forms a dense Jacobian; beyond this many unknowns that is a mistake.
DENSE = 4096


class OdeSolution(eqx.Module):
    """What `simulate_ode` returns.

    Attributes:
        final: state at t1. After a failure: the last state that was reached; every derivative of it is NaN.
        observed: what `observe` saw at `times`, stacked; None without `times`.
        times: the times that were asked for, or None.
        code: status as an integer array.
        steps: number of steps that were tried.
    """

    final: Any
    observed: Any
    times: Array | None
    code: Array
    steps: Array

    @property
    def status(self) -> Status | Array:
        """`Status` outside of `jit` and `vmap`; the array of codes inside or for a batch."""
        return public_status(self.code)

    def check(self) -> "OdeSolution":
        """Return the solution itself, or raise `SolverError` if it failed (any member of a batch).

        Raises:
            SolverError: with the status and the number of steps.
            TypeError: inside `jit`, where no value is known.
        """
        bad = failures(self.code, Status.OK)
        if bad:
            raise SolverError(
                f"{bad} after {bad.first(self.steps)} steps. MAX_STEPS: allow more of them or ask for less accuracy. "
                "NONFINITE or DIVERGED: the solution blows up, the tolerance cannot be met in this precision, or an "
                "explicit solver meets a stiff equation."
            )
        return self


def simulate_ode(
    equation: Any,
    state: Any,
    t1: Any,
    *,
    t0: Any = 0.0,
    inputs: Any = None,
    times: Any = None,
    observe: Callable[[Any], Any] | None = None,
    solver: Any = None,
    rtol: float | None = None,
    atol: float | None = None,
    dt0: Any = None,
    max_steps: int = 4096,
    adjoint: Any = None,
) -> OdeSolution:
    """March an equation from t0 to t1 in steps that a tolerance chooses: the method of lines, by diffrax.

    For stiff equations, for a given accuracy, or as a reference for fixed steps. `simulate` is faster where a fixed
    step will do. The default solver, Kvaerno5, is implicit and stiffly accurate; its Newton steps form a dense Jacobian
    of n x n numbers for n unknowns, so that it suits systems up to a few thousand. For more take an explicit solver,
    `diffrax.Tsit5()`, or give an implicit one a matrix-free root finder.

    A failed solve has a status, and its derivative is NaN, never a finite number that looks right.

    Args:
        equation: anything with `tendency(state, inputs) -> du/dt` like the state, such as `PeriodicNavierStokes` or
            `KuramotoSivashinsky`. If it is a pytree its arrays may be differentiated.
        state: initial state, a pytree of floating arrays, complex ones too; differentiable.
        t1: final time, after t0; differentiable.
        t0: initial time.
        inputs: what the tendency gets, held for all time; or a function of the time that returns it.
        times: increasing times in [t0, t1] at which to observe; differentiable.
        observe: function of the state, by default the state itself; needs `times`.
        solver: a diffrax solver; by default `diffrax.Kvaerno5()`.
        rtol: relative error per step; by default 1e-7 in double and 1e-4 in single precision.
        atol: absolute error per step, in the unit of the state; by default `rtol`.
        dt0: first step; chosen from the tendency by default.
        max_steps: most steps that are tried.
        adjoint: a diffrax adjoint; by default `RecursiveCheckpointAdjoint()`, which is for reverse mode. Forward mode
            needs `diffrax.ForwardMode()` or `diffrax.DirectAdjoint()`.

    Returns:
        `OdeSolution(final, observed, times, status)`; `.check()` raises if it failed.

    Raises:
        ValueError: for times that do not increase, states that are not finite or have no floating array, a default
            solver on a system too large for it.
        TypeError: if the equation has no tendency, or one that does not look like the state.

    Example:
        >>> import solvers as sv, jax.numpy as jnp, numpy as np
        >>> grid = sv.Grid(shape=16, spacing=2 * np.pi / 16)
        >>> run = sv.simulate_ode(sv.Diffusion(grid, 1.0), jnp.cos(grid.axes()[0]), 1.0, rtol=1e-6).check()
        >>> bool(abs(run.final[0] - np.exp(-1.0)) < 1e-5)
        True

    Reference:
        P. Kidger, On Neural Differential Equations (2021), chapter 5; A. Kvaerno, BIT 44 (2004), 489.
    """
    if not hasattr(equation, "tendency"):
        raise TypeError(
            f"`equation` needs a method tendency(state, inputs); {type(equation).__name__} has none. March it by "
            "`simulate`."
        )
    state = jax.tree.map(jnp.asarray, state)
    dtype = _check_state(state)
    span = _check_times(t0, t1, times, dtype)
    if observe is not None and times is None:
        raise ValueError("`observe` needs the `times` at which to observe.")
    max_steps = whole(max_steps, "max_steps")
    rtol = (1e-7 if dtype == jnp.float64 else 1e-4) if rtol is None else rtol
    atol = rtol if atol is None else atol
    if not (rtol > 0 or atol > 0) or rtol < 0 or atol < 0:
        raise ValueError(f"`rtol` and `atol` must not be negative, and one must be positive; got {rtol} and {atol}.")
    unknowns = sum(x.size * (2 if jnp.iscomplexobj(x) else 1) for x in jax.tree.leaves(state))
    if solver is None and unknowns > DENSE:
        raise ValueError(
            f"The default solver forms a dense Jacobian, {unknowns} x {unknowns} numbers here "
            f"({unknowns**2 * dtype.itemsize / 1e9:.3g} GB). Give `solver=diffrax.Tsit5()`, or an implicit solver with "
            "a matrix-free root finder."
        )
    force = inputs if callable(inputs) else _Held(inputs)
    # A compiled solve is found again only if what its functions see is still the same.
    seen = fingerprint_of_run(equation, force, observe)
    tolerances = float(rtol), float(atol)
    return _solve(hashable(equation), state, *span, force, observe, solver, *tolerances, dt0, max_steps, adjoint, seen)


class _Held(eqx.Module):
    """Inputs that do not depend on time."""

    value: Any

    def __call__(self, t: Array) -> Any:
        return self.value


@eqx.filter_jit
def _solve(
    equation: Any,
    state: Any,
    t0: Array,
    t1: Array,
    times: Array | None,
    force: Any,
    observe: Callable | None,
    solver: Any,
    rtol: float,
    atol: float,
    dt0: Any,
    max_steps: int,
    adjoint: Any,
    seen: Any,
) -> OdeSolution:
    import diffrax

    # What an equation drops when it enters its own loop must not stay behind as a constant.
    stepper = equation.stepper(t1 - t0) if hasattr(equation, "stepper") else None
    if stepper is not None and hasattr(stepper, "enter"):
        state = stepper.leave(stepper.enter(state))
    _same_struct(equation, state, force, t0)

    def rate(t: Array, y: Any, args: Any) -> Any:
        equation, force = args
        return _as_real(equation.tendency(_as_given(y, state), force(t)))

    see = (
        (lambda t, y, args: _as_given(y, state))
        if observe is None
        else (lambda t, y, args: observe(_as_given(y, state)))
    )
    save = diffrax.SubSaveAt(ts=times, fn=see) if times is not None else None
    whole = [diffrax.SubSaveAt(t1=True), *([save] if save is not None else [])]
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rate),  # type: ignore[arg-type]
        diffrax.Kvaerno5() if solver is None else solver,
        t0,
        t1,
        None if dt0 is None else jnp.asarray(dt0, t0.dtype),
        _as_real(state),
        (equation, force),
        saveat=diffrax.SaveAt(subs=whole),
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        adjoint=diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint,
        max_steps=max_steps,
        throw=False,
    )
    final = _as_given(jax.tree.map(lambda x: x[0], solution.ys[0]), state)  # type: ignore[index]
    observed = solution.ys[1] if times is not None else None  # type: ignore[index]
    finite = jnp.stack([jnp.all(jnp.isfinite(lax.stop_gradient(x))) for x in jax.tree.leaves(final)]).all()
    done = solution.result == diffrax.RESULTS.successful
    many = solution.result == diffrax.RESULTS.max_steps_reached
    code = jnp.where(many, int(Status.MAX_STEPS), int(Status.DIVERGED))
    code = jnp.where(done & finite, int(Status.OK), jnp.where(~finite & ~many, int(Status.NONFINITE), code))
    good = code == int(Status.OK)
    final, observed = (jax.tree.map(lambda x: _honest(x, good), tree) for tree in (final, observed))
    return OdeSolution(final, observed, times, code.astype(jnp.int32), solution.stats["num_steps"])


@jax.custom_jvp
def _honest(value: Array, good: Array) -> Array:
    """The value; its derivative is NaN unless the solve was good."""
    return value


@_honest.defjvp
def _honest_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    (value, good), (dot, _) = primals, tangents
    return value, dot * jnp.where(good, 1, math.nan).astype(value.real.dtype)


def _as_real(tree: Any) -> Any:
    """Complex leaves as pairs of real ones: error norms and Newton steps of diffrax are for real numbers."""
    return jax.tree.map(lambda x: jnp.stack([x.real, x.imag]) if jnp.iscomplexobj(x) else x, tree)


def _as_given(tree: Any, like: Any) -> Any:
    """The inverse of `_as_real`."""
    return jax.tree.map(lambda x, given: lax.complex(x[0], x[1]) if jnp.iscomplexobj(given) else x, tree, like)


def _check_state(state: Any) -> Any:
    """The real working precision of a state."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    if not leaves or not all(jnp.issubdtype(x.dtype, jnp.inexact) for _, x in leaves):
        raise ValueError("`state` must hold floating arrays, and nothing else.")
    for path, x in leaves:
        if is_known(x):
            check_finite(np.asarray(x), f"state{jax.tree_util.keystr(path)}")
    return jnp.finfo(jnp.result_type(*[x.dtype for _, x in leaves])).dtype


def _check_times(t0: Any, t1: Any, times: Any, dtype: Any) -> tuple[Array, Array, Array | None]:
    """t0, t1 and times in the working precision."""
    for name, t in (("t0", t0), ("t1", t1)):
        if jnp.ndim(t) != 0 or jnp.iscomplexobj(t) or (is_known(t) and not np.isfinite(float(t))):
            raise ValueError(f"`{name}` must be one finite number, got {t!r}.")
    if is_known(t0) and is_known(t1) and not float(t1) > float(t0):
        raise ValueError(f"`t1` must lie after t0 = {float(t0)}, got {float(t1)}.")
    if times is None:
        return jnp.asarray(t0, dtype), jnp.asarray(t1, dtype), None
    if is_known(times):
        given = np.asarray(times, float)
        inside = not (is_known(t0) and is_known(t1)) or (given.size and t0 <= given[0] and given[-1] <= t1)
        if given.ndim != 1 or not given.size or not np.all(np.diff(given) > 0) or not inside:
            raise ValueError(f"`times` must increase within [t0, t1], got {times!r}.")
    return jnp.asarray(t0, dtype), jnp.asarray(t1, dtype), jnp.asarray(times, dtype)


def _same_struct(equation: Any, state: Any, force: Any, t0: Array) -> None:
    rate = jax.eval_shape(lambda s, t: equation.tendency(s, force(t)), state, t0)
    found = jax.tree.map(lambda x: (x.shape, x.dtype), rate)
    given = jax.tree.map(lambda x: (x.shape, x.dtype), state)
    if jax.tree.structure(rate) != jax.tree.structure(state) or found != given:
        raise TypeError(f"The tendency must look like the state, {given}, got {found}.")
