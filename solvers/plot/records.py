"""Shot gathers and the history of a misfit."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .paper import cell_edges, colour_limit, figure, real_array, scale_of


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
    values, t = real_array(traces, "traces"), real_array(times, "times")
    if values.ndim != 2 or not values.size:
        raise ValueError(f"`traces` must have shape (times, receivers), got {values.shape}; of many shots choose one.")
    if t.shape != values.shape[:1]:
        raise ValueError(f"`times` must have shape ({values.shape[0]},), one per row of the traces, got {t.shape}.")
    if offsets is None:
        x, name = np.arange(values.shape[1], dtype=float), "receiver"
    else:
        x = real_array(offsets, "offsets")
        if x.shape != values.shape[1:]:
            raise ValueError(f"`offsets` must have shape ({values.shape[1]},), one per trace, got {x.shape}.")
        factor, unit = scale_of([float(np.ptp(x))] if x.size else [0.0], unit)
        x, name = x * factor, f"offset ({unit})"
        if x.size > 1 and not (np.all(np.diff(x) > 0) or np.all(np.diff(x) < 0)):
            raise ValueError("`offsets` must ascend or descend; sort the traces by them.")
    if ax is None:
        ax = figure(6.4, 5.2).subplots()
    limit = colour_limit(values, clip)
    ax.pcolormesh(cell_edges(x), cell_edges(t), values, cmap="gray", vmin=-limit, vmax=limit, rasterized=True)
    ax.invert_yaxis()
    ax.set_xlabel(name)
    ax.set_ylabel("time (s)")
    return ax


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
    curves = {name: real_array(values, "history") for name, values in curves.items()}
    for values in curves.values():
        if values.ndim != 1 or not values.size:
            raise ValueError(f"`history` must be one sequence of numbers, or a dict of them, got shape {values.shape}.")
    if ax is None:
        ax = figure(6.0, 3.8).subplots()
    for name, values in curves.items():
        ax.semilogy(values, marker="o", markersize=3.5, label=str(name))
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.grid(True, which="both", alpha=0.25)
    ax.set_xlabel("iteration")
    ax.set_ylabel(label)
    if isinstance(history, Mapping):
        ax.legend()
    return ax
