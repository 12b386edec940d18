"""Sinks: statistics of a long run in constant memory.

A sink has `start(value)`, `update(total, value, ok)` and `result(total)`. A value is one observation, a pytree whose
leaves have a leading axis of members: the chains of `sample`, a single one in `run`. Its total is a pytree of arrays of
fixed shape that lives on the device and goes into checkpoints. `ok` tells, per member, whether the observation is
finite; one that is not is passed over and not counted, so that a NaN spoils nothing.

Updates follow one another observation by observation in the same compiled loop, whatever the size of the chunks: the
result is the same bit for bit.
"""

from typing import Any, NamedTuple, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array


class Sink(Protocol):
    """What `run` and `sample` feed."""

    def start(self, value: Any) -> Any:
        """Total before the first observation, from the shapes of a value."""
        ...

    def update(self, total: Any, value: Any, ok: Array) -> Any:
        """Total with one more observation."""
        ...

    def result(self, total: Any) -> Any:
        """What to tell."""
        ...


class MomentsResult(NamedTuple):
    """Mean and variance (with n - 1) over members and observations, how many there were; host arrays."""

    mean: Any
    variance: Any
    count: int

    @property
    def sd(self) -> Any:
        """Standard deviation."""
        return jax.tree.map(np.sqrt, self.variance)


class Moments(eqx.Module):
    """Mean and variance by Welford's update, pooled over members.

    Memory: two values per member.

    Example:
        >>> import jax.numpy as jnp, solvers as sv
        >>> run = sv.run(lambda x, n: x + 1.0, jnp.zeros(()), steps=9, sinks={"x": Moments()})
        >>> run.sinks["x"].mean.tolist(), run.sinks["x"].variance.tolist()
        (5.0, 7.5)

    Reference:
        T. F. Chan, G. H. Golub, R. J. LeVeque, The American Statistician 37 (1983) 242.
    """

    def start(self, value: Any) -> Any:
        return _no_moments(value)

    def update(self, total: Any, value: Any, ok: Array) -> Any:
        return _welford(total, value, ok)

    def result(self, total: Any) -> MomentsResult:
        mean, variance, count = _pooled(total)
        return MomentsResult(mean, variance, int(count))


class BatchMeansResult(NamedTuple):
    """Mean, its Monte Carlo standard error, effective sample size, split R-hat; host arrays, NaN where undefined."""

    mean: Any
    mcse: Any
    ess: Any
    r_hat: Any


class BatchMeans(eqx.Module):
    """Standard error of the mean, effective sample size and split R-hat from the means of batches.

    The observations of each member are averaged in consecutive batches. When `batches` of them are full, neighbours are
    merged and batches become twice as long: their number stays between half of `batches` and `batches` however long
    the run is. With k full batches over all members, and s^2 the variance of their means,

        mcse^2 = s^2 / k,        ess = variance / mcse^2.

    The relative error of mcse is about 1 / sqrt(2 k), 5 % for 4 chains and 50 batches; it is biased low as long as a
    batch is not many autocorrelation times long. R-hat compares the halves of all members (split R-hat without ranks,
    for which all draws would be needed at once). Needs at least 8 observations.

    Memory: `2 batches` values per member.

    Args:
        batches: largest number of batches, even, at least 16.

    Raises:
        ValueError: if `batches` is odd or too small.

    Reference:
        J. M. Flegal, G. L. Jones, Annals of Statistics 38 (2010) 1034; A. Gelman et al., Bayesian Data Analysis, third
        edition (2013), section 11.4.
    """

    batches: int = eqx.field(static=True, default=64)

    def __check_init__(self) -> None:
        if self.batches < 16 or self.batches % 2:
            raise ValueError(f"`batches` must be even and at least 16, got {self.batches}.")

    def start(self, value: Any) -> Any:
        room = jax.tree.map(lambda x: jnp.zeros((self.batches, *x.shape), x.dtype), _no_moments(value))
        zero = jnp.zeros((), jnp.int32)
        return {"batches": room, "slot": zero, "filled": zero, "length": zero + 1}

    def update(self, total: Any, value: Any, ok: Array) -> Any:
        slot = total["slot"]
        one = jax.tree.map(lambda x: lax.dynamic_index_in_dim(x, slot, 0, keepdims=False), total["batches"])
        one = _welford(one, value, ok)
        batches = jax.tree.map(lambda x, y: lax.dynamic_update_index_in_dim(x, y, slot, 0), total["batches"], one)
        closed = total["filled"] + 1 == total["length"]
        slot = slot + closed
        full = slot == self.batches
        return {
            "batches": lax.cond(full, _merge_neighbours, lambda x: x, batches),
            "slot": jnp.where(full, self.batches // 2, slot),
            "filled": jnp.where(closed, 0, total["filled"] + 1),
            "length": jnp.where(full, 2 * total["length"], total["length"]),
        }

    def result(self, total: Any) -> BatchMeansResult:
        full, every = int(total["slot"]), jax.tree.map(np.asarray, total["batches"])
        # A batch in which a member was not always finite counts with fewer observations; none at all is no batch.
        closed = jax.tree.map(lambda x: x[:full], every)
        there = closed["count"] > 0
        mean, variance, _ = _pooled(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), every))
        enough = there.sum() >= 8

        def error(means: np.ndarray) -> np.ndarray:
            chosen = np.asarray(means, float)[there]
            return (
                np.asarray(np.sqrt(chosen.var(axis=0, ddof=1) / len(chosen)))
                if enough
                else np.full(means.shape[2:], np.nan)
            )

        mcse = jax.tree.map(error, closed["mean"])
        # A chain that never moved has no error of its mean and says nothing: its ess is undefined.
        ess = jax.tree.map(lambda v, e: v / np.where(e > 0, e, np.nan) ** 2, variance, mcse)
        return BatchMeansResult(mean, mcse, ess, _split_r_hat(closed) if full >= 8 else _nan_like(mean))


