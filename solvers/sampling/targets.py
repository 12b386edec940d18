"""Targets with exact answers, to hold a sampler against: for tests, for documentation, for your own kernel.

Every function returns a `Target`: its `logdensity` is what a kernel takes, `mean` and `variance` are the exact answers
for `parameters(position)`, and `draw` gives independent draws where there is a direct way.
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import as_field, check_positive
from .density import LeastSquares


class Target(eqx.Module):
    """A density whose expectations are known.

    Attributes:
        logdensity: log density of a position up to a constant, for the kernels.
        parameters: function of a position whose expectations are known.
        mean: expectation of `parameters`, a pytree.
        variance: variance of `parameters`, a pytree of the same structure.
        start: a position with finite density.
        draw: function (key, count) -> independent draws with a leading axis, or None.
    """

    logdensity: Callable
    parameters: Callable
    mean: Any
    variance: Any
    start: Any
    draw: Callable | None = None


def gaussian(mean: Any, covariance: Any) -> Target:
    """N(mean, covariance).

    Args:
        mean: shape (d,).
        covariance: variances, shape (d,), or a positive definite matrix, shape (d, d).

    Raises:
        ValueError: if the covariance is not positive definite or shapes do not fit.

    Example:
        >>> import jax.numpy as jnp
        >>> target = gaussian(jnp.zeros(2), jnp.array([[2.0, 1.0], [1.0, 1.0]]))
        >>> round(float(target.logdensity(jnp.array([1.0, 0.0]))), 6)
        -0.5
    """
    mean, covariance = as_field(mean, "mean"), as_field(covariance, "covariance")
    d = mean.shape[0] if mean.ndim == 1 else 0
    if not d or covariance.shape not in ((d,), (d, d)):
        raise ValueError(
            f"`mean` must have shape (d,) and `covariance` (d,) or (d, d), got {mean.shape}, {covariance.shape}."
        )
    if covariance.ndim == 1:
        check_positive(covariance, "covariance")
        factor = inverse = None
        variance, deviation = covariance, jnp.sqrt(covariance)
    else:
        root = np.linalg.cholesky(np.asarray(covariance, float)) if _definite(covariance) else None
        if root is None:
            raise ValueError("`covariance` must be symmetric and positive definite.")
        factor, inverse = jnp.asarray(root, mean.dtype), jnp.asarray(np.linalg.inv(root), mean.dtype)
        variance, deviation = jnp.diagonal(covariance), jnp.ones_like(mean)
    law = _Normal(mean, deviation, factor, inverse)
    return Target(LeastSquares(law.white), _same, mean, variance, mean, law.draw)


def mixture(means: Any, deviations: Any, weights: Any) -> Target:
    """A mixture of isotropic Gaussians, sum_k weights_k N(means_k, deviations_k^2 I).

    Args:
        means: shape (k, d).
        deviations: shape (k,), positive.
        weights: shape (k,), positive; scaled to sum one.

    Raises:
        ValueError: if shapes do not fit or a number is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> target = mixture(jnp.array([[-4.0], [4.0]]), jnp.array([1.0, 1.0]), jnp.array([1.0, 3.0]))
        >>> target.mean.tolist(), target.variance.tolist()
        ([2.0], [13.0])
    """
    means = as_field(means, "means")
    deviations, weights = as_field(deviations, "deviations"), as_field(weights, "weights")
    if means.ndim != 2 or deviations.shape != means.shape[:1] or weights.shape != means.shape[:1]:
        raise ValueError(
            f"`means` must have shape (k, d), `deviations` and `weights` (k,); got {means.shape}, {deviations.shape}, "
            f"{weights.shape}."
        )
    check_positive(deviations, "deviations")
    check_positive(weights, "weights")
    law = _Mixture(means, deviations, weights / jnp.sum(weights))
    mean = jnp.sum(law.weights[:, None] * means, axis=0)
    variance = jnp.sum(law.weights[:, None] * (deviations[:, None] ** 2 + (means - mean) ** 2), axis=0)
    return Target(law, _same, mean, variance, means[0], law.draw)


def banana(curvature: Any = 0.1, deviation: Any = 5.0) -> Target:
    """x_1 ~ N(0, s^2), x_2 | x_1 ~ N(b (x_1^2 - s^2), 1).

    Args:
        curvature: b.
        deviation: s, positive.

    Example:
        >>> target = banana(0.1, 5.0)
        >>> target.variance.tolist()
        [25.0, 13.5]

    Reference:
        H. Haario, E. Saksman, J. Tamminen, Comput. Stat. 14 (1999) 375.
    """
    b, s = as_field(curvature, "curvature", ()), as_field(deviation, "deviation", ())
    check_positive(s, "deviation")
    law = _Banana(b, s)
    return Target(law, _same, jnp.zeros(2), jnp.stack([s**2, 1 + 2 * b**2 * s**4]), jnp.zeros(2), law.draw)


def funnel(dimensions: int = 10, deviation: Any = 3.0) -> Target:
    """Neal's funnel: v ~ N(0, s^2), x_i | v ~ N(0, exp(v)) for i = 2 ... d; the position is (v, x_2, ..., x_d).

    Args:
        dimensions: d, at least 2.
        deviation: s, positive.

    Raises:
        ValueError: if there are fewer than two dimensions.

    Example:
        >>> funnel(3, 1.0).variance.round(4).tolist()
        [1.0, 1.6487, 1.6487]

    Reference:
        R. M. Neal, Ann. Stat. 31 (2003) 705, section 8.
    """
    if dimensions < 2:
        raise ValueError(f"A funnel has at least two dimensions, got {dimensions}.")
    s = as_field(deviation, "deviation", ())
    check_positive(s, "deviation")
    law = _Funnel(s, dimensions)
    variance = jnp.concatenate([s[None] ** 2, jnp.full(dimensions - 1, jnp.exp(s**2 / 2))])
    zero = jnp.zeros(dimensions)
    return Target(law, _same, zero, variance, zero, law.draw)


def eight_schools() -> Target:
    """The eight schools, non-centred: effects of coaching in eight schools, and how much they differ.

        mu ~ N(0, 5^2), tau ~ half-Cauchy(5), theta_j ~ N(mu, tau^2), y_j ~ N(theta_j, sigma_j^2)

    Positions are {"mu", "log_tau", "eta"} with theta = mu + tau eta; the parameters whose mean and variance are known
    are mu, tau and theta. Given tau all else is Gaussian, so that the answers are integrals over tau alone, taken by
    the trapezoidal rule in the logarithm of tau, to more than ten digits.

    Example:
        >>> target = eight_schools()
        >>> round(float(target.mean["mu"]), 3), round(float(target.mean["tau"]), 3)
        (4.397, 3.598)

    Reference:
        D. B. Rubin, J. Educ. Stat. 6 (1981) 377; A. Gelman and others, Bayesian Data Analysis (2013), section 5.5.
    """
    mean, variance = _schools_by_quadrature()
    start = {"mu": jnp.zeros(()), "log_tau": jnp.zeros(()), "eta": jnp.zeros(8)}
    return Target(_schools, _schools_parameters, mean, variance, start)


def logistic_regression(features: Any = None, labels: Any = None, deviation: float = 5.0) -> Target:
    """Logistic regression with a Gaussian prior: P(label = 1) = 1 / (1 + exp(-<features, beta>)), beta ~ N(0, s^2 I).

    By default the 23 flights of the space shuttle before the accident of Challenger: damage to a joint against the
    standardised temperature, with an intercept. Mean and variance are integrals over one to three coefficients by the
    trapezoidal rule around the mode.

    Args:
        features: shape (n, d) with d of 1, 2 or 3; None for the flights.
        labels: shape (n,), zeros and ones; None for the flights.
        deviation: s, positive.

    Raises:
        ValueError: if only one of features and labels is given, shapes do not fit, or there are more than three
            coefficients.

    Example:
        >>> logistic_regression().mean.shape
        (2,)

    Reference:
        S. R. Dalal, E. B. Fowlkes, B. Hoadley, J. Am. Stat. Assoc. 84 (1989) 945, table 1.
    """
    if (features is None) != (labels is None):
        given, missing = ("features", "labels") if labels is None else ("labels", "features")
        raise ValueError(f"`{given}` were given without `{missing}`: give both, or none of them for the flights.")
    if features is None:
        features, labels = _flights()
    x, y = np.asarray(features, float), np.asarray(labels, float)
    if x.ndim != 2 or not 1 <= x.shape[1] <= 3 or y.shape != x.shape[:1]:
        raise ValueError(
            f"`features` must have shape (n, 1), (n, 2) or (n, 3) and `labels` (n,), got {x.shape} and {y.shape}."
        )
    if not np.all((y == 0) | (y == 1)):
        raise ValueError("`labels` must be zeros and ones.")
    check_positive(deviation, "deviation")
    mean, variance = _logistic_by_quadrature(x, y, float(deviation))
    law = _Logistic(as_field(x, "features"), as_field(y, "labels"), as_field(float(deviation), "deviation"))
    return Target(law, _same, jnp.asarray(mean), jnp.asarray(variance), jnp.zeros(x.shape[1]))


# ---- Laws ----


class _Normal(eqx.Module):
    mean: Array
    deviation: Array
    factor: Array | None
    inverse: Array | None

    def white(self, x: Array) -> Array:
        away = x - self.mean.astype(x.dtype)
        if self.inverse is None:
            return away / self.deviation.astype(x.dtype)
        return jnp.matmul(self.inverse.astype(x.dtype), away, precision="highest")

    def draw(self, key: Array, count: int) -> Array:
        xi = jax.random.normal(key, (count, *self.mean.shape), self.mean.dtype)
        if self.factor is None:
            return self.mean + self.deviation * xi
        return self.mean + jnp.matmul(xi, self.factor.T, precision="highest")


class _Mixture(eqx.Module):
    means: Array
    deviations: Array
    weights: Array

    def __call__(self, x: Array) -> Array:
        means, s = self.means.astype(x.dtype), self.deviations.astype(x.dtype)
        square = jnp.sum((x - means) ** 2, axis=1)
        logs = jnp.log(self.weights.astype(x.dtype)) - x.shape[0] * jnp.log(s) - square / (2 * s**2)
        return jax.nn.logsumexp(logs)

    def draw(self, key: Array, count: int) -> Array:
        which, normal = jax.random.split(key)
        k = jax.random.categorical(which, jnp.log(self.weights), shape=(count,))
        xi = jax.random.normal(normal, (count, self.means.shape[1]), self.means.dtype)
        return self.means[k] + self.deviations[k][:, None] * xi


class _Banana(eqx.Module):
    b: Array
    s: Array

    def __call__(self, x: Array) -> Array:
        b, s = self.b.astype(x.dtype), self.s.astype(x.dtype)
        return -(x[0] ** 2) / (2 * s**2) - 0.5 * (x[1] - b * (x[0] ** 2 - s**2)) ** 2

    def draw(self, key: Array, count: int) -> Array:
        xi = jax.random.normal(key, (count, 2), self.s.dtype)
        first = self.s * xi[:, 0]
        return jnp.stack([first, self.b * (first**2 - self.s**2) + xi[:, 1]], axis=1)


class _Funnel(eqx.Module):
    s: Array
    dimensions: int = eqx.field(static=True)

    def __call__(self, x: Array) -> Array:
        v, rest = x[0], x[1:]
        scaled = rest * jnp.exp(-v / 2)
        return -(v**2) / (2 * self.s.astype(x.dtype) ** 2) - 0.5 * jnp.sum(scaled**2) - (self.dimensions - 1) * v / 2

    def draw(self, key: Array, count: int) -> Array:
        xi = jax.random.normal(key, (count, self.dimensions), self.s.dtype)
        v = self.s * xi[:, :1]
        return jnp.concatenate([v, jnp.exp(v / 2) * xi[:, 1:]], axis=1)


class _Logistic(eqx.Module):
    features: Array
    labels: Array
    deviation: Array

    def __call__(self, beta: Array) -> Array:
        logits = jnp.sum(self.features.astype(beta.dtype) * beta, axis=1)
        signs = 2 * self.labels.astype(beta.dtype) - 1
        prior = -jnp.sum(beta**2) / (2 * self.deviation.astype(beta.dtype) ** 2)
        return prior + jnp.sum(jax.nn.log_sigmoid(signs * logits))


_EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
_ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def _schools(position: Any) -> Array:
    mu, log_tau, eta = position["mu"], position["log_tau"], position["eta"]
    theta = mu + jnp.exp(log_tau) * eta
    misfit = (jnp.asarray(_EFFECTS, theta.dtype) - theta) / jnp.asarray(_ERRORS, theta.dtype)
    # Half-Cauchy law of tau with the volume of the logarithm: tau / (1 + (tau / 5)^2).
    scale = log_tau - jnp.logaddexp(0.0, 2 * (log_tau - math.log(5.0)))
    return -0.5 * jnp.sum(misfit**2) - 0.5 * jnp.sum(eta**2) - mu**2 / 50 + scale


def _schools_parameters(position: Any) -> Any:
    tau = jnp.exp(position["log_tau"])
    return {"mu": position["mu"], "tau": tau, "theta": position["mu"] + tau * position["eta"]}


def _schools_by_quadrature() -> tuple[dict, dict]:
    """Mean and variance of mu, tau and theta; the trapezoidal rule in log tau converges exponentially."""
    log_tau = np.linspace(-40.0, 60.0, 8001)
    tau = np.exp(log_tau)[:, None]
    spread = _ERRORS**2 + tau**2
    precision = 1 / 25 + np.sum(1 / spread, axis=1)
    centre = np.sum(_EFFECTS / spread, axis=1) / precision
    # log of integral over mu of N(mu; 0, 25) prod N(y_j; mu, sigma_j^2 + tau^2).
    evidence = 0.5 * centre**2 * precision - 0.5 * np.log(precision)
    evidence += -0.5 * np.sum(_EFFECTS**2 / spread + np.log(spread), axis=1)
    logs = evidence + log_tau - np.logaddexp(0.0, 2 * (log_tau - math.log(5.0)))
    weight = np.exp(logs - logs.max())
    weight /= weight.sum()
    # theta_j given mu and tau: mean (1 - b) y_j + b mu, variance b tau^2, with b = sigma_j^2 / (sigma_j^2 + tau^2).
    b = _ERRORS**2 / spread
    theta = (1 - b) * _EFFECTS + b * centre[:, None]
    theta_square = theta**2 + b * tau**2 + b**2 / precision[:, None]
    mean = {"mu": weight @ centre, "tau": weight @ tau[:, 0], "theta": weight @ theta}
    square = {
        "mu": weight @ (centre**2 + 1 / precision),
        "tau": weight @ tau[:, 0] ** 2,
        "theta": weight @ theta_square,
    }
    variance = {name: square[name] - mean[name] ** 2 for name in mean}
    return jax.tree.map(jnp.asarray, mean), jax.tree.map(jnp.asarray, variance)


def _logistic_by_quadrature(x: np.ndarray, y: np.ndarray, deviation: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the coefficients by the trapezoidal rule in coordinates whitened at the mode."""
    d = x.shape[1]
    beta, hessian = np.zeros(d), np.eye(d)
    for _ in range(200):
        p = 1 / (1 + np.exp(-x @ beta))
        hessian = (x * (p * (1 - p))[:, None]).T @ x + np.eye(d) / deviation**2
        beta = beta + np.linalg.solve(hessian, x.T @ (y - p) - beta / deviation**2)
    root = np.linalg.inv(np.linalg.cholesky(hessian)).T
    # Tails of a logistic likelihood are exponential, those of the prior Gaussian: 24 deviations are far out.
    line = np.linspace(-24.0, 24.0, {1: 2401, 2: 241, 3: 121}[d])
    nodes = beta + np.stack(np.meshgrid(*[line] * d, indexing="ij"), axis=-1).reshape(-1, d) @ root.T
    logs = -np.sum(nodes**2, axis=1) / (2 * deviation**2)
    for row, label in zip(x, y, strict=True):
        logs -= np.logaddexp(0.0, -(2 * label - 1) * (nodes @ row))
    weight = np.exp(logs - logs.max())
    weight /= weight.sum()
    mean = weight @ nodes
    return mean, weight @ (nodes - mean) ** 2


def _flights() -> tuple[np.ndarray, np.ndarray]:
    """Intercept and standardised temperature, and damage, of 23 flights."""
    fahrenheit = [66, 70, 69, 68, 67, 72, 73, 70, 57, 63, 70, 78, 67, 53, 67, 75, 70, 81, 76, 79, 75, 76, 58]
    damaged = [0, 1, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 1]
    t = np.array(fahrenheit, float)
    return np.stack([np.ones(t.size), (t - t.mean()) / t.std()], axis=1), np.array(damaged, float)


def _same(position: Any) -> Any:
    return position


def _definite(matrix: Any) -> bool:
    matrix = np.asarray(matrix, float)
    return bool(np.allclose(matrix, matrix.T, rtol=1e-6) and np.min(np.linalg.eigvalsh(matrix)) > 0)
