"""The flow problem that every code in `periodic_flow.py` solves, and the timing that every one of them uses.

Needs NumPy alone. A case arrives as JSON in the first argument; the answer is one line of JSON. All codes start from
the same field in single precision (vorticity dv/dx - du/dy in the plane, velocity in space) on a box of length 2 pi,
and return the field after `steps` steps of `dt`.
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


@dataclass(frozen=True)
class Flow:
    """One run.

    Attributes:
        nodes: nodes per axis.
        axes: 2 or 3.
        steps: number of time steps.
        start: "taylor-green" or "random".
        mode: "forward", or "gradient" of the mean square of the final field with respect to the first one.
        repeats: number of timed runs within the process.
        reference: file with the truth, where there is no formula.
        time_step: in place of the one that the nodes ask for, if positive.
    """

    nodes: int
    axes: int
    steps: int
    start: str
    mode: str = "forward"
    repeats: int = 3
    reference: str = ""
    time_step: float = 0.0

    @property
    def dt(self) -> float:
        """Time step: at speed one advection turns the phase of the shortest kept wave by 0.6 along a diagonal."""
        return self.time_step or 0.6 / (self.nodes // 3) / math.sqrt(self.axes)

    @property
    def viscosity(self) -> float:
        """Kinematic viscosity."""
        return 1e-3 if self.axes == 2 else 1 / 1600

    @property
    def shape(self) -> tuple[int, ...]:
        """Nodes of each axis."""
        return (self.nodes,) * self.axes

    def initial(self) -> NDArray[np.float32]:
        """The field at t = 0: vorticity, or velocity with its components first."""
        x = np.meshgrid(*[2 * np.pi * np.arange(self.nodes) / self.nodes] * self.axes, indexing="ij")
        if self.axes == 3:
            u = np.sin(x[0]) * np.cos(x[1]) * np.cos(x[2])
            v = -np.cos(x[0]) * np.sin(x[1]) * np.cos(x[2])
            return np.stack([u, v, 0 * u]).astype(np.float32)
        if self.start == "taylor-green":
            # u = cos x sin y, v = -sin x cos y
            return (-2 * np.cos(x[0]) * np.cos(x[1])).astype(np.float32)
        return self._random().astype(np.float32)

    def _random(self) -> NDArray[np.float64]:
        """Waves up to |m| = 12 with random phases, E(k) ~ k^4 exp(-2 (k / 4)^2), greatest speed about one."""
        _, u, v = _fields(128)
        greatest = np.sqrt(u**2 + v**2).max()
        return _fields(self.nodes)[0] / greatest

    def exact(self) -> NDArray[np.float64] | None:
        """The field at the end, where it is known."""
        if self.start == "taylor-green" and self.axes == 2:
            return self.initial().astype(np.float64) * math.exp(-2 * self.viscosity * self.steps * self.dt)
        return np.load(self.reference) if self.reference else None


def _fields(nodes: int) -> list[NDArray[np.float64]]:
    """A random vorticity and its velocity on nodes x nodes: the same field on every grid."""
    rng = np.random.default_rng(0)
    m = np.fft.fftfreq(nodes, 1 / nodes)
    spectrum = np.zeros((nodes, nodes), complex)
    for i in range(-12, 13):
        for j in range(-12, 13):
            k = math.hypot(i, j)
            phase = rng.uniform(0, 2 * np.pi)
            if 0 < k <= 12:
                spectrum[i, j] = nodes**2 * k * (k / 4) ** 1.5 * math.exp(-((k / 4) ** 2)) * np.exp(1j * phase)
    psi = spectrum / np.maximum(m[:, None] ** 2 + m[None] ** 2, 1)
    return [np.fft.ifft2(part).real for part in (spectrum, 1j * m[None] * psi, -1j * m[:, None] * psi)]


def read_case() -> Flow:
    """Read the case from the first argument."""
    return Flow(**json.loads(sys.argv[1]))


def compiled(function: Callable[..., Any], *args: Any) -> tuple[Callable[..., Any], float, int]:
    """Compile ahead of time; returns the function, the seconds it took and its bytes of temporary memory."""
    import jax

    start = time.perf_counter()
    program = jax.jit(function).lower(*args).compile()
    seconds = time.perf_counter() - start
    memory = program.memory_analysis()
    return program, seconds, int(memory.temp_size_in_bytes) if memory is not None else 0


def measure(problem: Flow, final: Callable[[Any], Any], versions: dict[str, str]) -> None:
    """Time a JAX function initial field -> final field, and its gradient where asked; print the answer."""
    import jax
    import jax.numpy as jnp

    field = jnp.asarray(problem.initial())
    program, compiling, temporary = compiled(final, field)
    ours = np.asarray(program(field), np.float64)
    exact = problem.exact()
    error = None if exact is None else float(np.sqrt(np.mean((ours - exact) ** 2) / np.mean(exact**2)))
    answer: dict[str, Any] = {"error": error, "versions": versions, "finite": bool(np.isfinite(ours).all())}
    answer["seconds"] = clock(lambda: jax.block_until_ready(program(field)), problem.repeats)
    if problem.mode == "gradient":
        answer["forward_seconds"] = answer["seconds"]
        gradient, compiling, temporary = compiled(jax.grad(lambda w: jnp.mean(final(w) ** 2)), field)
        answer["seconds"] = clock(lambda: jax.block_until_ready(gradient(field)), problem.repeats)
        answer["slope"] = float(np.sum(np.asarray(gradient(field), np.float64) * problem.initial()))
    print(json.dumps({**answer, "compile": compiling, "temporary_bytes": temporary}), flush=True)


def clock(run: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Time `run`, which must return only when its work is done: "median" and "best" seconds after a first call."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return {"first": seconds[0], "median": median(seconds[1:]), "best": min(seconds[1:])}