class QuantilesResult(NamedTuple):
    """Quantiles with a leading axis like `probabilities`, and how many draws they were taken from; host arrays."""

    values: Any
    kept: int
    probabilities: tuple[float, ...]


class Quantiles(eqx.Module):
    """Quantiles from evenly spaced observations, of which at least `keep / 2` and at most `keep` per member are kept.

    When the room is full every other one is dropped and the spacing doubles; nothing is random. The error of a
    quantile q in probability is that of an empirical distribution function from m kept observations,
    sqrt(q (1 - q) / m), where they are further apart than the chain's memory (1.1 % at q = 1/2 for 4 chains and 512
    kept of each), in addition to that of the draws themselves. Exact as long as there are at most `keep` observations.

    Memory: `keep` values per member.

    Args:
        probabilities: which quantiles, each between 0 and 1.
        keep: observations kept per member, even, at least 16.

    Raises:
        ValueError: if a probability is not between 0 and 1, or `keep` is odd or too small.

    Example:
        >>> import jax.numpy as jnp, solvers as sv
        >>> sinks = {"x": Quantiles((0.25, 0.5))}
        >>> sv.run(lambda x, n: x + 1.0, jnp.zeros(()), steps=101, sinks=sinks).sinks["x"].values.tolist()
        [26.0, 51.0]
    """

    probabilities: tuple[float, ...] = eqx.field(static=True, default=(0.05, 0.5, 0.95), converter=tuple)
    keep: int = eqx.field(static=True, default=1024)

    def __check_init__(self) -> None:
        if not self.probabilities or not all(0 <= p <= 1 for p in self.probabilities):
            raise ValueError(f"`probabilities` must lie between 0 and 1, got {self.probabilities}.")
        if self.keep < 16 or self.keep % 2:
            raise ValueError(f"`keep` must be even and at least 16, got {self.keep}.")

    def start(self, value: Any) -> Any:
        zero = jnp.zeros((), jnp.int32)
        kept = jax.tree.map(lambda x: jnp.zeros((self.keep, *x.shape), _real(x.dtype)), value)
        return {"kept": kept, "filled": zero, "seen": zero, "stride": zero + 1}

    def update(self, total: Any, value: Any, ok: Array) -> Any:
        take = total["seen"] % total["stride"] == 0
        slot = total["filled"]

        def put(kept: Array, x: Array) -> Array:
            x = jnp.where(_beside(ok, x), x, jnp.nan).astype(kept.dtype)
            old = lax.dynamic_index_in_dim(kept, slot, 0, keepdims=False)
            return lax.dynamic_update_index_in_dim(kept, jnp.where(take, x, old), slot, 0)

        def thinned(kept: Any) -> Any:
            return jax.tree.map(lambda x: jnp.concatenate([x[::2], x[::2]]), kept)

        kept = jax.tree.map(put, total["kept"], value)
        slot = slot + take
        full = slot == self.keep
        return {
            "kept": lax.cond(full, thinned, lambda x: x, kept),
            "filled": jnp.where(full, self.keep // 2, slot),
            "seen": total["seen"] + 1,
            "stride": jnp.where(full, 2 * total["stride"], total["stride"]),
        }

    def result(self, total: Any) -> QuantilesResult:
        count = int(total["filled"])
        members = jax.tree.leaves(total["kept"])[0].shape[1]

        def quantiles(kept: Any) -> np.ndarray:
            draws = np.asarray(kept, float)[:count].reshape(count * members, *kept.shape[2:])
            draws = draws[np.isfinite(draws).reshape(len(draws), -1).all(axis=1)]
            if not len(draws):
                return np.full((len(self.probabilities), *draws.shape[1:]), np.nan)
            return np.asarray(np.quantile(draws, self.probabilities, axis=0))

        return QuantilesResult(jax.tree.map(quantiles, total["kept"]), count * members, self.probabilities)


# ---- Moments of members: means, sums of squares, counts ----


def _real(dtype: Any) -> Any:
    return dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.result_type(float)


def _no_moments(value: Any) -> dict:
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, _real(x.dtype)), value)
    members = jax.tree.leaves(value)[0].shape[0]
    return {"mean": zeros, "m2": zeros, "count": jnp.zeros(members, jnp.int32)}


