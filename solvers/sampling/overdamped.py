"""Overdamped Langevin dynamics without Metropolis correction: `Ula`, `LeimkuhlerMatthews`, `Tamed`."""

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from .density import Point, as_kernel_fields, evaluate, start_point
from .kernel import Info, all_finite, choose, unadjusted
from .metric import white_noise
from .vectors import add, dot, safe_sqrt, scale


class Ula(eqx.Module):
    """Unadjusted Langevin algorithm: the Euler-Maruyama scheme of dx = A grad log pi dt + sqrt(2 A) dW.

        x' = x + h A grad log pi(x) + sqrt(2 h) L xi,        A = L L^T

    `step` is h: it multiplies the score, and the noise has variance 2 h. (Some texts write h / 2 and h.) The stationary
    law is wrong by O(h): on N(0, s^2) its variance is s^2 / (1 - h / (2 s^2)), and the chain is unstable for
    h >= 2 s^2. `LeimkuhlerMatthews` has the same cost and no such error on Gaussians; `Mala` has none at all. One
    gradient per step.

    Args:
        logdensity: log pi up to a constant, a function of the position that returns a scalar.
        step: h, positive; differentiable.
        metric: A, an operator such as `DiagonalMetric`; by default the identity.
        score: grad log pi, in place of or in addition to `logdensity`.

    Raises:
        ValueError: if the step is not positive.
        TypeError: if neither `logdensity` nor `score` is given.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> kernel = Ula(lambda x: -0.5 * jnp.sum(x**2), step=0.1)
        >>> state = kernel.init(jnp.ones(3), jax.random.key(0))
        >>> state, info = kernel.step(jax.random.key(1), state)
        >>> state.position.shape, bool(info.accepted)
        ((3,), True)

    Reference:
        G. O. Roberts, R. L. Tweedie, Bernoulli 2 (1996) 341.
    """

    logdensity: Callable | None
    step_size: Array
    metric: Any
    score: Callable | None
    target_acceptance: ClassVar[None] = None

    def __init__(
        self,
        logdensity: Callable | None = None,
        *,
        step: Any,
        metric: Any = None,
        score: Callable | None = None,
    ):
        fields = as_kernel_fields(logdensity, step, metric, score, needs_density=False)
        self.logdensity, self.step_size, self.metric, self.score = fields

    def init(self, position: Any, key: Array | None = None) -> Point:
        """State of a chain that starts at the position; no random number is drawn."""
        return start_point(self.logdensity, self.score, position)

    def noise(self, key: Array, state: Point) -> Any:
        """xi, the random numbers of one step."""
        return white_noise(self.metric, key, state.position)

    def move(self, state: Point, noise: Any) -> tuple[Point, Info]:
        """One step with the given random numbers."""
        pull = self.metric.sqrt_transpose(state.score)
        return _advance(self, state, _euler(self.step_size, pull, noise))

    def step(self, key: Array, state: Point) -> tuple[Point, Info]:
        """One step."""
        return self.move(state, self.noise(key, state))


class Tamed(eqx.Module):
    """Tamed unadjusted Langevin algorithm, for scores that grow faster than linearly.

        x' = x + h L s / (1 + h |s|) + sqrt(2 h) L xi,        s = L^T grad log pi(x)

    Where the score of a light tail is large the drift is bounded by one, so that the chain does not explode as `Ula`
    does at any step (log pi = -|x|^4 / 4). Near the mode it is `Ula` up to O(h): the bias is O(h) too. One gradient
    per step.

    Args:
        logdensity: log pi up to a constant, a function of the position that returns a scalar.
        step: h, positive; differentiable.
        metric: A, an operator such as `DiagonalMetric`; by default the identity.
        score: grad log pi, in place of or in addition to `logdensity`.

    Raises:
        ValueError: if the step is not positive.
        TypeError: if neither `logdensity` nor `score` is given.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> kernel = Tamed(lambda x: -jnp.sum(x**4) / 4, step=0.1)
        >>> state = kernel.init(jnp.full(2, 50.0), jax.random.key(0))
        >>> state, info = kernel.step(jax.random.key(1), state)
        >>> bool(jnp.all(jnp.abs(state.position - 50.0) < 3.0))
        True

    Reference:
        N. Brosse, A. Durmus, E. Moulines, S. Sabanis, Stochastic Process. Appl. 129 (2019) 3638, equation (5).
    """

    logdensity: Callable | None
    step_size: Array
    metric: Any
    score: Callable | None
    target_acceptance: ClassVar[None] = None

    def __init__(
        self,
        logdensity: Callable | None = None,
        *,
        step: Any,
        metric: Any = None,
        score: Callable | None = None,
    ):
        fields = as_kernel_fields(logdensity, step, metric, score, needs_density=False)
        self.logdensity, self.step_size, self.metric, self.score = fields

    def init(self, position: Any, key: Array | None = None) -> Point:
        """State of a chain that starts at the position; no random number is drawn."""
        return start_point(self.logdensity, self.score, position)

    def noise(self, key: Array, state: Point) -> Any:
        """xi, the random numbers of one step."""
        return white_noise(self.metric, key, state.position)

    def move(self, state: Point, noise: Any) -> tuple[Point, Info]:
        """One step with the given random numbers."""
        pull = self.metric.sqrt_transpose(state.score)
        size = safe_sqrt(dot(pull, pull))
        tamed = scale(1 / (1 + self.step_size.astype(size.dtype) * size), pull)
        return _advance(self, state, _euler(self.step_size, tamed, noise))

    def step(self, key: Array, state: Point) -> tuple[Point, Info]:
        """One step."""
        return self.move(state, self.noise(key, state))


