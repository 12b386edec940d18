"""The trace of an operator that is known by its products only, with an error bar."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from .captured import fingerprint
from .checks import is_whole
from .packing import Packing, hoist


class TraceEstimate(eqx.Module):
    """What `trace` returns.

    Attributes:
        value: unbiased estimate of the trace.
        error: its standard error, from the scatter of the samples; 0 where all columns were taken.
        products: products with A.
    """

    value: Float[Array, "*batch"]
    error: Float[Array, "*batch"]
    products: int = eqx.field(static=True)


def trace(matvec: Callable, example: Any, *args: Any, products: int = 100, key: Array | None = None) -> TraceEstimate:
    """The trace of a square linear operator by Hutch++, with its standard error.

    A third of the products sketches A, Q = orth(A S), a third takes the trace on the sketch exactly, and a third
    samples what is left over with random signs g, whose mean is estimated:

        tr A = tr Q^T A Q + E g^T (1 - Q Q^T) A (1 - Q Q^T) g.

    Unbiased for every A. For positive semidefinite A the relative error falls like 1 / products, for others like that
    of the plain estimator, 1 / sqrt(products), and faster the faster the spectrum decays. `error` is the standard
    error of the estimate, measured on the samples; it is itself uncertain by about 1 / sqrt(2 products / 3). Where
    `products` reaches the size of x, the trace is summed over all columns.

    Derivatives with respect to `args` and to what `matvec` captures are those of the estimator with Q and g held fixed,
    hence unbiased estimates of tr dA. All modes and orders.

    Args:
        matvec: A, a function (x, *args) -> array or pytree like x, linear in x; it need not be symmetric.
        example: array or pytree with the structure, shapes and dtype of x; its values do not matter.
        *args: parameters of the operator.
        products: number of products with A, at least 6.
        key: random key, by default `jax.random.key(0)`.

    Returns:
        `TraceEstimate(value, error, products)`.

    Raises:
        ValueError: for fewer than 6 products, or unknowns that are not real and floating.
        TypeError: if `matvec` does not return what it takes.

    Example:
        >>> import jax.numpy as jnp
        >>> decay = 0.7 ** jnp.arange(1000.0)
        >>> found = trace(lambda x: decay * x, jnp.zeros(1000), products=60)
        >>> bool(abs(found.value - 1 / 0.3) < 1e-3), found.products
        (True, 60)

    Reference:
        R. A. Meyer, C. Musco, C. Musco, D. P. Woodruff, Hutch++: Optimal Stochastic Trace Estimation, SOSA 2021,
        algorithm 1.
    """
    if not callable(matvec):
        raise TypeError(
            f"`matvec` must be a function of a vector, got {type(matvec).__name__}; a matrix A is `lambda x: A @ x`."
        )
    if not is_whole(products) or products < 6:
        raise ValueError(f"`products` must be a whole number of at least 6 (two for each third), got {products!r}.")
    kinds = [jnp.result_type(x) for x in jax.tree.leaves(example)]
    if not kinds or not all(jnp.issubdtype(d, jnp.floating) for d in kinds):
        raise ValueError(f"`example` must hold real floating arrays only, got dtypes {[str(d) for d in kinds]}.")
    example = jax.tree.map(lambda x: x if hasattr(x, "dtype") else jnp.asarray(x), example)
    given = jax.eval_shape(lambda x: x, example)
    out = jax.eval_shape(lambda x: matvec(x, *args), example)
    if jax.tree.structure(out) != jax.tree.structure(given) or jax.tree.leaves(out) != jax.tree.leaves(given):
        raise TypeError(f"`matvec` must return what it takes, {given}; it returns {out}.")
    key = jax.random.key(0) if key is None else key
    return _trace(matvec, args, Packing(example), key, products, fingerprint((matvec, args)))


@eqx.filter_jit
def _trace(matvec: Callable, args: tuple, packing: Packing, key: Array, products: int, seen: Any) -> TraceEstimate:
    size, dtype = packing.size, packing.dtype
    pure, captured = hoist(
        lambda x: packing.pack(matvec(packing.unpack(x), *args)), jnp.zeros(packing.size, packing.dtype)
    )
    many = jax.vmap(lambda x: pure(captured, x), in_axes=1, out_axes=1)
    if products >= size:
        value = jnp.trace(many(jnp.eye(size, dtype=dtype)))
        return TraceEstimate(value, jnp.zeros((), dtype), size)
    sketch = products // 3
    samples = products - 2 * sketch
    first, second = jax.random.split(key)
    fixed = jax.vmap(lambda x: pure(lax.stop_gradient(captured), x), in_axes=1, out_axes=1)
    q, _ = jnp.linalg.qr(fixed(jax.random.rademacher(first, (size, sketch), dtype)))
    g = jax.random.rademacher(second, (size, samples), dtype)
    g = g - q @ (q.T @ g)
    q, g = lax.stop_gradient((q, g))
    rest = jnp.sum(g * many(g), axis=0)
    value = jnp.sum(q * many(q)) + jnp.mean(rest)
    scatter = lax.stop_gradient(jnp.std(rest, ddof=1))
    return TraceEstimate(value, scatter / math.sqrt(samples), products)
