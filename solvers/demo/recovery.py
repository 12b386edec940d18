"""Main part: recover the velocity model from recorded waves by gradients through the solver, low frequencies first."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from .. import plot
from .page import Chapter, Picture, Row
from .progress import progress
from .survey import FASTEST, LENS, Survey, survey

SLOWEST = 1400.0  # m/s


class Stage(NamedTuple):
    """One frequency of the search."""

    frequency: float
    misfits: list[float]
    model: np.ndarray


def recovery(folder: Path, quick: bool) -> Chapter:
    """Minimise the misfit of all shots over the speed, low frequencies first."""
    line = survey(40.0, 5, 1.6) if quick else survey(25.0, 8, 1.8)
    frequencies, iterations = ((2.5, 4.0), 6) if quick else ((3.0, 5.0, 8.0), 7)
    with progress("recovery", len(frequencies) * iterations, lines=10) as step:
        stages = search(line, frequencies, iterations, step)
    found = stages[-1].model
    _draw_models(folder / "models.png", line, stages)
    _draw_profile(folder / "profile.png", line, found)
    ax = plot.misfit({f"{s.frequency:g} Hz": s.misfits for s in stages}, label="misfit / data energy")
    ax.set_title("data misfit at each frequency")
    _save(ax.figure, folder / "misfit.png")
    return Chapter(
        "Recovering the model",
        f"{len(line.shots)} shots are recorded in the true model by {len(line.receivers)} receivers. The search sees "
        f"these records only; it starts from a blurred model without the lens and changes the speed at "
        f"{int(line.below_water().sum())} nodes by L-BFGS-B, from {frequencies[0]:g} Hz to {frequencies[-1]:g} Hz. The "
        "records come from the same solver and hold no noise: this shows the machinery at its best, not a field case.",
        _rows(line, stages),
        [
            Picture(
                "models.png",
                "The true model, the start, and what was found after the lowest and after the "
                "highest frequency, all in one colour scale. Stars are the shots.",
            ),
            Picture(
                "profile.png",
                "Speed along a vertical line through the middle of the lens. Deep parts are seen "
                "by few waves and stay closer to the start.",
            ),
            Picture("misfit.png", "Misfit against iteration. Each frequency starts from the model of the one before."),
        ],
    )


def search(line: Survey, frequencies: tuple, iterations: int, step: Callable[[str], None]) -> list[Stage]:
    """L-BFGS-B at each frequency in turn, each from the model of the one before."""

    @jax.jit
    def misfit_and_gradient(speed: Array, signal: Array, recorded: Array) -> tuple[Array, Array]:
        def misfit(speed: Any) -> Array:
            return 0.5 * jnp.sum((line.record_all(speed, signal) - recorded) ** 2) / jnp.sum(recorded**2)

        return jax.value_and_grad(misfit)(speed)

    record = jax.jit(line.record_all)
    stages = [Stage(0.0, [], line.start.astype(np.float64))]
    for frequency in frequencies:
        signal = line.signal(frequency)
        evaluate = partial(misfit_and_gradient, signal=signal, recorded=record(line.true, signal))
        stages.append(descend(line, evaluate, stages[-1].model, frequency, iterations, step))
    return stages[1:]


def descend(
    line: Survey, evaluate: Callable, base: np.ndarray, frequency: float, iterations: int, step: Callable[[str], None]
) -> Stage:
    """One frequency: `iterations` steps of L-BFGS-B from a model."""
    from scipy.optimize import OptimizeResult, minimize

    free = line.below_water()
    # The unknown is the change of speed in units that grow with depth, where waves are weak and gradients small.
    # They are so large that SciPy's first step, of length one at most, is worth its evaluation.
    unit = (2000.0 * (0.3 + line.grid.axes()[0] / line.grid.extent[0][1])[:, None] * np.ones(line.grid.shape))[free]
    first = float(evaluate(base.astype(np.float32))[0])
    misfits = [first]

    def speed_of(unknown: np.ndarray) -> np.ndarray:
        speed = base.copy()
        speed[free] += unit * unknown
        return speed

    def relative(unknown: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = evaluate(speed_of(unknown).astype(np.float32))
        return float(value) / first, np.asarray(gradient, np.float64)[free] * unit / first

    # SciPy hands over the misfit only to a callback with this name of its argument.
    def tell(intermediate_result: OptimizeResult) -> None:
        misfits.append(float(intermediate_result.fun) * first)
        step(f"{frequency:g} Hz, misfit {misfits[-1]:.2e}")

    bounds = list(zip((SLOWEST - base[free]) / unit, (FASTEST - base[free]) / unit, strict=True))
    options = {"maxiter": iterations}
    zero = np.zeros(unit.size)
    best = minimize(relative, zero, jac=True, method="L-BFGS-B", bounds=bounds, callback=tell, options=options)
    return Stage(frequency, misfits, speed_of(best.x))


def _rows(line: Survey, stages: list[Stage]) -> list[Row]:
    upper = line.grid.axes()[0] <= 800.0

    def error(model: np.ndarray) -> float:
        return float(np.sqrt(np.mean((model - line.true)[upper] ** 2)))

    node = tuple(round(x / h) for x, h in zip(LENS, line.grid.spacing, strict=True))
    true, start, found = (float(m[node]) for m in (line.true, line.start, stages[-1].model))
    before, after = error(line.start), error(stages[-1].model)
    rows = [
        Row("speed in the lens, start, m/s", f"{start:.0f}", f"{true:.0f}", f"{start - true:+.0f} m/s"),
        Row("speed in the lens, found, m/s", f"{found:.0f}", f"{true:.0f}", f"{found - true:+.0f} m/s"),
        Row("model error above 800 m, start, m/s", f"{before:.1f}", "0", "100 %"),
        Row("model error above 800 m, found, m/s", f"{after:.1f}", "0", f"{100 * after / before:.0f} %"),
    ]
    for s in stages:
        fall = 100 * (s.misfits[-1] / s.misfits[0])
        rows.append(Row(f"misfit at {s.frequency:g} Hz, last", f"{s.misfits[-1]:.1e}", "0", f"{fall:.2g} % of first"))
    return rows


def _draw_models(path: Path, line: Survey, stages: list[Stage]) -> None:
    from matplotlib import pyplot

    shown = {"true": line.true, "start": line.start}
    shown |= {f"found after {s.frequency:g} Hz": s.model for s in (stages[0], stages[-1])}
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 5.4), layout="constrained")
    plot.models(shown, line.grid, axes=axes)
    for ax in axes.flat:
        ax.label_outer()
        ax.plot(line.shots[:, 1], line.shots[:, 0], "*", color="w", markeredgecolor="k", markeredgewidth=0.5)
    _save(figure, path)


def _draw_profile(path: Path, line: Survey, found: np.ndarray) -> None:
    from matplotlib import pyplot

    column = round(LENS[1] / line.grid.spacing[1])
    depth = line.grid.axes()[0]
    figure, ax = pyplot.subplots(figsize=(6.4, 3.8), layout="constrained")
    ax.plot(depth, line.true[:, column], color="0.2", linewidth=2, label="true")
    ax.plot(depth, line.start[:, column], color="C1", linestyle="--", label="start")
    ax.plot(depth, found[:, column], color="C0", linewidth=2, label="found")
    ax.set_xlabel("depth (m)")
    ax.set_ylabel("speed (m/s)")
    ax.set_title(f"through the lens, at {column * line.grid.spacing[1]:.0f} m")
    ax.margins(x=0)
    ax.grid(alpha=0.25)
    ax.legend(frameon=False)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path, dpi=110)
    pyplot.close(figure)
