"""Metropolis-adjusted Langevin algorithm."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .density import Point, as_kernel_fields, evaluate, log_ratio, start_point
from .kernel import Info, all_finite, choose, metropolis
from .metric import white_noise
from .vectors import add, dot, log_uniform, plus, scale


class Mala(eqx.Module):
    """Metropolis-adjusted Langevin algorithm: a step of `Ula`, accepted or rejected so that pi is kept exactly.

        y = x + h A g(x) + sqrt(2 h) L xi,                  g = grad log pi,  A = L L^T
        log alpha = log pi(y) - log pi(x) - <s, xi + s / 2>,        s = sqrt(h / 2) L^T (g(x) + g(y))

    The second part is the logarithm of q(x | y) / q(y | x), written without the inverse of A and without cancellation:
    the noise that leads back is -(xi + s). For a target with `residual` (see `LeastSquares`) the first part is taken
    from the residuals. On N(0, I_d) the mean acceptance tends to 2 Phi(-sqrt(h^3 d / 8)); it is best tuned to 0.574,
    so that h falls like d^(-1/3). One gradient per step.

    A proposal that is NaN or infinite is rejected, counted as `nonfinite` and never seen again. If `score` is given it
    only shapes the proposal: the chain keeps pi exactly whatever it is.

    Args:
        logdensity: log pi up to a constant, a function of the position that returns a scalar.
        step: h, positive; adapted by a warm-up.
        metric: A, an operator such as `DiagonalMetric`; by default the identity; adapted by a warm-up.
        score: grad log pi or an approximation of it, by default the gradient of `logdensity`.
        target_acceptance: mean acceptance to which a warm-up adapts the step.

    Raises:
        ValueError: if the step is not positive or the target acceptance is not between 0 and 1.
        TypeError: if `logdensity` is missing.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> kernel = Mala(lambda x: -0.5 * jnp.sum(x**2), step=0.1)
        >>> state = kernel.init(jnp.ones(3), jax.random.key(0))
        >>> state, info = kernel.step(jax.random.key(1), state)
        >>> bool(info.acceptance > 0.9)
        True

    Reference:
        G. O. Roberts, J. S. Rosenthal, J. R. Stat. Soc. B 60 (1998) 255.
    """

    logdensity: Callable | None
    step_size: Array
    metric: Any
    score: Callable | None
    target_acceptance: float | None = eqx.field(static=True)

    def __init__(
        self,
        logdensity: Callable,
        *,
        step: Any,
        metric: Any = None,
        score: Callable | None = None,
        target_acceptance: float = 0.574,
    ):
        fields = as_kernel_fields(logdensity, step, metric, score, needs_density=True)
        self.logdensity, self.step_size, self.metric, self.score = fields
        self.target_acceptance = as_target(target_acceptance)

    def init(self, position: Any, key: Array | None = None) -> Point:
        """State of a chain that starts at the position; no random number is drawn."""
        return start_point(self.logdensity, self.score, position)

    def noise(self, key: Array, state: Point) -> dict:
        """xi and the logarithm of the uniform number that decides: the random numbers of one step."""
        normal, uniform = jax.random.split(key)
        position = state.position
        return {"normal": white_noise(self.metric, normal, position), "log_uniform": log_uniform(uniform, position)}

    def move(self, state: Point, noise: dict) -> tuple[Point, Info]:
        """One step with the given random numbers."""
        h, xi = self.step_size, noise["normal"]
        pull = self.metric.sqrt_transpose(state.score)
        white = add(scale(h, pull), scale(jnp.sqrt(2 * h), xi))
        proposal = evaluate(self.logdensity, self.score, add(state.position, self.metric.sqrt(white)))
        s = scale(jnp.sqrt(h / 2), add(pull, self.metric.sqrt_transpose(proposal.score)))
        log_alpha = log_ratio(proposal, state) - dot(s, plus(xi, 0.5, s))
        # A score that is not finite where the density is zero says nothing: the proposal is simply rejected.
        log_alpha = jnp.where(proposal.logdensity == -jnp.inf, -jnp.inf, log_alpha)
        acceptance, accepted, nonfinite, divergent = metropolis(log_alpha, all_finite(proposal), noise["log_uniform"])
        point = choose(accepted, proposal, state)
        return point, Info(acceptance, accepted, nonfinite, divergent, point.logdensity, jnp.asarray(1, jnp.int32))

    def step(self, key: Array, state: Point) -> tuple[Point, Info]:
        """One step."""
        return self.move(state, self.noise(key, state))


def as_target(value: Any) -> float:
    """A checked target acceptance."""
    if not 0 < value < 1:
        raise ValueError(f"`target_acceptance` must lie between 0 and 1, got {value}.")
    return float(value)
