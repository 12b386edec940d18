"""Waves against theory: analytic solutions, conservation, adjoints, layers, dispersion."""

import jax
import jax.numpy as jnp
import numpy as np

from ..core.adjoint import Checkpoint, StoreAll
from ..core.grid import Grid
from ..core.loop import simulate
from ..core.verify import check_adjoint, check_gradient
from ..pde.boundary import Absorbing, Free, Periodic, Rigid
from ..pde.wave import Wave
from ..pde.wavelets import dispersion, ricker
from .analytic import green_2d, ricker_values
from .hankel import hankel_case
from .record import Evidence, Row


def dalembert() -> Evidence:
    """A Gaussian pulse splits into two halves that travel unchanged: u = (f(x - ct) + f(x + ct)) / 2."""
    n, width, speed = 400, 12.0, 2.0
    wave = Wave(Grid(n, 1.0), speed, boundary=Periodic())
    dt = 0.5 * wave.max_dt()
    steps = int(60.0 / dt)
    time = steps * dt

    def pulse(x: np.ndarray) -> np.ndarray:
        return np.exp(-(((x + n / 2) % n - n / 2) ** 2) / (2 * width**2))

    x = np.arange(n) - n / 2
    run = simulate(wave, wave.state(pulse(x)), steps=steps, dt=dt).check()
    exact = (pulse(x - speed * time) + pulse(x + speed * time)) / 2
    ours = np.asarray(wave.pressure(run.final))
    # Leapfrog runs ahead by (omega dt)^2 / 24 of each period, so that the pulse f / 2 is off by
    # t c^3 dt^2 / 24 max|f'''| / 2, with max|f'''| = 1.38 / width^3; a tenth for the next terms.
    bound = 1.1 * time * speed**3 * dt**2 / 24 * 1.38 / width**3 / 2
    return Evidence(float(ours.max()), float(exact.max()), float(np.abs(ours - exact).max()), bound)


def green_function_2d() -> Evidence:
    """Trace at 600 m from a line source, 10 points per wavelength at the peak frequency."""
    speed, peak, distance = 1500.0, 10.0, 600.0
    wave = Wave(Grid((61, 101), 15.0), speed, sources=np.array([[450.0, 450.0]]))
    dt = 0.2 * wave.max_dt()
    steps = int(0.9 / dt)
    signal = ricker(peak, steps=steps, dt=dt)
    run = simulate(
        wave, wave.at_rest(), steps=steps, dt=dt, inputs=signal, observe=wave.receivers([[450.0, 450.0 + distance]])
    )
    ours = np.asarray(run.check().observed)[:-1, 0]
    exact = green_2d(np.asarray(signal), dt, distance, speed)[1:]
    return _trace(ours, exact, _phase_bound(distance, speed, peak, 15.0, dt))


def published_trace() -> Evidence:
    """RMS error at order 8 of the case of Devito's notebook on accuracy; theirs is the bound."""

    ours, exact = hankel_case(8)
    rms = float(np.sqrt(np.mean((ours - exact) ** 2)))
    return Evidence(rms, 1.13e-5, rms, 1.13e-5)


def green_function_3d() -> Evidence:
    """Trace at 200 m from a point source, u = s(t - r / c) / (4 pi r)."""
    speed, peak, distance, h = 1500.0, 10.0, 200.0, 15.0
    wave = Wave(Grid((25, 25, 33), h), speed, boundary=Absorbing(12), sources=np.array([[180.0, 180.0, 140.0]]))
    dt = 0.2 * wave.max_dt()
    steps = int(0.45 / dt)
    signal = ricker(peak, steps=steps, dt=dt)
    at = np.array([[180.0, 180.0, 140.0 + distance]])
    run = simulate(wave, wave.at_rest(), steps=steps, dt=dt, inputs=signal, observe=wave.receivers(at)).check()
    late = np.asarray(run.times) - distance / speed
    exact = ricker_values(late, peak, 1.5 / peak) / (4 * np.pi * distance)
    return _trace(np.asarray(run.observed)[:, 0], exact, _phase_bound(distance, speed, peak, h, dt))


