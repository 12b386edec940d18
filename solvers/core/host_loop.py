"""The host's side of a long run: chunks on the device, and between them sinks, records, checkpoints, rules, signals.

`run` and `sample` bring a march, a pytree whose arrays are arguments of the compiled program:

    members              static: number of chains, None for a single run without an axis of members
    ahead                static: the number of steps whose random numbers are drawn at once, 1 for none
    draw(carry, steps)   these numbers, with a leading axis; of the state only the shapes matter
    advance(carry, n, drawn)    the state after step n, counted from 0; `drawn` is None where nothing is
    see(carry)           what is observed, None for nothing
    healthy(carry)       one truth value per member: is the state finite?
    stacked              arrays of inputs with one row per step, None for none

All chunks run one compiled program, whose number of turns is an argument. So a chunk has any size, and the same bits
come out whatever the sizes are.
"""

import functools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from . import checkpoint_file
from .captured import fingerprint
from .checkpoint_file import CheckpointError
from .checks import check_same_struct
from .record import Draws, InMemory, OnDisk
from .resume import Consumed, check_identity, check_place, check_probes, filled, named, newest, probe

LOOK = 64  # steps between two looks for values that are not finite
SECONDS = 0.25  # that a chunk should take: how long Ctrl-C waits, how often a bar moves
PAUSE = 10.0  # s between two checkpoints where the user names no interval
# What it means if a fingerprint of this run is not that of the checkpoint.
DIFFERENCES = {
    "given": "Its parameters, data or key have other values than those that were given now.",
    "state": "From the start that was given now, the first step leads to a different state.",
    "observed": "What `observe` makes of the first step is something else.",
}
OTHER_INPUTS = {"inputs": "Its steps so far have read other `inputs`."}
ROOM = 1 << 22  # bytes of observations that a chunk may hold


class Plan(NamedTuple):
    """What the user asked for, checked; counted in ticks of `thin` steps."""

    ticks: int
    thin: int
    every: int
    timed: bool  # checkpoints at most every PAUSE seconds, because the user named no interval
    chunk: int | None
    checkpoint: Path | None
    until: Callable[[dict], Any] | None
    progress: Any
    keep: bool  # observations become a result
    whole: bool  # stop when any member is not finite, instead of when all are not
    grouped: bool = False  # nobody observes: `thin` is no choice of the user's, and may change from call to call


class Outcome(NamedTuple):
    """Where a march came to."""

    carry: Any
    observed: Any
    sinks: dict[str, Any]
    steps: int
    failed: np.ndarray  # per member: number of steps after which it was first seen not finite, or -1
    stopped: bool


