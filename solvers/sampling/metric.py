"""Metrics: the covariance by which a kernel scales its moves, as an operator A = L L^T, never as a matrix.

A kernel asks for the factor alone: noise L xi, drift L L^T score. No kernel of this package needs an inverse or a
determinant, so that L may even be rectangular (a field cut out of a larger periodic one). Anything with the three
methods of `Metric` will do, among them every Gaussian prior.
"""

import functools
from typing import Any, Protocol

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array

from ..core.checks import as_field, check_positive
from .vectors import add, normal_like, scale


class Metric(Protocol):
    """A positive covariance operator A = L L^T on positions; L acts on white noise."""

    def white(self, position: Any) -> Any:
        """Shapes of the white noise that L acts on, as a pytree of arrays or `jax.ShapeDtypeStruct`."""
        ...

    def sqrt(self, white: Any) -> Any:
        """L applied to white noise: a position."""
        ...

    def sqrt_transpose(self, position: Any) -> Any:
        """L^T applied to a position (a score): white noise."""
        ...


class IdentityMetric(eqx.Module):
    """A = I: all directions alike.

    Example:
        >>> import jax.numpy as jnp
        >>> IdentityMetric().sqrt(jnp.ones(2)).tolist()
        [1.0, 1.0]
    """

    def white(self, position: Any) -> Any:
        return position

    def sqrt(self, white: Any) -> Any:
        return white

    def sqrt_transpose(self, position: Any) -> Any:
        return position

    def apply(self, position: Any) -> Any:
        """A x."""
        return position

    def precision(self, position: Any) -> Any:
        """A^-1 x."""
        return position

    def logdet(self) -> float:
        """log det A."""
        return 0.0


class DiagonalMetric(eqx.Module):
    """A = diag(variance).

    Args:
        variance: positive, a pytree like the position; differentiable.

    Raises:
        ValueError: if a variance is not positive.

    Example:
        >>> import jax.numpy as jnp
        >>> DiagonalMetric(jnp.array([4.0, 9.0])).sqrt(jnp.ones(2)).tolist()
        [2.0, 3.0]
    """

    variance: Any

    def __init__(self, variance: Any):
        self.variance = jax.tree.map(lambda v: as_field(v, "variance"), variance)
        jax.tree.map(lambda v: check_positive(v, "variance"), self.variance)

    def white(self, position: Any) -> Any:
        return position

    def sqrt(self, white: Any) -> Any:
        return jax.tree.map(lambda v, x: jnp.sqrt(v).astype(x.dtype) * x, self.variance, white)

    def sqrt_transpose(self, position: Any) -> Any:
        return self.sqrt(position)

    def apply(self, position: Any) -> Any:
        """A x."""
        return jax.tree.map(lambda v, x: v.astype(x.dtype) * x, self.variance, position)

    def precision(self, position: Any) -> Any:
        """A^-1 x."""
        return jax.tree.map(lambda v, x: x / v.astype(x.dtype), self.variance, position)

    def logdet(self) -> Array:
        """log det A."""
        return sum((jnp.sum(jnp.log(v)) for v in jax.tree.leaves(self.variance)), start=jnp.zeros(()))


