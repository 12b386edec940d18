"""Long runs: a step again and again from the host, with progress, statistics, stopping rules and resume.

One door, `run`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .arguments import stacked_inputs, time_step, working_dtype
from .checks import is_known, whole
from .equation import make_stepper
from .host_loop import LOOK, Plan, drive
from .observe import accumulates, is_observer
from .record import Draws
from .status import SolverError, Status

LARGEST = 2**31 - 1  # steps, counted in 32 bits


class LongRun(eqx.Module):
    """What `run` returns.

    Attributes:
        final: state after the last step.
        observed: observations, stacked along a leading axis; NumPy arrays, memory-mapped where there is a checkpoint;
            None without `observe` or with `sinks`.
        sinks: results of the sinks, by name.
        times: time of each observation, or its number of steps where the run has no `dt`; float64; empty where nobody
            observes.
        steps: number of steps taken, those before a resume included.
        stopped: whether the rule `until` ended the run.
        status: OK, or NONFINITE.
        failed_step: number of steps after which the state was first found not finite (looked for at most 64 steps
            apart), -1 if it never was.
    """

    final: Any
    observed: Any
    sinks: dict
    times: np.ndarray
    steps: int
    stopped: bool
    status: Status
    failed_step: int

    def check(self) -> "LongRun":
        """Return the run itself, or raise `SolverError` if it failed.

        Raises:
            SolverError: with the step at which the state stopped being finite.
        """
        if not self.status.ok:
            raise SolverError(
                f"{self.status.name}: the state is not finite any more after step {self.failed_step} (to within {LOOK} "
                "steps). Usual causes: a time step above the stability limit, or input that is not finite. The last "
                "checkpoint is from before."
            )
        return self


def run(
    equation: Any,
    state: Any,
    *,
    steps: int,
    dt: Any = None,
    t0: float | int = 0.0,
    inputs: Any = None,
    observe: Any = None,
    thin: int | None = None,
    sinks: Any = None,
    until: Callable | None = None,
    checkpoint: str | Path | None = None,
    every: int | None = None,
    chunk: int | None = None,
    progress: Any = False,
) -> LongRun:
    """Take many steps from the host: n = 0 .. steps - 1, state = equation.step(state, inputs(t0 + n dt), dt).

    For runs that last minutes to weeks. The device works in chunks of about a quarter of a second; between them the
    host moves the progress bar, collects observations, asks the stopping rule and writes checkpoints. The result does
    not depend on chunks, interruptions and resumes by a single bit (on one machine with one version of JAX). Where a
    derivative is wanted, take `simulate`: this loop has none.

    With `checkpoint`, **calling again with the same arguments resumes**, after Ctrl-C, kill -9, a crash of the machine
    or a full disk; more `steps` continue a run that was done, with more `inputs` that begin with those of before. The
    file is written to a temporary name, synced and renamed, and the one before it is kept: whatever happens, one of the
    two is whole. It contains arrays and JSON, no code. Functions cannot be compared with those of a file, so the first
    step is repeated and compared instead, and a checkpoint of another equation, start, `dt`, `observe` or data is
    refused. Ctrl-C and SIGTERM first write a checkpoint. (Where nobody observes, an even number of steps is taken in
    pairs, an odd one step by step. If you continue one kind by the other, this is another order of compiled operations,
    and the last bits may differ.)

    Args:
        equation: anything with `step(state, inputs, dt)`, such as `Wave`, together with `dt`; or a function
            `step(state, n)` of the state and the number of steps before it. For random steps use
            `jax.random.fold_in(key, n)`.
        state: initial state, a pytree of arrays.
        steps: total number of steps, a multiple of `thin`, below 2^31.
        dt: time step of an equation.
        t0: time at the start. Time is t0 + n dt with an integer n: it does not drift.
        inputs: pytree with a leading axis of length `steps`, or a function of time that returns one step's input.
        observe: function of the state, or a tuple, list or dict of functions; called after every `thin` steps. By
            default the whole state where there are sinks.
        thin: steps between observations, by default 1.
        sinks: dict of statistics of what is observed, in constant memory: `Moments()`, `Quantiles()`, `BatchMeans()`,
            `Draws(folder)`; observations are then not stacked.
        until: function of the results of the sinks (a dict like `sinks`) that returns True to stop; asked after every
            `every` steps.
        checkpoint: file to write to and to resume from. Stacked observations go into a folder beside it,
            `<checkpoint>.draws`.
        every: steps between checkpoints, and between calls of `until`. By default a hundredth of the run, checkpoints
            at most every ten seconds.
        chunk: steps per chunk, by default as many as take about a quarter of a second.
        progress: True for a bar with the remaining time on a terminal, or a function of (steps done, steps).

    Returns:
        `LongRun(final, observed, sinks, times, steps, stopped, status, failed_step)`. A run whose state stops being
        finite ends there with status NONFINITE, its last checkpoint from before; `.check()` raises.

    Raises:
        ValueError: for what can be seen before running.
        TypeError: if the step changes the structure, shape or dtype of the state; inside `jit`, `vmap` or `grad`.
        CheckpointError: if the checkpoint is damaged and there is none before it, if it belongs to another run, or if
            it cannot be written.

    Example:
        >>> import jax.numpy as jnp
        >>> def halve(state, n):
        ...     return state / 2
        >>> result = run(halve, jnp.array([1.0, 3.0]), steps=4, observe=jnp.sum, thin=2)
        >>> result.final.tolist(), result.observed.tolist(), result.times.tolist(), result.status.name
        ([0.0625, 0.1875], [1.0, 0.25], [2.0, 4.0], 'OK')
    """
    state = _as_state(state, equation, dt, t0, inputs)
    march = _as_march(equation, state, steps, dt, t0, inputs)
    sinks = as_sinks(sinks)
    if observe is None and sinks:
        observe = _whole_state
    check_observe(observe)
    # Where nothing looks, steps are taken in blocks.
    grouped = observe is None and thin is None
    thin = thin if thin is not None else _block(steps) if grouped else 1
    march = eqx.tree_at(lambda m: m.observe, march, observe, is_leaf=lambda x: x is None)
    plan = as_plan(steps, thin, every, chunk, checkpoint, until, sinks, progress)
    plan = plan._replace(keep=observe is not None and not sinks, grouped=grouped)
    carry = _enter(march, state)
    thinned = None if grouped else plan.thin
    identity = {"equation": describe(equation), "state": shapes(state), "thin": thinned, "sinks": shapes(sinks)}
    outcome = drive(march, carry, sinks, plan, identity)
    failed = int(outcome.failed[0])
    times = np.arange(1, 1 if grouped else outcome.steps // thin + 1) * float(thin)
    return LongRun(
        _leave(march, outcome.carry),
        outcome.observed,
        outcome.sinks,
        times if dt is None else float(t0) + times * float(dt),
        outcome.steps,
        outcome.stopped,
        Status.OK if failed < 0 else Status.NONFINITE,
        failed,
    )


# ---- What is marched ----


class _EquationMarch(eqx.Module):
    """An equation with its inputs; what is marched is the stepper's own state."""

    equation: Any
    dt: Array
    t0: Array
    inputs: Any
    observe: Any = None
    stepper: Any = None
    members: None = eqx.field(static=True, default=None)
    ahead: ClassVar[int] = 1

    @property
    def stacked(self) -> Any:
        """Inputs with one row per step."""
        return None if callable(self.inputs) else self.inputs

    def ready(self) -> "_EquationMarch":
        """With what does not change from step to step."""
        stepper = make_stepper(self.equation, self.dt)
        return eqx.tree_at(lambda m: m.stepper, self, stepper, is_leaf=lambda x: x is None)

    def advance(self, carry: Any, n: Array, drawn: None) -> Any:
        if callable(self.inputs):
            return self.stepper.step(carry, self.inputs(self.t0 + n.astype(self.dt.dtype) * self.dt))
        return self.stepper.step(carry, jax.tree.map(lambda x: x[n], self.inputs))

    def see(self, carry: Any) -> Any:
        return observed(self.observe, self.leave(carry))

    def healthy(self, carry: Any) -> Array:
        return _finite(carry)

    def enter(self, state: Any) -> Any:
        return self.stepper.enter(state) if hasattr(self.stepper, "enter") else state

    def leave(self, carry: Any) -> Any:
        return self.stepper.leave(carry) if hasattr(self.stepper, "leave") else carry


