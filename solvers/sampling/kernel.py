"""The contract of a kernel: what `sample` expects, what a step reports.

A kernel is any object with

    init(position, key) -> state              state.position is the position
    step(key, state)    -> (state, info)      one step, random numbers from the key alone

for one chain; chains are `vmap` outside. The kernels of this package are frozen structs and keep three more promises.
`noise(key, state)` draws all random numbers of a step, of the state it reads nothing but shapes, and
`move(state, noise)` is the step as a pure function of them: `step(key, state) == move(state, noise(key, state))`, so
that `sample` draws the numbers of many steps at once. The step size is the array field `step_size`, the metric the
field `metric`, and no state depends on either: a warm-up may replace both (`equinox.tree_at`) between two steps.
`target_acceptance` is the acceptance that the step size should be adapted to, None for kernels without
Metropolis correction, whose step size decides their bias and is the user's choice. A kernel that evaluates more at the
start than its state keeps tells it by `at_start(position, key)`: `sample` refuses starts where that is not finite.
Kernels whose step size is a time, the square root of an overdamped step, say so by `time_step = True`; a kernel with a
`largest_step` takes longer ones for this one, and a warm-up stops there.
"""

from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .vectors import scalar_type

# An energy error beyond this is called a divergence, the bound that Stan uses.
DIVERGENCE = 1000.0


class State(Protocol):
    """State of a chain."""

    @property
    def position(self) -> Any: ...


class Kernel(Protocol):
    """Anything that `sample` can run."""

    def init(self, position: Any, key: Array) -> Any:
        """State of a chain that starts at the position."""
        ...

    def step(self, key: Array, state: Any) -> tuple[Any, Any]:
        """One step: new state and report."""
        ...


class Info(eqx.Module):
    """What one step of a kernel reports, an array per chain in each field.

    Attributes:
        acceptance: probability with which the proposal was accepted; 1 for kernels without Metropolis correction.
        accepted: whether the chain moved to the proposal.
        nonfinite: the proposal, its density or its score was NaN or infinite. The chain then stays where it is, in
            kernels without Metropolis correction too.
        divergent: nonfinite, or a log acceptance ratio below -1000, proposals of density zero among them.
        logdensity: log density of the new state up to a constant; None where only a score is known.
        gradients: gradients of the log density that the step took.
    """

    acceptance: Array
    accepted: Array
    nonfinite: Array
    divergent: Array
    logdensity: Array | None
    gradients: Array


def all_finite(tree: Any) -> Array:
    """Whether every floating number of a pytree is finite."""
    leaves = [jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.stack(leaves)) if leaves else jnp.asarray(True)


def choose(condition: Array, new: Any, old: Any) -> Any:
    """`new` where the condition holds, else `old`, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)


def metropolis(log_ratio: Array, usable: Array, log_uniform: Array) -> tuple[Array, Array, Array, Array]:
    """Accept or reject: (acceptance, accepted, nonfinite, divergent).

    A proposal of density zero (log ratio -inf) is rejected like any other; one that is NaN or infinitely better, or
    not `usable`, is rejected and counted as not finite.
    """
    zero = log_ratio == -jnp.inf
    nonfinite = ~zero & ~(jnp.isfinite(log_ratio) & usable)
    acceptance = jnp.where(nonfinite, 0.0, jnp.exp(jnp.minimum(log_ratio, 0.0))).astype(log_ratio.dtype)
    accepted = ~nonfinite & ~zero & (log_uniform <= log_ratio)
    return acceptance, accepted, nonfinite, nonfinite | (log_ratio < -DIVERGENCE)


def unadjusted(point: Any, usable: Array, gradients: int) -> Info:
    """Report of a step without Metropolis correction: it moves to the point unless that is not finite."""
    acceptance = usable.astype(scalar_type(point.position))
    return Info(acceptance, usable, ~usable, ~usable, point.logdensity, jnp.asarray(gradients, jnp.int32))
