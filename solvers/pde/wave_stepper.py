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

from .boundary import Rigid
from .layer import (
    Slab,
    close_memory,
    curvature,
    first_node,
    next_psi,
    next_zeta,
    open_memory,
    pull_field,
    pull_memory,
    slabs,
    spread,
)
from .operators import add_at, interior, laplacian, pad
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
    """What is marched: the field now and one step before, the memory of the absorbing layers, the number of steps.

    The number is never negative, which the compiler cannot know: see `apart`.
    """

    u: Array
    previous: Array
    memory: list[tuple[Array, Array]]
    clock: Any  # an integer, so that no derivative passes through it


def to_leap(stepper: Any, state: WaveState) -> Leap:
    """The field one step before is u - dt v + A u / 2, which `from_leap` undoes; A u = `stepper.acceleration(u)`.

    Here v = (u_+ - u_-) / (2 dt); a rate of change given by the user is another thing by dt^2 u_ttt / 6, which
    `stepper.central` adds where the order in time asks for it.
    """
    alive = stepper.kappa > 0
    u = jnp.where(alive, state.pressure, 0)
    velocity = stepper.central(jnp.where(alive, state.velocity, 0), state.settled)
    before = u - stepper.dt * velocity + stepper.acceleration(u) / 2
    return Leap(u, before, state.memory, jnp.int32(0))


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

    def inside(self, wide: Array) -> Array:
        """A field out of its padded copy: one array less to read from memory than the field itself."""
        return wide[interior(wide.ndim, self.halo)]

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
        new = 2 * self.inside(wide) - carry.previous + self.m * laplacian(wide, self.order, self.scales)
        memory = self.remember(wide, carry)
        for slab, (psi, zeta) in zip(self.slabs(), memory, strict=True):
            new = self.add_term(new, self.m, spread(slab, psi) + zeta, slab, carry.clock)
        if self.sources is not None:
            new = new.at[self.sources.nodes].add(self.m[self.sources.nodes] * self.sources.windows(signals))
        return Leap(new, carry.u, memory, carry.clock + 1)

    def taped_step(self, carry: Leap, signals: Any) -> tuple[Leap, tuple]:
        """The step and what its transpose needs: R, and for the layers' coefficients what they multiply."""
        wide = self.pad(carry.u)
        rate = laplacian(wide, self.order, self.scales)
        memory = self.remember(wide, carry)
        for slab, (psi, zeta) in zip(self.slabs(), memory, strict=True):
            rate = self.add_term(rate, None, spread(slab, psi) + zeta, slab, carry.clock)
        if self.sources is not None:
            rate = rate.at[self.sources.nodes].add(self.sources.windows(signals))
        new = 2 * self.inside(wide) - carry.previous + self.m * rate
        seen = [(self.strip(wide, slab), old) for slab, old in zip(self.slabs(), carry.memory, strict=True)]
        return Leap(new, carry.u, memory, carry.clock + 1), (rate, seen, carry.clock)

    def remember(self, wide: Array, carry: Leap) -> list[tuple[Array, Array]]:
        """The memory of the layers after a step: first all psi, then all zeta, which read several psi each."""
        parts = list(zip(self.slabs(), self.layers, carry.memory, strict=True))
        if not parts:
            return []

        def all_psi(wide: Array) -> list[Array]:
            return [next_psi(slab, c, self.strip(wide, slab), psi) for slab, c, (psi, _) in parts]

        new_psi = apart(carry.clock, all_psi, [psi for _, _, (psi, _) in parts], wide)

        def all_zeta(wide: Array) -> list[Array]:
            return [
                next_zeta(slab, c, curvature(slab, self.strip(wide, slab)), zeta, spread(slab, psi))
                for (slab, c, (_, zeta)), psi in zip(parts, new_psi, strict=True)
            ]

        return list(zip(new_psi, apart(carry.clock, all_zeta, [zeta for _, _, (_, zeta) in parts], wide), strict=True))

    def strip(self, wide: Array, slab: Slab) -> Array:
        """What a layer reads of a padded field: its nodes with its halo."""
        start = first_node(slab, self.where.extended[slab.axis]) + self.halo - slab.halo
        inner = [slice(self.halo, -self.halo)] * wide.ndim
        inner[slab.axis] = slice(start, start + slab.size + 2 * slab.halo)
        return wide[tuple(inner)]

    def add_term(self, buffer: Array, scale: Array | None, term: Array, slab: Slab, clock: Any) -> Array:
        """Add what a layer gives, times `scale`, on its nodes; in place."""
        target = first_node(slab, self.where.extended[slab.axis])
        if scale is not None:
            term = lax.slice_in_dim(scale, target, target + slab.size, axis=slab.axis) * term
        # Were the place known, the compiler would read it while it writes another copy of the whole buffer.
        place = target + (clock < 0).astype(jnp.int32)
        return add_at(buffer, term, tuple(place if a == slab.axis else jnp.int32(0) for a in range(buffer.ndim)))

    # ---- The adjoint: carry = (q, q of the step after, layers' cotangents, gradient sums)

    def spreads(self, entry: Any) -> bool:
        return isinstance(entry, PreparedReceivers)

    def pull_start(self, bar: Leap) -> dict:
        sums = {"m": jnp.zeros_like(self.m), "layers": jax.tree.map(jnp.zeros_like, self.layers)}
        if self.sources is not None:
            sums["windows"] = jnp.zeros_like(self.sources.weights)
        q, old = self.kappa * bar.u, -self.kappa * bar.previous
        return {"q": q, "old": old, "memory": self._open(bar.memory), "sums": sums}

    def pull_observed(self, sweep: dict, bar: Leap) -> dict:
        """Add the cotangent of an observed state."""
        new = {"q": sweep["q"] + self.kappa * bar.u, "old": sweep["old"] - self.kappa * bar.previous}
        return sweep | new | {"memory": jax.tree.map(jnp.add, sweep["memory"], self._open(bar.memory))}

    def _open(self, memory: list) -> list:
        return [open_memory(*part) for part in zip(self.slabs(), self.layers, memory, strict=True)]

    def pull_spread(self, sweep: dict, entry: PreparedReceivers, value: Array) -> dict:
        """Add the cotangent of receivers."""
        return sweep | {"q": entry.spread(sweep["q"], self.kappa, value)}

    def pull_step(self, sweep: dict, tape: tuple, signals: Any) -> tuple[dict, Any]:
        rate, seen, clock = tape
        q = sweep["q"]
        sums = dict(sweep["sums"])
        sums["m"] = sums["m"] + q * rate
        signals_bar = None
        if self.sources is not None:
            windows = q[self.sources.nodes]
            axes = tuple(range(jnp.ndim(signals), windows.ndim))
            signals_bar = jnp.sum(self.sources.weights * windows, axis=axes)
            sums["windows"] = sums["windows"] + windows * _lift(signals, q.ndim)
        wide = self.pad(q)
        new = 2 * self.inside(wide) - sweep["old"] + self.m * laplacian(wide, self.order, self.scales)
        parts = list(zip(self.slabs(), self.layers, sweep["memory"], strict=True))
        sums["layers"] = self._pull_coefficients(wide, seen, sweep)
        memory = []
        if parts:

            def pull(wide: Array) -> list:
                return [pull_memory(slab, c, self._weighed(wide, slab), bar) for slab, c, bar in parts]

            memory = apart(clock, pull, sweep["memory"], wide)
        for (slab, c, _), bar in zip(parts, memory, strict=True):
            new = self.add_term(new, self.kappa, pull_field(slab, c, bar), slab, clock)
        return {"q": new, "old": q, "memory": memory, "sums": sums}, signals_bar

    def _pull_coefficients(self, wide: Array, seen: list, sweep: dict) -> list:
        """Cotangents of the layers' coefficients: dropped unless one asks for the derivative with respect to dt."""
        sums = []
        parts = zip(self.slabs(), self.layers, seen, sweep["memory"], sweep["sums"]["layers"], strict=True)
        for slab, coefficients, (strip, (psi, zeta)), bar, total in parts:

            def layer(c: tuple, slab: Slab = slab, strip: Array = strip, psi: Array = psi, zeta: Array = zeta) -> tuple:
                psi = next_psi(slab, c, strip, psi)
                zeta = next_zeta(slab, c, curvature(slab, strip), zeta, spread(slab, psi))
                return spread(slab, psi) + zeta, (psi, zeta)

            inside = lax.slice_in_dim(self._weighed(wide, slab), slab.halo, slab.halo + slab.size, axis=slab.axis)
            _, pull = jax.vjp(layer, coefficients)
            (more,) = pull((inside, close_memory(slab, coefficients, bar)))
            sums.append(jax.tree.map(jnp.add, total, more))
        return sums

    def _weighed(self, wide: Array, slab: Slab) -> Array:
        """D q in the strip of a layer: the cotangent of L u + P there."""
        strip = self.strip(wide, slab)
        for axis, pair in enumerate(self.where.faces):
            ends = [1 if isinstance(face, Rigid) else None for face in pair]
            # On its own axis a layer damps nothing where a wall is.
            if any(ends) and axis != slab.axis:
                weight = np.ones(strip.shape[axis])
                weight[[0, -1]] = [0.5 if end else 1.0 for end in ends]
                strip = strip * jnp.asarray(weight, strip.dtype).reshape(
                    [-1 if a == axis else 1 for a in range(strip.ndim)]
                )
        return strip

    def pull_finish(self, sweep: dict) -> tuple["LeapFrog", Leap]:
        inverse = jnp.where(self.kappa > 0, 1 / jnp.where(self.kappa > 0, self.kappa, 1), 0)
        sums = sweep["sums"]
        sources_bar = None
        if self.sources is not None:
            nodes_bar = tuple(np.zeros(n.shape, jax.dtypes.float0) for n in self.sources.nodes)
            sources_bar = Injection(nodes_bar, sums["windows"], jnp.zeros_like(self.sources.inverse_mass))
        still = jnp.zeros_like(self.kappa), jnp.zeros_like(self.dt)
        parts = (sums["m"] * inverse, *still, sums["layers"], sources_bar, self.where, self.order)
        memory = [close_memory(*part) for part in zip(self.slabs(), self.layers, sweep["memory"], strict=True)]
        start = Leap(sweep["q"] * inverse, -sweep["old"] * inverse, memory, np.zeros((), jax.dtypes.float0))
        return LeapFrog(*parts), start


def _lift(signals: Array, ndim: int) -> Array:
    """Signals of shape (n,), or () where all sources share one, against windows (n, 12, ...)."""
    return signals.reshape(-1, *[1] * ndim)


def apart(clock: Any, function: Any, otherwise: Any, *operands: Any) -> Any:
    """function(*operands), compiled apart from what reads it.

    The compiler fuses a stencil with what it reads: the values between are not stored but computed anew for each of
    its points, which for a chain of stencils costs tens of times more. A branch of a condition is not fused; this one
    is always taken (`otherwise` has the right shapes), but only a run can tell.
    """
    return lax.cond(clock >= 0, function, lambda *_: otherwise, *operands)
