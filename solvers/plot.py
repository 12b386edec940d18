"""Pictures of results, one line each: snapshots, shot gathers, models side by side, misfits, animations.

Every function draws into the axes that it is given, or else into a new figure, and returns the axes. Matplotlib is
imported when the first picture is drawn. Axis 0 of a grid with two or three axes is depth and points downwards.

    sv.plot.snapshot(wave.pressure(run.final), grid, speed)
    sv.plot.gather(run.observed, run.times, offsets)
    sv.plot.models({"true": true, "start": start, "found": found}, grid)
    sv.plot.animate(frames, grid, "wave.gif", times=run.times, model=speed)
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .core.grid import Grid

# Extents from here on are labelled in kilometres.
LARGE = 5000.0
# Values below this part of the largest are background, and do not count for the percentile that sets the colours.
BACKGROUND = 1e-3
# Room for labels and a colour bar beside and below a picture, inches.
MARGINS = (1.7, 0.8)
NAMES = {1: ("distance",), 2: ("depth", "distance"), 3: ("depth", "y", "x")}


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
    values = _on_grid(field, grid, "field")
    limit = _field_limit(values, grid, clip)
    if ax is None:
        ax = _figure(*_size(grid, axis)).subplots()
    _draw(ax, values, grid, _background(model, grid), limit, axis, index, unit, label)
    return ax


def gather(
    traces: Any,
    times: Any,
    offsets: Any = None,
    *,
    ax: Any = None,
    unit: str = "m",
    clip: float | int = 98.0,
) -> Any:
    """Draw recorded traces side by side in grey, time downwards.

    Args:
        traces: array (times, receivers), as `simulate` observes it.
        times: time of each sample, s, evenly spaced.
        offsets: coordinate of each receiver, ascending or descending; by default receivers are numbered.
        ax: axes to draw into; by default those of a new figure.
        unit: unit of the offsets; metres become kilometres where the picture is large.
        clip: percentile of the absolute values at which black and white are reached.

    Returns:
        The axes.

    Raises:
        ValueError: if the numbers of traces, times and offsets do not fit.

    Example:
        >>> import numpy as np, solvers as sv
        >>> times = np.linspace(0.0, 1.0, 101)
        >>> ax = sv.plot.gather(np.sin(20 * times[:, None] + np.arange(12.0)), times)
        >>> ax.get_ylabel()
        'time (s)'
    """
    values, t = _array(traces, "traces"), _array(times, "times")
    if values.ndim != 2 or not values.size:
        raise ValueError(f"`traces` must have shape (times, receivers), got {values.shape}; of many shots choose one.")
    if t.shape != values.shape[:1]:
        raise ValueError(f"`times` must have shape ({values.shape[0]},), one per row of the traces, got {t.shape}.")
    if offsets is None:
        x, name = np.arange(values.shape[1], dtype=float), "receiver"
    else:
        x = _array(offsets, "offsets")
        if x.shape != values.shape[1:]:
            raise ValueError(f"`offsets` must have shape ({values.shape[1]},), one per trace, got {x.shape}.")
        factor, unit = _scale([float(np.ptp(x))] if x.size else [0.0], unit)
        x, name = x * factor, f"offset ({unit})"
        if x.size > 1 and not (np.all(np.diff(x) > 0) or np.all(np.diff(x) < 0)):
            raise ValueError("`offsets` must ascend or descend; sort the traces by them.")
    if ax is None:
        ax = _figure(6.4, 5.2).subplots()
    limit = _limit(values, clip)
    ax.pcolormesh(_edges(x), _edges(t), values, cmap="gray", vmin=-limit, vmax=limit, rasterized=True)
    ax.invert_yaxis()
    ax.set_xlabel(name)
    ax.set_ylabel("time (s)")
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
    named = {name: _on_grid(v, grid, f"values[{name!r}]") for name, v in named.items()}
    titles = [str(name) if isinstance(values, Mapping) else "" for name in named]
    if not named:
        raise ValueError("`values` holds no model.")
    count = 1 if grid.ndim == 1 else len(named)
    rows, columns = _arrange(count, grid, axis)
    if axes is None:
        width, height = np.subtract(_size(grid, axis), MARGINS)
        shrink = min(1.0, 11.0 / (columns * width), 10.0 / (rows * height))
        size = columns * (shrink * width + 0.2) + MARGINS[0], rows * (shrink * height + 0.35) + 0.5
        drawn = list(_figure(*size).subplots(rows, columns, squeeze=False).flat)
        for spare in drawn[count:]:
            spare.remove()
        drawn = drawn[:count]
    else:
        drawn = list(np.ravel(np.asarray(axes, dtype=object)))
        if len(drawn) != count:
            raise ValueError(f"`axes` must hold {count} axes, got {len(drawn)}.")
    if grid.ndim == 1:
        _lines(drawn[0], list(named.values()), titles, grid, unit, label)
        return drawn

    low, high = _range(named.values())
    for place, (ax, value, title) in enumerate(zip(drawn, named.values(), titles, strict=True)):
        plane = _plane(value, grid, axis, index, unit)
        image = ax.imshow(plane.values, extent=plane.extent, cmap="viridis", vmin=low, vmax=high, aspect=plane.aspect)
        ax.set_title(", ".join(filter(None, [title, plane.title])))
        # In a figure of our own only the outer axes are labelled.
        bottom, left = axes is not None or place + columns >= count, axes is not None or place % columns == 0
        ax.set_xlabel(plane.labels[1] if bottom else "")
        ax.set_ylabel(plane.labels[0] if left else "")
        ax.tick_params(labelbottom=bottom, labelleft=left)
    if count == 1:
        _bar(drawn[0], image, label)
    else:
        drawn[0].figure.colorbar(image, ax=drawn, label=label, aspect=15 * rows + 10, pad=0.02)
    return drawn


def misfit(history: Any, *, ax: Any = None, label: str = "data misfit") -> Any:
    """Draw the misfit against the iteration on a logarithmic scale.

    Args:
        history: misfits in order, or a dict name -> misfits with one curve each.
        ax: axes to draw into; by default those of a new figure.
        label: what falls, with its unit.

    Returns:
        The axes.

    Raises:
        ValueError: if a history is not one sequence of numbers.

    Example:
        >>> import solvers as sv
        >>> sv.plot.misfit({"3 Hz": [1.0, 0.2, 0.1], "5 Hz": [0.8, 0.3]}).get_yscale()
        'log'
    """
    curves = dict(history) if isinstance(history, Mapping) else {"": history}
    curves = {name: _array(values, "history") for name, values in curves.items()}
    for values in curves.values():
        if values.ndim != 1 or not values.size:
            raise ValueError(f"`history` must be one sequence of numbers, or a dict of them, got shape {values.shape}.")
    if ax is None:
        ax = _figure(6.0, 3.8).subplots()
    for name, values in curves.items():
        ax.semilogy(values, marker="o", markersize=3.5, label=str(name))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(True, which="both", alpha=0.25)
    ax.set_xlabel("iteration")
    ax.set_ylabel(label)
    if isinstance(history, Mapping):
        ax.legend()
    return ax


def animate(
    fields: Any,
    grid: Grid,
    path: str | Path,
    *,
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
        times: time of each frame, s, shown above it.
        model, axis, index, unit, label, clip: as for `snapshot`.
        fps: frames per second.
        dpi: resolution, dots per inch of a figure about 7 inches wide.

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
    path = Path(path)
    if path.suffix.lower() != ".gif":
        raise ValueError(f"`path` must end in .gif, got {str(path)!r}.")
    if not fps > 0:
        raise ValueError(f"`fps` must be positive, got {fps}.")
    frames = _array(fields, "fields")
    if not frames.size or frames.shape[1:] != grid.shape:
        raise ValueError(f"`fields` must have shape (frames, {', '.join(map(str, grid.shape))}), got {frames.shape}.")
    t = None if times is None else _array(times, "times")
    if t is not None and t.shape != frames.shape[:1]:
        raise ValueError(f"`times` must have shape ({len(frames)},), one per frame, got {t.shape}.")
    limit, background = _field_limit(frames, grid, clip), _background(model, grid)

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    figure = Figure(figsize=_size(grid, axis), dpi=dpi, layout="compressed")
    canvas = FigureCanvasAgg(figure)
    ax = figure.subplots()
    show = _draw(ax, frames[0], grid, background, limit, axis, index, unit, label)
    cut = ax.get_title()

    def render(number: int) -> Any:
        show(frames[number])
        if t is not None:
            ax.set_title(", ".join(filter(None, [_clock(t, number), cut])))
        canvas.draw()
        return Image.fromarray(np.array(canvas.buffer_rgba())[..., :3])

    render(0)
    # The layout of the first frame serves all: nothing but the field and the time changes.
    figure.set_layout_engine("none")
    # One palette for all frames, from some of them and the colour map: with one each the colours would flicker.
    some = [np.asarray(render(k)) for k in {len(frames) * j // 8 for j in range(8)}]
    palette = Image.fromarray(np.vstack([*some, _palette_sample(some[0].shape)])).quantize(256)
    chosen = np.reshape(palette.getpalette() or [], (-1, 3))
    # White paper stays white.
    palette.putpalette(np.where(chosen.min(axis=1, keepdims=True) > 245, 255, chosen).ravel().tolist())
    pictures = [render(k).quantize(palette=palette, dither=Image.Dither.NONE) for k in range(len(frames))]
    path.parent.mkdir(parents=True, exist_ok=True)
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 / fps), loop=0)
    return path


class _Plane(NamedTuple):
    """A slice of a field with what its axes need."""

    values: np.ndarray
    extent: tuple[float, float, float, float]
    labels: tuple[str, str]
    title: str
    aspect: str


def _draw(
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
        return _draw_line(ax, values, grid, model, limit, unit, label)
    plane = _plane(values, grid, axis, index, unit)
    if model is not None:
        below = _plane(model, grid, axis, index, unit).values
        low, high = _range([below])
        # Light greys only, so that the field stands out.
        low -= 1.5 * (high - low)
        ax.imshow(below, extent=plane.extent, cmap="gray", vmin=low, vmax=high, aspect=plane.aspect)
    image = ax.imshow(plane.values, extent=plane.extent, cmap=_colours(), vmin=-limit, vmax=limit, aspect=plane.aspect)

    def show(values: np.ndarray) -> None:
        image.set_data(_plane(values, grid, axis, index, unit).values)

    ax.set_xlabel(plane.labels[1])
    ax.set_ylabel(plane.labels[0])
    ax.set_title(plane.title)
    _bar(ax, image, label)
    return show


def _draw_line(
    ax: Any, values: np.ndarray, grid: Grid, model: np.ndarray | None, limit: float, unit: str, label: str
) -> Callable[[np.ndarray], None]:
    factor, unit = _scale([grid.extent[0][1] - grid.extent[0][0]], unit)
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


def _lines(ax: Any, values: Sequence[np.ndarray], titles: Sequence[str], grid: Grid, unit: str, label: str) -> None:
    factor, unit = _scale([grid.extent[0][1] - grid.extent[0][0]], unit)
    for value, title in zip(values, titles, strict=True):
        ax.plot(grid.axes()[0] * factor, value, label=title)
    ax.set_xlabel(f"{NAMES[1][0]} ({unit})")
    ax.set_ylabel(label)
    if any(titles):
        ax.legend()


def _plane(values: np.ndarray, grid: Grid, axis: int | None, index: int | None, unit: str) -> _Plane:
    """A field on two axes as it is; one slice of a field on three."""
    shown, title = _shown(grid, axis), ""
    factor, unit = _scale([grid.extent[k][1] - grid.extent[k][0] for k in shown], unit)
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
    slender = not 1 / 8 <= _ratio(grid, axis) <= 8
    return _Plane(values, (left, right, bottom, top), labels, title, "auto" if slender else "equal")


def _shown(grid: Grid, axis: int | None) -> tuple[int, int]:
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


def _ratio(grid: Grid, axis: int | None) -> float:
    """Height by width of the picture."""
    height, width = (grid.shape[k] * grid.spacing[k] for k in _shown(grid, axis))
    return height / width


def _size(grid: Grid, axis: int | None) -> tuple[float, float]:
    """Size of a figure for one field, inches: as wide or as high as a page holds, with room for labels and a bar."""
    if grid.ndim == 1:
        return 7.0, 3.5
    ratio = _ratio(grid, axis)
    ratio = ratio if 1 / 8 <= ratio <= 8 else 0.6
    width = min(5.4, 6.0 / ratio)
    return max(width, 2.0) + MARGINS[0], max(width * ratio, 1.3) + MARGINS[1]


def _arrange(count: int, grid: Grid, axis: int | None) -> tuple[int, int]:
    """Rows and columns of a figure with several fields."""
    wide = grid.ndim > 1 and _ratio(grid, axis) < 0.7
    columns = (1 if count <= 4 else 2) if wide else min(count, 4)
    return -(-count // columns), columns


def _figure(width: float, height: float) -> Any:
    from matplotlib import pyplot

    return pyplot.figure(figsize=(width, height), layout="compressed")


def _bar(ax: Any, image: Any, label: str) -> None:
    """A colour bar exactly as high as the picture, whose height follows from its aspect."""
    ax.figure.colorbar(image, cax=ax.inset_axes((1.025, 0.0, 0.028, 1.0)), label=label)


def _colours() -> Any:
    """Blue over nothing to red: the map RdBu with its white taken out, so that it looks the same on white paper."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    solid = colormaps["RdBu_r"](np.linspace(0.0, 1.0, 256))[:, :3]
    # Not quite white in the middle: scaled so that it is.
    solid = np.clip(solid / np.mean(solid[127:129], axis=0), 0.0, 1.0)
    alpha = np.maximum(1.0 - np.min(solid, axis=1, keepdims=True), 1e-3)
    return ListedColormap(np.hstack([np.clip((solid - 1.0 + alpha) / alpha, 0.0, 1.0), alpha]), "solvers_signed")


