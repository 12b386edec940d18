"""Problems and exact solutions that the tests of waves share."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import solvers as sv

SHAPE, SPACING = (14, 16), (1.0, 0.9)

# Every kind of face, alone and beside every other. A layer of three cells reflects, which does not matter here.
FACES = {
    "sea": ((sv.Free(), sv.Absorbing(3)), sv.Absorbing(3)),
    "mixed": ((sv.Rigid(), sv.Free()), sv.Periodic()),
    "channel": (sv.Periodic(), (sv.Absorbing(4), sv.Rigid())),
    "room": (sv.Rigid(), (sv.Free(), sv.Rigid())),
}
LOSSLESS = {
    "free": sv.Free(),
    "rigid": sv.Rigid(),
    "periodic": sv.Periodic(),
    "mixed": FACES["mixed"],
    "room": FACES["room"],
}


def few(*names, others):
    """Parameters of a test: these by default, the others where slow tests are asked for."""
    return [*names, *(pytest.param(n, marks=pytest.mark.slow) for n in others if n not in names)]


@dataclasses.dataclass(frozen=True)
class Problem:
    """A small wave run as a function of everything that may be differentiated, in a dict of arrays."""

    boundary: Any
    order: int = 4
    time_order: int = 2
    steps: int = 40
    every: int = 1
    adjoint: Any = sv.StoreAll()  # noqa: RUF009
    observe: str = "receivers"

    def record(self, p: dict) -> Any:
        """What is observed, and the final pressure."""
        wave = self.wave(p)
        receivers = wave.receivers(p["receivers"])
        observe = {
            "receivers": receivers,
            "all": {"gather": receivers, "power": lambda s: jnp.sum(wave.pressure(s) ** 2) * p["speed"][3, 4]},
            "sums": (sv.Mean(lambda s: wave.velocity(s) ** 2), sv.Fourier(receivers, [0.05, 0.2]), receivers),
        }[self.observe]
        run = sv.simulate(
            wave,
            wave.state(p["pressure"], p["velocity"]),
            steps=self.steps,
            dt=p["dt"],
            inputs=p["signals"],
            observe=observe,
            every=self.every,
            adjoint=self.adjoint,
        )
        return run.observed, wave.pressure(run.final)

    def wave(self, p: dict) -> Any:
        return sv.Wave(
            sv.Grid(p["speed"].shape, SPACING[: p["speed"].ndim]),
            p["speed"],
            density=p.get("density"),
            order=self.order,
            time_order=self.time_order,
            boundary=self.boundary,
            sources=p["sources"],
        )

    def misfit(self, p: dict) -> Any:
        """A smooth function of all that was recorded, quartic so that its third derivatives do not vanish."""
        leaves = jax.tree.leaves(self.record(p))
        return sum(jnp.sum(jnp.abs(x) ** 2) + 0.1 * jnp.sum(jnp.abs(x) ** 4) for x in leaves)


def parameters(density: bool = False, steps: int = 40, dtype: Any = jnp.float64, seed: int = 0) -> dict:
    """Smoothly varying medium, rough signals and states, points everywhere in their cells."""
    rng = np.random.default_rng(seed)
    x, y = np.meshgrid(*(np.arange(n) * h for n, h in zip(SHAPE, SPACING, strict=True)), indexing="ij")
    bump = np.exp(-((x - 6) ** 2 + (y - 5) ** 2) / 8)
    p = {
        "speed": 1 + 0.2 * bump + 0.03 * rng.standard_normal(SHAPE),
        "signals": rng.standard_normal((steps, 2)),
        "pressure": np.exp(-((x - 8) ** 2 + (y - 9) ** 2) / 4),
        "velocity": 0.3 * np.sin(x) * np.cos(y),
        # Deep inside, and with a window that crosses two faces.
        "sources": np.array([[6.3, 7.45], [1.27, 12.1]]),
        "receivers": np.array([[2.41, 3.3], [9.7, 0.62], [12.45, 13.1]]),
        "dt": np.asarray(0.3),
    }
    if density:
        p["density"] = 1 + 0.4 * bump + 0.03 * rng.standard_normal(SHAPE)
    return {name: jnp.asarray(value, dtype) for name, value in p.items()}


def direction(p: dict, name: str, size: float, seed: int = 1) -> dict:
    """Zero in all but one of the parameters, random there."""
    d = {key: jnp.zeros_like(value) for key, value in p.items()}
    d[name] = size * jax.random.normal(jax.random.key(seed), p[name].shape, p[name].dtype)
    return d


# Root-mean-square of a perturbation of each: a few percent of the value, or of a cell.
SIZES = {
    "speed": 0.05, "density": 0.1, "signals": 1.0, "pressure": 0.3, "velocity": 0.3, "sources": 0.3, "receivers": 0.3,
    "dt": 0.02,
}  # fmt: skip
