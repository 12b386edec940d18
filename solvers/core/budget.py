"""Bytes and recomputation of every adjoint strategy before anything runs; picks one for a memory budget."""

import os
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

from .adjoint import STRETCH, Checkpoint, StoreAll, segment_sizes
from .arguments import Arguments, checked
from .equation import make_stepper
from .refusal import Refusal

# Copies of the state that any reverse sweep holds beside what it stores: the state itself, its cotangent, the
# gradient, and what passes between them.
WORKING_STATES = 6
MOST_LEVELS = 5


class Nest(eqx.Module):
    """How the scans are nested: segment lengths in observations and in steps, and whether segments are recomputed.

    `refusal` is what to say to a reverse sweep, for which the memory does not suffice; `linear` that a sweep to the
    state and inputs alone needs none.
    """

    ticks: tuple[int, ...] = eqx.field(static=True, default=())
    steps: tuple[int, ...] = eqx.field(static=True, default=())
    recompute: bool = eqx.field(static=True, default=False)
    refusal: Refusal | None = eqx.field(static=True, default=None)
    linear: bool = eqx.field(static=True, default=False)


class Option(eqx.Module):
    """One strategy with its estimated bytes and its cost in forward runs (gradient included)."""

    adjoint: Any
    bytes: int
    runs: float


class Plan(eqx.Module):
    """Strategies for one run, the fastest first, and the one that `adjoint="auto"` takes.

    `chosen` is None where none fits: then `simulate` marches, and refuses a gradient that would need the memory.
    """

    options: tuple[Option, ...]
    chosen: Any
    budget: int

    def __str__(self) -> str:
        rows = [f"memory budget {_size(self.budget)}; cost of value and gradient in forward runs"]
        for option in self.options:
            mark = "  <- auto" if option.adjoint == self.chosen else ""
            rows.append(f"  {option.adjoint!s:<24} {_size(option.bytes):>10}  {option.runs:4.0f}{mark}")
        if self.chosen is None:
            rows.append("  none fits: auto runs, and refuses a gradient that needs the memory")
        return "\n".join(rows)


def plan(
    equation: Any,
    state: Any,
    *,
    steps: int,
    dt: Any,
    inputs: Any = None,
    every: int = 1,
    memory: str | float | int | None = None,
) -> Plan:
    """What each adjoint strategy of `simulate` would need, without running anything.

    Args:
        equation, state, steps, dt, inputs, every, memory: as for `simulate`.

    Returns:
        A `Plan`, which prints as a table and says which strategy is taken, or that none fits. The bytes are an
        estimate from the shapes of what one step keeps; the compiler's own number is
        `jit(f).lower(...).compile().memory_analysis()`.

    Raises:
        ValueError: for what `simulate` would not run either.

    Example:
        >>> import solvers as sv
        >>> wave = sv.Wave(sv.Grid((64, 64), 10.0), 1500.0, boundary=sv.Rigid())
        >>> print(sv.plan(wave, wave.at_rest(), steps=4000, dt=1e-3, memory="50MB"))  # doctest: +ELLIPSIS
        memory budget 50.0 MB; cost of value and gradient in forward runs
          StoreAll() ...
          Checkpoint(levels=2) ... <- auto
        ...
    """
    return _table(checked(equation, state, steps=steps, dt=dt, inputs=inputs, every=every), memory)


