"""The wave problem that every code in `wave.py` solves, and the timing that every one of them uses.

Needs NumPy alone, because each code runs it in an environment of its own. A case arrives as JSON, for example
`{"dims": [2048, 2048], "order": 8, "layers": 20, "steps": 100, "mode": "forward"}`, as the first argument or on
standard input; the answer is one line of JSON.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

SPACING = 10.0  # m
SLOWEST, FASTEST = 1500.0, 3500.0  # m/s, from the first face to the last along the first axis
PEAK = 25.0  # Hz: six nodes per wavelength at the slowest speed
# dt c sqrt(sum 1/h^2). Below the 0.6 above which Deepwave would divide the step, and below the limit of every order,
# so that all codes take the same number of the same steps.
COURANT = 0.55
RECEIVERS = 50


@dataclass(frozen=True)
class Problem:
    """One shot in a medium whose speed grows with depth, recorded on a line of receivers.

    Attributes:
        dims: Number of interior nodes per axis; absorbing layers come on top.
        order: Order of the Laplacian.
        layers: Width of the absorbing layer on every face, in nodes; 0 for lossless faces.
        steps: Number of time steps.
        mode: "forward", or "gradient" with respect to the speed.
        repeats: Number of timed runs within the process.
    """

    dims: tuple[int, ...]
    order: int
    layers: int
    steps: int
    mode: str = "forward"
    repeats: int = 3

    @property
    def dt(self) -> float:
        """Time step, s."""
        return COURANT * SPACING / (math.sqrt(len(self.dims)) * FASTEST)

    @property
    def work(self) -> int:
        """Updates of an interior node in one forward run."""
        return math.prod(self.dims) * self.steps

    def speed(self) -> NDArray[np.float32]:
        """Speed of sound on the interior nodes, m/s."""
        depth = np.linspace(SLOWEST, FASTEST, self.dims[0], dtype=np.float32)
        full = np.broadcast_to(depth.reshape((-1,) + (1,) * (len(self.dims) - 1)), self.dims)
        return np.ascontiguousarray(full)

    def signal(self) -> NDArray[np.float32]:
        """Ricker wavelet with its peak at 1/PEAK."""
        phase = (math.pi * PEAK * (np.arange(self.steps) * self.dt - 1 / PEAK)) ** 2
        return ((1 - 2 * phase) * np.exp(-phase)).astype(np.float32)

    def source(self) -> NDArray[np.int64]:
        """Node of the source, shape (1, dimensions): the middle."""
        return np.array([[n // 2 for n in self.dims]])

    def receivers(self) -> NDArray[np.int64]:
        """Nodes of the receivers: a line across the last axis, six nodes below the source."""
        n = self.dims[-1]
        nodes = np.repeat(self.source(), RECEIVERS, axis=0)
        nodes[:, 0] += 6
        nodes[:, -1] = n // 2 + (np.arange(RECEIVERS) - RECEIVERS // 2) * (n // RECEIVERS)
        return nodes


def read_case() -> Problem:
    """Read the case from the first argument, or from standard input where there is none."""
    text = sys.argv[1] if len(sys.argv) > 1 else sys.stdin.read()
    case = json.loads(text)
    return Problem(**{**case, "dims": tuple(case["dims"])})


def clock(run: Callable[[], Any], repeats: int, before: Callable[[], Any] = lambda: None) -> dict[str, float]:
    """Time `run`, which must return only when its work is done; `before` is not counted.

    Returns:
        "median" and "best" seconds, and "first" with those of the first call, which may compile.
    """
    seconds = []
    for _ in range(repeats + 1):
        before()
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return {"first": seconds[0], "median": median(seconds[1:]), "best": min(seconds[1:])}


def sample(record: NDArray[Any]) -> list[float]:
    """Reduce a record to what two codes can compare: one trace, with the scale of the source taken out.

    Args:
        record: Shape (steps - 1, receivers), the field at times dt, 2 dt, ...
    """
    trace = np.asarray(record, dtype=np.float64)[:, RECEIVERS // 2]
    trace = trace[:: max(1, len(trace) // 100)]
    return [float(f"{x:.7g}") for x in trace / np.sqrt(np.mean(trace**2))]


def report(
    problem: Problem, seconds: dict[str, float], versions: dict[str, str], trace: list[float], **more: Any
) -> None:
    """Print the answer as the last line of standard output."""
    answer = {
        "seconds": seconds,
        "gpts": problem.work / seconds["median"] / 1e9,
        "gpts_best": problem.work / seconds["best"] / 1e9,
        "versions": versions,
        "trace": trace,
        **more,
    }
    print(json.dumps(answer), flush=True)
