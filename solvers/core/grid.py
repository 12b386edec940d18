"""Regular grids."""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np


class Grid(eqx.Module):
    """Nodes of a regular grid: node i of an axis lies at `origin + i * spacing`.

    A grid is a choice, not a quantity to differentiate: all its fields are plain Python numbers.

    Args:
        shape: number of nodes per axis; one, two or three axes.
        spacing: distance of neighbouring nodes, one number or one per axis (metres, or the unit of your problem).
        origin: coordinate of the first node, one number or one per axis.

    Raises:
        ValueError: if the shape holds no node or the spacing is not positive.

    Example:
        >>> grid = Grid(shape=(3, 5), spacing=(0.5, 2.0))
        >>> grid.axes()[1]
        array([0., 2., 4., 6., 8.])
    """

    shape: tuple[int, ...] = eqx.field(static=True)
    spacing: tuple[float, ...] = eqx.field(static=True)
    origin: tuple[float, ...] = eqx.field(static=True)

    def __init__(
        self,
        shape: int | Sequence[int],
        spacing: float | int | Sequence[float | int],
        origin: float | int | Sequence[float | int] = 0.0,
    ):
        sizes = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
        if not 1 <= len(sizes) <= 3:
            raise ValueError(f"A grid has one, two or three axes, got shape={shape}.")
        if not all(isinstance(n, (int, np.integer)) and n >= 1 for n in sizes):
            raise ValueError(f"Every axis of a grid needs a whole number of nodes, at least 1, got shape={shape}.")
        self.shape = tuple(int(n) for n in sizes)
        self.spacing = _per_axis(spacing, "spacing", len(sizes))
        self.origin = _per_axis(origin, "origin", len(sizes))
        if not all(h > 0 for h in self.spacing):
            raise ValueError(f"The spacing of a grid must be positive, got {spacing}.")

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def extent(self) -> tuple[tuple[float, float], ...]:
        """First and last coordinate of each axis."""
        return tuple((o, o + (n - 1) * h) for n, h, o in zip(self.shape, self.spacing, self.origin, strict=True))

    def axes(self) -> tuple[np.ndarray, ...]:
        """Coordinates of the nodes of each axis, float64."""
        return tuple(o + h * np.arange(n) for n, h, o in zip(self.shape, self.spacing, self.origin, strict=True))


def _per_axis(value: float | int | Sequence[float | int], name: str, ndim: int) -> tuple[float, ...]:
    if np.ndim(value) not in (0, 1):
        raise ValueError(f"`{name}` must be one number or one per axis, got {value!r}.")
    values = (float(value),) * ndim if np.ndim(value) == 0 else tuple(float(v) for v in value)  # type: ignore[union-attr, arg-type]
    if len(values) != ndim:
        raise ValueError(f"`{name}` must be one number or one per axis ({ndim} axes), got {value!r}.")
    if not all(math.isfinite(v) for v in values):
        raise ValueError(f"`{name}` must be finite, got {value!r}.")
    return values


def check_grid(grid: Any) -> Grid:
    """The grid itself; TypeError unless it is a `Grid`."""
    if not isinstance(grid, Grid):
        raise TypeError(
            f"`grid` must be a Grid, such as Grid(shape=(64, 64), spacing=0.1), got {type(grid).__name__}: {grid!r}."
        )
    return grid
