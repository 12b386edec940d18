"""Values whose derivative is NaN unless the solve that gave them was good: never a finite number that looks right."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


@jax.custom_jvp
def guarded(x: Array, good: Array) -> Array:
    """x itself; its derivative is NaN unless `good`."""
    return x


@guarded.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    x, good = primals
    return x, tangents[0] * jnp.where(good, 1, jnp.nan).astype(x.real.dtype)


@jax.custom_jvp
def guarded_by(x: Array, good: Array, params: Any) -> Array:
    """x itself; its derivatives with respect to `params`, a list of arrays, are NaN unless `good`.

    For an x that may have lost its dependence on them, or whose own reverse sweep cannot begin with NaN: the NaN goes
    directly to the parameters.
    """
    return x


@guarded_by.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    x, good, _ = primals
    poison = jnp.where(good, 0, jnp.nan).astype(x.real.dtype)
    total = sum((jnp.sum(d.real) + jnp.sum(d.imag) for d in tangents[2]), start=jnp.zeros((), poison.dtype))
    return x, tangents[0] + (poison * total).astype(x.dtype)
