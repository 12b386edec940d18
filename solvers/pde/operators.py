"""Finite differences on a buffer with a halo, which walls and periodic faces fill."""

from fractions import Fraction
from functools import lru_cache
from math import factorial

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from .boundary import Absorbing, Face, Free, Periodic


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


@lru_cache
def one_sided_root(order: int) -> tuple[tuple[float, ...], float]:
    """A difference (d_0, ..., d_r) with u'(x) ~ sum_k d_k u(x_k) / h whose square is the second difference exactly.

    sum_k d_k d_(k+m) = -c_m: the second difference of the order is minus the transpose of this one times itself.
    Returned with the place, counted from node 0, whose derivative it gives.

    The symbol of the second difference is not positive, so it factors (Fejer and Riesz): of every pair of roots z and
    1 / z of its polynomial one goes to each factor, chosen so that the place lies as near to the middle as possible.

    Example:
        >>> one_sided_root(2)
        ((-1.0, 1.0), 0.5)
    """
    c = second_difference(order)
    r = order // 2
    polynomial = -np.array([*c[:0:-1], *c])
    rest = np.polydiv(polynomial, [1.0, -2.0, 1.0])[0]
    inside = [z for z in np.roots(rest) if abs(z) < 1 and z.imag >= -1e-12]
    best: tuple[tuple[float, ...], float] | None = None
    for choice in range(2 ** len(inside)):
        roots: list[complex] = [1.0]
        for i, z in enumerate(inside):
            root = 1 / z if choice >> i & 1 else z
            roots += [root.real] if abs(z.imag) < 1e-12 else [root, root.conjugate()]
        d = np.poly(roots).real[::-1]
        k = np.arange(r + 1)
        d = d / (d @ k)
        place = float(d @ k**2 / 2)
        if best is None or abs(place - r / 2) < abs(best[1] - r / 2):
            best = tuple(float(x) for x in d), place
    assert best is not None
    return best


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


def pad(field: Array, halo: int, faces: tuple[tuple[Face, Face], ...]) -> Array:
    """A field in a buffer with a halo: images at free (odd) and rigid (even) faces, periodic copies, else zeros.

    Corners stay zero: no stencil reaches them.
    """
    buffer = jnp.pad(field, halo)
    for axis, pair in enumerate(faces):
        n = field.shape[axis]
        for side, face in enumerate(pair):
            if isinstance(face, Absorbing):
                continue
            if isinstance(face, Periodic):
                strip = lax.slice_in_dim(field, 0, halo, axis=axis) if side else _last(field, halo, axis)
            else:
                strip = lax.slice_in_dim(field, n - 1 - halo if side else 1, n - 1 if side else halo + 1, axis=axis)
                strip = jnp.flip(strip, axis)
                strip = -strip if isinstance(face, Free) else strip
            start = [halo] * field.ndim
            start[axis] = halo + n if side else 0
            buffer = lax.dynamic_update_slice(buffer, strip, start)
    return buffer


def _last(field: Array, count: int, axis: int) -> Array:
    n = field.shape[axis]
    return lax.slice_in_dim(field, n - count, n, axis=axis)


def add_at(buffer: Array, value: Array, start: tuple) -> Array:
    """Add a block to a buffer in place, from the corner `start`, which may be traced."""
    old = lax.dynamic_slice(buffer, start, value.shape)
    return lax.dynamic_update_slice(buffer, old + value, start)
