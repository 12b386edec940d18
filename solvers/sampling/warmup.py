"""Warm-up: adapt the step size by dual averaging and the metric from windows of draws, all chains together."""

import math
import signal
import time
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from ..core import checkpoint_file
from ..core.host_loop import DIFFERENCES, PAUSE, SECONDS, Plan, postponed_signals, shown
from ..core.resume import check_identity, check_place, check_probes, filled, named, newest, probe
from .metric import DiagonalMetric, LowRankMetric
from .parallel import Ensemble, acceptance_of

FIRST, BASE, LAST = 75, 25, 50  # steps: before the metric, its first window, after the metric
GAMMA, DELAY, FORGET = 0.05, 10.0, 0.75
PRIOR_DRAWS = 5.0  # weight of the prior of variances, in draws
PRIOR_VARIANCE = 1e-3


class AdaptStep(eqx.Module):
    """Adapt the step size alone and keep the metric as it is."""

    windows: bool = eqx.field(static=True, default=False)

    def start(self, position: Any) -> None:
        """No metric of its own."""
        return None


class AdaptDiagonal(eqx.Module):
    """Adapt the step size and a diagonal metric: the variances of the draws of all chains together.

    With n draws the variance is shrunk to n / (n + 5) var + 5 / (n + 5) 1e-3, as Stan does. Memory: two positions per
    chain.
    """

    windows: bool = eqx.field(static=True, default=True)

    def start(self, position: Any) -> DiagonalMetric:
        """The metric before any draw: the identity."""
        return DiagonalMetric(jax.tree.map(jnp.ones_like, position))

    def metric(self, mean: Any, variance: Any, count: int, draws: Any) -> DiagonalMetric:
        """The metric after a window."""
        return DiagonalMetric(_shrunk(variance, count))

    def room(self, window: int) -> int:
        """Draws to be kept."""
        return 0


class AdaptLowRank(eqx.Module):
    """Adapt the step size and a metric of low rank: variances, and the leading directions that they miss.

    The draws of a window, divided by their standard deviations, have a sample covariance. Its eigenvalues within
    (1 -+ sqrt(d / n))^2 of their median, where pure noise would put them (Marchenko and Pastur), say nothing; of the
    others the `rank` farthest from it are kept. n counts a quarter of the draws, because they are correlated. For
    targets with strong correlations. Memory: the draws of the longest window.

    Args:
        rank: largest number of directions.

    Raises:
        ValueError: if the rank is not positive.
    """

    rank: int = eqx.field(static=True, default=8)
    windows: bool = eqx.field(static=True, default=True)

    def __check_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"`rank` must be at least 1, got {self.rank}.")

    def start(self, position: Any) -> LowRankMetric:
        """The metric before any draw: the identity, with vectors that have no weight yet."""
        flat, unravel = ravel_pytree(position)
        rank = min(self.rank, flat.size)
        vectors = jax.vmap(unravel)(jnp.eye(rank, flat.size, dtype=flat.dtype))
        ones = DiagonalMetric(jax.tree.map(jnp.ones_like, position))
        return LowRankMetric(vectors, jnp.zeros(rank, flat.dtype), ones)

    def metric(self, mean: Any, variance: Any, count: int, draws: Any) -> LowRankMetric:
        """The metric after a window."""
        variance = _shrunk(variance, count)
        flat, unravel = ravel_pytree(variance)
        centre = np.asarray(ravel_pytree(mean)[0], float)
        rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), draws)
        scaled = (np.asarray(jax.vmap(lambda x: ravel_pytree(x)[0])(rows), float) - centre) / np.sqrt(flat)
        _, singular, vectors = np.linalg.svd(scaled, full_matrices=False)
        values = singular**2 / max(len(scaled) - 1, 1)
        # A few wide directions make all variances large; what counts is how far a direction is from the others.
        bulk = float(np.exp(np.median(np.log(values)))) if len(scaled) > 4 * flat.size and values[-1] > 0 else 1.0
        values, variance = values / bulk, jax.tree.map(lambda v: bulk * v, variance)
        ratio = math.sqrt(flat.size / max(count / 4, 1.0))
        noise = (max(1 - ratio, 0.0) ** 2 <= values) & (values <= (1 + ratio) ** 2)
        # A null space of fewer draws than unknowns is not known to be narrow.
        weight = np.where(noise | (values <= 0), 0.0, np.abs(np.log(np.maximum(values, 1e-300))))
        best = np.argsort(-weight)[: min(self.rank, flat.size)]
        missing = min(self.rank, flat.size) - len(best)
        if missing:
            # Fewer draws than directions: vectors without weight fill the room, so that shapes stay.
            vectors = np.concatenate([vectors, np.zeros((missing, flat.size))])
            values, weight = np.append(values, np.ones(missing)), np.append(weight, np.zeros(missing))
            best = np.append(best, np.arange(len(values) - missing, len(values)))
        kept = np.where(weight[best] > 0, values[best] - 1, 0.0)
        dtype = flat.dtype
        stacked = jax.vmap(unravel)(jnp.asarray(vectors[best], dtype))
        return LowRankMetric(stacked, jnp.asarray(kept, dtype), DiagonalMetric(variance))

    def room(self, window: int) -> int:
        """Draws to be kept."""
        return window


