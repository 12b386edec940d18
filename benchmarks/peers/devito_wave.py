"""Run one case with Devito. See `problem.py` for the case and the answer.

The operator is Devito's textbook one, with its default optimisation, OpenMP and the block sizes that its own tuner
finds (outside the timed runs). Lossless faces are Devito's own: the field is zero beyond the grid. Absorbing layers
are the damping layers of `examples/seismic` (m u_tt - lap u + damp u_t = 0, the same profile), which is what Devito's
users have; at 20 nodes they reflect far more than a perfectly matched layer, and cost less.
"""

# pyright: reportMissingImports=false, reportAttributeAccessIssue=false

import time
from typing import Any

import numpy as np
from devito import (
    Eq,
    Function,
    Grid,
    Operator,
    SparseTimeFunction,
    TimeFunction,
    __version__,
    configuration,
    solve,
)
from problem import SPACING, Problem, clock, read_case, report, sample

configuration["language"] = "openmp"
configuration["log-level"] = "ERROR"


def damping(shape: tuple[int, ...], width: int) -> np.ndarray:
    """The profile of `examples/seismic/model.py`, summed over the faces."""
    total = np.zeros(shape, dtype=np.float32)
    depth = (width - np.arange(width)) / width
    profile = 1.5 * np.log(1000.0) / width * (depth - np.sin(2 * np.pi * depth) / (2 * np.pi)) / SPACING
    for axis, n in enumerate(shape):
        line = np.zeros(n, dtype=np.float32)
        line[:width] = profile
        line[n - width :] = profile[::-1]
        total += line.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return total


def main(problem: Problem) -> None:
    """Build the operator, compile it, tune it, time it."""
    if problem.mode != "forward":
        raise SystemExit("Devito has no automatic gradient; this benchmark asks it for forward runs only.")
    width = problem.layers
    shape = tuple(n + 2 * width for n in problem.dims)
    grid = Grid(
        shape=shape,
        extent=tuple((n - 1) * SPACING for n in shape),
        origin=tuple(-width * SPACING for _ in shape),
        dtype=np.float32,
    )
    m = Function(name="m", grid=grid)
    m.data[:] = np.pad(1.0 / problem.speed() ** 2, width, mode="edge")
    u = TimeFunction(name="u", grid=grid, time_order=2, space_order=problem.order)

    source = SparseTimeFunction(name="source", grid=grid, npoint=1, nt=problem.steps + 1)
    source.coordinates.data[:] = problem.source() * SPACING
    source.data[: problem.steps, 0] = problem.signal()
    receivers = problem.receivers()
    traces = SparseTimeFunction(name="traces", grid=grid, npoint=len(receivers), nt=problem.steps + 1)
    traces.coordinates.data[:] = receivers * SPACING

    balance = m * u.dt2 - u.laplace
    if width:
        damp = Function(name="damp", grid=grid)
        damp.data[:] = damping(shape, width)
        balance += damp * u.dt
    dt = grid.stepping_dim.spacing
    start = time.perf_counter()
    operator = Operator(
        [
            Eq(u.forward, solve(balance, u.forward)),
            source.inject(field=u.forward, expr=source * dt**2 / m),
            traces.interpolate(expr=u),
        ],
        subs=grid.spacing_map,
        name="Forward",
    )
    _ = operator.cfunction  # compiles
    compiling = time.perf_counter() - start

    # Exactly `steps` updates.
    arguments: dict[str, Any] = {"time_m": 0, "time_M": problem.steps - 1, "dt": np.float32(problem.dt)}
    operator.apply(**arguments, autotune=("basic", "preemptive"))
    tuned = operator._state.get("autotuning", [])
    # Without loop blocking, as in two dimensions, there is nothing to tune.
    blocks = {str(k): int(v) for k, v in tuned[-1].get("tuned", {}).items()} if tuned else {}

    def reset() -> None:
        u.data_with_halo[:] = 0.0

    seconds = clock(lambda: operator.apply(**arguments, **blocks), problem.repeats, before=reset)
    report(
        problem,
        seconds,
        {"devito": __version__},
        sample(np.asarray(traces.data[1 : problem.steps])),
        compile=compiling,
        blocks=blocks,
    )


if __name__ == "__main__":
    main(read_case())
