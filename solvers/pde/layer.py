r"""Absorbing layers: a convolutional perfectly matched layer that lives in slabs only.

In a layer normal to x the second derivative becomes (1/s) d/dx ((1/s) d/dx u) with s = 1 + sigma / (alpha + i omega).
In time, with b = exp(-(sigma + alpha) dt) and a = sigma / (sigma + alpha) (b - 1),

    psi  <- b psi  + a D+ u                        on half nodes,
    zeta <- b zeta + a (u_xx + D- psi)             on nodes,
    u_xx is replaced by u_xx + D- psi + zeta,

with differences such that D- D+ is the second difference itself (`one_sided_root`; with a density the staggered ones).
The pair matters: with staggered differences and the second difference of order 4 or more, D- D+ is the more negative
of the two at short wavelengths, the layer drives them, and they grow without bound.

All of it acts along the normal only, so a slab is three small banded matrices, and its transpose is three more.

Reference: Roden and Gedney, Microwave and Optical Technology Letters 27 (2000), 334 (the recursive convolution);
Pasalic and McGarry, SEG Expanded Abstracts 29 (2010), 2925 (second order in time).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from .boundary import Absorbing, Face
from .operators import along, one_sided_root, second_difference, staggered_difference

# Reflection that the damping is designed for, and the power of its profile: tuned so that a 20-cell layer stays below
# 1e-4 for pulses from 8 to 30 points per wavelength at their peak frequency (table in the documentation).
TARGET, POWER = 1e-6, 2


class Slab(NamedTuple):
    """One absorbing layer: where it lies and its matrices (static).

    It covers `size` = width + order / 2 nodes, those of the layer and those that its stencils reach, and as many half
    nodes; the damping is zero beyond the layer.
    """

    axis: int
    upper: bool
    width: int
    size: int
    gradient: np.ndarray  # half nodes from nodes
    curvature: np.ndarray  # nodes from nodes
    divergence: np.ndarray  # nodes from half nodes
    depth: np.ndarray  # of the nodes, 0 at the interface and inside of the grid, 1 at the outermost node
    half_depth: np.ndarray


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
    c = second_difference(order)
    if staggered:
        half = staggered_difference(order)
        first, d, place = -r, (*(-x for x in half[::-1]), *half), -0.5
    else:
        d, place = one_sided_root(order)
        first = -round(place + 0.25)
        place += first
    size = width + r
    gradient, curvature, divergence = np.zeros((3, size, size))

    def put(matrix: np.ndarray, row: int, column: int, value: float) -> None:
        # The field and psi are zero outside of the layer's outer edge; the rows where the damping is zero do not count.
        if 0 <= column < size:
            matrix[row, column] += value

    # Row i of the gradient reads the nodes i + first, ..., and lives at i + place; the interface is node `width`.
    for j in range(size):
        for k, dk in enumerate(d):
            put(gradient, j, j + first + k, dk / h)
            put(divergence, j, j - first - k, -dk / h)
        for k in range(-r, r + 1):
            put(curvature, j, j + k, c[abs(k)] / h**2)
    nodes = np.arange(size)
    depth, half_depth = (np.clip((width - x) / width, 0, None) for x in (nodes, nodes + place))
    if upper:
        gradient, curvature, divergence = -gradient[::-1, ::-1], curvature[::-1, ::-1], -divergence[::-1, ::-1]
        depth, half_depth = depth[::-1], half_depth[::-1]
    return Slab(axis, upper, width, size, gradient, curvature, divergence, depth, half_depth)


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
        return jnp.expm1(-sigma * dt), jnp.exp(-sigma * dt)

    return coefficients(slab.half_depth), coefficients(slab.depth)


def start_memory(slab: Slab, shape: tuple[int, ...], dtype: np.dtype) -> tuple[Array, Array]:
    """psi and zeta at rest."""
    zeros = jnp.zeros([slab.size if axis == slab.axis else n for axis, n in enumerate(shape)], dtype)
    return zeros, zeros


def first_node(slab: Slab, n: int) -> int:
    """First of the nodes, along its axis of n nodes, that a slab reads and adds to."""
    return n - slab.size if slab.upper else 0


def apply_slab(
    slab: Slab, coefficients: tuple, block: Array, memory: tuple, flux: tuple[Array, Array] | None = None
) -> tuple[Array, tuple[Array, Array]]:
    """What the layer adds to the Laplacian on its nodes, and its new memory.

    Args:
        slab: the layer.
        coefficients: of `damping`.
        block: the field on these nodes.
        memory: (psi, zeta).
        flux: with a density, 1 / rho on the half nodes of the layer and (b u_x)_x on its nodes.
    """
    axis, size = slab.axis, slab.size
    (a_half, b_half), (a, b) = _lifted(slab, coefficients, block.ndim)
    if flux is None:
        both = along(np.concatenate([slab.gradient, slab.curvature]), block, axis)
        slope, curvature = (lax.slice_in_dim(both, start, start + size, axis=axis) for start in (0, size))
    else:
        slope, curvature = along(slab.gradient, block, axis), flux[1]
    psi = b_half * memory[0] + a_half * slope
    spread = along(slab.divergence, psi if flux is None else flux[0] * psi, axis)
    zeta = b * memory[1] + a * (curvature + spread)
    return spread + zeta, (psi, zeta)


def pull_slab(slab: Slab, coefficients: tuple, term: Array, memory: tuple) -> tuple[Array, tuple[Array, Array]]:
    """The transpose of `apply_slab` in (block, memory) for constant density: by hand, with matrices transposed once.

    Args:
        slab: the layer.
        coefficients: of `damping`.
        term: cotangent of what the layer adds.
        memory: cotangents of the new (psi, zeta).

    Returns:
        Cotangents of the block and of the old (psi, zeta).
    """
    axis = slab.axis
    (a_half, b_half), (a, b) = _lifted(slab, coefficients, term.ndim)
    zeta = memory[1] + term
    psi = memory[0] + along(slab.divergence.T, term + a * zeta, axis)
    block = along(slab.gradient.T, a_half * psi, axis) + along(slab.curvature.T, a * zeta, axis)
    return block, (b_half * psi, b * zeta)


def _lifted(slab: Slab, coefficients: tuple, ndim: int) -> tuple:
    lift = [-1 if a == slab.axis else 1 for a in range(ndim)]
    return jax.tree.map(lambda c: c.reshape(lift), coefficients)