def _shrunk(variance: Any, count: int) -> Any:
    share = count / (count + PRIOR_DRAWS)
    return jax.tree.map(lambda v: share * v + (1 - share) * PRIOR_VARIANCE, variance)


def windows(steps: int) -> Iterator[tuple[int, bool]]:
    """Lengths of the windows and whether one ends with a new metric: Stan's schedule with a longer end.

    A first stretch for the way to the bulk, windows that double in length for the metric, a last stretch for the step.
    """
    first, base, last = (FIRST, BASE, max(LAST, steps // 6)) if steps >= FIRST + BASE + LAST else (0, 0, 0)
    if not base:
        first, last = int(0.15 * steps), int(0.1 * steps)
        base = steps - first - last
    if first:
        yield first, False
    left, size = steps - first - last, base
    while left:
        # What would be left over is too short for a window of its own.
        now = left if left < 3 * size else size
        yield now, True
        left, size = left - now, 2 * size
    if last:
        yield last, False


class _Averaging(eqx.Module):
    """Dual averaging of the logarithm of the step (Nesterov 2009; Hoffman and Gelman 2014, section 3.2.1)."""

    log_step: Array
    average: Array
    error: Array
    count: Array
    centre: Array

    @staticmethod
    def around(step: Array) -> "_Averaging":
        log = jnp.log(step)
        zero = jnp.zeros_like(log)
        return _Averaging(log, zero, zero, zero, log + math.log(10.0))

    def update(self, acceptance: Array, target: float) -> "_Averaging":
        count = self.count + 1
        share = 1 / (count + DELAY)
        error = (1 - share) * self.error + share * (target - acceptance)
        log_step = self.centre - jnp.sqrt(count) / GAMMA * error
        weight = count**-FORGET
        return _Averaging(log_step, weight * log_step + (1 - weight) * self.average, error, count, self.centre)


class _Loop(eqx.Module):
    """What a window carries from step to step."""

    states: Any
    averaging: Any
    mean: Any
    m2: Any
    draws: Any


@eqx.filter_jit
def _opened(kernel: Any, states: Any, room: int) -> _Loop:
    """The beginning of a window."""
    positions = states.position
    zeros = jax.tree.map(jnp.zeros_like, positions)
    draws = jax.tree.map(lambda x: jnp.zeros((room, *x.shape), x.dtype), positions) if room else ()
    averaging = _Averaging.around(kernel.step_size) if _target(kernel) is not None else None
    return _Loop(states, averaging, zeros, zeros, draws)


@eqx.filter_jit
def _stretch(ensemble: Ensemble, loop: _Loop, first: Array, done: Array, count: Array) -> tuple[_Loop, tuple]:
    """`count` steps of a window that has `done` behind it; and the step and the moments, should it end here."""
    kernel, target = ensemble.kernel, _target(ensemble.kernel)

    def one(i: Array, loop: _Loop) -> _Loop:
        averaging, current = loop.averaging, ensemble
        if averaging is not None:
            size = jnp.exp(averaging.log_step)
            current = eqx.tree_at(lambda e: e.kernel.step_size, ensemble, size.astype(kernel.step_size.dtype))
        states, info = current.step(first + i, loop.states)
        if averaging is not None:
            acceptance = jnp.mean(acceptance_of(info)).astype(averaging.error.dtype)
            averaging = averaging.update(jnp.where(jnp.isfinite(acceptance), acceptance, 0.0), target)
        delta = jax.tree.map(jnp.subtract, states.position, loop.mean)
        mean = jax.tree.map(lambda m, d: m + d / (i + 1).astype(m.dtype), loop.mean, delta)
        m2 = jax.tree.map(lambda s, d, x, m: s + d * (x - m), loop.m2, delta, states.position, mean)
        draws = loop.draws
        if jax.tree.leaves(draws):
            draws = jax.tree.map(lambda r, x: lax.dynamic_update_index_in_dim(r, x, i, 0), draws, states.position)
        return _Loop(states, averaging, mean, m2, draws)

    loop = lax.fori_loop(done, done + count, one, loop)
    length, chains = done + count, ensemble.own.shape[0]
    centre = jax.tree.map(lambda m: m.mean(axis=0), loop.mean)

    def pooled(m: Array, s: Array, c: Array) -> Array:
        total = s.sum(axis=0) + length.astype(m.dtype) * ((m - c) ** 2).sum(axis=0)
        return total / (chains * length - 1).astype(m.dtype)

    variance = jax.tree.map(pooled, loop.mean, loop.m2, centre)
    if target is None:
        return loop, (None, centre, variance)
    # At `largest_step` acceptance does not fall any more with longer steps.
    size = jnp.exp(loop.averaging.average).clip(max=getattr(kernel, "largest_step", jnp.inf))
    return loop, (size.astype(kernel.step_size.dtype), centre, variance)


def _target(kernel: Any) -> float | None:
    return getattr(kernel, "target_acceptance", None)


def warm_up(
    ensemble: Ensemble, states: Any, steps: int, adapt: Any, plan: Plan, identity: dict, total: int
) -> tuple[Any, Any]:
    """The adapted kernel and the states after the warm-up, which has a checkpoint of its own.

    Progress counts the steps of the warm-up as the first ones of `total`.
    """
    course = _WarmUp(ensemble, states, steps, adapt, plan, identity)
    with postponed_signals() as caught, shown(plan.progress, total, leave=False) as tell:
        course.begin()
        if course.on():
            tell(course.steps)
        while course.on() and not caught:
            course.advance()
            tell(course.steps)
        course.finish()
    for number in caught[:1]:
        signal.raise_signal(number)
        # A handler that returns wants the end, too, and there are no draws yet that could be returned.
        raise KeyboardInterrupt("The run was interrupted in its warm-up.")
    return course.kernel, course.loop.states


class _WarmUp:
    """The changing things of one warm-up: chunks of windows, and between them checkpoints."""

    def __init__(self, ensemble: Ensemble, states: Any, steps: int, adapt: Any, plan: Plan, identity: dict):
        self.ensemble, self.adapt, self.plan, self.identity = ensemble, adapt, plan, identity
        self.file = None if plan.checkpoint is None else plan.checkpoint.with_name(plan.checkpoint.name + ".warmup")
        if self.file is not None:
            check_place(self.file)
        kernel = ensemble.kernel
        self.own = adapt.start(jax.tree.map(lambda x: x[0], states.position)) if adapt is not None else None
        if self.own is not None:
            kernel = eqx.tree_at(lambda k: k.metric, kernel, self.own)
        self.windows = list(windows(steps))
        longest = max(length for length, _ in self.windows)
        self.room = adapt.room(longest) if adapt is not None and self.own is not None else 0
        self.kernel, self.number, self.done = kernel, 0, 0  # windows behind us, steps of the present one
        self.loop = _opened(kernel, states, self.room)
        self.pace, self.clock, self.saved, self.keep = 0.0, time.monotonic(), -1, True
        self.probe: dict[str, np.ndarray] = {}

    @property
    def steps(self) -> int:
        """Steps done."""
        return sum(length for length, _ in self.windows[: self.number]) + self.done

    def on(self) -> bool:
        """Whether there is more to do."""
        return self.number < len(self.windows)

    def begin(self) -> None:
        """Start afresh or from the checkpoint."""
        if self.file is None:
            return
        given = eqx.filter(self.ensemble.kernel, eqx.is_array), self.ensemble.own
        loop, _ = self.stretch(1)
        start = probe("start", self.loop.states.position)
        self.probe = {**start, **probe("given", given), **probe("state", loop.states)}
        found = newest(self.file)
        if found is None:
            return
        path, arrays, meta = found
        check_identity(path, self.identity, meta)
        check_probes(path, self.probe, arrays, {"start": "Its chains start elsewhere.", **DIFFERENCES})
        self.number, self.done = meta["window"], meta["done"]
        arrays_of_kernel, still = eqx.partition(self.kernel, eqx.is_array)
        new = filled(path, self.contents(arrays_of_kernel), arrays)
        self.kernel = eqx.combine(new["kernel"], still)
        self.loop = new["loop"] if self.done else _opened(self.kernel, new["states"], self.room)
        self.saved, self.keep = self.steps, path == self.file

    def contents(self, kernel: Any) -> dict:
        """What a checkpoint holds: between two windows no sums, and no room for draws."""
        return {"kernel": kernel, **({"loop": self.loop} if self.done else {"states": self.loop.states})}

    def stretch(self, count: int) -> tuple[_Loop, tuple]:
        current = eqx.tree_at(lambda e: e.kernel, self.ensemble, self.kernel)
        numbers = (jnp.asarray(n, jnp.int32) for n in (self.steps - self.done, self.done, count))
        return _stretch(current, self.loop, *numbers)

    def advance(self) -> None:
        """One chunk, and a checkpoint where one is due."""
        (length, renews), count, begin = self.windows[self.number], self.next_count(), time.perf_counter()
        self.loop, told = self.stretch(count)
        jax.block_until_ready(self.loop)
        self.done += count
        took = (time.perf_counter() - begin) / count
        # The first chunk is compiled first: its time says nothing about the next one.
        self.pace = took if self.pace else -1.0
        if self.done == length:
            self.close(told, renews)
        border = not self.plan.timed and self.steps % self.every() == 0
        if not self.done or border or time.monotonic() - self.clock > PAUSE:
            self.save()

    def next_count(self) -> int:
        """Steps of the next chunk: short of the end of the window, of a border, and of a quarter of a second."""
        left = self.windows[self.number][0] - self.done
        wanted = max(int(SECONDS / self.pace), 1) if self.pace > 0 else 16
        if self.plan.chunk is not None:
            wanted = self.plan.chunk * self.plan.thin
        border = left if self.plan.timed else self.every() - self.steps % self.every()
        return min(left, wanted, border)

    def every(self) -> int:
        return self.plan.every * self.plan.thin

    def close(self, told: tuple, renews: bool) -> None:
        """The end of a window: the adapted step, and the metric if it is one of those that end with a new one."""
        size, mean, variance = told
        if size is not None:
            self.kernel = eqx.tree_at(lambda k: k.step_size, self.kernel, size)
        count = self.done * self.ensemble.own.shape[0]
        if renews and self.own is not None and count > 1:
            rows = jax.tree.map(lambda x: np.asarray(x[: self.done]), self.loop.draws)
            new = self.adapt.metric(mean, variance, count, rows)
            self.kernel = eqx.tree_at(lambda k: k.metric, self.kernel, new)
        self.number, self.done = self.number + 1, 0
        self.loop = _opened(self.kernel, self.loop.states, self.room)

    def save(self) -> None:
        """Write a checkpoint."""
        if self.file is None:
            return
        arrays = {**self.probe, **named(self.contents(eqx.filter(self.kernel, eqx.is_array)))}
        meta = {**self.identity, "window": self.number, "done": self.done}
        checkpoint_file.write(self.file, arrays, meta, self.keep)
        self.saved, self.clock, self.keep = self.steps, time.monotonic(), True

    def finish(self) -> None:
        """The last checkpoint."""
        if self.saved != self.steps:
            self.save()