class _FunctionMarch(eqx.Module):
    """A function of the state and the number of the step."""

    function: Callable
    observe: Any = None
    members: None = eqx.field(static=True, default=None)
    ahead: ClassVar[int] = 1
    stacked: ClassVar[None] = None

    def ready(self) -> "_FunctionMarch":
        return self

    def advance(self, carry: Any, n: Array, drawn: None) -> Any:
        return self.function(carry, n)

    def see(self, carry: Any) -> Any:
        return observed(self.observe, carry)

    def healthy(self, carry: Any) -> Array:
        return _finite(carry)

    def enter(self, state: Any) -> Any:
        return state

    def leave(self, carry: Any) -> Any:
        return carry


@eqx.filter_jit
def _enter(march: Any, state: Any) -> Any:
    return march.ready().enter(state)


@eqx.filter_jit
def _leave(march: Any, carry: Any) -> Any:
    return march.ready().leave(carry)


def _whole_state(state: Any) -> Any:
    return state


def observed(observe: Any, state: Any) -> Any:
    """Values of one observer, or of a container of them, as arrays."""
    return jax.tree.map(lambda entry: jax.tree.map(jnp.asarray, entry(state)), observe, is_leaf=is_observer)


def _finite(carry: Any) -> Array:
    leaves = [jnp.isfinite(x).all() for x in jax.tree.leaves(carry) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.stack(leaves).all()[None] if leaves else jnp.ones(1, bool)


def _as_march(equation: Any, state: Any, steps: int, dt: Any, t0: Any, inputs: Any) -> Any:
    if hasattr(equation, "step") or hasattr(equation, "stepper"):
        dtype = working_dtype(state)
        if dt is None:
            raise ValueError(f"{type(equation).__name__} needs a time step, `dt`.")
        dt = time_step(dt, dtype)
        whole(steps, "steps")
        inputs = inputs if callable(inputs) else stacked_inputs(inputs, steps, dtype)
        if hasattr(equation, "check"):
            equation.check(state, steps=steps, dt=dt, inputs=_one_input(inputs, t0, dt, steps))
        return _EquationMarch(equation, dt, jnp.asarray(t0, dtype), inputs)
    if not callable(equation):
        raise TypeError(
            "`equation` must have a method step(state, inputs, dt), or be a function step(state, n); "
            f"{type(equation).__name__} is neither."
        )
    if dt is not None or inputs is not None:
        raise ValueError("`dt` and `inputs` belong to equations; a function step(state, n) brings its own.")
    return _FunctionMarch(equation)


def _one_input(inputs: Any, t0: Any, dt: Array, steps: int) -> Any:
    """What an equation's own check may look at: the inputs, or shapes like theirs where a function makes them."""
    if not callable(inputs):
        return inputs
    one = jax.eval_shape(inputs, jnp.asarray(t0, dt.dtype))
    return jax.tree.map(lambda s: np.broadcast_to(np.zeros((), s.dtype), (steps, *s.shape)), one)


# ---- Checks that `sample` shares ----


def as_sinks(sinks: Any) -> dict:
    """A checked dict of sinks."""
    sinks = {} if sinks is None else sinks
    if not isinstance(sinks, dict) or not all(isinstance(name, str) for name in sinks):
        raise TypeError(f'`sinks` must be a dict name -> sink, such as {{"moments": sv.Moments()}}, got {sinks!r}.')
    for name, sink in sinks.items():
        if not isinstance(sink, Draws) and not (hasattr(sink, "update") and hasattr(sink, "start")):
            raise TypeError(
                f"The sink {name!r} must be one of Moments, Quantiles, BatchMeans, Draws or alike: {sink!r}."
            )
        if accumulates(sink) and hasattr(sink, "function"):
            raise TypeError(f"{type(sink).__name__} is an observer of `simulate`; a sink such as Moments is needed.")
        if name == "observed":
            raise ValueError("No sink can be called 'observed': that is what stacked observations are called.")
    folders = [sink.folder.resolve() for sink in sinks.values() if isinstance(sink, Draws)]
    for folder in folders:
        if folders.count(folder) > 1:
            raise ValueError(f"Two sinks would write to the same files in {folder}: give each Draws its own folder.")
    return sinks


def as_plan(
    steps: Any, thin: Any, every: Any, chunk: Any, checkpoint: Any, until: Any, sinks: dict, progress: Any
) -> Plan:
    """The checked choices about the host's side of a run."""
    steps, thin = whole(steps, "steps"), whole(thin, "thin")
    if steps > LARGEST:
        raise ValueError(f"`steps` must be at most {LARGEST}, got {steps}; steps are counted in 32 bits.")
    if steps % thin:
        raise ValueError(
            f"`steps` must be a multiple of `thin`={thin}, got {steps}; take {steps - steps % thin or thin}."
        )
    ticks = steps // thin
    if until is not None and (not callable(until) or not sinks):
        raise ValueError("`until` must be a function of the results of `sinks`, so there must be sinks, too.")
    if not (isinstance(progress, bool) or callable(progress)):
        raise TypeError(f"`progress` must be True, False or a function of (steps done, steps), got {progress!r}.")
    interval = -(-ticks // 100) if every is None else -(-whole(every, "every") // thin)
    return Plan(
        ticks,
        thin,
        interval,
        every is None,
        None if chunk is None else -(-whole(chunk, "chunk") // thin),
        None if checkpoint is None else Path(checkpoint),
        until,
        progress,
        keep=True,
        whole=True,
    )


def describe(thing: Any) -> str:
    """Name of a function, or of the class of a struct."""
    named = thing if hasattr(thing, "__qualname__") else type(thing)
    return f"{named.__module__}.{named.__qualname__}"


def shapes(tree: Any) -> str:
    """Structure, shapes and dtypes of a pytree in words that are the same in every process."""
    if isinstance(tree, dict) and all(hasattr(x, "update") or isinstance(x, Draws) for x in tree.values()):
        return ", ".join(f"{name}={sink!r}" for name, sink in sorted(tree.items()))
    return ", ".join(
        f"{jax.tree_util.keystr(path)}:{x.dtype}{list(x.shape)}"
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
    )


def _as_state(state: Any, *given: Any) -> Any:
    if not all(is_known(x) for x in jax.tree.leaves((state, given))):
        raise TypeError("`run` works from the host, outside of jit, vmap and grad; inside of them use `simulate`.")
    state = jax.tree.map(jnp.asarray, state)
    if not jax.tree.leaves(state):
        raise ValueError("`state` holds no array.")
    return state


def check_observe(observe: Any) -> None:
    """TypeError unless all observers are functions."""
    for entry in jax.tree.leaves(observe, is_leaf=is_observer):
        if not is_observer(entry):
            raise TypeError(f"`observe` must be a function of the state, got {entry!r}.")
        if accumulates(entry):
            raise TypeError(f"{type(entry).__name__} accumulates in `simulate`; here give `sinks`, such as Moments().")


def _block(steps: Any) -> int:
    """Steps per tick of a run that nobody observes."""
    import math

    return math.gcd(whole(steps, "steps"), LOOK)
