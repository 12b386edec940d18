"""Part of the demo: a flow beside its exact solution, decaying turbulence, and an equation of one's own."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from .. import plot
from ..core.grid import Grid
from ..core.loop import simulate
from ..pde.periodic import PeriodicNavierStokes
from ..pde.transport_equations import KortewegDeVries, KuramotoSivashinsky
from .page import Chapter, Picture, Row
from .progress import progress


def flow_in_a_periodic_box(folder: Path, quick: bool) -> Chapter:
    """Taylor-Green vortices and a soliton against theory; turbulence that decays; chaos of a flame front."""
    with progress("flow", 4) as step:
        rate, exact = _taylor_green()
        step("Taylor-Green vortices")
        speed = _soliton()
        step("a soliton")
        kept = _turbulence(folder, 64 if quick else 128, 2.0 if quick else 6.0, 12 if quick else 36)
        step("decaying turbulence")
        _chaos(folder / "chaos.png", 100.0 if quick else 150.0)
        step("a flame front")
    return Chapter(
        "Flow in periodic boxes",
        "Navier-Stokes by a Fourier method in two dimensions, and equations of the form u_t = L u + N(u), in which L "
        "is integrated exactly. Vortices of Taylor and Green decay as exp(-2 nu t); a soliton keeps its shape and "
        "travels at the speed that its height asks for.",
        [
            Row("decay of the vortices", f"{rate:.6f}", f"{exact:.6f}", f"{rate / exact - 1:+.1e}"),
            Row("speed of the soliton", f"{speed:.6f}", "1.500000", f"{speed / 1.5 - 1:+.1e}"),
            Row("energy kept by turbulence", f"{kept[0]:.1%}", "", ""),
            Row("enstrophy kept by turbulence", f"{kept[1]:.1%}", "", ""),
        ],
        [
            Picture("flow.gif", "Vorticity of decaying turbulence: eddies of one sign merge, filaments dissolve."),
            Picture("spectrum.png", "Its energy spectrum at the beginning and at the end: energy moves to long waves."),
            Picture("chaos.png", "The Kuramoto-Sivashinsky equation, a model of flame fronts: position and time."),
        ],
    )


def _taylor_green() -> tuple[float, float]:
    """Factor by which the speed falls in 100 steps, and the exact one."""
    flow = PeriodicNavierStokes(Grid((32, 32), 2 * np.pi / 32), viscosity=0.02)
    start = flow.taylor_green()
    run = simulate(flow, start, steps=100, dt=0.05).check()
    speed = [float(jnp.max(flow.velocity(s)[0])) for s in (start, run.final)]
    return speed[1] / speed[0], float(np.exp(-2 * 0.02 * 5.0))


def _soliton() -> float:
    """Speed from the phase of the first mode."""
    grid = Grid(128, 40 / 128)
    x = grid.axes()[0]
    start = 0.75 / np.cosh(0.5 * np.sqrt(1.5) * (x - 20)) ** 2
    final = simulate(KortewegDeVries(grid), jnp.asarray(start), steps=500, dt=0.01).check().final
    wave = np.exp(-2j * np.pi * x / 40)
    turned = -np.angle((np.asarray(final) @ wave) / (start @ wave)) % (2 * np.pi)
    return float(turned * 40 / (2 * np.pi) / 5.0)


def _turbulence(folder: Path, nodes: int, time: float, frames: int) -> tuple[float, float]:
    """Shares of energy and enstrophy that are left; writes an animation and spectra."""
    from matplotlib.figure import Figure

    grid = Grid((nodes, nodes), 2 * np.pi / nodes)
    flow = PeriodicNavierStokes(grid, viscosity=1e-3)
    start = flow.random_start(jax.random.key(0), peak_wavenumber=6, max_speed=1.0)
    every = int(np.ceil(time / frames / (0.7 * flow.max_dt(start))))
    dt = time / (frames * every)
    run = simulate(flow, start, steps=frames * every, dt=dt, observe=flow.vorticity, every=every).check()
    plot.animate_box(run.observed, grid, folder / "flow.gif", times=run.times, dpi=60)
    page = Figure(figsize=(6.0, 3.8), layout="constrained")
    ax = page.subplots()
    plot.spectrum(*flow.spectrum(start), ax=ax, slopes=(), label="t = 0")
    plot.spectrum(*flow.spectrum(run.final), ax=ax, label=f"t = {time:g}")
    page.savefig(folder / "spectrum.png", dpi=110)
    return tuple(float(f(run.final) / f(start)) for f in (flow.energy, flow.enstrophy))  # type: ignore[return-value]


def _chaos(path: Path, time: float) -> None:
    from matplotlib.figure import Figure

    grid = Grid(128, 32 * np.pi / 128)
    x = jnp.asarray(grid.axes()[0])
    start = jnp.cos(x / 16) * (1 + jnp.sin(x / 16))
    steps = int(time / 0.25)
    run = simulate(KuramotoSivashinsky(grid), start, steps=steps, dt=0.25, observe=lambda u: u, every=2).check()
    page = Figure(figsize=(6.5, 4.2), layout="compressed")
    plot.space_time(run.observed, run.times, grid, ax=page.subplots())
    page.savefig(path, dpi=110)