def _beside(x: Any, like: Any) -> Any:
    """One number per member, shaped so that it multiplies an array of members."""
    return x.reshape(*x.shape, *[1] * (like.ndim - x.ndim))


def _welford(total: dict, value: Any, ok: Array) -> dict:
    count = total["count"] + ok

    def change(mean: Array, x: Array) -> Array:
        return jnp.where(_beside(ok, mean), x.astype(mean.dtype) - mean, 0)

    def divided(delta: Array) -> Array:
        return delta / _beside(jnp.maximum(count, 1), delta).astype(delta.dtype)

    delta = jax.tree.map(change, total["mean"], value)
    mean = jax.tree.map(lambda m, d: m + divided(d), total["mean"], delta)
    m2 = jax.tree.map(lambda m, d: m + d * (d - divided(d)), total["m2"], delta)
    return {"mean": mean, "m2": m2, "count": count}


def _merge_neighbours(batches: dict) -> dict:
    """Batches 0 and 1 become batch 0, and so on, in the first half of the room; the second half is empty again."""
    count = batches["count"].reshape(-1, 2, *batches["count"].shape[1:])
    both = count.sum(axis=1, dtype=count.dtype)

    def pairs(x: Array) -> Array:
        return x.reshape(-1, 2, *x.shape[1:])

    def room(x: Array) -> Array:
        return jnp.concatenate([x, jnp.zeros_like(x)])

    def means(mean: Array) -> Array:
        a, b = pairs(mean)[:, 0], pairs(mean)[:, 1]
        share = _beside(count[:, 1] / jnp.maximum(both, 1), a).astype(a.dtype)
        return a + (b - a) * share

    def squares(m2: Array, mean: Array) -> Array:
        a, b = pairs(mean)[:, 0], pairs(mean)[:, 1]
        weight = _beside(count[:, 0] * (count[:, 1] / jnp.maximum(both, 1)), a).astype(a.dtype)
        return pairs(m2).sum(axis=1) + (b - a) ** 2 * weight

    return {
        "mean": jax.tree.map(lambda m: room(means(m)), batches["mean"]),
        "m2": jax.tree.map(lambda s, m: room(squares(s, m)), batches["m2"], batches["mean"]),
        "count": room(both),
    }


def _pooled(total: dict) -> tuple[Any, Any, Any]:
    """Mean, variance and number of all members together, in double precision on the host."""
    count = np.asarray(total["count"], float)
    number = count.sum()

    def centre(mean: Any) -> np.ndarray:
        mean = np.asarray(mean, float)
        return (
            np.asarray((mean * _beside(count, mean)).sum(axis=0) / number)
            if number
            else np.full(mean.shape[1:], np.nan)
        )

    def variance(m2: Any, mean: Any) -> np.ndarray:
        mean = np.asarray(mean, float)
        between = (mean - centre(mean)) ** 2 * _beside(count, mean)
        if number < 2:
            return np.full(mean.shape[1:], np.nan)
        return np.asarray((np.asarray(m2, float).sum(axis=0) + between.sum(axis=0)) / (number - 1))

    return jax.tree.map(centre, total["mean"]), jax.tree.map(variance, total["m2"], total["mean"]), number


def _split_r_hat(closed: dict) -> Any:
    """Split R-hat from the closed batches; the middle one is left out where their number is odd."""
    full = closed["count"].shape[0]
    halves = [
        jax.tree.map(lambda x, part=part: x[part], closed) for part in (slice(0, full // 2), slice(-(full // 2), None))
    ]
    count = np.concatenate([half["count"].sum(axis=0) for half in halves])
    use = count > 1

    def member(x: dict, i: int, leaf: int) -> tuple[np.ndarray, np.ndarray]:
        parts = {k: jax.tree.leaves(x[k])[leaf][:, i] for k in ("mean", "m2")}
        mean, variance, _ = _pooled({**parts, "count": x["count"][:, i]})
        return mean, variance

    def one(leaf: int) -> np.ndarray:
        members = [member(half, i, leaf) for half in halves for i in range(half["count"].shape[1])]
        means, variances = (np.stack(part)[use] for part in zip(*members, strict=True))
        n = count[use].mean()
        within = variances.mean(axis=0)
        total = (n - 1) / n * within + means.var(axis=0, ddof=1)
        return np.asarray(np.sqrt(total / np.where(within > 0, within, np.nan)))

    leaves, tree = jax.tree.flatten(closed["mean"])
    if use.sum() < 2:
        return tree.unflatten([np.full(x.shape[2:], np.nan) for x in leaves])
    return tree.unflatten([one(leaf) for leaf in range(len(leaves))])


def _nan_like(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.full(np.shape(x), np.nan), tree)
