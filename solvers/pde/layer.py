r"""Absorbing layers: a convolutional perfectly matched layer that lives in slabs only.

In a layer normal to x the second derivative becomes (1/s) d/dx ((1/s) d/dx u) with s = 1 + sigma / (i omega).
In time, with b = exp(-sigma dt) and a = b - 1,

    psi  <- b psi  + a D+ u                        on half nodes,
    zeta <- b zeta + a (u_xx + D- psi)             on nodes,
    u_xx is replaced by u_xx + D- psi + zeta,

with differences such that D- D+ is the second difference itself (`one_sided_root`; with a density the staggered ones).
The pair matters: with staggered differences and the second difference of order 4 or more, D- D+ is the more negative
of the two at short wavelengths, the layer drives them, and they grow without bound.

All of it acts along the normal only. A slab reads the field in a strip with a halo, and keeps psi with a margin of
half nodes where the damping is zero, so that every difference is a sum of static slices. Since D- is minus the
transpose of D+ the same sums serve the transpose.

Reference: Roden and Gedney, Microwave and Optical Technology Letters 27 (2000), 334 (the recursive convolution);
Pasalic and McGarry, SEG Expanded Abstracts 29 (2010), 2925 (second order in time).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from .boundary import Absorbing, Face
from .operators import one_sided_root, second_difference, staggered_difference

# Reflection that the damping is designed for, and the power of its profile: tuned so that a 20-cell layer stays below
# 1e-4 for pulses from 8 to 30 points per wavelength at their peak frequency (table in the documentation).
TARGET, POWER = 1e-6, 2


class Slab(NamedTuple):
    """One absorbing layer: where it lies and its differences (static).

    It covers `size` = width + order / 2 nodes, those of the layer and those that its stencils reach. A field is read in
    a strip with `halo` nodes more at both ends; psi lives on size + halo half nodes, so that D- psi needs no care at
    the ends. The damping is zero beyond the layer.
    """

    axis: int
    upper: bool
    width: int
    size: int
    difference: tuple[float, ...]  # weights of D+ / h, away from the face for a lower layer
    second: tuple[float, ...]  # weights of the second difference / h^2
    depth: np.ndarray  # of the nodes, 0 at the interface and inside of the grid, 1 at the outermost node
    half_depth: np.ndarray

    @property
    def halo(self) -> int:
        return len(self.difference) - 1


def slabs(
    faces: tuple[tuple[Face, Face], ...], order: int, spacing: tuple[float, ...], staggered: bool = False
) -> list[Slab]:
    """The absorbing layers of a box, for the second difference, or for staggered differences as with a density."""
    found = []
    for axis, (pair, h) in enumerate(zip(faces, spacing, strict=True)):
        for side, face in enumerate(pair):
            if isinstance(face, Absorbing):
                found.append(_slab(axis, side == 1, face.width, order, h, staggered))
    return found


def _slab(axis: int, upper: bool, width: int, order: int, h: float, staggered: bool) -> Slab:
    r = order // 2
    if staggered:
        half = staggered_difference(order)
        d, first, place = (*(-x for x in half[::-1]), *half), -r, -0.5
    else:
        d, place = one_sided_root(order)
        first = -round(place + 0.25)
        place += first
    c = second_difference(order)
    # D+ on half node i reads the nodes i + first, ..., and gives the derivative at i + place; the interface is node
    # `width`. D- on node i reads the half nodes i - first - len(d) + 1, ..., i - first.
    size = width + r
    nodes = np.arange(size)
    half_nodes = np.arange(size + len(d) - 1) - (first + len(d) - 1)
    depth, half_depth = (np.clip((width - x) / width, 0, None) for x in (nodes, half_nodes + place))
    # psi is zero outside of the layer's outer edge.
    half_depth[half_nodes < 0] = 0
    if upper:
        depth, half_depth = depth[::-1], half_depth[::-1]
    second = tuple(c[abs(k)] / h**2 for k in range(-r, r + 1))
    return Slab(axis, upper, width, size, tuple(x / h for x in d), second, depth, half_depth)


def damping(slab: Slab, speed: Array, dt: Array, h: float) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Coefficients (a, b) on half nodes and on nodes.

    They depend on the largest speed only, rounded to steps of 7 %: piecewise constant, so that the layer adds nothing
    to the gradient with respect to the speed and that gradient stays exact.
    """
    step = math.log(1.0718)
    fastest = jnp.exp(jnp.round(jnp.log(lax.stop_gradient(jnp.max(speed))) / step) * step)
    strength = (POWER + 1) * fastest * math.log(1 / TARGET) / (2 * slab.width * h)

    def coefficients(depth: np.ndarray) -> tuple[Array, Array]:
        sigma = strength * jnp.asarray(depth**POWER, dt.dtype)
        # Where nothing is damped nothing is remembered.
        return jnp.expm1(-sigma * dt), jnp.where(depth > 0, jnp.exp(-sigma * dt), 0)

    return coefficients(slab.half_depth), coefficients(slab.depth)