@eqx.filter_jit
def _chunk(
    march: Any,
    carry: Any,
    failed: Array,
    start: Array,
    count: Array,
    borders: Array,
    thin: int,
    room: int,
    captured: Any,  # what functions of the march see beside their arguments: another program if it changes
) -> tuple:
    """`count` ticks from tick `start` on; returns state, failures and the observations, `room` rows of them."""
    march = march.ready()
    every, last = borders

    def look(tick: Array, carry: Any, failed: Array) -> Array:
        def now(failed: Array) -> Array:
            return jnp.where((failed < 0) & ~march.healthy(carry), (tick + 1) * thin, failed)

        if thin >= LOOK:
            return now(failed)
        due = ((tick + 1) * thin % LOOK < thin) | ((tick + 1) % every == 0) | (tick + 1 == last)
        return lax.cond(due, now, lambda x: x, failed)

    def one(i: Array, loop: tuple, drawn: Any) -> tuple:
        carry, failed, rows = loop
        first = (start + i) * thin
        carry = march.advance(carry, first, drawn) if thin == 1 else _several(march, carry, first, thin)
        rows = jax.tree.map(lambda r, x: lax.dynamic_update_index_in_dim(r, x, i, 0), rows, march.see(carry))
        return carry, look(start + i, carry, failed), rows

    def block(b: Array, loop: tuple) -> tuple:
        from_here = b * march.ahead
        drawn = march.draw(loop[0], start + from_here + jnp.arange(march.ahead, dtype=jnp.int32))
        upto = jnp.minimum(from_here + march.ahead, count)
        return lax.fori_loop(
            from_here, upto, lambda i, loop: one(i, loop, jax.tree.map(lambda x: x[i - from_here], drawn)), loop
        )

    shapes = jax.eval_shape(march.see, carry)
    rows = jax.tree.map(lambda s: jnp.zeros((room, *s.shape), s.dtype), shapes)
    loop = (carry, failed, rows)
    if thin == 1 and march.ahead > 1:
        return lax.fori_loop(0, (count + march.ahead - 1) // march.ahead, block, loop)
    return lax.fori_loop(0, count, lambda i, loop: one(i, loop, None), loop)


def _several(march: Any, carry: Any, first: Array, thin: int) -> Any:
    """The steps of one tick, from number `first` on."""
    size = max(n for n in range(1, march.ahead + 1) if thin % n == 0) if march.ahead > 1 else thin

    def some(k: Any, carry: Any) -> Any:
        numbers = first + k * size + jnp.arange(size, dtype=jnp.int32)
        drawn = march.draw(carry, numbers) if march.ahead > 1 else None
        # Two steps per turn let the two buffers of a leapfrog step change places without a copy.
        unroll = 2 if size % 2 == 0 else 1
        return lax.scan(lambda c, x: (march.advance(c, *x), None), carry, (numbers, drawn), unroll=unroll)[0]

    return some(0, carry) if size == thin else lax.fori_loop(0, thin // size, some, carry)


@eqx.filter_jit
def _absorb(sinks: dict, totals: dict, rows: Any, count: Array, members: bool) -> dict:
    """Feed the first `count` rows to the sinks, one after the other."""

    def one(i: Array, totals: dict) -> dict:
        value = jax.tree.map(lambda r: lax.dynamic_index_in_dim(r, i, 0, keepdims=not members), rows)
        ok = jnp.stack([jnp.isfinite(x).reshape(x.shape[0], -1).all(axis=1) for x in jax.tree.leaves(value)]).all(
            axis=0
        )
        return {name: sink.update(totals[name], value, ok) for name, sink in sinks.items()}

    return lax.fori_loop(0, count, one, totals)


def drive(
    march: Any, carry: Any, sinks: dict[str, Any], plan: Plan, identity: dict[str, Any], before: int = 0
) -> Outcome:
    """March to the end, or to where the rule or the state stops it; resume where there is a checkpoint.

    Progress counts `before` steps as done when this march begins.
    """
    if plan.checkpoint is not None:
        check_place(plan.checkpoint)
    journey = _Journey(march, settled(carry), sinks, plan, identity)
    with postponed_signals() as caught, shown(plan.progress, before + plan.ticks * plan.thin, before) as tell:
        try:
            journey.begin()
            tell(before + journey.steps)
            while journey.on() and not caught:
                journey.chunk()
                tell(before + journey.steps)
            journey.finish()
            outcome = journey.outcome()
        finally:
            journey.close()
    for number in caught[:1]:
        # Now that everything is safe, let the signal do what it usually does.
        signal.raise_signal(number)
    return outcome


class _Journey:
    """The changing things of one long run."""

    def __init__(self, march: Any, carry: Any, sinks: dict, plan: Plan, identity: dict):
        self.march, self.carry, self.plan, self.identity = march, carry, plan, identity
        self.thin, self.tick, self.stopped, self.saved = plan.thin, 0, False, -1
        self.failed = jnp.full((march.members or 1,), -1, jnp.int32)
        self.captured = fingerprint(march)
        self.value = _shapes(march, carry, self.captured)
        self.sinks = {name: sink for name, sink in sinks.items() if not isinstance(sink, Draws)}
        member = jax.tree.map(
            lambda s: s if march.members is not None else jax.ShapeDtypeStruct((1, *s.shape), s.dtype), self.value
        )
        self.totals = {name: settled(sink.start(member)) for name, sink in self.sinks.items()}
        self.records: dict[str, InMemory | OnDisk] = {
            name: OnDisk(sink.folder, self.value) for name, sink in sinks.items() if isinstance(sink, Draws)
        }
        if plan.keep and plan.checkpoint is not None:
            folder = plan.checkpoint.with_name(plan.checkpoint.name + ".draws")
            self.records["observed"] = OnDisk(folder, self.value)
        elif plan.keep:
            self.records["observed"] = InMemory(self.value, plan.ticks)
        self.largest = self.largest_chunk()
        # Rounded up to a power of two, so that a run of another length finds its program compiled.
        # A single row is written in another way, to other last bits.
        self.room = max(1 << (self.largest - 1).bit_length(), 2)
        self.pace, self.clock, self.probe = 0.0, time.monotonic(), {}
        self.consumed, self.keep = Consumed(march.stacked), True

    @property
    def steps(self) -> int:
        """Steps done."""
        return self.tick * self.thin

    def largest_chunk(self) -> int:
        """Ticks for which there is room; observations that nobody wants take none."""
        size = bytes_of(self.value)
        most = max(ROOM // size, 1) if size else self.plan.ticks
        return min(self.plan.ticks, most, self.plan.chunk or most, self.plan.every if self.has_borders() else most)

    # ---- Forward ----

    def begin(self) -> None:
        """Start afresh or from the checkpoint."""
        path = self.plan.checkpoint
        if path is not None:
            self.probe = self.first_step()
        found = newest(path) if path is not None else None
        for record in self.records.values():
            if isinstance(record, OnDisk) and found is None:
                record.clear()
        if found is not None:
            self.restore(*found)
            if self.at_border():
                self.judge()

    def first_step(self) -> dict[str, np.ndarray]:
        """Fingerprints of what one tick off the start shows: whether a checkpoint belongs to this very problem."""
        # How many steps are a tick must not matter where nobody chose it.
        carry, _, rows = self.march_ticks(1, 1, 1) if self.plan.grouped else self.march_ticks(1)
        stacked = {id(x) for x in jax.tree.leaves(self.march.stacked)}
        given = [x for x in jax.tree.leaves(eqx.filter(self.march, eqx.is_array)) if id(x) not in stacked]
        seen = jax.tree.map(lambda r: r[0], rows)
        return {**probe("given", given), **probe("state", carry), **probe("observed", seen)}

    def march_ticks(self, count: int, thin: int | None = None, room: int | None = None) -> tuple:
        every = self.plan.every if self.has_borders() else self.plan.ticks
        borders = jnp.array([every, self.plan.ticks], jnp.int32)
        numbers = jnp.asarray(self.tick, jnp.int32), jnp.asarray(count, jnp.int32), borders
        sizes = thin or self.thin, room or self.room
        return _chunk(self.march, self.carry, self.failed, *numbers, *sizes, self.captured)

    def on(self) -> bool:
        """Whether there is more to do."""
        return self.tick < self.plan.ticks and not self.stopped and not self.lost()

    def lost(self) -> bool:
        bad = np.asarray(self.failed) >= 0
        return bool(bad.any() if self.plan.whole else bad.all())

    def chunk(self) -> None:
        """One chunk and what follows it."""
        count, begin = self.next_count(), time.perf_counter()
        self.carry, self.failed, rows = self.march_ticks(count)
        if self.plan.whole and self.lost():
            # What comes after is noise, and how much of it there is depends on the chunk.
            count = min(count, int(self.failed[0]) // self.thin - self.tick)
        if self.sinks:
            number = jnp.asarray(count, jnp.int32)
            self.totals = _absorb(self.sinks, self.totals, rows, number, self.march.members is not None)
        jax.block_until_ready((self.failed, self.totals))
        for record in self.records.values():
            record.append(rows, count)
        self.tick += count
        took = (time.perf_counter() - begin) / count
        # The first chunk is compiled first: its time says nothing about the next one.
        self.pace = took if self.pace else -1.0
        if self.at_border():
            self.judge()
            late = not self.plan.timed or time.monotonic() - self.clock > PAUSE
            if late and self.tick < self.plan.ticks:
                self.save()

    def next_count(self) -> int:
        """Ticks of the next chunk: short of the next border, of the room, and of a quarter of a second."""
        border = self.plan.every - self.tick % self.plan.every if self.has_borders() else self.plan.ticks
        if self.plan.chunk is not None:
            wanted = self.plan.chunk
        elif self.pace > 0:
            wanted = max(int(SECONDS / self.pace), 1)
        else:
            wanted = 16
        return min(self.plan.ticks - self.tick, border, wanted, self.largest)

    def has_borders(self) -> bool:
        """Whether something happens every `every` ticks."""
        return self.plan.until is not None or self.plan.checkpoint is not None

    def at_border(self) -> bool:
        return self.tick > 0 and (self.tick % self.plan.every == 0 or self.tick == self.plan.ticks)

    def judge(self) -> None:
        """Ask the user's rule."""
        if self.plan.until is not None and not self.lost():
            self.stopped = bool(self.plan.until(self.results()))

    def finish(self) -> None:
        """The last checkpoint, unless the state is not worth one."""
        if self.saved != self.tick:
            self.save()

    def results(self) -> dict[str, Any]:
        """What the sinks on the device say."""
        return {name: sink.result(jax.device_get(self.totals[name])) for name, sink in self.sinks.items()}

    def outcome(self) -> Outcome:
        recorded = {name: self.ordered(record.result()) for name, record in self.records.items()}
        observed = recorded.pop("observed", None) if self.plan.keep else None
        told = {**self.results(), **recorded}
        return Outcome(self.carry, observed, told, self.steps, np.asarray(self.failed), self.stopped)

    def ordered(self, rows: Any) -> Any:
        """Members first."""
        return rows if self.march.members is None else jax.tree.map(lambda x: np.moveaxis(x, 0, 1), rows)

    def close(self) -> None:
        for record in self.records.values():
            if isinstance(record, OnDisk):
                record.close()

    # ---- Checkpoints ----

    def save(self) -> None:
        """Write a checkpoint, after the draws that it speaks of."""
        if self.plan.checkpoint is None or self.lost():
            return
        draws = {name: record.sync() for name, record in self.records.items() if isinstance(record, OnDisk)}
        meta = {**self.identity, "step": self.steps, "draws": draws}
        arrays = {**self.probe, **self.consumed.upto(self.steps), **named(self.contents())}
        checkpoint_file.write(self.plan.checkpoint, arrays, meta, self.keep)
        self.saved, self.clock, self.keep = self.tick, time.monotonic(), True

    def contents(self) -> dict:
        return {"state": self.carry, "sinks": self.totals, "failed": self.failed}

    def restore(self, path: Path, arrays: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Take over a checkpoint if it is one of this run."""
        check_identity(path, self.identity, meta)
        check_probes(path, self.probe, arrays, DIFFERENCES)
        step, steps = meta["step"], self.plan.ticks * self.thin
        if step > steps:
            raise CheckpointError(
                f"The checkpoint {path} is at step {step}, beyond the {steps} that are asked for: ask for at least as "
                "many, or name another file."
            )
        check_probes(path, self.consumed.upto(step), arrays, OTHER_INPUTS)
        new = filled(path, self.contents(), arrays)
        self.carry, self.totals, self.failed = new["state"], new["sinks"], new["failed"]
        self.regroup(math.gcd(step, self.thin))
        self.tick = self.saved = step // self.thin
        self.keep = path == self.plan.checkpoint
        for name, record in self.records.items():
            if isinstance(record, OnDisk):
                record.restore(meta["draws"].get(name, []))

    def regroup(self, thin: int) -> None:
        """Take `thin` steps per tick from now on, fewer than before: a run that nobody observes goes on anywhere."""
        many, plan = self.thin // thin, self.plan
        chunk = None if plan.chunk is None else plan.chunk * many
        self.plan = plan._replace(ticks=plan.ticks * many, thin=thin, every=plan.every * many, chunk=chunk)
        self.thin, self.largest = thin, self.largest_chunk()


# ---- Small things ----


def bytes_of(shapes: Any) -> int:
    """Bytes of arrays of these shapes."""
    return sum(math.prod(s.shape) * s.dtype.itemsize for s in jax.tree.leaves(shapes))


def settled(tree: Any) -> Any:
    """The arrays of a pytree with a definite type, as they come back from a step or from a file."""
    return jax.tree.map(lambda x: lax.convert_element_type(x, x.dtype) if _is_weak(x) else x, tree)


def _is_weak(x: Any) -> bool:
    return isinstance(x, jax.Array) and x.weak_type


def shape_of(function: Callable, module: Any, *args: Any, captured: Any = None) -> Any:
    """Shapes of `function(module, *args)`, a function of a file; traced once for each kind of arguments."""
    arrays, still = eqx.partition(module, eqx.is_array)
    leaves, tree = jax.tree.flatten(still)
    return _called.eval_shape(function, (tree, *leaves), captured, arrays, args)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _called(function: Callable, still: tuple, captured: Any, arrays: Any, args: tuple) -> Any:
    tree, *leaves = still
    return function(eqx.combine(arrays, jax.tree.unflatten(tree, leaves)), *args)


def _one_step(march: Any, carry: Any) -> tuple:
    ready = march.ready()
    first = jnp.zeros((), jnp.int32)
    drawn = jax.tree.map(lambda x: x[0], ready.draw(carry, first[None])) if ready.ahead > 1 else None
    return ready.advance(carry, first, drawn), ready.see(carry)


def _shapes(march: Any, carry: Any, captured: Any) -> Any:
    """Shapes of an observation, after a check that a step returns what it got."""
    after, value = shape_of(_one_step, march, carry, captured=captured)
    check_same_struct(jax.eval_shape(lambda c: c, carry), after)
    return value


@contextmanager
def postponed_signals() -> Iterator[list[int]]:
    """Collect Ctrl-C and termination until the chunk is done; a second one does not wait."""
    caught: list[int] = []

    def note(number: int, frame: Any) -> None:
        if caught:
            raise KeyboardInterrupt
        caught.append(number)

    old = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            # None: somebody outside of Python handles it.
            if signal.getsignal(number) is not None:
                old[number] = signal.signal(number, note)
    try:
        yield caught
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


@contextmanager
def shown(progress: Any, steps: int, before: int = 0, leave: bool = True) -> Iterator[Callable[[int], Any]]:
    """A function of the steps done: a bar with the remaining time on a terminal, or the user's function."""
    if callable(progress):
        yield lambda done: progress(done, steps)
        return
    if not progress:
        yield lambda done: None
        return
    from tqdm import tqdm

    # disable=None: silent where the output is no terminal.
    with tqdm(total=steps, initial=before, unit="step", unit_scale=True, disable=None, leave=leave) as bar:
        yield lambda done: None if bar.disable else (bar.update(done - bar.n), None)[1]
