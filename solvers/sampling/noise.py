"""How noise is added to data: forward equations whose marginals are known, from data to (nearly) a Gaussian.

All of them are linear, dx = -b(t) x dt + g(t) dW, so that

    x(t) = alpha(t) x0 + sigma(t) eps,        eps ~ N(0, I),

and a score at a noise level is told the marginal standard deviation sigma alone: score(x, sigma). What distinguishes
two of them beside that is a change of scale: x / alpha = x0 + k eps, with the ratio k = sigma / alpha. So every method
of `generate` works with the ratio and asks the noise for `scales(k)`, which gives alpha and sigma back.

All formulas are written with `expm1` and `log1p`: sqrt(1 - exp(-B)) has lost 2 % at the smallest times in float32.
"""

import math
from typing import Any, Protocol

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import as_field, check_positive, is_known


class Noise(Protocol):
    """What generation, likelihoods and losses ask of a noise."""

    sigma_min: Array

    def scales(self, ratio: Any) -> tuple[Array, Array]:
        """alpha and sigma where sigma / alpha is `ratio`."""
        ...

    def ratio(self, sigma: Any) -> Array:
        """sigma / alpha where the marginal standard deviation is sigma."""
        ...

    def ratio_max(self) -> Array:
        """sigma / alpha at the end of the forward process."""
        ...

    def prior_deviation(self) -> Array:
        """Standard deviation of the Gaussian that the forward process ends in."""
        ...


class VarianceExploding(eqx.Module):
    """Noise that is only added: dx = sqrt(d sigma^2 / dt) dW, from sigma_min to sigma_max, geometrically.

        alpha(t) = 1,    sigma(t) = sigma_min (sigma_max / sigma_min)^t,    t in [0, 1]

    Take sigma_max above the largest distance between two data, sigma_min below what can be seen.

    Args:
        sigma_min: smallest standard deviation, in the unit of the data; differentiable.
        sigma_max: largest standard deviation; differentiable.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max.

    Example:
        >>> noise = VarianceExploding(sigma_min=0.01, sigma_max=10.0)
        >>> round(float(noise.sigma(2 / 3)), 6), round(float(noise.time(1.0)), 6)
        (1.0, 0.666667)

    Reference:
        Y. Song and others, Score-Based Generative Modeling through SDEs, ICLR 2021, equation (9) and appendix C.
    """

    sigma_min: Array
    sigma_max: Array

    def __init__(self, sigma_min: Any = 0.01, sigma_max: Any = 50.0):
        self.sigma_min, self.sigma_max = _range(sigma_min, sigma_max)

    def times(self) -> tuple[Array, Array]:
        """First and last time."""
        return jnp.zeros_like(self.sigma_min), jnp.ones_like(self.sigma_min)

    def alpha(self, t: Any) -> Array:
        """Factor of the data, 1."""
        return jnp.ones_like(as_time(t))

    def sigma(self, t: Any) -> Array:
        """Marginal standard deviation at time t."""
        t, low, growth = alike(t, self.sigma_min, self._growth())
        return low * jnp.exp(t * growth)

    def log_snr(self, t: Any) -> Array:
        """log(alpha^2 / sigma^2)."""
        t, low, growth = alike(t, self.sigma_min, self._growth())
        return -2 * (jnp.log(low) + t * growth)

    def marginal(self, x0: Any, t: Any) -> tuple[Array, Array]:
        """Mean and standard deviation of x(t) given x0."""
        return jnp.asarray(x0), self.sigma(t)

    def time(self, sigma: Any) -> Array:
        """Time at which the marginal standard deviation is sigma."""
        sigma, low, growth = alike(sigma, self.sigma_min, self._growth())
        return jnp.log(sigma / low) / growth

    def drift(self, x: Any, t: Any) -> Array:
        """Drift of the forward equation, 0."""
        return jnp.zeros_like(x)

    def diffusion(self, t: Any) -> Array:
        """g(t) of the forward equation."""
        t, growth = alike(t, self._growth())
        return self.sigma(t) * jnp.sqrt(2 * growth)

    def ratio(self, sigma: Any) -> Array:
        """sigma / alpha, which is sigma."""
        return as_time(sigma)

    def scales(self, ratio: Any) -> tuple[Array, Array]:
        """alpha and sigma where sigma / alpha is `ratio`."""
        return jnp.ones_like(as_time(ratio)), as_time(ratio)

    def ratio_max(self) -> Array:
        """sigma / alpha at the end."""
        return self.sigma_max

    def prior_deviation(self) -> Array:
        """Standard deviation of the Gaussian at the end."""
        return self.sigma_max

    def _growth(self) -> Array:
        return jnp.log(self.sigma_max / self.sigma_min)


