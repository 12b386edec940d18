"""Leading eigenvalues of the derivative of a map at a point: Floquet multipliers of an orbit."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from ..core.linear_map import linear_map
from ..core.packing import dot, norm2

# Steps of Arnoldi beyond four for each wanted eigenvalue.
EXTRA = 20


def leading_multipliers(after: Callable[[Array], Array], x: Array, count: int, *, dense: bool) -> Array:
    """The `count` eigenvalues of d after / dx of largest modulus, all of a smaller matrix; a constant.

    Dense: from the matrix. Else Ritz values of Arnoldi's process from a fixed random vector: eigenvalues on the rim of
    the spectrum come first, the ones nearer to zero are approximate.
    """
    if dense:
        matrix = jax.jacfwd(after)(x)
    else:
        _, product = jax.linearize(after, x)
        matrix = _projected(product, x, min(x.shape[0], 4 * count + EXTRA))
    return _sorted(_eigenvalues(lax.stop_gradient(matrix)))[:count]


@jax.custom_jvp
def without_derivative(values: Array, depends_on: Array) -> Array:
    """The values; their derivative is NaN where `depends_on` moves, in both modes, and zero where nothing does."""
    return values


@without_derivative.defjvp
def _(primals: tuple, tangents: tuple) -> tuple:
    values, depends_on = primals

    def spread(shape: tuple, dtype: jnp.dtype) -> Callable:
        return lambda _, t: jnp.full(shape, jnp.where(jnp.any(t != 0), jnp.nan, 0), dtype)

    # A product with NaN would make NaN of the zero cotangents with which `scan` asks for the other results.
    ahead, back = spread(values.shape, values.dtype), spread(depends_on.shape, depends_on.dtype)
    return values, linear_map(ahead, back, (), tangents[1])


def largest_besides_one(values: Array) -> Array:
    """The largest modulus once the value nearest to 1 is left out."""
    trivial = jnp.argmin(jnp.abs(values - 1))
    return jnp.max(jnp.where(jnp.arange(values.shape[0]) == trivial, 0, jnp.abs(values)))


def _eigenvalues(matrix: Array) -> Array:
    """NaN where the matrix is not finite, on which LAPACK may not return."""
    finite = jnp.all(jnp.isfinite(matrix))
    values = jnp.linalg.eigvals(jnp.where(finite, matrix, 0))
    return jnp.where(finite, values, jnp.nan)


def _sorted(values: Array) -> Array:
    """The largest modulus first; of a conjugate pair the one with positive imaginary part."""
    size = jnp.abs(values)
    # Moduli of a pair are equal to round-off: quantised, so that the second key decides.
    step = 1e3 * jnp.finfo(size.dtype).eps * jnp.max(size)
    rank = jnp.round(size / jnp.where(step > 0, step, 1))
    return values[jnp.lexsort((-values.imag, -rank))]


def _projected(product: Callable[[Array], Array], x: Array, steps: int) -> Array:
    """The Hessenberg matrix of `steps` steps of Arnoldi's process."""
    eps = float(jnp.finfo(x.dtype).eps)
    first = jax.random.normal(jax.random.key(0), x.shape, jnp.float32).astype(x.dtype)
    basis = jnp.zeros((steps + 1, x.shape[0]), x.dtype).at[0].set(first / norm2(first))

    def step(k: Array, carry: tuple) -> tuple:
        basis, matrix = carry
        w = product(basis[k])
        size, h = norm2(w), jnp.zeros(steps + 1, x.dtype)
        for _ in range(2):
            c = dot(basis, w)
            w, h = w - dot(c, basis), h + c
        rest = jnp.where(norm2(w) > 10 * eps * size, norm2(w), 0)
        # An invariant subspace: what follows stays zero.
        basis = basis.at[k + 1].set(jnp.where(rest > 0, w / jnp.where(rest > 0, rest, 1), 0))
        return basis, matrix.at[:, k].set(h.at[k + 1].set(rest))

    _, matrix = lax.fori_loop(0, steps, step, (basis, jnp.zeros((steps + 1, steps), x.dtype)))
    return matrix[:steps]
