"""Periodic fields and flows: a field in its box, energy spectra, space-time diagrams, animations."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..core.checks import check_finite
from ..core.grid import Grid
from .gif import check_gif, write_gif
from .paper import clock, colour_bar, colour_limit, figure, real_array, signed_colours

WIDTH = 5.0


def box(
    field: Any,
    grid: Grid,
    *,
    ax: Any = None,
    index: int | None = None,
    label: str = "vorticity",
    clip: float | int = 99.8,
) -> Any:
    """Draw a signed field in its periodic box, such as a vorticity: x to the right, y upwards, symmetric colours.

    Of a field on three axes the slice across the last one is shown, by default through the middle. Values that are not
    finite stay blank.

    Args:
        field: array of the grid's shape, two or three axes.
        grid: where the values lie.
        ax: axes to draw into; by default those of a new figure.
        index: for three axes: where to cut, a node number.
        label: what the field is; stands at the colour bar.
        clip: percentile of the absolute values at which the colours end; 100 shows all.

    Returns:
        The axes.

    Raises:
        ValueError: if the shape does not fit the grid, the cut lies outside, or no value is finite.

    Example:
        >>> import numpy as np, solvers as sv
        >>> ax = sv.plot.box(np.random.default_rng(0).normal(size=(16, 24)), sv.Grid((16, 24), 1.0))
        >>> ax.get_xlabel(), ax.get_ylabel()
        ('x', 'y')
    """
    values = _plane(field, grid, index)
    _not_empty(values, "field")
    ax = figure(*_size(grid)).subplots() if ax is None else ax
    _draw(ax, values, grid, colour_limit(values, clip), label)
    return ax


def spectrum(
    k: Any,
    energy: Any,
    *,
    ax: Any = None,
    slopes: Sequence[tuple[float | int, str]] = ((-3, "$k^{-3}$"),),
    label: str = "",
) -> Any:
    """Draw an energy spectrum with double logarithmic axes, beside straight lines of given slopes.

    Args:
        k: wavenumbers of the shells; the first, k = 0, is left out.
        energy: energy per wavenumber, of the same length; what is more than 1e-12 below the peak is left out.
        ax: axes to draw into; by default those of a new figure.
        slopes: pairs (slope, name), drawn a little above the spectrum where it decays; none for ().
        label: name of the spectrum, for a legend.

    Returns:
        The axes.

    Raises:
        ValueError: for shapes that differ, values that are not finite, or a spectrum without a positive value.

    Example:
        >>> import numpy as np, solvers as sv
        >>> k = np.arange(20.0)
        >>> sv.plot.spectrum(k, 1 / (1 + k**3)).get_xscale()
        'log'
    """
    k, energy = real_array(k, "k"), real_array(energy, "energy")
    if k.ndim != 1 or k.shape != energy.shape:
        raise ValueError(f"`k` and `energy` must have one shape (shells,), got {k.shape} and {energy.shape}.")
    check_finite(k, "k")
    check_finite(energy, "energy")
    seen = (k > 0) & (energy > 1e-12 * energy.max(initial=0.0))
    if not seen.any():
        raise ValueError("`energy` has no positive value at a positive wavenumber.")
    ax = figure(WIDTH, 3.6).subplots() if ax is None else ax
    k, energy = k[seen], energy[seen]
    ax.loglog(k, energy, label=label or None)
    peak = int(np.argmax(energy))
    # The range where a slope is seen: from twice the peak to the point where the spectrum has lost eight decades.
    tail = (k >= 2 * k[peak]) & (energy > 1e-8 * energy[peak])
    for number, (slope, name) in enumerate(slopes if tail.sum() > 1 else ()):
        x = k[tail]
        # Three times above the spectrum at its closest point.
        height = 3 * 2**number * np.max(energy[tail] * x ** (-float(slope)))
        ax.loglog(x, height * x ** float(slope), "--", color="0.4", linewidth=1)
        ax.annotate(
            name, (x[len(x) // 3], height * x[len(x) // 3] ** float(slope)), textcoords="offset points", xytext=(4, 4)
        )
    ax.set_xlabel("wavenumber")
    ax.set_ylabel("energy per wavenumber")
    ax.grid(alpha=0.3)
    if label:
        ax.legend()
    return ax


def space_time(
    fields: Any, times: Any, grid: Grid, *, ax: Any = None, label: str = "u", clip: float | int = 99.8
) -> Any:
    """Draw a field on one axis over time: position to the right, time upwards.

    Args:
        fields: array (times, nodes), such as `run.observed` with `observe=lambda u: u`.
        times: shape (times,), increasing.
        grid: where the values lie, one axis.
        ax: axes to draw into; by default those of a new figure.
        label: what the field is; stands at the colour bar.
        clip: percentile of the absolute values at which the colours end; 100 shows all.

    Returns:
        The axes.

    Raises:
        ValueError: if shapes do not fit, the grid has more than one axis, or no value is finite.

    Example:
        >>> import numpy as np, solvers as sv
        >>> waves = np.sin(np.add.outer(np.arange(5.0), np.arange(8.0)))
        >>> sv.plot.space_time(waves, np.arange(5.0), sv.Grid(8, 1.0)).get_ylabel()
        'time'
    """
    values, t = real_array(fields, "fields"), real_array(times, "times")
    if grid.ndim != 1 or values.shape != (*t.shape, *grid.shape) or t.ndim != 1 or t.size < 2:
        raise ValueError(
            f"`fields` must have the shape (times, nodes) = {(*t.shape, *grid.shape)} with at least two times, on a "
            f"grid of one axis; got {values.shape}."
        )
    _not_empty(values, "fields")
    ax = figure(WIDTH, 4.2).subplots() if ax is None else ax
    x0, h = grid.origin[0], grid.spacing[0]
    half = (t[-1] - t[0]) / (t.size - 1) / 2
    limit = colour_limit(values, clip)
    extent = (x0 - h / 2, x0 + (grid.shape[0] - 0.5) * h, t[0] - half, t[-1] + half)
    image = ax.imshow(
        values, extent=extent, origin="lower", aspect="auto", cmap=signed_colours(), vmin=-limit, vmax=limit
    )
    ax.set_xlabel("x")
    ax.set_ylabel("time")
    colour_bar(ax, image, label)
    return ax


def animate_box(
    fields: Any,
    grid: Grid,
    path: str | Path,
    *,
    times: Any = None,
    index: int | None = None,
    label: str = "vorticity",
    clip: float | int = 99.8,
    fps: float | int = 20,
    dpi: int = 90,
) -> Path:
    """Write an animation of a signed field in its periodic box to a GIF; the colours stay the same throughout.

    Args:
        fields: array (frames, *grid.shape), two or three axes, or a list of fields.
        grid: where the values lie.
        path: file to write, ending in .gif; missing folders are made.
        times: time of each frame, shown above it.
        index, label, clip: as for `box`.
        fps: frames per second.
        dpi: resolution, dots per inch.

    Returns:
        The path.

    Raises:
        ValueError: if shapes do not fit the grid, there is no frame, no value is finite, or the path does not end in
            .gif.

    Example:
        >>> import numpy as np, solvers as sv, tempfile
        >>> frames = np.random.default_rng(0).normal(size=(2, 8, 8))
        >>> sv.plot.animate_box(frames, sv.Grid((8, 8), 1.0), tempfile.mkdtemp() + "/flow.gif", dpi=30).name
        'flow.gif'
    """
    path = check_gif(path, fps)
    frames = [_plane(field, grid, index) for field in fields]
    t = None if times is None else real_array(times, "times")
    if not frames or (t is not None and t.shape != (len(frames),)):
        raise ValueError(f"There must be frames, and one of the `times` for each; got {len(frames)} frames.")
    _not_empty(np.stack(frames), "fields")

    from matplotlib.figure import Figure

    page = Figure(figsize=_size(grid), dpi=dpi, layout="compressed")
    ax = page.subplots()
    image = _draw(ax, frames[0], grid, colour_limit(np.stack(frames), clip), label)

    def draw(number: int) -> None:
        image.set_data(frames[number].T)
        if t is not None:
            ax.set_title(clock(t, number).removesuffix(" s"))

    return write_gif(path, page, draw, len(frames), fps)


def _plane(field: Any, grid: Grid, index: int | None) -> np.ndarray:
    """The field, or the slice of it, that is shown."""
    values = real_array(field, "field")
    if values.shape != grid.shape or grid.ndim == 1:
        raise ValueError(
            f"`field` must have the shape of a grid of two or three axes, {grid.shape}; got {values.shape}."
        )
    if grid.ndim == 2:
        return values
    at = grid.shape[2] // 2 if index is None else index
    if not 0 <= at < grid.shape[2]:
        raise ValueError(f"`index` must be a node of the last axis, 0 to {grid.shape[2] - 1}, got {at}.")
    return values[..., at]


def _not_empty(values: np.ndarray, name: str) -> None:
    """A picture of nothing would look like a field of zeros."""
    if not np.isfinite(values).any():
        raise ValueError(f"`{name}` has no finite value to draw: the run that it comes from blew up, see its status.")


def _size(grid: Grid) -> tuple[float, float]:
    sides = [n * h for n, h in zip(grid.shape[:2], grid.spacing[:2], strict=True)]
    return WIDTH + 1.2, float(np.clip(WIDTH * sides[1] / sides[0], 1.5, 9.0)) + 0.6


def _draw(ax: Any, values: np.ndarray, grid: Grid, limit: float, label: str) -> Any:
    edges = []
    for n, h, x0 in zip(grid.shape[:2], grid.spacing[:2], grid.origin[:2], strict=True):
        edges += [x0 - h / 2, x0 + (n - 0.5) * h]
    image = ax.imshow(
        values.T, extent=tuple(edges), origin="lower", cmap=signed_colours(), vmin=-limit, vmax=limit, aspect="equal"
    )
    ax.set_xlabel("x")
    ax.set_ylabel("y")
    colour_bar(ax, image, label)
    return image
