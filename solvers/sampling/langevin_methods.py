"""Generation with noise on the way: annealed Langevin dynamics, reverse diffusion, predictor and corrector.

The noise of every step is drawn per sample, and every step size comes from the noise level alone. Step sizes from
realised norms, as they are common, couple the samples of a batch and bias them.
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..core.checks import as_field, check_positive, is_known, whole
from .flow_methods import check_levels, pairs, white
from .noise import ratio_levels


class AnnealedLangevin(eqx.Module):
    """Annealed Langevin dynamics: `steps` steps of Langevin dynamics at each of `levels` falling noise levels.

        y' = y + h grad log p(y; k) + sqrt(2 h) xi,        h = step k^2

    y = x / alpha, k = sigma / alpha, equally spaced in log k. A step multiplies the score by h and adds noise of
    variance 2 h. (Some texts write h / 2 and h.) What a level leaves too wide the next one must take in, but small
    levels hardly move a sample any more: on a Gaussian the standard deviation comes out too large by about
    0.7 log(k_max / k_min) / (step levels steps), 1 % for the defaults and a range of 1000. Stable for step < 2.

    Args:
        levels: number of noise levels.
        steps: Langevin steps at each of them.
        step: h / k^2, positive, below 2; differentiable.

    Raises:
        ValueError: for no level, no step, or a step size outside (0, 2).

    Example:
        >>> AnnealedLangevin(levels=20, steps=50).total
        1000

    Reference:
        Y. Song, S. Ermon, Generative Modeling by Estimating Gradients of the Data Distribution, NeurIPS 2019,
        algorithm 1.
    """

    number: int = eqx.field(static=True)
    steps: int = eqx.field(static=True)
    step: Array

    def __init__(self, levels: int = 20, steps: int = 50, step: Any = 0.5):
        self.number, self.steps, self.step = whole(levels, "levels"), whole(steps, "steps"), as_field(step, "step", ())
        check_positive(self.step, "step")
        below(self.step, "step", 2)

    @property
    def total(self) -> int:
        """Number of evaluations of the score."""
        return self.number * self.steps

    def levels(self, noise: Any) -> dict[str, Array]:
        """The ratio at every step."""
        ratios = ratio_levels(noise, max(self.number - 1, 1), math.inf)[-self.number :]
        return {"then": jnp.repeat(ratios, self.steps)}

    def memory(self, y: Array) -> Any:
        """What is kept from step to step: nothing."""
        return None

    def advance(self, flow: Any, key: Array, y: Array, memory: Any, level: dict) -> tuple[Array, Any]:
        """One step."""
        return langevin(flow, white(key, y), y, level["then"], self.step), None


class ReverseSde(eqx.Module):
    """The reverse diffusion, dy = 2 k^2 grad log p(y; k) dt + sqrt(2) k dW in the time t = -log k.

    y = x / alpha, k = sigma / alpha. Order 1 is the Euler-Maruyama scheme in this time,

        y' = y + 2 h k^2 grad log p(y; k) + sqrt(2 h) k xi,        h = log(k / k'), at most 3/4.

    On a Gaussian of standard deviation s the variance errs in a step by 2 h^2 k^2 (k^2 - s^2) / (k^2 + s^2) and over
    all levels from infinity to zero, with equal h, by nothing of first order: what large levels add, small ones take
    back. With the variance k^2 as time the errors have one sign and add up to h s^2.

    Order 2 is Heun's scheme for additive noise, with the linear part integrated exactly; with r = k' / k

        z  = r^2 y + (1 - r^2) D(y, k)
        y' = z + k' sqrt(1 - r^2) xi + (1 - r^2) (D(z + k sqrt(1 - r^2) xi, k') - D(y, k)) / 2.

    The noise within D may be of any level between k and k' without a loss of order. With that of k what is left of
    second order in the variance of a Gaussian cancels in the same way; it is a tenth of what k' leaves at 16 steps.

    The orders are weak ones, those of moments and other expectations; the second takes two evaluations per step.

    Args:
        steps: number of steps.
        order: 1 or 2.
        rho: spacing of the levels, as in `Heun`.

    Raises:
        ValueError: for fewer than one step, another order, or a rho that is not positive.

    Example:
        >>> ReverseSde(steps=100, order=2).order
        2

    Reference:
        B. D. O. Anderson, Stoch. Process. Appl. 12 (1982) 313; P. E. Kloeden, E. Platen, Numerical Solution of
        Stochastic Differential Equations (1992), sections 14.1 and 15.1, for weak schemes.
    """

    steps: int = eqx.field(static=True, default=500)
    order: int = eqx.field(static=True, default=1)
    rho: float | int = eqx.field(static=True, default=7.0)

    def __check_init__(self):
        check_levels(self.steps, self.rho)
        if self.order not in (1, 2):
            raise ValueError(f"`order` must be 1 (Euler-Maruyama) or 2 (Heun), got {self.order!r}.")

    def levels(self, noise: Any) -> dict[str, Array]:
        """Ratios before and after every step."""
        return pairs(ratio_levels(noise, self.steps, self.rho))

    def memory(self, y: Array) -> Any:
        """What is kept from step to step: nothing."""
        return None

    def advance(self, flow: Any, key: Array, y: Array, memory: Any, level: dict) -> tuple[Array, Any]:
        """One step."""
        scheme = euler_maruyama if self.order == 1 else exponential_heun
        return scheme(flow, white(key, y), y, level["now"], level["then"]), None


class PredictorCorrector(eqx.Module):
    """Predictor and corrector: a step of the reverse diffusion, then Langevin steps at the new level.

        predictor:  y' = y + 2 h k^2 grad log p(y; k) + sqrt(2 h) k xi,        h = log(k / k'), at most 3/4
        corrector:  y' = y + h grad log p(y; k') + sqrt(2 h) xi,        h = 2 (r k')^2

    y = x / alpha, k = sigma / alpha. The corrector's step depends on the noise level alone; where the score is that of
    noise, it is the usual rule with the signal-to-noise ratio r.

    Args:
        steps: number of predictor steps.
        corrections: corrector steps after each of them.
        r: signal-to-noise ratio of the corrector, positive, below 1; differentiable.
        rho: spacing of the levels, as in `Heun`; by default equal in log k.

    Raises:
        ValueError: for fewer than one step, a ratio outside (0, 1), or a rho that is not positive.

    Example:
        >>> PredictorCorrector(steps=500, r=0.16).corrections
        1

    Reference:
        Y. Song and others, Score-Based Generative Modeling through SDEs, ICLR 2021, algorithms 1 to 4.
    """

    steps: int = eqx.field(static=True, default=500)
    corrections: int = eqx.field(static=True, default=1)
    r: Any = eqx.field(converter=lambda value: as_field(value, "r", ()), default=0.16)
    rho: float | int = eqx.field(static=True, default=math.inf)

    def __check_init__(self):
        check_levels(self.steps, self.rho)
        whole(self.corrections, "corrections")
        check_positive(self.r, "r")
        below(self.r, "r", 1)

    def levels(self, noise: Any) -> dict[str, Array]:
        """Ratios before and after every step."""
        return pairs(ratio_levels(noise, self.steps, self.rho))

    def memory(self, y: Array) -> Any:
        """What is kept from step to step: nothing."""
        return None

    def advance(self, flow: Any, key: Array, y: Array, memory: Any, level: dict) -> tuple[Array, Any]:
        """One predictor step and its corrections."""
        keys = jax.random.split(key, self.corrections + 1)
        y = euler_maruyama(flow, white(keys[0], y), y, level["now"], level["then"])
        factor = 2 * self.r.astype(y.dtype) ** 2

        def correct(y: Array, key: Array) -> tuple[Array, None]:
            return langevin(flow, white(key, y), y, level["then"], factor), None

        return jax.lax.scan(correct, y, keys[1:])[0], None


def langevin(flow: Any, xi: Array, y: Array, k: Array, factor: Array) -> Array:
    """y + h grad log p(y; k) + sqrt(2 h) xi with h = factor k^2."""
    h = factor.astype(y.dtype) * k**2
    return y + h * flow.pull(y, k) + jnp.sqrt(2 * h) * xi


def euler_maruyama(flow: Any, xi: Array, y: Array, now: Array, then: Array) -> Array:
    """A step of the reverse diffusion in the time -log k, short enough to be stable."""
    h = jnp.minimum(jnp.log1p((now - then) / then), 0.75)
    return y + 2 * h * now**2 * flow.pull(y, now) + jnp.sqrt(2 * h) * now * xi


def exponential_heun(flow: Any, xi: Array, y: Array, now: Array, then: Array) -> Array:
    """A step of the reverse diffusion of weak order two."""
    share = (now - then) * (now + then) / now**2
    first, scale = flow.denoise(y, now), jnp.sqrt(share) * xi
    mean = y + share * (first - y)
    return mean + then * scale + share * (flow.denoise(mean + now * scale, then) - first) / 2


def below(value: Any, name: str, most: float | int) -> None:
    """ValueError for a Langevin step that cannot be stable at any level."""
    if is_known(value) and not float(value) < most:
        raise ValueError(f"`{name}` must be below {most}, where Langevin steps become unstable, got {float(value):g}.")
