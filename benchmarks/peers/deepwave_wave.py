"""Run one case with Deepwave. See `problem.py` for the case and the answer.

Its compiled backend with its default settings: perfectly matched layers, and for the gradient the default storage
(the whole history in memory) and `loss.backward()`. Faces without a layer are its free ones, where the field is zero.
"""

# pyright: reportMissingImports=false

import os
import time
from importlib.metadata import version

import deepwave
import numpy as np
import torch
from problem import FASTEST, PEAK, SPACING, Problem, clock, read_case, report, sample


def main(problem: Problem) -> None:
    """Time forward runs, and gradients where the case asks for them."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    speed = torch.from_numpy(problem.speed())
    signal = torch.from_numpy(problem.signal())[None, None, :]
    source = torch.from_numpy(problem.source())[None]
    receivers = torch.from_numpy(problem.receivers())[None]

    def propagate(v: torch.Tensor) -> "deepwave.PropagatorOutput":
        return deepwave.scalar(
            v,
            SPACING,
            problem.dt,
            source_amplitudes=signal,
            source_locations=source,
            receiver_locations=receivers,
            accuracy=problem.order,
            pml_width=problem.layers,
            pml_freq=PEAK,
            boundary=None if problem.layers else "free",
            max_vel=FASTEST,
        )

    start = time.perf_counter()
    with torch.no_grad():
        first = propagate(speed)
    loading = time.perf_counter() - start
    # The time step of the problem is below Deepwave's own limit, so that it takes `steps` steps and no more.
    if first.info.step_ratio != 1:
        raise SystemExit(f"Deepwave took {first.info.step_ratio} internal steps per step; the case needs 1.")
    record = first.receiver_amplitudes[0].numpy().T
    if not np.isfinite(record).all():
        raise SystemExit("Deepwave's record is not finite.")

    def forward() -> None:
        with torch.no_grad():
            propagate(speed)

    def gradient() -> None:
        v = speed.clone().requires_grad_()
        loss = propagate(v).receiver_amplitudes.square().mean()
        loss.backward()

    more = {}
    seconds = clock(forward, problem.repeats)
    if problem.mode == "gradient":
        more["forward_seconds"] = seconds
        seconds = clock(gradient, problem.repeats)
    report(
        problem,
        seconds,
        {"deepwave": version("deepwave"), "torch": version("torch")},
        sample(-record[1:]),  # its source enters with the opposite sign
        compile=loading,
        **more,
    )


if __name__ == "__main__":
    main(read_case())
