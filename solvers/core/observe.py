"""Observers that accumulate during a run instead of stacking one value per observation.

An observer of `simulate` is a function of the state, whose values are stacked; or one of the accumulators below; or a
tuple, list or dict of these. An accumulator is any struct with `start(state)`, `update(total, state, time)` and
`result(total, count)`, which keep memory constant however long the run is.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.core import Tracer
from jaxtyping import Array


class Mean(eqx.Module):
    """Mean of `function(state)` over the observations.

    Args:
        function: state -> pytree of arrays.

    Example:
        >>> import solvers as sv, jax.numpy as jnp
        >>> wave = sv.Wave(sv.Grid(32, 1.0), 1.0, boundary=sv.Periodic())
        >>> start = wave.state(jnp.ones(32), jnp.zeros(32))
        >>> run = sv.simulate(wave, start, steps=8, dt=0.5, observe=sv.Mean(wave.pressure))
        >>> run.observed.shape, round(float(run.observed[3]), 5)
        ((32,), 1.0)
    """

    function: Callable

    def start(self, state: Any) -> Any:
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(lambda s: self.function(s), state))

    def update(self, total: Any, state: Any, time: Array) -> Any:
        return jax.tree.map(jnp.add, total, self.function(state))

    def result(self, total: Any, count: int) -> Any:
        return jax.tree.map(lambda t: t / max(count, 1), total)


class Peak(eqx.Module):
    """Largest absolute value of `function(state)` over the observations, element by element.

    Args:
        function: state -> pytree of real arrays.
    """

    function: Callable

    def start(self, state: Any) -> Any:
        return jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(lambda s: self.function(s), state))

    def update(self, total: Any, state: Any, time: Array) -> Any:
        return jax.tree.map(lambda t, v: jnp.maximum(t, jnp.abs(v)), total, self.function(state))

    def result(self, total: Any, count: int) -> Any:
        return total


class Fourier(eqx.Module):
    """Discrete Fourier sums F(f) = sum_k u(t_k) exp(-2 pi i f t_k) of `function(state)` at chosen frequencies.

    Multiply by the time between observations for the Fourier integral. Memory: two fields per frequency.

    Args:
        function: state -> pytree of real arrays.
        frequencies: cycles per unit of time, shape (n,); the result has a leading axis of length n.
    """

    function: Callable
    frequencies: Array

    def __init__(self, function: Callable, frequencies: Any):
        self.function = function
        self.frequencies = jnp.asarray(frequencies)
        if self.frequencies.ndim != 1:
            raise ValueError(f"`frequencies` must have shape (n,), got {self.frequencies.shape}.")

    def start(self, state: Any) -> Any:
        n = self.frequencies.shape[0]
        shapes = jax.eval_shape(lambda s: self.function(s), state)
        zeros = jax.tree.map(lambda s: jnp.zeros((n, *s.shape), s.dtype), shapes)
        return zeros, zeros

    def update(self, total: Any, state: Any, time: Array) -> Any:
        phase = 2 * jnp.pi * self.frequencies.astype(time.dtype) * time
        value = self.function(state)

        def add(total: Any, weights: Array) -> Any:
            return jax.tree.map(lambda t, v: t + jnp.multiply.outer(weights.astype(v.dtype), v), total, value)

        return add(total[0], jnp.cos(phase)), add(total[1], -jnp.sin(phase))

    def result(self, total: Any, count: int) -> Any:
        return jax.tree.map(jax.lax.complex, *total)


def is_observer(entry: Any) -> bool:
    """True for one observer, as against a container of them."""
    return callable(entry) or hasattr(entry, "result")


def accumulates(entry: Any) -> bool:
    """True for an observer that keeps a running result."""
    return hasattr(entry, "result")


class Lifted(eqx.Module):
    """A function whose captured traced values have become arguments."""

    function: Callable = eqx.field(static=True)
    captured: list

    def __call__(self, state: Any) -> Any:
        return self.function(state, *self.captured)


def lifted(entry: Any, state: Any) -> Any:
    """An observer that captures traced values (a variable of the user's `grad` or `jit`) with these made explicit."""
    captured = [cell.cell_contents for cell in getattr(entry, "__closure__", None) or ()]
    captured += [*(getattr(entry, "__defaults__", None) or ())]
    if not any(isinstance(x, Tracer) for x in jax.tree.leaves(captured)):
        return entry
    # A fresh function: JAX keeps what it has traced under the identity of a function.
    function, values = jax.closure_convert(lambda state: entry(state), state)
    return Lifted(function, values)
