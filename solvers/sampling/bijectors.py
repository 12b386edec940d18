"""Constrained parameters as functions of unconstrained ones, with the logarithms of their Jacobian determinants.

A bijector has `forward(unconstrained) -> constrained`, `inverse(constrained) -> unconstrained` and
`log_det(unconstrained)`, the logarithm of the volume that `forward` makes of a unit of volume. Where the constrained
value lies on a surface (a simplex, a correlation matrix), volume is meant in its free coordinates, as said below.
"""

import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import as_field, check_positive


class Real(eqx.Module):
    """No constraint.

    Example:
        >>> import jax.numpy as jnp
        >>> float(Real().forward(jnp.array(-2.0)))
        -2.0
    """

    def forward(self, u: Array) -> Array:
        return u

    def inverse(self, x: Array) -> Array:
        return jnp.asarray(x)

    def log_det(self, u: Array) -> Array:
        return jnp.zeros((), u.dtype)


class Positive(eqx.Module):
    """x = exp(u) > 0, for any shape; log det = sum u.

    Example:
        >>> import jax.numpy as jnp
        >>> u = Positive().inverse(jnp.array([1.0, 2.0]))
        >>> Positive().forward(u).tolist(), round(float(Positive().log_det(u)), 4)
        ([1.0, 2.0], 0.6931)
    """

    def forward(self, u: Array) -> Array:
        return jnp.exp(u)

    def inverse(self, x: Array) -> Array:
        return jnp.log(jnp.asarray(x))

    def log_det(self, u: Array) -> Array:
        return jnp.sum(u)


class Interval(eqx.Module):
    """x = lower + (upper - lower) / (1 + exp(-u)), for any shape.

    Args:
        lower: lower bound, a number or an array.
        upper: upper bound, larger.

    Raises:
        ValueError: if the upper bound is not larger than the lower one.

    Example:
        >>> import jax.numpy as jnp
        >>> bounds = Interval(-1.0, 3.0)
        >>> float(bounds.forward(jnp.array(0.0))), float(bounds.log_det(jnp.array(0.0)))
        (1.0, 0.0)
    """

    lower: Array
    upper: Array

    def __init__(self, lower: Any, upper: Any):
        self.lower, self.upper = as_field(lower, "lower"), as_field(upper, "upper")
        check_positive(self.upper - self.lower, "upper - lower")

    def forward(self, u: Array) -> Array:
        lower, upper = self.lower.astype(u.dtype), self.upper.astype(u.dtype)
        return lower + (upper - lower) * jax.nn.sigmoid(u)

    def inverse(self, x: Array) -> Array:
        x = jnp.asarray(x)
        return jnp.log(x - self.lower.astype(x.dtype)) - jnp.log(self.upper.astype(x.dtype) - x)

    def log_det(self, u: Array) -> Array:
        width = jnp.log(self.upper - self.lower).astype(u.dtype)
        return jnp.sum(width + jax.nn.log_sigmoid(u) + jax.nn.log_sigmoid(-u))


class Simplex(eqx.Module):
    """x_i > 0 with sum 1, along the last axis: n - 1 unconstrained numbers for n weights.

    x = softmax(u_1, ..., u_(n-1), 0). In the free coordinates x_1 ... x_(n-1), log det = sum_i log x_i.

    Example:
        >>> import jax.numpy as jnp
        >>> u = Simplex().inverse(jnp.array([0.2, 0.3, 0.5]))
        >>> u.shape, Simplex().forward(u).round(6).tolist()
        ((2,), [0.2, 0.3, 0.5])
    """

    def forward(self, u: Array) -> Array:
        return jax.nn.softmax(_with_zero(u), axis=-1)

    def inverse(self, x: Array) -> Array:
        logs = jnp.log(jnp.asarray(x))
        return logs[..., :-1] - logs[..., -1:]

    def log_det(self, u: Array) -> Array:
        return jnp.sum(jax.nn.log_softmax(_with_zero(u), axis=-1))


class Ordered(eqx.Module):
    """x_1 < x_2 < ... along the last axis: x_1 = u_1, x_i = x_(i-1) + exp(u_i); log det = sum of u_2, u_3, ...

    Takes away the exchange of labels of a mixture.

    Example:
        >>> import jax.numpy as jnp
        >>> Ordered().forward(jnp.zeros(3)).tolist()
        [0.0, 1.0, 2.0]
    """

    def forward(self, u: Array) -> Array:
        return jnp.cumsum(jnp.concatenate([u[..., :1], jnp.exp(u[..., 1:])], axis=-1), axis=-1)

    def inverse(self, x: Array) -> Array:
        x = jnp.asarray(x)
        return jnp.concatenate([x[..., :1], jnp.log(jnp.diff(x, axis=-1))], axis=-1)

    def log_det(self, u: Array) -> Array:
        return jnp.sum(u[..., 1:])


