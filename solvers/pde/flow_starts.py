"""Velocities to start periodic flows from: random fields with a spectrum, Taylor-Green, shear layers."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ..core.fourier import Modes, fast_size
from ..core.grid import Grid


def taylor_green(grid: Grid, speed: Any, dtype: Any) -> Array:
    """u = U cos(kx) sin(my), v = -U (k/m) sin(kx) cos(my); in space u = U sin cos cos, v = -U (k/m) cos sin cos, w = 0.

    One period per axis, counted from the first node; the factor k/m keeps the divergence zero in boxes of any aspect.
    """
    phases = [2 * np.pi * np.arange(n) / n for n in grid.shape]
    x, y, *z = np.meshgrid(*phases, indexing="ij")
    aspect = grid.shape[1] * grid.spacing[1] / (grid.shape[0] * grid.spacing[0])
    if z:
        parts = [np.sin(x) * np.cos(y), -aspect * np.cos(x) * np.sin(y), 0 * x]
        parts = [part * np.cos(z[0]) for part in parts]
    else:
        parts = [np.cos(x) * np.sin(y), -aspect * np.sin(x) * np.cos(y)]
    return jnp.asarray(speed, dtype) * jnp.asarray(np.stack(parts).astype(dtype))


def shear_layers(grid: Grid, thickness: float, disturbance: Any, speed: Any, dtype: Any) -> Array:
    """Two layers u = +-U tanh((y -+ L/4) / thickness) about y = L/4 and 3L/4, with v = disturbance U sin(2 pi x/Lx)."""
    axes = [h * np.arange(n) for n, h in zip(grid.shape, grid.spacing, strict=True)]
    length, width = grid.shape[1] * grid.spacing[1], grid.shape[0] * grid.spacing[0]
    x, y, *_ = np.meshgrid(*axes, indexing="ij")
    velocity = np.zeros((grid.ndim, *grid.shape))
    velocity[0] = np.where(
        y <= length / 2, np.tanh((y - length / 4) / thickness), np.tanh((0.75 * length - y) / thickness)
    )
    velocity[1] = np.sin(2 * np.pi * x / width)
    field = jnp.asarray(velocity.astype(dtype)).at[1].multiply(jnp.asarray(disturbance, dtype))
    return jnp.asarray(speed, dtype) * field


def peaked(peak: float) -> Callable[[Array], Array]:
    """E(k) = k^4 exp(-2 (k / peak)^2), largest at the peak."""
    return lambda k: (k / peak) ** 4 * jnp.exp(-2 * (k / peak) ** 2)


@eqx.filter_jit
def random_velocity(
    modes: Modes, key: Array, peak: float, max_speed: Any, spectrum: Callable[[Array], Array], dtype: Any
) -> Array:
    """Modes of a random velocity without divergence or mean, with a spectrum, and a greatest speed to about 2 percent.

    Every mode is drawn from a key of its own wavenumber, in single precision: grids of any size, and both precisions,
    share the modes that they share. The greatest speed is measured on the modes up to three times the peak, on sixteen
    nodes per peak wavelength, and so is the same on all grids that hold these modes.
    """
    draws = independent_modes(modes, key, modes.ndim, dtype)
    k2 = modes.squared(dtype)
    k = jnp.sqrt(jnp.where(k2 > 0, k2, 1))
    # A shell of radius k holds k^(axes - 1) modes.
    size = jnp.where(k2 > 0, jnp.sqrt(jnp.maximum(spectrum(k), 0) / k ** (modes.ndim - 1)), 0)
    velocity = modes.project(size.astype(dtype) * draws)
    return velocity * (jnp.asarray(max_speed, dtype) / _greatest_speed(modes, velocity, peak)).astype(dtype)


def independent_modes(modes: Modes, key: Array, components: int, dtype: Any) -> Array:
    """Complex normal numbers, one per component and mode, that belong to a real field."""
    # The signed index m becomes a code that does not depend on how many modes there are: 0, 2, 4, ... and 1, 3, ...
    bits = 32 // modes.ndim
    if 2 * max(modes.cut) >= 2**bits:
        raise ValueError(
            f"Random starts hold at most {2 ** (bits - 1) - 1} waves per axis, this grid {max(modes.cut)}."
        )
    code = jnp.zeros((), jnp.uint32)
    for axis, m in enumerate(modes.indices()):
        code = code + jnp.asarray(np.where(m < 0, -2 * m - 1, 2 * m) << (bits * axis), jnp.uint32)

    def draw(code: Array) -> Array:
        return jax.random.uniform(jax.random.fold_in(key, code), (2, components), jnp.float32)

    pairs = jax.vmap(draw)(code.ravel()).reshape(*code.shape, 2, components)
    # Single-precision uniform numbers are exact; what is rounded comes after the cast, so that precisions agree.
    radius, angle = jnp.moveaxis(pairs, (-2, -1), (0, 1)).astype(dtype)
    radius = jnp.sqrt(-jnp.log1p(-radius))
    drawn = jax.lax.complex(radius * jnp.cos(2 * math.pi * angle), radius * jnp.sin(2 * math.pi * angle))
    # Where both k and -k are stored they must be conjugate.
    plane = drawn[..., 0]
    mirrored = plane
    for axis in range(1, plane.ndim):
        mirrored = jnp.roll(jnp.flip(mirrored, axis), 1, axis)
    return drawn.at[..., 0].set((plane + jnp.conj(mirrored)) * math.sqrt(0.5))


def _greatest_speed(modes: Modes, velocity: Array, peak: float) -> Array:
    """Greatest speed of the modes up to three times the peak, on a grid that depends on the peak alone."""
    grid = modes.grid
    waves = [peak * period / (2 * math.pi) for period in modes.period]
    shape = [
        max(min(fast_size(math.ceil(16 * w)), fast_size(2 * n)), 16) for w, n in zip(waves, grid.shape, strict=True)
    ]
    coarse = Modes(Grid(shape, [p / n for p, n in zip(modes.period, shape, strict=True)]), "none")
    low = modes.convert(velocity, coarse)
    field = coarse.to_field(jnp.where(coarse.squared(velocity.real.dtype) <= (3 * peak) ** 2, low, 0))
    return jnp.sqrt(jnp.max(jnp.sum(field**2, axis=0)))
