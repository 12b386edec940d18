"""The embedded default of the main job: a layered model with a slow lens, and the survey that records its waves."""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array

from ..core.adjoint import StoreAll
from ..core.grid import Grid
from ..core.loop import simulate
from ..pde.boundary import Absorbing, Free
from ..pde.wave import Wave
from ..pde.wavelets import ricker

BOUNDARY = ((Free(), Absorbing(20)), Absorbing(20))
WATER_DEPTH, WATER_SPEED = 80.0, 1500.0  # m, m/s
DEPTH, WIDTH = 1200.0, 2400.0  # m
LENS = (560.0, 1250.0)  # its middle: depth and distance, m
FASTEST = 3700.0  # m/s; the upper bound of the search, which also sets the time step


class Survey(NamedTuple):
    """Who records what: the truth, the start, where sources and receivers are, and how time is cut."""

    grid: Grid
    true: np.ndarray
    start: np.ndarray
    shots: np.ndarray
    receivers: np.ndarray
    steps: int
    dt: float

    def below_water(self) -> np.ndarray:
        """True where the speed is unknown."""
        return np.broadcast_to(self.grid.axes()[0][:, None] > WATER_DEPTH, self.grid.shape)

    def record(self, speed: Any, shot: Any, signal: Any) -> Array:
        """Pressure at the receivers, (steps, receivers), for one shot at a position (depth, distance)."""
        wave = Wave(self.grid, speed, boundary=BOUNDARY, sources=shot[None])
        observe = wave.receivers(self.receivers)
        run = simulate(
            wave, wave.at_rest(), steps=self.steps, dt=self.dt, inputs=signal, observe=observe, adjoint=StoreAll()
        )
        return run.observed

    def record_all(self, speed: Any, signal: Any) -> Array:
        """All shots at once, (shots, steps, receivers)."""
        return jax.vmap(lambda shot: self.record(speed, shot, signal))(self.shots)

    def signal(self, peak_frequency: float) -> Array:
        """The Ricker wavelet that all shots emit."""
        return ricker(peak_frequency, steps=self.steps, dt=self.dt)


def survey(spacing: float, shots: int, seconds: float, dtype: Any = np.float32) -> Survey:
    """A line of shots and receivers 40 m deep, across the whole model."""
    grid = Grid((round(DEPTH / spacing) + 1, round(WIDTH / spacing) + 1), spacing)
    dt = 0.98 * Wave(grid, FASTEST, boundary=BOUNDARY).max_dt()
    sources = np.stack([np.full(shots, 40.0), np.linspace(100.0, WIDTH - 100.0, shots)], axis=1)
    receivers = np.stack([np.full(61, 40.0), np.linspace(0.0, WIDTH, 61)], axis=1)
    arrays = (array.astype(dtype) for array in (true_speed(grid), smooth_speed(grid), sources, receivers))
    return Survey(grid, *arrays, steps=int(seconds / dt), dt=dt)


def true_speed(grid: Grid, lens: bool = True) -> np.ndarray:
    """Water over sediment that grows faster with depth, two interfaces, and a slow lens, m/s."""
    z, x = np.meshgrid(*grid.axes(), indexing="ij")
    speed = 1700.0 + 0.7 * z
    speed = speed + 350.0 * (z > 380.0 + 40.0 * np.sin(x / 400.0))
    speed = speed + 450.0 * (z > 820.0 - 0.1 * (x - 1200.0))
    if lens:
        speed = speed - 450.0 * np.exp(-((((z - LENS[0]) / 130.0) ** 2 + ((x - LENS[1]) / 330.0) ** 2) ** 2))
    return np.where(z <= WATER_DEPTH, WATER_SPEED, speed)


def smooth_speed(grid: Grid) -> np.ndarray:
    """What the search starts from: the layers blurred over 200 m, without the lens; the water is known."""
    from scipy.ndimage import gaussian_filter

    blurred = gaussian_filter(true_speed(grid, lens=False), 200.0 / np.asarray(grid.spacing), mode="nearest")
    return np.where(grid.axes()[0][:, None] <= WATER_DEPTH, WATER_SPEED, blurred)