class CovarianceCholesky(eqx.Module):
    """Lower triangular factors of covariance matrices: any numbers below the diagonal, exp(u) on it.

    n (n + 1) / 2 unconstrained numbers, row by row, for a factor F of shape (n, n); F F^T is the covariance matrix.
    Volume is that of the entries of F; `log_det_covariance` adds the step to those of F F^T, 2^n prod F_ii^(n - i + 1).

    Args:
        size: n.

    Raises:
        ValueError: if `size` is less than 1.

    Example:
        >>> import jax.numpy as jnp
        >>> CovarianceCholesky(2).forward(jnp.array([0.0, 3.0, 0.0])).tolist()
        [[1.0, 0.0], [3.0, 1.0]]
    """

    size: int = eqx.field(static=True)

    def __check_init__(self):
        if self.size < 1:
            raise ValueError(f"`size` must be at least 1, got {self.size}.")

    def forward(self, u: Array) -> Array:
        rows, columns = np.tril_indices(self.size)
        values = jnp.where(rows == columns, jnp.exp(u), u)
        return jnp.zeros((*u.shape[:-1], self.size, self.size), u.dtype).at[..., rows, columns].set(values)

    def inverse(self, x: Array) -> Array:
        rows, columns = np.tril_indices(self.size)
        values = jnp.asarray(x)[..., rows, columns]
        on = rows == columns
        return jnp.where(on, jnp.log(jnp.where(on, values, 1.0)), values)

    def log_det(self, u: Array) -> Array:
        return jnp.sum(u[..., self._diagonal()])

    def log_det_covariance(self, u: Array) -> Array:
        """Logarithm of the volume in the entries of the lower triangle of F F^T."""
        powers = jnp.arange(self.size, 0, -1, dtype=u.dtype)
        logs = u[..., self._diagonal()]
        batch = logs.size // self.size
        return batch * self.size * float(np.log(2.0)) + jnp.sum(powers * logs) + self.log_det(u)

    def _diagonal(self) -> np.ndarray:
        rows, columns = np.tril_indices(self.size)
        return np.flatnonzero(rows == columns)


class CorrelationCholesky(eqx.Module):
    """Lower triangular factors of correlation matrices: rows of length one, positive diagonal.

    n (n - 1) / 2 unconstrained numbers u, z = tanh(u) being partial correlations: row i of the factor F is

        F_ij = z_ij (1 - sum_(k < j) F_ik^2)^(1/2) for j < i,        F_ii = (1 - sum_(k < i) F_ik^2)^(1/2)

    Volume is that of the entries of F below the diagonal. `log_det_correlation` adds the step to the entries of F F^T,
    prod_i F_ii^(n - i).

    Args:
        size: n.

    Raises:
        ValueError: if `size` is less than 2.

    Example:
        >>> import jax.numpy as jnp
        >>> factor = CorrelationCholesky(3).forward(jnp.array([0.3, -0.2, 1.0]))
        >>> jnp.diagonal(factor @ factor.T).round(6).tolist()
        [1.0, 1.0, 1.0]

    Reference:
        D. Lewandowski, D. Kurowicka, H. Joe, J. Multivar. Anal. 100 (2009) 1989, section 2.
    """

    size: int = eqx.field(static=True)

    def __check_init__(self):
        if self.size < 2:
            raise ValueError(f"`size` must be at least 2, got {self.size}.")

    def forward(self, u: Array) -> Array:
        rows, columns = np.tril_indices(self.size, -1)
        unit = jnp.broadcast_to(jnp.eye(self.size, dtype=u.dtype), (*u.shape[:-1], self.size, self.size))
        return unit.at[..., rows, columns].set(jnp.tanh(u)) * jnp.exp(self._log_rest(u))

    def inverse(self, x: Array) -> Array:
        x = jnp.asarray(x)
        rows, columns = np.tril_indices(self.size, -1)
        # What is left of the row from column j on, summed from the end, which does not cancel.
        left = jnp.cumsum(jnp.square(x)[..., ::-1], axis=-1)[..., ::-1]
        z = x[..., rows, columns] / jnp.sqrt(left[..., rows, columns])
        rest = left[..., rows, columns + 1] / left[..., rows, columns]  # 1 - z^2
        # atanh z = sign log((1 + |z|) / sqrt(1 - z^2)), which keeps its digits as |z| tends to 1.
        return jnp.sign(z) * (jnp.log1p(jnp.abs(z)) - 0.5 * jnp.log(rest))

    def log_det(self, u: Array) -> Array:
        rows, columns = np.tril_indices(self.size, -1)
        before = self._log_rest(u)
        return jnp.sum(_log_sech_squared(u) + before[..., rows, columns])

    def log_det_correlation(self, u: Array) -> Array:
        """Logarithm of the volume in the entries of F F^T below the diagonal."""
        powers = jnp.arange(self.size - 1, -1, -1, dtype=u.dtype)
        diagonal = jnp.diagonal(self._log_rest(u), axis1=-2, axis2=-1)
        return jnp.sum(powers * diagonal) + self.log_det(u)

    def _log_rest(self, u: Array) -> Array:
        """log (1 - sum_(k < j) F_ik^2)^(1/2) as a matrix (n, n)."""
        rows, columns = np.tril_indices(self.size, -1)
        empty = jnp.zeros((*u.shape[:-1], self.size, self.size), u.dtype)
        half = empty.at[..., rows, columns].set(0.5 * _log_sech_squared(u))
        return jnp.cumsum(half, axis=-1) - half


