"""What every picture shares: figures, colour bars, colours of signed fields, limits, labels."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

# Extents from here on are labelled in kilometres.
LARGE = 5000.0
# Values below this part of the largest are background, and do not count for the percentile that sets the colours.
BACKGROUND = 1e-3


def figure(width: float, height: float) -> Any:
    from matplotlib import pyplot

    return pyplot.figure(figsize=(width, height), layout="compressed")


def colour_bar(ax: Any, image: Any, label: str) -> None:
    """A colour bar exactly as high as the picture, whose height follows from its aspect."""
    ax.figure.colorbar(image, cax=ax.inset_axes((1.025, 0.0, 0.028, 1.0)), label=label)


def signed_colours() -> Any:
    """Blue over nothing to red: the map RdBu with its white taken out, so that it looks the same on white paper."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    solid = colormaps["RdBu_r"](np.linspace(0.0, 1.0, 256))[:, :3]
    # Not quite white in the middle: scaled so that it is.
    solid = np.clip(solid / np.mean(solid[127:129], axis=0), 0.0, 1.0)
    alpha = np.maximum(1.0 - np.min(solid, axis=1, keepdims=True), 1e-3)
    return ListedColormap(np.hstack([np.clip((solid - 1.0 + alpha) / alpha, 0.0, 1.0), alpha]), "solvers_signed")


def palette_sample(shape: tuple[int, ...]) -> np.ndarray:
    """A picture of all colours of a signed field on white and on greys, three frames large."""
    colours = signed_colours()(np.linspace(0.0, 1.0, shape[1]))
    ground = np.repeat([1.0, 0.85, 0.7], shape[0])[:, None, None]
    mixed = colours[:, 3:] * colours[:, :3] + (1 - colours[:, 3:]) * ground
    return np.round(255 * mixed).astype(np.uint8)


def value_range(values: Iterable[np.ndarray]) -> tuple[float, float]:
    """Smallest and largest finite value, apart even where all are the same."""
    finite = np.concatenate([v[np.isfinite(v)] for v in values])
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    return (low, high) if low < high else (low - 0.5, low + 0.5)


def colour_limit(values: np.ndarray, clip: float | int) -> float:
    """Where the colours end: a percentile of the absolute values that are no background."""
    if not 0 < clip <= 100:
        raise ValueError(f"`clip` is a percentile, above 0 and at most 100, got {clip}.")
    size = np.abs(values[np.isfinite(values)])
    size = size[size > BACKGROUND * size.max(initial=0.0)]
    return float(np.percentile(size, clip)) if size.size else 1.0


def scale_of(lengths: Sequence[float], unit: str) -> tuple[float, str]:
    """Factor and unit of the labels."""
    return (1e-3, "km") if unit == "m" and max(lengths) >= LARGE else (1.0, unit)


def cell_edges(x: np.ndarray) -> np.ndarray:
    """Borders between cells that are centred on x."""
    if x.size < 2:
        return np.array([x[0] - 0.5, x[0] + 0.5])
    middle = (x[1:] + x[:-1]) / 2
    return np.concatenate([[2 * x[0] - middle[0]], middle, [2 * x[-1] - middle[-1]]])


def clock(times: np.ndarray, number: int) -> str:
    """Time of a frame with as many decimals as tell the frames apart."""
    step = np.min(np.abs(np.diff(times.astype(float))), initial=np.inf)
    decimals = 3 if not 0 < step < np.inf else int(np.clip(math.ceil(1 - math.log10(step)), 0, 9))
    return f"t = {times[number]:.{decimals}f} s"


def real_array(values: Any, name: str) -> np.ndarray:
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