def _palette_sample(shape: tuple[int, ...]) -> np.ndarray:
    """A picture of all colours of a signed field on white and on greys, three frames large."""
    colours = _colours()(np.linspace(0.0, 1.0, shape[1]))
    ground = np.repeat([1.0, 0.85, 0.7], shape[0])[:, None, None]
    mixed = colours[:, 3:] * colours[:, :3] + (1 - colours[:, 3:]) * ground
    return np.round(255 * mixed).astype(np.uint8)


def _range(values: Iterable[np.ndarray]) -> tuple[float, float]:
    """Smallest and largest finite value, apart even where all are the same."""
    finite = np.concatenate([v[np.isfinite(v)] for v in values])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return (low, high) if low < high else (low - 0.5, low + 0.5)


def _limit(values: np.ndarray, clip: float | int) -> float:
    """Where the colours end: a percentile of the absolute values that are no background."""
    if not 0 < clip <= 100:
        raise ValueError(f"`clip` is a percentile, above 0 and at most 100, got {clip}.")
    size = np.abs(values[np.isfinite(values)])
    size = size[size > BACKGROUND * size.max(initial=0.0)]
    return float(np.percentile(size, clip)) if size.size else 1.0


def _field_limit(values: np.ndarray, grid: Grid, clip: float | int) -> float:
    """As `_limit`, but a line is shown to its peaks."""
    return _limit(values, 100.0 if grid.ndim == 1 else clip)


