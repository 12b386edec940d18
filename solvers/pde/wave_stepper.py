r"""The leapfrog step of the acoustic wave equation on buffers, and its adjoint derived by hand.

With m = (c dt)^2 (zero on a free surface, where the pressure stays zero), the discrete Laplacian L with its boundary
terms, the layer terms P and the sources, one step is

    u_+ = 2 u - u_- + m (L u + P(u, memory)) + kappa w s,          kappa = m / D,

where D holds the weights of the trapezoidal rule (1/2 on a rigid wall), so that D L is symmetric. Let alpha be the
cotangent of u_+. With q = kappa alpha the reverse step is the same kernel again,

    q_new = 2 q - q_old + m L q + kappa (layers, transposed) + kappa (receivers, transposed),

because L^T D = D L. The gradient with respect to m is sum_n alpha_n (L u_n + P_n) = (D / m) sum_n q_n (L u_n + P_n),
and with respect to a source signal sum w q. Only L u + P is kept per step.

Reference: Plessix, Geophysical Journal International 167 (2006), 495, for the adjoint-state method; here it is the
adjoint of the discrete scheme, exact to round-off.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from .boundary import Periodic
from .layer import apply_slab, reach, slabs
from .operators import add_at, interior, laplacian, put_in, strip_term, strips
from .points import Geometry, PreparedReceivers

# Sources up to this number are added one window after the other, more in one scatter.
FEW = 8


class WaveState(eqx.Module):
    """State of a wave on the grid with its absorbing layers: pressure, its rate of change, memory of the layers.

    Made by `wave.state(pressure, velocity)` or `wave.at_rest()`; `wave.pressure(state)` gives the field on the grid.
    """

    pressure: Array
    velocity: Array
    memory: list[tuple[Array, Array]]


class Leap(eqx.Module):
    """What is marched: the field now and one step before, in buffers with a halo of zeros, and the layers' memory."""

    u: Array
    previous: Array
    memory: list[tuple[Array, Array]]


def to_leap(stepper: Any, state: WaveState) -> Leap:
    """The field one step before is u - dt v + A u / 2, which `from_leap` undoes; A u = `stepper.acceleration(u)`."""
    alive = stepper.kappa > 0
    u = stepper.pad(jnp.where(alive, state.pressure, 0))
    previous = stepper.crop(u) - stepper.dt * jnp.where(alive, state.velocity, 0) + stepper.acceleration(u) / 2
    return Leap(u, stepper.pad(previous), state.memory)


def from_leap(stepper: Any, carry: Leap) -> WaveState:
    """v = (u_+ - u_-) / (2 dt) without sources, written with u and u_- alone."""
    u = stepper.crop(carry.u)
    velocity = (u - stepper.crop(carry.previous) + stepper.acceleration(carry.u) / 2) / stepper.dt
    return WaveState(u, velocity, carry.memory)


class Injection(eqx.Module):
    """Point sources: nodes of their windows per axis, (n, 12, 1, ...); weights w and kappa there, both (n, 12, ...)."""

    nodes: tuple[Array, ...]
    weights: Array
    kappa: Array

    @property
    def corners(self) -> Array:
        """First node of every window, (n, axes)."""
        return jnp.stack([n.reshape(n.shape[0], -1)[:, 0] for n in self.nodes], axis=1)


