"""The mixtures that every code in `generate.py` draws from, and how its answers are judged.

Needs NumPy and SciPy alone. A case arrives as JSON, for example `{"kind": "flow", "d": 2, "modes": 8, "samples": 256,
"evaluations": [24, 48], "repeats": 3}`, as the first argument; the answer is one line of JSON with one row per method
and number of evaluations.

The data are a mixture of isotropic Gaussians of deviation 0.3 whose modes do not touch, the noise goes from 0.01 to 20
with alpha = 1, and the score is exact. "flow" is the probability flow from given starts in float64: the error is the
root mean square distance of the end from that of DOP853 at a tolerance of 1e-12. "diffusion" is the reverse diffusion
in float32: the error is that of the variance within the modes, relative, over all repeats.
"""

import json
import math
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SMALLEST, LARGEST, DEVIATION = 0.01, 20.0, 0.3

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """What to draw.

    Attributes:
        kind: "flow" or "diffusion".
        d: numbers per sample.
        modes: number of modes.
        samples: number of samples.
        evaluations: evaluations of the score per sample, about, for which each method is run.
        repeats: timed runs per process.
        truth: file with the ends of the flow.
    """

    kind: str
    d: int
    modes: int
    samples: int
    evaluations: tuple[int, ...]
    repeats: int = 3
    truth: str = ""

    def means(self) -> NDArray[np.float64]:
        """Centres of the modes: on a ring in the plane, at random elsewhere."""
        if self.d == 2:
            angle = 2 * np.pi * np.arange(self.modes) / self.modes
            return 5 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return 3 * np.random.default_rng(1).normal(size=(self.modes, self.d))

    def starts(self) -> NDArray[np.float64]:
        """Noise at the largest level."""
        return LARGEST * np.random.default_rng(0).normal(size=(self.samples, self.d))


def read_case() -> Case:
    """Read the case from the first argument."""
    given = json.loads(sys.argv[1])
    return Case(**{**given, "evaluations": tuple(given["evaluations"])})


def answer(rows: list[Row], versions: dict[str, str]) -> None:
    """Print the answer as the last line of standard output."""
    print(json.dumps({"rows": rows, "versions": versions}), flush=True)


def mixture_score(xp: Any, means: Any, x: Any, sigma: Any) -> Any:
    """grad log p(x; sigma) of one sample or of several, in the last axis of x."""
    variance = DEVIATION**2 + sigma**2
    away = means - x[..., None, :]
    logs = -0.5 * xp.sum(away**2, axis=-1) / variance
    weights = xp.exp(logs - xp.max(logs, axis=-1, keepdims=True))
    weights = weights / xp.sum(weights, axis=-1, keepdims=True)
    return xp.sum(weights[..., None] * away, axis=-2) / variance


def true_ends(case: Case) -> NDArray[np.float64]:
    """Ends of the probability flow dy/dt = sigma^2 score, sigma = e^-t."""
    from scipy.integrate import solve_ivp

    means, shape = case.means(), (case.samples, case.d)

    def velocity(t: float, y: NDArray[np.float64]) -> NDArray[np.float64]:
        sigma = math.exp(-t)
        return (sigma**2 * mixture_score(np, means, y.reshape(shape), sigma)).ravel()

    span = (-math.log(LARGEST), -math.log(SMALLEST))
    found = solve_ivp(velocity, span, case.starts().ravel(), method="DOP853", rtol=1e-12, atol=1e-12)
    return found.y[:, -1].reshape(shape)


def judged(case: Case, draws: NDArray[Any]) -> tuple[float, float]:
    """The error, and its standard error (0 for the flow). `draws` have the shape (repeats, samples, d)."""
    draws = np.asarray(draws, float)
    if case.kind == "flow":
        return float(np.sqrt(np.mean(np.sum((draws[-1] - np.load(case.truth)) ** 2, axis=-1)))), 0.0
    x = draws.reshape(-1, case.d)
    away = x[:, None] - case.means()
    near = np.min(np.sum(away**2, axis=2), axis=1)
    variance = np.mean(near) / case.d / (DEVIATION**2 + SMALLEST**2)
    return abs(float(variance) - 1), math.sqrt(2 / x.size)
