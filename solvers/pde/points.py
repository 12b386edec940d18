"""Sources and receivers at any position: a windowed sinc whose spreading and reading are exact transposes."""

from functools import lru_cache
from math import factorial
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from ..core.checks import is_known
from ..core.grid import Grid
from .boundary import Free, Periodic, Rigid, faces_of, layer_widths

HALF_WIDTH = 6
POINTS = 2 * HALF_WIDTH
# Shape of the window, chosen so that the largest error for wavenumbers up to half of Nyquist is smallest.
SHAPE = 9.5


@lru_cache
def _window_series() -> tuple[float, ...]:
    """Coefficients of the window as a polynomial in y = 1 - (x / HALF_WIDTH)^2, lowest (y^2) first."""
    terms = [(SHAPE**2 / 4) ** k / factorial(k) ** 2 for k in range(2, 32)]
    return tuple(t / sum(terms) for t in terms)


def kernel(x: Array) -> Array:
    r"""sinc(x) times a Kaiser window I0(b sqrt(1 - (x/R)^2)), R = 6, without the first two terms of its series.

    I0 is summed as a series in its squared argument, smooth where the square root is not. Without its pedestal and its
    linear term the kernel and its first two derivatives vanish at |x| = R: what it reads has continuous second
    derivatives with respect to the position, across nodes too. Largest error of a wave up to half of the Nyquist
    wavenumber: 1.3e-4.

    Reference: Hicks, Geophysics 67 (2002), 156, for the windowed sinc; the smooth ends are added here.
    """
    y = 1 - (x / HALF_WIDTH) ** 2
    inside = jnp.where(y > 0, y, 0)
    window = jnp.zeros_like(x)
    for coefficient in reversed(_window_series()):
        window = inside * window + coefficient
    return _sinc(x) * window * inside**2


def _sinc(x: Array) -> Array:
    """sin(pi x) / (pi x) with derivatives that are exact within round-off of 0 too: a Taylor series for |x| < 1/2."""
    near = jnp.abs(x) < 0.5
    z = jnp.where(near, (jnp.pi * x) ** 2, 0)
    series = jnp.zeros_like(x)
    for k in range(13, -1, -1):
        series = (-1) ** k / factorial(2 * k + 1) + z * series
    far = jnp.where(near, 1, jnp.pi * x)
    return jnp.where(near, series, jnp.sin(far) / far)


class Geometry(eqx.Module):
    """What points need to know of the box: static, the same for all receivers of one wave."""

    grid: Grid = eqx.field(static=True)
    faces: tuple = eqx.field(static=True)

    @property
    def lower(self) -> tuple[int, ...]:
        """Cells of absorbing layer below the first node of each axis."""
        return tuple(pair[0] for pair in layer_widths(self.faces))

    @property
    def extended(self) -> tuple[int, ...]:
        """Nodes of each axis, absorbing layers included."""
        return tuple(n + sum(w) for n, w in zip(self.grid.shape, layer_widths(self.faces), strict=True))


def geometry(grid: Grid, boundary: Any) -> Geometry:
    """The geometry of a grid with its boundary entries."""
    return Geometry(grid, faces_of(boundary, grid.ndim))


def axis_window(where: Geometry, axis: int, coordinate: Array) -> tuple[Array, Array]:
    """Indices (extended grid) and weights along one axis, shape (..., 12), that read at a coordinate.

    Images at free and rigid faces are folded into the nodes inside.
    """
    n, shift = where.extended[axis], where.lower[axis]
    x = (coordinate - where.grid.origin[axis]) / where.grid.spacing[axis] + shift
    x = _or_nan(x, where, axis)
    first = lax.stop_gradient(jnp.floor(x)).astype(jnp.int32) - HALF_WIDTH + 1
    lower, upper = where.faces[axis]
    if isinstance(lower, Periodic):
        nodes = first[..., None] + jnp.arange(POINTS, dtype=jnp.int32)
        return nodes % n, kernel(nodes - x[..., None])
    nodes = jnp.clip(first, 0, n - POINTS)[..., None] + jnp.arange(POINTS, dtype=jnp.int32)
    weights = kernel(nodes - x[..., None])
    for face, mirror in ((lower, 0), (upper, 2 * (n - 1))):
        if isinstance(face, (Free, Rigid)):
            image = kernel(mirror - nodes - x[..., None])
            image = -image if isinstance(face, Free) else image
            # The node on a wall is its own image; on a free surface the two cancel.
            weights = weights + jnp.where(2 * nodes == mirror, 0 if isinstance(face, Rigid) else image, image)
    return nodes, weights


