"""Snapshots, models side by side and animations of fields on a grid."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.grid import Grid
from .gif import check_gif, write_gif
from .paper import clock, colour_bar, figure, real_array, value_range
from .planes import MARGINS, arrange, background_of, draw_lines, draw_plane, field_limit, figure_size, on_grid, plane_of


def snapshot(
    field: Any,
    grid: Grid,
    model: Any = None,
    *,
    ax: Any = None,
    axis: int | None = None,
    index: int | None = None,
    unit: str = "m",
    label: str = "pressure",
    clip: float | int = 99.5,
) -> Any:
    """Draw a signed field in symmetric colours, over the model in grey where one is given.

    A field on one axis becomes a line; of a field on three axes one slice is shown, by default through the middle.

    Args:
        field: array of the grid's shape. Values that are not finite stay blank.
        grid: where the values lie.
        model: array of the grid's shape, such as the speed, drawn in grey below a field that is transparent where it
            is small.
        ax: axes to draw into; by default those of a new figure.
        axis: for three axes: the one across which to cut (default 1).
        index: for three axes: where to cut, a node number (default the middle).
        unit: unit of length of the grid; metres become kilometres where the picture is large.
        label: what the field is, with its unit; stands at the colour bar.
        clip: percentile of the absolute values at which the colours end; 100 shows all.

    Returns:
        The axes.

    Raises:
        ValueError: if shapes do not fit the grid, or the cut lies outside.

    Example:
        >>> import numpy as np, solvers as sv
        >>> grid = sv.Grid((40, 60), 10.0)
        >>> ax = sv.plot.snapshot(np.random.default_rng(0).normal(size=(40, 60)), grid)
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('distance (m)', 'depth (m)')
    """
    values = on_grid(field, grid, "field")
    limit = field_limit(values, grid, clip)
    if ax is None:
        ax = figure(*figure_size(grid, axis)).subplots()
    draw_plane(ax, values, grid, background_of(model, grid), limit, axis, index, unit, label)
    return ax


def models(
    values: Any,
    grid: Grid,
    *,
    axes: Any = None,
    axis: int | None = None,
    index: int | None = None,
    unit: str = "m",
    label: str = "speed (m/s)",
) -> list:
    """Draw models with one colour scale and one colour bar, side by side, or stacked where they are wide.

    Args:
        values: dict name -> array of the grid's shape, or a list of arrays. On one axis all become lines of one plot.
        grid: where the values lie.
        axes: as many axes as there are models (one for models on one axis); by default those of a new figure.
        axis: for three axes: the one across which to cut (default 1).
        index: for three axes: where to cut, a node number (default the middle).
        unit: unit of length of the grid; metres become kilometres where the picture is large.
        label: what the values are, with their unit.

    Returns:
        List of the axes that were drawn into.

    Raises:
        ValueError: if a shape does not fit the grid, or the number of axes that of the models.

    Example:
        >>> import numpy as np, solvers as sv
        >>> grid = sv.Grid((40, 60), 10.0)
        >>> axes = sv.plot.models({"true": np.full((40, 60), 2000.0), "start": np.full((40, 60), 1900.0)}, grid)
        >>> [ax.get_title() for ax in axes]
        ['true', 'start']
    """
    named = dict(values) if isinstance(values, Mapping) else {i: v for i, v in enumerate(values)}
    named = {name: on_grid(v, grid, f"values[{name!r}]") for name, v in named.items()}
    titles = [str(name) if isinstance(values, Mapping) else "" for name in named]
    if not named:
        raise ValueError("`values` holds no model.")
    count = 1 if grid.ndim == 1 else len(named)
    rows, columns = arrange(count, grid, axis)
    if axes is None:
        width, height = np.subtract(figure_size(grid, axis), MARGINS)
        shrink = min(1.0, 11.0 / (columns * width), 10.0 / (rows * height))
        size = columns * (shrink * width + 0.2) + MARGINS[0], rows * (shrink * height + 0.35) + 0.5
        drawn = list(figure(*size).subplots(rows, columns, squeeze=False).flat)
        for spare in drawn[count:]:
            spare.remove()
        drawn = drawn[:count]
    else:
        drawn = list(np.ravel(np.asarray(axes, dtype=object)))
        if len(drawn) != count:
            raise ValueError(f"`axes` must hold {count} axes, got {len(drawn)}.")
    if grid.ndim == 1:
        draw_lines(drawn[0], list(named.values()), titles, grid, unit, label)
        return drawn

    low, high = value_range(named.values())
    for place, (ax, value, title) in enumerate(zip(drawn, named.values(), titles, strict=True)):
        plane = plane_of(value, grid, axis, index, unit)
        image = ax.imshow(plane.values, extent=plane.extent, cmap="viridis", vmin=low, vmax=high, aspect=plane.aspect)
        ax.set_title(", ".join(filter(None, [title, plane.title])))
        # In a figure of our own only the outer axes are labelled.
        bottom, left = axes is not None or place + columns >= count, axes is not None or place % columns == 0
        ax.set_xlabel(plane.labels[1] if bottom else "")
        ax.set_ylabel(plane.labels[0] if left else "")
        ax.tick_params(labelbottom=bottom, labelleft=left)
    if count == 1:
        colour_bar(drawn[0], image, label)
    else:
        drawn[0].figure.colorbar(image, ax=drawn, label=label, aspect=15 * rows + 10, pad=0.02)
    return drawn


def animate(
    fields: Any,
    grid: Grid,
    path: str | Path,
    *,
    ax: Any = None,
    times: Any = None,
    model: Any = None,
    fps: float | int = 20,
    axis: int | None = None,
    index: int | None = None,
    unit: str = "m",
    label: str = "pressure",
    clip: float | int = 99.5,
    dpi: int = 90,
) -> Path:
    """Write an animation of a signed field to a GIF; needs no display. The colours stay the same throughout.

    Args:
        fields: array (frames, *grid.shape), or a list of fields.
        grid: where the values lie.
        path: file to write, ending in .gif; missing folders are made.
        ax: axes to draw into, whose whole figure becomes the frame; by default those of a new figure.
        times: time of each frame, s, shown above it.
        model, axis, index, unit, label, clip: as for `snapshot`.
        fps: frames per second.
        dpi: resolution, dots per inch of a new figure about 7 inches wide; a figure of your own has its own.

    Returns:
        The path.

    Raises:
        ValueError: if shapes do not fit the grid, there is no frame, or the path does not end in .gif.

    Example:
        >>> import numpy as np, solvers as sv, tempfile
        >>> frames = [np.sin(np.linspace(0.0, 9.0, 50) - t) for t in (0.0, 0.5, 1.0)]
        >>> sv.plot.animate(frames, sv.Grid(50, 10.0), tempfile.mkdtemp() + "/wave.gif", dpi=40).name
        'wave.gif'
    """
    path = check_gif(path, fps)
    frames = real_array(fields, "fields")
    if not frames.size or frames.shape[1:] != grid.shape:
        raise ValueError(f"`fields` must have shape (frames, {', '.join(map(str, grid.shape))}), got {frames.shape}.")
    t = None if times is None else real_array(times, "times")
    if t is not None and t.shape != frames.shape[:1]:
        raise ValueError(f"`times` must have shape ({len(frames)},), one per frame, got {t.shape}.")
    limit, background = field_limit(frames, grid, clip), background_of(model, grid)

    from matplotlib.figure import Figure

    if ax is None:
        ax = Figure(figsize=figure_size(grid, axis), dpi=dpi, layout="compressed").subplots()
    figure = ax.figure.canvas.figure
    show = draw_plane(ax, frames[0], grid, background, limit, axis, index, unit, label)
    cut = ax.get_title()

    def draw(number: int) -> None:
        show(frames[number])
        if t is not None:
            ax.set_title(", ".join(filter(None, [clock(t, number), cut])))

    return write_gif(path, figure, draw, len(frames), fps)
