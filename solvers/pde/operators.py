"""Finite differences on a buffer with a halo of zeros, and what walls and periodic faces add to them."""

from fractions import Fraction
from functools import lru_cache
from math import factorial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from .boundary import Face, Free, Periodic, Rigid


@lru_cache
def second_difference(order: int) -> tuple[float, ...]:
    """Weights (c_0, c_1, ..., c_r) of u'' ~ (c_0 u_0 + sum_k c_k (u_k + u_-k)) / h^2, r = order / 2.

    Example:
        >>> second_difference(4)
        (-2.5, 1.3333333333333333, -0.08333333333333333)

    Reference:
        Fornberg, Mathematics of Computation 51 (1988), 699: c_k = 2 (-1)^(k+1) (r!)^2 / (k^2 (r-k)! (r+k)!).
    """
    r = order // 2
    outer = [
        Fraction(2 * (-1) ** (k + 1) * factorial(r) ** 2, k**2 * factorial(r - k) * factorial(r + k))
        for k in range(1, r + 1)
    ]
    return tuple(float(c) for c in [-2 * sum(outer), *outer])


@lru_cache
def staggered_difference(order: int) -> tuple[float, ...]:
    """Weights (s_1, ..., s_r) of u'(half node) ~ sum_k s_k (u_(k-1/2) - u_-(k-1/2)) / h.

    Example:
        >>> staggered_difference(4)
        (1.125, -0.041666666666666664)

    Reference:
        Fornberg, Mathematics of Computation 51 (1988), 699.
    """
    r = order // 2
    odd = [2 * k - 1 for k in range(1, r + 1)]
    weights = []
    for a in odd:
        product = Fraction(1)
        for b in odd:
            if b != a:
                product *= Fraction(b * b, b * b - a * a)
        weights.append(float(product / a))
    return tuple(weights)


def interior(ndim: int, halo: int) -> tuple[slice, ...]:
    """The index of what lies inside the halo."""
    return (slice(halo, -halo),) * ndim


def shifted(buffer: Array, halo: int, axis: int, shift: int) -> Array:
    """The inside of a buffer, moved by `shift` nodes along an axis: a static slice."""
    index = list(interior(buffer.ndim, halo))
    index[axis] = slice(halo + shift, buffer.shape[axis] - halo + shift)
    return buffer[tuple(index)]


def laplacian(buffer: Array, order: int, inverse_squares: tuple[float, ...]) -> Array:
    """sum_a u_aa inside a buffer with a halo of order / 2; `inverse_squares` are 1 / h_a^2."""
    r = order // 2
    c = second_difference(order)
    out = (c[0] * sum(inverse_squares)) * buffer[interior(buffer.ndim, r)]
    for axis, scale in enumerate(inverse_squares):
        for k in range(1, r + 1):
            out = out + (c[k] * scale) * (shifted(buffer, r, axis, k) + shifted(buffer, r, axis, -k))
    return out


class Strip(NamedTuple):
    """Nodes near a face whose stencil reaches past it: what the image or periodic nodes contribute there.

    `matrix @ u[source : source + matrix.shape[1]]` along `axis` is added to nodes `target : target + matrix.shape[0]`.
    """

    axis: int
    target: int
    source: int
    matrix: np.ndarray


def strips(faces: tuple[tuple[Face, Face], ...], shape: tuple[int, ...], order: int, scales: tuple) -> list[Strip]:
    """The strips of all faces that are not absorbing, for the second difference of the given order."""
    r = order // 2
    c = second_difference(order)
    found = []
    for axis, (pair, n, scale) in enumerate(zip(faces, shape, scales, strict=True)):
        for side, face in enumerate(pair):
            if not isinstance(face, (Free, Rigid, Periodic)):
                continue
            periodic = isinstance(face, Periodic)
            matrix = np.zeros((r, r if periodic else r + 1))
            for j in range(r):
                for k in range(j + 1, r + 1):
                    # Node j reaches node j - k < 0: its image is node k - j, its periodic copy the node n + j - k.
                    if periodic:
                        matrix[j, r + j - k] += c[k] * scale
                    else:
                        matrix[j, k - j] += c[k] * scale * (-1.0 if isinstance(face, Free) else 1.0)
            if side == 0:
                found.append(Strip(axis, 0, n - r if periodic else 0, matrix))
            else:
                found.append(Strip(axis, n - r, 0 if periodic else n - r - 1, matrix[::-1, ::-1]))
    return found


def along(matrix: np.ndarray | Array, block: Array, axis: int, first: bool = False) -> Array:
    """Multiply a block by a matrix along one axis; with `first` the result has that axis in front."""
    matrix = jnp.asarray(matrix, block.dtype)
    out = jnp.tensordot(matrix, block, axes=((1,), (axis,)), precision=lax.Precision.HIGHEST)
    return out if first else jnp.moveaxis(out, 0, axis)


def strip_term(strip: Strip, buffer: Array, halo: int) -> Array:
    """What a strip adds to the Laplacian on its target nodes."""
    index = list(interior(buffer.ndim, halo))
    index[strip.axis] = slice(halo + strip.source, halo + strip.source + strip.matrix.shape[1])
    return along(strip.matrix, buffer[tuple(index)], strip.axis)


def add_at(buffer: Array, value: Array, start: tuple) -> Array:
    """Add a block to a buffer in place, from the corner `start`, which may be traced."""
    old = lax.dynamic_slice(buffer, start, value.shape)
    return lax.dynamic_update_slice(buffer, old + value, start)


def put_in(buffer: Array, value: Array, halo: int) -> Array:
    """Write the inside of a buffer, in place."""
    return lax.dynamic_update_slice(buffer, value, (halo,) * buffer.ndim)