def _or_nan(x: Array, where: Geometry, axis: int) -> Array:
    """Coordinates in cells, NaN where a point lies outside of the grid: a traced one can be told by the status only.

    Selected, not multiplied: inside, values and derivatives stay as they are.
    """
    low, n = where.lower[axis], where.grid.shape[axis]
    high = low + (n if isinstance(where.faces[axis][0], Periodic) else n - 1)
    # A slack beyond that of the check of known values, and beyond round-off of the coordinate.
    slack = 2e-6 + 8 * float(jnp.finfo(x.dtype).eps) * (high + abs(where.grid.origin[axis] / where.grid.spacing[axis]))
    inside = (x >= low - slack) & (x <= high + slack)
    return jnp.where(lax.stop_gradient(inside), x, jnp.nan)


def check_positions(positions: Any, where: Geometry, what: str) -> Any:
    """Positions as an array (n, axes); ValueError for a wrong shape or, where values are known, a point outside."""
    grid, array = where.grid, positions
    if is_known(positions):
        array = np.asarray(positions)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"Positions of {what} must be numbers, got dtype {array.dtype}.")
    if array.ndim != 2 or array.shape[1] != grid.ndim or array.shape[0] == 0:
        raise ValueError(f"Positions of {what} must have shape (n, {grid.ndim}) with n >= 1, got {tuple(array.shape)}.")
    if isinstance(array, np.ndarray):
        for axis, (low, high) in enumerate(grid.extent):
            # A periodic axis goes on to the image of its first node.
            high = high + grid.spacing[axis] if isinstance(where.faces[axis][0], Periodic) else high
            slack = 1e-6 * grid.spacing[axis]
            bad = np.flatnonzero(~((array[:, axis] >= low - slack) & (array[:, axis] <= high + slack)))
            if bad.size:
                raise ValueError(
                    f"{bad.size} of {array.shape[0]} {what} lie outside the grid: the first is number {bad[0]} with "
                    f"coordinate {array[bad[0], axis]:g} on axis {axis}, which spans {low:g} to {high:g}."
                )
    return array


class Receivers(eqx.Module):
    """Reads the pressure at positions: an observer for `simulate`, made by `wave.receivers(positions)`.

    Attributes:
        coordinates: one array per axis, of shape (n,), or of shape () where all receivers share that coordinate
            (a line at one depth is read and differentiated several times faster). Differentiable.
    """

    coordinates: tuple[Array, ...]
    where: Geometry
    count: int = eqx.field(static=True)

    def __call__(self, state: Any) -> Array:
        """Pressure at the receivers, shape (n,), of a `WaveState`."""
        return self.prepared().read(state.pressure)

    def prepared(self) -> "PreparedReceivers":
        """Windows computed once, for use at every step."""
        windows = [axis_window(self.where, axis, x) for axis, x in enumerate(self.coordinates)]
        return PreparedReceivers(tuple(w for _, w in windows), tuple(i for i, _ in windows), self.where, self.count)


def receivers_at(positions: Any, where: Geometry, dtype: Any) -> Receivers:
    """Receivers at checked positions; a coordinate that all share is kept once where the values are known."""
    array = check_positions(positions, where, "receivers")
    coordinates = []
    for axis in range(where.grid.ndim):
        x = array[:, axis]
        shared = isinstance(x, np.ndarray) and bool(np.all(x == x[0]))
        coordinates.append(jnp.asarray(x[0] if shared else x, dtype))
    return Receivers(tuple(coordinates), where, array.shape[0])