def energy_drift() -> Evidence:
    """Discrete energy after 10 000 steps in a heterogeneous box with free and rigid walls."""
    grid = Grid((48, 56), 10.0)
    z, x = np.meshgrid(*grid.axes(), indexing="ij")
    wave = Wave(grid, 1500.0 + 2.0 * z + 100 * np.sin(x / 70), boundary=((Free(), Rigid()), Rigid()))
    dt, steps = 0.9 * wave.max_dt(), 10_000
    start = wave.state(np.exp(-((z - 200) ** 2 + (x - 250) ** 2) / (2 * 40.0**2)))
    run = simulate(wave, start, steps=steps, dt=dt).check()
    before, after = (float(wave.energy(s, dt)) for s in (start, run.final))
    return Evidence(after, before, abs(after / before - 1), 1e-12)


def dot_product() -> Evidence:
    """Forward and reverse mode with respect to speed, positions and signals: <J v, w> = <v, J^T w>."""
    record, point = _recording()
    report = check_adjoint(record, point)
    return Evidence(report.forward, report.reverse, report.error, 1e-12)


def taylor_rate() -> Evidence:
    """Rate at which f(x + h d) - f(x) - h <g, d> falls, f half the squared data."""
    record, point = _recording()
    report = check_gradient(lambda p: 0.5 * jnp.sum(record(p) ** 2), point)
    rate = report.remainders[1].rate
    return Evidence(rate, 2.0, abs(rate - 2.0), 0.05)


def checkpoint_is_store_all() -> Evidence:
    """Gradient with recomputation (three levels) against the one with everything stored."""
    norms, gradients = [], []
    for adjoint in (Checkpoint(levels=3), StoreAll()):
        record, point = _recording(adjoint)
        gradient = jax.jit(jax.grad(lambda p, record=record: 0.5 * jnp.sum(record(p) ** 2)))(point)["speed"]
        gradients.append(np.asarray(gradient))
        norms.append(float(np.linalg.norm(gradients[-1])))
    return Evidence(
        norms[0], norms[1], float(np.abs(gradients[0] - gradients[1]).max() / np.abs(gradients[1]).max()), 1e-12
    )


def reciprocity() -> Evidence:
    """Source and receiver change places in a heterogeneous medium; a source acts as c^2 s, so equal speeds there."""
    grid = Grid((50, 60), 10.0)
    z, x = np.meshgrid(*grid.axes(), indexing="ij")
    speed = 1500.0 + 500 * np.exp(-((z - 250) ** 2 + (x - 300) ** 2) / (2 * 80.0**2)) * (abs(x - 300) < 150)
    first, second = np.array([[100.0, 120.0]]), np.array([[370.0, 480.0]])
    peaks, traces = [], []
    for source, receiver in ((first, second), (second, first)):
        wave = Wave(grid, speed, boundary=((Free(), Absorbing(12)), Absorbing(12)), sources=source)
        dt = 2e-3
        signal = ricker(15.0, steps=300, dt=dt)
        run = simulate(wave, wave.at_rest(), steps=300, dt=dt, inputs=signal, observe=wave.receivers(receiver)).check()
        traces.append(np.asarray(run.observed)[:, 0])
        peaks.append(float(np.abs(traces[-1]).max()))
    return Evidence(peaks[0], peaks[1], float(np.abs(traces[0] - traces[1]).max() / peaks[1]), 1e-12)


def reflection() -> Evidence:
    """Largest reflection of a 20-cell layer, at 10 points per wavelength, as a share of what meets the layer.

    A source 25 cells from the face and receivers along it, out to 45 degrees; the same in a domain so large that
    nothing returns in time. The incident amplitude is that of the wave at the foot of the source on the face.
    """
    speed, h, steps, dt = 1500.0, 10.0, 260, 3e-3

    def traces(more: int) -> tuple[np.ndarray, np.ndarray]:
        grid = Grid((101 + 2 * more, 101 + 2 * more), h, origin=-more * h)
        wave = Wave(grid, speed, sources=np.array([[250.0, 500.0]]))
        line = np.stack([np.zeros(51), np.linspace(250.0, 750.0, 51)], axis=1)
        run = simulate(
            wave,
            wave.at_rest(),
            steps=steps,
            dt=dt,
            inputs=ricker(15.0, steps=steps, dt=dt),
            observe=wave.receivers(line),
        )
        return np.asarray(run.check().observed), line

    near, _ = traces(0)
    far, _ = traces(int(speed * steps * dt / h / 2) + 20)
    ratio = float(np.abs(near - far).max() / np.abs(far[:, 25]).max())
    return Evidence(ratio, 0.0, ratio, 1e-4)


