"""How the iteration map behaves near an answer: the spectral radius of its Jacobian."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..core.packing import dot, norm2

SQUARINGS = 30


def spectral_radius(product: Callable[[Array], Array], size: int, dtype: jnp.dtype, steps: int) -> tuple[Array, Array]:
    """Estimates of the spectral radius of a matrix from `steps` products: (estimate, a cautious one).

    Arnoldi from a fixed random vector. The estimate is the spectral radius of the projected matrix; the cautious one
    is the smallest over the last three dimensions, so that a value which has not settled is not taken for large.
    """
    m = max(min(steps, size), 1)
    eps = float(jnp.finfo(dtype).eps)
    first = jax.random.normal(jax.random.key(0), (size,), jnp.float32).astype(dtype)
    basis = jnp.zeros((m + 1, size), dtype).at[0].set(first / norm2(first))

    def step(k: Array, carry: tuple) -> tuple:
        basis, projected = carry
        w = product(basis[k])
        length = norm2(w)
        h = jnp.zeros(m + 1, dtype)
        for _ in range(2):
            c = dot(basis, w)
            w = w - dot(c, basis)
            h = h + c
        rest = norm2(w)
        # An invariant subspace: later rows and columns stay zero and add no eigenvalue.
        rest = jnp.where(rest > 10 * eps * length, rest, 0)
        basis = basis.at[k + 1].set(jnp.where(rest > 0, w / jnp.where(rest > 0, rest, 1), 0))
        return basis, projected.at[:, k].set(h.at[k + 1].set(rest))

    _, projected = lax.fori_loop(0, m, step, (basis, jnp.zeros((m + 1, m), dtype)))
    square = projected[:m]
    radii = jnp.stack([_small_radius(square[:k, :k]) for k in range(max(m - 2, 1), m + 1)])
    # Of a projected matrix of full size nothing is missing.
    return radii[-1], radii[-1] if m == size else jnp.min(radii)


def _small_radius(matrix: Array) -> Array:
    """Spectral radius of a small dense matrix by Gelfand's formula, |M^(2^k)|^(1/2^k), on every device."""

    def square(carry: tuple) -> tuple:
        matrix, log, weight = carry
        size = jnp.max(jnp.abs(matrix))
        safe = jnp.where(size > 0, size, 1)
        scaled = matrix / safe
        log = jnp.where(size > 0, log + weight * jnp.log(safe), -jnp.inf)
        return jnp.matmul(scaled, scaled, precision=lax.Precision.HIGHEST), log, weight / 2

    start = (matrix, jnp.zeros((), matrix.dtype), jnp.ones((), matrix.dtype))
    _, log, _ = lax.fori_loop(0, SQUARINGS, lambda _, c: square(c), start)
    return jnp.exp(log)
