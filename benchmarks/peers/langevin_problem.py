"""The problems of `langevin.py`, for us and for the peers: densities with exact answers, and how an answer is told.

A case is a JSON object {"problem", "d", "condition", "chains", "warmup", "steps", "repeats"}; the answer is one JSON
line with seconds, compile time, gradients, draws of the quantities that are judged, and versions.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Problem:
    """One case."""

    problem: str
    d: int
    condition: float
    chains: int
    warmup: int
    steps: int
    repeats: int

    @property
    def deviations(self) -> np.ndarray:
        """Standard deviations of the Gaussian ladder, evenly spaced in the logarithm, the largest one 1."""
        return np.logspace(0.0, -0.5 * np.log10(self.condition), self.d)

    def logdensity(self, x: Any) -> Any:
        """Log density on vectors."""
        if self.problem in ("gaussian", "sde"):
            return -0.5 * jnp.sum((x / jnp.asarray(self.deviations, x.dtype)) ** 2)
        if self.problem == "schools":
            mu, log_tau, z = x[0], x[1], x[2:]
            misfit = (jnp.asarray(EFFECTS, x.dtype) - mu - jnp.exp(log_tau) * z) / jnp.asarray(ERRORS, x.dtype)
            prior = -0.5 * (mu / 5.0) ** 2 - jnp.log1p((jnp.exp(log_tau) / 5.0) ** 2) - 0.5 * jnp.sum(z**2)
            return -0.5 * jnp.sum(misfit**2) + prior + log_tau
        raise ValueError(self.problem)

    def judged(self, draws: np.ndarray) -> np.ndarray:
        """Quantities whose expectations are known, from draws (chains, steps, d)."""
        if self.problem == "schools":
            return np.stack([draws[..., 0], np.exp(draws[..., 1])], axis=-1)
        if self.problem == "sde":
            # All coordinates are alike and independent: as many chains of the mean and the square at four times.
            times = self.transient_steps()
            away = draws[:, times - 1] - self.transient_mean()[:, None]
            return np.concatenate([away, away**2], axis=1)
        # Unit and squares of the widest, the narrowest, and a few directions between.
        chosen = draws[..., np.unique(np.linspace(0, self.d - 1, 8).astype(int))]
        return np.concatenate([chosen, chosen**2], axis=-1)

    def truth(self) -> np.ndarray:
        """Their expectations."""
        if self.problem == "schools":
            # By quadrature over tau, given which all is Gaussian.
            return np.array(schools_by_quadrature())
        if self.problem == "sde":
            # Euler's chain x' = (1 - h) x + sqrt(2 h) xi from a point: 2 h sum of (1 - h)^(2 k).
            keep = (1 - SDE_STEP) ** (2 * self.transient_steps())
            variance = 2 * SDE_STEP * (1 - keep) / (1 - (1 - SDE_STEP) ** 2)
            return np.concatenate([np.zeros_like(variance), variance])
        variances = self.deviations[np.unique(np.linspace(0, self.d - 1, 8).astype(int))] ** 2
        return np.concatenate([np.zeros_like(variances), variances])

    def transient_steps(self) -> np.ndarray:
        """Numbers of steps after which the chain of the case "sde" is judged."""
        return np.unique(np.linspace(1, self.steps, 5).astype(int)[1:])

    def transient_mean(self) -> np.ndarray:
        """Exact means of that chain from its start, at those times."""
        return SDE_START * (1 - SDE_STEP) ** self.transient_steps()

    def starts(self) -> np.ndarray:
        """One start per chain, float32: exact draws of the Gaussians, so that no sampler pays for a bad start."""
        if self.problem == "sde":
            return np.full((self.chains, self.d), SDE_START, np.float32)
        rng = np.random.default_rng(0)
        scale = self.deviations if self.problem == "gaussian" else np.full(self.d, 0.5)
        return (rng.normal(size=(self.chains, self.d)) * scale).astype(np.float32)


SDE_STEP, SDE_START = 1e-3, 3.0  # step and start of the case "sde"

EFFECTS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0)
ERRORS = (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)


FIELD_POINTS, FIELD_DATUM, FIELD_NOISE = (
    32,
    0.5,
    0.3,
)  # points where the field is seen, what is seen there, its deviation
FIELD_LENGTH, FIELD_JUDGED = 0.2, 8


def field_nodes(side: int) -> np.ndarray:
    """Nodes (rows, columns) at which the field of the case "field" is seen: the same places on every grid."""
    return np.floor(np.random.default_rng(5).uniform(size=(2, FIELD_POINTS)) * side).astype(int)


def field_covariance(side: int, nodes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Prior covariance between nodes: periodic, spectrum (3 / length^2 + k^2)^(-3/2 - 1), variance one."""
    k = 2 * np.pi * np.fft.fftfreq(side, 1 / side)
    spectrum = (3.0 / FIELD_LENGTH**2 + k[:, None] ** 2 + k**2) ** -2.5
    rows = np.fft.ifft2(spectrum / spectrum.mean()).real
    apart = nodes[:, :, None] - others[:, None, :]
    return rows[apart[0] % side, apart[1] % side]