class Unconstrained(eqx.Module):
    """A log density of constrained parameters as one of unconstrained numbers, for every kernel.

        log p(u) = log pi(forward(u)) + log |det forward'(u)|

    If the density has `residual` (see `LeastSquares`), so has this one, and the volume belongs to its `rest`:
    Metropolis ratios keep their digits in float32.

    Args:
        logdensity: function of the constrained parameters, a pytree.
        bijectors: pytree of the same structure, or a prefix of it, with a bijector at each leaf.

    Raises:
        TypeError: if a leaf of `bijectors` is no bijector.

    Example:
        >>> import jax.numpy as jnp
        >>> density = Unconstrained(lambda p: -p["rate"] + 0.0 * p["shift"], {"rate": Positive(), "shift": Real()})
        >>> start = density.unconstrain({"rate": jnp.array(1.0), "shift": jnp.array(0.0)})
        >>> float(start["rate"]), float(density(start)), float(density.constrain(start)["rate"])
        (0.0, -1.0, 1.0)
    """

    logdensity: Callable
    bijectors: Any

    def __init__(self, logdensity: Callable, bijectors: Any):
        for entry in jax.tree.leaves(bijectors, is_leaf=_is_bijector):
            if not _is_bijector(entry):
                raise TypeError(
                    "Every leaf of `bijectors` needs forward, inverse and log_det, such as sv.Positive(); "
                    f"got {entry!r}."
                )
        self.logdensity, self.bijectors = logdensity, bijectors

    def __call__(self, position: Any) -> Array:
        return self.logdensity(self.constrain(position)) + self._volume(position)

    @property
    def residual(self) -> Callable:
        """Residuals at unconstrained numbers; an attribute only where the density has it."""
        inner = self.logdensity.residual  # type: ignore[attr-defined]
        return lambda position: inner(self.constrain(position))

    def rest(self, position: Any) -> Array:
        """What the log density contains beside the squares of the residuals."""
        whole = self.logdensity if not hasattr(self.logdensity, "residual") else getattr(self.logdensity, "rest", None)
        volume = self._volume(position)
        return volume if whole is None else whole(self.constrain(position)) + volume

    def constrain(self, position: Any) -> Any:
        """Constrained parameters of unconstrained ones. For draws with leading axes take `jax.vmap` of it."""
        return self._map(lambda b, u: jax.tree.map(b.forward, u), position)

    def unconstrain(self, parameters: Any) -> Any:
        """Unconstrained numbers of constrained parameters, for the start of a chain."""
        return self._map(lambda b, x: jax.tree.map(b.inverse, x), parameters)

    def _volume(self, position: Any) -> Array:
        volume = self._map(lambda b, u: jax.tree.map(b.log_det, u), position)
        return functools.reduce(jnp.add, jax.tree.leaves(volume))

    def _map(self, function: Callable, tree: Any) -> Any:
        return jax.tree.map(function, self.bijectors, tree, is_leaf=_is_bijector)


def _is_bijector(entry: Any) -> bool:
    return all(hasattr(entry, name) for name in ("forward", "inverse", "log_det"))


def _with_zero(u: Array) -> Array:
    return jnp.concatenate([u, jnp.zeros((*u.shape[:-1], 1), u.dtype)], axis=-1)


def _log_sech_squared(u: Array) -> Array:
    """log(1 - tanh(u)^2), without the cancellation."""
    return 2 * (float(np.log(2.0)) - jnp.logaddexp(u, -u))
