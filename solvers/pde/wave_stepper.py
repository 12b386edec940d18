r"""The leapfrog step of the acoustic wave equation, and its adjoint derived by hand.

With m = (c dt)^2 (zero on a free surface, where the pressure stays zero), the discrete Laplacian L with its boundary
terms, the layer terms P and the sources, one step is

    u_+ = 2 u - u_- + m R,          R = L u + P(u, memory) + D^-1 w s,

where D holds the weights of the trapezoidal rule (1/2 on a rigid wall), so that D L is symmetric. Let alpha be the
cotangent of u_+. With kappa = m / D and q = kappa alpha the reverse step is the same kernel again,

    q_new = 2 q - q_old + m L q + kappa (layers, transposed) + kappa (receivers, transposed),

because L^T D = D L. The gradient with respect to m is sum_n alpha_n R_n = (1 / kappa) sum_n q_n R_n, and with respect
to a source signal sum w q. Only R is kept per step.

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

from .layer import apply_slab, first_node, pull_slab, slabs
from .operators import add_at, laplacian, pad
from .points import Geometry, PreparedReceivers


class WaveState(eqx.Module):
    """State of a wave on the grid with its absorbing layers: pressure, its rate of change, memory of the layers.

    Made by `wave.state(pressure, velocity)` or `wave.at_rest()`; `wave.pressure(state)` gives the field on the grid.
    """

    pressure: Array
    velocity: Array
    memory: list[tuple[Array, Array]]
    settled: Array  # 1 for a state that a run returned, 0 for one that the user gave


class Leap(eqx.Module):
    """What is marched: the field now and one step before, and the memory of the absorbing layers."""

    u: Array
    previous: Array
    memory: list[tuple[Array, Array]]


def to_leap(stepper: Any, state: WaveState) -> Leap:
    """The field one step before is u - dt v + A u / 2, which `from_leap` undoes; A u = `stepper.acceleration(u)`.

    Here v = (u_+ - u_-) / (2 dt); a rate of change given by the user is another thing by dt^2 u_ttt / 6, which
    `stepper.central` adds where the order in time asks for it.
    """
    alive = stepper.kappa > 0
    u = jnp.where(alive, state.pressure, 0)
    velocity = stepper.central(jnp.where(alive, state.velocity, 0), state.settled)
    return Leap(u, u - stepper.dt * velocity + stepper.acceleration(u) / 2, state.memory)


def from_leap(stepper: Any, carry: Leap) -> WaveState:
    """v = (u_+ - u_-) / (2 dt) without sources, written with u and u_- alone."""
    velocity = (carry.u - carry.previous + stepper.acceleration(carry.u) / 2) / stepper.dt
    return WaveState(carry.u, velocity, carry.memory, jnp.ones_like(stepper.dt))


class Injection(eqx.Module):
    """Point sources: nodes of their windows per axis, (n, 12, 1, ...); weights w and 1 / D there, both (n, 12, ...)."""

    nodes: tuple[Any, ...]
    weights: Array
    inverse_mass: Array

    def windows(self, signals: Array) -> Array:
        """What the sources add to R on their nodes: D^-1 w s."""
        return self.inverse_mass * self.weights * _lift(signals, self.weights.ndim - 1)


class LeapFrog(eqx.Module):
    """Second order in time, constant density."""

    m: Array
    kappa: Array
    dt: Array
    layers: list[tuple]
    sources: Injection | None
    where: Geometry
    order: int = eqx.field(static=True)
    staggered: bool = eqx.field(static=True, default=False)

    @property
    def halo(self) -> int:
        return self.order // 2

    @property
    def scales(self) -> tuple[float, ...]:
        return tuple(h**-2 for h in self.where.grid.spacing)

    def slabs(self) -> list:
        return slabs(self.where.faces, self.order, self.where.grid.spacing, self.staggered)

    def enter(self, state: WaveState) -> Leap:
        return to_leap(self, state)

    def leave(self, carry: Leap) -> WaveState:
        return from_leap(self, carry)

    def pad(self, field: Array) -> Array:
        return pad(field, self.halo, self.where.faces)

    def central(self, velocity: Array, settled: Array) -> Array:
        """(u_+ - u_-) / (2 dt) to the order of the scheme."""
        return velocity

    def acceleration(self, u: Array) -> Array:
        """m L u, layers not included."""
        return self.m * laplacian(self.pad(u), self.order, self.scales)

    # ---- The step

    def step(self, carry: Leap, signals: Any) -> Leap:
        # One padded copy of the field, which all stencils read by static slices: on a CPU this fuses, vectorises and
        # runs on all cores, where shifts, rolls and updates of a padded buffer in place do not.
        wide = self.pad(carry.u)
        new = 2 * carry.u - carry.previous + self.m * laplacian(wide, self.order, self.scales)
        memory = []
        for slab, coefficients, old in zip(self.slabs(), self.layers, carry.memory, strict=True):
            block, target = self.block(carry.u, slab)
            term, kept = apply_slab(slab, coefficients, block, old)
            memory.append(kept)
            new = self.add_scaled(new, self.m, term, slab.axis, target)
        if self.sources is not None:
            new = new.at[self.sources.nodes].add(self.m[self.sources.nodes] * self.sources.windows(signals))
        return Leap(new, carry.u, memory)

    def taped_step(self, carry: Leap, signals: Any) -> tuple[Leap, tuple]:
        """The step and what its transpose needs: R, and for the layers' coefficients what they multiply."""
        wide = self.pad(carry.u)
        rate = laplacian(wide, self.order, self.scales)
        memory, seen = [], []
        for slab, coefficients, old in zip(self.slabs(), self.layers, carry.memory, strict=True):
            block, target = self.block(carry.u, slab)
            term, kept = apply_slab(slab, coefficients, block, old)
            memory.append(kept)
            seen.append((block, old))
            rate = add_at(rate, term, _corner(rate.ndim, slab.axis, target))
        if self.sources is not None:
            rate = rate.at[self.sources.nodes].add(self.sources.windows(signals))
        new = 2 * carry.u - carry.previous + self.m * rate
        return Leap(new, carry.u, memory), (rate, seen)

    def block(self, field: Array, slab: Any) -> tuple[Array, int]:
        """The nodes that a layer reads and adds to, and the first of them along its axis."""
        target = first_node(slab, self.where.extended[slab.axis])
        return lax.slice_in_dim(field, target, target + slab.size, axis=slab.axis), target

    def add_scaled(self, buffer: Array, scale: Array, term: Array, axis: int, target: int) -> Array:
        local = lax.slice_in_dim(scale, target, target + term.shape[axis], axis=axis)
        return add_at(buffer, local * term, _corner(buffer.ndim, axis, target))

    # ---- The adjoint: carry = (q, q of the step after, layers' cotangents, gradient sums)

    def spreads(self, entry: Any) -> bool:
        return isinstance(entry, PreparedReceivers)

    def pull_start(self, bar: Leap) -> dict:
        sums = {"m": jnp.zeros_like(self.m), "layers": jax.tree.map(jnp.zeros_like, self.layers)}
        if self.sources is not None:
            sums["windows"] = jnp.zeros_like(self.sources.weights)
        return {"q": self.kappa * bar.u, "old": -self.kappa * bar.previous, "memory": bar.memory, "sums": sums}

    def pull_observed(self, sweep: dict, bar: Leap) -> dict:
        """Add the cotangent of an observed state."""
        new = {"q": sweep["q"] + self.kappa * bar.u, "old": sweep["old"] - self.kappa * bar.previous}
        return sweep | new | {"memory": jax.tree.map(jnp.add, sweep["memory"], bar.memory)}

    def pull_spread(self, sweep: dict, entry: PreparedReceivers, value: Array) -> dict:
        """Add the cotangent of receivers."""
        return sweep | {"q": entry.spread(sweep["q"], self.kappa, value)}

    def pull_step(self, sweep: dict, tape: tuple, signals: Any) -> tuple[dict, Any]:
        rate, seen = tape
        q = sweep["q"]
        sums = dict(sweep["sums"])
        sums["m"] = sums["m"] + q * rate
        signals_bar = None
        if self.sources is not None:
            windows = q[self.sources.nodes]
            axes = tuple(range(jnp.ndim(signals), windows.ndim))
            signals_bar = jnp.sum(self.sources.weights * windows, axis=axes)
            sums["windows"] = sums["windows"] + windows * _lift(signals, q.ndim)
        new = 2 * q - sweep["old"] + self.m * laplacian(self.pad(q), self.order, self.scales)
        memory, layer_sums = [], []
        terms = []
        for slab, coefficients, (block, old), bar, total in zip(
            self.slabs(), self.layers, seen, sweep["memory"], sums["layers"], strict=True
        ):
            _, target = self.block(q, slab)
            term_bar = self._weigh(q, slab.axis, target, slab.size)
            block_bar, old_bar = pull_slab(slab, coefficients, term_bar, bar)
            memory.append(old_bar)
            # Only a derivative with respect to dt needs this; else it is dropped.
            _, pull = jax.vjp(lambda c, b=block, o=old, slab=slab: apply_slab(slab, c, b, o), coefficients)
            (more,) = pull((term_bar, bar))
            layer_sums.append(jax.tree.map(jnp.add, total, more))
            terms.append((block_bar, slab.axis, target))
        # The first axis last: the compiler fuses the last update with what follows, which is fast for whole rows only.
        for block_bar, axis, target in reversed(terms):
            new = self.add_scaled(new, self.kappa, block_bar, axis, target)
        sums["layers"] = layer_sums
        return {"q": new, "old": q, "memory": memory, "sums": sums}, signals_bar

    def _weigh(self, q: Array, axis: int, start: int, size: int) -> Array:
        """D q on the nodes of a layer: the cotangent of L u + P there; D = m / kappa."""
        part = [lax.slice_in_dim(x, start, start + size, axis=axis) for x in (q, self.m, self.kappa)]
        return part[0] * jnp.where(part[2] > 0, part[1] / jnp.where(part[2] > 0, part[2], 1), 1)

    def pull_finish(self, sweep: dict) -> tuple["LeapFrog", Leap]:
        inverse = jnp.where(self.kappa > 0, 1 / jnp.where(self.kappa > 0, self.kappa, 1), 0)
        sums = sweep["sums"]
        sources_bar = None
        if self.sources is not None:
            nodes_bar = tuple(np.zeros(n.shape, jax.dtypes.float0) for n in self.sources.nodes)
            sources_bar = Injection(nodes_bar, sums["windows"], jnp.zeros_like(self.sources.inverse_mass))
        still = jnp.zeros_like(self.kappa), jnp.zeros_like(self.dt)
        parts = (sums["m"] * inverse, *still, sums["layers"], sources_bar, self.where, self.order)
        return LeapFrog(*parts), Leap(sweep["q"] * inverse, -sweep["old"] * inverse, sweep["memory"])


def _lift(signals: Array, ndim: int) -> Array:
    """Signals of shape (n,), or () where all sources share one, against windows (n, 12, ...)."""
    return signals.reshape(-1, *[1] * ndim)


def _corner(ndim: int, axis: int, target: int) -> tuple[int, ...]:
    return tuple(target if a == axis else 0 for a in range(ndim))
