"""The loop: apply a step many times on the device, observing on the way. One door, `simulate`."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from .adjoint import STRETCH, differentiable_stretch, nested_scan, remat
from .arguments import checked
from .budget import Nest, choose
from .captured import fingerprint_of_run
from .checks import check_same_struct
from .equation import make_stepper
from .observe import accumulates, is_observer, lifted
from .refusal import forward_only
from .status import SolverError, Status, failures, public_status
from .stretch import Stretch, public, watch


class Simulation(eqx.Module):
    """What `simulate` returns.

    Attributes:
        final: state after the last step.
        observed: what `observe` saw, stacked along a leading axis (accumulators: their result); None without observer.
        times: times of the stacked observations, `times[k] = (k + 1) * every * dt`.
        code: status as an integer array, one per batch entry under `vmap`.
        failed_step: number of steps after which the state was first found not finite (checked at most 64 steps
            apart), -1 if it never was; 0 if a receiver lies outside of the grid.
    """

    final: Any
    observed: Any
    times: Array
    code: Array
    failed_step: Array

    @property
    def status(self) -> Status | Array:
        """`Status` outside of `jit` and `vmap`; the array of codes inside or for a batch."""
        return public_status(self.code)

    def check(self) -> "Simulation":
        """Return the simulation itself, or raise `SolverError` if it failed (any member of a batch).

        Raises:
            SolverError: with the step at which the state stopped being finite.
            TypeError: inside `jit`, where no value is known.
        """
        bad = failures(self.code, Status.OK)
        if bad:
            raise SolverError(
                f"{bad}: the state is not finite any more after step {bad.first(self.failed_step)} (to within "
                f"{STRETCH} steps). Usual causes: a time step above the stability limit, input that is not finite, "
                "a source or receiver outside of the grid."
            )
        return self


def simulate(
    equation: Any,
    state: Any,
    *,
    steps: int,
    dt: Any,
    inputs: Any = None,
    observe: Any = None,
    every: int = 1,
    adjoint: Any = "auto",
    memory: str | float | int | None = None,
) -> Simulation:
    """March an equation in time: `steps` times `state = equation.step(state, inputs[n], dt)`.

    Compiled once per equation structure, shapes and number of steps; new values of speeds, sources, `dt` or
    positions run without a new trace. What functions see beside their arguments (attributes of a plain object, globals,
    captured variables) is a constant of the compiled run: a changed value is noticed and compiles anew. Works inside
    `jit`, `vmap`, `grad`, `jvp` and their compositions.

    Gradients with respect to the initial state or to inputs that enter linearly need no memory per step: nothing is
    stored for them, whatever `adjoint` says. For the others `adjoint` decides between memory and recomputation.

    Args:
        equation: anything with `step(state, inputs_n, dt) -> state`, such as `Wave`. If it is a pytree (an
            `equinox.Module`) its arrays may be differentiated, and take new values without a new compilation.
        state: initial state, a pytree of arrays (for `Wave`: `wave.at_rest()` or `wave.state(...)`).
        steps: number of steps, at least 1.
        dt: time step, in the unit of time of the equation.
        inputs: pytree with a leading axis of length `steps`; `inputs[k]` acts at time k dt.
        observe: function of the state whose values are stacked, or an accumulator (`Mean`, `Peak`, `Fourier`), or a
            tuple, list or dict of these.
        every: observe after every `every` steps.
        adjoint: `StoreAll()`, `Checkpoint(levels)` or "auto", which stores all where that fits into `memory`, and
            else takes the fewest levels that fit. Where none fits, the run is marched all the same;
            a gradient through it that would need the memory is refused. `plan` shows the choice without running.
        memory: bytes for the reverse sweep of one run (of one lane under `vmap`), such as "2GB"; default half of the
            free memory.

    Returns:
        `Simulation(final, observed, times, status)`. A run that blows up returns with status NONFINITE and the step
        at which it happened, to within 64 steps; `.check()` raises.

    Raises:
        ValueError: for what can be seen before running: shapes, a time step above the stability limit; when a
            reverse sweep is built within a memory budget that no strategy fits.
        TypeError: if the step changes the structure, shape or dtype of the state.

    Example:
        >>> import jax.numpy as jnp
        >>> class Decay:
        ...     def step(self, state, inputs, dt):
        ...         return state * (1 - dt)
        >>> run = simulate(Decay(), jnp.array([1.0]), steps=10, dt=0.1, observe=lambda s: s[0], every=5)
        >>> run.observed.round(4).tolist(), run.times.tolist(), run.status.name
        ([0.5905, 0.3487], [0.5, 1.0], 'OK')
    """
    run = checked(equation, state, steps=steps, dt=dt, inputs=inputs, every=every)
    for entry in jax.tree.leaves(observe, is_leaf=is_observer):
        if not is_observer(entry):
            raise TypeError(f"`observe` must be a function of the state or an accumulator, got {entry!r}.")
    observe = jax.tree.map(lambda entry: lifted(entry, run.state), observe, is_leaf=is_observer)
    # A compiled run is found again only if what its functions see is still the same.
    seen = (run.seen, fingerprint_of_run(*jax.tree.leaves(observe, is_leaf=is_observer)))
    nest = choose(run, adjoint, memory)
    return _simulate(run.equation, run.state, run.inputs, observe, run.dt, run.steps, run.every, nest, seen)


@eqx.filter_jit
def _simulate(
    equation: Any, state: Any, inputs: Any, observe: Any, dt: Array, steps: int, every: int, nest: Nest, seen: Any
) -> Simulation:
    stepper = make_stepper(equation, dt)
    if nest.refusal is not None:
        stepper, dt = forward_only((stepper, dt), nest.refusal)
        if not nest.linear:
            state, inputs = forward_only((state, inputs), nest.refusal)
    state = stepper.enter(state) if hasattr(stepper, "enter") else state
    _same_struct(stepper, state, inputs)
    entries, tree = jax.tree.flatten(observe, is_leaf=is_observer)
    entries = [e.prepared() if hasattr(e, "prepared") else e for e in entries]
    march = _March(stepper, entries, dt, every, nest)
    seen = public(stepper, state)
    totals = [e.start(seen) if accumulates(e) else () for e in entries]
    # Only a point outside of the grid, which could not be seen at the door, makes a prepared observer not finite.
    ready = [e for e in entries if getattr(e, "reads_carry", False)]
    bad = jnp.where(_all_finite(ready), -1, 0).astype(jnp.int32)

    count, extra = divmod(steps, every)
    whole = jax.tree.map(lambda x: x[: count * every].reshape(count, every, *x.shape[1:]), inputs)
    ticks = jnp.arange(count, dtype=jnp.int32)
    carry, ys = march.ticks((state, totals, bad), (whole, ticks), count)
    if extra:
        rest = jax.tree.map(lambda x: x[count * every :], inputs)
        carry, _ = march.steps(carry, (rest, count * every + jnp.arange(1, extra + 1, dtype=jnp.int32)), extra)
    state, totals, bad = carry
    stacked = ys if ys is not None else march.nothing(state)
    observed = [e.result(t, count) if accumulates(e) else y for e, t, y in zip(entries, totals, stacked, strict=True)]
    code = jnp.where(bad < 0, int(Status.OK), int(Status.NONFINITE)).astype(jnp.int32)
    times = (jnp.arange(1, count + 1) * every).astype(dt.dtype) * dt
    return Simulation(public(stepper, state), jax.tree.unflatten(tree, observed), times, code, bad)


class _March:
    """The nested scans of one run; lives only while `_simulate` is traced."""

    def __init__(self, stepper: Any, entries: list, dt: Array, every: int, nest: Nest):
        self.stepper, self.entries, self.dt, self.every, self.nest = stepper, entries, dt, every, nest
        wrap = remat if nest.recompute else lambda f: f
        self.wraps = lambda sizes, block: [(size, wrap) for size in sizes] + [(block, lambda f: f)]
        self.moving, self.still = eqx.partition((stepper, entries, dt), eqx.is_array)

    def nothing(self, state: Any) -> list:
        """Observations of a run that ends before the first one."""

        def see(state: Any) -> list:
            totals = [e.start(public(self.stepper, state)) if accumulates(e) else () for e in self.entries]
            return watch(self.stepper, self.entries, totals, [state] * len(self.entries), self.dt)[1]

        shapes = jax.eval_shape(see, state)
        return jax.tree.map(lambda s: jnp.zeros((0, *s.shape), s.dtype), shapes)

    def ticks(self, carry: Any, xs: Any, count: int) -> tuple:
        """`count` times: `every` steps, then observe."""
        if self.every <= STRETCH:
            block = max(STRETCH // self.every, 1)
            sizes = self.wraps(self.nest.ticks, block)
            return nested_scan(lambda c, x, n: self.stretch(c, x, n, watch=True), carry, xs, count, sizes)

        def tick(carry: Any, x: Any) -> tuple:
            inputs, n = x
            after = n * self.every + jnp.arange(1, self.every + 1, dtype=jnp.int32)
            (state, totals, bad), _ = self.steps(carry, (inputs, after), self.every)
            totals, ys = watch(self.stepper, self.entries, totals, [state] * len(self.entries), self.time(n))
            return (state, totals, bad), ys

        sizes = [(size, remat if self.nest.recompute else (lambda f: f)) for size in self.nest.ticks]
        return nested_scan(lambda c, x, n: lax.scan(tick, c, x), carry, xs, count, sizes)

    def steps(self, carry: Any, xs: Any, length: int) -> tuple:
        """`length` steps without observing."""
        sizes = self.wraps(self.nest.steps, STRETCH)

        def leaf(carry: Any, xs: Any, n: int) -> tuple:
            inputs, after = xs
            one = jax.tree.map(lambda x: x[:, None], inputs)
            return self.stretch(carry, (one, after), n, watch=False)

        return nested_scan(leaf, carry, xs, length, sizes)

    def time(self, n: Array) -> Array:
        return ((n + 1) * self.every).astype(self.dt.dtype) * self.dt

    def stretch(self, carry: Any, xs: Any, length: int, watch: bool) -> tuple:
        """A stretch of at most `STRETCH` steps, whose derivative is taken in one piece; then look for a NaN."""
        state, totals, bad = carry
        inputs, n = xs
        # Two steps per turn let the two buffers of a leapfrog step change places without a copy.
        unroll = getattr(self.stepper, "unroll", 2)
        piece = Stretch(self.still, self.every if watch else 1, watch, unroll)
        function = piece.plain
        if hasattr(self.stepper, "taped_step"):
            function = differentiable_stretch(piece.plain, piece.taped, piece.pull)
        times = lax.stop_gradient(n) if not watch else n
        state, totals, ys = function((self.moving, state, totals, inputs, times))
        last = (n[-1] + 1) * self.every if watch else n[-1]
        bad = jnp.where((bad < 0) & ~_all_finite(state), last, bad)
        return (state, totals, bad), ys


def _all_finite(state: Any) -> Array:
    finite = jnp.array(True)
    for x in jax.tree.leaves(state):
        if jnp.issubdtype(x.dtype, jnp.inexact):
            finite = finite & jnp.all(jnp.isfinite(lax.stop_gradient(x)))
    return finite


def _same_struct(stepper: Any, state: Any, inputs: Any) -> None:
    first = jax.tree.map(lambda x: x[0], inputs)
    after = jax.eval_shape(lambda s, i: stepper.step(s, i), state, first)
    before = jax.eval_shape(lambda s: s, state)
    check_same_struct(before, after)
