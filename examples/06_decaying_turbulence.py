"""Decaying turbulence in the plane: small eddies merge into large ones, and the spectrum steepens.

    python examples/06_decaying_turbulence.py

Without a force, two-dimensional turbulence keeps its energy and loses its enstrophy (mean squared vorticity): energy
moves to long waves, vorticity to thin filaments that viscosity dissolves. Writes turbulence.png and turbulence.gif into
the folder `output`.
"""

# %%
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import solvers as sv

SIZES = {
    "full": dict(nodes=256, viscosity=4e-4, time=12.0, frames=60),
    "tiny": dict(nodes=32, viscosity=1e-2, time=0.5, frames=3),
}


def main(size: str = "full", out: str | Path = "output") -> tuple:
    """Random start, run, pictures; returns energy and enstrophy over time."""
    return decay(**SIZES[size], out=Path(out))


def decay(nodes: int, viscosity: float, time: float, frames: int, out: Path) -> tuple:
    """The whole story on nodes x nodes points of a box of length 2 pi."""
    out.mkdir(parents=True, exist_ok=True)

    # %% A flow, and a random start: the same field at any number of nodes
    grid = sv.Grid(shape=(nodes, nodes), spacing=2 * np.pi / nodes)
    flow = sv.PeriodicNavierStokes(grid, viscosity)
    start = flow.random_start(jax.random.key(0), peak_wavenumber=8, max_speed=1.0)

    # %% The step: as long as advection allows, and a whole number per frame
    every = int(np.ceil(time / frames / (0.7 * flow.max_dt(start))))
    steps, dt = frames * every, time / (frames * every)
    print(f"{steps} steps of {dt:.4f}")

    # %% March, and look at vorticity, energy and enstrophy on the way
    look = {"vorticity": flow.vorticity, "energy": flow.energy, "enstrophy": flow.enstrophy}
    run = sv.simulate(flow, start, steps=steps, dt=dt, observe=look, every=every).check()
    energy, enstrophy = (np.asarray(run.observed[name]) for name in ("energy", "enstrophy"))
    print(f"energy kept {energy[-1] / float(flow.energy(start)):.0%}")
    print(f"enstrophy kept {enstrophy[-1] / float(flow.enstrophy(start)):.0%}")

    # %% Pictures: where it began, where it ended, and where the energy sits
    figure, axes = plt.subplots(1, 3, figsize=(15, 4.3), layout="constrained")
    for ax, state, title in zip(axes, (start, run.final), ("t = 0", f"t = {time:g}"), strict=False):
        sv.plot.box(flow.vorticity(state), grid, ax=ax).set_title(title)
    sv.plot.spectrum(*flow.spectrum(start), ax=axes[2], slopes=(), label="t = 0")
    sv.plot.spectrum(*flow.spectrum(run.final), ax=axes[2], label=f"t = {time:g}")
    axes[2].set_title("energy spectrum")
    axes[2].set_ylim(bottom=1e-12)
    figure.savefig(out / "turbulence.png", dpi=110)
    plt.close(figure)
    sv.plot.animate_box(run.observed["vorticity"], grid, out / "turbulence.gif", times=run.times, dpi=70)
    return energy, enstrophy


if __name__ == "__main__":
    main()
