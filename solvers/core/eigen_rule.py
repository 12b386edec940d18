"""Derivatives of eigenpairs that an iteration has found: the implicit rule for A v = lambda v.

With V the k found eigenvectors, Lambda their eigenvalues and Q = 1 - V V^T, a change dA of a symmetric A gives

    G = V^T dA V,    dlambda_i = G_ii,    dV = V (F o G) + X,    Q A Q X - X Lambda = -Q dA V,

with F_ij = 1 / (lambda_j - lambda_i). X lies across the invariant subspace and is finite as long as the k eigenvalues
are apart from the others. F turns vectors inside of the subspace and is infinite where two eigenvalues coincide: there
we set F_ij = 0, so that the vectors of a repeated eigenvalue follow their eigenspace without turning in it. Whatever
does not depend on the choice of basis in an eigenspace gets its exact derivative. The rule speaks of A only by
products, and of V and Lambda as it returns them, so that it can be differentiated again, to any order and in any mode.

Reference:
    R. B. Nelson, AIAA Journal 14 (1976) 1201 (single vectors); P.-A. Absil, R. Mahony, R. Sepulchre, Optimization
    Algorithms on Matrix Manifolds (2008), chapter 5.6 (invariant subspaces: the Newton equation is the one of X).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .packing import norm2
from .ruled import ruled
from .short_recurrences import Minres
from .status import Status


class EigenSolution(NamedTuple):
    """Eigenpairs, twice: as single pairs, and as a frame of their subspace.

    In value frame = vectors and projected = diag(values). Derivatives differ: that of `frame` never turns inside of
    the subspace, and that of `projected` = frame^T A frame is the whole matrix G.
    """

    values: Float[Array, " k"]
    vectors: Float[Array, "n k"]
    frame: Float[Array, "n k"]
    projected: Float[Array, "k k"]


def differentiable_eigenpairs(
    product: Callable[[Any, Array], Array],
    params: Any,
    values: Float[Array, " k"],
    vectors: Float[Array, "n k"],
    gaps: Float[Array, "k k"],
    code: Array,
    rtol: float,
    max_products: int,
) -> EigenSolution:
    """Eigenpairs of the symmetric operator x -> product(params, x), found before, as functions of `params`.

    Args:
        product: pure function of parameters and one vector.
        params: pytree of arrays; those that are floating are differentiated.
        values: eigenvalues as found.
        vectors: orthonormal eigenvectors as found.
        gaps: differences |lambda_i - lambda_j| up to this size count as zero.
        code: status; all derivatives are NaN unless CONVERGED.
        rtol: relative tolerance of the solves for X.
        max_products: products with A that one such solve may take for each vector.
    """

    def found(params: Any, fixed: tuple) -> EigenSolution:
        values, vectors, _, _ = fixed
        return EigenSolution(values, vectors, vectors, jnp.diag(values))

    def rule(primals: tuple, tangents: tuple) -> tuple:
        params, fixed = primals
        _, _, gaps, code = fixed
        out = solution(params, fixed)
        leaves, tree = jax.tree.flatten(params)
        dots = tree.flatten_up_to(tangents[0])
        moving = [i for i, d in enumerate(dots) if isinstance(d, jax.Array | np.ndarray) and _floats(d)]
        if not moving:
            return out, jax.tree.map(jnp.zeros_like, out)

        def images(values: list, basis: Array) -> Array:
            new = list(leaves)
            for i, value in zip(moving, values, strict=True):
                new[i] = value
            return _many(product, jax.tree.unflatten(tree, new))(basis)

        point, dot = [leaves[i] for i in moving], [dots[i] for i in moving]
        poison = jnp.where(code == int(Status.CONVERGED), 1, jnp.nan).astype(out.values.dtype)

        def change(basis: Array) -> Array:
            return poison * jax.jvp(lambda p: images(p, basis), (point,), (dot,))[1]

        # One solve serves both: vectors = frame R with R = frame^T vectors, the identity in value, so X carries over.
        change_of_frame = change(out.frame)
        x = _across(_many(product, params), out.frame, out.projected, change_of_frame, rtol, max_products)
        r = out.frame.T @ out.vectors
        d_projected = _symmetric(out.frame.T @ change_of_frame)
        turn = r.T @ d_projected @ r
        d_vectors = out.vectors @ (_inverse_gaps(out.values, gaps) * turn) + x @ r
        return out, EigenSolution(jnp.diagonal(turn), d_vectors, x, d_projected)

    solution = ruled(found, rule)
    return solution(params, lax.stop_gradient((values, vectors, gaps, code)))


def _across(many: Callable, basis: Array, projected: Array, change: Array, rtol: float, max_products: int) -> Array:
    """Solves Q A Q X - X T = -Q dA V for X with V^T X = 0, where T = V^T A V; NaN where the solve fails."""

    def off(x: Array) -> Array:
        return x - basis @ (basis.T @ x)

    # Along V the operator is a multiple of one, as large as A: symmetric, regular, and without effect on X.
    size = jnp.max(jnp.abs(lax.stop_gradient(projected)))
    size = jnp.where(size > 0, size, 1)

    def operator(flat: Array) -> Array:
        x = flat.reshape(change.shape)
        clear = off(x)
        return jnp.ravel(off(many(clear)) - clear @ projected + size * (x - clear))

    def solve(matvec: Callable, b: Array) -> Array:
        x, stats = Minres(max_steps=max_products).solve(matvec, b, None, lambda v: v, rtol * norm2(b))
        return jnp.where(stats.code == int(Status.CONVERGED), x, jnp.nan)

    x = lax.custom_linear_solve(lambda v: operator(v), -jnp.ravel(off(change)), solve, symmetric=True)
    return off(x.reshape(change.shape))


def _inverse_gaps(values: Array, gaps: Array) -> Array:
    """F_ij = 1 / (lambda_j - lambda_i), zero where the two cannot be told apart."""
    difference = values[None, :] - values[:, None]
    same = jnp.abs(difference) <= gaps
    return jnp.where(same, 0, 1 / jnp.where(same, 1, difference))


def _many(product: Callable, params: Any) -> Callable:
    return jax.vmap(lambda x: product(params, x), in_axes=1, out_axes=1)


def _symmetric(matrix: Array) -> Array:
    return (matrix + matrix.T) / 2


def _floats(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jnp.inexact)
