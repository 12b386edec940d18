"""Warm-up: adapt the step size by dual averaging and the metric from windows of draws, all chains together."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from ..core import checkpoint_file
from ..core.checkpoint_file import CheckpointError
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


@eqx.filter_jit
def _window(ensemble: Ensemble, adapt: Any, states: Any, first: Array, length: Array, room: int) -> tuple:
    """One window: new states, the adapted step, moments and draws of the positions."""
    kernel = ensemble.kernel
    target = getattr(kernel, "target_acceptance", None)
    averaging = _Averaging.around(kernel.step_size) if target is not None else None
    positions = states.position
    zeros = jax.tree.map(jnp.zeros_like, positions)
    draws = jax.tree.map(lambda x: jnp.zeros((room, *x.shape), x.dtype), positions) if room else ()

    def one(i: Array, loop: tuple) -> tuple:
        states, averaging, mean, m2, draws = loop
        current = ensemble
        if averaging is not None:
            size = jnp.exp(averaging.log_step)
            current = eqx.tree_at(lambda e: e.kernel.step_size, ensemble, size.astype(kernel.step_size.dtype))
        states, info = current.step(first + i, states)
        if averaging is not None:
            acceptance = jnp.mean(acceptance_of(info)).astype(averaging.error.dtype)
            averaging = averaging.update(jnp.where(jnp.isfinite(acceptance), acceptance, 0.0), target)
        delta = jax.tree.map(jnp.subtract, states.position, mean)
        mean = jax.tree.map(lambda m, d: m + d / (i + 1).astype(m.dtype), mean, delta)
        m2 = jax.tree.map(lambda s, d, x, m: s + d * (x - m), m2, delta, states.position, mean)
        draws = (
            jax.tree.map(lambda r, x: lax.dynamic_update_index_in_dim(r, x, i, 0), draws, states.position)
            if room
            else ()
        )
        return states, averaging, mean, m2, draws

    states, averaging, mean, m2, draws = lax.fori_loop(0, length, one, (states, averaging, zeros, zeros, draws))
    centre = jax.tree.map(lambda m: m.mean(axis=0), mean)
    chains = ensemble.own.shape[0]

    def pooled(m: Array, s: Array, c: Array) -> Array:
        return (s.sum(axis=0) + length.astype(m.dtype) * ((m - c) ** 2).sum(axis=0)) / (chains * length - 1).astype(
            m.dtype
        )

    variance = jax.tree.map(pooled, mean, m2, centre)
    largest = getattr(kernel, "largest_step", jnp.inf)  # where acceptance does not fall any more with longer steps
    size = None if averaging is None else jnp.exp(averaging.average).clip(max=largest).astype(kernel.step_size.dtype)
    return states, size, centre, variance, draws


def warm_up(
    ensemble: Ensemble, states: Any, steps: int, adapt: Any, file: Path | None, identity: dict, tell: Any
) -> tuple[Any, Any]:
    """The adapted kernel and the states after the warm-up; one checkpoint per window, where a second call goes on."""
    kernel = ensemble.kernel
    position = jax.tree.map(lambda x: x[0], states.position)
    own = adapt.start(position) if adapt is not None else None
    if own is not None:
        kernel = eqx.tree_at(lambda k: k.metric, kernel, own)
    plan = list(windows(steps))
    longest = max(length for length, _ in plan)
    room = adapt.room(longest) if own is not None and adapt is not None else 0
    done, kernel, states = _resumed(file, identity, kernel, states)
    first = sum(length for length, _ in plan[:done])
    for number, (length, renews) in enumerate(plan[done:], done + 1):
        current = eqx.tree_at(lambda e: e.kernel, ensemble, kernel)
        numbers = jnp.asarray(first, jnp.int32), jnp.asarray(length, jnp.int32)
        states, size, mean, variance, draws = _window(current, adapt, states, *numbers, room)
        if size is not None:
            kernel = eqx.tree_at(lambda k: k.step_size, kernel, size)
        count = length * ensemble.own.shape[0]
        if renews and own is not None and adapt is not None and count > 1:
            rows = jax.tree.map(lambda x, n=length: np.asarray(x[:n]), draws)
            kernel = eqx.tree_at(lambda k: k.metric, kernel, adapt.metric(mean, variance, count, rows))
        first += length
        if file is not None:
            arrays = {k: np.asarray(x) for k, x in _leaves((kernel, states)).items()}
            checkpoint_file.write(file, arrays, {**identity, "window": number})
        tell(first)
    return kernel, states


def _leaves(tree: Any) -> dict[str, Any]:
    found = jax.tree_util.tree_leaves_with_path(eqx.filter(tree, eqx.is_array))
    return {jax.tree_util.keystr(path): x for path, x in found}


def _resumed(file: Path | None, identity: dict, kernel: Any, states: Any) -> tuple[int, Any, Any]:
    """Windows that are done, and kernel and states after them."""
    if file is None or not file.exists():
        return 0, kernel, states
    arrays, meta = checkpoint_file.read(file)
    told = [f"{key}: {meta.get(key)} there, {value} here" for key, value in identity.items() if meta.get(key) != value]
    mine = _leaves((kernel, states))
    told += [f"{key} is missing or of another shape" for key, x in mine.items() if not _fits(arrays.get(key), x)]
    if told:
        raise CheckpointError(f"The checkpoint {file} of the warm-up belongs to another run. {'; '.join(told)}.")

    def fill(path: Any, x: Any) -> Any:
        if not eqx.is_array(x):
            return x
        found = arrays[jax.tree_util.keystr(path)]
        return jax.device_put(found, x.sharding) if x.committed else jnp.asarray(found)

    return meta["window"], *jax.tree_util.tree_map_with_path(fill, (kernel, states))


def _fits(found: Any, x: Any) -> bool:
    return found is not None and found.shape == x.shape and found.dtype == x.dtype
