r"""Absorbing layers: a convolutional perfectly matched layer that lives in slabs only.

In a layer normal to x the second derivative becomes (1/s) d/dx ((1/s) d/dx u) with s = 1 + sigma / (alpha + i omega).
In time, with b = exp(-(sigma + alpha) dt) and a = sigma / (sigma + alpha) (b - 1),

    psi  <- b psi  + a D+ u                        on half nodes,
    zeta <- b zeta + a (u_xx + D- psi)             on nodes,
    u_xx is replaced by u_xx + D- psi + zeta,

with the staggered differences D+, D- of the order of the scheme. All of it acts along the normal only, so a slab is
three small banded matrices, and its transpose is three more.

Reference: Roden and Gedney, Microwave and Optical Technology Letters 27 (2000), 334 (the recursive convolution);
Pasalic and McGarry, SEG Expanded Abstracts 29 (2010), 2925 (second order in time).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from .boundary import Absorbing, Face
from .operators import along, second_difference, staggered_difference

# Reflection that the damping is designed for, and the power of its profile: tuned so that a 20-cell layer stays below
# 1e-4 for pulses from 5 to 30 points per wavelength (see the measured table in the documentation).
TARGET, POWER = 1e-5, 3


class Slab(NamedTuple):
    """One absorbing layer: where it lies and its matrices (static)."""

    axis: int
    upper: bool
    width: int
    halo: int
    gradient: np.ndarray  # half nodes from nodes: (width + 1, width + halo)
    curvature: np.ndarray  # nodes from nodes: (width, width + halo)
    divergence: np.ndarray  # nodes from half nodes: (width + halo, width + 1)
    depth: np.ndarray  # of the nodes in the layer, 0 at the interface, 1 at the outer edge
    half_depth: np.ndarray


def slabs(faces: tuple[tuple[Face, Face], ...], order: int, spacing: tuple[float, ...]) -> list[Slab]:
    """The absorbing layers of a box."""
    found = []
    for axis, (pair, h) in enumerate(zip(faces, spacing, strict=True)):
        for side, face in enumerate(pair):
            if isinstance(face, Absorbing):
                found.append(_slab(axis, side == 1, face.width, order, h))
    return found


def _slab(axis: int, upper: bool, width: int, order: int, h: float) -> Slab:
    r = order // 2
    s, c = staggered_difference(order), second_difference(order)
    gradient = np.zeros((width + 1, width + 2 * r))
    curvature = np.zeros((width, width + 2 * r))
    divergence = np.zeros((width + r, width + 1))
    # Node j of the slab is column j + r; half node i sits between the nodes i - 1 and i.
    for i in range(width + 1):
        for k in range(1, r + 1):
            gradient[i, i + r + k - 1] += s[k - 1] / h
            gradient[i, i + r - k] -= s[k - 1] / h
    for j in range(width):
        curvature[j, j + r] += c[0] / h**2
        for k in range(1, r + 1):
            curvature[j, j + r + k] += c[k] / h**2
            curvature[j, j + r - k] += c[k] / h**2
    for j in range(width + r):
        for k in range(1, r + 1):
            if j + k <= width:
                divergence[j, j + k] += s[k - 1] / h
            if 0 <= j + 1 - k <= width:
                divergence[j, j + 1 - k] -= s[k - 1] / h
    # The field outside of the layer is zero.
    gradient, curvature = gradient[:, r:], curvature[:, r:]
    depth = (width - np.arange(width)) / width
    half_depth = (width - np.arange(width + 1) + 0.5) / width
    if upper:
        gradient, curvature, divergence = -gradient[::-1, ::-1], curvature[::-1, ::-1], -divergence[::-1, ::-1]
        depth, half_depth = depth[::-1], half_depth[::-1]
    return Slab(axis, upper, width, r, gradient, curvature, divergence, depth, half_depth)


def damping(slab: Slab, speed: Array, dt: Array, h: float) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Coefficients (a, b) on half nodes and on nodes.

    They depend on the largest speed only, rounded to steps of 7 %: piecewise constant, so that the layer adds nothing
    to the gradient with respect to the speed and that gradient stays exact.
    """
    step = np.log(1.0718)
    fastest = jnp.exp(jnp.round(jnp.log(lax.stop_gradient(jnp.max(speed))) / step) * step)
    strength = (POWER + 1) * fastest * np.log(1 / TARGET) / (2 * slab.width * h)

    def coefficients(depth: np.ndarray) -> tuple[Array, Array]:
        sigma = strength * jnp.asarray(np.clip(depth, 0, None) ** POWER, dt.dtype)
        return jnp.expm1(-sigma * dt), jnp.exp(-sigma * dt)

    return coefficients(slab.half_depth), coefficients(slab.depth)


def start_memory(slab: Slab, shape: tuple[int, ...], dtype: np.dtype) -> tuple[Array, Array]:
    """psi and zeta at rest."""
    sizes = [
        [width if axis == slab.axis else n for axis, n in enumerate(shape)] for width in (slab.width + 1, slab.width)
    ]
    return jnp.zeros(sizes[0], dtype), jnp.zeros(sizes[1], dtype)


def first_node(slab: Slab, n: int) -> int:
    """First of the width + halo nodes, along its axis of n nodes, that a slab reads and adds to."""
    return n - slab.width - slab.halo if slab.upper else 0


def apply_slab(
    slab: Slab, coefficients: tuple, block: Array, memory: tuple, flux: tuple[Array, Array] | None = None
) -> tuple[Array, tuple[Array, Array]]:
    """What the layer adds to the Laplacian on its width + halo nodes, and its new memory.

    Args:
        slab: the layer.
        coefficients: of `damping`.
        block: the field on these nodes.
        memory: (psi, zeta).
        flux: with a density, 1 / rho on the half nodes of the layer and (b u_x)_x on its nodes.
    """
    axis, width, halo = slab.axis, slab.width, slab.halo
    lift = [-1 if a == axis else 1 for a in range(block.ndim)]
    (a_half, b_half), (a, b) = jax.tree.map(lambda c: c.reshape(lift), coefficients)
    if flux is None:
        both = along(np.concatenate([slab.gradient, slab.curvature]), block, axis)
        slope, curvature = _cut(both, axis, 0, width + 1), _cut(both, axis, width + 1, width)
    else:
        slope, curvature = along(slab.gradient, block, axis), flux[1]
    psi = b_half * memory[0] + a_half * slope
    spread = along(slab.divergence, psi if flux is None else flux[0] * psi, axis)
    zeta = b * memory[1] + a * (curvature + _cut(spread, axis, halo if slab.upper else 0, width))
    pad = (halo, 0) if slab.upper else (0, halo)
    return spread + jnp.pad(zeta, [pad if d == axis else (0, 0) for d in range(block.ndim)]), (psi, zeta)


def _cut(x: Array, axis: int, start: int, size: int) -> Array:
    return lax.slice_in_dim(x, start, start + size, axis=axis)
