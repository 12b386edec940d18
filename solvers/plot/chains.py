"""Pictures of chains: traces, marginal distributions, autocorrelation."""

from typing import Any

import jax
import numpy as np

from ..sampling.diagnostics import autocovariance
from .paper import figure, real_array

MOST = 6  # quantities in one picture


def traces(run: Any, *, most: int = MOST, truth: Any = None) -> Any:
    """Draw what each chain did, one row per quantity: overlapping noise is good, separate lines are not.

    Args:
        run: what `sample` returns, or a pytree of draws (chains, draws, ...).
        most: number of quantities, the first ones.
        truth: exact values, a pytree like one draw, drawn as a line.

    Returns:
        The axes, one per quantity.

    Raises:
        ValueError: if there are no draws.

    Example:
        >>> import numpy as np, solvers as sv
        >>> axes = sv.plot.traces(np.random.default_rng(0).normal(size=(4, 100, 2)))
        >>> axes[0].get_ylabel(), axes[-1].get_xlabel()
        ('x[0]', 'draw')
    """
    rows, lines = quantities(run, most), true_values(truth, most)
    axes = figure(7.0, 1.0 + 1.3 * len(rows)).subplots(len(rows), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (name, draws), line in zip(axes, rows, lines or [None] * len(rows), strict=True):
        for chain in draws:
            ax.plot(chain, linewidth=0.6, alpha=0.8)
        if line is not None:
            ax.axhline(line, color="k", linewidth=1.0, linestyle="--")
        ax.set_ylabel(name)
        ax.margins(x=0)
    axes[-1].set_xlabel("draw")
    return axes


def marginals(run: Any, *, most: int = MOST, truth: Any = None, bins: int = 40) -> Any:
    """Draw the distribution of each quantity: one outline per chain over the histogram of all of them.

    Args:
        run: what `sample` returns, or a pytree of draws (chains, draws, ...).
        most: number of quantities, the first ones.
        truth: exact values, a pytree like one draw, drawn as a line.
        bins: number of bins.

    Returns:
        The axes, one per quantity.

    Raises:
        ValueError: if there are no draws.

    Example:
        >>> import numpy as np, solvers as sv
        >>> len(sv.plot.marginals(np.random.default_rng(0).normal(size=(4, 100, 3))))
        3
    """
    rows, lines = quantities(run, most), true_values(truth, most)
    columns = min(3, len(rows))
    height = -(-len(rows) // columns)
    axes = figure(2.6 * columns + 0.4, 2.1 * height + 0.4).subplots(height, columns, squeeze=False).ravel()
    for ax, (name, draws), line in zip(axes, rows, lines or [None] * len(rows), strict=False):
        finite = draws[np.isfinite(draws)]
        edges = np.histogram_bin_edges(finite, bins) if finite.size else np.array([0.0, 1.0])
        ax.hist(finite, edges, density=True, color="0.87")
        for chain in draws:
            ax.stairs(np.histogram(chain[np.isfinite(chain)], edges, density=True)[0], edges, linewidth=0.9)
        if line is not None:
            ax.axvline(line, color="k", linewidth=1.0, linestyle="--")
        ax.set_xlabel(name)
        ax.set_yticks([])
    for ax in axes[len(rows) :]:
        ax.remove()
    return axes[: len(rows)]


def autocorrelation(run: Any, *, most: int = MOST, lags: int | None = None, ax: Any = None) -> Any:
    """Draw how fast chains forget: the autocorrelation of each quantity, averaged over chains.

    Args:
        run: what `sample` returns, or a pytree of draws (chains, draws, ...).
        most: number of quantities, the first ones.
        lags: largest lag, by default 100 or a quarter of the draws.
        ax: axes to draw into; by default those of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: if there are no draws.

    Example:
        >>> import numpy as np, solvers as sv
        >>> sv.plot.autocorrelation(np.random.default_rng(0).normal(size=(4, 100))).get_xlabel()
        'lag (draws)'
    """
    rows = quantities(run, most)
    longest = rows[0][1].shape[1]
    lags = min(100, longest // 4) if lags is None else min(lags, longest - 1)
    if ax is None:
        ax = figure(6.0, 3.4).subplots()
    ax.axhline(0.0, color="0.6", linewidth=0.8)
    for name, draws in rows:
        covariance = np.mean(autocovariance(draws), axis=0)
        ax.plot(covariance[: lags + 1] / (covariance[0] or 1.0), label=name)
    ax.set_xlabel("lag (draws)")
    ax.set_ylabel("autocorrelation")
    ax.margins(x=0)
    ax.legend(frameon=False)
    return ax


def quantities(run: Any, most: int) -> list[tuple[str, np.ndarray]]:
    """The first scalar quantities by name, each (chains, draws)."""
    draws = getattr(run, "draws", run)
    if draws is None:
        raise ValueError("This run has no draws, because it has sinks; draw from a `Draws` sink if there is one.")
    if most < 1:
        raise ValueError(f"`most` must be at least 1, got {most}.")
    found = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(draws):
        array = real_array(leaf, "draws").astype(float)  # events are zeros and ones
        if array.ndim < 2 or not array.size:
            raise ValueError(f"Draws must have the axes (chains, draws, ...), got shape {array.shape}.")
        name = jax.tree_util.keystr(path).strip("[]'.").replace("']['", ".") or "x"
        for index in np.ndindex(array.shape[2:]):
            if len(found) == most:
                return found
            label = f"{name}[{', '.join(map(str, index))}]" if index else name
            found.append((label, array[(slice(None), slice(None), *index)]))
    return found


def true_values(truth: Any, most: int) -> list[float]:
    """Exact values in the order of the quantities."""
    return [float(x) for leaf in jax.tree.leaves(truth) for x in np.ravel(leaf)][:most]
