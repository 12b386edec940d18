"""A case with published numbers, run as published; `solvers validate` and the tests share it."""

import numpy as np

from ..core.grid import Grid
from ..core.loop import simulate
from ..pde.boundary import Rigid
from ..pde.wave import Wave
from ..pde.wavelets import ricker
from .analytic import green_2d


def hankel_case(order: int, nodes: int = 881, steps: int = 1501, time_order: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """A point source in a homogeneous plane: our trace and the exact one, which is a Hankel function of frequency.

    Source at (200, 200) m, receiver at (260, 260) m, spacing 0.5 m, time step 0.1 ms, speed 1500 m/s, Ricker signal of
    90 Hz with a delay of 1.5 / f. The default grid is so large that nothing returns from its walls. Both traces are
    multiplied by the square of the spacing, so that a source has the strength of one node.

    Args:
        order: order in space.
        nodes: nodes per axis; the points keep their distance from each other and from the centre.
        steps: number of samples.
        time_order: order in time.

    Returns:
        (ours, exact) at the times 0, dt, ..., (steps - 1) dt, float64.

    Reference:
        Devito's notebook on accuracy (examples/seismic/acoustic/accuracy.ipynb): root-mean-square of the difference
        1.13e-5 at order 8.
    """
    c, f, h, dt = 1500.0, 90.0, 0.5, 1e-4
    # The published points on the published grid; on smaller ones they move towards the corner.
    start = 200.0 - (881 - nodes) / 2 * h
    source, receiver = np.array([[start, start]]), np.array([[start + 60.0, start + 60.0]])
    wave = Wave(Grid((nodes, nodes), h), c, order=order, time_order=time_order, boundary=Rigid(), sources=source)
    signal = np.asarray(ricker(f, steps=steps, dt=dt), np.float64)
    run = simulate(
        wave, wave.at_rest(), steps=steps - 1, dt=dt, inputs=signal[:-1], observe=wave.receivers(receiver)
    ).check()
    ours = np.concatenate([[0.0], np.asarray(run.observed[:, 0], np.float64)])

    distance = float(np.linalg.norm(receiver - source))
    return ours * h**2, green_2d(signal, dt, distance, c, periods=16) * h**2