def _table(run: Arguments, memory: Any) -> Plan:
    budget = _free_memory() // 2 if memory is None else parse_bytes(memory)
    state_bytes, step_bytes = _costs(run)
    steps, every = run.steps, run.every
    working = WORKING_STATES * (state_bytes + step_bytes)
    # Storing all passes each stretch of steps through a buffer of its own, forwards and backwards.
    stretches = 2 * min(steps, STRETCH) * step_bytes
    options = [Option(StoreAll(), int(steps * step_bytes + stretches + working), 3.0)]
    for levels in range(2, MOST_LEVELS + 1):
        nest = nest_of(Checkpoint(levels), steps, every, state_bytes, step_bytes)
        stored, length, last = 0, steps, min(steps, STRETCH if every > STRETCH else steps)
        for size in [t * every for t in nest.ticks] + list(nest.steps):
            stored, length, last = stored + -(-length // size) * state_bytes, size, size
        options.append(Option(Checkpoint(levels), int(stored + last * step_bytes + working), 3.0 + levels - 1))
    fitting = [o.adjoint for o in options if o.bytes <= budget]
    return Plan(tuple(options), fitting[0] if fitting else None, int(budget))


def choose(run: Arguments, adjoint: Any, memory: Any) -> Nest:
    """The nested scans of the strategy that `simulate` was asked for.

    Where none fits, a plain scan with a refusal: a run that nobody differentiates needs no memory for it.
    """
    refusal = None
    if isinstance(adjoint, str) and adjoint == "auto":
        table = _table(run, memory)
        adjoint = table.chosen
        if adjoint is None:
            # Nothing is kept in a sweep that is refused: a plain scan, which compiles fastest.
            adjoint = StoreAll()
            refusal = Refusal(
                "No adjoint strategy fits. The run itself can be computed and differentiated forwards, but a gradient "
                f"cannot. Raise `memory`, or use fewer steps or a smaller grid:\n{table}"
            )
    if not isinstance(adjoint, (StoreAll, Checkpoint)):
        raise ValueError(f'`adjoint` must be StoreAll(), Checkpoint(levels) or "auto", got {adjoint!r}.')
    if isinstance(adjoint, StoreAll):
        return Nest(refusal=refusal, linear=refusal is not None and _is_linear(run))
    return nest_of(adjoint, run.steps, run.every, *_costs(run))


def nest_of(adjoint: Checkpoint, steps: int, every: int, state_bytes: float, step_bytes: float) -> Nest:
    """Segment lengths of checkpoints."""
    levels = adjoint.levels or 2
    sizes = segment_sizes(steps, levels, step_bytes, state_bytes)
    # Segments longer than an observation interval are whole numbers of intervals; the others lie inside one.
    ticks = tuple(max(size // every, 1) for size in sizes if size >= every)
    inner = tuple(size for size in sizes if size < every) if every > STRETCH else ()
    return Nest(ticks, inner or ((every,) if every > STRETCH else ()), recompute=True)


def _costs(run: Arguments) -> tuple[float, float]:
    """Bytes of a checkpoint, and bytes that the derivative of one step keeps."""
    return _asked(_bytes, run)


def _is_linear(run: Arguments) -> bool:
    """Whether a derivative with respect to state and inputs alone keeps nothing."""
    return _asked(_slope_is_constant, run)


def _asked(question: Callable, run: Arguments) -> Any:
    """The answer to a question that a trace of one step answers; found again for the same shapes."""
    moving, still = eqx.partition((run.equation, run.state, run.dt, run.inputs), eqx.is_array_like)
    leaves, tree = jax.tree.flatten(moving)
    shapes = tuple(_shape(x) for x in leaves)
    still_leaves, still_tree = jax.tree.flatten(still)
    try:
        return _answer(question, tree, shapes, still_tree, tuple(still_leaves), run.seen)
    except TypeError as error:
        if "unhashable" not in str(error):
            raise
        return _answer.__wrapped__(question, tree, shapes, still_tree, tuple(still_leaves), run.seen)


def _shape(x: Any) -> tuple:
    return (jnp.shape(x), jnp.result_type(x))


@lru_cache(maxsize=256)
def _answer(question: Callable, tree: Any, shapes: tuple, still_tree: Any, still_leaves: tuple, seen: Any) -> Any:
    arrays = jax.tree.unflatten(tree, [jax.ShapeDtypeStruct(*s) for s in shapes])
    still = jax.tree.unflatten(still_tree, still_leaves)

    def opened(moving: Any) -> tuple:
        equation, state, dt, inputs = eqx.combine(moving, still)
        dtype = jnp.finfo(jnp.result_type(*[x for x in jax.tree.leaves(state) if _is_float(x)])).dtype
        stepper = make_stepper(equation, jnp.asarray(dt, dtype))
        first = jax.tree.map(lambda x: x[0].astype(dtype) if _is_float(x) else x[0], inputs)
        return stepper, stepper.enter(state) if hasattr(stepper, "enter") else state, first

    return question(opened, arrays)


def _bytes(opened: Callable, arrays: Any) -> tuple[float, float]:
    def all_of_it(moving: Any) -> tuple:
        stepper, state, first = opened(moving)
        if hasattr(stepper, "taped_step"):
            kept = stepper.taped_step(state, first)[1]
            return state, kept, ()
        floats, rest = eqx.partition(stepper, eqx.is_inexact_array)
        _, pull = jax.vjp(lambda a, s: eqx.combine(a, rest).step(s, first), floats, state)
        return state, jax.tree.leaves(pull), jax.tree.leaves(eqx.filter((floats, rest), eqx.is_array))

    return _kept_bytes(all_of_it, arrays)


def _slope_is_constant(opened: Callable, arrays: Any) -> bool:
    """Whether the derivative of the step with respect to state and inputs is the same wherever they are."""
    answers = []

    def look(moving: Any) -> None:
        stepper, state, first = opened(moving)
        floats, rest = eqx.partition((state, first), eqx.is_inexact_array)

        def function(x: Any) -> Any:
            return eqx.filter(stepper.step(*eqx.combine(x, rest)), eqx.is_inexact_array)

        jaxpr = jax.make_jaxpr(lambda at, along: jax.jvp(function, at, along)[1])((floats,), (floats,)).jaxpr
        used = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars), instantiate=False)[1]
        answers.append(not any(used[: len(jax.tree.leaves(floats))]))

    jax.eval_shape(look, arrays)
    return answers[0]


def _kept_bytes(residuals: Any, arrays: Any) -> tuple[float, float]:
    """Bytes of the state and of what a step keeps, of a function that returns (state, kept, the same at every step)."""
    jaxpr, (packed, kept, _) = jax.make_jaxpr(residuals, return_shape=True)(arrays)
    n_packed, n_kept = len(jax.tree.leaves(packed)), len(jax.tree.leaves(kept))
    out = jaxpr.jaxpr.outvars
    # What is the same at every step is kept once, not per step.
    same = {id(v) for v in [*jaxpr.jaxpr.invars, *jaxpr.jaxpr.constvars, *out[n_packed + n_kept :]]}
    same -= {id(v) for v in out[:n_packed]}
    per_step = {id(v): v.aval for v in out[n_packed : n_packed + n_kept] if id(v) not in same}
    step_bytes = float(sum(_nbytes(a) for a in per_step.values()))
    return sum(_nbytes(a) for a in jax.tree.leaves(packed)), step_bytes


def _is_float(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)


def _nbytes(x: Any) -> float:
    return float(np.prod(x.shape)) * jnp.dtype(x.dtype).itemsize


def parse_bytes(memory: str | float | int) -> int:
    """Bytes of a number or of a text such as "2GB", "500 MB", "1.5GiB".

    Example:
        >>> parse_bytes("2GB"), parse_bytes("1GiB"), parse_bytes(1e6)
        (2000000000, 1073741824, 1000000)
    """
    if isinstance(memory, (int, float)) and not isinstance(memory, bool) and memory > 0:
        return int(memory)
    match = re.fullmatch(r"\s*([0-9.]+)\s*([kMGT]?)(i?)B?\s*", memory) if isinstance(memory, str) else None
    try:
        number = float(match[1]) if match else 0.0
    except ValueError:
        number = 0.0
    if not match or number <= 0:
        raise ValueError(f'`memory` must be a positive number of bytes or a text such as "2GB", got {memory!r}.')
    return int(number * (1024 if match[3] else 1000) ** " kMGT".index(match[2] or " "))


def _size(count: float | int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def _free_memory() -> int:
    """Free bytes of the device that arrays go to, or of the machine."""
    stats = jax.devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    try:
        with open("/proc/meminfo") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 4 * 1024**3
