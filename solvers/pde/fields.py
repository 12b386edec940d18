"""Periodic fields to start from: random ones with a spectrum, sums of sines, blobs. The same at any resolution."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.checks import as_field
from ..core.fourier import Modes
from ..core.grid import Grid, check_grid
from .flow_starts import independent_modes, peaked
from .periodic_checks import checked_dtype, checked_peak, real_number

# Surface of the unit sphere in one, two and three dimensions.
SPHERE = (2.0, 2 * math.pi, 4 * math.pi)
# The mean square counts the modes of the box one by one up to so many, and those beyond by an integral.
COUNTED = 2**15
# It counts modes up to this multiple of the peak.
REACH = 8.0


def random_field(
    grid: Grid,
    key: Array,
    peak_wavenumber: float | int,
    rms: Any = 1.0,
    spectrum: Callable[[Array], Array] | None = None,
    dtype: Any = None,
) -> Array:
    """A random Gaussian periodic field with mean zero and a given spectrum, the same field at any resolution.

    Every Fourier mode is drawn from a key of its own wavenumber: two grids on one box share the modes that both hold.

    Args:
        grid: nodes of one period.
        key: random key.
        peak_wavenumber: 2 pi / wavelength where the spectrum peaks, in the unit of 1 / spacing.
        rms: root-mean-square of the modes of the box up to 8 times the peak, in the mean over keys; differentiable. The
            default spectrum has nothing beyond; with one that has, a grid that holds more of them has more, a grid that
            holds fewer has less, and both share the modes that both hold.
        spectrum: shape of the spectrum E(k), the mean square per wavenumber; a function of the wavenumber, by default
            k^4 exp(-2 (k / peak)^2).
        dtype: float32 or float64; by default JAX's default.

    Returns:
        The field, shape `grid.shape`.

    Raises:
        ValueError: if the peak is not a positive number that the grid can hold.

    Example:
        >>> import solvers as sv, jax
        >>> coarse, fine = sv.Grid(shape=64, spacing=2.0), sv.Grid(shape=128, spacing=1.0)
        >>> u, v = (sv.random_field(grid, jax.random.key(0), 0.3) for grid in (coarse, fine))
        >>> bool(abs(u - v[::2]).max() < 1e-4)
        True
    """
    check_grid(grid)
    modes = Modes(grid, "none")
    peak, dtype, rms = checked_peak(peak_wavenumber, modes), checked_dtype(dtype), real_number(rms, "rms")
    shape = peaked(peak) if spectrum is None else spectrum
    radii, weights = (jnp.asarray(x.astype(dtype)) for x in _shells(modes.period, REACH * peak))
    return _random_field(modes, key, (radii, weights), rms, shape, dtype)


def _shells(period: tuple[float, ...], largest: float) -> tuple[np.ndarray, np.ndarray]:
    """Radii k and weights w of all modes of a box with 0 < |k| <= largest: sum(w E(k)) is their mean square.

    A mode has the share cell / (S k^(n-1)) of the shell of its radius: the volume of one mode over the surface of the
    sphere. Beyond the first `COUNTED` modes the sum is the integral of E.
    """
    n = len(period)
    cell = math.prod(2 * math.pi / p for p in period)
    counted = min(largest, (COUNTED * cell * n / SPHERE[n - 1]) ** (1 / n))
    waves = [2 * math.pi / p * np.arange(-math.floor(m), math.floor(m) + 1)
             for p in period for m in [counted * p / (2 * math.pi) * (1 + 1e-9)]]  # fmt: skip
    k = np.sqrt(sum(part**2 for part in np.meshgrid(*waves, indexing="ij", sparse=True))).ravel()
    k = k[(k > 0) & (k <= counted * (1 + 1e-9))]
    steps = 2048 if largest > counted else 0
    beyond = counted + (largest - counted) * (np.arange(steps) + 0.5) / max(steps, 1)
    width = np.full(steps, (largest - counted) / max(steps, 1))
    return np.concatenate([k, beyond]), np.concatenate([cell / (SPHERE[n - 1] * k ** (n - 1)), width])


@eqx.filter_jit
def _random_field(
    modes: Modes, key: Array, shells: tuple[Array, Array], rms: Any, spectrum: Callable[[Array], Array], dtype: Any
) -> Array:
    k2 = modes.squared(dtype)
    k = jnp.sqrt(jnp.where(k2 > 0, k2, 1))
    # A mode takes its share of the shell of its radius: the volume of one mode over the surface of the sphere.
    cell = math.prod(2 * math.pi / period for period in modes.period)
    share = cell / (SPHERE[modes.ndim - 1] * k ** (modes.ndim - 1))
    # Over modes of the box, whether this grid holds them or not.
    total = jnp.sum(jnp.maximum(spectrum(shells[0]), 0) * shells[1])
    size = jnp.where(k2 > 0, jnp.sqrt(jnp.maximum(spectrum(k), 0) * share / total), 0)
    drawn = independent_modes(modes, key, 1, dtype)[0]
    return jnp.asarray(rms, dtype) * modes.to_field(size.astype(dtype) * drawn)


def sine_sum(grid: Grid, waves: Any, amplitudes: Any, phases: Any = 0.0, dtype: Any = None) -> Array:
    """A sum of sines, u = sum_j a_j sin(2 pi m_j . (x - origin) / L + phi_j).

    Args:
        grid: nodes of one period.
        waves: m, whole numbers of waves in the box, shape (n, axes), or (n,) on one axis.
        amplitudes: a, shape (n,) or a number; differentiable.
        phases: phi, shape (n,) or a number, radians; differentiable.
        dtype: float32 or float64; by default JAX's default.

    Raises:
        ValueError: for waves that are not whole numbers of the right shape.

    Example:
        >>> import solvers as sv
        >>> sv.sine_sum(sv.Grid(shape=4, spacing=1.0), [1, 2], [1.0, 0.5]).round(5).tolist()
        [0.0, 1.0, 0.0, -1.0]
    """
    m = np.asarray(waves)
    m = m[:, None] if grid.ndim == 1 and m.ndim == 1 else m
    if m.ndim != 2 or m.shape[1] != grid.ndim or m.dtype.kind not in "iu":
        raise ValueError(
            f"`waves` must hold whole numbers of shape (n, {grid.ndim}), got {m.dtype} of shape {np.shape(waves)}."
        )
    dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
    a, phi = (
        as_field(x, name, m.shape[:1], dtype)
        for x, name in ((_array(amplitudes), "amplitudes"), (_array(phases), "phases"))
    )
    angle = jnp.zeros((len(m), *grid.shape), dtype)
    for axis, n in enumerate(grid.shape):
        # The fraction of a turn in whole numbers, so that no precision is lost in large angles.
        turn = (m[:, axis, None] * np.arange(n) % n) / n
        angle = angle + jnp.asarray((2 * np.pi * turn).astype(dtype)).reshape(_lift(len(m), n, axis, grid.ndim))
    lifted = (len(m), *[1] * grid.ndim)
    return jnp.sum(a.reshape(lifted) * jnp.sin(angle + phi.reshape(lifted)), axis=0)


def gaussian_blobs(grid: Grid, centres: Any, width: Any, amplitudes: Any = 1.0, dtype: Any = None) -> Array:
    """A sum of Gaussian blobs a exp(-|x - c|^2 / (2 w^2)) with their periodic images.

    Args:
        grid: nodes of one period.
        centres: c, shape (n, axes), or (n,) on one axis, in the unit of the spacing; differentiable.
        width: w, shape (n,) or a number; differentiable. Images up to three periods away are summed, which holds for
            widths up to half of a period.
        amplitudes: a, shape (n,) or a number; differentiable.
        dtype: float32 or float64; by default JAX's default.

    Raises:
        ValueError: for centres of a wrong shape.

    Example:
        >>> import solvers as sv
        >>> sv.gaussian_blobs(sv.Grid(shape=8, spacing=1.0), [0.0], 0.5).round(3).tolist()
        [1.0, 0.135, 0.0, 0.0, 0.0, 0.0, 0.0, 0.135]
    """
    dtype = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
    c = as_field(_array(centres), "centres", None, dtype)
    c = c[:, None] if grid.ndim == 1 and c.ndim == 1 else c
    if c.ndim != 2 or c.shape[1] != grid.ndim:
        raise ValueError(f"`centres` must have the shape (n, {grid.ndim}), got {jnp.shape(c)}.")
    n = c.shape[0]
    w, a = (
        as_field(x, name, (n,), dtype) for x, name in ((_array(width), "width"), (_array(amplitudes), "amplitudes"))
    )
    total = a.reshape(n, *[1] * grid.ndim)
    for axis, (x, h) in enumerate(zip(grid.axes(), grid.spacing, strict=True)):
        nodes = jnp.asarray(x.astype(dtype))
        images = jnp.asarray((np.arange(-3, 4) * (h * len(x))).astype(dtype))
        away = nodes[None, :, None] - c[:, axis, None, None] - images
        profile = jnp.sum(jnp.exp(-0.5 * (away / w[:, None, None]) ** 2), axis=-1)
        total = total * profile.reshape(_lift(n, len(x), axis, grid.ndim))
    return jnp.sum(total, axis=0)


def _lift(count: int, n: int, axis: int, ndim: int) -> tuple[int, ...]:
    """Shape of one value per entry and node of an axis, to broadcast over the grid."""
    return (count, *[n if a == axis else 1 for a in range(ndim)])


def _array(value: Any) -> Any:
    """Lists become arrays of floating numbers; all else stays."""
    return np.asarray(value, float) if isinstance(value, list | tuple) else value
