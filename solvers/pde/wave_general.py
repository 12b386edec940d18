r"""Leapfrog with a density, or of fourth order in time: general, and differentiated by JAX.

With a density the operator is D-(b D+ u) per axis, b = 1 / rho on half nodes, with the staggered differences of the
order; fields are extended past a face by their images (u odd or even, b even), so that it is symmetric in the
trapezoidal inner product.

The modified equation replaces A u, A = m L, by A u + A A u / 12, which cancels the second-order error in time, since
u_tttt = (c^2 L)^2 u.

Reference: Dablain, Geophysics 51 (1986), 54 (modified equation); Virieux, Geophysics 49 (1984), 1933 (staggered).
"""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from .boundary import Absorbing, Face, Free, Periodic
from .layer import Slab, curvature, first_node, next_psi, next_zeta, spread
from .operators import staggered_difference
from .wave_stepper import Leap, LeapFrog, WaveState, from_leap, to_leap


class GeneralLeapFrog(eqx.Module):
    """Leapfrog by plain array operations.

    Attributes:
        base: coefficients, sources and layers.
        inverse: with a density, 1 / rho on the half nodes of each axis.
        time_order: 2 or 4.
    """

    base: LeapFrog
    inverse: list[Array] | None
    time_order: int = eqx.field(static=True)

    @property
    def dt(self) -> Array:
        return self.base.dt

    @property
    def kappa(self) -> Array:
        return self.base.kappa

    def enter(self, state: WaveState) -> Leap:
        return to_leap(self, state)

    def leave(self, carry: Leap) -> WaveState:
        return from_leap(self, carry)

    def central(self, velocity: Array, settled: Array) -> Array:
        """(u_+ - u_-) / (2 dt) = v + A v / 6 to fourth order."""
        if self.time_order == 2:
            return velocity
        return velocity + (1 - settled) * self._apply(velocity) / 6

    def acceleration(self, u: Array) -> Array:
        """A u, or A u + A A u / 12."""
        first = self._apply(u)
        return first if self.time_order == 2 else first + self._apply(first) / 12

    def step(self, carry: Leap, signals: Any) -> Leap:
        u, base = carry.u, self.base
        rate = self._apply(u)
        memory = []
        for slab, coefficients, old in zip(base.slabs(), base.layers, carry.memory, strict=True):
            term, kept = self._layer(u, slab, coefficients, old)
            memory.append(kept)
            rate = base.add_term(rate, base.m, term, slab, carry.clock)
        if self.time_order == 4:
            # The correction acts on what the layers have damped: applied to m L u alone it makes them unstable.
            rate = rate + self._apply(rate) / 12
        new = 2 * u - carry.previous + rate
        if base.sources is not None:
            new = new.at[base.sources.nodes].add(base.m[base.sources.nodes] * base.sources.windows(signals))
        return Leap(new, u, memory, carry.clock + 1)

    def _apply(self, u: Array) -> Array:
        if self.inverse is None:
            return self.base.acceleration(u)
        return self.base.m * sum(self._normal(u, axis) for axis in range(u.ndim))

    def _normal(self, u: Array, axis: int) -> Array:
        """D-(b D+ u) along one axis."""
        where, r = self.base.where, self.base.halo
        h, n = where.grid.spacing[axis], where.extended[axis]
        s = staggered_difference(2 * r)
        wide = _extend(u, axis, 2 * r - 1, where.faces[axis])
        slope = sum(
            s[k - 1] / h * (_part(wide, axis, r - 1 + k, n + 2 * r - 1) - _part(wide, axis, r - k, n + 2 * r - 1))
            for k in range(1, r + 1)
        )
        flux = self.inverse[axis] * slope  # type: ignore[index]
        return sum(
            s[k - 1] / h * (_part(flux, axis, r - 1 + k, n) - _part(flux, axis, r - k, n)) for k in range(1, r + 1)
        )  # type: ignore[return-value]

    def _layer(self, u: Array, slab: Slab, coefficients: tuple, memory: tuple) -> tuple[Array, tuple[Array, Array]]:
        """What a layer adds to the operator on its nodes, and its new memory."""
        axis, size, halo = slab.axis, slab.size, slab.halo
        faces, n = self.base.where.faces[axis], self.base.where.extended[axis]
        start = first_node(slab, n)
        strip = _part(_extend(u, axis, halo, faces), axis, start, size + 2 * halo)
        psi = next_psi(slab, coefficients, strip, memory[0])
        if self.inverse is None:
            rate, gradient = curvature(slab, strip), spread(slab, psi)
        else:
            # 1 / rho is known on as many half nodes past the ends as psi has.
            half = _part(self.inverse[axis], axis, start, size + halo)
            rate, gradient = _part(self._normal(u, axis), axis, start, size), spread(slab, half * psi)
        zeta = next_zeta(slab, coefficients, rate, memory[1], gradient)
        return gradient + zeta, (psi, zeta)