class Lagged(eqx.Module):
    """State of `LeimkuhlerMatthews`: the point and the noise that two steps share."""

    point: Point
    noise: Any

    @property
    def position(self) -> Any:
        return self.point.position

    @property
    def logdensity(self) -> Any:
        return self.point.logdensity


class LeimkuhlerMatthews(eqx.Module):
    """The scheme of Leimkuhler and Matthews: the cost of `Ula`, one order better, and exact on Gaussians.

        x_(n+1) = x_n + h A grad log pi(x_n) + sqrt(2 h) L (xi_n + xi_(n+1)) / 2

    It is the limit of BAOAB for large friction. The stationary law of x is wrong by O(h^2) in general, and on a
    Gaussian it is exact for every stable h (h < 2 s^2). Prefer it to `Ula` whenever averages are wanted. One gradient
    per step; the noise is kept for the next one.

    Args:
        logdensity: log pi up to a constant, a function of the position that returns a scalar.
        step: h, positive; differentiable.
        metric: A, an operator such as `DiagonalMetric`; by default the identity.
        score: grad log pi, in place of or in addition to `logdensity`.

    Raises:
        ValueError: if the step is not positive.
        TypeError: if neither `logdensity` nor `score` is given.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> kernel = LeimkuhlerMatthews(lambda x: -0.5 * jnp.sum(x**2), step=0.5)
        >>> state = kernel.init(jnp.ones(3), jax.random.key(0))
        >>> state, info = kernel.step(jax.random.key(1), state)
        >>> state.position.shape
        (3,)

    Reference:
        B. Leimkuhler, C. Matthews, Appl. Math. Res. Express 2013 (2013) 34, equation (1.4); B. Leimkuhler,
        C. Matthews, M. V. Tretyakov, Proc. R. Soc. A 470 (2014) 20140120.
    """

    logdensity: Callable | None
    step_size: Array
    metric: Any
    score: Callable | None
    target_acceptance: ClassVar[None] = None

    def __init__(
        self,
        logdensity: Callable | None = None,
        *,
        step: Any,
        metric: Any = None,
        score: Callable | None = None,
    ):
        fields = as_kernel_fields(logdensity, step, metric, score, needs_density=False)
        self.logdensity, self.step_size, self.metric, self.score = fields

    def init(self, position: Any, key: Array) -> Lagged:
        """State of a chain that starts at the position, with the first noise."""
        point = start_point(self.logdensity, self.score, position)
        return Lagged(point, white_noise(self.metric, key, point.position))

    def noise(self, key: Array, state: Lagged) -> Any:
        """xi_(n+1), the random numbers of one step."""
        return white_noise(self.metric, key, state.position)

    def move(self, state: Lagged, noise: Any) -> tuple[Lagged, Info]:
        """One step with the given random numbers."""
        pull = self.metric.sqrt_transpose(state.point.score)
        white = _euler(self.step_size, pull, scale(0.5, add(state.noise, noise)))
        point, info = _advance(self, state.point, white)
        return Lagged(point, noise), info

    def step(self, key: Array, state: Lagged) -> tuple[Lagged, Info]:
        """One step."""
        return self.move(state, self.noise(key, state))


def _euler(h: Array, pull: Any, noise: Any) -> Any:
    """h s + sqrt(2 h) xi in the white space of the metric."""
    return add(scale(h, pull), scale(jnp.sqrt(2 * h), noise))


def _advance(kernel: Any, point: Point, white: Any) -> tuple[Point, Info]:
    """Move by L applied to a white displacement, unless what is there is not finite."""
    proposal = evaluate(kernel.logdensity, kernel.score, add(point.position, kernel.metric.sqrt(white)))
    usable = all_finite(proposal)
    point = choose(usable, proposal, point)
    return point, unadjusted(point, usable, gradients=1)
