"""Pictures of generation: a score as a vector field, samples on their way, points in the plane, images in rows."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .paper import figure, real_array, value_range

SIDE = 4.2  # inches, of a picture in the plane
MOST = 400  # trajectories in one picture


def vector_field(
    score: Callable,
    sigma: float | int,
    limits: Any,
    *,
    ax: Any = None,
    nodes: int = 24,
    cmap: str | None = "viridis",
) -> Any:
    """Draw a score in the plane at one noise level, as arrows towards the denoised mean.

    An arrow is sigma^2 score(x, sigma), the way from x to the mean of the data given x (for alpha = 1): short ones are
    true to scale, longer ones are cut to the distance between two arrows. Colours tell the length in units of sigma.

    Args:
        score: function (x, sigma) -> score of one sample of two numbers.
        sigma: noise level.
        limits: ((left, right), (bottom, top)) of the picture.
        ax: axes to draw into; by default those of a new figure.
        nodes: number of arrows along the longer side.
        cmap: name of the colours; None for arrows of one dark grey, over points with colours.

    Returns:
        The axes.

    Raises:
        ValueError: for limits that do not ascend, fewer than two arrows, or a score of another shape.

    Example:
        >>> import solvers as sv
        >>> ax = sv.plot.vector_field(lambda x, sigma: -x / (1 + sigma**2), 0.5, ((-2, 2), (-1, 1)))
        >>> len(ax.collections[0].U)                              # 24 x 12 arrows
        288
    """
    box = _limits(limits)
    if nodes < 2:
        raise ValueError(f"`nodes` must be at least 2, got {nodes}.")
    gap = float(np.max(box[:, 1] - box[:, 0])) / nodes
    lines = [np.arange(low + gap / 2, high, gap) for low, high in box]
    x = np.stack(np.meshgrid(*lines), axis=-1).reshape(-1, 2)
    told = jnp.asarray(sigma, jnp.result_type(float))
    slopes = np.asarray(jax.jit(jax.vmap(lambda x: score(x, told)))(jnp.asarray(x)), float)
    if slopes.shape != x.shape:
        raise ValueError(f"`score` must return two numbers for a sample of two, got shape {slopes.shape[1:]}.")
    arrows = float(sigma) ** 2 * slopes
    length = np.linalg.norm(arrows, axis=1)
    arrows = arrows / np.sqrt(1 + (length / gap) ** 2)[:, None]
    ax = figure(*_size(box)).subplots() if ax is None else ax
    colours: tuple = (length / float(sigma),) if cmap else ()
    look = {"cmap": cmap} if cmap else {"color": "0.25"}
    ax.quiver(*x.T, *arrows.T, *colours, angles="xy", scale_units="xy", scale=1.0, width=0.1 / nodes, **look)
    return _plane(ax, box)


def points(
    x: Any, *, ax: Any = None, values: Any = None, limits: Any = None, cmap: str = "turbo", size: float | int = 4
) -> Any:
    """Draw samples in the plane as dots.

    Args:
        x: samples, shape (samples, 2).
        ax: axes to draw into; by default those of a new figure.
        values: a number per sample that sets its colour; grey by default.
        limits: ((left, right), (bottom, top)) of the picture; by default all samples.
        cmap: name of the colours.
        size: area of a dot, points^2.

    Returns:
        The axes.

    Raises:
        ValueError: for samples that are not in the plane.

    Example:
        >>> import numpy as np, solvers as sv
        >>> ax = sv.plot.points(np.random.default_rng(0).normal(size=(100, 2)))
        >>> len(ax.collections[0].get_offsets())
        100
    """
    x = _in_plane(x, "x", 2)
    box = _around(x) if limits is None else _limits(limits)
    ax = figure(*_size(box)).subplots() if ax is None else ax
    colours = {"color": "0.55"} if values is None else {"c": _values(values, len(x)), "cmap": cmap}
    ax.scatter(*x.T, s=size, linewidths=0, **colours)
    return _plane(ax, box)


def trajectories(
    path: Any, *, ax: Any = None, values: Any = None, limits: Any = None, cmap: str = "turbo", width: float | int = 0.7
) -> Any:
    """Draw how samples moved in the plane: lines that get stronger towards their end, and dots where they ended.

    Args:
        path: shape (samples, times, 2), such as the second of what `generate(..., with_path=True)` returns; of more
            than 400 samples the first ones are drawn.
        ax: axes to draw into; by default those of a new figure.
        values: a number per sample that sets its colour; by default its angle at the end.
        limits: ((left, right), (bottom, top)) of the picture; by default all samples.
        cmap: name of the colours.
        width: of the lines, points.

    Returns:
        The axes.

    Raises:
        ValueError: for paths that are not in the plane.

    Example:
        >>> import numpy as np, solvers as sv
        >>> ax = sv.plot.trajectories(np.cumsum(np.random.default_rng(0).normal(size=(7, 30, 2)), axis=1))
        >>> len(ax.collections[0].get_segments())                  # 29 steps of 7 samples
        203
    """
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection

    path = _in_plane(path, "path", 3)
    if path.shape[1] < 2:
        raise ValueError(f"`path` needs at least two times, got shape {path.shape}.")
    told = np.arctan2(path[:, -1, 1], path[:, -1, 0]) if values is None else _values(values, len(path))
    path, told = path[:MOST], told[:MOST]
    box = _around(path.reshape(-1, 2)) if limits is None else _limits(limits)
    ax = figure(*_size(box)).subplots() if ax is None else ax
    low, high = value_range([told])
    colours = colormaps[cmap]((told - low) / (high - low))
    steps = path.shape[1] - 1
    each = np.repeat(colours, steps, axis=0)
    each[:, 3] = np.tile(0.06 + 0.84 * np.linspace(0.0, 1.0, steps) ** 2, len(path))
    segments = np.stack([path[:, :-1], path[:, 1:]], axis=2).reshape(-1, 2, 2)
    ax.add_collection(LineCollection(list(segments), colors=list(each), linewidths=width))
    ax.scatter(*path[:, -1].T, s=5 * width, color=colours, linewidths=0, zorder=3)
    return _plane(ax, box)


def images(x: Any, *, ax: Any = None, columns: int | None = None, limits: Any = None, cmap: str = "gray") -> Any:
    """Draw images side by side in rows, all in the same range of values.

    Args:
        x: shape (images, rows, columns), or (images, channels, rows, columns) with one channel or three.
        ax: axes to draw into; by default those of a new figure.
        columns: number of images per row; by default about as many as rows.
        limits: (least, greatest) value, black and white; by default of all images.
        cmap: name of the colours of images with one channel.

    Returns:
        The axes.

    Raises:
        ValueError: for a shape that is not that of images.

    Example:
        >>> import numpy as np, solvers as sv
        >>> ax = sv.plot.images(np.random.default_rng(0).normal(size=(10, 8, 8)), columns=5)
        >>> ax.images[0].get_array().shape                        # one pixel between two of them
        (19, 46)
    """
    x = real_array(x, "x").astype(float)
    x = x[:, None] if x.ndim == 3 else x
    if x.ndim != 4 or x.shape[1] not in (1, 3) or not x.size:
        raise ValueError(
            "`x` must have the shape (images, rows, columns) or (images, channels, rows, columns) with 1 or 3 "
            f"channels, got {x.shape}."
        )
    count, channels, height, width = x.shape
    columns = math.ceil(math.sqrt(count)) if columns is None else columns
    if columns < 1:
        raise ValueError(f"`columns` must be at least 1, got {columns}.")
    low, high = value_range([x]) if limits is None else map(float, limits)
    rows = -(-count // columns)
    page = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), np.nan)
    for number, image in enumerate(x):
        top, left = (k * (n + 1) + 1 for k, n in zip(divmod(number, columns), (height, width), strict=True))
        page[top : top + height, left : left + width] = np.moveaxis((image - low) / (high - low), 0, -1)
    if ax is None:
        ax = figure(min(9.0, 0.8 * columns), min(9.0, 0.8 * columns) * page.shape[0] / page.shape[1]).subplots()
    shown = np.clip(np.nan_to_num(page, nan=1.0), 0.0, 1.0) if channels == 3 else np.ma.masked_invalid(page[..., 0])
    ax.imshow(shown, cmap=cmap, vmin=0.0, vmax=1.0, interpolation="nearest")
    ax.set_axis_off()
    return ax


# ---- Checks and shapes ----


def _limits(limits: Any) -> np.ndarray:
    box = np.asarray(limits, float)
    if box.shape != (2, 2) or not np.all(box[:, 0] < box[:, 1]):
        raise ValueError(f"`limits` must be ((left, right), (bottom, top)), ascending, got {limits!r}.")
    return box


def _around(x: np.ndarray) -> np.ndarray:
    """A box around all finite points, with a margin."""
    seen = [c[np.isfinite(c)] for c in x.T]
    low, high = (np.array([f(c) if c.size else 0.0 for c in seen]) for f in (np.min, np.max))
    margin = 0.04 * float(np.max(high - low)) or 1.0
    return np.stack([low - margin, high + margin], axis=1)


def _size(box: np.ndarray) -> tuple[float, float]:
    return SIDE, SIDE * float(np.clip((box[1, 1] - box[1, 0]) / (box[0, 1] - box[0, 0]), 0.3, 2.0))


def _plane(ax: Any, box: np.ndarray) -> Any:
    ax.set_xlim(*box[0])
    ax.set_ylim(*box[1])
    ax.set_aspect("equal")
    return ax


def _in_plane(x: Any, name: str, ndim: int) -> np.ndarray:
    x = real_array(x, name).astype(float)
    if x.ndim != ndim or x.shape[-1] != 2 or not x.size:
        shape = "(samples, 2)" if ndim == 2 else "(samples, times, 2)"
        raise ValueError(f"`{name}` must have the shape {shape}, got {x.shape}.")
    return x


def _values(values: Any, count: int) -> np.ndarray:
    values = real_array(values, "values").astype(float)
    if values.shape != (count,):
        raise ValueError(f"`values` must hold a number for each of the {count} samples, got shape {values.shape}.")
    return values
