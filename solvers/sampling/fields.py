"""Gaussian random fields as operators, by Fourier transforms in O(n log n): `MaternField`."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import as_field, check_positive, is_known
from ..core.grid import Grid


class MaternField(eqx.Module):
    """A Gaussian prior for a field on a grid, with the Matern covariance.

        C = F^T diag(s) F,        s(k) ~ (2 nu / length^2 + |k|^2)^(-(nu + d / 2))

    in the Fourier modes k of a periodic box with d axes, scaled so that every node has the standard deviation
    `deviation`. Correlations fall to about 0.14 at a distance of 2 `length` (nu = 1/2; the covariance is then
    exp(-r / length)), draws have derivatives up to an order less than nu. Nothing is stored but the numbers below: a
    product with C, its root or its inverse costs two Fourier transforms.

    Without padding the field is periodic. With `padding` nodes it is cut out of a periodic field that is longer by as
    many nodes along each axis, so that opposite sides know nothing of each other when the padding spans some lengths.
    The root L is then rectangular, which no kernel minds, and `precision` is solved for by conjugate gradients.

    Args:
        grid: one, two or three axes.
        length: correlation length, in the unit of the grid; differentiable.
        smoothness: nu, positive; differentiable.
        deviation: standard deviation at a node; differentiable.
        mean: m, a number or a field of the grid's shape; differentiable.
        padding: nodes added along each axis, 0 for a periodic field.

    Raises:
        ValueError: if a number is not positive, the mean has another shape, or the padding is negative.

    Example:
        >>> import jax
        >>> prior = MaternField(Grid((64, 64), 1.0), length=8.0, smoothness=1.5, deviation=2.0)
        >>> field = prior.draw(jax.random.key(0))
        >>> field.shape, round(float(prior.variance()), 6)
        ((64, 64), 4.0)
        >>> bool(abs(prior.precision(prior.apply(field)) - field).max() < 1e-2)
        True

    Reference:
        P. Whittle, Biometrika 41 (1954) 434; F. Lindgren, H. Rue, J. Lindstrom, J. R. Stat. Soc. B 73 (2011) 423;
        A. T. A. Wood, G. Chan, J. Comput. Graph. Stat. 3 (1994) 409 (cutting out of a periodic field).
    """

    grid: Grid = eqx.field(static=True)
    length: Array
    smoothness: Array
    deviation: Array
    mean: Array
    padding: int = eqx.field(static=True)

    def __init__(
        self,
        grid: Grid,
        length: Any,
        smoothness: Any = 1.5,
        deviation: Any = 1.0,
        mean: Any = 0.0,
        padding: int = 0,
    ):
        self.grid = grid
        for name, value in (("length", length), ("smoothness", smoothness), ("deviation", deviation)):
            array = as_field(value, name)
            if array.ndim:
                raise ValueError(f"`{name}` must be one number, got shape {array.shape}.")
            check_positive(array, name)
            setattr(self, name, array)
        self.mean = as_field(mean, "mean", grid.shape)
        if padding < 0:
            raise ValueError(f"`padding` must be a number of nodes, 0 for a periodic field, got {padding}.")
        self.padding = padding

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the white noise: that of the periodic field."""
        return tuple(n + self.padding for n in self.grid.shape)

    def draw(self, key: Array, dtype: Any = None) -> Array:
        """A random field."""
        dtype = self.mean.dtype if dtype is None else dtype
        return self.mean.astype(dtype) + self.sqrt(jax.random.normal(key, self.shape, dtype))

    def white(self, position: Any) -> jax.ShapeDtypeStruct:
        """Shape of the white noise that L acts on."""
        if jnp.shape(position) != self.grid.shape:
            raise ValueError(f"The field must have the shape {self.grid.shape} of the grid, got {jnp.shape(position)}.")
        return jax.ShapeDtypeStruct(self.shape, position.dtype)

    def sqrt(self, white: Array) -> Array:
        """L applied to white noise."""
        return self._cut(self._filter(white, 0.5))

    def sqrt_transpose(self, position: Array) -> Array:
        """L^T applied to a field."""
        return self._filter(self._extend(position), 0.5)

    def apply(self, position: Array) -> Array:
        """C applied to a field."""
        return self._cut(self._filter(self._extend(position), 1.0))

    def precision(self, position: Array) -> Array:
        """C^-1 applied to a field. With padding by conjugate gradients; NaN where they did not converge."""
        if not self.padding:
            return self._filter(position, -1.0)
        # The inverse of the periodic covariance, cut out, is a good preconditioner: it is off near the edges only.
        tolerance = 100 * float(jnp.finfo(position.dtype).eps)
        solution, _ = jax.scipy.sparse.linalg.cg(
            self.apply,
            position,
            tol=tolerance,
            maxiter=20 * max(self.shape),
            M=lambda r: self._cut(self._filter(self._extend(r), -1.0)),
        )
        left = jnp.linalg.norm((position - self.apply(solution)).ravel())
        reached = left <= math.sqrt(tolerance) * jnp.linalg.norm(position.ravel())
        return jnp.where(reached, solution, jnp.nan)

    def residual(self, position: Array) -> Array:
        """L^-1 (x - m), for a periodic field: the prior density is exp(-|residual|^2 / 2)."""
        if self.padding:
            raise ValueError("A field cut out of a larger one has no unique white noise; use `precision`.")
        return self._filter(position - self.mean.astype(position.dtype), -0.5)

    def logdet(self) -> Array:
        """log det C, for a periodic field."""
        if self.padding:
            raise ValueError("The determinant is known for a periodic field only (padding=0).")
        return jnp.sum(jnp.log(self._spectrum()))

    def variance(self) -> Array:
        """Variance at every node."""
        return jnp.mean(self._spectrum())

    def _spectrum(self, dtype: Any = None) -> Array:
        """s on all modes, in the order of `numpy.fft.fftfreq`; by logarithms, which do not overflow."""
        dtype = self.length.dtype if dtype is None else dtype
        square = np.zeros(self.shape)
        for axis, (n, h) in enumerate(zip(self.shape, self.grid.spacing, strict=True)):
            k = 2 * np.pi * np.fft.fftfreq(n, h)
            square = square + (k**2).reshape([-1 if i == axis else 1 for i in range(len(self.shape))])
        length, nu = self.length.astype(dtype), self.smoothness.astype(dtype)
        exponent = nu + len(self.shape) / 2
        logs = -exponent * jnp.log1p(jnp.asarray(square, dtype) * length**2 / (2 * nu))
        shape = jnp.exp(logs)
        return self.deviation.astype(dtype) ** 2 * shape / jnp.mean(shape)

    def _filter(self, field: Array, power: float) -> Array:
        """F^T diag(s^power) F, a symmetric operator on the periodic field."""
        spectrum = self._spectrum(field.dtype)[..., : self.shape[-1] // 2 + 1] ** power
        return jnp.fft.irfftn(jnp.fft.rfftn(field) * spectrum, s=self.shape, axes=range(len(self.shape)))

    def _cut(self, field: Array) -> Array:
        return field[tuple(slice(n) for n in self.grid.shape)]

    def _extend(self, field: Array) -> Array:
        return jnp.pad(field, [(0, self.padding)] * len(self.shape))


def covariance_matrix(prior: Any, position: Array) -> np.ndarray:
    """The dense covariance of a prior, for checks on small grids.

    Args:
        prior: an operator with `apply`.
        position: array whose shape and dtype say what the prior acts on; at most 4096 unknowns.

    Returns:
        Matrix of shape (n, n), n being the number of unknowns in C order.

    Raises:
        ValueError: if there are more than 4096 unknowns.
    """
    if position.size > 4096 or not is_known(position):
        raise ValueError(f"A dense covariance is for checks with at most 4096 unknowns, got {position.size}.")
    unit = jnp.eye(position.size, dtype=position.dtype).reshape(-1, *position.shape)
    return np.asarray(jax.vmap(prior.apply)(unit)).reshape(position.size, -1)
