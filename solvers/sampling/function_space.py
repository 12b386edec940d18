"""Kernels for fields, whose acceptance does not fall when the grid is refined: `Pcn`, `InfinityMala`."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from .density import Point, as_kernel_fields, evaluate, log_ratio, start_point
from .kernel import Info, all_finite, choose, metropolis
from .mala import as_target
from .metric import LowRankMetric, white_noise
from .vectors import add, dot, log_uniform, plus, scale, size, subtract

LARGEST = 2.0  # the step at which proposals are independent of where the chain stands


class Pcn(eqx.Module):
    """Preconditioned Crank-Nicolson: random walks that keep a Gaussian prior N(m, C) exactly.

        y = m + (1 - h/2) / (1 + h/2) (x - m) + sqrt(2 h) / (1 + h/2) L xi,        C = L L^T
        log alpha = loglikelihood(y) - loglikelihood(x)

    The posterior has the density exp(loglikelihood) with respect to the prior. Without data every proposal is accepted,
    on any grid; with data the acceptance does not depend on how fine the grid is. h is the time step of the
    Crank-Nicolson scheme for dx = -(x - m) dt + sqrt(2) L dW; in the form y = sqrt(1 - beta^2) x + beta L xi it is
    beta = sqrt(8 h) / (2 + h), see `beta`. At h = 2 the proposal is an independent draw from the prior; longer steps
    count as 2, and a warm-up stops there. No gradient. The prior is all the metric that there is.

    Args:
        loglikelihood: function of the position that returns a scalar (or a target with `residual`).
        prior: the prior as an operator, such as `MaternField`, or any metric; its mean is `prior.mean` if it has one,
            else zero.
        step: h, positive; adapted by a warm-up.
        target_acceptance: mean acceptance to which a warm-up adapts the step.

    Raises:
        ValueError: if the step is not positive.
        TypeError: if the prior is no operator.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv
        >>> prior = sv.MaternField(sv.Grid((16, 16), 1 / 16), length=0.2, smoothness=1.5)
        >>> kernel = Pcn(lambda field: 0.0 * jnp.sum(field), prior, step=0.5)
        >>> state = kernel.init(prior.draw(jax.random.key(2)), jax.random.key(0))
        >>> state, info = kernel.step(jax.random.key(1), state)
        >>> float(info.acceptance)
        1.0

    Reference:
        S. L. Cotter, G. O. Roberts, A. M. Stuart, D. White, Stat. Sci. 28 (2013) 424, equation (4.6) with delta = h.
    """

    loglikelihood: Callable
    prior: Any
    step_size: Array
    target_acceptance: float | None = eqx.field(static=True)
    largest_step: ClassVar[float] = LARGEST

    def __init__(self, loglikelihood: Callable, prior: Any, *, step: Any, target_acceptance: float = 0.234):
        self.loglikelihood, self.step_size, self.prior, _ = as_kernel_fields(loglikelihood, step, prior, None, True)
        self.target_acceptance = as_target(target_acceptance)

    @property
    def beta(self) -> Array:
        """Weight of the new noise: y = m + sqrt(1 - beta^2) (x - m) + beta L xi."""
        return _weights(self.step_size)[1]

    def init(self, position: Any, key: Array | None = None) -> Point:
        """State of a chain that starts at the position; its `logdensity` is the log likelihood."""
        return start_point(self.loglikelihood, None, position, gradient=False)

    def noise(self, key: Array, state: Point) -> dict:
        """xi and the number that decides."""
        return _noise(self.prior, key, state.position)

    def move(self, state: Point, noise: dict) -> tuple[Point, Info]:
        """One step with the given random numbers."""
        keep, new = _weights(self.step_size)
        away = scale(keep, _from_mean(self.prior, state.position))
        position = _to_mean(self.prior, add(away, self.prior.sqrt(scale(new, noise["normal"]))))
        proposal = evaluate(self.loglikelihood, None, position, gradient=False)
        return _decide(state, proposal, log_ratio(proposal, state), noise["log_uniform"], gradients=0)

    def step(self, key: Array, state: Point) -> tuple[Point, Info]:
        """One step."""
        return self.move(state, self.noise(key, state))


class InfinityMala(eqx.Module):
    """Langevin proposals in function space: `Pcn` with the gradient of the log likelihood l.

        y = m + [(1 - h/2) (x - m) + h C grad l(x) + sqrt(2 h) L xi] / (1 + h/2),        C = L L^T
        log alpha = l(y) - l(x) + r(y, x) - r(x, y)
        r(x, y) = (<grad l(x), y - m - k (x - m)> (1 + h/2) - h/2 <grad l(x), C grad l(x)>) / 2,
        k = (1 - h/2) / (1 + h/2)

    r is the logarithm of the density of the proposal from x with respect to the one of `Pcn`, so that neither an
    inverse nor a determinant of C is needed and nothing diverges when the grid is refined. The acceptance does not
    depend on the grid, and is best tuned to 0.574 as for `Mala`. Steps longer than 2 count as 2, and a warm-up stops
    there. One gradient per step.

    A `metric` A = L (I + V D V^T) L^T takes the place of C in the proposal, for directions V that the data inform: the
    same kernel with N(m, A) for the prior and

        l_A(x) = l(x) - sum_i d_i / (1 + d_i) c_i^2 / 2,        c = V^T L^-1 (x - m)

    for l, which is the same posterior. If that is Gaussian and A its covariance, every proposal of every step is
    accepted, and a step of 2 is an independent draw.

    Args:
        loglikelihood: l, a function of the position that returns a scalar (or a target with `residual`).
        prior: the prior as an operator, such as `MaternField`, or any metric; its mean is `prior.mean` if it has one,
            else zero.
        step: h, positive; adapted by a warm-up.
        score: grad l or an approximation of it, by default the gradient of `loglikelihood`.
        target_acceptance: mean acceptance to which a warm-up adapts the step.
        metric: `LowRankMetric(vectors, values, prior)` with this prior, which needs `precision` and a square root L (a
            `MaternField` without padding); the `logdensity` of states and reports is then l_A. None for C.

    Raises:
        ValueError: if the step is not positive, or the metric belongs to another prior or one without a square root.
        TypeError: if the prior is no operator, or the metric no `LowRankMetric`.

    Example:
        >>> import jax, jax.numpy as jnp, solvers as sv
        >>> prior = sv.MaternField(sv.Grid((16, 16), 1 / 16), length=0.2, smoothness=1.5)
        >>> kernel = InfinityMala(lambda field: -0.5 * (field[3, 5] - 1.0) ** 2, prior, step=0.1)
        >>> state = kernel.init(prior.draw(jax.random.key(2)), jax.random.key(0))
        >>> state, info = kernel.step(jax.random.key(1), state)
        >>> bool(info.acceptance > 0.8)
        True

    Reference:
        S. L. Cotter, G. O. Roberts, A. M. Stuart, D. White, Stat. Sci. 28 (2013) 424, section 4.3; A. Beskos,
        M. Girolami, S. Lan, P. E. Farrell, A. M. Stuart, J. Comput. Phys. 335 (2017) 327, section 2.
    """

    loglikelihood: Callable
    prior: Any
    step_size: Array
    score: Callable | None
    informed: LowRankMetric | None  # not called `metric`, which a warm-up might replace
    target_acceptance: float | None = eqx.field(static=True)
    largest_step: ClassVar[float] = LARGEST

    def __init__(
        self,
        loglikelihood: Callable,
        prior: Any,
        *,
        step: Any,
        score: Callable | None = None,
        target_acceptance: float = 0.574,
        metric: LowRankMetric | None = None,
    ):
        fields = as_kernel_fields(loglikelihood, step, prior, score, needs_density=True)
        self.loglikelihood, self.step_size, self.prior, self.score = fields
        self.target_acceptance = as_target(target_acceptance)
        self.informed = _checked(metric, prior)

    def init(self, position: Any, key: Array | None = None) -> Point:
        """State of a chain that starts at the position; its `logdensity` is the log likelihood."""
        likelihood, score, operator = self._reference
        if self.informed is not None:
            _check_root(operator, position)
        return start_point(likelihood, score, position)

    def noise(self, key: Array, state: Point) -> dict:
        """xi and the number that decides."""
        return _noise(self.prior, key, state.position)

    def move(self, state: Point, noise: dict) -> tuple[Point, Info]:
        """One step with the given random numbers."""
        h = jnp.minimum(self.step_size, LARGEST)
        keep, new = _weights(self.step_size)
        likelihood, score, operator = self._reference
        away, pull = _from_mean(operator, state.position), operator.sqrt_transpose(state.score)
        # With zeta = xi + sqrt(h / 2) L^T grad l(x) the proposal is the one of `Pcn` with the noise zeta.
        zeta = plus(noise["normal"], jnp.sqrt(h / 2), pull)
        there = add(scale(keep, away), operator.sqrt(scale(new, zeta)))
        proposal = evaluate(likelihood, score, _to_mean(operator, there))
        back = operator.sqrt_transpose(proposal.score)
        half = (1 + h / 2) / 2
        forward = jnp.sqrt(h / 2) * dot(pull, zeta) - h / 4 * dot(pull, pull)
        backward = half * dot(proposal.score, subtract(away, scale(keep, there))) - h / 4 * dot(back, back)
        log_alpha = log_ratio(proposal, state) + (backward - forward)
        return _decide(state, proposal, log_alpha, noise["log_uniform"], gradients=1)

    def step(self, key: Array, state: Point) -> tuple[Point, Info]:
        """One step."""
        return self.move(state, self.noise(key, state))

    @property
    def _reference(self) -> tuple[Callable, Callable | None, Any]:
        """The log likelihood with respect to the Gaussian law of the proposals, its score, and that law's operator."""
        if self.informed is None:
            return self.loglikelihood, self.score, self.prior
        relative, score = _Relative(self.loglikelihood, self.informed), self.score
        if score is None:
            return relative, None, self.informed
        return relative, lambda x: add(score(x), jax.grad(relative.change)(x)), self.informed