def _scale(lengths: Sequence[float], unit: str) -> tuple[float, str]:
    """Factor and unit of the labels."""
    return (1e-3, "km") if unit == "m" and max(lengths) >= LARGE else (1.0, unit)


def _edges(x: np.ndarray) -> np.ndarray:
    """Borders between cells that are centred on x."""
    if x.size < 2:
        return np.array([x[0] - 0.5, x[0] + 0.5])
    middle = (x[1:] + x[:-1]) / 2
    return np.concatenate([[2 * x[0] - middle[0]], middle, [2 * x[-1] - middle[-1]]])


def _clock(times: np.ndarray, number: int) -> str:
    """Time of a frame with as many decimals as tell the frames apart."""
    step = np.min(np.abs(np.diff(times.astype(float))), initial=np.inf)
    decimals = 3 if not 0 < step < np.inf else int(np.clip(math.ceil(1 - math.log10(step)), 0, 9))
    return f"t = {times[number]:.{decimals}f} s"


def _array(values: Any, name: str) -> np.ndarray:
    try:
        array = np.asarray(values)
    except ValueError as problem:
        raise ValueError(f"`{name}` cannot be made one array: {problem}") from None
    # JAX's short floats are of no kind that NumPy knows.
    if array.dtype.kind == "V":
        array = np.asarray(values, np.float32)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"`{name}` must hold real numbers, got dtype {array.dtype}.")
    return array


def _on_grid(values: Any, grid: Grid, name: str) -> np.ndarray:
    array = _array(values, name)
    if array.shape != grid.shape:
        raise ValueError(f"`{name}` must have the shape of the grid, {grid.shape}, got {array.shape}.")
    return array


def _background(model: Any, grid: Grid) -> np.ndarray | None:
    return None if model is None else _on_grid(model, grid, "model")