class Edm(eqx.Module):
    """Noise that is only added, with the standard deviation as time: dx = sqrt(2 t) dW.

        alpha(t) = 1,    sigma(t) = t,    t in [sigma_min, sigma_max]

    Args:
        sigma_min: smallest standard deviation, in the unit of the data; differentiable.
        sigma_max: largest standard deviation; differentiable.

    Raises:
        ValueError: unless 0 < sigma_min < sigma_max.

    Example:
        >>> noise = Edm()
        >>> float(noise.sigma(0.5)), float(noise.diffusion(2.0))
        (0.5, 2.0)

    Reference:
        T. Karras, M. Aittala, T. Aila, S. Laine, Elucidating the Design Space of Diffusion-Based Generative Models,
        NeurIPS 2022, table 1.
    """

    sigma_min: Array
    sigma_max: Array

    def __init__(self, sigma_min: Any = 0.002, sigma_max: Any = 80.0):
        self.sigma_min, self.sigma_max = _range(sigma_min, sigma_max)

    def times(self) -> tuple[Array, Array]:
        """First and last time."""
        return self.sigma_min, self.sigma_max

    def alpha(self, t: Any) -> Array:
        """Factor of the data, 1."""
        return jnp.ones_like(as_time(t))

    def sigma(self, t: Any) -> Array:
        """Marginal standard deviation at time t, which is t."""
        return as_time(t)

    def log_snr(self, t: Any) -> Array:
        """log(alpha^2 / sigma^2)."""
        return -2 * jnp.log(as_time(t))

    def marginal(self, x0: Any, t: Any) -> tuple[Array, Array]:
        """Mean and standard deviation of x(t) given x0."""
        return jnp.asarray(x0), self.sigma(t)

    def time(self, sigma: Any) -> Array:
        """Time at which the marginal standard deviation is sigma, which is sigma."""
        return as_time(sigma)

    def drift(self, x: Any, t: Any) -> Array:
        """Drift of the forward equation, 0."""
        return jnp.zeros_like(x)

    def diffusion(self, t: Any) -> Array:
        """g(t) of the forward equation."""
        return jnp.sqrt(2 * as_time(t))

    def ratio(self, sigma: Any) -> Array:
        """sigma / alpha, which is sigma."""
        return as_time(sigma)

    def scales(self, ratio: Any) -> tuple[Array, Array]:
        """alpha and sigma where sigma / alpha is `ratio`."""
        return jnp.ones_like(as_time(ratio)), as_time(ratio)

    def ratio_max(self) -> Array:
        """sigma / alpha at the end."""
        return self.sigma_max

    def prior_deviation(self) -> Array:
        """Standard deviation of the Gaussian at the end."""
        return self.sigma_max


def perturb(noise: Any, x0: Array, ratio: Array, eps: Array) -> tuple[Array, Array]:
    """x = alpha x0 + sigma eps and sigma at the ratio sigma / alpha."""
    alpha, sigma = noise.scales(ratio.astype(x0.dtype))
    return alpha * x0 + sigma * eps, sigma


def prior_logdensity(noise: Any, x: Array) -> Array:
    """Log density of the Gaussian that the forward process ends in."""
    s = noise.prior_deviation().astype(x.dtype)
    return -0.5 * jnp.sum((x / s) ** 2) - x.size * (jnp.log(s) + 0.5 * math.log(2 * math.pi))


def ratio_levels(noise: Any, steps: int, rho: float) -> Array:
    """`steps` + 1 ratios k = sigma / alpha from the largest to the smallest.

        k_i = (k_max^(1/rho) + i / steps (k_min^(1/rho) - k_max^(1/rho)))^rho

    Equally spaced in k for rho = 1, in log k for rho = inf.

    Reference:
        T. Karras and others, NeurIPS 2022, equation (5).
    """
    high, low = noise.ratio_max(), noise.ratio(noise.sigma_min)
    at = jnp.asarray(np.linspace(0.0, 1.0, steps + 1), high.dtype)
    if math.isinf(rho):
        return jnp.exp(jnp.log(high) + at * (jnp.log(low) - jnp.log(high)))
    high, low = high ** (1 / rho), low ** (1 / rho)
    return (high + at * (low - high)) ** rho


# ---- Checks and dtypes ----


def as_time(t: Any) -> Array:
    """A time or level as a floating array."""
    t = jnp.asarray(t)
    return t if jnp.issubdtype(t.dtype, jnp.floating) else t.astype(jnp.result_type(float))


def alike(t: Any, *fields: Array) -> tuple[Array, ...]:
    """A time or level as an array, and the fields in its precision."""
    t = as_time(t)
    return (t, *[f.astype(t.dtype) for f in fields])


def _range(sigma_min: Any, sigma_max: Any) -> tuple[Array, Array]:
    low, high = as_field(sigma_min, "sigma_min", ()), as_field(sigma_max, "sigma_max", ())
    check_positive(low, "sigma_min")
    if is_known(low) and is_known(high) and not float(low) < float(high):
        raise ValueError(f"`sigma_min` must be smaller than `sigma_max`, got {float(low)} and {float(high)}.")
    return low, high
