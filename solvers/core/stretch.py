"""A stretch of the loop: a few steps and observations as one function of arrays, with its reverse sweep."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from .observe import accumulates


class Stretch:
    """A run of ticks as a function of arrays only, with the hand-derived reverse sweep where the stepper has one.

    args = (arrays of (stepper, entries, dt), state, totals, inputs, tick numbers); one tick is `every` steps and, with
    `watch`, an observation.
    """

    def __init__(self, still: Any, every: int, watch: bool, unroll: int):
        self.still, self.every, self.watch, self.unroll = still, every, watch, unroll

    def open(self, moving: Any) -> tuple:
        return eqx.combine(moving, self.still)

    def time(self, n: Array, dt: Array) -> Array:
        return ((n + 1) * self.every).astype(dt.dtype) * dt

    def plain(self, args: Any) -> tuple:
        moving, state, totals, inputs, ns = args
        stepper, entries, dt = self.open(moving)

        def tick(carry: tuple, x: tuple) -> tuple:
            state, totals = carry
            state, _ = self.over(lambda s, i: (stepper.step(s, i), None), state, x[0])
            if not self.watch:
                return (state, totals), None
            totals, ys = watch(stepper, entries, totals, [state] * len(entries), self.time(x[1], dt))
            return (state, totals), ys

        (state, totals), ys = self.scan(tick, (state, totals), (inputs, ns))
        return state, totals, ys

    def taped(self, args: Any) -> tuple:
        moving, state, totals, inputs, ns = args
        stepper, entries, dt = self.open(moving)

        def tick(carry: tuple, x: tuple) -> tuple:
            state, totals = carry
            state, tape = self.over(stepper.taped_step, state, x[0])
            if not self.watch:
                return (state, totals), (None, tape, None, None)
            new, ys = watch(stepper, entries, totals, [state] * len(entries), self.time(x[1], dt))
            return (state, new), (ys, tape, state, totals)

        (state, totals), (ys, tape, states, before) = self.scan(tick, (state, totals), (inputs, ns))
        return (state, totals, ys), (tape, states, before)

    def pull(self, args: Any, tape: Any, cotangent: Any) -> Any:
        """Cotangent of args: the ticks in reverse, observation first, then the steps."""
        moving, _, _, inputs, ns = args
        tape, states, before = tape
        stepper, entries, dt = self.open(moving)
        state_bar, totals_bar, ys_bar = cotangent
        sparse = [self.watch and stepper.spreads(e) for e in entries]
        ahead = [e.ahead(y) if s else None for e, y, s in zip(entries, ys_bar or entries, sparse, strict=True)]
        watch_arrays, watch_still = eqx.partition((stepper, entries, dt), eqx.is_inexact_array)

        def tick(carry: tuple, x: tuple) -> tuple:
            sweep, totals_bar, watch_bar = carry
            inputs, n, tape, state, before, ys_bar, ahead = x
            if self.watch:
                # Receivers see the state as a constant here: their pullback to it is spread by the stepper below.
                def seen(arrays: Any, totals: Any, moving: Any, fixed: Any = state, n: Any = n) -> tuple:
                    stepper, entries, dt = eqx.combine(arrays, watch_still)
                    carries = [fixed if s else moving for s in sparse]
                    return watch(stepper, entries, totals, carries, self.time(n, dt))

                _, pull = jax.vjp(seen, watch_arrays, before, state)
                more, totals_bar, state_bar = pull((totals_bar, ys_bar))
                watch_bar = jax.tree.map(jnp.add, watch_bar, more)
                if not all(sparse):
                    sweep = stepper.pull_observed(sweep, state_bar)
                for entry, value, spread in zip(entries, ahead, sparse, strict=True):
                    if spread:
                        sweep = stepper.pull_spread(sweep, entry, value)
            sweep, inputs_bar = self.over(lambda c, x: stepper.pull_step(c, *x), sweep, (tape, inputs), reverse=True)
            return (sweep, totals_bar, watch_bar), inputs_bar

        start = (stepper.pull_start(state_bar), totals_bar, jax.tree.map(jnp.zeros_like, watch_arrays))
        xs = (inputs, ns, tape, states, before, ys_bar, ahead)
        (sweep, totals_bar, watch_bar), inputs_bar = self.scan(tick, start, xs, reverse=True)
        seen_bar, *rest_bar = watch_bar
        stepper_bar, state_bar = stepper.pull_finish(sweep)
        stepper_bar = jax.tree.map(lambda a, b: b if a is None else a + b, seen_bar, stepper_bar, is_leaf=_is_none)
        whole = eqx.filter((entries, dt), eqx.is_array)
        still_bar = jax.tree.map(_no_tangent, eqx.filter(whole, eqx.is_inexact_array, inverse=True))
        entries_bar, dt_bar = eqx.combine(tuple(rest_bar), still_bar)
        return ((stepper_bar, entries_bar, dt_bar), state_bar, totals_bar, inputs_bar, _no_tangent(ns))

    def over(self, step: Any, carry: Any, xs: Any, reverse: bool = False) -> tuple:
        """The `every` steps of one tick."""
        if self.every == 1:
            carry, y = step(carry, jax.tree.map(lambda x: x[0], xs))
            return carry, jax.tree.map(lambda y: y[None], y)
        # A fresh function: JAX hashes what it scans, and the method of a struct hashes by its traced arrays.
        return lax.scan(lambda c, x: step(c, x), carry, xs, length=self.every, reverse=reverse, unroll=self.unroll)

    def scan(self, tick: Any, carry: Any, xs: Any, reverse: bool = False) -> tuple:
        return lax.scan(tick, carry, xs, reverse=reverse, unroll=self.unroll if self.every == 1 else 1)


def public(stepper: Any, carry: Any) -> Any:
    return stepper.leave(carry) if hasattr(stepper, "leave") else carry


def watch(stepper: Any, entries: list, totals: list, carries: list, time: Array) -> tuple[list, list]:
    """Observe a state, given once per entry: new totals of the accumulators, values of the others.

    Prepared entries read what is marched; all others see the public state, of which only what they use is computed.
    """
    new, ys = [], []
    for entry, total, carry in zip(entries, totals, carries, strict=True):
        seen = carry if getattr(entry, "reads_carry", False) else public(stepper, carry)
        new.append(entry.update(total, seen, time) if accumulates(entry) else total)
        ys.append(None if accumulates(entry) else entry(seen))
    return new, ys


def _is_none(x: Any) -> bool:
    return x is None


def _no_tangent(x: Any) -> np.ndarray:
    """The cotangent of an integer array."""
    return np.zeros(x.shape, jax.dtypes.float0)
