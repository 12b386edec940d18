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
    # Leading blocks of the last three dimensions; what is left out adds eigenvalues zero.
    kept = jnp.arange(m) < jnp.arange(max(m - 2, 1), m + 1)[:, None]
    radii = _small_radii(jnp.where(kept[:, :, None] & kept[:, None, :], projected[:m], 0))
    # Of a projected matrix of full size nothing is missing.
    return radii[-1], radii[-1] if m == size else jnp.min(radii)


def _small_radii(matrices: Array) -> Array:
    """Spectral radii of small dense matrices by Gelfand's formula, |M^(2^k)|^(1/2^k), on every device."""

    def square(_: Array, carry: tuple) -> tuple:
        matrices, log, weight = carry
        sizes = jnp.max(jnp.abs(matrices), axis=(1, 2))
        safe = jnp.where(sizes > 0, sizes, 1)
        scaled = matrices / safe[:, None, None]
        log = jnp.where(sizes > 0, log + weight * jnp.log(safe), -jnp.inf)
        return jnp.matmul(scaled, scaled, precision=lax.Precision.HIGHEST), log, weight / 2

    zero = jnp.zeros(matrices.shape[0], matrices.dtype)
    return jnp.exp(lax.fori_loop(0, SQUARINGS, square, (matrices, zero, jnp.ones((), matrices.dtype)))[1])
