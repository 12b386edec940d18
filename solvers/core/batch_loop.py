"""A while loop whose batch shrinks: under `vmap`, members that are done stop costing."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.custom_batching import custom_vmap
from jaxtyping import Array


def while_active(active: Callable[[Any], Array], step: Callable[[Any, Any], Any], params: Any, state: Any) -> Any:
    """`while active(state): state = step(params, state)`.

    A `lax.while_loop` under `vmap` runs every member until the slowest is done. Here the batch runs until half of its
    members are done, those that are not are gathered into a batch of half the size, and so on down to one: the work
    is at most about twice the sum over the members. The price is one compilation of `step` per size.

    Args:
        active: tells from a state whether to go on.
        step: (params, state) -> state; captures no traced values.
        params: what the step depends on; may be batched.
        state: pytree of arrays.

    Returns:
        The first state that is not active.
    """

    @custom_vmap
    def run(params: Any, state: Any) -> Any:
        return lax.while_loop(active, lambda s: step(params, s), state)

    @run.def_vmap
    def rule(size: int, batched: Any, params: Any, state: Any) -> tuple:
        leaves, tree = jax.tree.flatten(params)
        with_axis = jax.tree.leaves(batched[0])
        common = [None if b else x for x, b in zip(leaves, with_axis, strict=True)]
        own = [x for x, b in zip(leaves, with_axis, strict=True) if b]
        # Constants arrive as Python numbers, which have no shape of their own.
        state = jax.tree.map(lambda x, b: x if b else jnp.broadcast_to(x, (size, *jnp.shape(x))), state, batched[1])

        def advance(own: list, state: Any) -> Any:
            mine = iter(own)
            params = jax.tree.unflatten(tree, [next(mine) if b else x for x, b in zip(common, with_axis, strict=True)])
            new = step(params, state)
            going = active(state)
            return jax.tree.map(lambda a, b: jnp.where(going, a, b), new, state)

        count = size
        while count:
            fewer = count // 2
            state = _stage(active, advance, own, state, size, count, fewer)
            count = fewer
        return state, jax.tree.map(lambda _: True, state)

    return run(params, state)


def _stage(active: Callable, advance: Callable, own: list, state: Any, size: int, count: int, fewer: int) -> Any:
    """Gather the `count` first active members of the batch and advance them until only `fewer` are active."""
    going = jax.vmap(active)
    # Stable, so that members that are done fill the places behind; they are written back unchanged.
    order = jnp.argsort(~going(state), stable=True)[:count] if count < size else None

    def take(x: Array) -> Array:
        return x if order is None else x[order]

    part = jax.tree.map(take, state)
    mine = [take(x) for x in own]
    part = lax.while_loop(lambda s: jnp.sum(going(s)) > fewer, lambda s: jax.vmap(advance)(mine, s), part)
    return part if order is None else jax.tree.map(lambda x, p: x.at[order].set(p), state, part)
