"""Forward noise that replaces the data by a Gaussian of variance one."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array

from ..core.checks import as_field, check_positive, is_known
from .noise import alike, as_time


class VariancePreserving(eqx.Module):
    """Noise that replaces the data: dx = -beta x / 2 dt + sqrt(beta) dW with beta(t) linear, for data of variance one.

        B(t) = integral of beta,    alpha(t) = exp(-B / 2),    sigma(t) = sqrt(1 - exp(-B)),    t in [t_min, 1]

    The continuous form of DDPM. Times begin where sigma is sigma_min.

    Args:
        beta_min: rate at t = 0, 1 / time; differentiable.
        beta_max: rate at t = 1; differentiable.
        sigma_min: smallest standard deviation, where generation ends; differentiable.

    Raises:
        ValueError: unless 0 < beta_min <= beta_max and sigma_min lies between 0 and the last standard deviation.

    Example:
        >>> noise = VariancePreserving()
        >>> round(float(noise.alpha(0.3)) ** 2 + float(noise.sigma(0.3)) ** 2, 6)
        1.0

    Reference:
        Y. Song and others, Score-Based Generative Modeling through SDEs, ICLR 2021, equation (11) and appendix C.
    """

    beta_min: Array
    beta_max: Array
    sigma_min: Array

    def __init__(self, beta_min: Any = 0.1, beta_max: Any = 20.0, sigma_min: Any = 0.01):
        self.beta_min, self.beta_max, self.sigma_min = _rates(beta_min, beta_max, sigma_min)
        _below(self.sigma_min, self.sigma(self.times()[1]))

    def times(self) -> tuple[Array, Array]:
        """First and last time."""
        return self.time(self.sigma_min), jnp.ones_like(self.sigma_min)

    def alpha(self, t: Any) -> Array:
        """Factor of the data at time t."""
        return jnp.exp(-0.5 * _integral(self, t))

    def sigma(self, t: Any) -> Array:
        """Marginal standard deviation at time t."""
        return jnp.sqrt(-jnp.expm1(-_integral(self, t)))

    def log_snr(self, t: Any) -> Array:
        """log(alpha^2 / sigma^2)."""
        b = _integral(self, t)
        return -b - jnp.log(-jnp.expm1(-b))

    def marginal(self, x0: Any, t: Any) -> tuple[Array, Array]:
        """Mean and standard deviation of x(t) given x0."""
        return self.alpha(t) * x0, self.sigma(t)

    def time(self, sigma: Any) -> Array:
        """Time at which the marginal standard deviation is sigma."""
        return _when(self, -jnp.log1p(-(as_time(sigma) ** 2)))

    def drift(self, x: Any, t: Any) -> Array:
        """Drift of the forward equation, -beta x / 2."""
        return -0.5 * _beta(self, t) * x

    def diffusion(self, t: Any) -> Array:
        """g(t) of the forward equation."""
        return jnp.sqrt(_beta(self, t))

    def ratio(self, sigma: Any) -> Array:
        """sigma / alpha where the marginal standard deviation is sigma."""
        sigma = as_time(sigma)
        return sigma / jnp.sqrt(_left(sigma) * (1 + sigma))

    def scales(self, ratio: Any) -> tuple[Array, Array]:
        """alpha and sigma where sigma / alpha is `ratio`."""
        k = as_time(ratio)
        alpha = 1 / jnp.sqrt(1 + k**2)
        return alpha, k * alpha

    def ratio_max(self) -> Array:
        """sigma / alpha at the end."""
        return jnp.sqrt(jnp.expm1(_integral(self, self.times()[1])))

    def prior_deviation(self) -> Array:
        """Standard deviation of the Gaussian at the end."""
        return jnp.ones_like(self.sigma_min)


class SubVariancePreserving(eqx.Module):
    """Noise that replaces the data with less variance on the way: dx = -beta x / 2 dt + sqrt(beta (1 - e^(-2B))) dW.

        B(t) = integral of beta,    alpha(t) = exp(-B / 2),    sigma(t) = 1 - exp(-B),    t in [t_min, 1]

    beta is linear in t; times begin where sigma is sigma_min.

    Args:
        beta_min: rate at t = 0, 1 / time; differentiable.
        beta_max: rate at t = 1; differentiable.
        sigma_min: smallest standard deviation, where generation ends; differentiable.

    Raises:
        ValueError: unless 0 < beta_min <= beta_max and sigma_min lies between 0 and the last standard deviation.

    Example:
        >>> noise = SubVariancePreserving()
        >>> round(float(noise.sigma(0.3)) + float(noise.alpha(0.3)) ** 2, 6)
        1.0

    Reference:
        Y. Song and others, Score-Based Generative Modeling through SDEs, ICLR 2021, equation (12) and appendix C.
    """

    beta_min: Array
    beta_max: Array
    sigma_min: Array

    def __init__(self, beta_min: Any = 0.1, beta_max: Any = 20.0, sigma_min: Any = 0.01):
        self.beta_min, self.beta_max, self.sigma_min = _rates(beta_min, beta_max, sigma_min)
        _below(self.sigma_min, self.sigma(self.times()[1]))

    def times(self) -> tuple[Array, Array]:
        """First and last time."""
        return self.time(self.sigma_min), jnp.ones_like(self.sigma_min)

    def alpha(self, t: Any) -> Array:
        """Factor of the data at time t."""
        return jnp.exp(-0.5 * _integral(self, t))

    def sigma(self, t: Any) -> Array:
        """Marginal standard deviation at time t."""
        return -jnp.expm1(-_integral(self, t))

    def log_snr(self, t: Any) -> Array:
        """log(alpha^2 / sigma^2)."""
        b = _integral(self, t)
        return -b - 2 * jnp.log(-jnp.expm1(-b))

    def marginal(self, x0: Any, t: Any) -> tuple[Array, Array]:
        """Mean and standard deviation of x(t) given x0."""
        return self.alpha(t) * x0, self.sigma(t)

    def time(self, sigma: Any) -> Array:
        """Time at which the marginal standard deviation is sigma."""
        return _when(self, -jnp.log1p(-as_time(sigma)))

    def drift(self, x: Any, t: Any) -> Array:
        """Drift of the forward equation, -beta x / 2."""
        return -0.5 * _beta(self, t) * x

    def diffusion(self, t: Any) -> Array:
        """g(t) of the forward equation."""
        return jnp.sqrt(-_beta(self, t) * jnp.expm1(-2 * _integral(self, t)))

    def ratio(self, sigma: Any) -> Array:
        """sigma / alpha where the marginal standard deviation is sigma."""
        sigma = as_time(sigma)
        return sigma / jnp.sqrt(_left(sigma))

    def scales(self, ratio: Any) -> tuple[Array, Array]:
        """alpha and sigma where sigma / alpha is `ratio`: the root of alpha^2 + k alpha = 1."""
        k = as_time(ratio)
        alpha = 2 / (k + jnp.sqrt(k**2 + 4))
        return alpha, k * alpha

    def ratio_max(self) -> Array:
        """sigma / alpha at the end."""
        t = self.times()[1]
        return self.sigma(t) / self.alpha(t)

    def prior_deviation(self) -> Array:
        """Standard deviation of the Gaussian at the end."""
        return jnp.ones_like(self.sigma_min)


# ---- The linear rate, and checks ----


def _integral(noise: Any, t: Any) -> Array:
    """B(t) = beta_min t + (beta_max - beta_min) t^2 / 2."""
    t, low, high = alike(t, noise.beta_min, noise.beta_max)
    return t * (low + 0.5 * (high - low) * t)


def _beta(noise: Any, t: Any) -> Array:
    t, low, high = alike(t, noise.beta_min, noise.beta_max)
    return low + (high - low) * t


def _when(noise: Any, b: Array) -> Array:
    """The time at which the integral of beta is b; the form of the root that cancels nothing."""
    b, low, high = alike(b, noise.beta_min, noise.beta_max)
    return 2 * b / (low + jnp.sqrt(low**2 + 2 * (high - low) * b))


def _left(sigma: Array) -> Array:
    """1 - sigma; where sigma was rounded to one, the most that rounding can have taken away."""
    return jnp.where(sigma == 1, jnp.finfo(sigma.dtype).eps / 4, 1 - sigma)


def _rates(beta_min: Any, beta_max: Any, sigma_min: Any) -> tuple[Array, Array, Array]:
    low, high = as_field(beta_min, "beta_min", ()), as_field(beta_max, "beta_max", ())
    sigma = as_field(sigma_min, "sigma_min", ())
    check_positive(low, "beta_min")
    check_positive(sigma, "sigma_min")
    if is_known(low) and is_known(high) and not float(low) <= float(high):
        raise ValueError(f"`beta_min` must not exceed `beta_max`, got {float(low)} and {float(high)}.")
    return low, high, sigma


def _below(sigma_min: Array, last: Array) -> None:
    if is_known(sigma_min) and is_known(last) and not float(sigma_min) < float(last):
        raise ValueError(f"`sigma_min` must lie below the standard deviation at the end, {float(last):.6g}.")
