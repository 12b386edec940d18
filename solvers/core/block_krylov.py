"""Restarted block Krylov iteration for the outer end of a symmetric spectrum: the iteration behind `spectra`.

Randomised: the first block is random, so that the chance to miss an eigenvalue is zero, and a block of width b finds
up to b copies of a repeated one. The basis is kept fully orthogonal (twice by Gram-Schmidt), and the projection
T = V^T A V is formed from these very products, so that what is kept after a restart needs no special formula.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

Apply = Callable[[Array], Array]


class RitzPairs(NamedTuple):
    """Approximate eigenpairs, the best-wanted first.

    Attributes:
        values, vectors: of the k wanted pairs.
        residuals: ||A v - value v||, from products made for it.
        scale: largest modulus among all Ritz values, an estimate of the norm of A.
        products: number of products with A.
        expected: whether the recurrence holds the residuals below the bound.
    """

    values: Float[Array, " k"]
    vectors: Float[Array, "n k"]
    residuals: Float[Array, " k"]
    scale: Array
    products: Array
    expected: Array


class _State(NamedTuple):
    """Basis with its projection, the next block with its coupling to the last one, and how far we are."""

    basis: Array
    projection: Array
    block: Array
    coupling: Array
    filled: Array
    values: Array
    scale: Array
    products: Array
    done: Array
    key: Array


class Sizes(NamedTuple):
    """Static sizes: wanted pairs, width of a block, Ritz vectors kept at a restart, columns of the basis."""

    wanted: int
    block: int
    kept: int
    basis: int

    @staticmethod
    def of(wanted: int, block: int) -> "Sizes":
        """At least 20 new columns and three new blocks between restarts, and as many spare vectors as a block."""
        kept = block * (-(-wanted // block) + 1)
        return Sizes(wanted, block, kept, kept + block * max(3, -(-20 // block)))


def ritz_pairs(
    apply: Apply,
    size: int,
    sizes: Sizes,
    key: Array,
    rank: Callable[[Array], Array],
    allowed: Callable[[Array, Array], Array],
    max_products: int,
    dtype: Any,
) -> RitzPairs:
    """Wanted eigenpairs of the symmetric operator `apply` on vectors of length `size`.

    Args:
        apply: product with one vector.
        size: length of a vector.
        sizes: static sizes.
        key: random key of the first block.
        rank: of a Ritz value; the largest ranks are wanted.
        allowed: largest residual that counts as converged, from (values, scale).
        max_products: no restart that would pass this number of products.
        dtype: of the vectors.
    """
    many = jax.vmap(apply, in_axes=1, out_axes=1)
    if size <= sizes.basis + sizes.block:
        return _by_dense(many, size, sizes, rank, dtype)
    state = _start(size, sizes, key, dtype)

    def expand(state: _State) -> _State:
        return _expand(many, state)

    def cycle(state: _State) -> _State:
        state = lax.while_loop(lambda s: s.filled < sizes.basis, expand, state)
        return _restart(state, sizes, rank, allowed)

    def unfinished(state: _State) -> Array:
        return ~state.done & (state.products + sizes.basis - sizes.kept <= max_products)

    state = lax.while_loop(unfinished, cycle, cycle(state))
    vectors, values = state.basis[:, : sizes.wanted], state.values
    residuals = jnp.linalg.norm(many(vectors) - vectors * values, axis=0)
    expected = state.done & jnp.all(jnp.isfinite(values))
    return RitzPairs(values, vectors, residuals, state.scale, state.products + sizes.wanted, expected)


def _by_dense(many: Apply, size: int, sizes: Sizes, rank: Callable, dtype: Any) -> RitzPairs:
    """All columns of a matrix that is hardly larger than the basis would be."""
    matrix = many(jnp.eye(size, dtype=dtype))
    values, vectors = jnp.linalg.eigh((matrix + matrix.T) / 2)
    order = jnp.argsort(-rank(values))[: sizes.wanted]
    scale = jnp.max(jnp.abs(values))
    values, vectors = values[order], vectors[:, order]
    residuals = jnp.linalg.norm(matrix @ vectors - vectors * values, axis=0)
    return RitzPairs(values, vectors, residuals, scale, jnp.asarray(size), jnp.all(jnp.isfinite(values)))


def _start(size: int, sizes: Sizes, key: Array, dtype: Any) -> _State:
    basis = jnp.zeros((size, sizes.basis), dtype)
    draw, key = jax.random.split(key)
    block, _ = jnp.linalg.qr(jax.random.normal(draw, (size, sizes.block), dtype))
    return _State(
        basis=basis,
        projection=jnp.zeros((sizes.basis, sizes.basis), dtype),
        block=block,
        coupling=jnp.zeros((sizes.block, sizes.block), dtype),
        filled=jnp.asarray(0),
        values=jnp.zeros(sizes.wanted, dtype),
        scale=jnp.zeros((), dtype),
        products=jnp.asarray(0),
        done=jnp.asarray(False),
        key=key,
    )


def _expand(many: Apply, state: _State) -> _State:
    """Take the next block into the basis and make the one after it from its products."""
    width = state.block.shape[1]
    zero = jnp.zeros_like(state.filled)
    basis = lax.dynamic_update_slice(state.basis, state.block, (zero, state.filled))
    image = many(state.block)
    once = basis.T @ image
    image = image - basis @ once
    twice = basis.T @ image
    image = image - basis @ twice
    columns = once + twice
    projection = lax.dynamic_update_slice(state.projection, columns, (zero, state.filled))
    projection = lax.dynamic_update_slice(projection, columns.T, (state.filled, zero))
    scale = jnp.maximum(state.scale, jnp.max(jnp.linalg.norm(columns, axis=0)))
    draw, key = jax.random.split(state.key)
    block, coupling = _orthonormal(image, basis, scale, draw)
    return state._replace(
        basis=basis,
        projection=projection,
        block=block,
        coupling=coupling,
        filled=state.filled + width,
        scale=scale,
        products=state.products + width,
        key=key,
    )


def _orthonormal(image: Array, basis: Array, scale: Array, key: Array) -> tuple[Array, Array]:
    """Orthonormal Q and coupling R with image = Q R; directions lost in round-off become random ones, uncoupled.

    They are lost when the basis holds an invariant subspace, as for a matrix of low rank; random ones look elsewhere.
    """
    rows, width = image.shape
    eps = jnp.finfo(image.dtype).eps
    q, r = jnp.linalg.qr(image)
    u, s, vt = jnp.linalg.svd(r)
    lost = s <= 10 * eps * scale
    q = jnp.where(lost, jax.random.normal(key, (rows, width), image.dtype), q @ u)
    coupling = jnp.where(lost[:, None], jnp.zeros_like(vt), s[:, None] * vt)
    # Orthogonal to the basis once more: small directions carry its round-off, random ones carry all of it.
    for _ in range(2):
        q, again = jnp.linalg.qr(q - basis @ (basis.T @ q))
        coupling = again @ coupling
    return q, coupling


def _restart(state: _State, sizes: Sizes, rank: Callable, allowed: Callable) -> _State:
    """Rayleigh-Ritz; keep the best vectors and go on with the same next block (Wu and Simon's thick restart)."""
    values, rotation = jnp.linalg.eigh((state.projection + state.projection.T) / 2)
    scale = jnp.max(jnp.abs(values))
    order = jnp.argsort(-rank(values))[: sizes.kept]
    values, rotation = values[order], rotation[:, order]
    residuals = jnp.linalg.norm(state.coupling @ rotation[-sizes.block :], axis=0)[: sizes.wanted]
    wanted = values[: sizes.wanted]
    # What is not finite ends the loop: it cannot heal.
    done = jnp.all(residuals <= allowed(wanted, scale)) | ~jnp.all(jnp.isfinite(wanted))
    return state._replace(
        basis=jnp.zeros_like(state.basis).at[:, : sizes.kept].set(state.basis @ rotation),
        projection=jnp.zeros_like(state.projection).at[: sizes.kept, : sizes.kept].set(jnp.diag(values)),
        filled=jnp.full_like(state.filled, sizes.kept),
        values=wanted,
        scale=scale,
        done=done,
    )
