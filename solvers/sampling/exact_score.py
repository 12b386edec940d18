"""Scores that are known exactly, at every noise level: to hold a sampler or a trained network against."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..core.checks import as_field, check_positive


class MixtureScore(eqx.Module):
    """The score of a mixture of Gaussians under a forward noise, for every noise level.

    With data from sum_j w_j N(m_j, S_j), what the noise makes of them is a mixture again,

        p(x; sigma) = sum_j w_j N(x; alpha m_j, alpha^2 S_j + sigma^2 I),

    so that its gradient, its density and whatever follows from them are closed forms. One component is a Gaussian.

    Args:
        means: m_j, shape (j, d), or (d,) for one Gaussian; differentiable.
        covariances: S_j, shape (j, d, d) or (d, d), positive definite; or deviations of isotropic components, shape
            (j,) or a number; differentiable.
        noise: the forward noise, such as `VarianceExploding(0.01, 10.0)`.
        weights: w_j, shape (j,), scaled to sum one; equal by default.

    Raises:
        ValueError: if shapes do not fit, or covariances or weights are not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> from solvers.sampling.noise import VarianceExploding
        >>> score = MixtureScore(jnp.zeros(2), 2.0, VarianceExploding(0.1, 10.0))
        >>> score(jnp.array([1.0, -5.0]), 1.0).tolist()
        [-0.2, 1.0]
    """

    means: Array
    axes: Array  # columns: principal axes of each component
    variances: Array  # along them
    log_weights: Array
    noise: Any

    def __init__(self, means: Any, covariances: Any, noise: Any, weights: Any = None):
        means, covariances = as_field(means, "means"), as_field(covariances, "covariances")
        means = means[None] if means.ndim == 1 else means
        if means.ndim != 2:
            raise ValueError(f"`means` must have shape (j, d), or (d,) for one Gaussian, got {means.shape}.")
        count, d = means.shape
        weights = jnp.ones(count, means.dtype) if weights is None else as_field(weights, "weights")
        isotropic = covariances.ndim <= 1
        covariances = covariances[None] if covariances.ndim in (0, 2) else covariances
        if covariances.shape not in ((count,), (count, d, d)) or weights.shape != (count,):
            raise ValueError(
                f"For {count} means of {d} dimensions `covariances` must have the shape {(count,)} or {(count, d, d)} "
                f"and `weights` {(count,)}; got {covariances.shape} and {weights.shape}."
            )
        check_positive(weights, "weights")
        if isotropic:
            check_positive(covariances, "covariances")
            self.axes = jnp.broadcast_to(jnp.eye(d, dtype=means.dtype), (count, d, d))
            self.variances = jnp.broadcast_to(covariances[:, None] ** 2, (count, d)).astype(means.dtype)
        else:
            variances, axes = jnp.linalg.eigh(covariances.astype(means.dtype))
            check_positive(variances, "covariances (eigenvalues)")
            self.variances, self.axes = variances, axes
        self.means, self.log_weights, self.noise = means, jnp.log(weights / jnp.sum(weights)), noise

    def __call__(self, x: Array, sigma: Any) -> Array:
        """The score at x, of any shape with d numbers, at the noise level sigma."""
        logs, along, variances, axes = self._parts(x, sigma)
        pull = jnp.einsum("jde,je->jd", axes, along / variances, precision="highest")
        return -jnp.einsum("j,jd->d", jax.nn.softmax(logs), pull, precision="highest").reshape(x.shape)

    def logdensity(self, x: Array, sigma: Any) -> Array:
        """The normalised log density at x at the noise level sigma."""
        return jax.nn.logsumexp(self._parts(x, sigma)[0])

    def draw(self, key: Array, count: int) -> Array:
        """Independent draws of the data themselves, shape (count, d)."""
        first, second = jax.random.split(key)
        which = jax.random.categorical(first, self.log_weights, shape=(count,))
        white = jax.random.normal(second, (count, self.means.shape[1]), self.means.dtype)
        along = jnp.sqrt(self.variances)[which] * white
        return self.means[which] + jnp.einsum("nde,ne->nd", self.axes[which], along, precision="highest")

    def _parts(self, x: Array, sigma: Any) -> tuple[Array, Array, Array, Array]:
        """Per component: log of weight times density; coordinates and variances along its axes; the axes."""
        if x.size != self.means.shape[1]:
            raise ValueError(f"A sample must have {self.means.shape[1]} numbers, as the means have; got {x.shape}.")
        means, axes, variances, logs = (
            a.astype(x.dtype) for a in (self.means, self.axes, self.variances, self.log_weights)
        )
        sigma = jnp.asarray(sigma).astype(x.dtype)
        alpha = sigma / self.noise.ratio(sigma)
        along = jnp.einsum("jde,jd->je", axes, x.reshape(-1) - alpha * means, precision="highest")
        variances = alpha**2 * variances + sigma**2
        logs = logs - 0.5 * jnp.sum(along**2 / variances + jnp.log(variances), axis=1)
        return logs - 0.5 * means.shape[1] * math.log(2 * math.pi), along, variances, axes