class PreparedReceivers(eqx.Module):
    """Receivers with their windows; reads what the wave marches instead of the public state."""

    weights: tuple[Array, ...]
    nodes: tuple[Array, ...]
    where: Geometry
    count: int = eqx.field(static=True)

    reads_carry = True

    def __call__(self, carry: Any) -> Array:
        return self.read(carry.u)

    @property
    def own(self) -> tuple[int, ...]:
        """Axes along which the receivers differ."""
        return tuple(a for a, w in enumerate(self.weights) if w.ndim == 2)

    def wraps(self, axis: int) -> bool:
        return isinstance(self.where.faces[axis][0], Periodic)

    def read(self, field: Array) -> Array:
        """Pressure at the receivers from a field on the extended grid."""
        block = field
        for axis in reversed(range(field.ndim)):
            if axis in self.own:
                continue
            if self.wraps(axis):
                block = jnp.take(block, self.nodes[axis], axis=axis, mode="clip")
            else:
                block = lax.dynamic_slice_in_dim(block, self.nodes[axis][0], POINTS, axis)
        for axis in reversed(range(field.ndim)):
            if axis not in self.own:
                lift = [-1 if a == axis else 1 for a in range(block.ndim)]
                block = jnp.sum(block * self.weights[axis].reshape(lift), axis=axis)
        index, weights = self._windows()
        values = block[index] * weights if self.own else jnp.broadcast_to(block, (self.count, 1))
        return values.reshape(self.count, -1).sum(axis=1)

    def _windows(self) -> tuple[tuple[Array, ...], Array]:
        """Indices and weights (n, 12, ..., 12) over the axes along which the receivers differ."""
        index, weights = [], jnp.ones((), self.weights[0].dtype)
        for place, axis in enumerate(self.own):
            lift = [self.count] + [POINTS if p == place else 1 for p in range(len(self.own))]
            index.append(self.nodes[axis].reshape(lift))
            weights = weights * self.weights[axis].reshape(lift)
        return tuple(index), weights

    # The transpose, for the hand-derived adjoint: what does not depend on the field is done for all steps at once.

    @property
    def on_line(self) -> bool:
        """True where the receivers differ along one axis at most: reading is then a product of one factor per axis."""
        return len(self.own) <= 1

    def ahead(self, values: Array) -> Array:
        """Values (steps, n) brought onto the nodes of the line of receivers, (steps, nodes); unchanged off a line."""
        if not self.on_line:
            return values
        if not self.own:
            return values.sum(axis=1, keepdims=True)
        (axis,) = self.own
        matrix = jnp.zeros((self.count, self.where.extended[axis]), values.dtype)
        matrix = matrix.at[jnp.arange(self.count)[:, None], self.nodes[axis]].add(self.weights[axis])
        return jnp.matmul(values, matrix, precision=lax.Precision.HIGHEST)

    def spread(self, field: Array, scale: Array, value: Array) -> Array:
        """Add scale * (transpose of reading) to a field; `value` comes from `ahead`."""
        axes = range(field.ndim)
        if not self.on_line:
            return self._spread_points(field, scale, value)
        # Dense factors, mostly zeros: the sum then fuses with the stencil, where writing a window copies the field.
        term = value.reshape([-1 if a in self.own else 1 for a in axes])
        for axis in axes:
            if axis not in self.own:
                factor = jnp.zeros(self.where.extended[axis], field.dtype)
                factor = factor.at[self.nodes[axis]].add(self.weights[axis])
                term = term * factor.reshape([-1 if a == axis else 1 for a in axes])
        return field + scale * term

    def _spread_points(self, field: Array, scale: Array, values: Array) -> Array:
        index, block = [], values.reshape(-1, *[1] * field.ndim)
        for axis in range(field.ndim):
            lift = [-1] + [POINTS if a == axis else 1 for a in range(field.ndim)]
            nodes = self.nodes[axis] if axis in self.own else self.nodes[axis][None]
            weights = self.weights[axis] if axis in self.own else self.weights[axis][None]
            index.append(nodes.reshape(lift))
            block = block * weights.reshape(lift)
        index = [jnp.broadcast_to(i, block.shape) for i in index]
        return field.at[tuple(index)].add(scale[tuple(index)] * block)
