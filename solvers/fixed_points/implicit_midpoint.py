"""The implicit midpoint rule as a differentiable, reversible march: z' = z + h f((z + z') / 2).

The rule is its own inverse with h -> -h, so the reverse sweep reconstructs the states instead of storing them. With
A = f'(m) at the midpoint m, the derivative of a step is (1 - h/2 A) dz' = (1 + h/2 A) dz + dh f + h df, and its
adjoint, for a cotangent c of z',

    (1 - h/2 A)^T w = c,    cotangent of z = 2 w - c,    of parameters = (h df)^T w.

Steps and their derivatives are solved by the same simple iteration, to round-off: it contracts by h |A| / 2, which
accuracy wants small anyway, and it needs no matrix.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ..core.adjoint import Checkpoint, differentiable_stretch, nested_scan, remat, segment_sizes
from ..core.implicit_rule import implicit_solution
from ..core.packing import norm2

# Iterations of one step, and the size of its last update in units of round-off that counts as solved.
MOST = 100
ROUNDINGS = 1e3

Field = Callable[[Any, Array], Array]


class March(NamedTuple):
    """Where a march ended and how well its worst step was solved.

    Attributes:
        state: after the last step.
        residual: largest last update of a step, relative to the state; NaN or inf if a step failed.
    """

    state: Array
    residual: Array


def march(field: Field, params: Any, state: Array, h: Array, steps: int, adjoint: Any) -> March:
    """`steps` steps of length h of dz/dt = field(params, z).

    Args:
        field: pure function of parameters and a vector.
        params: pytree of arrays; those that are floating are differentiated.
        state: vector.
        h: step; differentiable.
        steps: number of steps.
        adjoint: "reversible", `StoreAll()` or `Checkpoint(levels)`.
    """

    def plain(args: tuple) -> March:
        params, state, h = args
        first = March(state, jnp.zeros((), state.dtype))
        body = _step_of(field)
        sizes = []
        if isinstance(adjoint, Checkpoint):
            # Beside the state of a step, its midpoint and the linearised field are kept.
            sizes = segment_sizes(steps, adjoint.levels or 2, 4.0, 1.0)

        def leaf(carry: March, numbers: Array, length: int) -> tuple:
            return lax.scan(lambda c, _: (body(params, c, h), None), carry, numbers, length=length)

        return nested_scan(leaf, first, jnp.arange(steps), steps, [(size, remat) for size in sizes])[0]

    if adjoint != "reversible":
        return plain((params, state, h))

    def taped(args: tuple) -> tuple:
        out = plain(args)
        return out, out.state

    def pull(args: tuple, end: Array, cotangent: March) -> tuple:
        return _pull(field, steps, args, end, cotangent.state)

    return differentiable_stretch(plain, taped, pull)((params, state, h))


def solved(residual: Array) -> Array:
    """Whether the worst step of a march was solved."""
    return residual <= ROUNDINGS * float(jnp.finfo(residual.dtype).eps)


def _step_of(field: Field) -> Callable:
    """One step, differentiable by the implicit rule at its midpoint."""

    def residual(params: tuple, middle: Array) -> Array:
        inner, state, h = params
        return state + h / 2 * field(inner, middle) - middle

    def solve(params: tuple, middle: Array) -> tuple[Array, Array]:
        return _contract(lambda m: m + residual(params, m), middle)

    def tangent(matvec: Callable, dr: Array, params: tuple, middle: Array, left: Array) -> Array:
        return jnp.where(solved(left), 1, jnp.nan).astype(dr.dtype) * _solve_near_one(matvec, dr)

    def step(params: Any, carry: March, h: Array) -> March:
        middle, left = implicit_solution(residual, (params, carry.state, h), carry.state, solve, tangent)
        # A residual that is not finite must win over all others.
        worst = jnp.where(left > carry.residual, left, carry.residual)
        return March(2 * middle - carry.state, jnp.where(jnp.isnan(left), jnp.inf, worst))

    return step


def _solve_near_one(matvec: Callable, b: Array) -> Array:
    """Solve A x = b for A near the identity; NaN where the iteration does not contract."""

    def solve(product: Callable, b: Array) -> Array:
        x, left = _contract(lambda x: b + x - product(x), b)
        return jnp.where(solved(left), x, jnp.nan)

    return lax.custom_linear_solve(lambda v: matvec(v), b, solve, solve)


def _contract(function: Callable, x: Array) -> tuple[Array, Array]:
    """Iterate x = function(x) until updates are round-off; returns x and the relative size of the last update."""
    eps = float(jnp.finfo(x.dtype).eps)

    def go(carry: tuple) -> Array:
        _, update, before, count = carry
        # Below some roundings an update that no longer shrinks is round-off itself.
        still = (update > ROUNDINGS * eps) | ((update > eps / 2) & (update < before))
        return still & jnp.isfinite(update) & (count < MOST)

    def again(carry: tuple) -> tuple:
        x, update, _, count = carry
        new = function(x)
        size = norm2(new)
        return new, norm2(new - x) / jnp.where(size > 0, size, 1), update, count + 1

    first = again((x, jnp.full((), jnp.inf, x.dtype), jnp.full((), jnp.inf, x.dtype), jnp.zeros((), jnp.int32)))
    x, update, _, _ = lax.while_loop(go, again, first)
    return x, update


def _pull(field: Field, steps: int, args: tuple, end: Array, cotangent: Array) -> tuple:
    """Cotangents of (params, state, h): the march backwards, from its end."""
    params, start, h = args
    moving, still = eqx.partition(params, eqx.is_inexact_array)
    step = _step_of(field)

    def back(carry: tuple, _: Any) -> tuple:
        state, c, moving_bar, h_bar = carry
        before = step(params, March(state, jnp.zeros((), state.dtype)), -h).state
        middle = (before + state) / 2

        def push(moving: Any, h: Array, middle: Array) -> Array:
            return h * field(eqx.combine(moving, still), middle)

        _, pull = jax.vjp(push, moving, h, middle)
        w = _solve_near_one(lambda v: v - pull(v)[2] / 2, c)
        more, h_more, _ = pull(w)
        return (before, 2 * w - c, jax.tree.map(jnp.add, moving_bar, more), h_bar + h_more), None

    zero = jax.tree.map(jnp.zeros_like, moving)
    first = (end, cotangent, zero, jnp.zeros_like(h))
    (found, c, moving_bar, h_bar), _ = lax.scan(back, first, None, length=steps)
    # The way back must end where the way out began; where it does not, the gradient is that of another path.
    eps = float(jnp.finfo(start.dtype).eps)
    good = norm2(lax.stop_gradient(found - start)) <= math.sqrt(eps) * norm2(lax.stop_gradient(start))
    poison = jnp.where(good, 1, jnp.nan).astype(start.dtype)
    bars = jax.tree.map(lambda x: poison.astype(x.dtype) * x, (moving_bar, c, h_bar))
    still_bar = jax.tree.map(lambda x: np.zeros(x.shape, jax.dtypes.float0), still)
    return eqx.combine(bars[0], still_bar), bars[1], bars[2]