class _Relative(eqx.Module):
    """A log likelihood with respect to N(m, A) in place of the prior N(m, C)."""

    loglikelihood: Callable
    metric: LowRankMetric

    def __call__(self, position: Any) -> Array:
        return self.loglikelihood(position) + self.change(position)

    @property
    def residual(self) -> Callable:
        """Residuals of a likelihood that offers them; an attribute only then."""
        return self.loglikelihood.residual  # type: ignore[attr-defined]

    def rest(self, position: Any) -> Array:
        """What is there beside the residuals."""
        more = getattr(self.loglikelihood, "rest", None)
        return self.change(position) if more is None else more(position) + self.change(position)

    def change(self, position: Any) -> Array:
        """log dN(m, C) / dN(m, A) up to a constant; L^-1 = L^T C^-1 for a square root L."""
        prior, values = self.metric.prior, self.metric.values
        c = self.metric.coefficients(prior.sqrt_transpose(prior.precision(_from_mean(prior, position))))
        return -0.5 * jnp.sum((values / (1 + values)).astype(c.dtype) * c * c)


def _checked(metric: Any, prior: Any) -> LowRankMetric | None:
    if metric is None:
        return None
    if not isinstance(metric, LowRankMetric):
        raise TypeError(
            "`metric` must be LowRankMetric(vectors, values, prior), a change of the prior in a few directions, got "
            f"{type(metric).__name__}."
        )
    if metric.prior is not prior or not hasattr(prior, "precision"):
        raise ValueError(
            "`metric` must be LowRankMetric(vectors, values, prior) with this prior, one with `precision`."
        )
    return metric


