"""First part: a wave beside its exact solution, and waves in the model."""

from pathlib import Path

import numpy as np

from .. import plot
from ..core.grid import Grid
from ..core.loop import simulate
from ..evidence.analytic import green_2d
from ..pde.wave import Wave
from ..pde.wavelets import ricker
from .page import Chapter, Picture, Row
from .progress import progress
from .survey import BOUNDARY, LENS, true_speed

SPEED, DISTANCE, PEAK = 2000.0, 700.0, 10.0  # m/s, m, Hz


def wave_and_its_exact_solution(folder: Path, quick: bool) -> Chapter:
    """One trace in a homogeneous medium against the Hankel-function solution; one shot through the model, animated."""
    with progress("waves", 3) as step:
        times, ours, exact = _trace()
        step("a trace in a homogeneous medium")
        _draw_trace(folder / "trace.png", times, ours, exact)
        shot = _shot(20.0 if quick else 10.0)
        step("a shot through the model")
        _draw_shot(folder, *shot, frames=24 if quick else 30)
        step("its pictures")
    peak, true_peak = np.abs(ours).max(), np.abs(exact).max()
    arrival, true_arrival = _time_of_peak(times, ours), _time_of_peak(times, exact)
    late = arrival - true_arrival
    rms = np.sqrt(np.mean((ours - exact) ** 2)) / true_peak
    at = f"at {DISTANCE:.0f} m"
    return Chapter(
        "Waves",
        "The acoustic wave equation u_tt = c² (∇²u + source), order 8 in space and 2 in time. In a homogeneous medium "
        "the exact trace is known in closed form (a Hankel function), so amplitude and arrival can be compared.",
        [
            Row(f"largest pressure {at}", f"{peak:.5f}", f"{true_peak:.5f}", f"{peak / true_peak - 1:+.2%}"),
            Row(f"time of the peak {at}, s", f"{arrival:.5f}", f"{true_arrival:.5f}", f"{1e3 * late:+.3f} ms"),
            Row("trace, RMS error / peak", f"{rms:.1e}", "0", f"{rms:.2%}"),
        ],
        [
            Picture(
                "wave.gif",
                "A shot near the sea surface: the wave front bends and is reflected at the two "
                "interfaces and the slow lens. The upper face is free; the other three absorb.",
            ),
            Picture(
                "gather.png",
                "What the receivers at 40 m depth record of this shot: time runs downwards. The "
                "straight lines are the direct wave, the curves below it are reflections.",
            ),
            Picture(
                "trace.png",
                f"One trace in a homogeneous medium, {DISTANCE:.0f} m from the source, on top of the "
                "exact solution, and the difference of the two.",
            ),
        ],
    )


def _trace() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    wave = Wave(Grid((61, 101), 12.0), SPEED, sources=np.array([[360.0, 250.0]]))
    dt = 0.25 * wave.max_dt()
    steps = int(0.75 / dt)
    signal = ricker(PEAK, steps=steps, dt=dt)
    observe = wave.receivers(np.array([[360.0, 250.0 + DISTANCE]]))
    run = simulate(wave, wave.at_rest(), steps=steps, dt=dt, inputs=signal, observe=observe).check()
    exact = green_2d(np.asarray(signal), dt, DISTANCE, SPEED)
    # Observation k is at (k + 1) dt, sample k of the exact trace at k dt.
    return np.asarray(run.times)[:-1], np.asarray(run.observed)[:-1, 0], exact[1:]


def _time_of_peak(times: np.ndarray, trace: np.ndarray) -> float:
    """Vertex of the parabola through the largest sample and its neighbours."""
    i = int(np.argmax(np.abs(trace)))
    a, b, c = trace[i - 1 : i + 2]
    return float(times[i] + (times[1] - times[0]) * 0.5 * (a - c) / (a - 2 * b + c))


def _shot(spacing: float) -> tuple:
    grid = Grid((round(1200 / spacing) + 1, round(2400 / spacing) + 1), spacing)
    speed = true_speed(grid).astype(np.float32)
    start = np.array([[40.0, LENS[1] - 400.0]], np.float32)
    wave = Wave(grid, speed, boundary=BOUNDARY, sources=start)
    dt = 0.9 * wave.max_dt()
    steps = int(1.5 / dt)
    line = np.stack([np.full(121, 40.0), np.linspace(0.0, 2400.0, 121)], axis=1).astype(np.float32)
    # Both are kept at every step, because one run has one rhythm; the frames are thinned afterwards.
    signal = ricker(10.0, steps=steps, dt=dt)
    observe = {"frames": wave.pressure, "traces": wave.receivers(line)}
    run = simulate(wave, wave.at_rest(), steps=steps, dt=dt, inputs=signal, observe=observe).check()
    seen = {name: np.asarray(value) for name, value in run.observed.items()}
    return grid, speed, np.asarray(run.times), seen["frames"], seen["traces"], line[:, 1] - start[0, 1]


def _draw_shot(
    folder: Path,
    grid: Grid,
    speed: np.ndarray,
    times: np.ndarray,
    fields: np.ndarray,
    traces: np.ndarray,
    offsets: np.ndarray,
    frames: int,
) -> None:
    from matplotlib import pyplot

    thin = slice(len(times) // frames, None, len(times) // frames)
    plot.animate(fields[thin], grid, folder / "wave.gif", times=times[thin], model=speed, fps=15, dpi=95)
    ax = plot.gather(traces, times, offsets)
    ax.set_title("one shot, pressure")
    ax.figure.savefig(folder / "gather.png", dpi=110)
    pyplot.close(ax.figure)


def _draw_trace(path: Path, times: np.ndarray, ours: np.ndarray, exact: np.ndarray) -> None:
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(
        2, 1, figsize=(7, 4.2), sharex=True, layout="constrained", height_ratios=(2.2, 1)
    )
    above.plot(times, exact, color="0.75", linewidth=4, label="exact (Hankel function)")
    above.plot(times, ours, color="C0", linewidth=1.3, label="solvers")
    above.set_ylabel("pressure")
    above.legend(frameon=False)
    below.plot(times, 1e3 * (ours - exact) / np.abs(exact).max(), color="C3", linewidth=1.2)
    below.set_ylabel("difference\n(‰ of the peak)")
    below.set_xlabel("time (s)")
    for ax in (above, below):
        ax.margins(x=0)
        ax.grid(alpha=0.25)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