class LowRankMetric(eqx.Module):
    """A = C^(1/2) (I + V diag(values) V^T) C^(T/2): a low-rank change of the covariance C of a prior.

    With V orthonormal, L = C^(1/2) (I + V diag((1 + values)^(1/2) - 1) V^T). Cost of a product: that of C^(1/2) and
    2 r inner products. A Laplace approximation with eigenvalues l_i of the prior-preconditioned Hessian has
    values -l / (1 + l); a covariance estimated from draws has values e - 1, e being its leading eigenvalues after
    scaling by `prior`.

    Args:
        vectors: V, orthonormal in the white space of the prior: a pytree like the noise with a leading axis of length
            r.
        values: shape (r,), each larger than -1; differentiable.
        prior: the metric C, by default the identity.

    Raises:
        ValueError: if a value is not larger than -1.

    Example:
        >>> import jax.numpy as jnp
        >>> stretched = LowRankMetric(vectors=jnp.array([[1.0, 0.0]]), values=jnp.array([8.0]))
        >>> stretched.sqrt(jnp.ones(2)).tolist(), stretched.apply(jnp.ones(2)).tolist()
        ([3.0, 1.0], [9.0, 1.0])

    Reference:
        T. Bui-Thanh, O. Ghattas, J. Martin, G. Stadler, SIAM J. Sci. Comput. 35 (2013) A2494, section 3.3.
    """

    vectors: Any
    values: Array
    prior: Any

    def __init__(self, vectors: Any, values: Any, prior: Any = None):
        self.vectors = jax.tree.map(lambda v: as_field(v, "vectors"), vectors)
        self.values = as_field(values, "values")
        self.prior = IdentityMetric() if prior is None else prior
        ranks = {v.shape[:1] for v in jax.tree.leaves(self.vectors)}
        if ranks != {self.values.shape}:
            raise ValueError(
                f"`values` must have one number per vector, shape (r,), got {self.values.shape} for vectors with "
                f"leading axes {sorted(ranks)}."
            )
        check_positive(1 + self.values, "1 + values")

    @property
    def mean(self) -> Any:
        """The mean of the prior, None if it has none."""
        return getattr(self.prior, "mean", None)

    def white(self, position: Any) -> Any:
        return self.prior.white(position)

    def sqrt(self, white: Any) -> Any:
        return self.prior.sqrt(self._change(jnp.expm1(0.5 * jnp.log1p(self.values)), white))

    def sqrt_transpose(self, position: Any) -> Any:
        return self._change(jnp.expm1(0.5 * jnp.log1p(self.values)), self.prior.sqrt_transpose(position))

    def apply(self, position: Any) -> Any:
        """A x."""
        return self.prior.sqrt(self._change(self.values, self.prior.sqrt_transpose(position)))

    def precision(self, position: Any) -> Any:
        """A^-1 x, for a prior that offers `precision` and has a square root L.

        With L^-1 = L^T C^-1: A^-1 x = C^-1 L (I - V diag(values / (1 + values)) V^T) L^T C^-1 x.
        """
        half = self.prior.sqrt_transpose(self.prior.precision(position))
        return self.prior.precision(self.prior.sqrt(self._change(-self.values / (1 + self.values), half)))

    def logdet(self) -> Any:
        """log det A, for a prior that offers it."""
        return self.prior.logdet() + jnp.sum(jnp.log1p(self.values))

    def coefficients(self, white: Any) -> Array:
        """V^T applied to white noise, shape (r,)."""
        parts = jax.tree.map(
            lambda v, x: jnp.sum(v.astype(x.dtype) * x, axis=tuple(range(1, v.ndim))), self.vectors, white
        )
        return functools.reduce(jnp.add, jax.tree.leaves(parts))

    def _change(self, values: Array, white: Any) -> Any:
        """(I + V diag(values) V^T) applied to white noise."""
        weights = values.astype(self.values.dtype) * self.coefficients(white)

        def combine(v: Array, x: Array) -> Array:
            return jnp.sum(weights.astype(x.dtype).reshape(-1, *[1] * x.ndim) * v.astype(x.dtype), axis=0)

        return add(white, jax.tree.map(combine, self.vectors, white))


def white_noise(metric: Any, key: Array, position: Any) -> Any:
    """Standard normal noise in the white space of a metric."""
    return normal_like(key, metric.white(position))


def draw(metric: Any, key: Array, position: Any) -> Any:
    """A normal random position of mean zero and covariance A."""
    return metric.sqrt(white_noise(metric, key, position))


def drift(metric: Any, factor: Any, white_score: Any) -> Any:
    """factor * L applied to a white score."""
    return metric.sqrt(scale(factor, white_score))
