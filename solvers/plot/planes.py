"""Fields on a grid as pictures: which slice is shown, how large, with which labels."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..core.grid import Grid
from .paper import colour_bar, colour_limit, real_array, scale_of, signed_colours, value_range

# Room for labels and a colour bar beside and below a picture, inches.
MARGINS = (1.7, 0.8)
NAMES = {1: ("distance",), 2: ("depth", "distance"), 3: ("depth", "y", "x")}


class Plane(NamedTuple):
    """A slice of a field with what its axes need."""

    values: np.ndarray
    extent: tuple[float, float, float, float]
    labels: tuple[str, str]
    title: str
    aspect: str


def draw_plane(
    ax: Any,
    values: np.ndarray,
    grid: Grid,
    model: np.ndarray | None,
    limit: float,
    axis: int | None,
    index: int | None,
    unit: str,
    label: str,
) -> Callable[[np.ndarray], None]:
    """Draw one signed field; returns the function that replaces it by another."""
    if grid.ndim == 1:
        return draw_line(ax, values, grid, model, limit, unit, label)
    plane = plane_of(values, grid, axis, index, unit)
    if model is not None:
        below = plane_of(model, grid, axis, index, unit).values
        low, high = value_range([below])
        # Light greys only, so that the field stands out.
        low -= 1.5 * (high - low)
        ax.imshow(below, extent=plane.extent, cmap="gray", vmin=low, vmax=high, aspect=plane.aspect)
    image = ax.imshow(
        plane.values, extent=plane.extent, cmap=signed_colours(), vmin=-limit, vmax=limit, aspect=plane.aspect
    )

    def show(values: np.ndarray) -> None:
        image.set_data(plane_of(values, grid, axis, index, unit).values)

    ax.set_xlabel(plane.labels[1])
    ax.set_ylabel(plane.labels[0])
    ax.set_title(plane.title)
    colour_bar(ax, image, label)
    return show


def draw_line(
    ax: Any, values: np.ndarray, grid: Grid, model: np.ndarray | None, limit: float, unit: str, label: str
) -> Callable[[np.ndarray], None]:
    factor, unit = scale_of([grid.extent[0][1] - grid.extent[0][0]], unit)
    x = grid.axes()[0] * factor
    if model is not None:
        beside = ax.twinx()
        beside.fill_between(x, model, color="0.88", linewidth=0)
        beside.set_ylim(0, 1.6 * max(float(np.nanmax(model)), 1e-30))
        beside.set_ylabel("model", color="0.5")
        beside.tick_params(colors="0.5")
        # The field is drawn above the grey area.
        ax.set_zorder(beside.get_zorder() + 1)
        ax.patch.set_visible(False)
    (line,) = ax.plot(x, values, color="C0")
    if len(x) > 1:
        ax.set_xlim(x[0], x[-1])
    ax.set_ylim(-1.1 * limit, 1.1 * limit)
    ax.set_xlabel(f"{NAMES[1][0]} ({unit})")
    ax.set_ylabel(label)
    return line.set_ydata


def draw_lines(ax: Any, values: Sequence[np.ndarray], titles: Sequence[str], grid: Grid, unit: str, label: str) -> None:
    factor, unit = scale_of([grid.extent[0][1] - grid.extent[0][0]], unit)
    for value, title in zip(values, titles, strict=True):
        ax.plot(grid.axes()[0] * factor, value, label=title)
    ax.set_xlabel(f"{NAMES[1][0]} ({unit})")
    ax.set_ylabel(label)
    if any(titles):
        ax.legend()


def plane_of(values: np.ndarray, grid: Grid, axis: int | None, index: int | None, unit: str) -> Plane:
    """A field on two axes as it is; one slice of a field on three."""
    shown, title = shown_axes(grid, axis), ""
    factor, unit = scale_of([grid.extent[k][1] - grid.extent[k][0] for k in shown], unit)
    if grid.ndim == 3:
        across = next(k for k in range(3) if k not in shown)
        nodes = grid.shape[across]
        node = nodes // 2 if index is None else index
        if not -nodes <= node < nodes:
            raise ValueError(f"`index` must be a node of axis {across}, which has {nodes}, got {index}.")
        values = np.take(values, node, axis=across)
        title = f"{NAMES[3][across]} = {grid.axes()[across][node] * factor:g} {unit}"
    elif index is not None:
        raise ValueError(f"`index` cuts fields on three axes; this grid has {grid.ndim}.")
    # A pixel is centred on its node.
    (top, bottom), (left, right) = (
        ((grid.extent[k][0] - grid.spacing[k] / 2) * factor, (grid.extent[k][1] + grid.spacing[k] / 2) * factor)
        for k in shown
    )
    names = NAMES[grid.ndim]
    labels = (f"{names[shown[0]]} ({unit})", f"{names[shown[1]]} ({unit})")
    slender = not 1 / 8 <= ratio_of(grid, axis) <= 8
    return Plane(values, (left, right, bottom, top), labels, title, "auto" if slender else "equal")


def shown_axes(grid: Grid, axis: int | None) -> tuple[int, int]:
    """The two axes of the picture: downwards and to the right."""
    if grid.ndim == 2:
        if axis is not None:
            raise ValueError("`axis` cuts fields on three axes; this grid has 2.")
        return 0, 1
    across = 1 if axis is None else axis
    if across not in (0, 1, 2):
        raise ValueError(f"`axis` must be 0, 1 or 2, got {axis}.")
    down, right = (k for k in range(3) if k != across)
    return down, right


def ratio_of(grid: Grid, axis: int | None) -> float:
    """Height by width of the picture."""
    height, width = (grid.shape[k] * grid.spacing[k] for k in shown_axes(grid, axis))
    return height / width


def figure_size(grid: Grid, axis: int | None) -> tuple[float, float]:
    """Size of a figure for one field, inches: as wide or as high as a page holds, with room for labels and a bar."""
    if grid.ndim == 1:
        return 7.0, 3.5
    ratio = ratio_of(grid, axis)
    ratio = ratio if 1 / 8 <= ratio <= 8 else 0.6
    width = min(5.4, 6.0 / ratio)
    return max(width, 2.0) + MARGINS[0], max(width * ratio, 1.3) + MARGINS[1]


def arrange(count: int, grid: Grid, axis: int | None) -> tuple[int, int]:
    """Rows and columns of a figure with several fields."""
    wide = grid.ndim > 1 and ratio_of(grid, axis) < 0.7
    columns = (1 if count <= 4 else 2) if wide else min(count, 4)
    return -(-count // columns), columns


def field_limit(values: np.ndarray, grid: Grid, clip: float | int) -> float:
    """As `_limit`, but a line is shown to its peaks."""
    return colour_limit(values, 100.0 if grid.ndim == 1 else clip)


def on_grid(values: Any, grid: Grid, name: str) -> np.ndarray:
    array = real_array(values, name)
    if array.shape != grid.shape:
        raise ValueError(f"`{name}` must have the shape of the grid, {grid.shape}, got {array.shape}.")
    return array


def background_of(model: Any, grid: Grid) -> np.ndarray | None:
    return None if model is None else on_grid(model, grid, "model")