def start_memory(slab: Slab, shape: tuple[int, ...], dtype: np.dtype) -> tuple[Array, Array]:
    """psi and zeta at rest."""

    def zeros(size: int) -> Array:
        return jnp.zeros([size if axis == slab.axis else n for axis, n in enumerate(shape)], dtype)

    return zeros(slab.size + slab.halo), zeros(slab.size)


def first_node(slab: Slab, n: int) -> int:
    """First of the nodes, along its axis of n nodes, that a slab adds to."""
    return n - slab.size if slab.upper else 0


def next_psi(slab: Slab, coefficients: tuple, strip: Array, psi: Array) -> Array:
    """psi <- b psi + a D+ u, with u in a strip of size + 2 halo nodes."""
    a, b = _lifted(slab, coefficients[0], strip.ndim)
    return b * psi + a * slope(slab, strip)


def next_zeta(slab: Slab, coefficients: tuple, curvature: Array, zeta: Array, spread: Array) -> Array:
    """zeta <- b zeta + a (u_xx + D- psi), on `size` nodes."""
    a, b = _lifted(slab, coefficients[1], zeta.ndim)
    return b * zeta + a * (curvature + spread)


def slope(slab: Slab, strip: Array) -> Array:
    """D+ u on all half nodes of the layer and its margins."""
    sign = -1 if slab.upper else 1
    return _sum(slab, [sign * d for d in slab.difference], strip, slab.size + slab.halo)


def spread(slab: Slab, psi: Array) -> Array:
    """D- psi on the nodes of the layer; D- is minus the transpose of D+."""
    sign = 1 if slab.upper else -1
    return _sum(slab, [sign * d for d in slab.difference[::-1]], psi, slab.size)


def curvature(slab: Slab, strip: Array) -> Array:
    """u_xx on the nodes of the layer."""
    return _sum(slab, slab.second, strip, slab.size, slab.halo - len(slab.second) // 2)


def pull_memory(slab: Slab, coefficients: tuple, strip: Array, memory: tuple[Array, Array]) -> tuple[Array, Array]:
    """One reverse step of the cotangents (P, Z) of psi and zeta.

    With the cotangent q of what the layer adds, in a strip with a halo,

        Z <- b Z + q,     P <- b P - D+ (q + a Z),

    both kept before the factor b, and Z in a strip like q, with zeros in a and b beyond the nodes of the layer.
    """
    psi_bar, zeta_bar = memory
    a, b = (_widen(slab, c, strip.ndim) for c in coefficients[1])
    _, b_half = _lifted(slab, coefficients[0], strip.ndim)
    zeta_bar = b * zeta_bar + strip
    return b_half * psi_bar - slope(slab, strip + a * zeta_bar), zeta_bar


def pull_field(slab: Slab, coefficients: tuple, memory: tuple[Array, Array]) -> Array:
    """Cotangent of the field on the nodes of the layer: -D- (a P) + (a Z)_xx."""
    psi_bar, zeta_bar = memory
    a_half, _ = _lifted(slab, coefficients[0], psi_bar.ndim)
    return curvature(slab, _widen(slab, coefficients[1][0], psi_bar.ndim) * zeta_bar) - spread(slab, a_half * psi_bar)


def open_memory(slab: Slab, coefficients: tuple, memory: tuple[Array, Array]) -> tuple[Array, Array]:
    """Cotangents of (psi, zeta) as `pull_memory` keeps them: before the factor b, where there is one."""

    def divide(bar: Array, b: Array) -> Array:
        return jnp.where(b > 0, bar / jnp.where(b > 0, b, 1), 0)

    psi_bar, zeta_bar = memory
    halo = [(slab.halo, slab.halo) if axis == slab.axis else (0, 0) for axis in range(psi_bar.ndim)]
    b_half, b = (_lifted(slab, c, psi_bar.ndim)[1] for c in coefficients)
    return divide(psi_bar, b_half), jnp.pad(divide(zeta_bar, b), halo)


def close_memory(slab: Slab, coefficients: tuple, memory: tuple[Array, Array]) -> tuple[Array, Array]:
    """The inverse of `open_memory`."""
    psi_bar, zeta_bar = memory
    b_half, b = (_lifted(slab, c, psi_bar.ndim)[1] for c in coefficients)
    inside = lax.slice_in_dim(zeta_bar, slab.halo, slab.halo + slab.size, axis=slab.axis)
    return b_half * psi_bar, b * inside


def _sum(slab: Slab, weights: Sequence[float], x: Array, count: int, start: int = 0) -> Array:
    """sum_k weights[k] x[start + k + (0, ..., count - 1)] along the normal, counted from the outside."""
    total: Any = 0
    for k, weight in enumerate(weights, start):
        k = x.shape[slab.axis] - count - k if slab.upper else k
        total = total + weight * lax.slice_in_dim(x, k, k + count, axis=slab.axis)
    return total


def _lifted(slab: Slab, coefficients: tuple, ndim: int) -> tuple:
    lift = [-1 if a == slab.axis else 1 for a in range(ndim)]
    return jax.tree.map(lambda c: c.reshape(lift), coefficients)


def _widen(slab: Slab, coefficient: Array, ndim: int) -> Array:
    """A coefficient on nodes as it acts in a strip: zero in the halo."""
    return _lifted(slab, (jnp.pad(coefficient, slab.halo),), ndim)[0]
