"""Parallel tempering: chains at higher temperatures carry a cold one from mode to mode."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import as_field, is_known
from .density import LeastSquares, evaluate, log_ratio
from .kernel import choose


class TemperingState(eqx.Module):
    """State of `ParallelTempering`.

    Attributes:
        levels: states of the chains at all temperatures, stacked along a leading axis, the cold one first.
        count: rounds done.
    """

    levels: Any
    count: Array

    @property
    def position(self) -> Any:
        return jax.tree.map(lambda x: x[0], self.levels.position)


class TemperingInfo(eqx.Module):
    """What a round of `ParallelTempering` reports: the fields of `Info`, and the exchanges.

    Attributes:
        acceptance: mean acceptance of the moves over all temperatures; what a warm-up adapts.
        accepted: whether the cold chain moved or was exchanged.
        nonfinite: whether any proposal at any temperature was NaN or infinite.
        divergent: the same for divergences.
        logdensity: log density of the cold chain's new state.
        gradients: gradients taken at all temperatures together.
        exchange: probability of the exchange between level i and i + 1, NaN where none was tried in this round.
    """

    acceptance: Array
    accepted: Array
    nonfinite: Array
    divergent: Array
    logdensity: Array
    gradients: Array
    exchange: Array


class ParallelTempering(eqx.Module):
    """Chains for pi^beta_1, ..., pi^beta_K side by side, which exchange their positions; for several modes.

    Each round makes `moves` steps of the kernel at every level, with the step size h / beta_k (h / beta_k^(1/2) for
    `time_step=True`), then offers exchanges between neighbours, between (1, 2), (3, 4), ... in even and (2, 3), (4, 5),
    ... in odd rounds, accepted with probability min(1, exp((beta_i - beta_j) (log pi(x_j) - log pi(x_i)))), from
    residuals where the target offers them (see `LeastSquares`). The cold level, beta_1 = 1, keeps pi exactly.
    `state.position` is its position.

    For a good ladder every neighbours exchange about equally often, and the hottest chain crosses between the modes by
    itself; `info.exchange` shows. The even-odd rounds carry a position up and down the ladder in a time proportional
    to K, not K^2. Cost: (moves + 1) K gradients per round, and K evaluations more for a target with residuals.

    Args:
        kernel: a kernel of this package with `logdensity` and a Metropolis correction: `Mala`, `Hmc`, `Nuts`, or
            `Kinetic` with `metropolis=True`. Its step is that of the cold level, its metric that of all levels; a
            warm-up adapts the step, and leaves the metric alone, since a variance over several modes is the scale of
            none.
        inverse_temperatures: beta_k, shape (K,), falling from 1, positive.
        moves: steps of the kernel between two exchanges.
        time_step: whether the step of the kernel is a time (`Hmc`, `Nuts`, `Kinetic`), which scales like a length; by
            default as the kernel says.

    Raises:
        ValueError: if the inverse temperatures do not fall from 1 to a positive number, or `moves` is less than 1.
        TypeError: if the kernel has no log density or no Metropolis correction, or a score that could not be tempered.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv
        >>> target = sv.targets.mixture(jnp.array([[-4.0], [4.0]]), jnp.ones(2), jnp.ones(2))
        >>> kernel = ParallelTempering(sv.Mala(target.logdensity, step=0.5), jnp.array([1.0, 0.3, 0.1]))
        >>> state = kernel.init(jnp.array([-4.0]), jax.random.key(0))
        >>> state, info = kernel.step(jax.random.key(1), state)
        >>> state.position.shape, info.exchange.shape
        ((1,), (2,))

    Reference:
        C. J. Geyer, Computing Science and Statistics 23 (1991) 156; S. Syed, A. Bouchard-Cote, G. Deligiannidis,
        A. Doucet, J. R. Stat. Soc. B 84 (2022) 321 (even-odd rounds).
    """

    kernel: Any
    inverse_temperatures: Array
    step_size: Array
    moves: int = eqx.field(static=True)
    time_step: bool = eqx.field(static=True)
    target_acceptance: float | None = eqx.field(static=True)

    def __init__(self, kernel: Any, inverse_temperatures: Any, *, moves: int = 1, time_step: bool | None = None):
        self.inverse_temperatures = as_field(inverse_temperatures, "inverse_temperatures")
        if self.inverse_temperatures.ndim != 1 or self.inverse_temperatures.shape[0] < 2:
            raise ValueError(
                f"`inverse_temperatures` needs shape (K,) with K of 2 or more, got {self.inverse_temperatures.shape}."
            )
        if is_known(self.inverse_temperatures):
            ladder = np.asarray(self.inverse_temperatures)
            if ladder[0] != 1 or not np.all(np.diff(ladder) < 0) or not ladder[-1] > 0:
                raise ValueError(f"`inverse_temperatures` must fall from 1 to a positive number, got {ladder}.")
        if moves < 1:
            raise ValueError(f"`moves` must be at least 1, got {moves}.")
        _check(kernel)
        self.kernel, self.step_size, self.moves = kernel, kernel.step_size, moves
        self.time_step = getattr(kernel, "time_step", False) if time_step is None else time_step
        self.target_acceptance = kernel.target_acceptance

    def init(self, position: Any, key: Array) -> TemperingState:
        """State whose chains at all temperatures start at the position."""
        keys = jax.random.split(key, self.inverse_temperatures.shape[0])
        self.kernel.init(position, key)  # looks at the start while its values are known
        levels = jax.vmap(lambda beta, k: self._level(beta).init(position, k))(self.inverse_temperatures, keys)
        return TemperingState(levels, jnp.asarray(0, jnp.int32))

    def at_start(self, position: Any, key: Array) -> Any:
        """What the kernel knows at the start and does not keep in its state."""
        return self.kernel.at_start(position, key) if hasattr(self.kernel, "at_start") else ()

    def step(self, key: Array, state: TemperingState) -> tuple[TemperingState, TemperingInfo]:
        """One round: moves at all temperatures, then exchanges."""
        moving, exchanging, starting = jax.random.split(key, 3)
        count = self.inverse_temperatures.shape[0]

        def walk(beta: Array, key: Array, state: Any) -> tuple[Any, Any]:
            kernel = self._level(beta)

            def one(state: Any, n: Array) -> tuple[Any, Any]:
                return kernel.step(jax.random.fold_in(key, n), state)

            return jax.lax.scan(one, state, jnp.arange(self.moves))

        levels, told = jax.vmap(walk)(self.inverse_temperatures, jax.random.split(moving, count), state.levels)
        order, exchange = self._exchange(exchanging, self._gains(levels), state.count)
        swapped = jnp.any(order != jnp.arange(count))
        positions = jax.tree.map(lambda x: x[order], levels.position)
        keys = jax.random.split(starting, count)
        renewed = jax.vmap(lambda b, x, k: self._level(b).init(x, k))(self.inverse_temperatures, positions, keys)
        # Levels that did not take part go on with the state that they have, velocities and all.
        stays = order == jnp.arange(count)
        levels = jax.vmap(choose)(stays, levels, renewed)
        info = TemperingInfo(
            acceptance=jnp.mean(told.acceptance),
            accepted=jnp.any(told.accepted[0]) | (swapped & ~stays[0]),
            nonfinite=jnp.any(told.nonfinite),
            divergent=jnp.any(told.divergent),
            logdensity=levels.logdensity[0],
            gradients=jnp.sum(told.gradients) + count,
            exchange=exchange,
        )
        return TemperingState(levels, state.count + 1), info

    def _gains(self, levels: Any) -> Array:
        """log pi(x_(i+1)) - log pi(x_i) between neighbours."""
        density = self.kernel.logdensity
        if not hasattr(density, "residual"):
            values = levels.logdensity / self.inverse_temperatures.astype(levels.logdensity.dtype)
            return values[1:] - values[:-1]
        # Residuals divided by beta^(1/2) would all be wrong by the same rounding, and so would their large sum.
        points = jax.vmap(lambda x: evaluate(density, None, x, gradient=False))(levels.position)
        colder, hotter = (jax.tree.map(lambda x, cut=cut: x[cut], points) for cut in (slice(-1), slice(1, None)))
        return jax.vmap(log_ratio)(hotter, colder)

    def _exchange(self, key: Array, gains: Array, count: Array) -> tuple[Array, Array]:
        """(which position goes to which level, probability of each exchange)."""
        beta = self.inverse_temperatures.astype(gains.dtype)
        log_alpha = (beta[:-1] - beta[1:]) * gains
        pairs = jnp.arange(beta.shape[0] - 1)
        tried = pairs % 2 == count % 2
        decide = -jax.random.exponential(key, log_alpha.shape, gains.dtype)
        swap = tried & (decide <= log_alpha)
        order = jnp.arange(beta.shape[0])
        order = order.at[:-1].add(swap).at[1:].add(-swap.astype(order.dtype))
        return order, jnp.where(tried, jnp.exp(jnp.minimum(log_alpha, 0.0)), jnp.nan)

    def _level(self, beta: Array) -> Any:
        """The kernel for pi^beta."""
        factor = jnp.sqrt(beta) if self.time_step else beta
        cold = self.kernel.logdensity
        density = LeastSquares(*_tempered(cold, beta)) if hasattr(cold, "residual") else Power(cold, beta)
        step = self.step_size / factor.astype(self.step_size.dtype)
        return eqx.tree_at(lambda k: (k.logdensity, k.step_size), self.kernel, (density, step))


class Power(eqx.Module):
    """beta log pi."""

    logdensity: Any
    beta: Array

    def __call__(self, position: Any) -> Array:
        value = jnp.asarray(self.logdensity(position))
        return self.beta.astype(value.dtype) * value


def _check(kernel: Any) -> None:
    """TypeError unless the kernel keeps a density that can be tempered."""
    name = type(kernel).__name__
    if getattr(kernel, "logdensity", None) is None:
        raise TypeError(
            f"{name} has no `logdensity` to temper: give it one, or take Mala or Hmc. (Pcn and InfinityMala hold a "
            "likelihood and a prior apart; their kernels are not tempered.)"
        )
    if getattr(kernel, "target_acceptance", None) is None:
        raise TypeError(
            f"{name} has no Metropolis correction, so that no level would keep its target: take Mala, Hmc or Nuts, or "
            "a kinetic kernel with metropolis=True."
        )
    if getattr(kernel, "score", None) is not None:
        raise TypeError(f"{name} has a `score` of its own, which belongs to one temperature: give `logdensity` alone.")


def _tempered(logdensity: Any, beta: Array) -> tuple[Any, Any]:
    """Residual and rest of pi^beta."""

    def residual(x: Any) -> Any:
        return jax.tree.map(lambda r: jnp.sqrt(beta).astype(r.dtype) * r, logdensity.residual(x))

    rest = getattr(logdensity, "rest", None)
    return residual, None if rest is None else Power(rest, beta)