def _check_root(metric: Any, position: Any) -> None:
    """ValueError if white noise and positions differ in size, so that L has no inverse."""
    if size(metric.white(position)) != size(jax.tree.map(jnp.asarray, position)):
        raise ValueError(
            "`metric` needs a prior with a square root, as many numbers of white noise as unknowns: a MaternField "
            "without padding."
        )


def _weights(step: Array) -> tuple[Array, Array]:
    """(sqrt(1 - beta^2), beta) of the Crank-Nicolson step h."""
    h = jnp.minimum(step, LARGEST)
    return (1 - h / 2) / (1 + h / 2), jnp.sqrt(2 * h) / (1 + h / 2)


def _noise(prior: Any, key: Array, position: Any) -> dict:
    normal, uniform = jax.random.split(key)
    return {"normal": white_noise(prior, normal, position), "log_uniform": log_uniform(uniform, position)}


def _from_mean(prior: Any, position: Any) -> Any:
    mean = getattr(prior, "mean", None)
    return position if mean is None else jax.tree.map(lambda x, m: x - m.astype(x.dtype), position, mean)


def _to_mean(prior: Any, away: Any) -> Any:
    mean = getattr(prior, "mean", None)
    return away if mean is None else jax.tree.map(lambda x, m: x + m.astype(x.dtype), away, mean)


def _decide(state: Point, proposal: Point, log_alpha: Array, log_uniform: Array, gradients: int) -> tuple[Point, Info]:
    log_alpha = jnp.where(proposal.logdensity == -jnp.inf, -jnp.inf, log_alpha)
    acceptance, accepted, nonfinite, divergent = metropolis(log_alpha, all_finite(proposal), log_uniform)
    point = choose(accepted, proposal, state)
    counted = jnp.asarray(gradients, jnp.int32)
    return point, Info(acceptance, accepted, nonfinite, divergent, point.logdensity, counted)
