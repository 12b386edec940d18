"""The equations that every code in `fixed_point.py` solves, and how its answers are judged.

Needs NumPy alone: each code runs in an environment of its own. A case arrives as JSON, for example
`{"bench": "B2", "size": 1000, "parameter": 0.99, "repeats": 3}`, as the first argument; the answer is one line of JSON
with one row per method. "Evaluations" are values of the function plus products with its Jacobian or the transpose.
"""

import json
import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# 2-norm of the residual that counts as solved. B1: a share of that at the start, beyond which round-off of the
# finest grid begins; B2, B5: absolute; B3: absolute, per sample, in float32.
TOLERANCE = {"B1": 1e-10, "B2": 1e-8, "B3": 1e-4, "B5": 1e-8}
MOST = 5000  # iterations that any method may take

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What to solve.

    Attributes:
        bench: "B1" (Brusselator), "B2" (H-equation), "B3" (batch of equilibrium layers) or "B5" (23 standard systems).
        size: nodes per side, unknowns, or unknowns per sample.
        parameter: c of B2, samples of B3.
        repeats: timed runs per process.
        methods: names that a method must contain one of; empty for all.
    """

    bench: str
    size: int = 0
    parameter: float = 0.0
    repeats: int = 3
    methods: tuple[str, ...] = ()

    def wants(self, method: str) -> bool:
        """Whether a method was asked for."""
        return not self.methods or any(name in method for name in self.methods)


def read_case() -> Case:
    """Read the case from the first argument."""
    given = json.loads(sys.argv[1])
    return Case(**{**given, "methods": tuple(given.get("methods", ()))})


def answer(rows: list[Row], versions: dict[str, str]) -> None:
    """Print the answer as the last line of standard output."""
    print(json.dumps({"rows": rows, "versions": versions}), flush=True)


# ---- B1: steady Brusselator of the benchmarks of NonlinearSolve.jl, periodic, spacing 1 / (n - 1) ----

A, B, ALPHA = 3.4, 1.0, 10.0


def source(n: int) -> NDArray[np.float64]:
    """5 in the disc of radius 0.1 about (0.3, 0.6)."""
    x = np.linspace(0, 1, n)
    return 5.0 * ((x[:, None] - 0.3) ** 2 + (x - 0.6) ** 2 <= 0.1**2)


def brusselator_start(n: int) -> NDArray[np.float64]:
    """(u, v) = (22 (y (1 - y))^1.5, 27 (x (1 - x))^1.5)."""
    x = np.linspace(0, 1, n)
    bump = (x * (1 - x)) ** 1.5
    return np.stack([np.broadcast_to(22 * bump, (n, n)), np.broadcast_to(27 * bump[:, None], (n, n))])


def brusselator(xp: Any, state: Any, a: Any, b: Any, alpha: Any, disc: Any) -> Any:
    """Rates of u and v; mean(u) = B + mean(source) at rest, whatever A and alpha."""
    u, v = state[0], state[1]

    def laplacian(w: Any) -> Any:
        around = xp.roll(w, 1, 0) + xp.roll(w, -1, 0) + xp.roll(w, 1, 1) + xp.roll(w, -1, 1)
        return (around - 4 * w) * (w.shape[0] - 1) ** 2

    reaction = u**2 * v
    return xp.stack([b + reaction - (a + 1) * u + alpha * laplacian(u) + disc, a * u - reaction + alpha * laplacian(v)])


def symbol(n: int) -> NDArray[np.float64]:
    """Eigenvalues of the Laplacian, for `fft2`."""
    k = 2 - 2 * np.cos(2 * np.pi * np.arange(n) / n)
    return -(k[:, None] + k) * (n - 1) ** 2


def block_inverse(xp: Any, r: Any, u: Any, v: Any, a: Any, alpha: Any, eigenvalues: Any) -> Any:
    """Inverse of the Jacobian of the rates with the constants u and v in place of the fields, applied to r."""
    first, second = xp.fft.fft2(r[0]), xp.fft.fft2(r[1])
    diffusion = alpha * eigenvalues
    # Rows of the 2 x 2 block: (2 u v - A - 1 + d, u^2), (A - 2 u v, -u^2 + d).
    p, q = 2 * u * v - a - 1 + diffusion, u**2
    s, t = a - 2 * u * v, diffusion - u**2
    det = p * t - q * s
    solved = xp.stack([(t * first - q * second) / det, (p * second - s * first) / det])
    return xp.real(xp.fft.ifft2(solved)).astype(r.dtype)


# ---- B2: Chandrasekhar's H-equation by the midpoint rule ----


def kernel(n: int) -> NDArray[np.float64]:
    """mu_i / (mu_i + mu_j) / (2 n)."""
    mu = (np.arange(n) + 0.5) / n
    return mu[:, None] / (mu[:, None] + mu) / (2 * n)


def h_map(x: Any, c: Any, kernel: Any) -> Any:
    """x -> 1 / (1 - c K x)."""
    return 1 / (1 - c * (kernel @ x))


def h_mean(c: float) -> float:
    """Mean of the physical solution, at every n."""
    return 2 / c * (1 - math.sqrt(1 - c))


def h_slope(c: float) -> float:
    """d mean / d c."""
    return -2 / c**2 * (1 - math.sqrt(1 - c)) + 1 / (c * math.sqrt(1 - c))


def judge_h(mean: float, slope: float | None, c: float) -> Row:
    """Which root, and the relative error of the gradient."""
    other = 2 / c * (1 + math.sqrt(1 - c))
    root = "physical" if abs(mean - h_mean(c)) < abs(mean - other) else "other"
    return {"root": root, "gradient_error": None if slope is None else abs(slope / h_slope(c) - 1)}


# ---- B3: a batch of layers y = tanh(gain W y + U x + b), the gain different in every sample ----


def layer(n: int, batch: int) -> dict[str, NDArray[np.float32]]:
    """Weights with |W|_2 = 1, inputs, and gains spread over [0.3, 0.999]."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((n, n))
    arrays = {
        "w": w / np.linalg.norm(w, 2),
        "u": rng.standard_normal((n, n)) / math.sqrt(n),
        "b": 0.1 * rng.standard_normal(n),
        "x": rng.standard_normal((batch, n)),
        "gain": rng.permutation(np.linspace(0.3, 0.999, batch)),
    }
    return {name: value.astype(np.float32) for name, value in arrays.items()}


def layer_truth(arrays: dict[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float64]]:
    """Gradient of mean(y^2) with respect to W, U and b in float64, by dense solves."""
    w, u, b, x, gain = (arrays[k].astype(float) for k in ("w", "u", "b", "x", "gain"))
    push = x @ u.T + b
    y = np.zeros_like(push)
    for _ in range(100_000):
        new = np.tanh(gain[:, None] * (y @ w.T) + push)
        change, y = np.abs(new - y).max(), new
        if change < 1e-13:
            break
    slope = 1 - y**2
    bars = np.empty_like(y)
    for i, (g, s) in enumerate(zip(gain, slope, strict=True)):
        jacobian = s[:, None] * (g * w)
        bars[i] = s * np.linalg.solve((np.eye(len(s)) - jacobian).T, 2 * y[i] / y.size)
    return {"w": (bars * gain[:, None]).T @ y, "u": bars.T @ x, "b": bars.sum(0)}


def judge_layer(found: dict[str, Any], truth: dict[str, NDArray[np.float64]]) -> float:
    """Relative error of the whole gradient."""
    off = sum(float(np.sum((np.asarray(found[k], float) - truth[k]) ** 2)) for k in truth)
    return math.sqrt(off / sum(float(np.sum(truth[k] ** 2)) for k in truth))