class LeapFrog(eqx.Module):
    """Second order in time, constant density."""

    m: Array
    kappa: Array
    dt: Array
    layers: list[tuple]
    sources: Injection | None
    where: Geometry
    order: int = eqx.field(static=True)

    @property
    def halo(self) -> int:
        return self.order // 2

    @property
    def scales(self) -> tuple[float, ...]:
        return tuple(h**-2 for h in self.where.grid.spacing)

    def slabs(self) -> list:
        return slabs(self.where.faces, self.order, self.where.grid.spacing)

    def strips(self) -> list:
        return strips(self.where.faces, self.where.extended, self.order, self.scales)

    # ---- States

    def enter(self, state: WaveState) -> Leap:
        return to_leap(self, state)

    def leave(self, carry: Leap) -> WaveState:
        return from_leap(self, carry)

    def pad(self, field: Array) -> Array:
        return jnp.pad(field, self.halo)

    def crop(self, buffer: Array) -> Array:
        return buffer[interior(buffer.ndim, self.halo)]

    def pack(self, carry: Leap) -> Leap:
        return Leap(self.crop(carry.u), self.crop(carry.previous), carry.memory)

    def unpack(self, packed: Leap) -> Leap:
        return Leap(self.pad(packed.u), self.pad(packed.previous), packed.memory)

    def acceleration(self, u: Array) -> Array:
        """m L u inside the buffer, boundary terms included, layers not."""
        out = laplacian(u, self.order, self.scales)
        for strip in self.strips():
            term = strip_term(strip, u, self.halo)
            out = add_at(out, term, _corner(u.ndim, strip.axis, strip.target))
        return self.m * out

    # ---- The step

    def step(self, carry: Leap, signals: Array | None) -> Leap:
        """One step: the stencil into the buffer of the field before, then boundaries, layers, sources in place."""
        u, r = carry.u, self.halo
        inner = 2 * self.crop(u) - self.crop(carry.previous) + self.m * laplacian(u, self.order, self.scales)
        new = put_in(carry.previous, inner, r)
        for strip in self.strips():
            new = self.add_scaled(new, self.m, strip_term(strip, u, r), strip.axis, strip.target)
        memory = []
        for slab, coefficients, old in zip(self.slabs(), self.layers, carry.memory, strict=True):
            block, target = self.block(u, slab)
            term, kept = apply_slab(slab, coefficients, block, old)
            memory.append(kept)
            new = self.add_scaled(new, self.m, term, slab.axis, target)
        return Leap(self.inject(new, signals), u, memory)

    def taped_step(self, carry: Leap, signals: Array | None) -> tuple[Leap, tuple]:
        """The step and what its transpose needs: L u + P, and for the layers' coefficients what they multiply."""
        u, r = carry.u, self.halo
        rate = laplacian(u, self.order, self.scales)
        for strip in self.strips():
            rate = add_at(rate, strip_term(strip, u, r), _corner(u.ndim, strip.axis, strip.target))
        memory, seen = [], []
        for slab, coefficients, old in zip(self.slabs(), self.layers, carry.memory, strict=True):
            block, target = self.block(u, slab)
            term, kept = apply_slab(slab, coefficients, block, old)
            memory.append(kept)
            seen.append((block, old))
            rate = add_at(rate, term, _corner(u.ndim, slab.axis, target))
        new = put_in(carry.previous, 2 * self.crop(u) - self.crop(carry.previous) + self.m * rate, r)
        return Leap(self.inject(new, signals), u, memory), (rate, seen)

    def inject(self, buffer: Array, signals: Array | None) -> Array:
        """Add the sources: kappa w s."""
        if self.sources is None:
            return buffer
        return self._add_windows(buffer, self.sources.kappa * self.sources.weights * _lift(signals, buffer.ndim))

    def _wraps(self) -> bool:
        """True where a window may go around a periodic axis, and is then no block."""
        return any(isinstance(pair[0], Periodic) for pair in self.where.faces)

    def _add_windows(self, buffer: Array, windows: Array) -> Array:
        sources = self.sources
        if self._wraps():
            return buffer.at[tuple(n + self.halo for n in sources.nodes)].add(windows)
        corners = sources.corners + self.halo
        if windows.shape[0] <= FEW:
            for corner, window in zip(corners, windows, strict=True):
                buffer = add_at(buffer, window, tuple(corner))
            return buffer
        dims = lax.ScatterDimensionNumbers(
            update_window_dims=tuple(range(1, windows.ndim)),
            inserted_window_dims=(),
            scatter_dims_to_operand_dims=tuple(range(buffer.ndim)),
        )
        return lax.scatter_add(buffer, corners, windows, dims, mode=lax.GatherScatterMode.CLIP)

    def _read_windows(self, buffer: Array) -> Array:
        if self._wraps():
            return buffer[tuple(n + self.halo for n in self.sources.nodes)]
        size = self.sources.weights.shape[1:]
        return jax.vmap(lambda c: lax.dynamic_slice(buffer, tuple(c), size))(self.sources.corners + self.halo)

    def block(self, buffer: Array, slab: Any) -> tuple[Array, int]:
        """The nodes that a layer reads, and the first node along its axis that it adds to."""
        along, target = reach(slab, self.where.extended[slab.axis])
        index = list(interior(buffer.ndim, self.halo))
        index[slab.axis] = along
        return buffer[tuple(index)], target

    def add_scaled(self, buffer: Array, scale: Array, term: Array, axis: int, target: int) -> Array:
        local = lax.slice_in_dim(scale, target, target + term.shape[axis], axis=axis)
        corner = tuple(self.halo + c for c in _corner(buffer.ndim, axis, target))
        return add_at(buffer, local * term, corner)

    # ---- The adjoint: carry = (q, q of the step after, layers' cotangents, gradient sums)

    def spreads(self, entry: Any) -> bool:
        return isinstance(entry, PreparedReceivers)

    def pull_start(self, bar: Leap) -> dict:
        kappa = self.pad(self.kappa)
        sums = {"m": jnp.zeros_like(self.m), "layers": jax.tree.map(jnp.zeros_like, self.layers)}
        if self.sources is not None:
            sums["windows"] = jnp.zeros_like(self.sources.weights)
        return {"q": kappa * bar.u, "old": -kappa * bar.previous, "memory": bar.memory, "sums": sums}

    def pull_observed(self, sweep: dict, bar: Leap) -> dict:
        """Add the cotangent of an observed state."""
        kappa = self.pad(self.kappa)
        memory = jax.tree.map(jnp.add, sweep["memory"], bar.memory)
        return sweep | {"q": sweep["q"] + kappa * bar.u, "old": sweep["old"] - kappa * bar.previous, "memory": memory}

    def pull_spread(self, sweep: dict, entry: PreparedReceivers, value: Array) -> dict:
        """Add the cotangent of receivers."""
        return sweep | {"q": entry.spread(sweep["q"], self.kappa, value)}

    def pull_step(self, sweep: dict, tape: tuple, signals: Array | None) -> tuple[dict, Array | None]:
        rate, seen = tape
        q, r = sweep["q"], self.halo
        inner = self.crop(q)
        sums = dict(sweep["sums"])
        sums["m"] = sums["m"] + inner * rate
        signals_bar = None
        if self.sources is not None:
            windows = self._read_windows(q)
            axes = tuple(range(jnp.ndim(signals), windows.ndim))
            signals_bar = jnp.sum(self.sources.weights * windows, axis=axes)
            sums["windows"] = sums["windows"] + windows * _lift(signals, q.ndim)
        field = 2 * inner - self.crop(sweep["old"]) + self.m * laplacian(q, self.order, self.scales)
        new = put_in(sweep["old"], field, r)
        for strip in self.strips():
            new = self.add_scaled(new, self.m, strip_term(strip, q, r), strip.axis, strip.target)
        memory, layer_sums = [], []
        for slab, coefficients, (block, old), bar, total in zip(
            self.slabs(), self.layers, seen, sweep["memory"], sums["layers"], strict=True
        ):
            _, target = self.block(q, slab)
            size = slab.width + slab.halo
            term_bar = lax.slice_in_dim(self._weigh(inner), target, target + size, axis=slab.axis)
            _, pull = jax.vjp(lambda c, b, o, slab=slab: apply_slab(slab, c, b, o), coefficients, block, old)
            more, block_bar, old_bar = pull((term_bar, bar))
            memory.append(old_bar)
            layer_sums.append(jax.tree.map(jnp.add, total, more))
            # Nodes outside of the grid are not part of the field.
            start = slab.halo if not slab.upper else 0
            block_bar = lax.slice_in_dim(block_bar, start, start + slab.width + slab.halo, axis=slab.axis)
            new = self.add_scaled(new, self.kappa, block_bar, slab.axis, target)
        sums["layers"] = layer_sums
        return {"q": new, "old": q, "memory": memory, "sums": sums}, signals_bar

    def _weigh(self, q: Array) -> Array:
        """D q: the cotangent of L u + P; D is m / kappa."""
        return q * self._mass()

    def _mass(self) -> Array:
        return jnp.where(self.kappa > 0, self.m / jnp.where(self.kappa > 0, self.kappa, 1), 1)

    def pull_finish(self, sweep: dict) -> tuple["LeapFrog", Leap]:
        inverse = jnp.where(self.kappa > 0, 1 / jnp.where(self.kappa > 0, self.kappa, 1), 0)
        padded = self.pad(inverse)
        sums = sweep["sums"]
        sources_bar = None
        if self.sources is not None:
            kappa, weights, total = self.sources.kappa, self.sources.weights, sums["windows"]
            alive = kappa > 0
            kappa_bar = jnp.where(alive, weights * total / jnp.where(alive, kappa, 1), 0)
            nodes_bar = tuple(np.zeros(n.shape, jax.dtypes.float0) for n in self.sources.nodes)
            sources_bar = Injection(nodes_bar, total, kappa_bar)
        bar = LeapFrog(
            sums["m"] * inverse,
            jnp.zeros_like(self.kappa),
            jnp.zeros_like(self.dt),
            sums["layers"],
            sources_bar,
            self.where,
            self.order,
        )
        return bar, Leap(sweep["q"] * padded, -sweep["old"] * padded, sweep["memory"])


def _lift(signals: Array, ndim: int) -> Array:
    """Signals of shape (n,), or () where all sources share one, against windows (n, 12, ...)."""
    return signals.reshape(-1, *[1] * ndim)


def _corner(ndim: int, axis: int, target: int) -> tuple[int, ...]:
    return tuple(target if a == axis else 0 for a in range(ndim))
