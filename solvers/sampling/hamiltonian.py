"""Hamiltonian Monte Carlo: static trajectories (`Hmc`), and the No-U-Turn sampler of blackjax (`Nuts`)."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from .density import Point, as_kernel_fields, evaluate, log_ratio, start_point
from .kernel import Info, all_finite, choose, metropolis
from .mala import as_target
from .metric import white_noise
from .vectors import add, dot, log_uniform, plus, scalar_type, scale, size


class Hmc(eqx.Module):
    """Hamiltonian Monte Carlo with a fixed number of leapfrog steps.

        w ~ N(0, I);   `leapfrog` times:  w += h/2 L^T g(x),  x += h L w,  w += h/2 L^T g(x);   g = grad log pi

    accepted with probability min(1, exp(-(change of -log pi + |w|^2 / 2))). With mass A^-1 = (L L^T)^-1 in the usual
    words. For a large dimension the best acceptance is 0.651. Trajectories of fixed length may come back to their
    start: on a Gaussian of deviation s, choose h * leapfrog well below 2 pi s. `leapfrog` gradients per step; with one
    leapfrog step it is `Mala` with the step h^2 / 2.

    Args:
        logdensity: log pi up to a constant, a function of the position that returns a scalar.
        step: h, the time step of the leapfrog scheme; adapted by a warm-up.
        leapfrog: leapfrog steps per trajectory, at least 1.
        metric: A, an operator such as `DiagonalMetric`; by default the identity; adapted by a warm-up.
        score: grad log pi or an approximation of it, by default the gradient of `logdensity`.
        target_acceptance: mean acceptance to which a warm-up adapts the step.

    Raises:
        ValueError: if the step is not positive or `leapfrog` is less than one.
        TypeError: if `logdensity` is missing.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> kernel = Hmc(lambda x: -0.5 * jnp.sum(x**2), step=0.2, leapfrog=5)
        >>> state, info = kernel.step(jax.random.key(1), kernel.init(jnp.ones(3), jax.random.key(0)))
        >>> bool(info.acceptance > 0.9), int(info.gradients)
        (True, 5)

    Reference:
        R. M. Neal, Handbook of Markov Chain Monte Carlo (2011), chapter 5.
    """

    logdensity: Callable | None
    step_size: Array
    metric: Any
    score: Callable | None
    leapfrog: int = eqx.field(static=True)
    target_acceptance: float | None = eqx.field(static=True)
    time_step: ClassVar[bool] = True

    def __init__(
        self,
        logdensity: Callable,
        *,
        step: Any,
        leapfrog: int = 10,
        metric: Any = None,
        score: Callable | None = None,
        target_acceptance: float = 0.651,
    ):
        fields = as_kernel_fields(logdensity, step, metric, score, needs_density=True)
        self.logdensity, self.step_size, self.metric, self.score = fields
        if leapfrog < 1:
            raise ValueError(f"`leapfrog` must be at least 1, got {leapfrog}.")
        self.leapfrog = leapfrog
        self.target_acceptance = as_target(target_acceptance)

    def init(self, position: Any, key: Array | None = None) -> Point:
        """State of a chain that starts at the position; no random number is drawn."""
        return start_point(self.logdensity, self.score, position)

    def noise(self, key: Array, state: Point) -> dict:
        """The velocity at the start and the number that decides."""
        normal, uniform = jax.random.split(key)
        position = state.position
        return {"normal": white_noise(self.metric, normal, position), "log_uniform": log_uniform(uniform, position)}

    def move(self, state: Point, noise: dict) -> tuple[Point, Info]:
        """One trajectory with the given random numbers."""
        half = self.step_size / 2

        def kick(velocity: Any, gained: Array, point: Point) -> tuple[Any, Array]:
            push = scale(half, self.metric.sqrt_transpose(point.score))
            return add(velocity, push), gained + dot(push, plus(velocity, 0.5, push))

        def leap(carry: tuple, _: None) -> tuple:
            point, velocity, gained = carry
            velocity, gained = kick(velocity, gained, point)
            position = add(point.position, self.metric.sqrt(scale(self.step_size, velocity)))
            point = evaluate(self.logdensity, self.score, position)
            velocity, gained = kick(velocity, gained, point)
            return (point, velocity, gained), None

        start = (state, noise["normal"], jnp.zeros((), scalar_type(state.position)))
        (proposal, velocity, gained), _ = lax.scan(leap, start, None, self.leapfrog)
        log_alpha = log_ratio(proposal, state) - gained
        log_alpha = jnp.where(proposal.logdensity == -jnp.inf, -jnp.inf, log_alpha)
        usable = all_finite((proposal, velocity))
        acceptance, accepted, nonfinite, divergent = metropolis(log_alpha, usable, noise["log_uniform"])
        point = choose(accepted, proposal, state)
        counted = jnp.asarray(self.leapfrog, jnp.int32)
        return point, Info(acceptance, accepted, nonfinite, divergent, point.logdensity, counted)

    def step(self, key: Array, state: Point) -> tuple[Point, Info]:
        """One trajectory."""
        return self.move(state, self.noise(key, state))


class Nuts(eqx.Module):
    """The No-U-Turn sampler of blackjax, with our metrics, residuals and reports.

    A trajectory grows by doubling until it turns back, so that no length is to be chosen; the next state is drawn from
    it with multinomial weights. Each step runs in the white coordinates z of the metric around the present position,
    x = x_n + L z, with unit mass, and with the density relative to the one at x_n (for `LeastSquares` from residuals,
    so that float32 does). Needs the package blackjax. The number of gradients differs from step to step; under `vmap`
    all chains wait for the longest trajectory. Not differentiable in reverse mode.

    Args:
        logdensity: log pi up to a constant, a function of the position that returns a scalar.
        step: h, the time step of the leapfrog scheme; adapted by a warm-up.
        doublings: most doublings of a trajectory; at most 2**doublings - 1 gradients per step.
        metric: A, an operator such as `DiagonalMetric`; by default the identity; adapted by a warm-up.
        target_acceptance: mean acceptance to which a warm-up adapts the step.

    Raises:
        ImportError: if blackjax is not installed.
        ValueError: if the step is not positive or `doublings` is less than one.
        TypeError: if `logdensity` is missing.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> kernel = Nuts(lambda x: -0.5 * jnp.sum(x**2), step=0.5)
        >>> state, info = kernel.step(jax.random.key(1), kernel.init(jnp.ones(3), jax.random.key(0)))
        >>> bool(info.acceptance > 0.5), int(info.gradients) < 64
        (True, True)

    Reference:
        M. D. Hoffman, A. Gelman, J. Mach. Learn. Res. 15 (2014) 1593; M. Betancourt, arXiv:1701.02434, appendix A.
    """

    logdensity: Callable | None
    step_size: Array
    metric: Any
    doublings: int = eqx.field(static=True)
    target_acceptance: float | None = eqx.field(static=True)
    time_step: ClassVar[bool] = True

    def __init__(
        self,
        logdensity: Callable,
        *,
        step: Any,
        doublings: int = 10,
        metric: Any = None,
        target_acceptance: float = 0.8,
    ):
        fields = as_kernel_fields(logdensity, step, metric, None, needs_density=True)
        self.logdensity, self.step_size, self.metric, _ = fields
        if doublings < 1:
            raise ValueError(f"`doublings` must be at least 1, got {doublings}.")
        self.doublings = doublings
        self.target_acceptance = as_target(target_acceptance)
        _blackjax()

    def init(self, position: Any, key: Array | None = None) -> Point:
        """State of a chain that starts at the position; no random number is drawn."""
        return start_point(self.logdensity, None, position)

    def step(self, key: Array, state: Point) -> tuple[Point, Info]:
        """One trajectory."""
        nuts = _blackjax()
        white = self.metric.white(state.position)
        # blackjax weighs in the default precision, and mixes with no other.
        wide = jnp.result_type(float)
        origin = jax.tree.map(lambda s: jnp.zeros(s.shape, wide), white)

        def place(z: Any) -> Any:
            return add(state.position, self.metric.sqrt(jax.tree.map(lambda z, s: z.astype(s.dtype), z, white)))

        def relative(z: Any) -> Array:
            return log_ratio(evaluate(self.logdensity, None, place(z), gradient=False), state).astype(wide)

        start = nuts.init(origin, relative)
        mass = jnp.ones(size(origin), wide)
        kernel = nuts.build_kernel()
        end, told = kernel(key, start, relative, self.step_size.astype(wide), mass, self.doublings)
        proposal = evaluate(self.logdensity, None, place(end.position))
        moved = jnp.any(jnp.stack([jnp.any(x != 0) for x in jax.tree.leaves(end.position)]))
        usable = all_finite(proposal)
        point = choose(usable & moved, proposal, state)
        nonfinite = ~usable | ~jnp.isfinite(told.acceptance_rate)
        acceptance = jnp.where(nonfinite, 0.0, told.acceptance_rate).astype(scalar_type(state.position))
        counted = told.num_integration_steps.astype(jnp.int32) + 2
        return point, Info(
            acceptance, usable & moved, nonfinite, told.is_divergent | nonfinite, point.logdensity, counted
        )


def _blackjax() -> Any:
    """blackjax's module of the No-U-Turn sampler."""
    try:
        from blackjax.mcmc import nuts
    except ImportError as error:
        raise ImportError(
            "Nuts adapts the sampler of blackjax, which is not installed: pip install blackjax. "
            "Hmc and Mala need nothing."
        ) from error
    return nuts
