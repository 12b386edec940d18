"""Backtracking along a Newton direction."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..core.packing import norm2
from .iteration import Problem

# Demanded fraction of the predicted decrease, and the most evaluations of one search.
DECREASE = 1e-4
TRIALS = 30


class Trial(NamedTuple):
    """A point along the direction, its residual, and how many evaluations it took."""

    t: Array
    x: Array
    r: Array
    residual: Array
    evaluations: Array
    good: Array


def backtrack(problem: Problem, x: Array, r: Array, direction: Array, rate: Array) -> Trial:
    """The first of x + t d, t = 1, ..., whose residual norm is at most (1 - 1e-4 t rate) times the old one.

    `rate` is the predicted relative decrease, (r, A d) / (r, r): 1 for an exact Newton step. The next t minimises the
    parabola through the old norm squared, its slope and the new norm squared, within [t / 10, t / 2]; a point where
    the residual is not finite gives t / 10.

    Reference:
        J. E. Dennis, R. B. Schnabel, Numerical Methods for Unconstrained Optimization (1983), algorithm A6.3.1.
    """
    old = norm2(r)

    def at(t: Array, evaluations: Array) -> Trial:
        new = x + t * direction
        r_new = problem.residual(new)
        residual = norm2(r_new)
        good = residual <= (1 - DECREASE * t * rate) * old
        return Trial(t, new, r_new, residual, evaluations + 1, good)

    def again(trial: Trial) -> Trial:
        ratio = (trial.residual / old) ** 2
        # phi(t) = |r|^2 / |r_0|^2 has phi(0) = 1 and phi'(0) = -2 rate.
        best = rate * trial.t**2 / (ratio - 1 + 2 * rate * trial.t)
        best = jnp.where(jnp.isfinite(ratio), best, 0)
        return at(jnp.clip(best, 0.1 * trial.t, 0.5 * trial.t), trial.evaluations)

    first = at(jnp.ones((), x.dtype), jnp.zeros((), jnp.int32))
    return lax.while_loop(lambda s: ~s.good & (s.evaluations < TRIALS), again, first)
