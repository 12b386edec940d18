"""Simulate waves: two shots over a valley of slow rock, what they look like, and what the receivers record.

    python examples/01_simulate_waves.py

Writes waves.gif and record.png into the folder `output`.
"""

# %% What we need
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import solvers as sv

SIZES = {"full": dict(spacing=10.0, seconds=1.4, frames=60), "tiny": dict(spacing=40.0, seconds=0.4, frames=4)}


# %% The ground: speed grows with depth, and a bowl of slow rock lies in it
def valley(grid: sv.Grid) -> np.ndarray:
    """Speed on the nodes, m/s, single precision."""
    z, x = np.meshgrid(*grid.axes(), indexing="ij")
    bowl = (z / 400.0) ** 2 + ((x - 1200.0) / 800.0) ** 2 < 1.0
    return np.where(bowl, 1500.0 + 0.5 * z, 2600.0 + 0.6 * z).astype(np.float32)


def main(size: str = "full", out: str | Path = "output") -> sv.Simulation:
    """Run both shots at once, write the pictures, return the simulation."""
    out, choice = Path(out), SIZES[size]
    out.mkdir(parents=True, exist_ok=True)

    # %% A wave on a grid: free surface on top, the other three faces absorb
    spacing = choice["spacing"]
    grid = sv.Grid(shape=(round(1200 / spacing) + 1, round(2400 / spacing) + 1), spacing=spacing)
    speed = valley(grid)
    shots = np.array([[40.0, 700.0], [40.0, 1900.0]], np.float32)  # depth and distance, m
    boundary = ((sv.Free(), sv.Absorbing(20)), sv.Absorbing(20))
    wave = sv.Wave(grid, speed, boundary=boundary, sources=shots)

    # %% Is the grid fine enough, and how long may a step be?
    peak = 120.0 / spacing  # Hz; a Ricker wavelet reaches to 2.5 times its peak
    points = sv.points_per_wavelength(speed, spacing, 2.5 * peak)
    dt = 0.9 * wave.max_dt()
    steps = int(choice["seconds"] / dt)
    print(f"{points:.1f} points per shortest wavelength, {steps} steps of {1e3 * dt:.2f} ms")

    # %% Each source has a signal of its own; the second one starts later
    first = sv.ricker(peak, steps=steps, dt=dt)
    later = sv.ricker(peak, steps=steps, dt=dt, delay=1.5 / peak + 0.2)
    signals = np.stack([first, later], axis=1)

    # %% Observe the field and 81 receivers on a line 20 m deep, and run
    line = np.stack([np.full(81, 20.0), np.linspace(0.0, 2400.0, 81)], axis=1).astype(np.float32)
    observe = {"field": wave.pressure, "record": wave.receivers(line)}
    run = sv.simulate(wave, wave.at_rest(), steps=steps, dt=dt, inputs=signals, observe=observe).check()
    print(f"status {run.status.name}, largest pressure at the receivers {np.abs(run.observed['record']).max():.3g}")

    # %% Pictures: an animation over the model, and the record of all receivers
    every = steps // choice["frames"]
    frames, times = run.observed["field"][::every], run.times[::every]
    sv.plot.animate(frames, grid, out / "waves.gif", times=times, model=speed, fps=15)
    figure, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
    sv.plot.gather(run.observed["record"], run.times, line[:, 1], ax=ax)
    ax.set_xlabel("distance (m)")
    ax.set_title("two shots, the second 0.2 s later")
    figure.savefig(out / "record.png", dpi=120)
    plt.close(figure)
    return run


if __name__ == "__main__":
    main()
