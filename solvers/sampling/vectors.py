"""Positions are pytrees of floating arrays; here they are vectors."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array


def dot(a: Any, b: Any) -> Array:
    """Inner product of two pytrees; sums of products, which no device rounds to fewer bits as it does in a matmul."""
    parts = [jnp.sum(x * y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def scale(factor: Any, x: Any) -> Any:
    """factor * x without a change of dtype."""
    return jax.tree.map(lambda x: jnp.asarray(factor).astype(x.dtype) * x, x)


def add(x: Any, y: Any) -> Any:
    """x + y."""
    return jax.tree.map(jnp.add, x, y)


def subtract(x: Any, y: Any) -> Any:
    """x - y."""
    return jax.tree.map(jnp.subtract, x, y)


def plus(x: Any, factor: Any, y: Any) -> Any:
    """x + factor * y without a change of dtype."""
    return add(x, scale(factor, y))


def normal_like(key: Array, x: Any) -> Any:
    """Standard normal numbers in the shape of `x` (arrays or their `ShapeDtypeStruct`), one key per leaf."""
    leaves, tree = jax.tree.flatten(x)
    # Splitting costs as much as a few dozen numbers.
    keys = [key] if len(leaves) == 1 else jax.random.split(key, len(leaves))
    return tree.unflatten([jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)])


def scalar_type(x: Any) -> Any:
    """Dtype of numbers that belong to the whole pytree."""
    return jnp.result_type(*[leaf.dtype for leaf in jax.tree.leaves(x)])


def log_uniform(key: Array, x: Any) -> Array:
    """Logarithm of a uniform random number, never -inf, in the dtype of `x`."""
    return -jax.random.exponential(key, (), scalar_type(x))


def size(x: Any) -> int:
    """Number of unknowns."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(x))


def safe_sqrt(x: Array) -> Array:
    """Square root with the derivative 0 at 0, where it would be infinite and poison the other factor, a zero."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1.0)), 0.0)