def field_truth(side: int) -> np.ndarray:
    """Posterior means and second moments about them at the judged nodes, by dense algebra with all data."""
    nodes = field_nodes(side)
    C = field_covariance(side, nodes, nodes)
    gain = C @ np.linalg.inv(C + FIELD_NOISE**2 * np.eye(FIELD_POINTS))
    mean, variance = gain @ np.full(FIELD_POINTS, FIELD_DATUM), np.diag(C - gain @ C)
    return np.stack([mean, variance])[:, :FIELD_JUDGED]


def field_answer(side: int, code: str, seconds: float, compiling: float, solves: float, values: Any, **more: Any):
    """One line of the answer for fields: `values` are those at all seen nodes, (chains, steps, nodes)."""
    mean, variance = field_truth(side)
    away = np.asarray(values, float)[..., :FIELD_JUDGED] - mean
    told = {"code": code, "seconds": seconds, "compile": compiling, "solves": solves, **more}
    path = sys.argv[2] + f"/{code}.npz"
    np.savez(path, values=np.concatenate([away, away**2], axis=-1), truth=np.concatenate([0 * mean, variance]))
    print(json.dumps({**told, "file": path}), flush=True)


def schools_by_quadrature() -> tuple[float, float]:
    """Posterior means of mu and tau; the trapezoidal rule in log tau."""
    log_tau = np.linspace(-30.0, 40.0, 20_001)
    tau = np.exp(log_tau)[:, None]
    y, variance = np.array(EFFECTS), np.array(ERRORS) ** 2 + tau**2
    precision = (1 / variance).sum(axis=1) + 1 / 25
    centre = (y / variance).sum(axis=1) / precision
    logs = -0.5 * np.log(variance).sum(axis=1) - 0.5 * (y**2 / variance).sum(axis=1) - 0.5 * np.log(precision)
    logs += 0.5 * precision * centre**2 + log_tau - np.logaddexp(0.0, 2 * (log_tau - np.log(5.0)))
    weight = np.exp(logs - logs.max())
    weight /= weight.sum()
    return float(weight @ centre), float(weight @ tau[:, 0])


def read_case() -> Problem:
    """The case on the command line."""
    return Problem(**json.loads(sys.argv[1]))


def clock(function: Callable[[int], Any], repeats: int) -> list[float]:
    """Seconds of each of several calls with seeds 1, 2, ... after a first one that compiles."""
    found = []
    for seed in range(1, repeats + 1):
        start = time.perf_counter()
        jax.block_until_ready(function(seed))
        found.append(time.perf_counter() - start)
    return found


def answer(problem: Problem, code: str, seconds: float, compiling: float, gradients: float, draws: Any, **more: Any):
    """One line of the answer. `gradients` are those of all chains after the warm-up, as `seconds` is."""
    values = problem.judged(np.asarray(draws, float))
    told = {"code": code, "seconds": seconds, "compile": compiling, "gradients": gradients, **more}
    path = sys.argv[2] + f"/{code}.npz"
    np.savez(path, values=values, truth=problem.truth())
    print(json.dumps({**told, "file": path}), flush=True)