def phase_speed() -> Evidence:
    """Numerical speed of a plane wave with 5 points per wavelength, from its phase after 2000 steps."""
    points, speed, courant, steps = 5, 1.0, 0.5, 2000
    wave = Wave(Grid(50, 1.0), speed, boundary=Periodic())
    x = np.arange(50.0)
    k = 2 * np.pi / points
    run = simulate(
        wave, wave.state(np.cos(k * x)), steps=steps, dt=courant, observe=lambda s: wave.pressure(s)[0]
    ).check()
    # A standing wave cos(kx) cos(omega t): two neighbouring samples give omega.
    series = np.concatenate([[1.0], np.asarray(run.observed)])
    omega = (
        np.arccos(np.clip((series[2:] + series[:-2]) @ series[1:-1] / (2 * series[1:-1] @ series[1:-1]), -1, 1))
        / courant
    )
    ours = float(omega / k / speed - 1)
    theory = dispersion(points, order=8, courant=courant)
    # Round-off of 2000 steps in a number of size one.
    return Evidence(ours, theory, abs(ours - theory), 1e-12)


def _recording(adjoint: StoreAll | Checkpoint = StoreAll()):
    """A small recording as a function of everything that one may differentiate, and a point."""
    grid = Grid((32, 40), 10.0)
    z, x = np.meshgrid(*grid.axes(), indexing="ij")
    dt, steps = 2.5e-3, 150

    def record(p: dict) -> jax.Array:
        wave = Wave(grid, p["speed"], boundary=((Free(), Absorbing(8)), Absorbing(8)), sources=p["sources"])
        observe = wave.receivers(p["receivers"])
        run = simulate(wave, wave.at_rest(), steps=steps, dt=dt, inputs=p["signal"], observe=observe, adjoint=adjoint)
        return run.observed

    point = {
        "speed": jnp.asarray(1500.0 + 1.5 * z + 80 * np.sin(x / 60)),
        "sources": jnp.array([[52.3, 101.7], [60.0, 301.1]]),
        "receivers": jnp.array([[71.9, 201.3], [200.0, 150.0], [133.3, 333.3]]),
        "signal": ricker(12.0, steps=steps, dt=dt),
    }
    return record, point


def _trace(ours: np.ndarray, exact: np.ndarray, bound: float) -> Evidence:
    """Peaks, and the root-mean-square error as a share of the peak."""
    error = float(np.sqrt(np.mean((ours - exact) ** 2)) / np.abs(exact).max())
    return Evidence(float(np.abs(ours).max()), float(np.abs(exact).max()), error, bound)


def _phase_bound(distance: float, speed: float, peak: float, h: float, dt: float) -> float:
    """Error of a trace by numerical dispersion, as a share of its peak, at the highest frequency that matters.

    A relative error e of the phase speed turns the phase by omega r e / c; taken at 1.5 times the peak frequency, above
    which a Ricker wavelet holds a tenth of its energy.
    """
    frequency = 1.5 * peak
    error = abs(dispersion(speed / (frequency * h), order=8, courant=speed * dt / h))
    return 2 * np.pi * frequency * distance / speed * error


ROWS = (
    Row("wave-1d", "1-D pulse, peak; largest error", "d'Alembert 1747", dalembert),
    Row("wave-2d", "2-D trace, peak; RMS error / peak", "Hankel function", green_function_2d),
    Row("wave-881", "2-D trace on 881 x 881 nodes, order 8; RMS error", "Devito, accuracy notebook", published_trace),
    Row("wave-3d", "3-D trace, peak; RMS error / peak", "Green's function", green_function_3d),
    Row("wave-energy", "energy after 10 000 steps; relative drift", "energy at t = 0", energy_drift),
    Row("wave-reciprocity", "peak with source and receiver exchanged", "reciprocity", reciprocity),
    Row("wave-dot-product", "<J v, w> against <v, J^T w>", "transpose", dot_product),
    Row("wave-taylor", "Taylor rate of the gradient", "Taylor's theorem", taylor_rate),
    Row("wave-checkpoint", "gradient norm, Checkpoint; relative difference", "StoreAll", checkpoint_is_store_all),
    Row("wave-layer", "reflection of 20 absorbing cells", "none, very large domain", reflection),
    Row("wave-dispersion", "phase speed error at 5 points", "von Neumann analysis", phase_speed),
)
