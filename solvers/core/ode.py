"""The method of lines: any equation with a `tendency`, in adaptive or implicit steps by diffrax."""

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
from .guard import guarded, guarded_by
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

    A failed solve has a status, and its derivative is NaN, never a finite number that looks right. Reverse solves of
    `BacksolveAdjoint` and `ImplicitAdjoint` that fail raise an error of diffrax.

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
        adjoint: a diffrax adjoint, how derivatives are taken. `RecursiveCheckpointAdjoint()`, the default: reverse mode
            through the steps. `DirectAdjoint()`: both modes, with more memory. `ForwardMode()`: forward mode.
            `BacksolveAdjoint()`: reverse mode by solving the adjoint equation backwards in time, in constant memory, to
            the accuracy of the tolerance and for equations that may be run backwards; not with respect to times.
            `ImplicitAdjoint()`: the run ends in a steady state, whose derivative with respect to the equation's
            coefficients is taken by the implicit function theorem with a dense Jacobian; without `times`. Both of the
            last need an equation that is a pytree, and inputs that do not close over what is differentiated.

    Returns:
        `OdeSolution(final, observed, times, status)`; `.check()` raises if it failed.

    Raises:
        ValueError: for times that do not increase, states that are not finite or have no floating array, a default
            solver on a system too large for it.
        TypeError: if the equation has no tendency, or one that does not look like the state; if the solver or the
            adjoint is none of diffrax's.

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
    _check_method(equation, solver, adjoint, times)
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
    # What is complex, and nothing else of the state: a reverse solve may close over no traced value.
    paired = jax.tree.map(jnp.iscomplexobj, state)

    def rate(t: Array, y: Any, args: Any) -> Any:
        equation, force = args
        return _as_real(equation.tendency(_as_given(y, paired), force(t)))

    def see(y: Any) -> Any:
        return _as_given(y, paired) if observe is None else observe(_as_given(y, paired))

    adjoint = _told(diffrax.RecursiveCheckpointAdjoint() if adjoint is None else adjoint)
    save, split = _saving(times, see, adjoint)
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(rate),  # type: ignore[arg-type]
        diffrax.Kvaerno5() if solver is None else solver,
        t0,
        t1,
        None if dt0 is None else jnp.asarray(dt0, t0.dtype),
        _as_real(state),
        (equation, force),
        saveat=save,
        stepsize_controller=diffrax.PIDController(rtol=rtol, atol=atol),
        adjoint=adjoint,
        max_steps=max_steps,
        throw=False,
    )
    last, observed = split(solution.ys)
    final = _as_given(last, paired)
    finite = jnp.stack([jnp.all(jnp.isfinite(lax.stop_gradient(x))) for x in jax.tree.leaves(final)]).all()
    done = solution.result == diffrax.RESULTS.successful
    many = solution.result == diffrax.RESULTS.max_steps_reached
    code = jnp.where(many, int(Status.MAX_STEPS), int(Status.DIVERGED))
    code = jnp.where(done & finite, int(Status.OK), jnp.where(~finite & ~many, int(Status.NONFINITE), code))
    good = code == int(Status.OK)
    if isinstance(adjoint, diffrax.ImplicitAdjoint):
        good &= _at_rest(rate(t1, last, (equation, force)), last, rtol, atol)
    if isinstance(adjoint, (diffrax.BacksolveAdjoint, diffrax.ImplicitAdjoint)):
        # Their reverse solves cannot begin with NaN, so it goes directly to what they differentiate.
        given = [x for x in jax.tree.leaves((equation, force, state)) if eqx.is_inexact_array(x)]
        final, observed = (jax.tree.map(lambda x: guarded_by(x, good, given), tree) for tree in (final, observed))
    else:
        final, observed = (jax.tree.map(lambda x: guarded(x, good), tree) for tree in (final, observed))
    return OdeSolution(final, observed, times, code.astype(jnp.int32), solution.stats["num_steps"])


def _saving(times: Array | None, see: Callable, adjoint: Any) -> tuple[Any, Callable]:
    """What diffrax saves, and how that becomes (last state, what was observed)."""
    import diffrax

    if times is None:
        return diffrax.SaveAt(t1=True), lambda ys: (jax.tree.map(lambda x: x[0], ys), None)
    if isinstance(adjoint, diffrax.BacksolveAdjoint):
        # It starts again from each saved state, and so saves whole ones.
        def split(ys: Any) -> tuple[Any, Any]:
            return jax.tree.map(lambda x: x[-1], ys), lax.map(see, jax.tree.map(lambda x: x[:-1], ys))

        return diffrax.SaveAt(ts=times, t1=True), split
    look = diffrax.SubSaveAt(ts=times, fn=lambda t, y, args: see(y))
    both = diffrax.SaveAt(subs=[diffrax.SubSaveAt(t1=True), look])
    return both, lambda ys: (jax.tree.map(lambda x: x[0], ys[0]), ys[1])


def _told(adjoint: Any) -> Any:
    """The adjoint; a solve backwards in time that fails raises, since its result would look like a gradient."""
    import diffrax

    if not isinstance(adjoint, diffrax.BacksolveAdjoint):
        return adjoint
    return diffrax.BacksolveAdjoint(**{"throw": True, **adjoint.kwargs})


def _at_rest(rate: Any, state: Any, rtol: float, atol: float) -> Array:
    """Whether the rate per unit of time is within the tolerance of the state, as `diffrax.steady_state_event` asks."""

    def size(tree: Any) -> Array:
        leaves = [lax.stop_gradient(x) for x in jax.tree.leaves(tree)]
        return jnp.sqrt(sum(jnp.sum(x**2) for x in leaves) / sum(x.size for x in leaves))

    return size(rate) < atol + rtol * size(state)


def _as_real(tree: Any) -> Any:
    """Complex leaves as pairs of real ones: error norms and Newton steps of diffrax are for real numbers."""
    return jax.tree.map(lambda x: jnp.stack([x.real, x.imag]) if jnp.iscomplexobj(x) else x, tree)


def _as_given(tree: Any, paired: Any) -> Any:
    """The inverse of `_as_real`; `paired` tells which leaves are complex."""
    return jax.tree.map(lambda x, pair: lax.complex(x[0], x[1]) if pair else x, tree, paired)


def _check_method(equation: Any, solver: Any, adjoint: Any, times: Any) -> None:
    import diffrax

    kinds = (
        (solver, "solver", diffrax.AbstractSolver, "Tsit5"),
        (adjoint, "adjoint", diffrax.AbstractAdjoint, "DirectAdjoint"),
    )
    for value, name, kind, usual in kinds:
        if value is not None and not isinstance(value, kind):
            given = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
            raise TypeError(f"`{name}` must be a diffrax {name}, such as diffrax.{usual}(), got {given}.")
    if isinstance(adjoint, diffrax.ImplicitAdjoint) and times is not None:
        raise ValueError(
            "`diffrax.ImplicitAdjoint` differentiates the steady state at t1 and nothing on the way: leave out "
            "`times`, or take another adjoint."
        )
    if isinstance(adjoint, (diffrax.BacksolveAdjoint, diffrax.ImplicitAdjoint)) and jax.tree.leaves(equation) == [
        equation
    ]:
        raise TypeError(
            f"`{type(adjoint).__name__}` differentiates the arrays of an equation that is a pytree, such as an "
            f"equinox.Module; {type(equation).__name__} is none. Take another adjoint."
        )


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