def _part(x: Array, axis: int, start: int, size: int) -> Array:
    return lax.slice_in_dim(x, start, start + size, axis=axis)


def _extend(field: Array, axis: int, width: int, faces: tuple[Face, Face]) -> Array:
    """A field with `width` nodes more at both ends of an axis: images, periodic copies, or zeros."""
    n = field.shape[axis]
    ends = []
    for side, face in enumerate(faces):
        if isinstance(face, Absorbing):
            end = jnp.zeros_like(_part(field, axis, 0, width)) if n >= width else _zeros(field, axis, width)
        elif isinstance(face, Periodic):
            end = _part(field, axis, 0 if side else n - width, width)
        else:
            end = jnp.flip(_part(field, axis, n - 1 - width if side else 1, width), axis)
            end = -end if isinstance(face, Free) else end
        ends.append(end)
    return jnp.concatenate([ends[0], field, ends[1]], axis)


def _zeros(field: Array, axis: int, width: int) -> Array:
    return jnp.zeros([width if a == axis else n for a, n in enumerate(field.shape)], field.dtype)


def half_node_inverses(density: Any, faces: tuple[tuple[Face, Face], ...], order: int, xp: Any = jnp) -> list:
    """1 / rho on half nodes for every axis, order / 2 - 1 half nodes past both ends.

    log(rho) is interpolated to the order of the scheme: exact to that order where rho is smooth, positive everywhere.
    """
    r = order // 2
    weights = midpoint_weights(order)
    inverses = []
    for axis, pair in enumerate(faces):
        wide = xp.log(density)
        for side, face in enumerate(pair):
            mode = "wrap" if isinstance(face, Periodic) else "edge" if isinstance(face, Absorbing) else "reflect"
            if mode == "wrap" and side:
                continue
            n = 2 * r - 1
            width = (n, n) if mode == "wrap" else (0, n) if side else (n, 0)
            wide = xp.pad(wide, [width if a == axis else (0, 0) for a in range(density.ndim)], mode=mode)
        count = density.shape[axis] + 2 * r - 1
        total: Any = 0
        for k, w in enumerate(weights):
            index = [slice(None)] * density.ndim
            index[axis] = slice(k, k + count)
            total = total + w * wide[tuple(index)]
        inverses.append(xp.exp(-total))
    return inverses


def midpoint_weights(order: int) -> tuple[float, ...]:
    """Weights that interpolate `order` neighbouring nodes to their middle.

    Example:
        >>> midpoint_weights(4)
        (-0.0625, 0.5625, 0.5625, -0.0625)
    """
    nodes = np.arange(order) - (order - 1) / 2
    return tuple(float(np.prod([-b / (a - b) for b in nodes if b != a])) for a in nodes)


def density_bound(
    speed: np.ndarray, density: np.ndarray, faces: tuple, order: int, spacing: tuple[float, ...]
) -> float:
    """Largest sum of absolute values in a row of rho c^2 sum_a D-(b D+)."""
    r, s = order // 2, np.abs(staggered_difference(order))
    rows = np.zeros_like(speed)
    for axis, (inverse, h) in enumerate(zip(half_node_inverses(density, faces, order, np), spacing, strict=True)):
        n = speed.shape[axis]
        for k in range(1, r + 1):
            for start in (r - 1 + k, r - k):
                rows += 2 * s.sum() * s[k - 1] / h**2 * np.take(inverse, range(start, start + n), axis=axis)
    return float(np.max(speed**2 * density * rows))
