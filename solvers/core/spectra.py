"""Eigenpairs and singular triplets of operators that are known by their products only, and their derivatives."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from .block_krylov import RitzPairs, Sizes, ritz_pairs
from .captured import fingerprint
from .checks import is_known, is_whole
from .eigen_rule import differentiable_eigenpairs
from .packing import Packing, hoist
from .status import SolverError, Status, failures, public_status

# What is wanted first: the largest rank of this function of the eigenvalue.
RANKS = {"largest": lambda v: v, "smallest": lambda v: -v, "magnitude": jnp.abs}


class Eigenpairs(eqx.Module):
    """What `eigsh` returns, the most wanted pair first.

    Attributes:
        values: eigenvalues, (k,).
        vectors: eigenvectors with norm 1, shaped like the example with a leading axis of length k.
        residuals: norm2(A v - value v), (k,); an eigenvalue of A lies no farther than that from each value.
        frame: equal to `vectors` in value; its derivative follows the subspace of all k and never turns inside of it.
        projected: diag(values) in value, (k, k); its derivative is the whole matrix frame^T dA frame.
        products: products with A.
        code: status as an integer array, one per batch entry under `vmap`.
    """

    values: Float[Array, "*batch k"]
    vectors: Any
    residuals: Float[Array, "*batch k"]
    frame: Any
    projected: Float[Array, "*batch k k"]
    products: Array
    code: Array

    @property
    def status(self) -> Status | Array:
        """`Status` outside of `jit` and `vmap`; the array of codes inside or for a batch."""
        return public_status(self.code)

    def check(self) -> "Eigenpairs":
        """Return the pairs themselves, or raise `SolverError` if not all have converged.

        Raises:
            SolverError: with residuals and the number of products.
            TypeError: inside `jit`, where no value is known.
        """
        _check(self)
        return self


class SingularTriplets(eqx.Module):
    """What `svds` returns, the largest singular value first.

    Attributes:
        left: left singular vectors, shaped like the output of A with a leading axis of length k.
        values: singular values, (k,).
        right: right singular vectors, shaped like the example with a leading axis of length k.
        residuals: sqrt(norm2(A v - s u)^2 + norm2(A^T u - s v)^2) / sqrt(2), (k,); a singular value of A lies no
            farther than that from each value.
        products: products with A and with its transpose together.
        code: status as an integer array, one per batch entry under `vmap`.
    """

    left: Any
    values: Float[Array, "*batch k"]
    right: Any
    residuals: Float[Array, "*batch k"]
    products: Array
    code: Array

    @property
    def status(self) -> Status | Array:
        """`Status` outside of `jit` and `vmap`; the array of codes inside or for a batch."""
        return public_status(self.code)

    def check(self) -> "SingularTriplets":
        """Return the triplets themselves, or raise `SolverError` if not all have converged.

        Raises:
            SolverError: with residuals and the number of products.
            TypeError: inside `jit`, where no value is known.
        """
        _check(self)
        return self


def eigsh(
    matvec: Callable,
    example: Any,
    *args: Any,
    k: int = 6,
    which: str = "largest",
    key: Array | None = None,
    rtol: float | None = None,
    block: int | None = None,
    max_products: int = 5000,
) -> Eigenpairs:
    """The outer eigenpairs of a symmetric operator, matrix-free and differentiable: A v = lambda v.

    Restarted block Krylov iteration from a random block with full orthogonalisation and Rayleigh-Ritz projection. Its
    products grow like sqrt(spread / gap), with gap the distance of the wanted eigenvalues from the rest; memory is
    about 2 k + 20 vectors. A pair has converged if its residual is below rtol times the largest modulus found, which
    makes the error of the value of second order in `rtol`. For eigenvalues in the middle, or the smallest of a stiff
    operator, hand over products with the inverse.

    Derivatives with respect to `args`, and to whatever `matvec` captures, hold in every mode and to any order:
    dlambda = v . dA v, and for the vectors one more Krylov solve. They are NaN unless the status is CONVERGED. Where
    eigenvalues repeat (to within the residuals) these are exact: symmetric functions of the repeated values; whatever
    depends on the vectors of an eigenspace by their projector sum_i v_i v_i^T. A single vector of an eigenspace has no
    derivative; it gets that of the eigenspace. Functions that mix values and vectors inside of an eigenspace, such as
    V f(Lambda) V^T, are exact when written with `frame` and `projected`. If the k-th eigenvalue equals the next one
    that was left out, vectors have no derivative at all: NaN.

    Args:
        matvec: A, a function (x, *args) -> array or pytree like x: linear in x and symmetric (the inner product is the
            sum of the products of all elements; scale x if yours has weights).
        example: array or pytree with the structure, shapes and dtype of x; its values do not matter.
        *args: parameters of the operator.
        k: number of eigenpairs.
        which: "largest" or "smallest" values, or largest "magnitude".
        key: random key of the first block, by default `jax.random.key(0)`.
        rtol: tolerance, by default 1e-8 in double and 1e-5 in single precision.
        block: width of a block, by default min(k, 4). As many copies of a repeated eigenvalue are found for sure; a
            wider block finds more of them, for more products.
        max_products: largest number of products; also of one solve for derivatives, for each vector.

    Returns:
        `Eigenpairs(values, vectors, residuals, ...)`. Status: CONVERGED; MAX_STEPS; NONFINITE; STAGNATED if products
        contradict the projection, which tells that A is not symmetric.

    Raises:
        ValueError: for a wrong k, `which` or tolerance, or unknowns that are not real and floating.
        TypeError: if `matvec` does not return what it takes.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def string(u, tension):                              # -tension u'' with fixed ends
        ...     u = jnp.pad(u, 1)
        ...     return tension * (2 * u[1:-1] - u[:-2] - u[2:]) * 100**2
        >>> modes = eigsh(string, jnp.zeros(99), 1.0, k=2, which="smallest", rtol=1e-10).check()
        >>> modes.values                                         # (k pi)^2
        Array([ 9.86, 39.46], dtype=float64)
        >>> jax.grad(lambda t: eigsh(string, jnp.zeros(99), t, k=2, which="smallest").values[0])(1.0)
        Array(9.86, dtype=float64, weak_type=True)

    Reference:
        K. Wu, H. Simon, SIAM J. Matrix Anal. Appl. 22 (2000) 602 (restart); C. Musco, C. Musco, NeurIPS 2015 (random
        block Krylov spaces); `core.eigen_rule` (derivatives).
    """
    if which not in RANKS:
        raise ValueError(f"`which` must be one of {tuple(RANKS)}, got {which!r}.")
    packing, rtol, key = _check_input(matvec, example, rtol, key, max_products)
    k, block = _check_counts(k, block, packing.size, "example")
    out = jax.eval_shape(lambda x: matvec(x, *args), example)
    if _shapes(out) != _shapes(example):
        raise TypeError(f"`matvec` must return what it takes, {_shapes(example)}; it returns {_shapes(out)}.")
    choices = _Choices(k, which, rtol, block, max_products, fingerprint((matvec, args)))
    return _eigsh(matvec, args, packing, key, choices)


def svds(
    matvec: Callable,
    example: Any,
    *args: Any,
    k: int = 6,
    key: Array | None = None,
    rtol: float | None = None,
    block: int | None = None,
    max_products: int = 5000,
) -> SingularTriplets:
    """The largest singular triplets of a linear operator, matrix-free and differentiable: A v = s u, A^T u = s v.

    The transpose is taken from `matvec` itself. The iteration of `eigsh` runs on A^T A or A A^T, whichever is smaller,
    and a singular value decomposition of the product with the found subspace restores the accuracy lost by squaring. A
    triplet has converged if its residual is below rtol times the largest singular value.

    Derivatives are those of the eigenpairs (u, v) / sqrt(2) of [[0, A], [A^T, 0]] and behave as those of `eigsh`:
    ds = u . dA v; exact for whatever does not depend on the choice among vectors of repeated singular values; NaN
    unless CONVERGED. Vectors of the singular value 0 have none, so choose k no larger than the rank.

    Args:
        matvec: A, a function (x, *args) -> array or pytree of floating arrays, linear in x.
        example: array or pytree with the structure, shapes and dtype of x; its values do not matter.
        *args: parameters of the operator.
        k: number of triplets.
        key: random key of the first block, by default `jax.random.key(0)`.
        rtol: tolerance, by default 1e-8 in double and 1e-5 in single precision.
        block: width of a block, by default min(k, 4); see `eigsh`.
        max_products: largest number of products with A and its transpose together.

    Returns:
        `SingularTriplets(left, values, right, residuals, ...)`. Status: CONVERGED, MAX_STEPS or NONFINITE.

    Raises:
        ValueError: for a wrong k or tolerance, or unknowns that are not real and floating.

    Example:
        >>> import jax.numpy as jnp
        >>> shear = lambda x, s: jnp.array([x[0] + s * x[1], x[1]])
        >>> svds(shear, jnp.zeros(2), 1.5, k=2).check().values   # 2 and 1/2
        Array([2. , 0.5], dtype=float64)

    Reference:
        N. Halko, P. G. Martinsson, J. A. Tropp, SIAM Review 53 (2011) 217, section 5.1 (from a subspace to triplets).
    """
    packing, rtol, key = _check_input(matvec, example, rtol, key, max_products)
    out = jax.eval_shape(lambda x: matvec(x, *args), example)
    image = _packing(out, "the output of `matvec`")
    k, block = _check_counts(k, block, min(packing.size, image.size), "example or output")
    choices = _Choices(k, "largest", rtol, block, max_products, fingerprint((matvec, args)))
    return _svds(matvec, args, packing, image, key, choices)


class _Choices(NamedTuple):
    """What is static, and a fingerprint of what the operator captures."""

    k: int
    which: str
    rtol: float
    block: int
    max_products: int
    seen: Any


@eqx.filter_jit
def _eigsh(matvec: Callable, args: tuple, packing: Packing, key: Array, choices: _Choices) -> Eigenpairs:
    k, which, rtol, block, max_products, _ = choices
    pure, captured = _flat(matvec, args, packing)
    found = ritz_pairs(
        lambda x: pure(lax.stop_gradient(captured), x),
        packing.size,
        Sizes.of(k, block),
        key,
        RANKS[which],
        lambda _, scale: rtol * scale,
        max_products,
        packing.dtype,
    )
    found = lax.stop_gradient(found)
    code = _judge(found, rtol * found.scale)
    gaps = _indistinct(found.residuals, found.scale)
    pairs = differentiable_eigenpairs(
        pure, captured, found.values, found.vectors, gaps, code, _inner(rtol, packing), max_products
    )
    unpack = jax.vmap(packing.unpack, in_axes=1)
    return Eigenpairs(
        pairs.values,
        unpack(pairs.vectors),
        found.residuals,
        unpack(pairs.frame),
        pairs.projected,
        found.products,
        code,
    )


@eqx.filter_jit
def _svds(
    matvec: Callable, args: tuple, packing: Packing, image: Packing, key: Array, choices: _Choices
) -> SingularTriplets:
    k, _, rtol, block, max_products, _ = choices
    pure, captured = _flat(matvec, args, packing, image)
    columns, rows = packing.size, image.size
    example = jnp.zeros(columns, packing.dtype)

    def transposed(params: Any, y: Array) -> Array:
        return jax.linear_transpose(lambda x: pure(params, x), example)(y)[0]

    fixed = lax.stop_gradient(captured)

    def ahead(x: Array) -> Array:
        return pure(fixed, x)

    def back(y: Array) -> Array:
        return transposed(fixed, y)

    first, second = (ahead, back) if columns <= rows else (back, ahead)
    tiny = math.sqrt(packing.precision)

    def allowed(squares: Array, scale: Array) -> Array:
        # The residual of the square is s times that of the triplet; below sqrt(eps) squares are round-off.
        sizes = jnp.maximum(jnp.sqrt(jnp.maximum(squares, 0)), tiny * jnp.sqrt(scale))
        return rtol * jnp.sqrt(scale) * sizes

    found = ritz_pairs(
        lambda x: second(first(x)),
        min(columns, rows),
        Sizes.of(k, block),
        key,
        RANKS["largest"],
        allowed,
        max_products // 2,
        packing.dtype,
    )
    sides, values, turn = jnp.linalg.svd(jax.vmap(first, in_axes=1, out_axes=1)(found.vectors), full_matrices=False)
    near = found.vectors @ turn.T
    other = jax.vmap(second, in_axes=1, out_axes=1)(sides)
    residuals = jnp.linalg.norm(other - near * values, axis=0) / math.sqrt(2)
    left, right = (sides, near) if columns <= rows else (near, sides)
    found = found._replace(values=values, residuals=residuals, scale=values[0], products=2 * (found.products + k))
    found = lax.stop_gradient(found)
    code = _judge(found, rtol * found.scale)

    def both(params: Any, x: Array) -> Array:
        return jnp.concatenate([pure(params, x[rows:]), transposed(params, x[:rows])])

    vectors = lax.stop_gradient(jnp.concatenate([left, right])) / math.sqrt(2)
    gaps = _indistinct(residuals, found.scale)
    pairs = differentiable_eigenpairs(
        both, captured, found.values, vectors, gaps, code, _inner(rtol, packing), max_products
    )
    halves = pairs.vectors * math.sqrt(2)
    left, right = jax.vmap(image.unpack, in_axes=1)(halves[:rows]), jax.vmap(packing.unpack, in_axes=1)(halves[rows:])
    return SingularTriplets(left, pairs.values, right, found.residuals, found.products, code)


def _flat(matvec: Callable, args: tuple, packing: Packing, image: Packing | None = None) -> tuple[Callable, list]:
    """`matvec` as a pure function (captured, vector) -> vector, and all arrays that it depends on."""
    image = packing if image is None else image

    def flat(x: Array) -> Array:
        return image.pack(matvec(packing.unpack(x), *args))

    return hoist(flat, jnp.zeros(packing.size, packing.dtype))


def _judge(found: RitzPairs, allowed: Array) -> Array:
    """Status of pairs from the residuals that products have confirmed; estimate and truth differ by round-off."""
    eps = jnp.finfo(found.values.dtype).eps
    kept = jnp.all(found.residuals <= 2 * allowed + 100 * eps * found.scale)
    code = jnp.where(found.expected, int(Status.STAGNATED), int(Status.MAX_STEPS))
    code = jnp.where(kept, int(Status.CONVERGED), code)
    finite = jnp.all(jnp.isfinite(found.values)) & jnp.all(jnp.isfinite(found.residuals))
    return jnp.where(finite, code, int(Status.NONFINITE)).astype(jnp.int32)


def _indistinct(residuals: Array, scale: Array) -> Array:
    """Gaps up to which two eigenvalues may be one: their intervals, value +- residual, overlap."""
    return residuals[:, None] + residuals[None, :] + 100 * jnp.finfo(residuals.dtype).eps * scale


def _inner(rtol: float, packing: Packing) -> float:
    """Tolerance of the solves for derivatives: that of the pairs, but never what round-off forbids."""
    return max(rtol, 1e3 * packing.precision)


def _check_input(matvec: Any, example: Any, rtol: Any, key: Any, max_products: Any) -> tuple[Packing, float, Array]:
    if not callable(matvec):
        raise TypeError(
            f"`matvec` must be a function of a vector, got {type(matvec).__name__}; a matrix A is `lambda x: A @ x`."
        )
    packing = _packing(example, "`example`")
    if rtol is None:
        rtol = 1e-8 if packing.precision < 1e-12 else 1e-5
    if not is_known(rtol) or not packing.precision <= float(rtol) < 1:
        raise ValueError(f"`rtol` must be a number between {packing.precision:.1e} and 1, got {rtol}.")
    if not is_whole(max_products) or max_products < 1:
        raise ValueError(f"`max_products` must be a whole number of at least 1, got {max_products!r}.")
    return packing, float(rtol), jax.random.key(0) if key is None else key


def _packing(tree: Any, name: str) -> Packing:
    leaves = jax.tree.leaves(tree)
    kinds = [jnp.result_type(x) for x in leaves]
    if not leaves or not all(jnp.issubdtype(d, jnp.floating) for d in kinds):
        raise ValueError(f"{name} must hold real floating arrays only, got dtypes {[str(d) for d in kinds]}.")
    return Packing(jax.tree.map(lambda x: x if hasattr(x, "dtype") else jnp.asarray(x), tree))


def _check_counts(k: Any, block: Any, size: int, name: str) -> tuple[int, int]:
    if not is_whole(k) or not 1 <= k <= size:
        raise ValueError(f"`k` must be a whole number from 1 to {size}, the size of {name}, got {k!r}.")
    if block is None:
        block = min(k, 4)
    if not is_whole(block) or block < 1:
        raise ValueError(f"`block` must be a whole number of at least 1, got {block!r}.")
    return k, min(block, size)


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: (jnp.shape(x), str(jnp.result_type(x))), tree)


def _check(found: Eigenpairs | SingularTriplets) -> None:
    bad = failures(found.code, Status.CONVERGED)
    if bad:
        listed = np.array2string(bad.first(found.residuals), precision=2)
        raise SolverError(
            f"{bad} after {bad.first(found.products)} products; residuals {listed}. "
            "MAX_STEPS: raise max_products, or ask for fewer or better separated pairs; STAGNATED: the operator is not "
            "symmetric or rtol is below its round-off."
        )
